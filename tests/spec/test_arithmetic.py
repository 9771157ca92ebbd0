"""The chapter's facts about its network, with the arithmetic visible."""

from __future__ import annotations

import dataclasses
import math

import pytest

from alexnet_mf.spec import Network, arithmetic, layers, zoo
from alexnet_mf.spec.layers import Conv2d, Dense, Flatten, LocalResponseNorm, MaxPool2d
from alexnet_mf.spec.zoo import ALEXNET, ALEXNET_28, ALEXNET_2012, ALEXNET_OWT, ALEXNET_SLIM, LENET5, LENET5_RELU

NETWORKS = [ALEXNET, *zoo.TABS.values()]


def test_every_output_shape():
    assert arithmetic.output_shapes(ALEXNET) == {
        "conv1": (96, (224 + 2 * 1 - 11) // 4 + 1, (224 + 2 * 1 - 11) // 4 + 1),
        "pool1": (96, (54 - 3) // 2 + 1, (54 - 3) // 2 + 1),
        "conv2": (256, 26 + 2 * 2 - 5 + 1, 26 + 2 * 2 - 5 + 1),
        "pool2": (256, (26 - 3) // 2 + 1, (26 - 3) // 2 + 1),
        "conv3": (384, 12 + 2 * 1 - 3 + 1, 12 + 2 * 1 - 3 + 1),
        "conv4": (384, 12 + 2 * 1 - 3 + 1, 12 + 2 * 1 - 3 + 1),
        "conv5": (256, 12 + 2 * 1 - 3 + 1, 12 + 2 * 1 - 3 + 1),
        "pool5": (256, (12 - 3) // 2 + 1, (12 - 3) // 2 + 1),
        "flatten": (256 * 5 * 5,),
        "fc6": (4096,), "drop6": (4096,), "fc7": (4096,), "drop7": (4096,), "fc8": (10,),
    }


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.source)
def test_the_shapes_that_the_chapter_prints(network):
    """The same in every tab, though conv1 is padded in one of them: (224 - 11) // 4 + 1 is 54 too."""
    assert list(arithmetic.output_shapes(network).items()) == [
        ("conv1", (96, 54, 54)), ("pool1", (96, 26, 26)), ("conv2", (256, 26, 26)), ("pool2", (256, 12, 12)),
        ("conv3", (384, 12, 12)), ("conv4", (384, 12, 12)), ("conv5", (256, 12, 12)), ("pool5", (256, 5, 5)),
        ("flatten", (6400,)), ("fc6", (4096,)), ("drop6", (4096,)), ("fc7", (4096,)), ("drop7", (4096,)),
        ("fc8", (10,))]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.source)
def test_parameters_layer_by_layer(network):
    """Weights, then biases."""
    counts = {
        "conv1": 96 * 1 * 11 * 11 + 96,
        "conv2": 256 * 96 * 5 * 5 + 256,
        "conv3": 384 * 256 * 3 * 3 + 384,
        "conv4": 384 * 384 * 3 * 3 + 384,
        "conv5": 256 * 384 * 3 * 3 + 256,
        "fc6": 4096 * (256 * 5 * 5) + 4096,
        "fc7": 4096 * 4096 + 4096,
        "fc8": 10 * 4096 + 10,
    }
    assert counts == {"conv1": 11_712, "conv2": 614_656, "conv3": 885_120, "conv4": 1_327_488, "conv5": 884_992,
                      "fc6": 26_218_496, "fc7": 16_781_312, "fc8": 40_970}
    nothing_to_learn = dict.fromkeys(("pool1", "pool2", "pool5", "flatten", "drop6", "drop7"), 0)
    assert arithmetic.parameter_counts(network) == counts | nothing_to_learn
    assert sum(counts.values()) == 46_764_746
    assert list(arithmetic.parameter_counts(network)) == [layer.name for layer in network.layers]


def test_multiply_accumulates_layer_by_layer():
    """Each output pixel of a convolution takes as many as its channel has weights; a dense weight is used once."""
    macs = {
        "conv1": 96 * 1 * 11 * 11 * 54 * 54,
        "conv2": 256 * 96 * 5 * 5 * 26 * 26,
        "conv3": 384 * 256 * 3 * 3 * 12 * 12,
        "conv4": 384 * 384 * 3 * 3 * 12 * 12,
        "conv5": 256 * 384 * 3 * 3 * 12 * 12,
        "fc6": 4096 * (256 * 5 * 5),
        "fc7": 4096 * 4096,
        "fc8": 10 * 4096,
    }
    assert arithmetic.macs(ALEXNET) == macs | dict.fromkeys(("pool1", "pool2", "pool5", "flatten", "drop6", "drop7"), 0)
    assert sum(macs.values()) == sum(arithmetic.macs(ALEXNET).values()) == 938_146_176


def test_input_shapes_are_the_outputs_of_the_layer_before():
    inputs, outputs = arithmetic.input_shapes(ALEXNET), list(arithmetic.output_shapes(ALEXNET).values())
    assert list(inputs.values()) == [(1, 224, 224), *outputs[:-1]]


def test_height_and_width_are_not_confused():
    network = Network("wide", (2, 12, 20), (layers.Conv2d("conv", channels=3, kernel=5, stride=3, padding=1),
                                            Flatten("flatten"), Dense("fc", units=4)))
    height, width = (12 + 2 - 5) // 3 + 1, (20 + 2 - 5) // 3 + 1
    assert list(arithmetic.output_shapes(network).values()) == [(3, height, width), (3 * height * width,), (4,)]
    assert arithmetic.macs(network)["conv"] == 3 * 2 * 5 * 5 * height * width


# The paper of 2012


def test_alexnet_2012_parameter_by_parameter():
    """Section 3.5's kernels: conv2, conv4 and conv5 see half of what lies before them."""
    counts = {
        "conv1": 96 * 3 * 11 * 11 + 96,
        "conv2": 256 * 48 * 5 * 5 + 256,
        "conv3": 384 * 256 * 3 * 3 + 384,
        "conv4": 384 * 192 * 3 * 3 + 384,
        "conv5": 256 * 192 * 3 * 3 + 256,
        "fc6": 4096 * (256 * 6 * 6) + 4096,
        "fc7": 4096 * 4096 + 4096,
        "fc8": 1000 * 4096 + 1000,
    }
    assert {name: count for name, count in arithmetic.parameter_counts(ALEXNET_2012).items() if count} == counts
    assert sum(counts.values()) == 60_965_224


def test_alexnet_2012_has_the_neurons_of_figure_2_but_for_the_first_layer():
    """Its caption: 253,440 - 186,624 - 64,896 - 64,896 - 43,264 - 4096 - 4096 - 1000."""
    shapes = arithmetic.output_shapes(ALEXNET_2012)
    neurons = [math.prod(shapes[name]) for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")]
    assert neurons == [96 * 55 * 55, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert 96 * 55 * 55 == 290_400
    assert 96 * 55 * 48 == 253_440, "what the caption counts in place of it"


def test_alexnet_2012_takes_227_pixels_where_the_text_says_224():
    assert ALEXNET_2012.input == (3, 227, 227)
    assert (227 - 11) / 4 + 1 == 55
    assert (224 - 11) / 4 + 1 == 54.25, "no whole number of windows"


def test_alexnet_2012_multiply_accumulates():
    macs = {"conv1": 96 * 3 * 11 * 11 * 55 * 55, "conv2": 256 * 48 * 5 * 5 * 27 * 27, "conv3": 384 * 256 * 9 * 13 * 13,
            "conv4": 384 * 192 * 9 * 13 * 13, "conv5": 256 * 192 * 9 * 13 * 13, "fc6": 4096 * 9216, "fc7": 4096 * 4096,
            "fc8": 1000 * 4096}
    assert {name: count for name, count in arithmetic.macs(ALEXNET_2012).items() if count} == macs
    assert sum(macs.values()) == 724_406_816


def test_alexnet_2012_is_in_the_papers_order():
    """Section 3.5: normalisation after conv1 and conv2, pooling after both of them and after conv5."""
    names = [layer.name for layer in ALEXNET_2012.layers]
    assert names == ["conv1", "norm1", "pool1", "conv2", "norm2", "pool2", "conv3", "conv4", "conv5", "pool5",
                     "flatten", "fc6", "drop6", "fc7", "drop7", "fc8"]
    assert {layer.name: layer.groups for layer in ALEXNET_2012.layers if isinstance(layer, Conv2d)} == {
        "conv1": 1, "conv2": 2, "conv3": 1, "conv4": 2, "conv5": 2}
    assert {(layer.k, layer.size, layer.alpha, layer.beta) for layer in ALEXNET_2012.layers
            if isinstance(layer, LocalResponseNorm)} == {(2.0, 5, 1e-4, 0.75)}
    assert {(layer.kernel, layer.stride) for layer in ALEXNET_2012.layers if isinstance(layer, MaxPool2d)} == {(3, 2)}


# One weird trick


def test_alexnet_owt_counts():
    shapes = arithmetic.output_shapes(ALEXNET_OWT)
    assert [shapes[f"conv{i}"] for i in range(1, 6)] == [(64, 55, 55), (192, 27, 27), (384, 13, 13), (256, 13, 13),
                                                         (256, 13, 13)]
    assert shapes["pool5"] == shapes["avgpool"] == (256, 6, 6), "the adaptive pooling has nothing to do"
    parameters = [64 * 3 * 11 * 11 + 64, 192 * 64 * 5 * 5 + 192, 384 * 192 * 3 * 3 + 384, 256 * 384 * 3 * 3 + 256,
                  256 * 256 * 3 * 3 + 256, 4096 * 9216 + 4096, 4096 * 4096 + 4096, 1000 * 4096 + 1000]
    assert [count for count in arithmetic.parameter_counts(ALEXNET_OWT).values() if count] == parameters
    assert sum(parameters) == 61_100_840
    macs = [64 * 3 * 11 * 11 * 55 * 55, 192 * 64 * 5 * 5 * 27 * 27, 384 * 192 * 3 * 3 * 13 * 13,
            256 * 384 * 3 * 3 * 13 * 13, 256 * 256 * 3 * 3 * 13 * 13, 4096 * 9216, 4096 * 4096, 1000 * 4096]
    assert [count for count in arithmetic.macs(ALEXNET_OWT).values() if count] == macs
    assert sum(macs) == 714_188_480


# LeNet


def test_lenet5_counts():
    shapes = arithmetic.output_shapes(LENET5)
    assert list(shapes.values()) == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (400,), (120,), (84,), (10,)]
    parameters = [6 * 5 * 5 + 6, 16 * 6 * 5 * 5 + 16, 120 * 400 + 120, 84 * 120 + 84, 10 * 84 + 10]
    assert [count for count in arithmetic.parameter_counts(LENET5).values() if count] == parameters
    assert sum(parameters) == 61_706
    assert LENET5.learning_rate == 0.9


def test_lenet5_relu_has_lenets_weights():
    assert [count for count in arithmetic.parameter_counts(LENET5_RELU).values() if count] == [
        count for count in arithmetic.parameter_counts(LENET5).values() if count]
    assert {getattr(layer, "activation", None) for layer in LENET5_RELU.layers} == {"relu", None}
    assert {type(layer).__name__ for layer in LENET5_RELU.layers} == {"Conv2d", "MaxPool2d", "Flatten", "Dense",
                                                                      "Dropout"}


def test_groups_divide_weights_and_multiply_accumulates():
    network = Network("groups", (6, 9, 9), (Conv2d("conv", channels=4, kernel=3, groups=2), Flatten("flatten"),
                                            Dense("fc", units=2)))
    assert arithmetic.weight_shape(network.layers[0], network.input) == (4, 3, 3, 3)
    assert arithmetic.parameter_counts(network)["conv"] == 4 * 3 * 9 + 4
    assert arithmetic.macs(network)["conv"] == 4 * 3 * 9 * 7 * 7


# The exercises


def training_cost(network: Network) -> int:
    return sum(arithmetic.training_macs(network).values())


def test_alexnet_slim_is_alexnet_with_fewer_filters_at_a_sixth_of_its_cost():
    """Forward, backward to weights and to inputs; conv1 needs no gradient in its input."""
    forward = {"conv1": 48 * 1 * 11 * 11 * 54 * 54, "conv2": 96 * 48 * 5 * 5 * 26 * 26, "conv3": 144 * 96 * 9 * 12 * 12,
               "conv4": 144 * 144 * 9 * 12 * 12, "conv5": 96 * 144 * 9 * 12 * 12, "fc6": 1024 * 96 * 5 * 5,
               "fc7": 1024 * 1024, "fc8": 10 * 1024}
    assert {name: count for name, count in arithmetic.macs(ALEXNET_SLIM).items() if count} == forward
    assert training_cost(ALEXNET_SLIM) == 3 * sum(forward.values()) - forward["conv1"] == 466_164_096
    assert training_cost(ALEXNET) == 2_780_566_272 > 5.9 * training_cost(ALEXNET_SLIM)
    assert [layer.name for layer in ALEXNET_SLIM.layers] == [layer.name for layer in ALEXNET.layers]
    for mine, theirs in zip(ALEXNET_SLIM.layers, ALEXNET.layers):
        narrowed = {"channels": theirs.channels} if isinstance(theirs, Conv2d) else \
            {"units": theirs.units} if isinstance(theirs, Dense) else {}
        assert dataclasses.replace(mine, **narrowed) == theirs, "kernels, strides and paddings are AlexNet's"
    shares = [mine.channels / theirs.channels for mine, theirs in zip(ALEXNET_SLIM.layers, ALEXNET.layers)
              if isinstance(theirs, Conv2d)]
    assert shares == [1 / 2, 3 / 8, 3 / 8, 3 / 8, 3 / 8]
    assert sum(arithmetic.parameter_counts(ALEXNET_SLIM).values()) == 4_075_466


def test_alexnet_28_takes_the_images_as_they_are_at_a_fortieth_of_alexnets_cost():
    forward = {"conv1": 32 * 1 * 9 * 28 * 28, "conv2": 32 * 32 * 9 * 28 * 28, "conv3": 64 * 32 * 9 * 14 * 14,
               "conv4": 64 * 64 * 9 * 14 * 14, "conv5": 128 * 64 * 9 * 7 * 7, "fc6": 512 * 128 * 3 * 3,
               "fc7": 256 * 512, "fc8": 10 * 256}
    assert ALEXNET_28.input == (1, 28, 28)
    assert {name: count for name, count in arithmetic.macs(ALEXNET_28).items() if count} == forward
    assert sum(forward.values()) == 22_625_280
    assert 40 * training_cost(ALEXNET_28) < training_cost(ALEXNET)
    assert sum(arithmetic.parameter_counts(ALEXNET_28).values()) == 863_082
    kinds = [[type(layer) for layer in network.layers if not isinstance(layer, MaxPool2d)]
             for network in (ALEXNET_28, ALEXNET)]
    assert kinds[0] == kinds[1], "five convolutions, three dense layers and dropout, as in AlexNet"
