"""What a network says of pictures that it has never seen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.backends.contract import Model
from alexnet_mf.backends.inputs import upsampling_factor
from alexnet_mf.data import FASHION_CLASSES
from alexnet_mf.data.pictures import Picture, Preparation, Unreadable, pictures
from alexnet_mf.errors import DataError
from alexnet_mf.evaluation import check_finite, log_probabilities
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import Normalize

BATCH = 32
"""Pictures that are held at once."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The classes that a picture most probably shows."""

    name: str
    labels: list[int]
    """The most probable first."""
    probabilities: list[float]
    seen: NDArray[np.uint8]
    """What the network was fed, to look at: (height, width), or (height, width, 3)."""


def preparation(network: Network, invert: bool = False) -> Preparation:
    """How pictures are made into the network's input: as Fashion-MNIST's where it can be trained on that, else grey of
    its own size, or ImageNet's colours, which are normalised here unless that is the network's first layer.

    Raises:
        DataError: where its input is neither grey nor in colour.
    """
    channels, height, width = network.input
    if channels == 3:
        return Preparation(height, width, colour=True, levels=False, invert=invert,
                           normalise=not isinstance(network.layers[0], Normalize))
    if channels != 1:
        raise DataError(f"network {network.name} takes {channels} channels, and pictures have 1 or 3")
    try:
        upsampling_factor((28, 28), network)
    except DataError:
        return Preparation(height, width, levels=False, invert=invert)
    return Preparation(28, 28, invert=invert)


def class_names(network: Network) -> tuple[str, ...]:
    """Fashion-MNIST's where there are ten and the input is grey, else `class 0` and so on."""
    if network.input[0] == 1 and network.classes == len(FASHION_CLASSES):
        return FASHION_CLASSES
    return tuple(f"class {label}" for label in range(network.classes))


def predict(model: Model[Any], paths: Sequence[Path], prepared: Preparation, top: int = 3,
            limit: int | None = None) -> Iterator[Prediction | Unreadable]:
    """The most probable classes of each picture, in order; what cannot be read comes in its place.

    Args:
        paths: files and folders, as for `pictures.pictures`.
        top: classes of each; all of them where there are fewer.
        limit: of each folder, and each idx file, so many pictures only.

    Raises:
        OutputsNotFinite: where the network gives no numbers.
    """
    found = pictures(paths, prepared, limit)
    while batch := list(itertools.islice(found, BATCH)):
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
