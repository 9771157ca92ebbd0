"""Labeled images, and datasets of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.errors import DataError
from alexnet_mf.spec import Preprocessing

MOST_COPIED = 2**28
"""Largest size of images, in bytes, that are copied when some of a set are chosen."""

_STREAM = 0x5B5E7  # keeps these draws apart from all others of the same seed


class Images(Protocol):
    """An array of images, or anything that is read like one: a file on disk, or pictures decoded when they are used."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Return one image by its number, or the images of a slice or of an array of numbers."""


@dataclass(frozen=True, eq=False)
class Selected:
    """Some images of others, read when they are used."""

    images: Images
    rows: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, as of an array."""
        return (len(self.rows), *self.images.shape[1:])

    @property
    def dtype(self) -> Any:
        """Type of the numbers."""
        return self.images.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        return self.images[self.rows[rows]]

    @property
    def is_decoded_when_used(self) -> bool:
        """True if the images are pictures that are decoded whenever they are used."""
        return getattr(self.images, "is_decoded_when_used", False)

    def picture(self, row: int) -> Any:
        """Return a picture at its full size, as `full_size` does."""
        return full_size(self.images, int(self.rows[row]))


def full_size(images: Images, row: int) -> Any:
    """Return an image as a Pillow image: a picture that is decoded when it is used at its full size, any other as it is
    stored."""
    if hasattr(images, "picture"):
        return images.picture(row)
    from PIL import Image

    return Image.fromarray(images[row])


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class LabeledImages:
    """Images and their labels."""

    images: Images
    """Levels, uint8 (n, height, width) or (n, height, width, channels); or any other input that `Model.place` takes."""
    labels: NDArray[np.int64]
    """(n,), class numbers from 0."""
    names: Sequence[str] | None = None
    """Name of each image; None if an image has only its number."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Size of all images in memory, in bytes."""
        return int(np.prod(self.images.shape, dtype=np.int64)) * np.dtype(self.images.dtype).itemsize

    def name(self, number: int) -> str | None:
        """Return the name of an image."""
        return None if self.names is None else self.names[number]

    def first(self, n: int | None) -> LabeledImages:
        """Return the first n images; all of them if n is None or larger than the set."""
        return LabeledImages(self.images[:n], self.labels[:n], self.names)

    def take(self, rows: NDArray[np.int64]) -> LabeledImages:
        """Return some of the images, in this order. They are copied if they are few, and else read when they are
        used."""
        names = None if self.names is None else _Names(self.names, rows)
        chosen = LabeledImages(Selected(self.images, rows), self.labels[rows], names)
        return replace(chosen, images=self.images[rows]) if chosen.nbytes <= MOST_COPIED else chosen

    def some(self, count: int | None, seed: int = 0) -> LabeledImages:
        """Return this many images in their order, chosen at random by the seed; all if `count` is None or larger."""
        if count is None or count >= len(self):
            return self
        return self.take(np.sort(_shuffled(len(self), seed)[:count]))


@dataclass(frozen=True, eq=False)
class _Names(Sequence[str]):
    """Names of some of the images."""

    names: Sequence[str]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        return self.names[int(self.rows[number])]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set over the same classes."""

    name: str
    """Name of the source; `folder` and the like for a path."""
    train: LabeledImages
    test: LabeledImages
    classes: tuple[str, ...]
    origin: str
    """Source of the images, in words."""
    preprocessing: Preprocessing | None = None
    """Steps from a picture to the network's input; None for images that are no pictures."""
    notices: tuple[str, ...] = ()
    """Lines about assumptions."""
    digests: dict[str, str] = field(default_factory=dict, repr=False)
    """Digest of each part; what is missing is computed from its images."""
    stores: dict[str, str] = field(default_factory=dict, repr=False)
    """Folder of each part's prepared pictures."""

    def digest(self, *parts: str) -> str:
        """Return the SHA-256 of the images and labels of these parts, `train` or `test`; without parts of both."""
        total = hashlib.sha256()
        for name in parts or ("train", "test"):
            total.update((self.digests.get(name) or _digest(getattr(self, name))).encode())
        return total.hexdigest()

    def with_digests(self) -> Dataset:
        """Return the dataset with its digests, which stay when its images are prepared for a network."""
        return replace(self, digests={name: _digest(getattr(self, name)) for name in ("train", "test")} | self.digests)

    def check_limits(self, *, train_images: int | None = None, test_images: int | None = None) -> None:
        """Check that the dataset has enough images.

        Raises:
            DataError: if it has fewer.
        """
        for name, wanted, part in (("train_images", train_images, self.train), ("test_images", test_images, self.test)):
            if wanted is not None and wanted > len(part):
                raise DataError(f"`{name}` is {wanted:,}, but there are {len(part):,} images; leave it out to take all")

    def hold_out(self, count: int) -> Dataset:
        """Return the dataset with `count` of its training images as the test images, or unchanged if `count` is 0.

        They have the classes in the same shares, and are the same for every seed.

        Raises:
            DataError: if no image would be left to train on.
        """
        if not count:
            return self
        if count >= len(self.train):
            raise DataError(f"there are {len(self.train)} training images; `held_out` must be smaller")
        rest, out = split(self.train.labels, count)
        return replace(self, train=self.train.take(rest), test=self.train.take(out))


def _digest(part: LabeledImages) -> str:
    total = hashlib.sha256()
    for array in (part.images[:], part.labels):
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def split(labels: NDArray[np.int64], count: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of two parts, chosen at random by the seed: the rest, and `count` rows with the same share of
    each class, rounded up or down."""
    order = _shuffled(len(labels), seed)
    # Each class's images get evenly spaced places between 0 and 1; the first `count` places of all are the second part.
    # A class's share rounded down comes before all others, and what exceeds it rounded up after: with one large class
    # and many small ones, places alone would take too many of the large one.
    by_class = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    within = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = (within + 0.5) / np.repeat(sizes, sizes)
    lower, upper = sizes * count // len(labels), -(-sizes * count // len(labels))
    tier = (within >= np.repeat(lower, sizes)).astype(int) + (within >= np.repeat(upper, sizes))
    chosen = by_class[np.lexsort((places, tier))]
    return np.sort(chosen[count:]), np.sort(chosen[:count])


def _shuffled(count: int, seed: int) -> NDArray[np.int64]:
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_STREAM,)))
    return np.argsort(bits.random_raw(count), kind="stable").astype(np.int64)
