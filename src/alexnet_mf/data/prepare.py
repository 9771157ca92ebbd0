"""From a set of pictures or arrays to the levels that a network takes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data import store
from alexnet_mf.data.collection import SHOWN, LabeledPictures, PictureSet
from alexnet_mf.data.dataset import Dataset, LabeledImages, Selected
from alexnet_mf.data.pictures import Pictures, size_of
from alexnet_mf.data.preprocessing import input_size, levels_channels, upsampling_factor, within
from alexnet_mf.data.preprocessing import prepare as prepare_image
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Network, Preprocessing
from alexnet_mf.spec.preprocessing import FASHION_MNIST

SAMPLE = 64
"""Number of training pictures whose size decides how all are stored."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """Common features of a sample of the training pictures."""

    side: int
    """Longest of the shorter sides, in pixels."""
    has_color: bool


def facts(data: Dataset | PictureSet) -> Facts:
    """Return the size and color of the training pictures; of files by a sample.

    Raises:
        DataError: if none of the sample can be read.
    """
    if isinstance(data, Dataset):
        shape = data.train.images.shape
        return Facts(min(shape[1:3]), levels_channels(shape) != 1)
    part = data.train if len(data.train) else data.test
    read, reasons = [], []
    for row in np.unique(np.linspace(0, len(part) - 1, SAMPLE).round().astype(np.int64)).tolist():
        number = part.number(row)
        try:
            read.append(size_of(part.pictures.read(number)))
        except DataError as error:
            reasons.append(f"{part.pictures.name(number)}: {error}")
    if not read:
        raise DataError(f"{reasons[0]}; repair or remove it, and the others like it")
    return Facts(max(side for side, _ in read), any(color for _, color in read))


def choose(data: Dataset | PictureSet, network: Network) -> Preprocessing:
    """Return the preprocessing that a training on these pictures uses.

    Pictures that are no larger than the network's input keep their size; their center has the input's proportions, and
    is enlarged a batch at a time. Others are resized and cropped to a center that is an eighth larger than the input,
    from which training cuts its crops: 256x256 for 224 or 227, as in the paper (Krizhevsky et al. 2012, section 2).
    """
    size = input_size(network)
    color: Any = "rgb" if network.input[0] == 3 else "gray"
    side = facts(data).side
    if color == "gray" and isinstance(data, Dataset) and data.train.images.shape[1:] == FASHION_MNIST.resize and \
            upsampling_factor(data.train.images.shape[1:], network):
        return FASHION_MNIST
    if side <= min(size):
        return Preprocessing(color, resize=side, crop=within(side, size))
    patch = tuple(max(number, 8 * round(number / 7)) for number in size)
    return Preprocessing(color, resize=max(patch), patch=patch, crop=size)  # type: ignore[arg-type]


def prepare(data: Dataset | PictureSet, preprocessing: Preprocessing, *, folder: Path | None = None, keep: bool = True,
            skip_damaged: bool = False, parts: Sequence[str] = ("train", "test"),
            report: Callable[[str, int, int], None] = lambda part, done, total: None,
            notice: Callable[[str], None] = lambda line: None) -> Dataset:
    """Return the dataset with its pictures prepared: decoded, turned, resized and cropped, as they are stored.

    Args:
        folder, keep: as for `store.open_store`.
        skip_damaged: leave out pictures that cannot be decoded, with a notice.
        parts: parts that are used; the others stay empty.
        report: receives the part, and the number of pictures done and of all.
        notice: receives lines about what was left out.

    Raises:
        DataError: if pictures cannot be decoded; names them. Or if there are none to train on.
    """
    if "train" in parts and not len(data.train):
        raise DataError(f"{data.origin}: all are tested on, and none is left to train on; use a smaller `test_share`")
    if isinstance(data, Dataset):
        return dataclasses.replace(data.with_digests(), preprocessing=preprocessing,
                                   train=_arrays(data.train, preprocessing), test=_arrays(data.test, preprocessing))
    opened: dict[int, store.Prepared] = {}
    sets: dict[str, LabeledImages] = {}
    digests: dict[str, str] = {}
    stores: dict[str, str] = {}
    described = json.dumps(data.classes).encode()
    unreadable: list[tuple[str, str]] = []
    for name in ("train", "test"):
        part: LabeledPictures = getattr(data, name)
        if name not in parts:
            part = dataclasses.replace(part, labels=part.labels[:0], rows=np.zeros(0, np.int64))
        elif id(part.pictures) not in opened:
            opened[id(part.pictures)] = store.open_store(
                part.pictures, preprocessing, folder, keep, functools.partial(report, name), notice)
        if not len(part):
            sets[name] = LabeledImages(np.zeros((0, *store.stored_shape(preprocessing)), np.uint8), part.labels[:0])
            continue
        prepared = opened[id(part.pictures)]
        rows = np.arange(len(part)) if part.rows is None else part.rows
        bad = np.isin(rows, list(prepared.damaged))
        unreadable += [(part.pictures.name(number), prepared.damaged[number]) for number in rows[bad].tolist()]
        digests[name] = hashlib.sha256(described + part.labels[~bad].tobytes() + prepared.digests[rows[~bad]].tobytes()
                                       ).hexdigest()
        stores[name] = str(prepared.path)
        sets[name] = _images(part, prepared, rows[~bad], part.labels[~bad])
    if unreadable:
        _report(unreadable, skip_damaged, notice)
        _check_left(data, sets)
    return Dataset(data.name, sets["train"], sets["test"], data.classes, data.origin, preprocessing, (), digests,
                   stores)


def _images(part: LabeledPictures, prepared: store.Prepared, rows: NDArray[np.int64],
            labels: NDArray[np.int64]) -> LabeledImages:
    is_all = len(rows) == len(part.pictures)
    return LabeledImages(prepared.images if is_all else Selected(prepared.images, rows), labels,
                         _PictureNames(part.pictures, rows))


class _PictureNames(Sequence[str]):
    """Names of pictures, put together when they are used."""

    def __init__(self, pictures: Pictures, rows: NDArray[np.int64]) -> None:
        self.pictures, self.rows = pictures, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        return self.pictures.name(int(self.rows[number]))


def _report(unreadable: list[tuple[str, str]], skip_damaged: bool, notice: Callable[[str], None]) -> None:
    """Name the pictures that cannot be decoded: as notices if they are left out, else as an error."""
    if skip_damaged:
        for name, reason in unreadable:
            notice(f"{name}: {reason}; left out")
        return
    name, reason = unreadable[0]
    others = [name for name, _ in unreadable[1:SHOWN]]
    more = len(unreadable) - 1
    also = f"; also {', '.join(others)}" if others else ""
    also += f" and {more - len(others):,} more" if more > len(others) else ""
    these = f"all {more + 1:,}" if more else "it"
    raise DataError(f"{name}: {reason}{also}; repair or remove {these}, or leave out what is damaged with "
                    "`skip_damaged`")


def _check_left(data: PictureSet, sets: dict[str, LabeledImages]) -> None:
    """Check that every class still has a picture after damaged ones were left out.

    Raises:
        DataError: if all pictures of a class, or of a part, are damaged.
    """
    for name, images in sets.items():
        part: LabeledPictures = getattr(data, name)
        if images.names is not None and not len(images):
            raise DataError(f"{part.pictures.name(part.number(0))}: this and all other {name} pictures are damaged; "
                            "repair them or add others")
        if name == "train" and len(images):
            for label in np.setdiff1d(part.labels, images.labels)[:1].tolist():
                number = part.number(int(np.flatnonzero(part.labels == label)[0]))
                raise DataError(f"{part.pictures.name(number)}: this and all other training pictures of class "
                                f"{data.classes[label]!r} are damaged; repair them, add others, or remove the class")


def _arrays(part: LabeledImages, preprocessing: Preprocessing) -> LabeledImages:
    """Return levels in memory as the preprocessing stores them."""
    images = part.images
    if np.dtype(images.dtype) != np.uint8:
        return part
    shape = store.stored_shape(preprocessing)
    if images.shape[1:] == shape:
        return part
    if len(shape) == 3 and images.shape[1:] == shape[:2]:
        return dataclasses.replace(part, images=np.repeat(np.asarray(images[:])[..., np.newaxis], 3, axis=3))
    from PIL import Image

    levels = np.empty((len(images), *shape), np.uint8)
    for number, place in enumerate(levels):
        place[:] = prepare_image(Image.fromarray(images[number]), preprocessing.stored)
    return dataclasses.replace(part, images=levels)
