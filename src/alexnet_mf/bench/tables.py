"""A report's tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet_mf.bench.figures import Row, per_second
from alexnet_mf.bench.plan import OURS, PHASES
from alexnet_mf.bench.record import Record
from alexnet_mf.instruments import statistics
from alexnet_mf.instruments.units import bytes_text, estimate_text, number_text, percent, seconds_text, times


@dataclass(frozen=True)
class Table:
    """Text in columns; those in `right` are numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    right: list[int]


def results_table(rows: Sequence[Row]) -> Table:
    """Return the table of every phase of every contestant."""
    body = [[str(row.batch_size), row.phase, row.label,
             estimate_text(row.rate) + ("" if row.steady else " *"),
             f"{percent((row.rate.upper_quartile - row.rate.lower_quartile) / row.rate.median)} %",
             f"{estimate_text(row.share, percent, ' %')} of {row.ceiling}" if row.share else "",
             estimate_text(row.versus_book, times, "x") if row.versus_book else "",
             seconds_text(row.first_call_seconds),
             bytes_text(row.peak_bytes) + (f" ({times(row.peak_versus_book)}x)" if row.peak_versus_book else "")]
            for row in rows]
    where = "/".join(dict.fromkeys(row.peak_where for row in rows))
    return Table(statistics.title_of_medians(row.rate for row in rows), [
        "batch", "phase", "backend", "images/s", "spread", "share of the ceiling", "to the book's style", "first call",
        f"peak memory ({where}; to the book's)"], body, [0])


def parts_of(record: Record, run: str) -> list[list[str]]:
    """Return the ceilings, the input's share of a step, and an epoch beside its steps, for each worker in our style."""
    found = []
    for worker in record.workers:
        if worker.style != OURS:
            continue
        mine = {result.phase: result for result in record.results
                if result.worker == worker.id and result.samples}
        rates = {phase: per_second(result, "images") for phase, result in mine.items() if phase in PHASES}
        cells = []
        for ceiling, kind, unit in (("matrix product", "flops", "GFLOP/s"), ("copy", "bytes", "GB/s")):
            cells.append(estimate_text(statistics.estimate(list(per_second(mine[ceiling], kind).values())),
                                       lambda value: number_text(value / 1e9), f" {unit}") if ceiling in mine else "")
        shares = (("step", "input"), ("epoch", "step"))  # times an image, so the rates are the other way round
        for above, below in shares:
            both = statistics.ratio(rates[above], rates[below]) if above in rates and below in rates else None
            cells.append(estimate_text(both, lambda value: f"{100 * value:.1f}", " %") if both else "")
        label = f"{run}: {worker.label}" if run else worker.label
        found.append([label, str(worker.batch_size), *cells, seconds_text(worker.import_seconds),
                      seconds_text(worker.build_seconds)])
    return found
