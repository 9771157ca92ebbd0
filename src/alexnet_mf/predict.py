"""Classify pictures that the network has never seen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.backends.contract import Model
from alexnet_mf.data import FASHION_CLASSES, image_files
from alexnet_mf.data.image_files import Picture, Unreadable
from alexnet_mf.data.preprocessing import Preparation, upsampling_factor
from alexnet_mf.errors import DataError
from alexnet_mf.evaluation import check_finite, log_probabilities
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import Normalize

BATCH = 32
"""Number of pictures in memory at a time."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Most probable classes of a picture."""

    name: str
    labels: list[int]
    """The most probable first."""
    probabilities: list[float]
    seen: NDArray[np.uint8]
    """Visible form of the network's input: (height, width), or (height, width, 3)."""


def preparation(network: Network, invert: bool = False) -> Preparation:
    """Return the preprocessing for a network: 28x28 gray as in Fashion-MNIST if it can be trained on that; gray of the
    input's size; or color as in ImageNet, normalized here unless the network's first layer does so.

    Raises:
        DataError: if the network's input is neither gray nor in color.
    """
    channels, height, width = network.input
    if channels == 3:
        return Preparation(height, width, color=True, levels=False, invert=invert,
                           normalize=not isinstance(network.layers[0], Normalize))
    if channels != 1:
        raise DataError(f"network {network.name} takes {channels} channels, and pictures have 1 or 3")
    try:
        upsampling_factor((28, 28), network)
    except DataError:
        return Preparation(height, width, levels=False, invert=invert)
    return Preparation(28, 28, invert=invert)


def class_names(network: Network) -> tuple[str, ...]:
    """Return Fashion-MNIST's classes if there are ten and the input is gray, else `class 0` and so on."""
    if network.input[0] == 1 and network.classes == len(FASHION_CLASSES):
        return FASHION_CLASSES
    return tuple(f"class {label}" for label in range(network.classes))


def predict(model: Model[Any], paths: Sequence[Path], prepared: Preparation, top: int = 3,
            limit: int | None = None) -> Iterator[Prediction | Unreadable]:
    """Yield the most probable classes of each picture, in order; an unreadable picture yields the reason.

    Args:
        paths: files and folders, as for `image_files.read_all`.
        top: number of classes for each picture.
        limit: number of pictures to take from each folder and idx file.

    Raises:
        OutputsNotFinite: if the logits are NaN or infinite.
    """
    pictures = image_files.read_all(paths, prepared, limit)
    while batch := list(itertools.islice(pictures, BATCH)):
        readable = [picture for picture in batch if isinstance(picture, Picture)]
        answers = iter(_answers(model, readable, prepared, top) if readable else ())
        for picture in batch:
            yield next(answers) if isinstance(picture, Picture) else picture


def _answers(model: Model[Any], batch: list[Picture], prepared: Preparation, top: int) -> Iterator[Prediction]:
    placed = model.place(np.stack([picture.pixels for picture in batch]), np.zeros(len(batch), np.int64))
    logits = model.logits(placed, BATCH)
    check_finite(logits)
    for picture, logarithms in zip(batch, log_probabilities(logits)):
        best = np.argsort(-logarithms, kind="stable")[:top]
        yield Prediction(picture.name, best.tolist(), np.exp(logarithms[best]).tolist(),
                         prepared.visible(picture.pixels))
