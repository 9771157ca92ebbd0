"""The roofline's arithmetic, on a device with round numbers."""

from __future__ import annotations

import pytest

from alexnet_mf.analysis.costs import UPDATE, Work, costs
from alexnet_mf.analysis.roofline import COMPUTE, MEMORY, Ceilings, layer_times, predictions
from alexnet_mf.spec.zoo import ALEXNET

DEVICE = Ceilings(flops=1000.0, bandwidth=100.0)


@pytest.mark.parametrize("macs, traffic, seconds, limit", [
    (5000, 500, 10.0, COMPUTE),  # 20 FLOP/byte
    (500, 500, 5.0, MEMORY),  # 2
    (0, 500, 5.0, MEMORY),
    (2500, 500, 5.0, COMPUTE),  # the ridge
])
def test_time_is_the_longer_of_computation_and_traffic(macs, traffic, seconds, limit):
    work = Work(macs, traffic)
    assert DEVICE.ridge == 10.0
    assert DEVICE.seconds(work) == seconds
    assert DEVICE.limit(work) == limit
    assert DEVICE.attainable(work.intensity) * seconds == pytest.approx(work.flops), "the same limit as a rate"


def test_predicted_times_are_sums_over_layers():
    result = costs(ALEXNET, 8)
    predicted = predictions(result, DEVICE)
    assert predicted["optimizer"] == pytest.approx(3 * 4 * 46_764_746 / DEVICE.bandwidth)
    assert predicted["forward"] == pytest.approx(sum(DEVICE.seconds(layer.forward) for layer in result.layers))
    operations = sum(DEVICE.seconds(work) for layer in result.layers for work in layer.operations.values())
    assert predicted["step"] == pytest.approx(operations + 8 * 4 * 224 * 224 / DEVICE.bandwidth)


def test_infinite_bandwidth_leaves_computation_and_infinite_speed_leaves_traffic():
    result = costs(ALEXNET, 8)
    computation = predictions(result, Ceilings(1e9, float("inf")))
    assert computation["step"] == pytest.approx(2 * 8 * 2_780_566_272 / 1e9)
    assert computation["optimizer"] == 0
    traffic = predictions(result, Ceilings(float("inf"), 1e9))
    assert traffic["forward"] == pytest.approx(result.forward.traffic / 1e9)


def test_the_memory_limited_part_of_a_step_follows_the_bandwidth():
    """Little bandwidth limits the whole step; much bandwidth limits only operations that compute nothing."""
    result = costs(ALEXNET, 8)
    slow, fast = Ceilings(1e12, 1.0), Ceilings(1.0, 1e12)
    assert all(layer_times(layer, slow).memory == layer_times(layer, slow).training for layer in result.layers)
    for layer in result.layers:
        assert layer_times(layer, fast).memory == pytest.approx(sum(
            fast.seconds(work) for name, work in layer.operations.items() if not work.macs))
        assert not layer.parameters or UPDATE in layer.operations
