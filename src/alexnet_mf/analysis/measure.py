"""Measure a device's ceilings, and the time and memory that a network takes on it.

The measurement runs in a worker process of `bench`, with its timers and its method: warm-up, samples between two
synchronizations, rounds of all phases.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet_mf import spec
from alexnet_mf.analysis.roofline import Ceilings
from alexnet_mf.backends import BACKENDS
from alexnet_mf.bench.plan import CEILINGS, ITEM_BYTES, OURS
from alexnet_mf.bench.run import connect
from alexnet_mf.errors import BenchError
from alexnet_mf.instruments.machine import Conditions, conditions
from alexnet_mf.instruments.process import Channel, WorkerFailed, WorkerGone
from alexnet_mf.instruments.statistics import Estimate, estimate

PHASES = ("forward", "step", "optimizer")
"""Phases in the order of preparation: the process's peak after `step` then covers inference and training."""
ROUNDS = 6
"""Smallest number of samples that gives a confidence interval."""
SAMPLE_SECONDS = 0.2
ATTEMPTS = 3
"""Number of attempts to warm a phase up."""
THREADS = ("threads", "intra_op_threads", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Names of the number of threads in backends' settings, by precedence."""
TOLERANCE = 0.1
"""Largest relative difference between the allocator's peak and the prediction."""


@dataclass(frozen=True)
class Memory:
    """Peak memory, in bytes; None if the system or the device does not report it."""

    imported: int | None
    """Peak of the process after importing the framework."""
    process: int | None
    """Peak of the process after inference and training."""
    allocator: int | None
    """Peak of the device's allocator in training steps, without workspaces."""

    def off(self, predicted: int) -> float | None:
        """Return the relative difference between the allocator's peak and the prediction; None without a peak."""
        return None if self.allocator is None else self.allocator / predicted - 1

    def holds(self, predicted: int) -> bool:
        """Return True if the prediction is within the tolerance, or the allocator reports nothing."""
        return self.allocator is None or abs(self.allocator - predicted) <= TOLERANCE * predicted


@dataclass(frozen=True)
class Measured:
    """Measurements of a network on a device."""

    backend: str
    device: str
    description: str
    precision: str
    versions: dict[str, str]
    settings: dict[str, Any]
    seconds: dict[str, Estimate]
    """Time of one call of each of PHASES and of the two ceilings."""
    ceilings: Ceilings
    memory: Memory
    kernels: dict[str, list[str]]
    """The return value of `MeasurableModel.kernels`."""
    conditions: Conditions

    @property
    def threads(self) -> int | None:
        """Number of CPU threads that the backend reports; None if it reports none and uses one per core."""
        threads = str(next((self.settings[name] for name in THREADS if self.settings.get(name)), ""))
        return int(threads) if threads.isdecimal() else None


def _prepare(channel: Channel, phase: str) -> dict[str, Any]:
    """Warm a phase up, and return its amounts of work. Try again after a failure: if other programs slowed the first
    calls, a sample has too few calls and is too short to show that the backend waits for the device."""
    for _ in range(ATTEMPTS - 1):
        try:
            return channel.ask({"do": "prepare", "phase": phase})
        except WorkerGone:
            raise
        except WorkerFailed:
            continue
    return channel.ask({"do": "prepare", "phase": phase})


def measure(network: spec.Network, backend: str, device: str, batch_size: int, momentum: float, *,
            rounds: int = ROUNDS, sample_seconds: float = SAMPLE_SECONDS, seed: int = 0, command: Sequence[str] = (),
            report_progress: Callable[[str], None] = lambda line: None,
            connect: Callable[[str, Mapping[str, bool]], Channel] = connect) -> Measured:
    """Start a worker process, and measure.

    Args:
        momentum: momentum of the training steps.
        command: command line for the record.
        report_progress: receives a line about each stage.
        connect: starts a worker process.

    Raises:
        BenchError: if something cannot be measured; names it and the reason.
    """
    precision = BACKENDS[backend].precision
    assert precision in ITEM_BYTES
    stage, machine = "starting", Conditions(**conditions(list(command)))
    channel = connect(sys.executable, {})
    try:
        report_progress(f"starting {backend}")
        started = channel.ask({
            "do": "start", "backend": backend, "style": OURS, "network": spec.as_dict(network), "device": device,
            "precision": precision, "speed": {}, "batch_size": batch_size, "epoch_batches": 1,
            "sample_seconds": sample_seconds, "seed": seed, "momentum": momentum})
        stage = "memory"
        memory = channel.ask({"do": "memory"})
        amounts, peaks = {}, {}
        for stage in (*PHASES, *CEILINGS):
            report_progress(f"warming up {stage}")
            prepared = _prepare(channel, stage)
            amounts[stage], peaks[stage] = prepared["work"], prepared["peak_memory_bytes"]
        seconds: dict[str, list[float]] = {stage: [] for stage in (*PHASES, *CEILINGS)}
        for number in range(rounds):
            report_progress(f"round {number + 1}/{rounds}")
            for stage in list(seconds)[::1 if number % 2 else -1]:
                sample = channel.ask({"do": "sample", "phase": stage})
                seconds[stage].append(sample["seconds"] / sample["calls"])
    except WorkerFailed as error:
        reason = str(error).removeprefix(f"backend {backend}: ")
        raise BenchError(f"backend {backend}: {stage}: {reason}; `measure=False` computes only the costs"
                         ) from error
    finally:
        channel.close()
    times = {stage: estimate(values) for stage, values in seconds.items()}
    product, copy = CEILINGS
    ceilings = Ceilings(amounts[product]["flops"] / times[product].median, amounts[copy]["bytes"] / times[copy].median)
    return Measured(backend, started["device"], started["description"], precision, started["versions"],
                    started["settings"], times, ceilings,
                    Memory(memory["imported_bytes"], peaks["step"], memory["step_bytes"]), memory["kernels"], machine)
