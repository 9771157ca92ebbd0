"""Batches of a training on the device: of a set that lies there, or of one that streams from memory or disk."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.backends.contract import Model
from alexnet_mf.data import LabeledImages, batches, epoch_order
from alexnet_mf.data.augmentation import Draws, draw, principal_colors
from alexnet_mf.data.batches import read_batch
from alexnet_mf.data.preprocessing import input_size, is_exact, levels_channels
from alexnet_mf.instruments.machine import usable_cores
from alexnet_mf.training.recipe import Recipe

MOST_ON_CPU, MOST_ON_DEVICE = 2**29, 2**32
"""Largest size of a set, in bytes, that is copied to the memory of the CPU's framework, and of another device."""
READERS = 4
"""Largest number of threads that read batches. They copy memory and decode pictures, which release Python's lock."""
AHEAD = 2
"""Number of batches that are ready before their step, beside those that the threads are reading."""


@dataclass(frozen=True)
class Batch:
    """The images of one step, on the device."""

    data: Any
    rows: NDArray[np.int64] | None
    """Rows of the data; None for all."""
    draws: Draws | None
    size: int


class Feed(ABC):
    """The batches of a training."""

    def __init__(self, model: Model[Any], images: LabeledImages, recipe: Recipe, seed: int) -> None:
        self.model, self.images, self.recipe, self.seed = model, images, recipe, seed
        is_shifted = "pca" in recipe.augment and stored_shape(images)[0] == 3
        self.colors = principal_colors(images.images) if is_shifted else None

    @abstractmethod
    def batches(self, epoch: int, done: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0, after its first `done`."""

    @abstractmethod
    def place(self, size: int) -> Any:
        """Return images on the device, at least `size` of them."""

    def order(self, epoch: int, done: int) -> Iterator[tuple[NDArray[np.int64], Draws | None]]:
        """Yield the rows of each batch, and the changes of its images."""
        all_rows = batches(epoch_order(len(self.images), self.seed, epoch), self.recipe.batch_size)
        image, size = stored_shape(self.images), input_size(self.model.network)
        for step, rows in enumerate(all_rows[done:], done):
            number = epoch * len(all_rows) + step
            yield rows, draw(self.recipe.augment, self.seed, number, len(rows), image, size, self.colors)


class Resident(Feed):
    """A set that lies on the device."""

    def __init__(self, model: Model[Any], images: LabeledImages, recipe: Recipe, seed: int) -> None:
        super().__init__(model, images, recipe, seed)
        self._placed = model.place(images.images[:], images.labels)

    def batches(self, epoch: int, done: int) -> Iterator[Batch]:
        for rows, draws in self.order(epoch, done):
            yield Batch(self._placed, rows, draws, len(rows))

    def place(self, size: int) -> Any:
        return self._placed


class Streamed(Feed):
    """A set of which each batch is read and cropped while earlier steps compute."""

    def batches(self, epoch: int, done: int) -> Iterator[Batch]:
        threads = min(READERS, usable_cores() or 1)
        order = self.order(epoch, done)
        with ThreadPoolExecutor(threads, "read batch") as pool:
            reading: deque[Future[tuple[NDArray[Any], NDArray[np.int64], Draws | None]]] = deque()
            try:
                for rows, draws in itertools.islice(order, threads + AHEAD):
                    reading.append(pool.submit(self._read, rows, draws))
                while reading:
                    inputs, rows, draws = reading.popleft().result()
                    reading.extend(pool.submit(self._read, *following) for following in itertools.islice(order, 1))
                    data = self.model.place(inputs, self.images.labels[rows])
                    yield Batch(data, None, draws and draws.after_crop(), len(rows))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, rows: NDArray[np.int64],
              draws: Draws | None) -> tuple[NDArray[Any], NDArray[np.int64], Draws | None]:
        return read_batch(self.images.images, rows, self.model.network, draws), rows, draws

    def place(self, size: int) -> Any:
        rows = np.arange(size)
        return self.model.place(read_batch(self.images.images, rows, self.model.network), self.images.labels[rows])


def feed(model: Model[Any], images: LabeledImages, recipe: Recipe, seed: int) -> Feed:
    """Return the batches of a training. A small set that the device can crop and enlarge lies there."""
    lies_there = is_resident(model, images) and "resized-crop" not in recipe.augment
    return (Resident if lies_there else Streamed)(model, images, recipe, seed)


def is_resident(model: Model[Any], images: LabeledImages) -> bool:
    """Return True if the device holds the whole set."""
    if getattr(images.images, "is_decoded_when_used", False):
        return False
    is_level = np.dtype(images.images.dtype) == np.uint8
    most = MOST_ON_CPU if model.device == "cpu" else MOST_ON_DEVICE
    return images.nbytes <= most and (not is_level or is_exact(images.images.shape[1:3], model.network))


def stored_shape(images: LabeledImages) -> tuple[int, ...]:
    """Return the (channels, height, width) of the images."""
    shape = images.images.shape
    return (levels_channels(shape), *shape[1:3]) if np.dtype(images.images.dtype) == np.uint8 else shape[1:]
