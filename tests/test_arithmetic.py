"""The chapter's facts about its network, with the arithmetic visible."""

from __future__ import annotations

import pytest

from alexnet_mf import arithmetic, spec
from alexnet_mf.spec import ALEXNET, Dense, Flatten, Network

NETWORKS = [ALEXNET, *spec.TABS.values()]


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
    network = Network("wide", (2, 12, 20), (spec.Conv2d("conv", channels=3, kernel=5, stride=3, padding=1),
                                            Flatten("flatten"), Dense("fc", units=4)))
    height, width = (12 + 2 - 5) // 3 + 1, (20 + 2 - 5) // 3 + 1
    assert list(arithmetic.output_shapes(network).values()) == [(3, height, width), (3 * height * width,), (4,)]
    assert arithmetic.macs(network)["conv"] == 3 * 2 * 5 * 5 * height * width
