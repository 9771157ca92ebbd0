"""From records to what people read: tables, and sentences on what may be concluded from them."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from alexnet_mf.bench import statistics
from alexnet_mf.bench.plan import BOOK, OURS, PHASES
from alexnet_mf.bench.statistics import Candidate, Estimate

SHOWN = ("input", "forward", "forward_backward", "optimizer", "step", "epoch")
"""The order of the table."""
RANKED = ("forward", "step", "epoch")
"""Phases of which one asks who is faster; the others explain."""


@dataclass(frozen=True)
class Row:
    """One phase of one contestant."""

    run: str
    """A, B, ...: which record."""
    batch_size: int
    phase: str
    name: str
    """Backend, precision or `book`, and what is left out."""
    worker: dict[str, Any]
    device: str
    """Kind and model."""
    full: bool
    """Neither the book's style nor with a setting left out or tried that others keep or leave."""
    rates: dict[int, float]
    """Images/s by round."""
    rate: Estimate
    share: Estimate | None
    """Of the ceiling's rate, round by round."""
    ceiling: str
    """matrix product or copy."""
    versus_book: Estimate | None
    first_call_seconds: float
    steady: bool
    peak_bytes: int | None
    peak_where: str
    peak_versus_book: float | None

    @property
    def label(self) -> str:
        """With the run, where that is not the only one."""
        return f"{self.run}: {self.name}" if self.run else self.name

    @property
    def conditions(self) -> dict[str, str]:
        """What must be equal before it may be ranked against another."""
        return {"precision": self.worker["precision"], "spec": self.worker["spec_sha256"][:12], "device": self.device,
                "phase": self.phase, "batch size": str(self.batch_size)}


@dataclass(frozen=True)
class Table:
    """Text in columns; those in `right` are numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    right: list[int]


@dataclass
class Report:
    """All of it."""

    rows: list[Row]
    tables: list[Table]
    conclusions: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)


def report(records: Sequence[dict[str, Any]]) -> Report:
    """Everything that the records show, in words and figures."""
    runs = [name_of(i) if len(records) > 1 else "" for i in range(len(records))]
    rows = sorted(itertools.chain(*(rows_of(record, run) for record, run in zip(records, runs))),
                  key=lambda row: (row.batch_size, SHOWN.index(row.phase)))
    tables = [results_table(rows)] if rows else []
    parts = list(itertools.chain(*(parts_of(record, run) for record, run in zip(records, runs))))
    if parts:
        tables.append(Table("what the device can do, and what a step is made of", [
            "backend", "batch", "matrix product", "copy", "input in a step", "epoch to steps", "import", "build"],
            parts, [1]))
    conclusions = [*gains(rows), *ranking(rows), *remarks(rows)]
    for record, run in zip(records, runs):
        prefix = f"{run}: " if run else ""
        conclusions += [f"{prefix}{failure['backend']} {failure['style']} {failure['precision']}, batch "
                        f"{failure['batch_size']}, {failure['phase']} failed: {failure['reason']}"
                        for failure in record["failures"]]
        if not record["complete"]:
            conclusions.append(f"{prefix}stopped before its end: this is what had been measured")
    return Report(rows, tables, conclusions, [line for record, run in zip(records, runs)
                                              for line in conditions_of(record, run)])


def name_of(number: int) -> str:
    """A, ..., Z, AA, ..."""
    letters = string.ascii_uppercase
    return (name_of(number // 26 - 1) if number >= 26 else "") + letters[number % 26]


def rows_of(record: dict[str, Any], run: str) -> list[Row]:
    """One for each phase of each worker that has samples."""
    workers = {worker["id"]: worker for worker in record["workers"]}
    plain = switches(record["plan"])
    rows = []
    for result in record["results"]:
        worker, phase = workers[result["worker"]], result["phase"]
        if phase not in PHASES or not result["samples"]:
            continue
        rates = per_second(result, "images")
        kind = "bytes" if result["work"]["bytes"] else "flops"
        ceiling = "copy" if kind == "bytes" else "matrix product"
        limit = ceiling_of(record, worker, ceiling)
        book = _result(record, phase, worker, BOOK)
        peak, where = peak_of(result)
        book_peak, book_where = peak_of(book) if book and worker["style"] == OURS else (None, "")
        rows.append(Row(
            run, worker["batch_size"], phase, name(worker), worker, device(record, worker),
            worker["style"] == OURS and switches(worker) == plain, rates, statistics.estimate(list(rates.values())),
            statistics.ratio(per_second(result, kind), per_second(limit, kind)) if limit else None, ceiling,
            statistics.ratio(rates, per_second(book, "images")) if book and worker["style"] == OURS else None,
            result["first_call_seconds"], result["steady"], peak, where,
            peak / book_peak if peak and book_peak and where == book_where else None))
    return rows


def peak_of(result: dict[str, Any]) -> tuple[int | None, str]:
    """The most bytes of memory until the end of a phase's warm-up, and whose: the device's, where it can be told."""
    peak = result["peak_device_memory_bytes"]
    return (result["peak_memory_bytes"], "process") if peak is None else (peak, "device")


def per_second(result: dict[str, Any], what: str) -> dict[int, float]:
    """Images, flops or bytes a second, by round."""
    return {sample["round"]: sample["calls"] * result["work"][what] / sample["seconds"] for sample in result["samples"]}


def ceiling_of(record: dict[str, Any], worker: dict[str, Any], ceiling: str) -> dict[str, Any] | None:
    """The worker's own; the book's style is held against that of its backend's first precision."""
    own = next((result for result in record["results"] if result["phase"] == ceiling
                and result["worker"] == worker["id"] and result["samples"]), None)
    return own or _result(record, ceiling, worker, OURS)


def _result(record: dict[str, Any], phase: str, beside: dict[str, Any], style: str) -> dict[str, Any] | None:
    """Of the first worker of that style with another one's backend, batch size and device."""
    ids = {worker["id"] for worker in record["workers"] if worker["style"] == style
           and all(worker[key] == beside[key] for key in ("backend", "batch_size", "device"))}
    return next((result for result in record["results"] if result["phase"] == phase and result["worker"] in ids
                 and result["samples"]), None)


def name(worker: dict[str, Any]) -> str:
    """As `Contestant.label`."""
    if worker["style"] == BOOK:
        return f"{worker['backend']} book"
    without, also = switches(worker)
    return " ".join([worker["backend"], worker["precision"], *(f"-{left}" for left in without),
                     *(f"+{tried}" for tried in also)])


def switches(entry: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The settings that a plan or a worker leaves out, and those that it switches on."""
    return sorted(entry["without"]), sorted(entry.get("also", ()))


def device(record: dict[str, Any], worker: dict[str, Any]) -> str:
    """Kind and model: results of two devices are compared only if both are the same."""
    if worker["device"] == "cpu":
        return f"cpu, {record['conditions']['cpu']}, {record['conditions']['usable_cores']} cores"
    return f"{worker['device'].partition(':')[0]}, {worker['description']}"


# Text


def number_text(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def estimate_text(found: Estimate, show: Callable[[float], str] = number_text, unit: str = "") -> str:
    """45.1 [44.8, 45.6]; where there are too few samples for an interval, their number."""
    interval = (f"(n = {found.n})" if found.low is None or found.high is None
                else f"[{show(found.low)}, {show(found.high)}]")
    return f"{show(found.median)}{unit} {interval}"


def percent(value: float) -> str:
    """A share, without the sign."""
    return f"{100 * value:.0f}" if value >= 0.1 else f"{100 * value:.2g}"


def times(value: float) -> str:
    """A ratio, without the sign."""
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def seconds_text(seconds: float) -> str:
    """With a unit that suits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def bytes_text(count: int | None) -> str:
    """In GB or MB; nothing where unknown."""
    if count is None:
        return ""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def results_table(rows: Sequence[Row]) -> Table:
    """Every phase of every contestant."""
    body = [[str(row.batch_size), row.phase, row.label,
             estimate_text(row.rate) + ("" if row.steady else " *"),
             f"{percent((row.rate.upper_quartile - row.rate.lower_quartile) / row.rate.median)} %",
             f"{estimate_text(row.share, percent, ' %')} of {row.ceiling}" if row.share else "",
             estimate_text(row.versus_book, times, "x") if row.versus_book else "",
             seconds_text(row.first_call_seconds),
             bytes_text(row.peak_bytes) + (f" ({times(row.peak_versus_book)}x)" if row.peak_versus_book else "")]
            for row in rows]
    where = "/".join(dict.fromkeys(row.peak_where for row in rows))
    return Table("medians, in brackets their 95 % intervals", [
        "batch", "phase", "backend", "images/s", "spread", "share of the ceiling", "to the book's style", "first call",
        f"peak memory ({where}; to the book's)"], body, [0])


def parts_of(record: dict[str, Any], run: str) -> list[list[str]]:
    """Of each worker in our style: the ceilings, the share of the input in a step, and an epoch beside its steps."""
    found = []
    for worker in record["workers"]:
        if worker["style"] != OURS:
            continue
        mine = {result["phase"]: result for result in record["results"]
                if result["worker"] == worker["id"] and result["samples"]}
        rates = {phase: per_second(result, "images") for phase, result in mine.items() if phase in PHASES}
        cells = []
        for ceiling, kind, unit in (("matrix product", "flops", "GFLOP/s"), ("copy", "bytes", "GB/s")):
            cells.append(estimate_text(statistics.estimate(list(per_second(mine[ceiling], kind).values())),
                                       lambda value: number_text(value / 1e9), f" {unit}") if ceiling in mine else "")
        shares = (("step", "input"), ("epoch", "step"))  # times an image, so the rates are the other way round
        for above, below in shares:
            both = statistics.ratio(rates[above], rates[below]) if above in rates and below in rates else None
            cells.append(estimate_text(both, lambda value: f"{100 * value:.1f}", " %") if both else "")
        label = f"{run}: {name(worker)}" if run else name(worker)
        found.append([label, str(worker["batch_size"]), *cells, seconds_text(worker["import_seconds"]),
                      seconds_text(worker["build_seconds"])])
    return found


# Conclusions


def gains(rows: Sequence[Row]) -> list[str]:
    """What each setting gains, where it was left out, or tried, in a process beside the full one."""
    told = []
    for row in rows:
        if row.phase not in RANKED or row.full or row.worker["style"] != OURS:
            continue
        for whole in rows:
            same = (whole.full and whole.run == row.run and whole.worker["backend"] == row.worker["backend"]
                    and whole.conditions == row.conditions)
            if not same:
                continue
            without, also = (sorted(set(mine) - set(theirs))
                             for mine, theirs in zip(switches(row.worker), switches(whole.worker)))
            gained = statistics.ratio(row.rates, whole.rates) if also else statistics.ratio(whole.rates, row.rates)
            if gained:
                sure = gained.low is not None and gained.high is not None and (gained.low > 1 or gained.high < 1)
                what, beside = ((f"with {' and '.join(also)}", "without") if also
                                else ("", f"without {', '.join(without)}"))
                told.append(f"{row.phase}, batch {row.batch_size}: {' '.join(filter(None, [whole.label, what]))} is "
                            f"{estimate_text(gained, times, 'x')} of what it is {beside}"
                            f"{'' if sure else ': no difference seen'}")
    return told


def ranking(rows: Sequence[Row]) -> list[str]:
    """Who is faster, pair by pair, where that was seen; in each phase that one asks it of."""
    told: list[str] = []
    keys = dict.fromkeys((row.phase, row.batch_size) for row in rows if row.phase in RANKED)
    for phase, batch_size in keys:
        here = [row for row in rows if (row.phase, row.batch_size) == (phase, batch_size) and row.full]
        here.sort(key=lambda row: -row.rate.median)
        if len(here) < 2:
            continue
        differing = sorted({key for row in here for key in row.conditions
                            if row.conditions[key] != here[0].conditions[key]})
        lines = []
        for a, b in itertools.combinations(here, 2):
            if a.conditions != b.conditions:
                continue
            winner = statistics.faster(*(Candidate(row.label, row.rate, row.conditions) for row in (a, b)))
            far = statistics.ratio(a.rates, b.rates) if a.run == b.run else None
            by = f", {estimate_text(far, times, 'x')}" if far else ", in separate runs"
            few = ": too few rounds for an interval" if min(a.rate.n, b.rate.n) < statistics.FEWEST else ""
            lines.append(f"{a.label} and {b.label}: no difference seen{few}" if winner is None
                         else f"{a.label} is faster than {b.label}{by}")
        told += [f"{phase}, batch {batch_size}: {line}" for line in lines]
        if differing:
            several = "; ".join(f"{key} ({', '.join(sorted({row.conditions[key] for row in here}))})"
                                for key in differing)
            told.append(f"{phase}, batch {batch_size}: not ranked across different {several}")
    return told


def remarks(rows: Sequence[Row]) -> list[str]:
    """What should be known of single figures."""
    told = []
    if any(not row.steady for row in rows):
        told.append("* still getting faster when the warm-up's time was up: its figure may be too low")
    above = [row for row in rows if row.share and row.share.median > 1 and row.ceiling == "matrix product"]
    if above:
        told.append("above the matrix product's rate: a convolution may take fewer multiplications than the arithmetic "
                    f"counts ({', '.join(dict.fromkeys(f'{row.label} {row.phase}' for row in above))})")
    return told


def conditions_of(record: dict[str, Any], run: str) -> list[str]:
    """Where, when, with what and by which command."""
    at, plan = record["conditions"], record["plan"]
    memory = f", {bytes_text(at['memory_bytes'])}" if at["memory_bytes"] else ""
    lines = [f"{at['cpu']}, {at['physical_cores'] or '?'} cores, {at['usable_cores']} usable threads{memory}; "
             f"{at['platform']}; Python {at['python']}"]
    lines += [", ".join(value if key == "name" else f"{key} {value}" for key, value in gpu.items())
              for gpu in at["gpus"]]
    versions: dict[str, str] = {}
    for worker in record["workers"]:
        versions |= worker["versions"]
    nets = ", ".join(f"{entry['name']} ({digest[:12]})" for digest, entry in record["networks"].items())
    load = " and ".join("?" if value is None else f"{value[0]:.1f}" for value in (at["load_before"], at["load_after"]))
    lines += [f"{', '.join(f'{library} {version}' for library, version in versions.items())}; {nets}",
              f"{plan['rounds']} round{'s' * (plan['rounds'] != 1)}, seed {plan['seed']}, {at['time']}, load {load}, "
              f"revision {at['git_revision'] or 'unknown'}"]
    if at["command"]:
        lines.append(" ".join(at["command"]))
    return [f"{run}: {line}" if run else line for line in lines]


def markdown(found: Report) -> str:
    """The whole report as Markdown."""
    blocks = []
    for table in found.tables:
        rule = ["---:" if i in table.right else "---" for i in range(len(table.columns))]
        cells = [[cell.replace("|", "\\|") for cell in row] for row in [table.columns, rule, *table.rows]]
        blocks.append(f"{table.title[0].upper()}{table.title[1:]}:\n\n" + "\n".join(
            f"| {' | '.join(row)} |" for row in cells))
    for lines in (found.conclusions, found.conditions):
        if lines:
            blocks.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(blocks) + "\n"
