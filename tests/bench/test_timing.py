"""The timer, on a simulated device."""

from __future__ import annotations

import pytest

from alexnet_mf.bench import timing
from alexnet_mf.bench.timing import Timer, calls_for, check_synchronized, warm_up
from alexnet_mf.errors import MeasurementRefused


def make_timer(device, seconds=0.125, wait=True) -> Timer:
    """Return a timer of calls that return at once; their time passes while the host waits."""
    return Timer(lambda number: device.queue(seconds), device.wait if wait else lambda: None, device.clock)


def test_work_that_was_queued_before_is_not_counted(device):
    device.queue(64.0)
    assert make_timer(device)(4) == 4 * 0.125


def test_work_that_is_still_queued_at_the_end_is_counted(device):
    assert make_timer(device, 0.25)(3) == 0.75


def test_call_numbers_continue_in_the_next_sample(device):
    """The number selects the dropout masks, so no step repeats another."""
    numbers: list[int] = []
    timed = Timer(numbers.append, lambda: None, device.clock)
    timed()
    timed(3)
    assert numbers == [0, 1, 2, 3]


# How many calls make a sample


@pytest.mark.parametrize("seconds, expected", [(0.5, 1), (0.25, 1), (0.125, 2), (2.0**-7, 29)])
def test_a_sample_is_long_enough(device, seconds, expected):
    calls = calls_for(make_timer(device, seconds), 0.2)
    assert calls == expected
    assert calls * seconds >= 0.2


def test_the_number_of_calls_is_bounded_if_they_take_no_time(device):
    assert calls_for(make_timer(device, 0.0), 0.2) == timing.MOST_CALLS


# Warming up


def slower_at_first(device, times: list[float]) -> Timer:
    """Return a timer of calls that take `times`; further calls take the last of these."""
    return Timer(lambda number: device.queue(times[min(number, len(times) - 1)]), device.wait, device.clock)


def test_the_first_call_is_timed_separately(device):
    warmed = warm_up(slower_at_first(device, [64.0, 1.0]))
    assert warmed.first_call_seconds == 64.0
    assert (warmed.seconds, warmed.calls, warmed.steady) == ([1.0] * 3, 1, True)


def test_warm_up_continues_while_calls_get_faster(device):
    warmed = warm_up(slower_at_first(device, [64.0, 8.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0]))
    assert warmed.seconds == [4.0, 3.0, 2.0, 1.0, 1.0, 1.0]  # 8.0 was used to choose the calls per sample
    assert warmed.steady


def test_warm_up_is_steady_within_two_percent(device):
    """The call times fall by 1/64 s, less than two percent."""
    warmed = warm_up(slower_at_first(device, [1.0, 1.0, 1.0, 63 / 64, 62 / 64, 0.5]))
    assert (warmed.seconds, warmed.steady) == ([1.0, 63 / 64, 62 / 64], True)


def test_warm_up_is_bounded_in_samples_and_in_time(device):
    always_faster = [2.0 * 0.9**i for i in range(100)]
    warmed = warm_up(slower_at_first(device, always_faster), 0.01, limit=1e9)
    assert (len(warmed.seconds), warmed.steady) == (timing.WARM_UP_SAMPLES, False)
    warmed = warm_up(slower_at_first(device, always_faster), 0.01, limit=3.0)
    assert sum(warmed.seconds[:-1]) < 3.0 <= sum(warmed.seconds)
    assert not warmed.steady


# A synchronization that does not wait


def test_a_timer_that_waits_is_accepted(device):
    check_synchronized(make_timer(device), 2)
    check_synchronized(make_timer(device), 2, read_back=lambda: (device.queue(1.0), device.wait()))


def test_a_missing_synchronization_is_detected(device):
    """Calls return at once and nothing waits, so any number of calls takes no time."""
    with pytest.raises(MeasurementRefused, match=r"not wait for the device: 4 calls took 0 s, but 8 calls only 0 s"):
        check_synchronized(make_timer(device, wait=False), 4)


def test_a_missing_synchronization_is_detected_even_if_queueing_takes_time(device):
    """Twice the calls take twice the time, but only on the host. Reading a result back still has to wait."""
    device.launch = 2.0**-10
    without_waiting = make_timer(device, 0.125, wait=False)
    calls = calls_for(without_waiting, 0.2)
    assert without_waiting(2 * calls) == 2 * without_waiting(calls)
    check_synchronized(without_waiting, calls)  # looks right without a result to read back
    with pytest.raises(MeasurementRefused, match="reading a result back took"):
        check_synchronized(without_waiting, calls, read_back=lambda: (device.queue(0.125), device.wait()))


def test_a_device_that_returns_a_cached_result_is_detected(device):
    """Returning a cached result takes no time on the device."""
    done = []
    cached = Timer(lambda number: done or (done.append(1), device.queue(1.0)), device.wait, device.clock)
    cached()
    with pytest.raises(MeasurementRefused):
        check_synchronized(cached, 3)


def test_a_single_interruption_is_not_a_missing_synchronization(device):
    """An interruption happens once; a missing synchronization shows every time."""
    interruptions = [0.0, 0.0, 16.0]  # within the first sample: it looks as if twice the calls took no longer
    disturbed = Timer(lambda number: device.queue(0.125 + (interruptions.pop() if interruptions else 0.0)), device.wait,
                      device.clock)
    check_synchronized(disturbed, 1)
