"""The first layer's filters. That weights are read from runs and files of any kind, the tests of `conversion` know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alexnet_mf import spec
from alexnet_mf.analysis import first_convolution
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.layers import Conv2d, Dense, Flatten
from alexnet_mf.weights import parameters

DENSE = Network("dense", (1, 28, 28), (Flatten("flatten"), Dense("fc1", units=10)))


@pytest.fixture
def saved(tmp_path: Path):
    """A file of a network's weights."""
    def save(network: Network) -> Path:
        path = tmp_path / "w.safetensors"
        parameters.save(path, parameters.initialise(network, 3), {"network": spec.as_dict(network), "seed": 3})
        return path
    return save


def colour(channels: int = 3) -> Network:
    return Network("colour", (channels, 12, 12), (Conv2d("first", channels=20, kernel=5), Flatten("flatten"),
                                                  Dense("fc2", units=10)))


@pytest.mark.parametrize("network", [zoo.LENET5, colour()], ids=lambda network: network.name)
def test_a_file_says_whose_its_weights_are(saved, network):
    found = first_convolution.read(saved(network))
    first = network.layers[0].name
    assert (found.network, found.layer) == (network.name, first)
    assert np.array_equal(found.weights, parameters.initialise(network, 3)[f"{first}.weight"])


def test_a_network_without_a_convolution_has_no_filters(saved):
    with pytest.raises(ParametersError, match="network dense has no convolution"):
        first_convolution.read(saved(DENSE))


def test_two_channels_have_no_colours(saved):
    with pytest.raises(ParametersError, match=r"the filters of first have 2 channels; only 1 \(gray\) or 3 \(color\)"):
        first_convolution.read(saved(colour(2)))
