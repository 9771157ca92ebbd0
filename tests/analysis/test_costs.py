"""The costs of layers, by hand, and against others who count: torch's flop counter, and every product one by one."""

from __future__ import annotations

import itertools
import math

import pytest
from sizes import by_size, is_large, narrower

from alexnet_mf import backends
from alexnet_mf.analysis.costs import (
    CONVOLUTIONS,
    DENSE,
    FORWARD,
    INPUT_GRADIENT,
    OTHER,
    UPDATE,
    WEIGHT_GRADIENT,
    Costs,
    LayerCost,
    Work,
    costs,
)
from alexnet_mf.spec import Network, arithmetic, zoo
from alexnet_mf.spec.layers import AvgPool2d, Conv2d, Dense, Dropout, Flatten, LocalResponseNorm, MaxPool2d, Normalize
from alexnet_mf.weights import parameters

ALL = [zoo.get_network(name) for name in zoo.NETWORKS if not name.startswith(zoo.TAB)]


def layer(found: Costs, name: str) -> LayerCost:
    return next(cost for cost in found.layers if cost.name == name)


# The known networks


@pytest.mark.parametrize("name, parameters, macs", [
    ("alexnet", 46_764_746, 938_146_176), ("alexnet-tab-mxnet", 46_764_746, 938_146_176),
    ("alexnet-2012", 60_965_224, 724_406_816), ("alexnet-owt", 61_100_840, 714_188_480), ("lenet5", 61_706, 416_520)])
def test_the_facts(name, parameters, macs):
    found = costs(zoo.get_network(name), 3)
    assert sum(cost.parameters for cost in found.layers) == parameters
    assert found.forward.macs == 3 * macs
    assert found.forward.flops == 2 * 3 * macs


@pytest.mark.parametrize("network", ALL, ids=lambda network: network.name)
def test_the_sums_are_those_of_the_arithmetic(network):
    found = costs(network, 5, momentum=True)
    assert {cost.name: cost.training.macs for cost in found.layers} == {
        name: 5 * count for name, count in arithmetic.training_macs(network).items()}
    assert sum(cost.held.weights for cost in found.layers) == 4 * sum(arithmetic.parameter_counts(network).values())
    assert sum(map(len, map(found.part, (CONVOLUTIONS, DENSE, OTHER)))) == len(network.layers)


@pytest.mark.parametrize("network", by_size([*map(narrower, filter(is_large, ALL)), *ALL]), ids=lambda net: net.name)
def test_torchs_flop_counter_counts_as_many(network, requires):
    """An independent witness: it counts what PyTorch's operators are called with, forward and backward. For the
    gradient of a grouped convolution's weights it forgets the groups (torch 2.14)."""
    requires("torch")
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = backends.load("torch").build(network, parameters.initialise(network, 0))
    pixels = torch.zeros(2, *network.input)
    found = costs(network, 2)
    with FlopCounterMode(display=False) as counter:
        loss = model.net(pixels).sum()
    assert counter.get_total_flops() == found.forward.flops
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    backward = sum(work.flops for cost in found.layers for name, work in cost.operations.items()
                   if name in (WEIGHT_GRADIENT, INPUT_GRADIENT))
    forgotten = sum((getattr(one, "groups", 1) - 1) * cost.operations[WEIGHT_GRADIENT].flops
                    for one, cost in zip(network.layers, found.layers) if WEIGHT_GRADIENT in cost.operations)
    assert counter.get_total_flops() - backward in (0, forgotten)


def test_every_product_counted_one_by_one():
    """Of grouped, strided, padded convolutions: each output pixel, its group's input channels, each kernel position,
    zeros of the padding too."""
    network = Network("tiny", (4, 9, 7), (
        Conv2d("conv1", channels=6, kernel=3, stride=2, padding=1, groups=2), Conv2d("conv2", channels=4, kernel=2),
        Flatten("flatten"), Dense("fc3", units=5)))
    shapes = arithmetic.output_shapes(network)
    counted = {"conv1": 0, "conv2": 0, "fc3": 0}
    for name, kernel, channels in (("conv1", 3, 4 // 2), ("conv2", 2, 6)):
        for _ in itertools.product(*map(range, shapes[name]), range(channels), range(kernel), range(kernel)):
            counted[name] += 1
    for _ in itertools.product(range(5), range(shapes["flatten"][0])):
        counted["fc3"] += 1
    found = costs(network, 1)
    assert {cost.name: cost.forward.macs for cost in found.layers if cost.forward.macs} == counted


# Bytes, by hand


@pytest.fixture
def by_hand() -> Network:
    """Sizes that differ everywhere: 2x8x8, conv 3x8x8, norm, pool 3x4x4, flat 48, 10, dropped, 4."""
    return Network("hand", (2, 8, 8), (
        Conv2d("conv1", channels=3, kernel=3, padding=1), LocalResponseNorm("norm1", 5, 1e-4, 0.75, 2.0),
        MaxPool2d("pool1", kernel=2, stride=2), Flatten("flatten"), Dense("fc2", units=10, activation=None),
        Dropout("drop2", rate=0.5), Dense("fc3", units=4)))


X, Y, POOLED = 2 * 8 * 8, 3 * 8 * 8, 3 * 4 * 4
"""Values of an image: the input, conv1's output, pool1's."""
CONV, FC2, FC3 = 3 * 2 * 9 + 3, 10 * 48 + 10, 4 * 10 + 4
"""Parameters."""


def test_what_training_holds(by_hand):
    n, b = 7, 4
    found = costs(by_hand, n, b, momentum=True)
    weights = {"conv1": CONV, "fc2": FC2, "fc3": FC3}
    for cost in found.layers:
        expected = weights.get(cost.name, 0) * b
        assert (cost.held.weights, cost.held.weight_gradients, cost.held.optimizer) == (expected,) * 3
        assert cost.parameters == weights.get(cost.name, 0)
    outputs = {"conv1": Y, "norm1": Y, "pool1": POOLED, "flatten": 0, "fc2": 10, "drop2": 10, "fc3": 4}
    assert {cost.name: cost.held.activations for cost in found.layers} == {
        name: n * b * count for name, count in outputs.items()}
    assert {cost.name: cost.activation_gradients for cost in found.layers} == {
        name: n * b * count for name, count in outputs.items()}
    beside = {cost.name: cost.held.auxiliary for cost in found.layers if cost.held.auxiliary}
    assert beside == {"norm1": n * b * ((3 + 4) * 64 + 2 * Y), "pool1": n * 8 * POOLED, "drop2": n * 10}
    assert found.held == 3 * b * (CONV + FC2 + FC3) + n * b * sum(outputs.values()) + sum(beside.values())
    assert found.pixels == n * b * X
    assert all(not cost.held.optimizer for cost in costs(by_hand, n, b).layers), "plain SGD keeps nothing"


def test_what_a_forward_pass_moves(by_hand):
    n, b = 7, 8
    moved = {cost.name: cost.forward.traffic for cost in costs(by_hand, n, b).layers}
    assert moved == {
        "conv1": b * (n * X + CONV + n * Y), "norm1": b * n * 2 * Y, "pool1": b * n * (Y + POOLED), "flatten": 0,
        "fc2": b * (n * 48 + FC2 + n * 10), "drop2": 0, "fc3": b * (n * 10 + FC3 + n * 4)}


def test_what_a_training_step_moves(by_hand):
    n, b = 7, 4
    found = costs(by_hand, n, b, momentum=True)
    assert {cost.name: {name: work.traffic // b for name, work in cost.operations.items()}
            for cost in found.layers} == {
        # its input, the gradient, its own output for the ReLU's derivative, and the weights' gradient written
        "conv1": {FORWARD: n * (X + Y) + CONV, WEIGHT_GRADIENT: n * (X + 2 * Y) + CONV, UPDATE: 5 * CONV},
        "norm1": {FORWARD: n * 2 * Y, INPUT_GRADIENT: n * 3 * Y},
        "pool1": {FORWARD: n * (Y + POOLED), INPUT_GRADIENT: n * (Y + POOLED)},
        "flatten": {FORWARD: 0},
        "fc2": {FORWARD: n * 58 + FC2, WEIGHT_GRADIENT: n * 58 + FC2, INPUT_GRADIENT: n * 58 + FC2, UPDATE: 5 * FC2},
        "drop2": {FORWARD: n * 20, INPUT_GRADIENT: n * 20},
        "fc3": {FORWARD: n * 14 + FC3, WEIGHT_GRADIENT: n * 14 + FC3, INPUT_GRADIENT: n * 14 + FC3, UPDATE: 5 * FC3}}
    plain = costs(by_hand, n, b)
    assert layer(plain, "fc2").operations[UPDATE].traffic == 3 * b * FC2
    assert found.training.traffic == sum(work.traffic for cost in found.layers for work in cost.operations.values())


def test_nothing_below_the_first_weights_has_a_gradient():
    network = Network("late", (1, 8, 8), (MaxPool2d("pool1", kernel=2, stride=2), Flatten("flatten"),
                                          Dense("fc1", units=4), Dense("fc2", units=2)))
    found = costs(network, 3)
    assert set(layer(found, "pool1").operations) == {FORWARD}
    assert layer(found, "pool1").activation_gradients == layer(found, "pool1").held.auxiliary == 0
    assert set(layer(found, "fc1").operations) == {FORWARD, WEIGHT_GRADIENT, UPDATE}
    assert set(layer(found, "fc2").operations) == {FORWARD, WEIGHT_GRADIENT, INPUT_GRADIENT, UPDATE}


def test_intensity_is_flop_over_bytes():
    assert Work(macs=50, traffic=25).intensity == 4.0
    assert Work(macs=0, traffic=0).intensity == 0.0


def test_a_larger_batch_reads_weights_once_for_more_images():
    """So the intensity of a dense layer grows with the batch, up to what its activations allow."""
    small, large = (layer(costs(zoo.ALEXNET, n), "fc6").forward.intensity for n in (1, 64))
    assert math.isclose(small, 2 * 4096 * 6400 / (4 * (6400 + 4096 * 6401 + 4096)))
    assert 50 * small < large < 64 * small


def test_average_pooling_keeps_no_positions_and_dropout_of_nothing_costs_nothing():
    network = Network("means", (1, 4, 4), (Conv2d("conv1", channels=2, kernel=1), AvgPool2d("pool1", 2, 2),
                                           Flatten("flatten"), Dropout("drop1", rate=0), Dense("fc2", units=2)))
    assert layer(costs(network, 3), "pool1").held.auxiliary == 0
    dropped = layer(costs(network, 3), "drop1")
    assert (dropped.held.total, dropped.training.traffic, dropped.activation_gradients) == (0, 0, 0)


def test_normalised_pixels_are_read_and_written_once():
    """Nothing multiplies and accumulates, and no gradient goes there."""
    network = Network("normalised", (3, 5, 4), (Normalize("normalize", (0.5,) * 3, (0.2,) * 3),
                                                Conv2d("conv1", channels=2, kernel=1), Flatten("flatten"),
                                                Dense("fc2", units=2)))
    cost = layer(costs(network, 7, 4, momentum=True), "normalize")
    assert (cost.kind, cost.part, cost.parameters, cost.activation_gradients) == ("Normalize", OTHER, 0, 0)
    assert cost.forward == cost.training == Work(0, 2 * 7 * 4 * 60)
    assert cost.operations == {FORWARD: cost.forward}
    assert cost.held.total == cost.held.activations == 7 * 4 * 60
    plain = costs(Network("plain", network.input, network.layers[1:]), 7, 4, momentum=True)
    assert costs(network, 7, 4, momentum=True).layers[1:] == plain.layers, "all else costs what it did"
