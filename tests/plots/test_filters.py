"""The plot of a convolution's filters: their layout and their common scale."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet_mf.plots import filters


def test_filters_lie_side_by_side_row_by_row():
    weights = np.arange(18 * 2 * 3, dtype=np.float32).reshape(18, 1, 2, 3)
    tiles = filters.lay_out(weights)
    assert tiles.shape == (2 * 2 + 1, 16 * 3 + 15, 1)
    assert np.array_equal(tiles[:2, :3, 0], weights[0, 0])
    assert np.array_equal(tiles[:2, 4:7, 0], weights[1, 0])
    assert np.array_equal(tiles[3:, :3, 0], weights[16, 0]), "the seventeenth begins the second row"
    assert np.isnan(tiles[2]).all() and np.isnan(tiles[:, 3]).all() and np.isnan(tiles[3:, 8:]).all()
    assert filters.lay_out(weights[:5]).shape == (2, 5 * 3 + 4, 1)


def test_three_channels_are_red_green_and_blue_around_gray():
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[0, 0], weights[1, 2] = 0.5, -0.25
    panel = filters.draw(weights, "net, conv1").axes[0]
    shown = panel.images[0].get_array()
    assert np.allclose(shown[0, 0], [1, 0.5, 0.5]), "the largest weight, in red"
    assert np.allclose(shown[0, 1], 1), "a white gap"
    assert np.allclose(shown[0, 2], [0.5, 0.5, 0.25])
    assert "from -0.5 to 0.5" in panel.get_xlabel()


def test_one_channel_is_gray_with_a_scale_around_zero():
    weights = np.array([0.5, -2.0, 0.0], np.float32).reshape(3, 1, 1, 1)
    panel, scale = filters.draw(weights, "net, conv1").axes
    image = panel.images[0]
    assert image.get_clim() == (-2, 2)
    assert np.allclose(image.get_array().compressed(), [0.5, -2, 0])
    red, green, blue, _ = image.cmap(image.norm(0.0))
    assert red == green == blue == pytest.approx(0.5, abs=0.01)
    assert scale.get_ylabel() == "weight"
    assert panel.get_title(loc="left") == "net, conv1: 3 filters of 1x1x1"


@pytest.mark.parametrize("shape", [(96, 1, 11, 11), (96, 3, 11, 11), (1, 1, 1, 1), (300, 3, 7, 7)])
def test_filters_of_every_size_give_a_png(shape):
    weights = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert filters.png(weights, "net, conv1").startswith(b"\x89PNG")
    assert filters.png(0 * weights, "net, conv1").startswith(b"\x89PNG")
