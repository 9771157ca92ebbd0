"""Idx files: valid ones, and every form of damage."""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from alexnet_mf.data.sources import idx
from alexnet_mf.errors import DataError

IMAGES = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 251
LABELS = np.array([9, 0, 3])


def idx_of(values: np.ndarray, magic: int | None = None) -> bytes:
    magic = 0x0800 | values.ndim if magic is None else magic
    return struct.pack(f">I{values.ndim}I", magic, *values.shape) + values.astype(np.uint8).tobytes()


def write_file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


def fault_of(read: object, *paths: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(*paths)  # type: ignore[operator]
    message = str(caught.value)
    assert "\n" not in message
    assert str(paths[0]) in message or str(paths[-1]) in message
    assert message.endswith(idx.REMEDY)
    return message


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["unpacked", "gz"])
def test_packed_and_unpacked_files_are_read(tmp_path: Path, pack: type[bytes]) -> None:
    images = idx.read_images(write_file(tmp_path, pack(idx_of(IMAGES))))
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, IMAGES)
    labels = idx.read_labels(write_file(tmp_path, pack(idx_of(LABELS))))
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["unpacked", "gz"])
@pytest.mark.parametrize(("content", "fault"), [
    (b"", "truncated after 0 of 4 bytes"),
    (idx_of(IMAGES)[:10], "truncated after 6 of 12 bytes"),
    (idx_of(IMAGES)[:-1], "truncated after 2351 of 2352 bytes"),
    (idx_of(IMAGES) + b"\0", "surplus bytes"),
    (idx_of(IMAGES, magic=0x0D03), "wrong magic number 0x00000d03, not 0x00000803"),
    (idx_of(LABELS), "wrong magic number 0x00000801"),
    (b"<!DOCTYPE html>", "wrong magic number"),
    (idx_of(np.zeros((2, 32, 32))), "holds images of 32x32, not 28x28"),
    (idx_of(np.zeros((0, 28, 28))), "claims to hold 0 items"),
])
def test_a_damaged_image_file_is_refused(tmp_path: Path, pack: type[bytes], content: bytes, fault: str) -> None:
    assert fault in fault_of(idx.read_images, write_file(tmp_path, pack(content)))


@pytest.mark.parametrize("keep", [5, 40, -9, -1], ids=["header", "middle", "before checksum", "checksum"])
def test_a_truncated_gzip_file_is_refused(tmp_path: Path, keep: int) -> None:
    assert "truncated" in fault_of(idx.read_images, write_file(tmp_path, gzip.compress(idx_of(IMAGES))[:keep]))


@pytest.mark.parametrize("at", [20, -8], ids=["content", "checksum"])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, at: int) -> None:
    content = bytearray(gzip.compress(idx_of(IMAGES)))
    content[at] ^= 0xFF
    fault_of(idx.read_images, write_file(tmp_path, bytes(content)))


def test_a_label_out_of_range_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, idx_of(np.array([0, 9, 10])))
    assert "label 2 is 10, not 0-9" in fault_of(idx.read_labels, path)


def test_different_counts_of_images_and_labels_are_refused(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.write_bytes(idx_of(IMAGES))
    labels.write_bytes(idx_of(LABELS[:2]))
    assert "3 images, but 2 labels in labels" in fault_of(idx.read_pair, images, labels)


@pytest.mark.parametrize(("content", "fault"), [
    (struct.pack(">4I", 0x0803, 0xFFFFFFFF, 28, 28) + bytes(100), "claims to hold 4,294,967,295 items"),
    (struct.pack(">4I", 0x0803, 1_000_000, 28, 28) + bytes(100), "truncated"),  # 784 MB are claimed
    (gzip.compress(idx_of(IMAGES) + bytes(64 << 20), compresslevel=1), "surplus bytes"),
], ids=["beyond the limit", "within the limit", "gzip bomb"])
def test_memory_follows_the_content_not_the_claim(tmp_path: Path, content: bytes, fault: str) -> None:
    path = write_file(tmp_path, content)
    tracemalloc.start()
    try:
        assert fault in fault_of(idx.read_images, path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in fault_of(idx.read_images, tmp_path / "nowhere")


def test_a_failing_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda self, mode: io.BufferedReader(Failing()))
    assert "cannot be read (Input/output error)" in fault_of(idx.read_images, tmp_path / "file")
