"""CIFAR-10 and CIFAR-100 in their binary version (Krizhevsky 2009): a label and 3x32x32 levels for each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_mf import files
from alexnet_mf.data.dataset import Dataset, LabeledImages
from alexnet_mf.errors import DataError, one_line

SIDE = 32
LEVELS = 3 * SIDE * SIDE
MOST_BYTES = 400_000_000
MOST_NAMES = 100_000


@dataclass(frozen=True)
class Layout:
    """Files of one of the two sets."""

    name: str
    train: tuple[str, ...]
    test: str
    names: str
    """File with the names of the classes, one per line."""
    labels: int
    """Bytes before the levels of each image; the last is the label."""
    folder: str
    """Folder in the published archive."""


LAYOUTS = (Layout("CIFAR-10", tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin",
                  "batches.meta.txt", 1, "cifar-10-batches-bin"),
           Layout("CIFAR-100", ("train.bin",), "test.bin", "fine_label_names.txt", 2, "cifar-100-binary"))
PICKLED = ("data_batch_1", "cifar-10-batches-py", "cifar-100-python")
"""Files and folders of the version for Python, which is pickled."""


@dataclass(frozen=True)
class CifarSet:
    """A set whose files are there."""

    folder: Path
    layout: Layout

    def load(self) -> Dataset:
        """Return the dataset; CIFAR-100 with its 100 fine classes.

        Raises:
            DataError: if a file is missing or damaged; names it.
        """
        names = self._names()
        train, test = self._part(self.layout.train, len(names)), self._part([self.layout.test], len(names))
        return Dataset("cifar", train, test, names, f"{self.layout.name} in {self.folder}")

    def _names(self) -> tuple[str, ...]:
        path = self.folder / self.layout.names
        try:
            lines = files.read_text(path, MOST_NAMES).splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: the names of the classes cannot be read ({error}); unpack the archive "
                            "again") from error
        names = tuple(one_line(line.strip()) for line in lines if line.strip())
        if len(set(names)) != len(names) or len(names) < 2:
            raise DataError(f"{path}: does not name two or more classes, each once; unpack the archive again")
        return names

    def _part(self, parts: Sequence[str], classes: int) -> LabeledImages:
        size = self.layout.labels + LEVELS
        records = []
        for name in parts:
            path = self.folder / name
            try:
                content = files.read(path, MOST_BYTES)
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror}); unpack the archive again") from error
            if not content or len(content) % size:
                raise DataError(f"{path}: is damaged: {len(content):,} bytes are no whole number of images of "
                                f"{size:,}; "
                                "unpack the archive again")
            record = np.frombuffer(content, np.uint8).reshape(-1, size)
            labels = record[:, self.layout.labels - 1]
            if labels.max() >= classes:
                raise DataError(f"{path}: has label {labels.max()}, but there are {classes} classes; unpack the "
                                "archive again")
            records.append(record)
        whole = np.concatenate(records)
        levels = whole[:, self.layout.labels:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        return LabeledImages(np.ascontiguousarray(levels), whole[:, self.layout.labels - 1].astype(np.int64))


def find(path: Path) -> CifarSet | None:
    """Return the set in a folder, or in the archive's folder in it; None if there is none.

    Raises:
        DataError: if there is only the version for Python.
    """
    for layout in LAYOUTS:
        for folder in (path, path / layout.folder):
            if (folder / layout.test).is_file() and any((folder / name).is_file() for name in (layout.names,
                                                                                                layout.train[0])):
                return CifarSet(folder, layout)
    if any((path / name).exists() for name in PICKLED) or all((path / name).is_file() for name in ("meta", "test")):
        raise DataError(f"{path}: holds CIFAR's version for Python, whose files are pickled and not read; download the "
                        "binary version")
    return None
