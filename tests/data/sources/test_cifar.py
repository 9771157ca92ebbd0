"""CIFAR's binary files: both layouts, in their folders, and every form of damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opened_sources import fault_of

from alexnet_mf.data import Dataset, DataSource
from alexnet_mf.data.sources.cifar import LAYOUTS, Layout

EACH = 12
"""Number of images in a file."""


def images_of(layout: Layout, name: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    bits = np.random.default_rng(list(name.encode()))
    return bits.integers(0, 256, (EACH, 32, 32, 3)).astype(np.uint8), (np.arange(EACH) * 7 % classes).astype(np.uint8)


def write_set(folder: Path, layout: Layout, classes: int = 10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*layout.train, layout.test):
        images, labels = images_of(layout, name, classes)
        coarse = np.full((EACH, layout.labels - 1), 19, np.uint8)
        planes = images.transpose(0, 3, 1, 2).reshape(EACH, -1)
        (folder / name).write_bytes(np.concatenate([coarse, labels[:, None], planes], axis=1).tobytes())
    (folder / layout.names).write_text("".join(f"class {label}\n" for label in range(classes)) + "\n")
    return folder


def open_set(path: Path, **options: Any) -> Dataset:
    data = DataSource(str(path), **options).open()
    assert isinstance(data, Dataset)
    return data


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.name)
def layout(request: pytest.FixtureRequest) -> Layout:
    value: Layout = request.param
    return value


def test_images_and_labels_are_read(tmp_path: Path, layout: Layout) -> None:
    classes = {"CIFAR-10": 10, "CIFAR-100": 100}[layout.name]
    data = open_set(write_set(tmp_path, layout, classes))
    parts = [images_of(layout, name, classes) for name in layout.train]
    np.testing.assert_array_equal(data.train.images, np.concatenate([images for images, _ in parts]))
    np.testing.assert_array_equal(data.train.labels, np.concatenate([labels for _, labels in parts]))
    images, labels = images_of(layout, layout.test, classes)
    np.testing.assert_array_equal(data.test.images, images)
    np.testing.assert_array_equal(data.test.labels, labels)
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int64
    assert data.train.images.flags.c_contiguous
    assert data.classes == tuple(f"class {label}" for label in range(classes))
    assert (data.name, data.origin) == ("cifar", f"{layout.name} in {tmp_path}")


def test_the_folder_of_the_archive_is_found(tmp_path: Path, layout: Layout) -> None:
    write_set(tmp_path / layout.folder, layout)
    for path in (tmp_path, tmp_path / layout.folder):
        DataSource(str(path)).check()
        assert open_set(path).origin == f"{layout.name} in {tmp_path / layout.folder}"


def test_classes_can_have_other_names(tmp_path: Path, layout: Layout) -> None:
    names = tuple("abcdefghij")
    assert open_set(write_set(tmp_path, layout), classes=names).classes == names


def test_options_for_pictures_are_refused(tmp_path: Path, layout: Layout) -> None:
    assert "`test_share` is for pictures that are files; leave it out" in fault_of(write_set(tmp_path, layout),
                                                                                   test_share=0.2)


@pytest.mark.parametrize("name", ["data_batch_1", "cifar-10-batches-py", "cifar-100-python"])
def test_the_version_for_python_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir() if name.startswith("cifar") else (tmp_path / name).write_bytes(b"\x80\x04pickle")
    assert "holds CIFAR's version for Python, whose files are pickled and not read; download the bin" in fault_of(
        tmp_path)


def test_the_version_of_cifar_100_for_python_is_refused(tmp_path: Path) -> None:
    for name in ("meta", "train", "test"):
        (tmp_path / name).write_bytes(b"\x80\x04pickle")
    assert "version for Python" in fault_of(tmp_path)


def test_truncated_files_are_refused(tmp_path: Path, layout: Layout) -> None:
    write_set(tmp_path, layout)
    for name in (layout.train[-1], layout.test):
        content = (tmp_path / name).read_bytes()
        for cut in (content[:-1], content[:100], b""):
            (tmp_path / name).write_bytes(cut)
            assert fault_of(tmp_path).startswith(f"{tmp_path / name}: is damaged: {len(cut):,} bytes are no whole "
                                                 "number")
        (tmp_path / name).write_bytes(content)


def test_missing_files_are_named(tmp_path: Path, layout: Layout) -> None:
    write_set(tmp_path, layout)
    for name in (*layout.train[1:], layout.names):
        (tmp_path / name).rename(tmp_path / "aside")
        assert fault_of(tmp_path).startswith(f"{tmp_path / name}: ")
        (tmp_path / "aside").rename(tmp_path / name)
    (tmp_path / layout.test).unlink()
    assert "holds no dataset" in fault_of(tmp_path)


def test_labels_without_a_name_are_refused(tmp_path: Path, layout: Layout) -> None:
    write_set(tmp_path, layout)
    content = bytearray((tmp_path / layout.test).read_bytes())
    content[layout.labels - 1] = 10
    (tmp_path / layout.test).write_bytes(content)
    assert f"{tmp_path / layout.test}: has label 10, but there are 10 classes; unpack" in fault_of(tmp_path)


@pytest.mark.parametrize("content", [b"", b"one\n", b"one\none\n", b"\xff\xfe\xff", b"a\0b\n"])
def test_names_of_classes_are_checked(tmp_path: Path, layout: Layout, content: bytes) -> None:
    (write_set(tmp_path, layout) / layout.names).write_bytes(content)
    assert fault_of(tmp_path).startswith(f"{tmp_path / layout.names}: ")
