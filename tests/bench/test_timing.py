"""The timer, on a device that the test plays."""

from __future__ import annotations

import pytest

from alexnet_mf.bench import timing
from alexnet_mf.bench.timing import Timer, calls_for, check_synchronized, warm_up
from alexnet_mf.errors import MeasurementRefused


def timer(device, seconds=0.125, wait=True) -> Timer:
    """Calls that return at once, and are paid for when somebody waits."""
    return Timer(lambda number: device.give(seconds), device.wait if wait else lambda: None, device.clock)


def test_work_that_was_queued_before_is_not_counted(device):
    device.give(64.0)
    assert timer(device)(4) == 4 * 0.125


def test_work_that_is_still_queued_at_the_end_is_counted(device):
    assert timer(device, 0.25)(3) == 0.75


def test_calls_are_numbered_on(device):
    """The number decides the dropout masks: no step is taken twice."""
    numbers: list[int] = []
    timed = Timer(numbers.append, lambda: None, device.clock)
    timed()
    timed(3)
    assert numbers == [0, 1, 2, 3]


# How many calls make a sample


@pytest.mark.parametrize("seconds, expected", [(0.5, 1), (0.25, 1), (0.125, 2), (2.0**-7, 29)])
def test_a_sample_is_long_enough(device, seconds, expected):
    calls = calls_for(timer(device, seconds), 0.2)
    assert calls == expected
    assert calls * seconds >= 0.2


def test_calls_that_take_no_time_come_to_an_end(device):
    assert calls_for(timer(device, 0.0), 0.2) == timing.MOST_CALLS


# Warming up


def slower_at_first(device, times: list[float]) -> Timer:
    """Each call takes its own time; the last one's is that of all further ones."""
    return Timer(lambda number: device.give(times[min(number, len(times) - 1)]), device.wait, device.clock)


def test_the_first_call_is_told_apart(device):
    warmed = warm_up(slower_at_first(device, [64.0, 1.0]))
    assert warmed.first_call_seconds == 64.0
    assert (warmed.seconds, warmed.calls, warmed.steady) == ([1.0] * 3, 1, True)


def test_it_goes_on_while_it_gets_faster(device):
    warmed = warm_up(slower_at_first(device, [64.0, 8.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0]))
    assert warmed.seconds == [4.0, 3.0, 2.0, 1.0, 1.0, 1.0]  # 8.0 went to see how many calls make a sample
    assert warmed.steady


def test_it_is_steady_within_two_percent(device):
    """Each of these is a sixty-fourth below the one before."""
    warmed = warm_up(slower_at_first(device, [1.0, 1.0, 1.0, 63 / 64, 62 / 64, 0.5]))
    assert (warmed.seconds, warmed.steady) == ([1.0, 63 / 64, 62 / 64], True)


def test_it_is_bounded_in_samples_and_in_time(device):
    always_faster = [2.0 * 0.9**i for i in range(100)]
    warmed = warm_up(slower_at_first(device, always_faster), 0.01, limit=1e9)
    assert (len(warmed.seconds), warmed.steady) == (timing.WARM_UP_SAMPLES, False)
    warmed = warm_up(slower_at_first(device, always_faster), 0.01, limit=3.0)
    assert sum(warmed.seconds[:-1]) < 3.0 <= sum(warmed.seconds)
    assert not warmed.steady


# A synchronisation that does not wait


def test_a_timer_that_waits_is_let_pass(device):
    check_synchronized(timer(device), 2)
    check_synchronized(timer(device), 2, read_back=lambda: (device.give(1.0), device.wait()))


def test_a_missing_synchronisation_is_caught(device):
    """Calls return at once, and nobody waits: however many there are, they take no time."""
    with pytest.raises(MeasurementRefused, match=r"not waited for: 4 calls took 0 s, and 8 calls 0 s"):
        check_synchronized(timer(device, wait=False), 4)


def test_a_missing_synchronisation_is_caught_though_queueing_takes_time(device):
    """Twice the calls take twice the time, but of the program alone. Reading a result back then has to wait."""
    device.launch = 2.0**-10
    running_behind = timer(device, 0.125, wait=False)
    calls = calls_for(running_behind, 0.2)
    assert running_behind(2 * calls) == 2 * running_behind(calls)
    check_synchronized(running_behind, calls)  # without something to read back, it looks right
    with pytest.raises(MeasurementRefused, match="reading a result back took"):
        check_synchronized(running_behind, calls, read_back=lambda: (device.give(0.125), device.wait()))


def test_a_device_that_does_what_it_is_asked_only_once_is_caught(device):
    """A result that is kept and handed out again is no work."""
    done = []
    cached = Timer(lambda number: done or (done.append(1), device.give(1.0)), device.wait, device.clock)
    cached()
    with pytest.raises(MeasurementRefused):
        check_synchronized(cached, 3)


def test_one_interruption_from_outside_is_no_missing_synchronisation(device):
    """It comes once; what is wrong is wrong every time."""
    interruptions = [0.0, 0.0, 16.0]  # within the first sample: it looks as if twice the calls took no longer
    disturbed = Timer(lambda number: device.give(0.125 + (interruptions.pop() if interruptions else 0.0)), device.wait,
                      device.clock)
    check_synchronized(disturbed, 1)
