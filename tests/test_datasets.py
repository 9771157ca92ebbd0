"""A dataset for a network: classes by name, the network's own classes and channels, and notices of each choice."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_mf import datasets, spec
from alexnet_mf.data import Dataset, DataSource, LabeledImages
from alexnet_mf.data.collection import PictureSet
from alexnet_mf.errors import AlexnetMfError, DataError, Notice
from alexnet_mf.spec import Network, Preprocessing
from alexnet_mf.spec.layers import Normalize


def arrays(classes: tuple[str, ...] = ("cat", "dog", "owl"), *shape: int) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (9, *(shape or (28, 28)))).astype(np.uint8)
    labels = np.arange(9) % len(classes)
    return Dataset("arrays", LabeledImages(images, labels), LabeledImages(images[:4], labels[:4]), classes,
                   "some arrays")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for part in ("train", "test", "val"):
        for label, name in enumerate(("cat", "dog", "owl")):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for number in range(2):
                levels = np.random.default_rng([label, number]).integers(0, 256, (40, 50, 3)).astype(np.uint8)
                Image.fromarray(levels).save(tmp_path / "pets" / part / name / f"{number}.png")
    return tmp_path / "pets"


def pictures(pets: Path) -> PictureSet:
    data = datasets.open_source(DataSource(str(pets)), quiet=True)
    assert isinstance(data, PictureSet)
    return data


def notices_of(call: Any, *arguments: Any) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call(*arguments)
    assert all(issubclass(each.category, Notice) for each in caught)
    return result, [str(each.message) for each in caught]


# Sources


def test_a_source_is_named_in_several_ways(tmp_path: Path) -> None:
    assert datasets.source_of("synthetic") == DataSource("synthetic")
    assert datasets.source_of(tmp_path) == DataSource(str(tmp_path))
    assert datasets.source_of("fashion-mnist", tmp_path) == DataSource("fashion-mnist", str(tmp_path))
    own = DataSource("fashion-mnist")
    assert datasets.source_of(own) is own
    assert datasets.source_of(own, str(tmp_path)).data_dir == str(tmp_path)
    with pytest.raises(AlexnetMfError, match="`data` must be the name of a dataset, a path or a DataSource, not 3"):
        datasets.source_of(3)  # type: ignore[arg-type]


def test_what_was_left_out_is_a_notice(pets: Path) -> None:
    (pets / "train" / "cat" / "notes.txt").write_text("text")
    data, notices = notices_of(datasets.open_source, DataSource(str(pets)), True)
    assert isinstance(data, PictureSet)
    assert notices == [f"{pets}: left out 1 files that are no pictures by their names: 1 .txt"]


# Networks


def test_classes_and_channels_follow_the_data(small: Network, pets: Path) -> None:
    network, notices = notices_of(datasets.adapted, small, pictures(pets))
    assert (network.classes, network.input) == (3, (3, 28, 28))
    assert network.name == "small-3-classes-color"
    assert notices == [f"network small gets 3 classes and 3 channels, as pictures in {pets}: small-3-classes-color"]


@pytest.mark.parametrize(("data", "channels", "text"), [
    (arrays(), 1, "3 classes"), (arrays(tuple("abcdefghij"), 28, 28, 3), 1, "3 channels"),
    (arrays(("a", "b"), 28, 28), 3, "2 classes and 1 channel")], ids=["classes", "channels", "both"])
def test_only_what_changes_is_named(small: Network, data: Dataset, channels: int, text: str) -> None:
    before = spec.with_channels(small, channels)
    network, notices = notices_of(datasets.adapted, before, data)
    assert notices == [f"network {before.name} gets {text}, as some arrays: {network.name}"]


def test_a_network_that_fits_stays(small: Network) -> None:
    network, notices = notices_of(datasets.adapted, small, arrays(tuple("abcdefghij")))
    assert network is small and notices == []


def test_a_network_that_normalizes_keeps_its_channels(small: Network) -> None:
    normalizing = dataclasses.replace(small, layers=(Normalize("normalize", mean=(0.5,), std=(0.5,)), *small.layers))
    network, notices = notices_of(datasets.adapted, normalizing, arrays(("a", "b"), 28, 28, 3))
    assert (network.classes, network.input) == (2, (1, 28, 28))
    assert notices == [f"network small gets 2 classes, as some arrays: {network.name}"]
    network, notices = notices_of(datasets.adapted, normalizing, arrays(tuple("abcdefghij"), 28, 28, 3))
    assert network is normalizing and notices == []


# Classes by name


def test_labels_follow_the_names_of_the_weights() -> None:
    data = arrays()
    ordered, notices = notices_of(datasets.with_classes_of, data, ["owl", "cat", "dog"], "weights")
    assert ordered.classes == ("owl", "cat", "dog") and notices == []
    for part, before in ((ordered.train, data.train), (ordered.test, data.test)):
        assert [ordered.classes[label] for label in part.labels] == [data.classes[label] for label in before.labels]
        assert part.images is before.images
    assert data.train.labels.tolist() == [0, 1, 2] * 3
    assert datasets.with_classes_of(data, ["cat", "dog", "owl"], "weights") is data


def test_pictures_follow_the_names_of_the_weights(pets: Path) -> None:
    data = pictures(pets)
    ordered = datasets.with_classes_of(data, ("owl", "dog", "cat"), "weights")
    assert isinstance(ordered, PictureSet) and ordered.validation is not None
    for part in (ordered.train, ordered.test, ordered.validation):
        for row, label in enumerate(part.labels):
            assert Path(part.pictures.name(part.number(row))).parent.name == ordered.classes[label]
    source = DataSource(str(pets), store=str(pets.parent / "stores"))
    chosen = Preprocessing("gray", resize=8, crop=(8, 8))
    prepared = [datasets.prepare(each, chosen, source, quiet=True) for each in (data, ordered)]
    np.testing.assert_array_equal(prepared[0].test.images[:], prepared[1].test.images[:])
    assert len(list((pets.parent / "stores").iterdir())) == 2  # of training and test, for both orders


@pytest.mark.parametrize("names", [("cat", "dog", "bird"), ("cat", "dog"), ("cat", "dog", "owl", "bird"),
                                   ("Cat", "dog", "owl"), ("cat", "cat", "dog")])
def test_other_classes_are_refused_with_both_lists(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        datasets.with_classes_of(arrays(), names, "file.npz")
    assert str(caught.value).startswith(f"file.npz: has the classes {', '.join(names)}, but some arrays has cat, dog, "
                                        "owl; use weights for these classes, or name the data's classes as")


def test_of_many_classes_the_first_are_named() -> None:
    names = [f"class {number}" for number in range(1000)]
    with pytest.raises(DataError, match=r"has the classes class 0, .*, class 19 and 980 more, but some arrays has"):
        datasets.with_classes_of(arrays(), names, "file.npz")


def test_classes_without_names_are_taken_by_their_numbers() -> None:
    data = arrays()
    same, notices = notices_of(datasets.with_classes_of, data, None, "file.npz")
    assert same is data
    assert notices == ["file.npz: does not name its classes; class 0 is taken for cat, and so on, in the order of some "
                       "arrays"]


# Preprocessing


def test_colors_that_are_lost_or_repeated_are_a_notice(small: Network) -> None:
    color = spec.with_channels(small, 3)
    for network, data, text in (
            (small, arrays(("a", "b"), 28, 28, 3), ["network small takes gray pictures: the colors are lost"]),
            (color, arrays(), ["network small-color takes 3 channels: gray pictures are repeated in each"]),
            (small, arrays(), []), (color, arrays(("a", "b"), 28, 28, 3), [])):
        chosen, notices = notices_of(datasets.choose, data, network)
        assert notices == text and chosen.channels == network.input[0]


def test_the_preprocessing_of_weights_is_used(small: Network) -> None:
    own = Preprocessing("gray", resize=20, crop=(20, 20))
    assert datasets.choose(arrays(), small, own) is own


def test_pictures_are_prepared_with_a_display(pets: Path, small: Network, capsys: pytest.CaptureFixture[str]) -> None:
    source = DataSource(str(pets), store=str(pets.parent / "stores"))
    data = pictures(pets)
    network, _ = notices_of(datasets.adapted, small, data)
    preprocessing, _ = notices_of(datasets.choose, data, network)
    assert preprocessing == Preprocessing("rgb", resize=32, patch=(32, 32), crop=(28, 28))
    prepared = datasets.prepare(data, preprocessing, source, quiet=True)
    assert prepared.train.images.shape == (6, 32, 32, 3) and capsys.readouterr().err == ""
    (pets / "train" / "cat" / "2.png").write_text("text")
    skipping = dataclasses.replace(source, skip_damaged=True)
    again, notices = notices_of(datasets.prepare, pictures(pets), preprocessing, skipping, False)
    assert len(again.train) == 6 and len(notices) == 1 and notices[0].endswith("; left out")
    with pytest.raises(DataError, match="leave out what is damaged with `skip_damaged`"):
        datasets.prepare(pictures(pets), preprocessing, source, quiet=False)


def test_a_store_may_begin_with_a_tilde(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(pets.parent))
    monkeypatch.setenv("USERPROFILE", str(pets.parent))
    source = DataSource(str(pets), store="~/stores")
    datasets.prepare(pictures(pets), Preprocessing("gray", resize=8, crop=(8, 8)), source, quiet=True)
    assert len(list((pets.parent / "stores").iterdir())) == 2
    assert source.resolved().store == str((pets.parent / "stores").resolve())
