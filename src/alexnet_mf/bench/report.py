"""The report on records: figures, tables, conclusions and conditions."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_mf.backends.execution import switched_off
from alexnet_mf.bench.plan import BESIDE, BOOK, OURS, Phase, Style
from alexnet_mf.bench.record import Record, Result, Worker, load
from alexnet_mf.checks import check_list
from alexnet_mf.instruments import statistics
from alexnet_mf.instruments.statistics import Estimate
from alexnet_mf.instruments.tables import Table
from alexnet_mf.instruments.units import bytes_text, estimate_text, number_text, percent, seconds_text, times

ORDER = ("input", "forward", "forward_backward", "optimizer", "step", "epoch", BESIDE)
"""The phases in the order of the table."""
BOTTLENECK = 0.97
"""Speed of an epoch divided by that of its steps, below which the input is reported as the bottleneck."""
RANKED = ("forward", "step", "epoch", BESIDE)
FEW_ROUNDS = f"not ranked, an interval needs {statistics.FEWEST} rounds"
"""The phases whose backends are ranked; the others explain them."""


@dataclass(frozen=True)
class Row:
    """One phase of one contestant."""

    run: str
    """Letter of the record: A, B, ...; empty if there is only one."""
    worker: Worker
    result: Result
    device: str
    """Type and model."""
    busy: int
    """Number of busy processes beside it."""
    is_plain: bool
    """True for our style with the plan's own settings: none left out (`ablate`) or added (`tried`)."""
    rates: dict[int, float]
    """Images/s by round."""
    rate: Estimate
    ceiling: str
    """Name of the device's limit: the fastest in this run, with its backend if that is another one."""
    share: Estimate | None
    """Share of the ceiling's rate, round by round."""
    own_share: Estimate | None
    """Share of the backend's own ceiling; None if that is the fastest."""
    versus_book: Estimate | None
    peak_versus_book: float | None

    @property
    def phase(self) -> Phase:
        return self.result.phase

    @property
    def batch_size(self) -> int:
        return self.worker.batch_size

    @property
    def label(self) -> str:
        """Return the name of the contestant, with the run if there are several."""
        return prefixed(self.run, self.worker.label)

    @property
    def joules(self) -> float | None:
        """Return the energy of an image; None if unknown, or for an epoch: its samples include an evaluation."""
        energy = [sample.joules for sample in self.result.samples if sample.joules is not None]
        if self.phase == "epoch" or len(energy) < len(self.result.samples):
            return None
        return sum(energy) / sum(sample.calls * self.result.work.images for sample in self.result.samples)

    @property
    def conditions(self) -> dict[str, str]:
        """Conditions that must be equal before two rows may be ranked."""
        return {"precision": self.worker.precision, "spec": self.worker.spec_sha256[:12], "device": self.device,
                "phase": self.phase, "batch size": str(self.batch_size), "busy processes": str(self.busy)}


@dataclass(frozen=True)
class Report:
    """All results of one or more records."""

    rows: list[Row]
    tables: list[Table]
    conclusions: list[str]
    failures: list[str]
    """Measurements that failed; the conclusions list them too."""
    conditions: list[str]

    def markdown(self) -> str:
        """Return the whole report as Markdown."""
        lists = ["\n".join(f"- {line}" for line in lines) for lines in (self.conclusions, self.conditions) if lines]
        return "\n\n".join([*(table.markdown() for table in self.tables), *lists]) + "\n"


def bench_report(records: Iterable[Record | Path | str]) -> Report:
    """Return tables and conclusions of one or more benchmarks, also from different machines.

    Args:
        records: records, or files that hold them.

    Raises:
        BenchError: if a file cannot be read, or is not a record of `bench`.
    """
    read = [entry if isinstance(entry, Record) else load(Path(entry))
            for entry in check_list("records", records, (Record, str, Path))]
    runs = [(letters(i) if len(read) > 1 else "", record) for i, record in enumerate(read)]
    rows = sorted(itertools.chain(*(rows_of(run, record) for run, record in runs)),
                  key=lambda row: (row.batch_size, ORDER.index(row.phase)))
    parts = [line for run, record in runs for line in parts_of(run, record)]
    tables = [results_table(rows)] if rows else []
    if parts:
        tables.append(Table("limits of the device, and parts of a training step", [
            "backend", "batch", "matrix product", "copy", "input in a step", "steps in an epoch", "import", "build"],
            parts, [1]))
    failures = [prefixed(run, f"{failure.backend} {failure.style} {failure.precision}, batch {failure.batch_size}, "
                              f"{failure.phase} failed: {failure.reason}")
                for run, record in runs for failure in record.failures]
    stopped = [prefixed(run, "stopped early: only the samples until then are shown")
               for run, record in runs if not record.complete]
    return Report(rows, tables, [*gains(rows), *ranking(rows), *remarks(rows), *failures, *stopped], failures,
                  [prefixed(run, line) for run, record in runs for line in conditions_of(record)])


def letters(number: int) -> str:
    """Return A, ..., Z, AA, ..."""
    alphabet = string.ascii_uppercase
    return (letters(number // 26 - 1) if number >= 26 else "") + alphabet[number % 26]


def prefixed(run: str, text: str) -> str:
    """Return the text after the name of its run, if there are several runs."""
    return f"{run}: {text}" if run else text


# Figures


def rows_of(run: str, record: Record) -> list[Row]:
    """Return a row for each phase of each worker that has samples."""
    workers = {worker.id: worker for worker in record.workers}
    rows = []
    for result in record.results:
        worker = workers[result.worker]
        if result.phase not in ORDER or not result.samples:
            continue
        book = find_result(record, result.phase, worker, BOOK) if worker.style == OURS else None
        amount = "bytes" if result.work.bytes else "flops"
        ceiling: Phase = "copy" if result.work.bytes else "matrix product"
        own = find_result(record, ceiling, worker, OURS)
        best = fastest_ceiling(record, ceiling, workers[own.worker] if own else worker)
        owner = f"{workers[best.worker].backend}'s " if best and best is not own else ""
        rates = per_second(result, "images")
        peak, where = peak_of(result)
        book_peak, book_where = peak_of(book) if book else (None, "")
        rows.append(Row(
            run, worker, result, device(record, worker), record.plan.beside if result.phase == BESIDE else 0,
            worker.style == OURS and worker.speed == record.plan.speed,
            rates, statistics.estimate(list(rates.values())), owner + ceiling,
            statistics.ratio(per_second(result, amount), per_second(best, amount)) if best else None,
            statistics.ratio(per_second(result, amount), per_second(own, amount)) if own and owner else None,
            statistics.ratio(rates, per_second(book, "images")) if book else None,
            peak / book_peak if peak and book_peak and where == book_where else None))
    return rows


def peak_of(result: Result) -> tuple[int | None, str]:
    """Return the peak memory until the end of a phase's warm-up, of the device if known, else of the process."""
    peak = result.peak_device_memory_bytes
    return (result.peak_memory_bytes, "process") if peak is None else (peak, "device")


def per_second(result: Result, what: str) -> dict[int, float]:
    """Return images, FLOP or bytes per second, by round."""
    return {sample.round: sample.calls * getattr(result.work, what) / sample.seconds for sample in result.samples}


def fastest_ceiling(record: Record, ceiling: Phase, beside: Worker) -> Result | None:
    """Return the fastest ceiling of the run on the device of `beside`, measured in the same rounds.

    For other backends, only the process with the plan's own settings counts: among many variants one is always lucky.

    A matrix product must have the same precision too. A backend's own may be far from what the device can do: on 2
    cores of an AMD EPYC TensorFlow's, by oneDNN, was 1.27 times as fast as PyTorch's, by MKL (`epyc-2-cores.json`).
    """
    keys = ("device", "batch_size") if ceiling == "copy" else ("device", "batch_size", "precision")
    ids = {worker.id for worker in record.workers if worker.id == beside.id or (
        worker.backend != beside.backend and worker.speed == record.plan.speed
        and all(getattr(worker, key) == getattr(beside, key) for key in keys))}
    amount = "bytes" if ceiling == "copy" else "flops"
    several = [result for result in record.results
               if result.phase == ceiling and result.worker in ids and result.samples]
    rounds = max((len(result.samples) for result in several), default=0)
    several = [result for result in several if len(result.samples) == rounds]  # the others failed in between
    several.sort(key=lambda result: result.worker != beside.id)  # its own, if two are as fast
    return max(several, default=None, key=lambda result: statistics.median(list(per_second(result, amount).values())))


def find_result(record: Record, phase: Phase, beside: Worker, style: Style) -> Result | None:
    """Return a phase's result in a style, with backend, batch size and device of `beside`: its own, or the first one.

    So the book's style is compared with the ceilings of its backend's first precision.
    """
    ids = [worker.id for worker in record.workers if worker.style == style
           and all(getattr(worker, key) == getattr(beside, key) for key in ("backend", "batch_size", "device"))]
    several = [result for result in record.results if result.phase == phase and result.worker in ids
               and result.samples]
    return min(several, default=None, key=lambda result: result.worker != beside.id)


def device(record: Record, worker: Worker) -> str:
    """Return the type and model of a device. Results of two devices are compared only if both are the same."""
    if worker.device == "cpu":
        return f"cpu, {record.conditions.cpu}, {record.conditions.usable_cores} cores"
    return f"{worker.device.partition(':')[0]}, {worker.description}"


# Tables


def results_table(rows: Sequence[Row]) -> Table:
    """Return the table of every phase of every contestant."""
    has_energy = any(row.joules for row in rows)
    body = [[str(row.batch_size), f"{row.phase} {row.busy}" if row.busy else row.phase, row.label,
             estimate_text(row.rate) + ("" if row.result.steady else " *"),
             f"{percent((row.rate.upper_quartile - row.rate.lower_quartile) / row.rate.median)} %",
             share_of_ceiling(row),
             estimate_text(row.versus_book, times, "x") if row.versus_book else "",
             seconds_text(row.result.first_call_seconds),
             bytes_text(peak_of(row.result)[0])
             + (f" ({times(row.peak_versus_book)}x)" if row.peak_versus_book else ""),
             *([number_text(row.joules) if row.joules else ""] if has_energy else [])]
            for row in rows]
    where = "/".join(dict.fromkeys(peak_of(row.result)[1] for row in rows))
    return Table(statistics.title_of_medians(row.rate for row in rows), [
        "batch", "phase", "backend", "images/s", "spread", "share of the ceiling", "vs. the book's style", "first call",
        f"peak memory ({where}; vs. the book's)", *(["J/image"] if has_energy else [])], body, [0])


def share_of_ceiling(row: Row) -> str:
    """Return the share of the device's ceiling and, if that differs, of the backend's own ceiling."""
    if row.share is None:
        return ""
    own = f" ({estimate_text(row.own_share, percent, ' %')} of its own)" if row.own_share else ""
    return f"{estimate_text(row.share, percent, ' %')} of {row.ceiling}{own}"


def parts_of(run: str, record: Record) -> list[list[str]]:
    """Return the ceilings, the input's share of a step, and an epoch beside its steps, for each worker in our style."""
    lines = []
    for worker in record.workers:
        if worker.style != OURS:
            continue
        mine = {result.phase: result for result in record.results if result.worker == worker.id and result.samples}

        lines.append([prefixed(run, worker.label), str(worker.batch_size),
                      rate_text(mine.get("matrix product"), "flops", " GFLOP/s"),
                      rate_text(mine.get("copy"), "bytes", " GB/s"),
                      share_text(mine.get("input"), mine.get("step")), share_text(mine.get("step"), mine.get("epoch")),
                      seconds_text(worker.import_seconds), seconds_text(worker.build_seconds)])
    return lines


def rate_text(ceiling: Result | None, what: str, unit: str) -> str:
    """Return a ceiling in billions per second; nothing if it was not measured."""
    rates = list(per_second(ceiling, what).values()) if ceiling else []
    return estimate_text(statistics.estimate(rates), lambda rate: number_text(rate / 1e9), unit) if rates else ""


def share_text(part: Result | None, whole: Result | None) -> str:
    """Return a part's share of the time per image: the inverse ratio of the rates."""
    if part is None or whole is None:
        return ""
    share = statistics.ratio(per_second(whole, "images"), per_second(part, "images"))
    return estimate_text(share, lambda value: f"{100 * value:.1f}", " %") if share else ""


# Conclusions


def gains(rows: Sequence[Row]) -> list[str]:
    """Return the gain of each setting that was left out or tried, compared with the plain contestant."""
    lines = []
    for row, plain in itertools.product(rows, rows):
        same = all(getattr(row, key) == getattr(plain, key) for key in ("run", "conditions")) and \
            row.worker.backend == plain.worker.backend
        if row.phase not in RANKED or row.is_plain or row.worker.style != OURS or not plain.is_plain or not same:
            continue
        changed = {name: on for name, on in row.worker.speed.items() if plain.worker.speed.get(name) is not on}
        tried = sorted(name for name, on in changed.items() if on)
        gain = statistics.ratio(row.rates, plain.rates) if tried else statistics.ratio(plain.rates, row.rates)
        if gain:
            is_unsure = gain.low is None or gain.high is None or gain.low <= 1 <= gain.high
            doubt = FEW_ROUNDS if gain.low is None else "no difference seen"
            what = f"{plain.label} with {' and '.join(tried)}" if tried else plain.label
            beside = "without" if tried else f"without {', '.join(switched_off(changed))}"
            lines.append(f"{row.phase}, batch {row.batch_size}: {what} runs at {estimate_text(gain, times, 'x')} its "
                         f"speed {beside}{f': {doubt}' if is_unsure else ''}")
    return lines


def ranking(rows: Sequence[Row]) -> list[str]:
    """Return the faster of each pair of contestants, for each ranked phase and batch size."""
    lines: list[str] = []
    for phase, batch_size in dict.fromkeys((row.phase, row.batch_size) for row in rows if row.phase in RANKED):
        here = sorted((row for row in rows if (row.phase, row.batch_size) == (phase, batch_size) and row.is_plain),
                      key=lambda row: -row.rate.median)
        lines += [f"{phase}, batch {batch_size}: {compared(a, b)}" for a, b in itertools.combinations(here, 2)
                  if a.conditions == b.conditions]
        values = {key: sorted({row.conditions[key] for row in here}) for key in sorted(here[0].conditions)} if here \
            else {}
        several = "; ".join(f"{key} ({', '.join(each)})" for key, each in values.items() if len(each) > 1)
        if several:
            lines.append(f"{phase}, batch {batch_size}: not ranked where these differ: {several}")
    return lines


def compared(a: Row, b: Row) -> str:
    """Return a sentence that compares two rows. The first has the higher median, or an equal one."""
    if not statistics.is_larger(a.rate, b.rate):
        is_short = min(a.rate.n, b.rate.n) < statistics.FEWEST
        return f"{a.label} and {b.label}: {FEW_ROUNDS if is_short else 'no difference seen'}"
    ratio = statistics.ratio(a.rates, b.rates) if a.run == b.run else None
    return f"{a.label} is faster than {b.label}, {estimate_text(ratio, times, 'x') if ratio else 'in separate runs'}"


def remarks(rows: Sequence[Row]) -> list[str]:
    """Return the remarks on single figures."""
    lines = []
    for row, alone in itertools.product(rows, rows):
        if (row.phase, alone.phase) == (BESIDE, "step") and row.run == alone.run and row.worker is alone.worker:
            share = statistics.ratio(row.rates, alone.rates)
            if share:
                lines.append(f"step beside {busy_text(row.busy)}, batch {row.batch_size}: {row.label} trains at "
                             f"{estimate_text(share, percent, ' %')} of its speed without them")
    for row, step in itertools.product(rows, rows):
        if (row.phase, step.phase) == ("epoch", "step") and row.run == step.run and row.worker is step.worker:
            share = statistics.ratio(row.rates, step.rates)
            if share and share.high is not None and share.high < BOTTLENECK:
                lines.append(f"epoch, batch {row.batch_size}: {row.label} trains at "
                             f"{estimate_text(share, percent, ' %')} "
                             "of the speed of its steps: the images come too slowly")
    if any(not row.result.steady for row in rows):
        lines.append("* still getting faster at the end of the warm-up: the figure may be too low")
    above = [row for row in rows if row.share and row.share.median > 1 and not row.result.work.bytes]
    if above:
        lines.append("faster than the matrix product: a convolution may need fewer multiplications than the "
                     f"arithmetic counts ({', '.join(dict.fromkeys(f'{row.label} {row.phase}' for row in above))})")
    if len({row.run for row in rows if row.share}) > 1:
        lines.append("each run has its own ceiling: do not compare shares across runs")
    return lines


def busy_text(count: int) -> str:
    """Return `2 busy processes`."""
    return f"{count} busy process{'es' * (count != 1)}"


# Conditions


def conditions_of(record: Record) -> list[str]:
    """Return the lines on machine, time, versions and command."""
    at, plan = record.conditions, record.plan
    versions: dict[str, str] = {}
    for worker in record.workers:
        versions |= worker.versions
    nets = ", ".join(f"{entry['name']} ({digest[:12]})" for digest, entry in record.networks.items())
    when, *command = at.run_lines()
    beside = [f"beside: {busy_text(plan.beside)} of one thread each"] * bool(plan.beside)
    return [*at.machine_lines(), *beside,
            f"{', '.join(f'{library} {version}' for library, version in versions.items())}; {nets}",
            f"{plan.rounds} round{'s' * (plan.rounds != 1)}, seed {plan.seed}, {when}", *command]
