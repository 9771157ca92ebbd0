"""Numbers of the chapter and of the papers, with the arithmetic visible."""

from __future__ import annotations

import math

import pytest

from alexnet_mf.spec import Network, arithmetic, zoo
from alexnet_mf.spec.layers import BatchNorm, Conv2d, Dense, Flatten, LocalResponseNorm, MaxPool2d
from alexnet_mf.spec.zoo import (
    ALEXNET,
    ALEXNET_28,
    ALEXNET_2012,
    ALEXNET_CAFFE,
    ALEXNET_OWT,
    ALEXNET_SLIM,
    CAFFENET,
    LENET5,
    LENET5_RELU,
)
from alexnet_mf.weights import parameters

CHAPTER = [ALEXNET, *zoo.TABS.values()]


@pytest.mark.parametrize("network", CHAPTER, ids=lambda network: network.source)
def test_shapes_are_those_of_the_chapter(network):
    """All tabs agree, though only one pads conv1: (224 + 2 - 11) // 4 and (224 - 11) // 4 are 53."""
    assert list(arithmetic.output_shapes(network).items()) == [
        ("conv1", (96, 54, 54)), ("pool1", (96, 26, 26)), ("conv2", (256, 26, 26)), ("pool2", (256, 12, 12)),
        ("conv3", (384, 12, 12)), ("conv4", (384, 12, 12)), ("conv5", (256, 12, 12)), ("pool5", (256, 5, 5)),
        ("flatten", (6400,)), ("fc6", (4096,)), ("drop6", (4096,)), ("fc7", (4096,)), ("drop7", (4096,)),
        ("fc8", (10,))]


ALEXNET_COSTS = (46_764_746, 938_146_176, {
    "conv1": (96, 1 * 11 * 11, 54 * 54), "conv2": (256, 96 * 5 * 5, 26 * 26), "conv3": (384, 256 * 3 * 3, 12 * 12),
    "conv4": (384, 384 * 3 * 3, 12 * 12), "conv5": (256, 384 * 3 * 3, 12 * 12), "fc6": (4096, 256 * 5 * 5, 1),
    "fc7": (4096, 4096, 1), "fc8": (10, 4096, 1)})
ALEXNET_2012_COSTS = (60_965_224, 724_406_816, {
    # Section 3.5's kernels: conv2, conv4 and conv5 see half of the channels before them. Caffe's are the same.
    "conv1": (96, 3 * 11 * 11, 55 * 55), "conv2": (256, 48 * 5 * 5, 27 * 27), "conv3": (384, 256 * 3 * 3, 13 * 13),
    "conv4": (384, 192 * 3 * 3, 13 * 13), "conv5": (256, 192 * 3 * 3, 13 * 13), "fc6": (4096, 256 * 6 * 6, 1),
    "fc7": (4096, 4096, 1), "fc8": (1000, 4096, 1)})
LENET_COSTS = (61_706, 416_520, {
    "conv1": (6, 1 * 5 * 5, 28 * 28), "conv2": (16, 6 * 5 * 5, 10 * 10), "fc3": (120, 16 * 5 * 5, 1),
    "fc4": (84, 120, 1), "fc5": (10, 84, 1)})
COSTS = {**{network.name: ALEXNET_COSTS for network in CHAPTER}, "lenet5": LENET_COSTS, "lenet5-relu": LENET_COSTS,
    **dict.fromkeys(("alexnet-2012", "alexnet-caffe", "caffenet"), ALEXNET_2012_COSTS),
    "alexnet-owt": (61_100_840, 714_188_480, {
        "conv1": (64, 3 * 11 * 11, 55 * 55), "conv2": (192, 64 * 5 * 5, 27 * 27), "conv3": (384, 192 * 3 * 3, 13 * 13),
        "conv4": (256, 384 * 3 * 3, 13 * 13), "conv5": (256, 256 * 3 * 3, 13 * 13), "fc6": (4096, 256 * 6 * 6, 1),
        "fc7": (4096, 4096, 1), "fc8": (1000, 4096, 1)}),
    "lenet5-bn": (44_878, 281_640, {
        "conv1": (6, 1 * 5 * 5, 24 * 24), "bn1": (6, 1, 0), "conv2": (16, 6 * 5 * 5, 8 * 8), "bn2": (16, 1, 0),
        "fc3": (120, 16 * 4 * 4, 1), "bn3": (120, 1, 0), "fc4": (84, 120, 1), "bn4": (84, 1, 0), "fc5": (10, 84, 1)}),
    "alexnet-cifar": (145_706, 12_354_176, {
        "conv1": (32, 3 * 5 * 5, 32 * 32), "bn1": (32, 1, 0), "conv2": (32, 32 * 5 * 5, 16 * 16), "bn2": (32, 1, 0),
        "conv3": (64, 32 * 5 * 5, 8 * 8), "bn3": (64, 1, 0), "fc4": (64, 64 * 4 * 4, 1), "fc5": (10, 64, 1)}),
    "alexnet-slim": (4_075_466, 161_033_408, {
        "conv1": (48, 1 * 11 * 11, 54 * 54), "conv2": (96, 48 * 5 * 5, 26 * 26), "conv3": (144, 96 * 3 * 3, 12 * 12),
        "conv4": (144, 144 * 3 * 3, 12 * 12), "conv5": (96, 144 * 3 * 3, 12 * 12), "fc6": (1024, 96 * 5 * 5, 1),
        "fc7": (1024, 1024, 1), "fc8": (10, 1024, 1)}),
    "alexnet-28": (863_082, 22_625_280, {
        "conv1": (32, 1 * 3 * 3, 28 * 28), "conv2": (32, 32 * 3 * 3, 28 * 28), "conv3": (64, 32 * 3 * 3, 14 * 14),
        "conv4": (64, 64 * 3 * 3, 14 * 14), "conv5": (128, 64 * 3 * 3, 7 * 7), "fc6": (512, 128 * 3 * 3, 1),
        "fc7": (256, 512, 1), "fc8": (10, 256, 1)})}
"""Parameters and multiply-accumulates of each network; for each layer, its outputs, the weights of each output, and the
number of pixels at which each weight is used."""


def test_every_network_has_its_costs_here():
    assert set(COSTS) == set(zoo.NETWORKS)


@pytest.mark.parametrize("name", COSTS)
def test_parameters_and_multiply_accumulates_layer_by_layer(name):
    """Each output has one bias, unless its layer has none, and the other layers have no parameters. Batch normalization
    counts as no multiply-accumulates."""
    network, (parameters, macs, layers) = zoo.get_network(name), COSTS[name]
    counted, used = arithmetic.parameter_counts(network), arithmetic.macs(network)
    assert list(counted) == list(used) == [layer.name for layer in network.layers]
    without_bias = {layer.name for layer in network.layers if not getattr(layer, "bias", True)}
    assert {layer: count for layer, count in counted.items() if count} == {
        layer: outputs * (weights + (layer not in without_bias)) for layer, (outputs, weights, _) in layers.items()}
    assert {layer: count for layer, count in used.items() if count} == {
        layer: outputs * weights * pixels for layer, (outputs, weights, pixels) in layers.items() if pixels}
    assert (sum(counted.values()), sum(used.values())) == (parameters, macs)


def test_a_layer_without_bias_has_its_weights_alone():
    network = Network("bare", (4, 5, 5), (Conv2d("conv1", channels=6, kernel=3, groups=2, bias=False),
                                          Flatten("flatten"), Dense("fc2", units=7, bias=False), Dense("fc3", units=2)))
    assert arithmetic.parameter_counts(network) == {
        "conv1": 6 * 2 * 3 * 3, "flatten": 0, "fc2": 7 * 6 * 3 * 3, "fc3": 2 * 7 + 2}


def test_batch_normalization_has_two_parameters_for_each_channel_or_feature():
    """Running statistics are no parameters: no gradient changes them."""
    network = Network("batches", (4, 5, 5), (BatchNorm("bn0"), Conv2d("conv1", channels=6, kernel=3), BatchNorm("bn1"),
                                             Flatten("flatten"), BatchNorm("bn2"), Dense("fc3", units=2)))
    counts = arithmetic.parameter_counts(network)
    assert (counts["bn0"], counts["bn1"], counts["bn2"]) == (2 * 4, 2 * 6, 2 * 6 * 3 * 3)
    assert [arithmetic.macs(network)[name] for name in ("bn0", "bn1", "bn2")] == [0, 0, 0]
    assert {name: shape for name, shape in parameters.shapes(network).items() if name.startswith("bn2")} == {
        f"bn2.{part}": (54,) for part in ("weight", "bias", "running_mean", "running_var")}
    assert arithmetic.training_macs(network)["conv1"] == 3 * arithmetic.macs(network)["conv1"], \
        "bn0 needs the gradients of its output"


def test_height_and_width_are_not_confused():
    network = Network("wide", (2, 12, 20), (Conv2d("conv", channels=3, kernel=5, stride=3, padding=1),
                                            Flatten("flatten"), Dense("fc", units=4)))
    height, width = (12 + 2 - 5) // 3 + 1, (20 + 2 - 5) // 3 + 1
    assert list(arithmetic.output_shapes(network).values()) == [(3, height, width), (3 * height * width,), (4,)]
    assert arithmetic.macs(network)["conv"] == 3 * 2 * 5 * 5 * height * width


def test_alexnet_2012_has_the_neurons_of_figure_2_except_in_the_first_layer():
    """The caption: 253,440 - 186,624 - 64,896 - 64,896 - 43,264 - 4096 - 4096 - 1000."""
    shapes = arithmetic.output_shapes(ALEXNET_2012)
    neurons = [math.prod(shapes[name]) for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")]
    assert neurons == [96 * 55 * 55, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert 96 * 55 * 48 == 253_440, "the caption's number for conv1"


def test_alexnet_2012_is_in_the_papers_order():
    """Section 3.5: normalization after conv1 and conv2, pooling after both of them and after conv5."""
    assert ALEXNET_2012.input == (3, 227, 227), "(224 - 11) / 4 is no whole number of windows, (227 - 11) / 4 is"
    names = [layer.name for layer in ALEXNET_2012.layers]
    assert names == ["conv1", "norm1", "pool1", "conv2", "norm2", "pool2", "conv3", "conv4", "conv5", "pool5",
                     "flatten", "fc6", "drop6", "fc7", "drop7", "fc8"]
    assert {layer.name: layer.groups for layer in ALEXNET_2012.layers if isinstance(layer, Conv2d)} == {
        "conv1": 1, "conv2": 2, "conv3": 1, "conv4": 2, "conv5": 2}
    assert {(layer.k, layer.size, layer.alpha, layer.beta) for layer in ALEXNET_2012.layers
            if isinstance(layer, LocalResponseNorm)} == {(2.0, 5, 1e-4, 0.75)}
    assert {(layer.kernel, layer.stride) for layer in ALEXNET_2012.layers if isinstance(layer, MaxPool2d)} == {(3, 2)}


def test_caffes_networks_are_alexnet_2012_with_another_normalization():
    """Caffe divides alpha 0.0001 by local_size 5, and its k is 1. CaffeNet pools before it normalizes."""
    norms = {f"norm{number}": LocalResponseNorm(f"norm{number}", 5, 0.0001 / 5, 0.75, 1.0) for number in (1, 2)}
    layers = [norms.get(layer.name, layer) for layer in ALEXNET_2012.layers]
    assert (ALEXNET_CAFFE.input, [*ALEXNET_CAFFE.layers]) == (ALEXNET_2012.input, layers)
    layers[1:3], layers[4:6] = layers[2:0:-1], layers[5:3:-1]
    assert (CAFFENET.input, [*CAFFENET.layers]) == (ALEXNET_2012.input, layers)
    assert [layer.name for layer in layers[:6]] == ["conv1", "pool1", "norm1", "conv2", "pool2", "norm2"]


def test_the_windows_of_caffes_pooling_fit():
    """Caffe rounds the number of windows up, the spec rounds it down."""
    for network in (ALEXNET_CAFFE, CAFFENET):
        inputs = arithmetic.input_shapes(network)
        pools = [layer for layer in network.layers if isinstance(layer, MaxPool2d)]
        assert [(inputs[pool.name][1] - pool.kernel) % pool.stride for pool in pools] == [0, 0, 0]


def test_the_adaptive_pooling_of_alexnet_owt_keeps_the_shape():
    shapes = arithmetic.output_shapes(ALEXNET_OWT)
    assert shapes["pool5"] == shapes["avgpool"] == (256, 6, 6)


def test_lenet5_has_the_chapters_shapes():
    assert list(arithmetic.output_shapes(LENET5).values()) == [
        (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (400,), (120,), (84,), (10,)]


def test_lenet5_relu_has_relu_max_pooling_and_dropout():
    assert {getattr(layer, "activation", None) for layer in LENET5_RELU.layers} == {"relu", None}
    assert {type(layer).__name__ for layer in LENET5_RELU.layers} == {"Conv2d", "MaxPool2d", "Flatten", "Dense",
                                                                      "Dropout"}


def test_training_costs_are_those_of_the_exercises():
    """Each layer computes outputs and gradients in weights and inputs; conv1 needs no gradient in its input."""
    alexnet, slim, small = (sum(arithmetic.training_macs(network).values())
                            for network in (ALEXNET, ALEXNET_SLIM, ALEXNET_28))
    assert slim == 3 * sum(arithmetic.macs(ALEXNET_SLIM).values()) - arithmetic.macs(ALEXNET_SLIM)["conv1"]
    assert (alexnet, slim) == (2_780_566_272, 466_164_096)
    assert alexnet > 5.9 * slim and alexnet > 40 * small
