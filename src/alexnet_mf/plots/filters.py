"""A convolution's filters in one picture. Imports matplotlib, and so is imported only to draw."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet_mf.plots import style

GAP = 1
"""Pixels between two filters."""
COLUMNS = 16
"""Filters in a row, as in figure 3 of Krizhevsky et al. 2012: 96 in six rows."""


def draw(weights: NDArray[np.float32], name: str) -> Figure:
    """Draw all filters at one scale: gray is 0, and the largest weight of all is the brightest or darkest pixel. So a
    filter that has learned nothing stays pale; at its own scale it would show noise.

    Args:
        weights: (filters, channels, height, width), with one channel or three.
        name: names of the network and the layer.
    """
    largest = float(np.abs(weights).max()) or 1.0
    tiles = lay_out(weights / largest)
    height, width = tiles.shape[:2]
    inches = max(3.0, min(10.0, width / 18))
    figure = style.new_figure(inches + 0.8, inches * height / width + 0.9)
    panel = figure.subplots()
    if tiles.shape[2] == 1:
        grays = matplotlib.colormaps["gray"].with_extremes(bad="white")
        shown = panel.imshow(tiles[..., 0] * largest, cmap=grays, vmin=-largest, vmax=largest, interpolation="nearest")
        figure.colorbar(shown, ax=panel, label="weight", shrink=0.9)
    else:
        panel.imshow(np.where(np.isnan(tiles), 1.0, (tiles + 1) / 2), interpolation="nearest")
        panel.set_xlabel(f"red, green, blue: weights from {-largest:.3g} to {largest:.3g}, gray is 0", fontsize="small")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_visible(False)
    count, channels, *size = weights.shape
    panel.set_title(f"{name}: {count} filters of {channels}x{size[0]}x{size[1]}",
                    loc="left", fontsize="medium")
    return figure


def lay_out(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return filters (n, channels, height, width) side by side, (rows, columns, channels), with NaN in the gaps."""
    count, channels, height, width = weights.shape
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    tiles = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), np.nan)
    for number, one in enumerate(weights):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        tiles[top:top + height, left:left + width] = one.transpose(1, 2, 0)
    return tiles


def png(weights: NDArray[np.float32], name: str) -> bytes:
    """Return the picture as the content of a file."""
    return style.png(draw(weights, name))
