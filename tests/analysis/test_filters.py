"""The first layer's filters: read from runs and files, laid out, and shown at one scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from alexnet_mf import spec
from alexnet_mf.analysis import filters, mosaic
from alexnet_mf.analysis.filters import Filters
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
    found = filters.read(saved(network))
    first = network.layers[0].name
    assert (found.network, found.layer) == (network.name, first)
    assert np.array_equal(found.weights, parameters.initialise(network, 3)[f"{first}.weight"])


def test_of_another_programs_file_it_is_asked(saved):
    path = saved(zoo.LENET5, says=False)
    with pytest.raises(ParametersError, match=r"w\.safetensors: does not say which network's .*--net"):
        filters.read(path)
    assert filters.read(path, "lenet5").weights.shape == (6, 1, 5, 5)
    with pytest.raises(ParametersError, match="not the parameters of alexnet-28"):
        filters.read(path, "alexnet-28")
    with pytest.raises(SpecError, match="known: alexnet, "):
        filters.read(path, "lenet")


def test_a_run_shows_its_last_weights(tmp_path, saved):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match=r"run: has no weights\.safetensors"):
        filters.read(run)
    saved(zoo.LENET5, name="run/weights.safetensors")
    assert filters.read(run).network == "lenet5"


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(RunError, match="there is no run here"):
        filters.read(tmp_path)


def test_a_network_without_a_convolution_has_no_filters(saved):
    with pytest.raises(ParametersError, match="network dense has no convolution"):
        filters.read(saved(DENSE))


def test_two_channels_have_no_colours(saved):
    with pytest.raises(ParametersError, match=r"the filters of first have 2 channels; one .* in grey, three in colour"):
        filters.read(saved(colour(2)))


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x08" + b"\x00" * 7 + b"{}      ", b"\xff" * 64])
@pytest.mark.parametrize("net", [None, "lenet5"])
def test_what_is_no_safetensors_is_told(tmp_path, content, net):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ParametersError) as caught:
        filters.read(path, net)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_damaged_weights_are_told(tmp_path, saved):
    path = saved(zoo.LENET5)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ParametersError, match=r"damaged|NaN"):
        filters.read(path)


# The picture


def test_filters_lie_side_by_side_row_by_row():
    weights = np.arange(18 * 2 * 3, dtype=np.float32).reshape(18, 1, 2, 3)
    tiles = mosaic.mosaic(weights)
    assert tiles.shape == (2 * 2 + 1, 16 * 3 + 15, 1)
    assert np.array_equal(tiles[:2, :3, 0], weights[0, 0])
    assert np.array_equal(tiles[:2, 4:7, 0], weights[1, 0])
    assert np.array_equal(tiles[3:, :3, 0], weights[16, 0]), "the seventeenth begins the second row"
    assert np.isnan(tiles[2]).all() and np.isnan(tiles[:, 3]).all() and np.isnan(tiles[3:, 8:]).all()
    assert mosaic.mosaic(weights[:5]).shape == (2, 5 * 3 + 4, 1)


def test_the_three_channels_are_red_green_and_blue_about_grey():
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[0, 0], weights[1, 2] = 0.5, -0.25
    panel = mosaic.draw(Filters("net", "conv1", weights)).axes[0]
    shown = panel.images[0].get_array()
    assert np.allclose(shown[0, 0], [1, 0.5, 0.5]), "the largest weight, in red"
    assert np.allclose(shown[0, 1], 1), "a white gap"
    assert np.allclose(shown[0, 2], [0.5, 0.5, 0.25])
    assert "from -0.5 to 0.5" in panel.get_xlabel()


def test_one_channel_is_grey_with_a_scale_about_zero():
    weights = np.array([0.5, -2.0, 0.0], np.float32).reshape(3, 1, 1, 1)
    panel, scale = mosaic.draw(Filters("net", "conv1", weights)).axes
    image = panel.images[0]
    assert image.get_clim() == (-2, 2)
    assert np.allclose(image.get_array().compressed(), [0.5, -2, 0])
    red, green, blue, _ = image.cmap(image.norm(0.0))
    assert red == green == blue == pytest.approx(0.5, abs=0.01)
    assert scale.get_ylabel() == "weight"
    assert panel.get_title(loc="left") == "net, conv1: 3 filters of 1x1x1"


@pytest.mark.parametrize("shape", [(96, 1, 11, 11), (96, 3, 11, 11), (1, 1, 1, 1), (300, 3, 7, 7)])
def test_it_is_a_png_whatever_the_sizes(shape):
    weights = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert mosaic.png(Filters("net", "conv1", weights)).startswith(b"\x89PNG")
    assert mosaic.png(Filters("net", "conv1", 0 * weights)).startswith(b"\x89PNG")
