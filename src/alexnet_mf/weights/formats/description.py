"""Common parts of the formats that describe a network: names of layers, activations, and scalings of the pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.spec.layers import LEARNERS, Activation, Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d

STEMS = {"LocalResponseNorm": "norm", "BatchNorm": "bn", "Dropout": "drop"}
"""Beginnings of canonical names by layer type, except poolings and those without a number."""
LONGEST = 80
"""Largest length of a network's name."""
INCREASING = ("relu", "sigmoid", "tanh", "elu", "leaky_relu")
"""Activations that commute with a maximum."""


def canonical_name(layers: Sequence[Layer], kind: str) -> str:
    """Return the canonical name of the layer of this type that follows: conv1, pool1, fc6, drop6, ...

    Convolutions and dense layers are numbered in one sequence; another layer has the number of the one before it, and
    `_2` if that name exists.
    """
    number = sum(isinstance(layer, (Conv2d, Dense)) for layer in layers)
    name = {"Conv2d": f"conv{number + 1}", "Dense": f"fc{number + 1}", "Flatten": "flatten",
            "Normalize": "normalize"}.get(kind, f"{STEMS.get(kind, 'pool')}{number}")
    same = sum(re.fullmatch(rf"{name}(_\d+)?", layer.name) is not None for layer in layers)
    return f"{name}_{same + 1}" if same else name


def network_name(text: str, default: str) -> str:
    """Return a text from a file as the name of a network."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:LONGEST].strip("_.-") or default


def activate(layers: list[Layer], activation: Activation, alpha: float | None = None) -> bool:
    """Give an activation to the layer with parameters that it belongs to; return False if there is none.

    The layers between do not matter if they commute with it: Flatten, maxima with an increasing function, and the zeros
    and multiples of dropout with a ReLU.
    """
    commuting = (Flatten, *([MaxPool2d] if activation in INCREASING else []),
                 *([Dropout] if activation == "relu" else []))
    for index in reversed(range(len(layers))):
        before = layers[index]
        if isinstance(before, LEARNERS) and before.activation is None:
            layers[index] = replace(before, activation=activation, alpha=alpha)
            return True
        if not isinstance(before, commuting):
            return False
    return False


def batch_share(momentum: float) -> float:
    """Return the momentum of the spec, the batch's share, from that of other programs, the share of the old value."""
    return float(f"{1 - momentum:.12g}")


def in_unit_range(mean: NDArray[Any], std: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], bool] | None:
    """Return a normalization (x - mean) / std of pixels in [0, 1], and True if the file's pixels are levels, 0 to 255.

    The numbers show which: both have the size of the pixels. None if they fit neither range.
    """
    for scale in (1, 255):
        if np.all((std >= 0.1 * scale) & (std <= 1.1 * scale) & (abs(mean) <= 1.1 * scale)):
            return mean / scale, std / scale, scale == 255
    return None
