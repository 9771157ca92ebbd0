"""The spec: bad values, networks as data, and differences between the book's tabs."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
import time

import pytest

from alexnet_mf import spec
from alexnet_mf.errors import SpecError
from alexnet_mf.spec import Network, comparison, layers, zoo
from alexnet_mf.spec.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    LocalResponseNorm,
    MaxPool2d,
    Normalize,
)
from alexnet_mf.spec.zoo import ALEXNET, LENET5

DENSE = Dense("last", units=10)


@pytest.mark.parametrize("make, named", [
    (lambda: Conv2d("conv9", channels=0, kernel=3), ["conv9", "channels", "at least 1", "0"]),
    (lambda: Conv2d("conv9", channels=4, kernel=0), ["conv9", "kernel", "0"]),
    (lambda: Conv2d("conv9", channels=4, kernel=3, stride=0), ["conv9", "stride", "0"]),
    (lambda: Conv2d("conv9", channels=4, kernel=3, padding=-1), ["conv9", "padding", "at least 0", "-1"]),
    (lambda: Conv2d("conv9", channels=4, kernel=3, padding=True), ["conv9", "padding", "True"]),
    (lambda: Conv2d("conv9", channels=4, kernel=3, padding="valid"), ["conv9", "padding", '"same"', "'valid'"]),
    (lambda: Conv2d("conv9", 4, 3, padding=(1, 2)), ["conv9", "[[top, bottom], [left, right]]", "(1, 2)"]),
    (lambda: Conv2d("conv9", 4, 3, padding=((0, 1), (0, 1), (0, 1))), ["conv9", "padding", "(0, 1), (0, 1))"]),
    (lambda: Conv2d("conv9", 4, 3, padding=((0, 1), (0, -1))), ["conv9", "padding", "((0, 1), (0, -1))"]),
    (lambda: Conv2d("conv9", 4, 3, padding=((0, 1), (0, 1.0))), ["conv9", "padding", "1.0"]),
    (lambda: Conv2d("conv9", 4, 3, padding=((0, 1), (0, 10**10))), ["conv9", "padding", "10,000,000,000"]),
    (lambda: Conv2d("conv9", channels=4.0, kernel=3), ["conv9", "channels", "whole number", "4.0"]),
    (lambda: Conv2d("conv9", channels=True, kernel=3), ["conv9", "channels", "True"]),
    (lambda: Conv2d("conv9", channels=4, kernel=3, activation="swish"), ["conv9", "swish", "relu", "sigmoid", "tanh"]),
    (lambda: Dense("fc9", units=4, activation="leaky_relu"), ["fc9", "leaky_relu needs alpha", "0.01"]),
    (lambda: Dense("fc9", units=4, activation="leaky_relu", alpha=-0.1), ["fc9", "alpha", "at least 0", "-0.1"]),
    (lambda: Dense("fc9", units=4, activation="elu", alpha="1"), ["fc9", "alpha", "'1'"]),
    (lambda: Conv2d("conv9", channels=4, kernel=3, alpha=0.1), ["conv9", "alpha belongs to elu and", "not to relu"]),
    (lambda: Conv2d("conv9", channels=4, kernel=3, bias=0), ["conv9", "bias must be true or false", "not 0"]),
    (lambda: Dense("fc9", units=4, bias=None), ["fc9", "bias", "None"]),
    (lambda: Dense("fc9", units=4, alpha=0.1), ["fc9", "alpha", "a layer without activation", "leave it out"]),
    (lambda: MaxPool2d("pool9", kernel=3, stride=0), ["pool9", "stride", "0"]),
    (lambda: MaxPool2d("pool9", kernel=3, stride=2, padding=3), ["pool9", "padding 3", "below the kernel, 3"]),
    (lambda: AvgPool2d("pool9", 2, 2, padding=((0, 1), (0, 2))), ["pool9", "padding ((0, 1), (0, 2))", "kernel, 2"]),
    (lambda: AvgPool2d("pool9", kernel=1, stride=1, padding=1), ["pool9", "padding 1", "below the kernel, 1"]),
    (lambda: MaxPool2d("pool9", kernel=3, stride=2, padding=-1), ["pool9", "padding", "at least 0", "-1"]),
    (lambda: MaxPool2d("pool9", kernel=3, stride=2, padding="SAME"), ["pool9", "padding", '"same"', "'SAME'"]),
    (lambda: AvgPool2d("pool9", 3, 2, 1, count_padding=1), ["pool9", "count_padding", "true or false", "1"]),
    (lambda: Conv2d("conv9", channels=4, kernel=3, groups=0), ["conv9", "groups", "at least 1", "0"]),
    (lambda: Conv2d("conv9", channels=4, kernel=3, groups=3), ["conv9", "4 channels", "3 groups"]),
    (lambda: Conv2d("conv9", channels=4, kernel=10**10), ["conv9", "kernel", "2,147,483,647", "10,000,000,000"]),
    (lambda: AvgPool2d("pool9", kernel=0, stride=2), ["pool9", "kernel", "0"]),
    (lambda: AdaptiveAvgPool2d("pool9", size=0), ["pool9", "size", "0"]),
    (lambda: LocalResponseNorm("norm9", 4, 1e-4, 0.75, 2), ["norm9", "size", "odd", "4"]),
    (lambda: LocalResponseNorm("norm9", 5, -1e-4, 0.75, 2), ["norm9", "alpha", "at least 0", "-0.0001"]),
    (lambda: LocalResponseNorm("norm9", 5, 1e-4, float("nan"), 2), ["norm9", "beta", "nan"]),
    (lambda: LocalResponseNorm("norm9", 5, 1e-4, "0.75", 2), ["norm9", "beta", "'0.75'"]),
    (lambda: LocalResponseNorm("norm9", 5, 1e-4, 0.75, 0), ["norm9", "k", "above 0"]),
    (lambda: LocalResponseNorm("norm9", 5, 10**400, 0.75, 2), ["norm9", "alpha", "10000"]),
    (lambda: Normalize("norm9", 0.5, (0.5,)), ["norm9", "mean must be a list", "each channel", "0.5"]),
    (lambda: Normalize("norm9", (0.5,), ()), ["norm9", "std must be a list", "()"]),
    (lambda: Normalize("norm9", "0.5", (0.5,)), ["norm9", "mean must be a list", "'0.5'"]),
    (lambda: Normalize("norm9", (0.5, 0.5), (0.5,)), ["norm9", "mean and std", "each channel", "2 and 1"]),
    (lambda: Normalize("norm9", (0.5,), (0,)), ["norm9", "std", "between 1e-6 and 1e6", "0"]),
    (lambda: Normalize("norm9", (0.5,), (-0.5,)), ["norm9", "std", "-0.5"]),
    (lambda: Normalize("norm9", (0.5,), (1e-7,)), ["norm9", "std", "1e-07"]),
    (lambda: Normalize("norm9", (0.5,), (float("inf"),)), ["norm9", "std", "inf"]),
    (lambda: Normalize("norm9", (float("nan"),), (0.5,)), ["norm9", "mean", "nan"]),
    (lambda: Normalize("norm9", (10**400,), (0.5,)), ["norm9", "mean", "between -1e6 and 1e6"]),
    (lambda: Normalize("norm9", (0.5, "0.5"), (0.5, 0.5)), ["norm9", "mean", "'0.5'"]),
    (lambda: Normalize("norm9", (0.5,), (True,)), ["norm9", "std", "True"]),
    (lambda: Dense("fc9", units=0), ["fc9", "units", "0"]),
    (lambda: Dense("fc9", units=4, activation="softmax"), ["fc9", "softmax", "relu"]),
    (lambda: BatchNorm("bn9", epsilon=0), ["bn9", "epsilon", "above 0", "no variance"]),
    (lambda: BatchNorm("bn9", epsilon=-1e-5), ["bn9", "epsilon", "at least 0", "-1e-05"]),
    (lambda: BatchNorm("bn9", momentum=1.5), ["bn9", "momentum", "a number from 0 to 1", "1.5"]),
    (lambda: BatchNorm("bn9", momentum="0.1"), ["bn9", "momentum", "'0.1'"]),
    (lambda: BatchNorm("bn9", activation="swish"), ["bn9", "activation", "relu", "'swish'"]),
    (lambda: BatchNorm("bn9", activation="relu", alpha=0.1), ["bn9", "alpha"]),
    (lambda: Dropout("drop9", rate=1.0), ["drop9", "rate", "below 1", "1.0"]),
    (lambda: Dropout("drop9", rate=-0.1), ["drop9", "-0.1"]),
    (lambda: Dropout("drop9", rate=float("nan")), ["drop9", "nan"]),
    (lambda: Dropout("drop9", rate=False), ["drop9", "False"]),
    (lambda: Dropout("drop9", rate="0.5"), ["drop9", "'0.5'"]),
])
def test_an_error_names_the_bad_layer_and_its_numbers(make, named):
    with pytest.raises(SpecError) as caught:
        make()
    assert all(word in str(caught.value) for word in named), str(caught.value)


@pytest.mark.parametrize("size, layers, named", [
    ((1, 28, 28), (Conv2d("conv1", channels=4, kernel=31, padding=1), Flatten("flatten"), DENSE),
     ["conv1", "kernel 31", "30x30", "28x28", "padding 1"]),
    ((1, 28, 28), (Conv2d("conv1", channels=4, kernel=31, padding=((1, 1), (1, 0))), Flatten("flatten"), DENSE),
     ["conv1", "kernel 31", "30x29", "28x28", "padding ((1, 1), (1, 0))"]),
    ((1, 28, 28), (Conv2d("conv1", channels=4, kernel=1, padding=((0, 10**9), (0, 10**9))), Flatten("flatten"), DENSE),
     ["conv1", "padded input of 1x1000000028x1000000028", "too large"]),
    ((1, 28, 28), (Flatten("flatten"), Conv2d("conv2", channels=4, kernel=3, padding="same"), DENSE),
     ["conv2", "(784,)"]),
    ((1, 28, 28), (Conv2d("conv1", channels=4, kernel=10**9, padding=10**9), Flatten("flatten"), DENSE),
     ["conv1", "weight", "too large", "2,147,483,647"]),
    ((1, 28, 28), (Conv2d("conv1", channels=4, kernel=1, padding=10**9), Flatten("flatten"), DENSE),
     ["conv1", "padded input of 1x2000000028x2000000028", "too large"]),
    ((1, 28, 28), (Conv2d("conv1", channels=10**9, kernel=1), Flatten("flatten"), DENSE),
     ["conv1", "output of 1000000000x28x28", "too large"]),
    ((1, 28, 28), (AdaptiveAvgPool2d("areas", size=10**5), Flatten("flatten"), DENSE),
     ["areas", "output", "too large"]),
    ((1, 28, 28), (Flatten("flatten"), Dense("fc1", units=10**9), DENSE), ["fc1", "weight", "too large"]),
    ((1, 10**9, 10**9), (MaxPool2d("pool1", kernel=10**8, stride=10**8), Flatten("flatten"), DENSE),
     ["input", "1x1000000000x1000000000", "too large"]),
    ((3, 28, 28), (Conv2d("conv1", channels=4, kernel=3, groups=2), Flatten("flatten"), DENSE),
     ["conv1", "3 input channels", "2 groups"]),
    ((1, 28, 28), (Flatten("flatten"), LocalResponseNorm("norm1", 5, 1e-4, 0.75, 2), DENSE), ["norm1", "(784,)"]),
    ((1, 28, 28), (Flatten("flatten"), AdaptiveAvgPool2d("areas", size=2), DENSE), ["areas", "(784,)"]),
    ((3, 28, 28), (Normalize("norm1", (0.5,), (0.5,)), Flatten("flatten"), DENSE),
     ["norm1", "for 1 channels", "the input has 3"]),
    ((1, 28, 28), (Conv2d("conv1", 1, 3), Normalize("norm1", (0.5,), (0.5,)), Flatten("flatten"), DENSE),
     ["norm1", "the first layer, not layer 2"]),
    ((1, 9, 9), (MaxPool2d("pool1", kernel=10**9, stride=1, padding=10**9 - 1), Flatten("flatten"), DENSE),
     ["pool1", "padded input of 1x2000000007x2000000007", "too large"]),
    ((1, 28, 4), (MaxPool2d("pool1", kernel=5, stride=1, padding=((0, 0), (0, 0))), Flatten("flatten"), DENSE),
     ["pool1", "kernel 5", "28x4", "padding 0"]),
    ((1, 28, 4), (MaxPool2d("pool1", kernel=5, stride=1), Flatten("flatten"), DENSE), ["pool1", "kernel 5", "28x4"]),
    ((1, 28, 28), (Flatten("flatten"), Dense("fc1", units=8), Dense("fc1", units=10)), ["layer 3 is named 'fc1'"]),
    ((1, 28, 28), (Flatten("flatten"), Dropout("last_relu", 0.5), DENSE),
     ["layer 2 is named 'last_relu'", "a part of last"]),
    ((1, 28, 28), (Conv2d("conv1", 1, 3), MaxPool2d("conv1_padding", 2, 2), Flatten("flatten"), DENSE),
     ["layer 2 is named 'conv1_padding'", "a part of conv1; use another name"]),
    ((1, 28, 28), (DENSE,), ["last", "(1, 28, 28)", "Flatten"]),
    ((1, 28, 28), (Flatten("flatten"), Conv2d("conv2", channels=4, kernel=3), DENSE), ["conv2", "(784,)"]),
    ((1, 28, 28), (Flatten("flatten"), Flatten("again"), DENSE), ["again", "(784,)"]),
    ((1, 28, 28), (Flatten("flatten"),), ["net", "last layer", "Dense"]),
    ((1, 28, 28), (), ["net", "last layer", "Dense"]),
    ((1, 28, 28), (Flatten("a.b"), DENSE), ["'a.b'", "cannot name a layer"]),
    ((1, 28, 28), (Flatten(""), DENSE), ["''", "cannot name a layer"]),
    ((1, 28), (Flatten("flatten"), DENSE), ["net", "(1, 28)"]),
    ((1, 0, 28), (Flatten("flatten"), DENSE), ["net", "(1, 0, 28)"]),
])
def test_a_network_that_does_not_fit_together_is_refused(size, layers, named):
    with pytest.raises(SpecError) as caught:
        Network("net", size, layers)
    assert all(word in str(caught.value) for word in named), str(caught.value)


@pytest.mark.parametrize("change, named", [
    ({"name": "a b"}, "'a b' cannot name a network"), ({"name": "a/b"}, "a/b"), ({"name": 7}, "7 cannot name"),
    ({"name": ""}, "'' cannot name"), ({"source": 7}, "source must be text, not 7"),
    ({"learning_rate": 0}, "learning_rate must be a number above 0, not 0"), ({"learning_rate": -1.0}, "-1.0"),
    ({"learning_rate": float("inf")}, "inf"),
    ({"learning_rate": 10**400}, "must be a number above 0"),
    ({"learning_rate": "fast"}, "'fast'"), ({"learning_rate": True}, "True"),
    ({"input": (True, 28, 28)}, "input must be"),
    ({"output": "probabilities"}, "output must be one of logits, softmax, not 'probabilities'"),
    ({"bias_initialisation": "ones"}, "bias_initialisation must be one of zeros, uniform_fan_in, not 'ones'"),
])
def test_a_network_with_a_bad_field_is_refused(change, named):
    with pytest.raises(SpecError, match=re.escape(named)):
        dataclasses.replace(LENET5, **change)


def test_an_unknown_layer_type_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Other:
        name: str

    with pytest.raises(SpecError, match=r"layer odd: unknown kind 'Other'; known: Conv2d.*Dropout"):
        Network("net", (1, 4, 4), (Other("odd"), Flatten("flatten"), DENSE))


def test_layers_at_the_limits_are_accepted():
    edges = Network("edges", (1, 3, 3), (Conv2d("conv1", channels=1, kernel=5, padding=1), Flatten("flatten"),
                                         Dropout("drop", rate=0), Dense("fc", units=1)))
    assert layers.output_shape(edges.layers[0], edges.input) == (1, 1, 1)
    assert edges.classes == 1


def test_output_shapes_round_down():
    """(size + 2 padding - kernel) // stride + 1, in height and in width."""
    conv = Conv2d("conv", channels=7, kernel=5, stride=3, padding=2)
    assert layers.output_shape(conv, (2, 10, 9)) == (7, (10 + 4 - 5) // 3 + 1, (9 + 4 - 5) // 3 + 1) == (7, 4, 3)
    assert layers.output_shape(MaxPool2d("pool", kernel=3, stride=2), (7, 8, 5)) == (7, 3, 2)
    assert layers.output_shape(AvgPool2d("pool", kernel=3, stride=2), (7, 8, 5)) == (7, 3, 2)
    assert layers.output_shape(AdaptiveAvgPool2d("pool", size=6), (7, 13, 5)) == (7, 6, 6)
    assert layers.output_shape(LocalResponseNorm("norm", 5, 1e-4, 0.75, 2), (7, 3, 2)) == (7, 3, 2)
    assert layers.output_shape(Normalize("norm", (0.5, 0.5), (1, 2)), (2, 3, 5)) == (2, 3, 5)
    assert layers.output_shape(Conv2d("conv", channels=9, kernel=1, groups=3), (6, 3, 2)) == (9, 3, 2)
    assert layers.output_shape(Flatten("flatten"), (7, 3, 2)) == (42,)
    assert layers.output_shape(Dropout("drop", rate=0.5), (7, 3, 2)) == (7, 3, 2)
    assert layers.output_shape(BatchNorm("bn"), (7, 3, 2)) == (7, 3, 2)
    assert layers.output_shape(BatchNorm("bn"), (42,)) == (42,)


# Padding


def padded(padding, kernel=3, stride=1, size=(28, 28)):
    return Network("padded", (1, *size), (Conv2d("conv1", channels=2, kernel=kernel, stride=stride, padding=padding),
                                          Flatten("flatten"), DENSE))


def pooled(layer, size=(28, 28)):
    return Network("pooled", (1, *size), (layer, Flatten("flatten"), DENSE))


def test_equal_paddings_have_equal_digests():
    """Digests from before a padding could differ between sides stay the same."""
    for equal in (((2, 2), (2, 2)), [[2, 2], [2, 2]]):
        assert padded(equal) == padded(2) and padded(equal).layers[0].padding == 2
        assert spec.digest(padded(equal)) == spec.digest(padded(2))
    paddings = [2, 1, ((1, 2), (2, 2)), ((2, 1), (2, 2)), ((2, 2), (1, 2)), ((2, 2), (2, 1)), ((1, 1), (2, 2))]
    assert len({spec.digest(padded(padding)) for padding in paddings}) == len(paddings)


@pytest.mark.parametrize("kind", [MaxPool2d, AvgPool2d])
def test_poolings_without_padding_are_described_as_before(kind):
    plain = pooled(kind("pool1", kernel=3, stride=2))
    assert spec.as_dict(plain)["layers"][0] == {"kind": kind.__name__, "name": "pool1", "kernel": 3, "stride": 2}
    again = spec.from_dict(spec.as_dict(plain))
    assert again == plain == pooled(kind("pool1", 3, 2, padding=[[0, 0], [0, 0]]))
    networks = [pooled(kind("pool1", 3, 2, padding)) for padding in (0, 1, 2, ((0, 1), (0, 1)), ((1, 0), (0, 1)))]
    assert len({spec.digest(network) for network in networks}) == 5
    for network in networks:
        assert spec.from_dict(json.loads(json.dumps(spec.as_dict(network)))) == network


def test_padding_counts_only_where_there_is_any():
    """PyTorch's layers without padding have `count_include_pad`, too."""
    assert AvgPool2d("pool1", 3, 2, count_padding=True) == AvgPool2d("pool1", 3, 2)
    assert pooled(AvgPool2d("pool1", 2, 2, "same", count_padding=True)) == pooled(AvgPool2d("pool1", 2, 2))
    counted, plain = (pooled(AvgPool2d("pool1", 3, 2, 1, count)) for count in (True, False))
    assert spec.digest(counted) != spec.digest(plain)
    assert spec.as_dict(counted)["layers"][0]["count_padding"] is True
    assert spec.from_dict(spec.as_dict(counted)) == counted
    assert pooled(AvgPool2d("pool1", 3, 2, "same", count_padding=True)).layers[0].count_padding


def test_same_becomes_numbers_in_poolings():
    assert pooled(MaxPool2d("pool1", 3, 2, "same")).layers[0].padding == ((0, 1), (0, 1))
    assert pooled(AvgPool2d("pool1", 2, 2, "same"), size=(27, 28)).layers[0].padding == ((0, 1), (0, 0))
    assert layers.output_shape(MaxPool2d("pool1", 3, 2, "same"), (5, 28, 27)) == (5, 14, 14)


@pytest.mark.parametrize("size, kernel, stride, padding, expected", [
    (9, 3, 2, 0, (0, 0)), (10, 3, 2, 0, (0, 1)), (13, 3, 2, 1, (1, 1)), (14, 3, 2, 1, (1, 2)), (5, 2, 2, 0, (0, 1)),
    (5, 1, 3, 0, (0, 0)), (4, 1, 3, 0, (0, 0)), (4, 2, 3, 1, (1, 1)), (6, 2, 3, 1, (1, 1)), (14, 3, 2, ((0, 1), (0, 1)),
                                                                                              (0, 1))])
def test_ceil_padding_adds_a_window_that_begins_in_the_image(size, kernel, stride, padding, expected):
    """In 10 pixels, windows of 3 with stride 2 begin at 0, 2, 4, 6 and 8; the last one needs one more pixel. In 5
    pixels, a window of 1 with stride 3 would begin at 6, outside of the image."""
    assert layers.ceil_padding((size, size), kernel, stride, padding) == (expected, expected)


@pytest.mark.parametrize("layer, even", [
    (MaxPool2d("pool1", 3, 2, 1), ((1, 1), False)), (MaxPool2d("pool1", 3, 2, ((0, 1), (0, 1))), ((0, 0), True)),
    (MaxPool2d("pool1", 3, 2, ((1, 1), (0, 1))), None), (MaxPool2d("pool1", 2, 1, ((0, 1), (0, 1))), None),
    (MaxPool2d("pool1", 3, 1, 2), None), (MaxPool2d("pool1", 3, 2, ((1, 0), (1, 0))), ((1, 1), False)),
    (AvgPool2d("pool1", 3, 2, ((0, 1), (0, 1))), ((0, 0), True)), (AvgPool2d("pool1", 3, 2, 1, True), ((1, 1), False)),
    (AvgPool2d("pool1", 3, 2, ((0, 1), (0, 1)), True), None), (MaxPool2d("pool1", 31, 4, ((1, 2), (1, 2))), None)])
def test_a_pooling_may_round_up_in_place_of_padding(layer, even):
    """The image has 28 pixels. Padding is at most half the kernel, counts only if the size is rounded down, and makes
    windows fit."""
    assert layers.even_padding(layer, (1, 28, 28)) == even


def test_the_pixels_of_each_window_are_counted():
    layer = AvgPool2d("pool1", 3, 2, ((1, 2), (0, 0)))
    assert layers.image_pixels(layer, (1, 6, 7)) == ([2, 3, 3, 1], [3, 3, 3])


def test_pairs_are_kept_through_json():
    network = padded(((0, 1), (2, 3)))
    described = json.loads(json.dumps(spec.as_dict(network)))
    assert described == spec.as_dict(network)
    assert described["layers"][0]["padding"] == [[0, 1], [2, 3]]
    again = spec.from_dict(described)
    assert again == network and hash(again) == hash(network)


def test_output_shapes_count_each_side():
    conv = Conv2d("conv", channels=7, kernel=5, stride=3, padding=((1, 2), (0, 4)))
    assert layers.output_shape(conv, (2, 10, 9)) == (7, (10 + 1 + 2 - 5) // 3 + 1, (9 + 4 - 5) // 3 + 1) == (7, 3, 3)


@pytest.mark.parametrize("size, kernel, stride, expected", [
    ((28, 28), 3, 1, 1), ((28, 28), 5, 1, 2), ((28, 28), 2, 1, ((0, 1), (0, 1))), ((28, 28), 4, 1, ((1, 2), (1, 2))),
    ((28, 28), 3, 2, ((0, 1), (0, 1))), ((27, 27), 3, 2, 1), ((28, 27), 3, 2, ((0, 1), (1, 1))),
    ((224, 224), 11, 4, ((3, 4), (3, 4))), ((28, 28), 1, 2, 0), ((27, 29), 2, 3, 0), ((27, 28), 2, 3, ((0, 0), (0, 1))),
    ((1, 1), 5, 3, 2)])
def test_same_becomes_tensorflows_numbers(size, kernel, stride, expected):
    """ceil(size / stride) windows, with an odd pixel at the end. The description has numbers alone."""
    network = padded("same", kernel, stride, size)
    assert network.layers[0].padding == expected
    assert network == padded(expected, kernel, stride, size)
    assert '"same"' not in json.dumps(spec.as_dict(network))
    shape = (2, *(math.ceil(side / stride) for side in size))
    assert layers.output_shape(network.layers[0], network.input) == shape
    assert layers.output_shape(Conv2d("conv1", 2, kernel, stride, "same"), network.input) == shape


def test_same_has_no_numbers_outside_a_network():
    assert layers.sides(2) == ((2, 2), (2, 2)) and layers.sides(((0, 1), (2, 3))) == ((0, 1), (2, 3))
    with pytest.raises(SpecError, match="depends on the input's size; take the layer from a network"):
        layers.sides("same")


@pytest.mark.parametrize("padding, kernel, stride, even", [
    (1, 3, 2, (1, 1)), (((1, 1), (2, 2)), 3, 1, (1, 2)), (((0, 1), (0, 1)), 3, 2, None),
    (((1, 0), (1, 0)), 3, 2, (1, 1)), (((0, 2), (0, 2)), 3, 4, (0, 0)), (((0, 4), (0, 4)), 11, 1, None),
    (((0, 10), (0, 10)), 30, 1, None), (((1, 1), (0, 1)), 3, 1, None)])
def test_an_even_padding_has_the_same_windows(padding, kernel, stride, even):
    """On 28 pixels, 28 + 1 are whole windows of 3 pixels and stride 2, and so are the first 29 of 28 + 2."""
    assert layers.even_padding(padded(padding, kernel, stride).layers[0], (1, 28, 28)) == (even and (even, False))


def test_alpha_is_part_of_the_architecture():
    """An ELU without a number has alpha 1, written 1, 1.0 or not at all."""
    rest = Flatten("flatten"), DENSE
    layers = [Conv2d("conv1", 4, 3, activation=activation, **alpha) for activation, alpha in (
        ("elu", {}), ("elu", {"alpha": 1}), ("elu", {"alpha": 1.0}), ("elu", {"alpha": 0.5}),
        ("leaky_relu", {"alpha": 1}), ("leaky_relu", {"alpha": 0.5}), ("relu", {}))]
    assert layers[0].alpha == 1.0 and isinstance(layers[1].alpha, float)
    networks = [Network("net", (1, 8, 8), (layer, *rest)) for layer in layers]
    assert len({spec.digest(network) for network in networks[:3]}) == 1
    assert len({spec.digest(network) for network in networks}) == len({*networks}) == 5
    for network in networks:
        assert spec.from_dict(json.loads(json.dumps(spec.as_dict(network)))) == network


def test_layers_and_networks_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALEXNET.layers[0].padding = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALEXNET.name = "other"


def test_with_dropout_replaces_every_rate_and_nothing_else():
    changed = spec.with_dropout(ALEXNET, 0.25)
    assert [layer.rate for layer in changed.layers if isinstance(layer, Dropout)] == [0.25, 0.25]
    assert spec.with_dropout(changed, 0.5) == ALEXNET
    assert [layer.rate for layer in ALEXNET.layers if isinstance(layer, Dropout)] == [0.5, 0.5]
    with pytest.raises(SpecError, match=r"drop6.*1\.0"):
        spec.with_dropout(ALEXNET, 1.0)


@pytest.mark.parametrize("network", zoo.NETWORKS.values(), ids=lambda network: network.source)
def test_as_dict_and_from_dict_keep_the_network_through_json(network):
    text = json.dumps(spec.as_dict(network))
    assert spec.from_dict(json.loads(text)) == network


def test_as_dict_omits_later_fields_with_their_default():
    """Earlier descriptions, digests and traces stay valid."""
    plain = spec.as_dict(ALEXNET)
    assert "learning_rate" not in plain and "output" not in plain
    assert list(plain["layers"][0]) == ["kind", "name", "channels", "kernel", "stride", "padding", "activation"]
    assert spec.as_dict(LENET5)["learning_rate"] == 0.9
    assert spec.as_dict(zoo.ALEXNET_2012)["layers"][3]["groups"] == 2


@pytest.mark.parametrize("change, named", [
    (lambda fields: fields.pop("layers"), "layers"),
    (lambda fields: fields.pop("name"), "name"),
    (lambda fields: fields.pop("input"), "input"),
    (lambda fields: fields.update(color="red"), "color"),
    (lambda fields: fields.update(layers=7), "int"),
    (lambda fields: fields.update(layers=["conv1"]), "not a network description"),
    (lambda fields: fields.update(input="big"), "input must be"),
    (lambda fields: fields.update(learning_rat=0.1), "unknown key 'learning_rat', perhaps 'learning_rate'"),
    (lambda fields: fields["layers"][0].update(dilation=2), "layer conv1: unknown key 'dilation'; Conv2d has name, ch"),
    (lambda fields: fields["layers"][0].pop("kernel"), "layer conv1: kernel missing; Conv2d needs name, channels, k"),
    (lambda fields: fields["layers"][0].update(kernel="11"), "conv1.*kernel.*'11'"),
])
def test_from_dict_refuses_bad_fields(change, named):
    fields = spec.as_dict(ALEXNET)
    change(fields)
    with pytest.raises(SpecError, match=named):
        spec.from_dict(fields)


@pytest.mark.parametrize("value", [None, 7, "alexnet", []])
def test_from_dict_refuses_other_json_values(value):
    with pytest.raises(SpecError, match="not a network description"):
        spec.from_dict(value)


def test_fingerprint_is_pinned_and_ignores_names_and_sources():
    assert spec.fingerprint(ALEXNET) == \
        "5b1321488df12a0efe758d28a73e8c25790b9d23d798ba9abd278cb3711f4952"
    renamed = dataclasses.replace(ALEXNET, name="other", source="elsewhere")
    assert spec.fingerprint(renamed) == spec.fingerprint(ALEXNET)


def test_digest_covers_the_architecture_alone():
    """Names and training do not matter; every other number does."""
    same = dataclasses.replace(spec.with_dropout(ALEXNET, 0.1), name="other", source="elsewhere", learning_rate=0.5,
                               bias_initialisation="uniform_fan_in", output="softmax")
    assert spec.digest(same) == spec.digest(ALEXNET) != spec.digest(zoo.TABS["mxnet"])
    assert spec.digest(same) != spec.digest(dataclasses.replace(same, input=(1, 225, 224)))
    without = dataclasses.replace(same, layers=tuple(layer for layer in same.layers if layer.name != "drop6"))
    assert spec.digest(without) != spec.digest(same), "torchvision numbers its dropout layers too"


def test_the_momentum_of_the_running_statistics_matters_in_training_alone():
    one, other, another = (dataclasses.replace(LENET5, layers=(BatchNorm("bn", **fields), *LENET5.layers))
                           for fields in ({}, {"momentum": 0.3}, {"epsilon": 1e-3}))
    assert spec.digest(one) == spec.digest(other) != spec.digest(another)
    assert spec.fingerprint(one) != spec.fingerprint(other)
    assert comparison.differences(one, other) == []
    assert comparison.differences(one, another) == ["bn: epsilon is 1e-05 in the file, 0.001 in lenet5"]


def test_fingerprint_covers_every_number():
    """Each field of the network and of each layer is changed alone."""
    changed = [dataclasses.replace(ALEXNET, input=(1, 225, 224)),
               dataclasses.replace(ALEXNET, bias_initialisation="uniform_fan_in"),
               dataclasses.replace(ALEXNET, learning_rate=0.5), dataclasses.replace(ALEXNET, output="softmax"),
               dataclasses.replace(ALEXNET, layers=ALEXNET.layers[:10] + ALEXNET.layers[11:])]
    for at, layer in enumerate(ALEXNET.layers):
        for field in dataclasses.fields(layer):
            value = getattr(layer, field.name)
            if (layer.name, field.name) == ("conv1", "groups") or field.name == "alpha":
                continue  # it has one input channel; ReLU has no alpha
            if field.name == "activation":
                others = [other for other in ("relu", "sigmoid", None) if other != value]
            else:
                others = [not value if isinstance(value, bool) else f"{value}x" if isinstance(value, str) else
                          value + 1 if isinstance(value, int) else value / 2]
            for other in others:
                layers = list(ALEXNET.layers)
                layers[at] = dataclasses.replace(layer, **{field.name: other})
                changed.append(dataclasses.replace(ALEXNET, layers=tuple(layers)))
    digests = {spec.fingerprint(network) for network in [ALEXNET, *changed]}
    assert len(digests) == 1 + len(changed) == 1 + 5 + 5 * 9 - 1 + 3 * 4 + 1 + 3 * 5 + 2 * 2


IMAGENET = Normalize("normalize", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def normalized(layer: Normalize) -> Network:
    return dataclasses.replace(zoo.ALEXNET_OWT, name="normalized", layers=(layer, *zoo.ALEXNET_OWT.layers))


def test_a_normalization_is_kept_through_json():
    """Mean and std are lists in JSON; 1 and 1.0 are the same number."""
    network = normalized(IMAGENET)
    described = json.loads(json.dumps(spec.as_dict(network)))
    assert described == spec.as_dict(network)
    assert described["layers"][0] == {"kind": "Normalize", "name": "normalize", "mean": [0.485, 0.456, 0.406],
                                      "std": [0.229, 0.224, 0.225]}
    again = spec.from_dict(described)
    assert again == network and hash(again) == hash(network)
    whole, real = (normalized(Normalize("n", mean, std)) for mean, std in (((0, 1, 0), [1, 2, 1]),
                                                                           ([0.0, 1.0, 0.0], (1.0, 2.0, 1.0))))
    assert whole == real and spec.fingerprint(whole) == spec.fingerprint(real)


def test_fingerprint_covers_every_number_of_the_other_layers():
    others = [
        IMAGENET, dataclasses.replace(IMAGENET, mean=IMAGENET.mean[::-1]),
        dataclasses.replace(IMAGENET, std=IMAGENET.std[::-1]), dataclasses.replace(IMAGENET, name="other"),
        *(LocalResponseNorm("norm1", **{"size": 5, "alpha": 0.1, "beta": 0.75, "k": 2.0, **changed})
          for changed in ({}, {"size": 3}, {"alpha": 0.2}, {"beta": 0.5}, {"k": 1.0})),
        AvgPool2d("pool", 3, 2), AvgPool2d("pool", 2, 2), AvgPool2d("pool", 3, 1), MaxPool2d("pool", 3, 2),
        AdaptiveAvgPool2d("areas", 6), AdaptiveAvgPool2d("areas", 7),
        *(BatchNorm("bn", **fields) for fields in ({}, {"epsilon": 1e-3}, {"momentum": 0.2}, {"activation": "relu"}))]
    rest = Conv2d("conv1", channels=4, kernel=3), Flatten("flatten"), Dense("fc2", units=2)
    assert len({spec.fingerprint(Network("other", (3, 16, 16), (layer, *rest))) for layer in others}) == 19


def test_equal_networks_have_equal_fingerprints():
    zero, nought = spec.with_dropout(ALEXNET, 0), spec.with_dropout(ALEXNET, 0.0)
    assert zero == nought
    assert spec.fingerprint(zero) == spec.fingerprint(nought)


def test_the_zoo_contains_its_networks_by_name():
    assert list(zoo.NETWORKS) == ["alexnet", "alexnet-tab-torch", "alexnet-tab-tensorflow", "alexnet-tab-mxnet",
                                  "alexnet-2012", "alexnet-owt", "alexnet-caffe", "caffenet", "lenet5", "lenet5-relu",
                                  "lenet5-bn", "alexnet-slim", "alexnet-28", "alexnet-cifar"]
    for name in zoo.NETWORKS:
        assert zoo.get_network(name).name == name
        assert zoo.get_network(name).source


def test_alexnet_tab_alone_is_no_network():
    with pytest.raises(SpecError, match=r"alexnet-tab differs between backends; name one of alexnet-tab-torch, "):
        zoo.get_network("alexnet-tab")
    with pytest.raises(SpecError, match=r"jax has no tab; torch, tensorflow, mxnet have one"):
        zoo.name_in_backend("alexnet-tab", "jax")
    assert zoo.name_in_backend("alexnet-tab", "numpy") == "alexnet-tab-torch"
    assert zoo.name_in_backend("alexnet", "mxnet") == "alexnet"


def test_the_spec_imports_the_standard_library_alone():
    script = "import sys; before = {*sys.modules}; import alexnet_mf.spec.zoo; " \
             "print(*{name.split('.')[0] for name in {*sys.modules} - before} - sys.stdlib_module_names)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"alexnet_mf\n"


@pytest.mark.parametrize("backend, padding, biases", [
    ("torch", 1, "uniform_fan_in"), ("tensorflow", 0, "zeros"), ("mxnet", 0, "zeros"), ("numpy", 1, "uniform_fan_in")])
def test_the_tabs_differ_in_conv1_padding_and_biases_alone(backend, padding, biases):
    tab = zoo.get_network(zoo.name_in_backend("alexnet-tab", backend))
    assert tab.layers[0].padding == padding
    assert tab.bias_initialisation == biases
    assert tab.layers[1:] == ALEXNET.layers[1:]
    assert dataclasses.replace(tab.layers[0], padding=1) == ALEXNET.layers[0]


def test_too_many_layers_are_refused_at_once():
    layers = (*(Dropout(f"drop{number}", rate=0.1) for number in range(20_000)), Dense("fc", units=2))
    start = time.monotonic()
    with pytest.raises(SpecError, match="network x: 20,001 layers; at most 1,000 are allowed"):
        Network("x", (1, 2, 2), layers)
    assert time.monotonic() - start < 1
