"""Batches of a training: a set that streams gives the numbers of one that lies on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from alexnet_mf import backends
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.data import LabeledImages
from alexnet_mf.data.augmentation import draw
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Conv2d, Dense, Dropout, Flatten, MaxPool2d, Network
from alexnet_mf.training import feed, loop
from alexnet_mf.training.feed import Resident, Streamed
from alexnet_mf.training.recipe import Recipe
from alexnet_mf.weights import parameters

NETWORK = Network("small", (3, 16, 16), (
    Conv2d("conv1", channels=4, kernel=3, stride=2), MaxPool2d("pool1", 2, 2), Flatten("flatten"),
    Dropout("drop1", 0.3), Dense("fc2", units=5)))
RECIPE = Recipe("short", epochs=2, batch_size=8, sgd=Sgd(0.05, 0.9), augment=("flip", "crop"))


def some_images(count: int = 30, *shape: int) -> LabeledImages:
    """Return random levels; 20x20 in color without a shape."""
    generator = np.random.default_rng(count)
    levels = generator.integers(0, 256, (count, *(shape or (20, 20, 3))), np.uint8)
    return LabeledImages(levels, generator.integers(0, 5, count))


def build(backend: Any) -> Any:
    return backend.build(NETWORK, parameters.initialize(NETWORK, 0), "cpu")


class CountingImages:
    """Images that count how often each is read, and fail if asked to."""

    def __init__(self, levels: np.ndarray) -> None:
        self.levels, self.shape, self.dtype = levels, levels.shape, levels.dtype
        self.read = np.zeros(len(levels), int)
        self.broken: set[int] = set()

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, row: Any) -> np.ndarray:
        if row in self.broken:
            raise DataError(f"picture {row}: is damaged")
        self.read[row] += 1
        return self.levels[row]


@pytest.mark.parametrize("shape", [(20, 20, 3), (16, 16, 3), (8, 8, 3)], ids=["cropped", "as large", "enlarged"])
def test_streamed_and_resident_trainings_have_the_same_bits(backend, monkeypatch, shape):
    results = []
    for most in (2**29, 0):
        monkeypatch.setattr(feed, "MOST_ON_CPU", most)
        model = build(backend)
        result = loop.train(model, some_images(30, *shape), some_images(11, *shape), RECIPE, seed=3)
        results.append((result.losses, result.epochs, parameters.digest(model.export())))
    assert results[0] == results[1]
    assert len(results[0][0]) == 8


def test_small_sets_lie_on_the_device_and_large_ones_stream(monkeypatch):
    model = build(backends.load("numpy"))
    assert isinstance(feed.feed(model, some_images(), RECIPE, 0), Resident)
    assert isinstance(feed.feed(model, some_images(30, 10, 10, 3), RECIPE, 0), Streamed), "10 to 16 is not exact"
    monkeypatch.setattr(feed, "MOST_ON_CPU", some_images().nbytes - 1)
    assert isinstance(feed.feed(model, some_images(), RECIPE, 0), Streamed)


def test_an_epoch_continues_after_its_first_steps(monkeypatch):
    model, images = build(backends.load("numpy")), some_images()
    streamed = Streamed(model, images, RECIPE, 5)
    whole, rest = list(streamed.batches(1, 0)), list(streamed.batches(1, 2))
    assert [batch.size for batch in whole] == [8, 8, 8, 6]
    for batch, again in zip(whole[2:], rest, strict=True):
        assert_array_equal(batch.data.inputs, again.data.inputs)
        assert_array_equal(batch.data.labels, again.data.labels)
        assert_array_equal(batch.draws.flip, again.draws.flip)


def test_the_draws_are_those_of_the_step():
    model, images = build(backends.load("numpy")), some_images()
    (first, *_), (resident, *_) = (list(kind(model, images, RECIPE, 5).batches(2, 1)) for kind in (Streamed, Resident))
    right = draw(RECIPE.augment, 5, 2 * 4 + 1, 8, (3, 20, 20), (16, 16))
    assert_array_equal(resident.draws.corner, right.corner)
    assert_array_equal(first.draws.flip, right.flip)
    assert first.draws.kinds == ("flip",), "the crop is done"


def test_a_stream_reads_ahead_but_not_the_whole_set():
    """A stopped epoch leaves the rest unread, and no thread behind."""
    images = CountingImages(some_images(400).images)
    streamed = Streamed(build(backends.load("numpy")), LabeledImages(images, np.zeros(400, np.int64)), RECIPE, 0)
    batches = streamed.batches(0, 0)
    next(batches)
    batches.close()
    assert 8 <= images.read.sum() <= 8 * (feed.READERS + feed.AHEAD + 1)
    assert images.read.max() == 1


def test_a_picture_that_cannot_be_read_any_more_stops_the_training():
    images = CountingImages(some_images().images)
    images.broken.add(7)
    streamed = Streamed(build(backends.load("numpy")), LabeledImages(images, np.zeros(30, np.int64)), RECIPE, 0)
    with pytest.raises(DataError, match="picture 7: is damaged"):
        list(streamed.batches(0, 0))


def test_a_large_test_set_streams_through_the_evaluation(backend, monkeypatch):
    model, test = build(backend), some_images(700)
    inputs = CountingImages(test.images)
    logits = [loop.place_parts(model, LabeledImages(inputs, test.labels))]
    parts = [len(placed.labels) for placed in logits[0]]
    assert parts == [512, 188]
    assert inputs.read.tolist() == [1] * 700
