"""Classify pictures that the network has never seen."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.backends.contract import Model
from alexnet_mf.checks import check_choice
from alexnet_mf.conversion import Weights
from alexnet_mf.data import FASHION_CLASSES, LabeledImages, image_files
from alexnet_mf.data.dataset import Images
from alexnet_mf.data.image_files import Picture, Unreadable
from alexnet_mf.data.preprocessing import (
    center_slices,
    check_fits,
    enlarged,
    input_size,
    to_inputs,
    upsampling_factor,
)
from alexnet_mf.errors import AlexnetMfError, DataError, Notice
from alexnet_mf.evaluation import check_finite, log_probabilities
from alexnet_mf.spec import Network, Normalize, Preprocessing
from alexnet_mf.spec.preprocessing import FASHION_MNIST, UNIT, Color
from alexnet_mf.weights.recognition import CANONICAL

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
    """The prepared picture, before scaling: (height, width), or (height, width, 3)."""


def choose_preprocessing(weights: Weights, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
                         normalize: bool = True, resize: int | Sequence[int] | None = None,
                         crop: int | Sequence[int] | None = None, color: Color | None = None,
                         invert: bool = False) -> Preprocessing:
    """Return the preprocessing that the weights state, with the steps changed that the arguments name.

    Weights that state none have a default: for a gray network Fashion-MNIST's, or gray of the input's size; for a
    network that takes color the largest center of the input's shape. Only the normalization of colors is not guessed.

    Args:
        mean, std: normalization of the channels, red first, scaled to [0, 1].
        normalize: False to only scale to [0, 1].
        resize: pixels of the shorter side, or (height, width) of the whole picture. After the shorter side, the
            center crop has the input's size.
        crop: side, or (height, width), of the center crop after resizing.
        color: order of the channels, `rgb` or `bgr`, as Caffe's networks take them.
        invert: True for pictures that are dark on light.

    Raises:
        AlexnetMfError: if the normalization of colors is unknown, arguments contradict each other, or the network does
            not take the result.
    """
    network = weights.network
    is_normalized = isinstance(network.layers[0], Normalize)
    if (mean is None) != (std is None):
        raise AlexnetMfError("`mean` and `std` belong together; give both")
    if mean is not None and not normalize:
        raise AlexnetMfError("`normalize=False` contradicts `mean` and `std`; leave it out")
    if mean is not None and is_normalized:
        raise AlexnetMfError(f"network {network.name} begins with a Normalize layer; leave out `mean` and `std`")
    preprocessing = weights.preprocessing or _default(network)
    if color is not None:
        if check_choice("color", color, ("rgb", "bgr")) and preprocessing.color == "gray":
            raise AlexnetMfError(f"network {network.name} takes gray pictures; leave out `color`")
        if color != preprocessing.color:
            preprocessing = dataclasses.replace(preprocessing, color=color, mean=_reversed(preprocessing.mean),
                                                std=_reversed(preprocessing.std))
    if not weights.preprocessing and mean is None and normalize and not is_normalized:
        if preprocessing.color != "gray":
            raise _unknown_normalization(weights)
        _notice_assumption(weights)
    changes: dict[str, Any] = {"invert": invert or preprocessing.invert}
    if mean is not None or not normalize:
        is_reversed = preprocessing.color == "bgr"
        changes |= {"scale": UNIT, "mean": _reversed(mean) if is_reversed else mean,
                    "std": _reversed(std) if is_reversed else std}
    if resize is not None:
        changes |= {"resize": resize, "fit": False, "crop": network.input[1:] if isinstance(resize, int) else None}
    if crop is not None:
        changes |= {"crop": (crop, crop) if isinstance(crop, int) else crop}
    preprocessing = dataclasses.replace(preprocessing, **changes)
    check_fits(preprocessing, network)
    return preprocessing


def _notice_assumption(weights: Weights) -> None:
    """Warn that another program's weights do not state how pixels were scaled."""
    if weights.format != CANONICAL and not isinstance(weights.network.layers[0], Normalize):
        warnings.warn(f"{weights.path}: does not state its preprocessing; assumed: pixels scaled to [0, 1]", Notice,
                      stacklevel=4)


def _reversed(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)[::-1]


def _default(network: Network) -> Preprocessing:
    """Return the preprocessing for weights that state none, without normalization.

    Raises:
        DataError: if the network's input is neither gray nor in color.
    """
    channels, height, width = network.input
    if channels == 3:
        return Preprocessing("rgb", resize=max(height, width), crop=(height, width))
    if channels != 1:
        raise DataError(f"network {network.name} takes {channels} channels, and pictures have 1 or 3")
    if upsampling_factor((28, 28), network) is None:
        return Preprocessing("gray", resize=(height, width), fit=True)
    return FASHION_MNIST


def stated_preprocessing(weights: Weights) -> Preprocessing | None:
    """Return the preprocessing that the weights state for a dataset's images, or None for the default of a training,
    which a notice names for another program's weights.

    Raises:
        DataError: if the normalization of colors is unknown, or the network does not take the result.
    """
    preprocessing = weights.preprocessing
    if preprocessing is None:
        if weights.network.input[0] == 1 or isinstance(weights.network.layers[0], Normalize):
            _notice_assumption(weights)
            return None
        raise _unknown_normalization(weights)
    check_fits(preprocessing, weights.network)
    return preprocessing


def _unknown_normalization(weights: Weights) -> DataError:
    return DataError(f"{weights.path}: does not state how the colors of its pictures were normalized; give `mean` and "
                     "`std`, or `normalize=False` if they were only scaled to [0, 1]")


@dataclass(frozen=True, eq=False)
class Normalized:
    """Levels that are cropped and normalized when they are used."""

    images: Images
    preprocessing: Preprocessing
    network: Network

    @property
    def dtype(self) -> Any:
        """Type of the numbers."""
        return np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, as of an array."""
        return (len(self.images), *self.network.input)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        top, left = center_slices(self.images.shape[1:3], input_size(self.network))
        return to_inputs(self.images[rows][:, top, left], self.preprocessing)


def normalized(images: LabeledImages, preprocessing: Preprocessing, network: Network) -> LabeledImages:
    """Return a dataset's levels with the scale and the normalization of a preprocessing."""
    if preprocessing.is_unit and preprocessing.color != "bgr":
        return images
    return dataclasses.replace(images, images=Normalized(images.images, preprocessing, network))


LIGHT = 0.7
"""Share of a picture's border that is light if the picture is dark on light. Of Fashion-MNIST's first 5,000 test images
0.1 % reach it, and all of them inverted."""


def is_dark_on_light(seen: NDArray[np.uint8], preprocessing: Preprocessing) -> bool:
    """Return True if a picture seems to be dark on light, and the weights take light on dark, as in Fashion-MNIST.

    Args:
        seen: the prepared picture, perhaps with black margins.
    """
    if preprocessing != FASHION_MNIST or not seen.any():
        return False
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    inside = seen[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    border = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    return bool((border > 127).mean() >= LIGHT)


def class_names(weights: Weights) -> tuple[str, ...]:
    """Return the names that the weights have; without them Fashion-MNIST's for a gray network of this package with ten
    classes, else `class 0` and so on."""
    network = weights.network
    if weights.classes:
        return weights.classes
    if weights.format == CANONICAL and network.input[0] == 1 and network.classes == len(FASHION_CLASSES):
        return FASHION_CLASSES
    return tuple(f"class {label}" for label in range(network.classes))


def predict(model: Model[Any], paths: Sequence[Path], preprocessing: Preprocessing, top: int = 3,
            limit: int | None = None) -> Iterator[Prediction | Unreadable]:
    """Yield the most probable classes of each picture, in order; an unreadable picture yields the reason.

    Args:
        paths: files and folders, as for `image_files.read_all`.
        top: number of classes for each picture.
        limit: number of pictures to take from each folder and idx file.

    Raises:
        OutputsNotFinite: if the logits are NaN or infinite.
    """
    pictures = image_files.read_all(paths, preprocessing, limit)
    while batch := list(itertools.islice(pictures, BATCH)):
        readable = [picture for picture in batch if isinstance(picture, Picture)]
        answers = iter(_answers(model, readable, preprocessing, top) if readable else ())
        for picture in batch:
            yield next(answers) if isinstance(picture, Picture) else picture


def _answers(model: Model[Any], batch: list[Picture], preprocessing: Preprocessing, top: int) -> Iterator[Prediction]:
    inputs = enlarged(to_inputs(np.stack([picture.pixels for picture in batch]), preprocessing), model.network)
    placed = model.place(inputs, np.zeros(len(batch), np.int64))
    logits = model.logits(placed, BATCH)
    check_finite(logits)
    for picture, logarithms in zip(batch, log_probabilities(logits)):
        best = np.argsort(-logarithms, kind="stable")[:top]
        yield Prediction(picture.name, best.tolist(), np.exp(logarithms[best]).tolist(), picture.pixels)
