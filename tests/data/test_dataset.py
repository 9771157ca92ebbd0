"""Sets of images: parts of them, their digests, and divisions with the same share of each class."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from alexnet_mf.data import Dataset, LabeledImages, dataset
from alexnet_mf.data.dataset import Selected, split
from alexnet_mf.errors import DataError


def labeled(count: int, classes: int = 3, seed: int = 0) -> LabeledImages:
    bits = np.random.default_rng(seed)
    return LabeledImages(bits.integers(0, 256, (count, 6, 5)).astype(np.uint8), np.arange(count) % classes,
                         [f"picture {number}" for number in range(count)])


def small(train: int = 20, test: int = 10) -> Dataset:
    return Dataset("some", labeled(train), labeled(test, seed=1), ("a", "b", "c"), "some pictures")


# Division


SETS = {
    "balanced": np.arange(100) % 10, "unbalanced": np.repeat([0, 1, 2], [80, 15, 5]), "one": np.zeros(10, np.int64),
    "a class without images": np.repeat([0, 2, 5], [7, 11, 3]), "many small": np.arange(40) // 2,
    "large and many of one image": np.concatenate([np.zeros(1000, np.int64), np.arange(1, 501)]),
    "large and many of two": np.concatenate([np.repeat(np.arange(1, 301), 2), np.zeros(2000, np.int64)])}


@pytest.mark.parametrize("labels", SETS.values(), ids=SETS)
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.77, 1])
def test_a_division_has_each_class_in_its_share(labels: np.ndarray, share: float) -> None:
    labels = labels[np.random.default_rng(3).permutation(len(labels))]
    count = max(1, round(share * len(labels)))
    rest, chosen = split(labels, count)
    assert len(chosen) == count and rest.dtype == chosen.dtype == np.int64
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, chosen])), np.arange(len(labels)))
    assert (np.diff(rest) > 0).all() and (np.diff(chosen) > 0).all()
    wanted = np.bincount(labels) * count / len(labels)
    assert np.abs(np.bincount(labels[chosen], minlength=len(wanted)) - wanted).max() < 1


def test_a_division_depends_on_the_seed_alone() -> None:
    labels = np.arange(200) % 4
    parts = [split(labels, 50, seed)[1].tolist() for seed in (0, 0, 1, 2)]
    assert parts[0] == parts[1] and len(set(map(tuple, parts))) == 3
    assert split(np.arange(12) % 3, 6)[1].tolist() == [0, 1, 2, 4, 5, 6]  # for every version of NumPy


def test_images_are_set_apart_from_training() -> None:
    data = small(train=30)
    divided = data.hold_out(9)
    assert np.bincount(divided.train.labels).tolist() == [7, 7, 7]
    assert np.bincount(divided.test.labels).tolist() == [3, 3, 3]
    names = [part.name(number) for part in (divided.train, divided.test) for number in range(len(part))]
    assert sorted(map(str, names)) == sorted(map(str, data.train.names or ()))
    assert data.hold_out(0) is data
    with pytest.raises(DataError, match="there are 30 training images; `held_out` must be smaller"):
        data.hold_out(30)


# Parts


def test_some_images_are_chosen_by_the_seed() -> None:
    images = labeled(50)
    some = images.some(8, seed=3)
    numbers = [int(str(some.name(row)).split()[1]) for row in range(len(some))]
    assert numbers == sorted(set(numbers)) and len(numbers) == len(some) == 8
    np.testing.assert_array_equal(some.images, images.images[np.array(numbers)])
    np.testing.assert_array_equal(some.labels, images.labels[numbers])
    np.testing.assert_array_equal(images.some(8, seed=3).images, some.images)
    assert images.some(8, seed=4).labels.tolist() != some.labels.tolist()
    assert images.some(None) is images and images.some(50) is images and images.some(51) is images


def test_few_images_are_copied_and_many_are_read_when_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    images, rows = labeled(20), np.array([3, 19, 3, 0])
    few = images.take(rows)
    assert isinstance(few.images, np.ndarray)
    monkeypatch.setattr(dataset, "MOST_COPIED", 4 * 30 - 1)
    many = images.take(rows)
    assert isinstance(many.images, Selected)
    for chosen in (few, many):
        assert (len(chosen), chosen.nbytes) == (4, 120)
        assert (chosen.images.shape, chosen.images.dtype, len(chosen.images)) == ((4, 6, 5), np.uint8, 4)
        np.testing.assert_array_equal(chosen.images[:], images.images[rows])
        assert [chosen.name(row) for row in range(4)] == ["picture 3", "picture 19", "picture 3", "picture 0"]
        assert chosen.labels.tolist() == (rows % 3).tolist()
    places: Any
    for places in (1, slice(1, 3), np.array([3, 0]), np.zeros(0, np.int64)):
        np.testing.assert_array_equal(many.images[places], few.images[places])
    again = many.take(np.array([2, 1]))
    np.testing.assert_array_equal(again.images[:], images.images[[3, 19]])
    assert again.name(1) == "picture 19"


def test_a_large_set_is_not_read_when_some_of_it_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unread:
        shape, dtype = (1000, 6, 5), np.dtype(np.uint8)

        def __len__(self) -> int:
            return 1000

        def __getitem__(self, rows: Any) -> Any:
            pytest.fail("read")

    monkeypatch.setattr(dataset, "MOST_COPIED", 1000)
    images = LabeledImages(Unread(), np.arange(1000) % 3)
    assert len(images.some(500)) == 500 and len(images.take(np.arange(200)).take(np.arange(100))) == 100


def test_names_are_optional() -> None:
    images = dataclasses.replace(labeled(5), names=None)
    assert images.name(3) is None and images.take(np.array([1])).name(0) is None
    assert len(images.first(3)) == 3 and len(images.first(None)) == len(images.first(9)) == 5


def test_limits_beyond_the_set_are_refused() -> None:
    data = small()
    data.check_limits(train_images=20, test_images=10)
    with pytest.raises(DataError, match="`train_images` is 21, but there are 20 images; leave it out to take all"):
        data.check_limits(train_images=21)
    with pytest.raises(DataError, match="`test_images` is 1,000, but there are 10"):
        data.check_limits(test_images=1000)


# Digests


def changed(data: Dataset, part: str, **fields: Any) -> Dataset:
    return dataclasses.replace(data, **{part: dataclasses.replace(getattr(data, part), **fields)})


def test_a_digest_changes_with_pixels_and_labels() -> None:
    data = small()
    pixels = data.test.images[:].copy()
    pixels[9, 5, 4] ^= 1
    labels = data.train.labels.copy()
    labels[0] = 2
    digests = {data.digest(), changed(data, "test", images=pixels).digest(),
               changed(data, "train", labels=labels).digest(), small(train=19).digest()}
    assert len(digests) == 4
    assert changed(data, "test", images=pixels).digest("train") == data.digest("train") != data.digest("test")
    assert data.digest("train", "test") == data.digest() == small().digest()


def test_a_digest_stays_with_the_pictures_that_it_was_computed_from() -> None:
    data = small().with_digests()
    smaller = changed(changed(data, "train", images=data.train.images[:, :3]), "test", images=data.test.images[:, :3])
    assert smaller.digest() == data.digest() == small().digest()
    assert smaller.digest("test") == small().digest("test")
