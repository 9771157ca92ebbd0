"""Activations that a file has as layers of their own, and scalings of the pixels: merged into the spec's layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.spec.layers import Activation, Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d

INCREASING = ("relu", "sigmoid", "tanh", "elu", "leaky_relu")
"""Activations that commute with a maximum."""


def activate(layers: list[Layer], activation: Activation, alpha: float | None = None) -> bool:
    """Give an activation to the layer with weights that it belongs to; return False if there is none.

    The layers between do not matter if they commute with it: Flatten, maxima with an increasing function, and the zeros
    and multiples of dropout with a ReLU.
    """
    commuting = (Flatten, *([MaxPool2d] if activation in INCREASING else []),
                 *([Dropout] if activation == "relu" else []))
    for index in reversed(range(len(layers))):
        before = layers[index]
        if isinstance(before, (Conv2d, Dense)) and before.activation is None:
            layers[index] = replace(before, activation=activation, alpha=alpha)
            return True
        if not isinstance(before, commuting):
            return False
    return False


def in_unit_range(mean: NDArray[Any], std: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], bool] | None:
    """Return a normalization (x - mean) / std of pixels in [0, 1], and True if the file's pixels are levels, 0 to 255.

    The numbers show which: both have the size of the pixels. None if they fit neither range.
    """
    for scale in (1, 255):
        if np.all((std >= 0.1 * scale) & (std <= 1.1 * scale) & (abs(mean) <= 1.1 * scale)):
            return mean / scale, std / scale, scale == 255
    return None
