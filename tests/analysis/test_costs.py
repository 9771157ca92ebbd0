"""Costs of layers, checked by hand, by PyTorch's FLOP counter, and by counting every product."""

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


def find_layer(result: Costs, name: str) -> LayerCost:
    return next(cost for cost in result.layers if cost.name == name)


# Networks of the zoo


@pytest.mark.parametrize("name, parameters, macs", [
    ("alexnet", 46_764_746, 938_146_176), ("alexnet-tab-mxnet", 46_764_746, 938_146_176),
    ("alexnet-2012", 60_965_224, 724_406_816), ("alexnet-owt", 61_100_840, 714_188_480), ("lenet5", 61_706, 416_520)])
def test_networks_have_their_parameters_and_multiply_accumulates(name, parameters, macs):
    result = costs(zoo.get_network(name), 3)
    assert sum(cost.parameters for cost in result.layers) == parameters
    assert result.forward.macs == 3 * macs
    assert result.forward.flops == 2 * 3 * macs


@pytest.mark.parametrize("network", ALL, ids=lambda network: network.name)
def test_sums_over_layers_equal_the_arithmetic(network):
    result = costs(network, 5, momentum=True)
    assert {cost.name: cost.training.macs for cost in result.layers} == {
        name: 5 * count for name, count in arithmetic.training_macs(network).items()}
    trained = sum(arithmetic.parameter_counts(network).values())
    statistics = sum(math.prod(shape) for name, shape in parameters.shapes(network).items()
                     if not parameters.is_trained(name))
    assert sum(cost.stored.weights for cost in result.layers) == 4 * (trained + statistics)
    assert sum(cost.stored.weight_gradients for cost in result.layers) == 4 * trained
    assert sum(map(len, map(result.part, (CONVOLUTIONS, DENSE, OTHER)))) == len(network.layers)


@pytest.mark.parametrize("network", by_size([*map(narrower, filter(is_large, ALL)), *ALL]), ids=lambda net: net.name)
def test_pytorchs_flop_counter_agrees(network, requires):
    """PyTorch counts FLOP from the arguments of its operators, forward and backward. For the weight gradient of a
    grouped convolution, PyTorch ignores the groups (torch 2.14)."""
    requires("torch")
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = backends.load("torch").build(network, parameters.initialize(network, 0))
    pixels = torch.zeros(2, *network.input)
    result = costs(network, 2)
    with FlopCounterMode(display=False) as counter:
        loss = model.net(pixels).sum()
    assert counter.get_total_flops() == result.forward.flops
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    backward = sum(work.flops for cost in result.layers for name, work in cost.operations.items()
                   if name in (WEIGHT_GRADIENT, INPUT_GRADIENT))
    ignored = sum((getattr(one, "groups", 1) - 1) * cost.operations[WEIGHT_GRADIENT].flops
                  for one, cost in zip(network.layers, result.layers) if WEIGHT_GRADIENT in cost.operations)
    assert counter.get_total_flops() - backward in (0, ignored)


def test_multiply_accumulates_equal_a_count_of_every_product():
    """The convolutions are grouped, strided and padded. A product exists for each output pixel, input channel of its
    group and kernel position, including zeros of the padding."""
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
    result = costs(network, 1)
    assert {cost.name: cost.forward.macs for cost in result.layers if cost.forward.macs} == counted


# Bytes, by hand


@pytest.fixture
def by_hand() -> Network:
    """Network of different sizes: 2x8x8, conv 3x8x8, norm, pool 3x4x4, flatten 48, dense 10, dropout, dense 4."""
    return Network("hand", (2, 8, 8), (
        Conv2d("conv1", channels=3, kernel=3, padding=1), LocalResponseNorm("norm1", 5, 1e-4, 0.75, 2.0),
        MaxPool2d("pool1", kernel=2, stride=2), Flatten("flatten"), Dense("fc2", units=10, activation=None),
        Dropout("drop2", rate=0.5), Dense("fc3", units=4)))


X, Y, POOLED = 2 * 8 * 8, 3 * 8 * 8, 3 * 4 * 4
"""Values per image: the input, the output of conv1, the output of pool1."""
CONV, FC2, FC3 = 3 * 2 * 9 + 3, 10 * 48 + 10, 4 * 10 + 4
"""Parameters of conv1, fc2 and fc3."""


def test_training_memory_matches_a_hand_count(by_hand):
    n, b = 7, 4
    result = costs(by_hand, n, b, momentum=True)
    weights = {"conv1": CONV, "fc2": FC2, "fc3": FC3}
    for cost in result.layers:
        expected = weights.get(cost.name, 0) * b
        assert (cost.stored.weights, cost.stored.weight_gradients, cost.stored.optimizer) == (expected,) * 3
        assert cost.parameters == weights.get(cost.name, 0)
    outputs = {"conv1": Y, "norm1": Y, "pool1": POOLED, "flatten": 0, "fc2": 10, "drop2": 10, "fc3": 4}
    assert {cost.name: cost.stored.activations for cost in result.layers} == {
        name: n * b * count for name, count in outputs.items()}
    assert {cost.name: cost.activation_gradients for cost in result.layers} == {
        name: n * b * count for name, count in outputs.items()}
    auxiliary = {cost.name: cost.stored.auxiliary for cost in result.layers if cost.stored.auxiliary}
    assert auxiliary == {"norm1": n * b * ((3 + 4) * 64 + 2 * Y), "pool1": n * 8 * POOLED, "drop2": n * 10}
    assert result.stored == 3 * b * (CONV + FC2 + FC3) + n * b * sum(outputs.values()) + sum(auxiliary.values())
    assert result.pixels == n * b * X
    assert all(not cost.stored.optimizer for cost in costs(by_hand, n, b).layers), "plain SGD keeps no state"


def test_forward_traffic_matches_a_hand_count(by_hand):
    n, b = 7, 8
    moved = {cost.name: cost.forward.traffic for cost in costs(by_hand, n, b).layers}
    assert moved == {
        "conv1": b * (n * X + CONV + n * Y), "norm1": b * n * 2 * Y, "pool1": b * n * (Y + POOLED), "flatten": 0,
        "fc2": b * (n * 48 + FC2 + n * 10), "drop2": 0, "fc3": b * (n * 10 + FC3 + n * 4)}


def test_step_traffic_matches_a_hand_count(by_hand):
    n, b = 7, 4
    result = costs(by_hand, n, b, momentum=True)
    assert {cost.name: {name: work.traffic // b for name, work in cost.operations.items()}
            for cost in result.layers} == {
        # reads the input, the gradient and its output (for the ReLU's derivative); writes the weight gradient
        "conv1": {FORWARD: n * (X + Y) + CONV, WEIGHT_GRADIENT: n * (X + 2 * Y) + CONV, UPDATE: 5 * CONV},
        "norm1": {FORWARD: n * 2 * Y, INPUT_GRADIENT: n * 3 * Y},
        "pool1": {FORWARD: n * (Y + POOLED), INPUT_GRADIENT: n * (Y + POOLED)},
        "flatten": {FORWARD: 0},
        "fc2": {FORWARD: n * 58 + FC2, WEIGHT_GRADIENT: n * 58 + FC2, INPUT_GRADIENT: n * 58 + FC2, UPDATE: 5 * FC2},
        "drop2": {FORWARD: n * 20, INPUT_GRADIENT: n * 20},
        "fc3": {FORWARD: n * 14 + FC3, WEIGHT_GRADIENT: n * 14 + FC3, INPUT_GRADIENT: n * 14 + FC3, UPDATE: 5 * FC3}}
    plain = costs(by_hand, n, b)
    assert find_layer(plain, "fc2").operations[UPDATE].traffic == 3 * b * FC2
    assert result.training.traffic == sum(work.traffic for cost in result.layers for work in cost.operations.values())


def test_layers_before_the_first_weights_have_no_gradient():
    network = Network("late", (1, 8, 8), (MaxPool2d("pool1", kernel=2, stride=2), Flatten("flatten"),
                                          Dense("fc1", units=4), Dense("fc2", units=2)))
    result = costs(network, 3)
    assert set(find_layer(result, "pool1").operations) == {FORWARD}
    assert find_layer(result, "pool1").activation_gradients == find_layer(result, "pool1").stored.auxiliary == 0
    assert set(find_layer(result, "fc1").operations) == {FORWARD, WEIGHT_GRADIENT, UPDATE}
    assert set(find_layer(result, "fc2").operations) == {FORWARD, WEIGHT_GRADIENT, INPUT_GRADIENT, UPDATE}


def test_intensity_is_flop_over_bytes():
    assert Work(macs=50, traffic=25).intensity == 4.0
    assert Work(macs=0, traffic=0).intensity == 0.0


def test_a_larger_batch_reads_weights_once_for_more_images():
    """The intensity of a dense layer grows with the batch, limited by its activations."""
    small, large = (find_layer(costs(zoo.ALEXNET, n), "fc6").forward.intensity for n in (1, 64))
    assert math.isclose(small, 2 * 4096 * 6400 / (4 * (6400 + 4096 * 6401 + 4096)))
    assert 50 * small < large < 64 * small


def test_average_pooling_keeps_no_positions_and_dropout_at_rate_0_is_free():
    network = Network("means", (1, 4, 4), (Conv2d("conv1", channels=2, kernel=1), AvgPool2d("pool1", 2, 2),
                                           Flatten("flatten"), Dropout("drop1", rate=0), Dense("fc2", units=2)))
    assert find_layer(costs(network, 3), "pool1").stored.auxiliary == 0
    dropped = find_layer(costs(network, 3), "drop1")
    assert (dropped.stored.total, dropped.training.traffic, dropped.activation_gradients) == (0, 0, 0)


def test_a_padding_that_differs_between_the_sides_takes_a_copy():
    """Backward keeps the copy, of 9 x 9 pixels. The fewest bytes that can be moved are the same."""
    plain, copied = (costs(Network("padded", (2, 8, 8), (
        Conv2d("conv1", channels=3, kernel=3, stride=2, padding=padding), Flatten("flatten"),
        Dense("fc2", units=2))), 7)
        for padding in (1, "same"))
    assert find_layer(plain, "conv1").stored.auxiliary == 0
    assert find_layer(copied, "conv1").stored.auxiliary == 4 * 7 * 2 * 9 * 9
    assert find_layer(copied, "conv1").training == find_layer(plain, "conv1").training


def test_a_pooling_that_rounds_up_takes_no_copy():
    auxiliary = {}
    for stride in (2, 1):
        network = Network("padded", (1, 8, 8), (Conv2d("conv1", channels=3, kernel=1),
                                                MaxPool2d("pool1", 2 + (stride == 2), stride, padding=((0, 1), (0, 1))),
                                                AvgPool2d("pool2", 2, 1, "same"), Flatten("flatten"),
                                                Dense("fc3", units=2)))
        auxiliary[stride] = [find_layer(costs(network, 7), name).stored.auxiliary for name in ("pool1", "pool2")]
    assert auxiliary == {2: [8 * 7 * 3 * 4 * 4, 4 * 7 * 3 * 5 * 5],
                         1: [8 * 7 * 3 * 8 * 8 + 4 * 7 * 3 * 9 * 9, 4 * 7 * 3 * 9 * 9]}


def test_normalized_pixels_are_read_and_written_once():
    """The normalization has no multiply-accumulates and no gradient."""
    network = Network("normalized", (3, 5, 4), (Normalize("normalize", (0.5,) * 3, (0.2,) * 3),
                                                Conv2d("conv1", channels=2, kernel=1), Flatten("flatten"),
                                                Dense("fc2", units=2)))
    cost = find_layer(costs(network, 7, 4, momentum=True), "normalize")
    assert (cost.kind, cost.part, cost.parameters, cost.activation_gradients) == ("Normalize", OTHER, 0, 0)
    assert cost.forward == cost.training == Work(0, 2 * 7 * 4 * 60)
    assert cost.operations == {FORWARD: cost.forward}
    assert cost.stored.total == cost.stored.activations == 7 * 4 * 60
    plain = costs(Network("plain", network.input, network.layers[1:]), 7, 4, momentum=True)
    assert costs(network, 7, 4, momentum=True).layers[1:] == plain.layers, "the other layers cost the same"
