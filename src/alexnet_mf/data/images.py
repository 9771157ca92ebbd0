"""Labelled grey images, and the data sets made of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FASHION_CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""The class of each label 0-9, as numbered by Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, table 2)."""


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class LabelledImages:
    """Images and the class of each."""

    images: NDArray[Any]
    """Grey levels, uint8 (n, 28, 28), 0 the background; of random inputs what `Model.place` takes."""
    labels: NDArray[np.int64]
    """(n,), each 0-9."""

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int | None) -> LabelledImages:
        """The first n images, as views; all of them where n is None or larger than the set."""
        return LabelledImages(self.images[:n], self.labels[:n])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set over the same classes."""

    name: str
    train: LabelledImages
    test: LabelledImages
    classes: tuple[str, ...]
    origin: str
    """Where it came from, in words."""

    def digest(self) -> str:
        """SHA-256 of all images and labels, in their order."""
        total = hashlib.sha256()
        for part in (self.train, self.test):
            total.update(np.ascontiguousarray(part.images).data)
            total.update(np.ascontiguousarray(part.labels).data)
        return total.hexdigest()
