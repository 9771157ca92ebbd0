"""Survey of a dataset: classes, numbers and sizes of images, and pictures that cannot be decoded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data.collection import LabeledPictures, PictureSet
from alexnet_mf.data.dataset import Dataset, LabeledImages
from alexnet_mf.data.pictures import decode
from alexnet_mf.data.preprocessing import levels_channels
from alexnet_mf.data.store import thread_count
from alexnet_mf.errors import DataError

PARTS = ("train", "test", "validation")
BLOCK = 64
"""Number of pictures that a thread decodes at a time."""
SHOWN = 6
"""Number of images of each class to show."""


@dataclass(frozen=True, eq=False)
class Survey:
    """Facts of a dataset."""

    origin: str
    """Source of the images, in words."""
    classes: tuple[str, ...]
    counts: dict[str, NDArray[np.int64]]
    """Number of images of each class, by part: `train`, `test`, and `validation` if there is one."""
    sizes: NDArray[np.int64]
    """(n, 2): height and width of every image that can be decoded."""
    in_color: int
    """Number of images with colors."""
    file_bytes: int | None
    """Size of all encoded pictures; None for images that are no files."""
    damaged: list[tuple[str, str]]
    """Name of each picture that cannot be decoded, and the reason."""
    samples: list[tuple[str, Any]]
    """Class and Pillow image of some training images."""

    @property
    def images(self) -> int:
        """Return the number of all images."""
        return int(sum(count.sum() for count in self.counts.values()))


def survey(data: Dataset | PictureSet, report: Callable[[int, int], None] = lambda done, total: None) -> Survey:
    """Return the facts of a dataset. Every picture is decoded once.

    Args:
        report: receives the number of images done and of all.
    """
    parts: dict[str, LabeledImages | LabeledPictures] = {
        name: part for name in PARTS if (part := getattr(data, name, None)) is not None}
    counts = {name: np.bincount(part.labels, minlength=len(data.classes)) for name, part in parts.items()}
    total = sum(map(len, parts.values()))
    sizes, in_color, file_bytes, damaged = [], 0, None, []
    done = 0
    for part in parts.values():
        if isinstance(part, LabeledImages):
            shape = part.images.shape
            sizes.append(np.tile(np.array(shape[1:3]), (len(part), 1)))
            in_color += len(part) * (levels_channels(shape) != 1)
            continue
        rows = np.arange(len(part)) if part.rows is None else part.rows
        stamps = part.pictures.stamps[rows, 0]
        file_bytes = (file_bytes or 0) + int(stamps.sum())
        with ThreadPoolExecutor(thread_count(stamps)) as pool:
            try:
                blocks = [rows[start:start + BLOCK] for start in range(0, len(rows), BLOCK)]
                for facts, faults in pool.map(lambda block, part=part: _decoded(part, block), blocks):
                    sizes.append(facts[:, :2])
                    in_color += int(facts[:, 2].sum())
                    damaged += faults
                    done += len(facts) + len(faults)
                    report(done, total)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    return Survey(data.origin, data.classes, counts, np.concatenate(sizes), in_color, file_bytes, damaged,
                  _samples(data.train if len(data.train) else data.test, data.classes))


def _decoded(part: LabeledPictures, block: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[tuple[str, str]]]:
    """Return height, width and 1 for colors of each picture, and the reason for each that cannot be decoded."""
    facts, faults = [], []
    for number in block.tolist():
        try:
            image = decode(part.pictures.read(number))
            facts.append((image.height, image.width, int(image.mode != "L")))
        except DataError as error:
            faults.append((part.pictures.name(number), str(error)))
    return np.array(facts, np.int64).reshape(-1, 3), faults


def _samples(part: LabeledImages | LabeledPictures, classes: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Return the first images of each class that can be decoded."""
    from PIL import Image

    samples = []
    for label, name in enumerate(classes):
        rows = np.flatnonzero(part.labels == label)
        taken = 0
        for row in rows[:4 * SHOWN].tolist():
            try:
                image = Image.fromarray(part.images[row]) if isinstance(part, LabeledImages) else \
                    decode(part.pictures.read(part.number(row)))
            except DataError:
                continue
            image.thumbnail((256, 256))
            samples.append((name, image))
            taken += 1
            if taken == SHOWN:
                break
    return samples
