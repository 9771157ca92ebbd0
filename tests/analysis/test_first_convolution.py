"""Filters of the first layer. `test_conversion.py` tests that weights are read from runs and files of every format."""

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
    """Return a function that saves a network's initial weights."""
    def save(network: Network) -> Path:
        path = tmp_path / "w.safetensors"
        parameters.save(path, parameters.initialize(network, 3), {"network": spec.as_dict(network), "seed": 3})
        return path
    return save


def make_color_network(channels: int = 3) -> Network:
    return Network("color", (channels, 12, 12), (Conv2d("first", channels=20, kernel=5), Flatten("flatten"),
                                                 Dense("fc2", units=10)))


@pytest.mark.parametrize("network", [zoo.LENET5, make_color_network()], ids=lambda network: network.name)
def test_the_network_is_read_from_the_weights_file(saved, network):
    filters = first_convolution.read(saved(network))
    first = network.layers[0].name
    assert (filters.network, filters.layer) == (network.name, first)
    assert np.array_equal(filters.weights, parameters.initialize(network, 3)[f"{first}.weight"])


def test_a_network_without_a_convolution_has_no_filters(saved):
    with pytest.raises(ParametersError, match="network dense has no convolution"):
        first_convolution.read(saved(DENSE))


def test_filters_of_two_channels_are_refused(saved):
    with pytest.raises(ParametersError, match=r"the filters of first have 2 channels; only 1 \(gray\) or 3 \(color\)"):
        first_convolution.read(saved(make_color_network(2)))
