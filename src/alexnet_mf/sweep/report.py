"""The report on a sweep: tables, remarks and conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from alexnet_mf.instruments.tables import Table
from alexnet_mf.instruments.units import bytes_text
from alexnet_mf.sweep.plan import Plan, Setup, augment_text
from alexnet_mf.sweep.record import Record, Result
from alexnet_mf.sweep.run import chosen


@dataclass(frozen=True)
class Outcome:
    """Finished final trainings of one setup, one for each seed."""

    setup: Setup
    label: str
    """Name among the setups of the sweep."""
    learning_rate: float
    results: list[Result]

    def values(self, name: str, epoch: int = -1) -> list[float]:
        """Return a figure of an epoch, seed by seed."""
        return [getattr(result.epochs[epoch], name) for result in self.results]

    @property
    def rates(self) -> list[float]:
        """Return the images per second, seed by seed."""
        return [result.images_per_second for result in self.results if result.images_per_second is not None]

    @property
    def memory(self) -> int | None:
        """Return the largest peak: of the device's memory if it is known, else of the process's."""
        peaks = [result.peak_device_memory_bytes or result.peak_memory_bytes for result in self.results]
        return max((peak for peak in peaks if peak is not None), default=None)


@dataclass(frozen=True)
class Report:
    """All results of a record."""

    outcomes: list[Outcome]
    tables: list[Table]
    remarks: list[str]
    conditions: list[str]
    failed: bool
    """True if a final training failed, or could not start for lack of a learning rate."""


def report(record: Record) -> Report:
    """Return the report on a record."""
    plan = record.plan
    outcomes = []
    for setup in plan.setups():
        good = [entry for entry in record.trainings if entry.training.setup == setup and not entry.training.held_out
                and entry.result]
        if good:
            outcomes.append(Outcome(setup, label(plan, setup), good[0].training.learning_rate,
                                    [entry.result for entry in good if entry.result]))
    tables = [choice_table(plan, record)] if plan.choosing else []
    if outcomes:
        tables += [closing_table(plan, outcomes), epochs_table(outcomes)]
    failed = any(entry.failed and not entry.training.held_out for entry in record.trainings)
    return Report(outcomes, tables, remarks(plan, record), conditions(record),
                  failed or bool(without_rate(plan, record)))


def label(plan: Plan, setup: Setup) -> str:
    """Return the parts of a setup that differ within the plan, or the network if none differs."""
    parts = [setup.net] if len(plan.nets) > 1 else []
    parts += [augment_text(setup.augment)] if len(plan.augments) > 1 else []
    parts += [f"batch {setup.batch_size}"] if len(plan.batch_sizes) > 1 else []
    return ", ".join(parts) or setup.net


def closing_table(plan: Plan, outcomes: Sequence[Outcome]) -> Table:
    """Return the table of the last epoch's figures."""
    rows = [[outcome.setup.net, augment_text(outcome.setup.augment), str(outcome.setup.batch_size),
             f"{outcome.learning_rate:g}", str(len(outcome.results)),
             spread(outcome.values("test_accuracy")), f"{fmean(outcome.values('train_accuracy')):.3f}",
             f"{fmean(outcome.values('loss')):.3f}", f"{median(outcome.rates):,.1f}" if outcome.rates else "",
             bytes_text(outcome.memory)] for outcome in outcomes]
    momentum = f", momentum {plan.momentum:g}" if plan.momentum else ""
    epochs = f"after {plan.epochs} epoch{'s' * (plan.epochs > 1)}{momentum}"
    return Table(f"{epochs}: means over the seeds (lowest to highest)", [
        "network", "augment", "batch", "lr", "seeds", "test accuracy", "train accuracy", "loss", "images/s",
        "peak memory"], rows, [2, 3, 4, 5, 6, 7, 8, 9])


def epochs_table(outcomes: Sequence[Outcome]) -> Table:
    """Return the table of test accuracies by epoch."""
    count = max(len(result.epochs) for outcome in outcomes for result in outcome.results)
    rows = [[str(epoch + 1), *(spread(outcome.values("test_accuracy", epoch)) for outcome in outcomes)]
            for epoch in range(count)]
    return Table("test accuracy by epoch: means over the seeds (lowest to highest)",
                 ["epoch", *(outcome.label for outcome in outcomes)], rows, list(range(len(outcomes) + 1)))


def choice_table(plan: Plan, record: Record) -> Table:
    """Return the table of accuracies on the held-out images, by learning rate."""
    best = chosen(record)
    entries = {entry.training: entry for entry in record.trainings if entry.training.held_out}
    rates = list(dict.fromkeys(training.learning_rate for training in plan.choices()))
    rows = []
    for setup in plan.choosing:
        cells = dict.fromkeys(rates, "")
        for training in (training for training in plan.choices() if training.setup == setup and training in entries):
            entry, rate = entries[training], training.learning_rate
            cells[rate] = entry.failed or f"{entry.accuracy:.3f}{' *' if best.get(setup) == rate else ''}"
        rows.append([label(plan, setup), *cells.values()])
    epochs = plan.choosing_epochs or plan.epochs
    return Table(f"accuracy on {plan.held_out:,} held-out training images by learning rate (*: chosen), seed "
                 f"{plan.seeds[0]}, {epochs} epoch{'s' * (epochs > 1)}",
                 ["", *(f"{rate:g}" for rate in rates)], rows, list(range(1, len(rates) + 1)))


def remarks(plan: Plan, record: Record) -> list[str]:
    """Return lines about failed and missing trainings."""
    lines = []
    for entry in record.trainings:
        if entry.failed:
            setup = entry.training.setup
            rate = f", lr {entry.training.learning_rate:g}" if setup in plan.choosing else ""
            lines.append(f"{label(plan, setup)}{rate}, seed {entry.training.seed}: {entry.failed}: {entry.reason}")
    lines += [f"{label(plan, setup)}: training failed at every learning rate"
              for setup in without_rate(plan, record)]
    if not record.complete:
        lines.append("incomplete: some trainings are missing")
    return lines


def without_rate(plan: Plan, record: Record) -> list[Setup]:
    """Return the setups that failed at all of their learning rates."""
    tried, best = {entry.training for entry in record.trainings}, chosen(record)
    return [setup for setup in plan.choosing if setup not in best
            and all(choice in tried for choice in plan.choices() if choice.setup == setup)]


def conditions(record: Record) -> list[str]:
    """Return the lines on machine, time, versions and command, each once."""
    lines = [line for session in record.sessions for line in session.machine_lines()]
    for entry in record.trainings:
        if result := entry.result:
            lines.append(", ".join(f"{library} {version}" for library, version in result.versions.items())
                         + f"; {result.precision} on {result.device}")
    lines.append(record.data.origin)
    lines += [line for session in record.sessions for line in session.run_lines()]
    return list(dict.fromkeys(lines))


def spread(values: Sequence[float]) -> str:
    """Return 0.881 (0.879 to 0.884), or a single value as it is."""
    text = f"{fmean(values):.3f}"
    return f"{text} ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else text
