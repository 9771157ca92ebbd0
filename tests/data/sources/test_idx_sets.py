"""Sets of idx files: every naming, labels from any number, names of classes, and folders with several sets."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opened_sources import fault_of

from alexnet_mf.data import FASHION_CLASSES, Dataset, DataSource, fashion_mnist

REAL_FOLDER = os.environ.get("ALEXNET_MF_DATA_DIR")  # read before any test clears it


def idx_of(values: np.ndarray) -> bytes:
    return struct.pack(f">I{values.ndim}I", 0x0800 | values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def write_set(folder: Path, prefix: str = "", mark: str = "-", pack: bool = False, test: str = "t10k",
              labels: tuple[int, ...] = (0, 1, 2), size: tuple[int, int] = (28, 28), seed: int = 0) -> Path:
    """Write the four files of a set with four images of each label for training, and two for testing."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 4), (test, 2)):
        values = np.tile(labels, count)
        images = np.random.default_rng([seed, count]).integers(0, 256, (len(values), *size))
        for kind, content in ((f"images{mark}idx3", images), (f"labels{mark}idx1", values)):
            data = idx_of(np.asarray(content))
            (folder / f"{prefix}{part}-{kind}-ubyte{'.gz' if pack else ''}").write_bytes(
                gzip.compress(data, mtime=0) if pack else data)
    return folder


def open_set(path: Path | str, **options: Any) -> Dataset:
    data = DataSource(str(path), **options).open()
    assert isinstance(data, Dataset)
    return data


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("test", ["t10k", "test"])
def test_files_have_any_of_their_names(tmp_path: Path, mark: str, pack: bool, test: str) -> None:
    data = open_set(write_set(tmp_path, mark=mark, pack=pack, test=test))
    assert (data.train.images.shape, data.test.images.shape) == ((12, 28, 28), (6, 28, 28))
    assert data.train.labels.tolist() == [0, 1, 2] * 4 and data.classes == ("0", "1", "2")
    assert (data.name, data.origin) == ("idx", f"idx files in {tmp_path}")
    np.testing.assert_array_equal(data.test.images, np.random.default_rng([0, 2]).integers(0, 256, (6, 28, 28)))


def test_a_file_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    write_set(write_set(tmp_path), pack=True)
    assert len(open_set(tmp_path).train) == 12
    assert len(open_set(tmp_path / "train-images-idx3-ubyte").train) == 12


def test_images_have_any_size_but_one(tmp_path: Path) -> None:
    assert open_set(write_set(tmp_path, size=(32, 20))).train.images.shape == (12, 32, 20)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_of(np.zeros((6, 20, 32))))
    assert "training images are 32x20, test images 20x32; give images of one size" in fault_of(tmp_path)


@pytest.mark.parametrize("labels", [(1, 2, 3), tuple(range(62)), (0, 7, 255), (5, 2)])
def test_labels_begin_anywhere(tmp_path: Path, labels: tuple[int, ...]) -> None:
    data = open_set(write_set(tmp_path, labels=labels))
    assert data.classes == tuple(map(str, sorted(labels)))
    assert [data.classes[label] for label in data.train.labels] == list(map(str, labels)) * 4
    assert data.train.labels.dtype == data.test.labels.dtype == np.int64


def test_labels_need_to_occur_in_training(tmp_path: Path) -> None:
    write_set(tmp_path, labels=(1, 2))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_of(np.array([1, 2, 3, 1])))
    assert "test images have label 3, which the training images lack" in fault_of(tmp_path)
    write_set(tmp_path, labels=(4, 4, 4))
    assert "all training images have label 4; a network needs at least two classes" in fault_of(tmp_path)


def test_a_mapping_names_the_classes(tmp_path: Path) -> None:
    write_set(tmp_path, "emnist-letters-", labels=(1, 2, 3))
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 0x\n")
    assert "is no mapping of labels to characters; replace or remove it" in fault_of(tmp_path)
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n\n")
    data = open_set(tmp_path)
    assert data.classes == ("A", "B", "3") and data.origin == f"emnist-letters in {tmp_path}"
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65\n2 65\n3 66\n")
    assert open_set(tmp_path).classes == ("1", "2", "3")
    assert open_set(tmp_path, classes=("a", "A", "c")).classes == ("a", "A", "c")


def test_62_classes_are_named_by_digits_and_letters(tmp_path: Path) -> None:
    write_set(tmp_path, "emnist-byclass-", labels=tuple(range(62)))
    characters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    (tmp_path / "emnist-byclass-mapping.txt").write_text("".join(
        f"{label} {ord(one)}\r\n" for label, one in enumerate(characters)))
    assert open_set(tmp_path).classes == tuple(characters)


# Several sets


@pytest.fixture
def emnist(tmp_path: Path) -> Path:
    write_set(tmp_path / "emnist", "emnist-letters-", labels=(1, 2), seed=1)
    write_set(tmp_path / "emnist", "emnist-digits-", labels=(0, 1, 2), seed=2)
    return write_set(tmp_path / "emnist", "emnist-letters-more-", labels=(7, 8, 9), seed=3)


def test_several_sets_in_a_folder_are_listed(emnist: Path) -> None:
    message = fault_of(emnist)
    assert message == (f"{emnist}: holds several sets; name one: {emnist / 'emnist-digits'}, "
                       f"{emnist / 'emnist-letters'}, {emnist / 'emnist-letters-more'}")
    for name in message.partition("name one: ")[2].split(", "):  # every one can be named so
        assert open_set(name).origin == f"{Path(name).name} in {emnist}"
    assert "emnist-letters, " in fault_of(emnist / "emnist-l")


@pytest.mark.parametrize("name", ["emnist-digits", "emnist-digits-", "emnist-d",
                                  "emnist-digits-train-images-idx3-ubyte", "emnist-digits-t10k-labels-idx1-ubyte"])
def test_a_beginning_or_a_file_names_a_set(emnist: Path, name: str) -> None:
    DataSource(str(emnist / name)).check()
    assert open_set(emnist / name).classes == ("0", "1", "2")


def test_no_set_begins_so(emnist: Path) -> None:
    assert "is neither a built-in dataset" in fault_of(emnist / "mnist")
    assert "is neither a built-in dataset" in fault_of(emnist / "train-images-idx3-ubyte")


def test_folders_of_torchvision_are_found(tmp_path: Path) -> None:
    write_set(tmp_path / "MNIST" / "raw")
    for path in (tmp_path, tmp_path / "MNIST", tmp_path / "MNIST" / "raw"):
        assert len(open_set(path).train) == 12
    write_set(tmp_path / "KMNIST" / "raw", seed=1)
    assert len(open_set(tmp_path / "KMNIST").train) == 12
    assert fault_of(tmp_path) == (f"{tmp_path}: holds several sets; name one: {tmp_path / 'KMNIST' / 'raw'}, "
                                  f"{tmp_path / 'MNIST' / 'raw'}")
    write_set(tmp_path / "EMNIST" / "raw", "emnist-balanced-", seed=2)
    assert open_set(tmp_path / "EMNIST" / "raw" / "emnist-balanced").origin.startswith("emnist-balanced in")


# Damage


@pytest.mark.parametrize("name", ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    path = write_set(tmp_path) / f"{name}-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert fault_of(tmp_path).startswith(f"{path}: truncated after")
    path.write_bytes(content[:-1] + b"\xff\xff")
    assert fault_of(tmp_path).startswith(f"{path}: surplus bytes")
    path.unlink()
    part, kind = name.replace("t10k", "test").split("-")[:2]
    assert f"{tmp_path}: lacks the file of the {part} {kind} beside " in fault_of(tmp_path)


def test_options_for_pictures_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    for name, value in (("test_share", 0.2), ("skip_damaged", True), ("store", "stores"), ("store", False)):
        assert f"`{name}` is for pictures that are files; leave it out" in fault_of(tmp_path, **{name: value})


def test_links_to_themselves_do_not_matter(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert len(open_set(tmp_path).train) == 12


# Fashion-MNIST and its like


def test_files_with_the_names_of_fashion_mnist_are_numbered(folder: Path) -> None:
    data = open_set(folder)
    assert data.classes == tuple("0123456789") and (data.name, data.notices) == ("idx", ())
    notices: list[str] = []
    in_its_place = DataSource("fashion-mnist", str(folder)).open(notice=notices.append)
    assert in_its_place.classes == tuple("0123456789")
    assert notices == [f"images in the format of Fashion-MNIST from {folder}: are not Fashion-MNIST's by their "
                       "checksum; "
                       "the classes are numbered"]


def test_the_checksum_names_the_garments(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "SHA256", open_set(folder).digest())
    for data in (open_set(folder), DataSource("fashion-mnist", str(folder)).open()):
        assert (data.name, data.classes) == ("fashion-mnist", FASHION_CLASSES) and data.notices == ()


@pytest.mark.real_data
def test_the_real_files_are_recognized_in_any_folder() -> None:
    if not REAL_FOLDER:
        pytest.skip("ALEXNET_MF_DATA_DIR does not name a folder with Fashion-MNIST")
    data = open_set(REAL_FOLDER)
    assert (data.name, data.classes) == ("fashion-mnist", FASHION_CLASSES)
    assert data.digest() == fashion_mnist.SHA256 and (len(data.train), len(data.test)) == (60_000, 10_000)
