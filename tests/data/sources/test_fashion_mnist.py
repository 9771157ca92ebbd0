"""Fashion-MNIST: its folders, its download, and its error messages."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_mf.data import downloads, fashion_mnist
from alexnet_mf.errors import DataError

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"
REAL_FOLDER = os.environ.get("ALEXNET_MF_DATA_DIR")  # read before any test clears it


def message_of(data_dir: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        fashion_mnist.load(data_dir)
    message = str(caught.value)
    assert "\n" not in message
    assert "`data" in message  # the remedy
    return message


def check_content(dataset: Any, files: dict[str, bytes]) -> None:
    for pair, part in ((dataset.train, "train"), (dataset.test, "t10k")):
        images = np.frombuffer(gzip.decompress(files[f"{part}-images-idx3-ubyte.gz"])[16:], np.uint8)
        labels = np.frombuffer(gzip.decompress(files[f"{part}-labels-idx1-ubyte.gz"])[8:], np.uint8)
        np.testing.assert_array_equal(pair.images.ravel(), images)
        np.testing.assert_array_equal(pair.labels, labels)


# A folder that the user named


def test_a_named_folder_is_loaded(folder: Path, files: dict[str, bytes]) -> None:
    dataset = fashion_mnist.load(folder)
    check_content(dataset, files)
    assert dataset.name == "fashion-mnist"
    assert dataset.origin == f"images in the format of Fashion-MNIST from {folder}"
    assert len(dataset.classes) == 10


def test_unpacked_files_are_loaded(folder: Path, files: dict[str, bytes]) -> None:
    for name in files:
        path = folder / name
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    check_content(fashion_mnist.load(folder), files)


def test_the_environment_can_name_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALEXNET_MF_DATA_DIR", str(folder))
    assert str(folder) in fashion_mnist.load().origin
    assert "no such folder" in message_of(tmp_path / "elsewhere")  # the argument wins


def test_a_named_folder_is_final(folder: Path, mirrors: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / TRAIN_IMAGES).unlink()
    assert f"lacks {TRAIN_IMAGES}" in message_of(folder)
    monkeypatch.setenv("ALEXNET_MF_DATA_DIR", str(folder))
    assert f"lacks {TRAIN_IMAGES}" in message_of()
    assert mirrors.first.requests == mirrors.second.requests == []
    assert not cache.exists()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    message = message_of(tmp_path)
    assert "lacks all 4 files" in message
    assert all(name in message for name in fashion_mnist.MD5)


def test_a_file_instead_of_a_folder_is_refused(folder: Path) -> None:
    assert "not a folder" in message_of(folder / TRAIN_IMAGES)


def test_an_unreadable_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:  # injected: root ignores permission bits
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert f"{folder}: cannot be read (Permission denied)" in message_of(folder)


# Downloads


class Bar:
    """Minimal progress bar."""

    total = 0

    def __init__(self) -> None:
        self.shown = self.closed = 0

    def update(self, n: int) -> None:
        self.shown += n

    def reset(self) -> None:
        self.shown = 0

    def close(self) -> None:
        assert self.shown == self.total > 0
        self.closed += 1


def test_files_are_downloaded_once(mirrors: Any, cache: Path, files: dict[str, bytes], capfd: Any) -> None:
    bar = Bar()
    dataset = fashion_mnist.load(progress=bar)
    check_content(dataset, files)
    assert dataset.origin == f"images in the format of Fashion-MNIST from {cache}"
    assert bar.closed == 4
    assert sorted(mirrors.first.requests) == sorted(path.name for path in cache.iterdir()) == sorted(files)
    check_content(fashion_mnist.load(), files)
    assert len(mirrors.first.requests) == 4  # the second time needs no server
    assert mirrors.second.requests == []
    assert capfd.readouterr() == ("", "")


def test_a_mirror_without_the_files_is_skipped(mirrors: Any, files: dict[str, bytes]) -> None:
    mirrors.first.files.clear()
    check_content(fashion_mnist.load(), files)
    assert len(mirrors.first.requests) == 1  # one request, not one per file
    assert len(mirrors.second.requests) == 4


def test_an_offline_mirror_is_skipped(mirrors: Any, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        down = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        monkeypatch.setattr(fashion_mnist, "MIRRORS", (down, mirrors.second.url))
        check_content(fashion_mnist.load(), files)


def test_a_file_with_a_wrong_hash_is_refused(mirrors: Any, cache: Path, files: dict[str, bytes]) -> None:
    mirrors.first.files[TRAIN_IMAGES] = b"a login page"
    check_content(fashion_mnist.load(), files)
    (cache / TRAIN_IMAGES).unlink()
    mirrors.second.files[TRAIN_IMAGES] = b"another"
    assert message_of().count("its hash is not the published one") == 2
    assert not (cache / TRAIN_IMAGES).exists()


def test_a_file_that_no_mirror_has_is_named(mirrors: Any, cache: Path) -> None:
    del mirrors.first.files[TEST_LABELS], mirrors.second.files[TEST_LABELS]
    message = message_of()
    assert TEST_LABELS in message
    assert message.count("HTTP 404") == 2
    assert "`data='synthetic'`" in message
    assert len(list(cache.iterdir())) == 3


def test_a_cut_connection_leaves_no_partial_file(mirrors: Any, cache: Path, files: dict[str, bytes]) -> None:
    mirrors.first.cut = mirrors.second.cut = {TRAIN_IMAGES}
    assert TRAIN_IMAGES in message_of()
    assert list(cache.iterdir()) == []  # not even a part of it
    mirrors.second.cut = set()
    check_content(fashion_mnist.load(), files)


def test_a_silent_mirror_does_not_hang(mirrors: Any, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(downloads.TIMEOUT) <= 30
    monkeypatch.setattr(downloads, "TIMEOUT", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(fashion_mnist, "MIRRORS", (url, url))
        start = time.monotonic()
        assert message_of().count("timed out") == 2
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("content", [b"", b"half"], ids=["empty", "part"])
def test_a_partial_cached_file_is_replaced(mirrors: Any, cache: Path, files: dict[str, bytes], content: bytes) -> None:
    fashion_mnist.load()
    mirrors.first.requests.clear()
    (cache / TRAIN_IMAGES).write_bytes(content)
    (cache / "tmp1234").write_bytes(b"left by a killed download")
    check_content(fashion_mnist.load(), files)
    assert mirrors.first.requests == [TRAIN_IMAGES]


def test_an_unpacked_file_in_the_cache_is_used(mirrors: Any, cache: Path, files: dict[str, bytes]) -> None:
    cache.mkdir(parents=True)
    for name, content in files.items():
        (cache / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    check_content(fashion_mnist.load(), files)
    assert mirrors.first.requests == []
    (cache / TRAIN_IMAGES.removesuffix(".gz")).write_bytes(b"half")
    assert "delete it and run again" in message_of()


def test_a_cache_that_cannot_be_made_is_reported(mirrors: Any, cache: Path) -> None:
    cache.parent.write_bytes(b"a file where a folder should be")
    assert "cannot be used as the cache" in message_of()
    assert mirrors.first.requests == []


def test_a_cached_file_that_cannot_be_read_is_reported(mirrors: Any, cache: Path) -> None:
    (cache / TRAIN_IMAGES).mkdir(parents=True)
    message = message_of()
    assert f"{cache / TRAIN_IMAGES}: cannot be used" in message
    assert mirrors.first.requests == []


def test_mirrors_and_hashes_are_well_formed() -> None:
    source = Path(fashion_mnist.__file__).read_text()  # the constants themselves are replaced in every test
    assert source.count('"https://') == 2
    assert "http://" not in source
    assert all(len(md5) == hashlib.md5().digest_size * 2 for md5 in fashion_mnist.MD5.values())
    assert [name.split("-")[0] for name in fashion_mnist.MD5] == ["train", "train", "t10k", "t10k"]


@pytest.mark.skipif(not REAL_FOLDER, reason="ALEXNET_MF_DATA_DIR does not name a folder with Fashion-MNIST")
def test_the_real_dataset_is_loaded() -> None:
    dataset = fashion_mnist.load(Path(REAL_FOLDER or ""))
    for pair, count in ((dataset.train, 60_000), (dataset.test, 10_000)):
        assert pair.images.shape == (count, 28, 28)
        assert pair.images.dtype == np.uint8
        assert np.bincount(pair.labels).tolist() == [count // 10] * 10
        assert dataset.classes[pair.labels[0]] == "ankle boot"
