"""The roofline's arithmetic, on a device of round numbers."""

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
def test_the_longer_of_computing_and_moving(macs, traffic, seconds, limit):
    work = Work(macs, traffic)
    assert DEVICE.ridge == 10.0
    assert DEVICE.seconds(work) == seconds
    assert DEVICE.limit(work) == limit
    assert DEVICE.attainable(work.intensity) * seconds == pytest.approx(work.flops), "the same, as a rate"


def test_what_is_predicted_of_the_phases():
    found = costs(ALEXNET, 8)
    predicted = predictions(found, DEVICE)
    assert predicted["optimizer"] == pytest.approx(3 * 4 * 46_764_746 / DEVICE.bandwidth)
    assert predicted["forward"] == pytest.approx(sum(DEVICE.seconds(layer.forward) for layer in found.layers))
    operations = sum(DEVICE.seconds(work) for layer in found.layers for work in layer.operations.values())
    assert predicted["step"] == pytest.approx(operations + 8 * 4 * 224 * 224 / DEVICE.bandwidth)


def test_infinite_bandwidth_leaves_computing_and_infinite_speed_leaves_moving():
    found = costs(ALEXNET, 8)
    computing = predictions(found, Ceilings(1e9, float("inf")))
    assert computing["step"] == pytest.approx(2 * 8 * 2_780_566_272 / 1e9)
    assert computing["optimizer"] == 0
    moving = predictions(found, Ceilings(float("inf"), 1e9))
    assert moving["forward"] == pytest.approx(found.forward.traffic / 1e9)


def test_the_memory_limited_part_of_a_step():
    """With little bandwidth, all of it; with much, only what computes nothing."""
    found = costs(ALEXNET, 8)
    slow, fast = Ceilings(1e12, 1.0), Ceilings(1.0, 1e12)
    assert all(layer_times(layer, slow).memory == layer_times(layer, slow).training for layer in found.layers)
    for layer in found.layers:
        assert layer_times(layer, fast).memory == pytest.approx(sum(
            fast.seconds(work) for name, work in layer.operations.items() if not work.macs))
        assert not layer.parameters or UPDATE in layer.operations
