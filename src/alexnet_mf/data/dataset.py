"""Labeled images, and datasets of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.errors import DataError


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class LabeledImages:
    """Images and their labels."""

    images: NDArray[Any]
    """Gray levels, uint8 (n, height, width), 0 for the background; or any other input that `Model.place` takes."""
    labels: NDArray[np.int64]
    """(n,), class numbers from 0."""

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int | None) -> LabeledImages:
        """Return the first n images, as views; all of them if n is None or larger than the set."""
        return LabeledImages(self.images[:n], self.labels[:n])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set over the same classes."""

    name: str
    train: LabeledImages
    test: LabeledImages
    classes: tuple[str, ...]
    origin: str
    """Source of the images, in words."""

    def digest(self) -> str:
        """Return the SHA-256 of all images and labels, in their order."""
        total = hashlib.sha256()
        for part in (self.train, self.test):
            total.update(np.ascontiguousarray(part.images).data)
            total.update(np.ascontiguousarray(part.labels).data)
        return total.hexdigest()

    def check_limits(self, *, train_images: int | None = None, test_images: int | None = None) -> None:
        """Check that the dataset has enough images.

        Raises:
            DataError: if it has fewer.
        """
        for name, wanted, part in (("train_images", train_images, self.train), ("test_images", test_images, self.test)):
            if wanted is not None and wanted > len(part):
                raise DataError(f"`{name}` is {wanted:,}, but there are {len(part):,} images; leave it out to take all")

    def hold_out(self, count: int) -> Dataset:
        """Return the dataset with its last `count` training images as the test images, or unchanged if `count` is 0.

        Raises:
            DataError: if no image would be left to train on.
        """
        left = len(self.train) - count
        if left < 1:
            raise DataError(f"there are {len(self.train)} training images; `held_out` must be smaller")
        test = LabeledImages(self.train.images[left:], self.train.labels[left:]) if count else self.test
        return replace(self, train=self.train.first(left), test=test)
