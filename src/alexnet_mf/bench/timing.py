"""Time calls that return before the device has finished.

Every time is taken between two synchronizations: the first excludes earlier work, the second includes this work. The
clock is an argument, so that tests can bring their own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from alexnet_mf.errors import MeasurementRefused

SAMPLE_SECONDS = 0.2
"""Shortest sample: a million times a clock's resolution, and long compared with a scheduler's interruptions."""
MOST_CALLS = 100_000
"""Largest number of calls in a sample."""
STEADY = 0.02
"""While samples get faster by more than this share, the warm-up continues."""
PATIENCE = 2
"""Number of samples in a row that are no faster, after which the warm-up ends."""
WARM_UP_SECONDS = 30.0
WARM_UP_SAMPLES = 20
ATTEMPTS = 5
"""Number of attempts to show that the timer waits for the device."""


@dataclass
class Timer:
    """Timer of the calls of one function."""

    call: Callable[[int], None]
    """The function; it takes the number of the call, counted from 0."""
    synchronize: Callable[[], None]
    clock: Callable[[], float] = time.perf_counter
    _number: int = field(default=0, init=False)

    def __call__(self, calls: int = 1) -> float:
        """Return the seconds that a number of calls take, with the device synchronized at both ends."""
        call, number, clock = self.call, self._number, self.clock
        self.synchronize()
        start = clock()
        for i in range(number, number + calls):
            call(i)
        self.synchronize()
        seconds = clock() - start
        self._number += calls
        return seconds


@dataclass(frozen=True)
class WarmUp:
    """Calls before the first sample of the record."""

    first_call_seconds: float
    """Length of the very first call, which compiles, chooses kernels and allocates."""
    calls: int
    """Calls that make up a sample."""
    seconds: list[float]
    """Length of each further sample until the end of the warm-up."""
    steady: bool
    """True if the warm-up ended because the samples had become steady, not because its time was up."""


def calls_for(timer: Timer, least_seconds: float = SAMPLE_SECONDS) -> int:
    """Return how many calls make a sample of at least that length, `MOST_CALLS` at most."""
    calls = 1
    while True:
        seconds = timer(calls)
        if seconds >= least_seconds or calls == MOST_CALLS:
            return calls
        wanted = 1.1 * calls * least_seconds / seconds if seconds > 0 else math.inf  # 1.1: not to fall short
        calls = int(min(max(math.ceil(min(wanted, MOST_CALLS)), calls + 1), 20 * calls, MOST_CALLS))


def warm_up(timer: Timer, least_seconds: float = SAMPLE_SECONDS, limit: float = WARM_UP_SECONDS) -> WarmUp:
    """Make the first call, then take samples until they are steady: `PATIENCE` in a row that are not faster than the
    fastest before by more than `STEADY`. Stop in any case after `WARM_UP_SAMPLES` samples or `limit` seconds of them.
    """
    first = timer(1)
    calls = calls_for(timer, least_seconds)
    seconds = [timer(calls)]
    fastest, waited = seconds[0], 0
    while waited < PATIENCE and len(seconds) < WARM_UP_SAMPLES and sum(seconds) < limit:
        seconds.append(timer(calls))
        waited = 0 if seconds[-1] < (1 - STEADY) * fastest else waited + 1
        fastest = min(fastest, seconds[-1])
    return WarmUp(first, calls, seconds, waited >= PATIENCE)


def check_synchronized(timer: Timer, calls: int, read_back: Callable[[], object] = lambda: None) -> None:
    """Check that the synchronization at the end of a sample waits for the sample's work.

    Two tests show it. First, calls that only queue their work take almost no time, however many there are; so twice the
    calls must take longer. Second, if queueing itself takes time, the first test passes although the queue is still
    full after the sample; so reading a result back, which has to wait for the device, must not take longer after a
    sample than after an idle moment. An interruption from outside can look like either, once; so only a failure in
    every attempt counts.

    Args:
        calls: number of calls in a sample.
        read_back: computes something on the device and returns it to the host.

    Raises:
        MeasurementRefused: if a test fails in every attempt; states the times.
    """
    reason = ""
    shortest = math.inf
    for _ in range(ATTEMPTS):
        read_back()  # waits for all earlier work
        idle = _seconds(timer, read_back)
        once = timer(calls)
        after = _seconds(timer, read_back)
        if after > 1.25 * idle + 0.25 * once:
            reason = (f"reading a result back took {after:.3g} s after {calls} calls and a synchronization "
                      f"({once:.3g} s), but {idle:.3g} s on an idle device")
            continue
        shortest = min(shortest, once)
        twice = timer(2 * calls)
        if twice >= 1.4 * shortest and twice > 0:
            return
        reason = f"{calls} calls took {shortest:.3g} s, but {2 * calls} calls only {twice:.3g} s"
    raise MeasurementRefused(f"the timer does not wait for the device: {reason}")


def _seconds(timer: Timer, read_back: Callable[[], object]) -> float:
    start = timer.clock()
    read_back()
    return timer.clock() - start
