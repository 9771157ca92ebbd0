"""The first layer's filters, read from runs and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from alexnet_mf import spec
from alexnet_mf.analysis import first_convolution
from alexnet_mf.errors import ParametersError, RunError, SpecError
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.layers import Conv2d, Dense, Flatten
from alexnet_mf.weights import parameters

DENSE = Network("dense", (1, 28, 28), (Flatten("flatten"), Dense("fc1", units=10)))


@pytest.fixture
def saved(tmp_path: Path):
    """A file of a network's weights; with or without saying whose they are."""
    def save(network: Network, says: bool = True, name: str = "w.safetensors") -> Path:
        path = tmp_path / name
        weights = parameters.initialise(network, 3)
        if says:
            parameters.save(path, weights, {"network": spec.as_dict(network), "seed": 3})
        else:
            save_file(weights, path)
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


def test_of_another_programs_file_it_is_asked(saved):
    path = saved(zoo.LENET5, says=False)
    with pytest.raises(ParametersError, match=r"w\.safetensors: does not name its network; .* with `net`"):
        first_convolution.read(path)
    assert first_convolution.read(path, "lenet5").weights.shape == (6, 1, 5, 5)
    with pytest.raises(ParametersError, match="not the parameters of alexnet-28"):
        first_convolution.read(path, "alexnet-28")
    with pytest.raises(SpecError, match="known: alexnet, "):
        first_convolution.read(path, "lenet")


def test_a_run_shows_its_last_weights(tmp_path, saved):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match=r"run: has no weights\.safetensors"):
        first_convolution.read(run)
    saved(zoo.LENET5, name="run/weights.safetensors")
    assert first_convolution.read(run).network == "lenet5"


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(RunError, match=r"has no weights\.safetensors; name a weights file"):
        first_convolution.read(tmp_path)


def test_a_network_without_a_convolution_has_no_filters(saved):
    with pytest.raises(ParametersError, match="network dense has no convolution"):
        first_convolution.read(saved(DENSE))


def test_two_channels_have_no_colours(saved):
    with pytest.raises(ParametersError, match=r"the filters of first have 2 channels; only 1 \(gray\) or 3 \(color\)"):
        first_convolution.read(saved(colour(2)))


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x08" + b"\x00" * 7 + b"{}      ", b"\xff" * 64])
@pytest.mark.parametrize("net", [None, "lenet5"])
def test_what_is_no_safetensors_is_told(tmp_path, content, net):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ParametersError) as caught:
        first_convolution.read(path, net)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_damaged_weights_are_told(tmp_path, saved):
    path = saved(zoo.LENET5)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ParametersError, match=r"damaged|NaN"):
        first_convolution.read(path)
