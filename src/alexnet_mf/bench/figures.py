"""Figures of a record: rates, shares and ratios of each phase of each contestant."""

from __future__ import annotations

from dataclasses import dataclass

from alexnet_mf.bench.plan import BOOK, OURS, PHASES, Phase, Style
from alexnet_mf.bench.record import Record, Result, Worker
from alexnet_mf.instruments import statistics
from alexnet_mf.instruments.statistics import Estimate

RANKED = ("forward", "step", "epoch")
"""Phases of which one asks who is faster; the others explain."""


@dataclass(frozen=True)
class Row:
    """One phase of one contestant."""

    run: str
    """A, B, ...: which record."""
    batch_size: int
    phase: Phase
    name: str
    """Backend, precision or `book`, and what is left out."""
    worker: Worker
    device: str
    """Kind and model."""
    full: bool
    """Neither the book's style nor with a setting left out or tried that others keep or leave."""
    rates: dict[int, float]
    """Images/s by round."""
    rate: Estimate
    share: Estimate | None
    """Share of the ceiling's rate, round by round."""
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
        """Name, with the run if there are several."""
        return f"{self.run}: {self.name}" if self.run else self.name

    @property
    def conditions(self) -> dict[str, str]:
        """Conditions that must be equal before two rows may be ranked."""
        return {"precision": self.worker.precision, "spec": self.worker.spec_sha256[:12], "device": self.device,
                "phase": self.phase, "batch size": str(self.batch_size)}


def rows_of(record: Record, run: str) -> list[Row]:
    """Return a row for each phase of each worker that has samples."""
    workers = {worker.id: worker for worker in record.workers}
    rows = []
    for result in record.results:
        worker, phase = workers[result.worker], result.phase
        if phase not in PHASES or not result.samples:
            continue
        rates = per_second(result, "images")
        kind = "bytes" if result.work.bytes else "flops"
        ceiling: Phase = "copy" if kind == "bytes" else "matrix product"
        limit = ceiling_of(record, worker, ceiling)
        book = _result(record, phase, worker, BOOK)
        peak, where = peak_of(result)
        book_peak, book_where = peak_of(book) if book and worker.style == OURS else (None, "")
        rows.append(Row(
            run, worker.batch_size, phase, worker.label, worker, device(record, worker),
            worker.style == OURS and worker.speed == record.plan.speed, rates,
            statistics.estimate(list(rates.values())),
            statistics.ratio(per_second(result, kind), per_second(limit, kind)) if limit else None, ceiling,
            statistics.ratio(rates, per_second(book, "images")) if book and worker.style == OURS else None,
            result.first_call_seconds, result.steady, peak, where,
            peak / book_peak if peak and book_peak and where == book_where else None))
    return rows


def peak_of(result: Result) -> tuple[int | None, str]:
    """Return the peak of memory until the end of a phase's warm-up, and whose: the device's, if it is known."""
    peak = result.peak_device_memory_bytes
    return (result.peak_memory_bytes, "process") if peak is None else (peak, "device")


def per_second(result: Result, what: str) -> dict[int, float]:
    """Return images, FLOP or bytes per second, by round."""
    return {sample.round: sample.calls * getattr(result.work, what) / sample.seconds for sample in result.samples}


def ceiling_of(record: Record, worker: Worker, ceiling: Phase) -> Result | None:
    """Return the worker's own ceiling. The book's style is compared with that of its backend's first precision."""
    own = next((result for result in record.results if result.phase == ceiling
                and result.worker == worker.id and result.samples), None)
    return own or _result(record, ceiling, worker, OURS)


def _result(record: Record, phase: Phase, beside: Worker, style: Style) -> Result | None:
    """Return the result of the first worker of a style with the backend, batch size and device of `beside`."""
    ids = {worker.id for worker in record.workers if worker.style == style
           and all(getattr(worker, key) == getattr(beside, key) for key in ("backend", "batch_size", "device"))}
    return next((result for result in record.results if result.phase == phase and result.worker in ids
                 and result.samples), None)


def device(record: Record, worker: Worker) -> str:
    """Return kind and model. Results of two devices are compared only if both are the same."""
    if worker.device == "cpu":
        return f"cpu, {record.conditions.cpu}, {record.conditions.usable_cores} cores"
    return f"{worker.device.partition(':')[0]}, {worker.description}"
