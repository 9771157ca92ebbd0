"""From opened pictures to levels for a network: the choice of the preprocessing, damage, and digests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_mf.data import Dataset, DataSource, LabeledImages
from alexnet_mf.data import prepare as preparation
from alexnet_mf.data.collection import PictureSet
from alexnet_mf.data.prepare import Facts, choose, facts, prepare
from alexnet_mf.data.preprocessing import prepare as prepare_image
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Network, Preprocessing
from alexnet_mf.spec.preprocessing import FASHION_MNIST

COLOR = Preprocessing("rgb", resize=12, patch=(12, 12), crop=(10, 10))
GRAY = Preprocessing("gray", resize=10, crop=(10, 10))


def noise(seed: int, height: int = 15, width: int = 20) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(levels.astype(np.uint8))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for number in range(count):
                noise(100 * count + 10 * label + number).save(tmp_path / "pets" / part / name / f"{number}.png")
    return tmp_path / "pets"


def opened(pets: Path, **options: Any) -> PictureSet:
    data = DataSource(str(pets), **options).open()
    assert isinstance(data, PictureSet)
    return data


def prepared(pets: Path, preprocessing: Preprocessing = COLOR, share: float | None = None, **options: Any) -> Dataset:
    return prepare(opened(pets, test_share=share), preprocessing, folder=pets.parent / "stores", **options)


def arrays(*shape: int, dtype: Any = np.uint8) -> Dataset:
    images = [np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(dtype)
              for seed, count in enumerate((6, 4))]
    return Dataset("arrays", LabeledImages(images[0], np.arange(6) % 2), LabeledImages(images[1], np.arange(4) % 2),
                   ("a", "b"), "some arrays")


def net(small: Network, channels: int, height: int, width: int) -> Network:
    return dataclasses.replace(small, input=(channels, height, width))


# Prepared pictures


@pytest.mark.parametrize("preprocessing", [COLOR, GRAY], ids=["color", "gray"])
@pytest.mark.parametrize("keep", [True, False])
def test_pictures_become_levels(pets: Path, preprocessing: Preprocessing, keep: bool) -> None:
    reports: list[tuple[str, int, int]] = []
    data = prepared(pets, preprocessing, keep=keep, report=lambda *line: reports.append(line))
    for part, count in ((data.train, 8), (data.test, 4)):
        assert part.images.shape == (count, *preprocessing.stored.size, *([3] if preprocessing.channels == 3 else []))
        assert part.images.dtype == np.uint8
        for row in range(count):
            image = Image.open(str(part.name(row)))
            np.testing.assert_array_equal(part.images[row], prepare_image(image, preprocessing.stored))
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert data.preprocessing == preprocessing and data.classes == ("cat", "dog")
    assert {part for part, *_ in reports} == {"train", "test"} and reports[-1] == ("test", 4, 4)


@pytest.mark.parametrize("keep", [True, False])
def test_pictures_that_were_divided_are_prepared_together(pets: Path, keep: bool) -> None:
    (pets / "test").rename(pets / ".test")
    reports: list[tuple[str, int, int]] = []
    data = prepared(pets, share=0.25, keep=keep, report=lambda *line: reports.append(line))
    assert len(list((pets.parent / "stores").iterdir())) == 1
    assert {part for part, *_ in reports} == {"train"} and reports[-1][1:] == (8, 8)
    assert (data.train.images.shape, data.test.images.shape) == ((6, 12, 12, 3), (2, 12, 12, 3))
    for part in (data.train, data.test):
        for row in range(len(part)):
            name = Path(str(part.name(row)))
            np.testing.assert_array_equal(part.images[row], prepare_image(Image.open(name), COLOR.stored))
            assert name.parent.name == data.classes[part.labels[row]]


def test_only_the_parts_that_are_used_are_prepared(pets: Path) -> None:
    (pets / "train" / "cat" / "0.png").write_text("damaged")
    data = prepared(pets, parts=("test",))
    assert (len(data.train), len(data.test)) == (0, 4) and data.train.images.shape == (0, 12, 12, 3)
    (pets / "train" / "cat" / "0.png").unlink()
    assert data.digest("test") == prepared(pets).digest("test")


# Damage


def test_damaged_pictures_are_named(pets: Path) -> None:
    (pets / "train" / "cat" / "1.png").write_text("text")
    fault = "is no JPEG, PNG, WebP, BMP, GIF or TIFF picture, or its beginning is damaged; convert it to PNG"
    with pytest.raises(DataError) as caught:
        prepared(pets)
    assert str(caught.value) == (f"{pets / 'train/cat/1.png'}: {fault}; repair or remove it, or leave out what is "
                                 "damaged with `skip_damaged`")
    content = (pets / "test" / "dog" / "0.png").read_bytes()
    (pets / "test" / "dog" / "0.png").write_bytes(content[:400])
    (pets / "test" / "dog" / "1.png").unlink()
    (pets / "test" / "dog" / "1.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(DataError, match=r"/train/cat/1\.png: is no.*; also .*/test/dog/0\.png, .*/test/dog/1\.heic; "
                                        r"repair or remove all 3, or leave"):
        prepared(pets)


def test_of_many_damaged_pictures_the_first_and_the_number_are_named(pets: Path) -> None:
    for part in ("train", "test"):
        for path in (pets / part).glob("*/*.png"):
            path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError) as caught:
        prepared(pets)
    message = str(caught.value)
    assert message.isprintable() and message.count(".png") == 5
    assert "/train/dog/0.png and 7 more; repair or remove all 12, or leave out" in message


def test_damaged_pictures_can_be_left_out(pets: Path) -> None:
    whole = prepared(pets)
    (pets / "train" / "cat" / "1.png").write_text("text")
    (pets / "test" / "dog" / "0.png").write_bytes(b"")
    for keep in (True, False):
        notices: list[str] = []
        data = prepared(pets, skip_damaged=True, notice=notices.append, keep=keep)
        assert [line.split(": ")[0] for line in notices] == [str(pets / "train/cat/1.png"), str(pets /
                                                                                                "test/dog/0.png")]
        assert notices[1].endswith(": is empty; left out")
        assert (len(data.train), len(data.test)) == (7, 3) and data.train.labels.tolist() == [0] * 3 + [1] * 4
        np.testing.assert_array_equal(data.train.images[:], np.delete(whole.train.images[:], 1, axis=0))
        assert data.train.name(1) == str(pets / "train/cat/2.png")
        assert data.digest("train") != whole.digest("train") and data.digest("test") != whole.digest("test")


def test_a_class_needs_a_picture_that_is_not_damaged(pets: Path) -> None:
    for path in (pets / "train" / "dog").iterdir():
        path.write_text("text")
    with pytest.raises(DataError, match=r"/train/dog/0\.png: this and all other training pictures of class 'dog'"):
        prepared(pets, skip_damaged=True)
    for path in (pets / "test").glob("*/*"):
        path.write_text("text")
    with pytest.raises(DataError, match=r"/test/cat/0\.png: this and all other test pictures are damaged; repair"):
        prepared(pets, skip_damaged=True, parts=("test",))


def test_an_interrupted_preparation_is_not_an_error_of_a_picture(pets: Path) -> None:
    def report(part: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(pets, report=report)
    assert len(prepared(pets).train) == 8


# Digests


def test_a_digest_is_the_same_for_every_preprocessing(pets: Path) -> None:
    digests = {prepared(pets, preprocessing, keep=keep).digest() for preprocessing in (COLOR, GRAY)
               for keep in (True, False)}
    assert len(digests) == 1
    data = arrays(28, 28)
    assert {prepare(data, preprocessing).digest() for preprocessing in (FASHION_MNIST, COLOR, GRAY)} == {data.digest()}


def test_a_digest_changes_with_pictures_labels_and_classes(pets: Path) -> None:
    digests = [prepared(pets).digest()]
    content = (pets / "train" / "cat" / "0.png").read_bytes()
    noise(9).save(pets / "train" / "cat" / "0.png")
    digests.append(prepared(pets).digest())
    (pets / "train" / "cat" / "0.png").write_bytes(content)
    assert prepared(pets).digest() == digests[0]
    (pets / "train" / "cat" / "3.png").rename(pets / "train" / "dog" / "9.png")
    digests.append(prepared(pets).digest())
    (pets / "train" / "dog" / "9.png").rename(pets / "train" / "cat" / "3.png")
    renamed = dataclasses.replace(opened(pets), classes=("dog", "cat"))
    digests.append(prepare(renamed, COLOR, folder=pets.parent / "stores").digest())
    assert len(set(digests)) == 4


def test_a_digest_does_not_depend_on_the_place(pets: Path) -> None:
    digest = prepared(pets).digest()
    pets.rename(pets.parent / "moved")
    assert prepared(pets.parent / "moved").digest() == digest


# Arrays


def test_arrays_that_fit_are_not_changed() -> None:
    gray, color = arrays(28, 28), arrays(32, 32, 3)
    assert prepare(gray, FASHION_MNIST).train.images is gray.train.images
    as_it_is = Preprocessing("rgb", resize=32, crop=(32, 32))
    assert prepare(color, as_it_is).test.images is color.test.images
    floats = arrays(3, 8, 8, dtype=np.float32)
    assert prepare(floats, COLOR).train is floats.train


def test_arrays_are_resized_and_change_their_channels() -> None:
    gray, color = arrays(28, 28), arrays(32, 30, 3)
    repeated = prepare(gray, Preprocessing("rgb", resize=28, crop=(28, 28))).train.images[:]
    np.testing.assert_array_equal(repeated, np.stack([gray.train.images[:]] * 3, axis=3))
    for data, preprocessing in ((gray, COLOR), (gray, GRAY), (color, COLOR), (color, GRAY)):
        for part, result in ((data.train, prepare(data, preprocessing).train),
                             (data.test, prepare(data, preprocessing).test)):
            np.testing.assert_array_equal(result.images[:], np.stack([
                prepare_image(Image.fromarray(image), preprocessing.stored) for image in part.images[:]]))
            np.testing.assert_array_equal(result.labels, part.labels)


# Choices


def test_facts_are_those_of_the_training_pictures(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert facts(opened(pets)) == Facts(15, True)
    for path in (pets / "train").glob("*/*.png"):
        Image.open(path).convert("L").resize((30, 40)).save(path)
    assert facts(opened(pets)) == Facts(30, False)
    noise(1, 50, 12).save(pets / "train" / "cat" / "2.png")
    assert facts(opened(pets)) == Facts(30, True)
    monkeypatch.setattr(preparation, "SAMPLE", 2)  # the first and the last
    assert facts(opened(pets)) == Facts(30, False)
    (pets / "train" / "cat" / "0.png").write_text("text")
    assert facts(opened(pets)) == Facts(30, False)
    (pets / "train" / "dog" / "3.png").write_text("text")
    with pytest.raises(DataError, match=r"/train/cat/0.png: is damaged; repair or remove it"):
        facts(opened(pets))
    assert facts(arrays(28, 20)) == Facts(20, False) and facts(arrays(32, 32, 3)) == Facts(32, True)


def test_small_pictures_keep_their_size(pets: Path, small: Network) -> None:
    data = opened(pets)
    assert choose(data, net(small, 3, 28, 28)) == Preprocessing("rgb", resize=15, crop=(15, 15))
    assert choose(data, net(small, 1, 28, 28)) == Preprocessing("gray", resize=15, crop=(15, 15))
    assert choose(data, net(small, 3, 32, 16)) == Preprocessing("rgb", resize=15, crop=(15, 8))
    assert choose(arrays(28, 28), small) == FASHION_MNIST
    assert choose(arrays(28, 28), net(small, 1, 224, 224)) == FASHION_MNIST
    assert choose(arrays(32, 32, 3), net(small, 3, 224, 224)) == Preprocessing("rgb", resize=32, crop=(32, 32))


def test_large_pictures_have_a_margin(pets: Path, small: Network) -> None:
    noise(1, 300, 400).save(pets / "train" / "cat" / "0.png")
    data = opened(pets)
    for side, patch in ((224, 256), (227, 256), (64, 72), (28, 32), (16, 16)):
        chosen = choose(data, net(small, 3, side, side))
        assert chosen == Preprocessing("rgb", resize=patch, patch=(patch, patch), crop=(side, side)), side
    assert choose(data, net(small, 1, 56, 28)) == Preprocessing("gray", resize=64, patch=(64, 32), crop=(56, 28))
