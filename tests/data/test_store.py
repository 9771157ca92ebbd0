"""Prepared pictures on disk: interruptions, damage, full disks, and two preparations at once."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from alexnet_mf.data import store
from alexnet_mf.data.pictures import Names, PictureFiles
from alexnet_mf.data.preprocessing import prepare
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Preprocessing

COLOR = Preprocessing("rgb", resize=12, patch=(12, 12), crop=(10, 10))
GRAY = Preprocessing("gray", resize=10, crop=(10, 10))
SIZE = 12 * 12 * 3
COUNT = 30


class Interrupted(BaseException):
    """End that no `except Exception` catches."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with `COUNT` pictures of noise."""
    (tmp_path / "pictures").mkdir()
    for number in range(COUNT):
        levels = np.random.default_rng(number).integers(0, 256, (15, 20, 3)).astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / "pictures" / f"{number:02}.png")
    return tmp_path / "pictures"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare four pictures at a time, and record what is done after each block."""
    monkeypatch.setattr(store, "BLOCK_BYTES", 4 * SIZE)
    monkeypatch.setattr(store, "SYNC_SECONDS", 0.0)


def listed(folder: Path) -> PictureFiles:
    paths = sorted(folder.iterdir())
    stamps = np.array([(path.stat().st_size, path.stat().st_mtime_ns) for path in paths])
    return PictureFiles(folder, Names(path.name for path in paths), stamps)


def open_store(folder: Path, preprocessing: Preprocessing = COLOR, **options: Any) -> store.Prepared:
    return store.open_store(listed(folder), preprocessing, folder.parent / "stores", **options)


def expected(folder: Path, preprocessing: Preprocessing = COLOR) -> np.ndarray:
    pictures = listed(folder)
    return np.stack([prepare(pictures.image(number), preprocessing.stored) for number in range(len(pictures))])


def path_of(folder: Path) -> Path:
    (path,) = (folder.parent / "stores").iterdir()
    return path


def interrupt(after: int, error: type[BaseException] = Interrupted) -> Callable[[int, int], None]:
    """Return a report that ends the preparation once so many pictures are done."""
    def report(done: int, total: int) -> None:
        if done >= after:
            raise error
    return report


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of each picture that is decoded."""
    numbers: list[int] = []
    real = PictureFiles.read

    def read(self: PictureFiles, number: int) -> bytes:
        numbers.append(number)
        return real(self, number)

    monkeypatch.setattr(PictureFiles, "read", read)
    return numbers


# Content


@pytest.mark.parametrize("preprocessing", [COLOR, GRAY], ids=["color", "gray"])
@pytest.mark.parametrize("cores", [1, 3])
def test_pictures_are_prepared_once(folder: Path, monkeypatch: pytest.MonkeyPatch, preprocessing: Preprocessing,
                                    cores: int) -> None:
    monkeypatch.setattr(store, "_cores", lambda: cores)
    monkeypatch.setattr(store, "SMALL", 0)
    reports: list[tuple[int, int]] = []
    prepared = open_store(folder, preprocessing, report=lambda *numbers: reports.append(numbers))
    assert prepared.images.dtype == np.uint8 and prepared.damaged == {}
    np.testing.assert_array_equal(prepared.images, expected(folder, preprocessing))
    assert [bytes(digest) for digest in prepared.digests] == [hashlib.sha256(path.read_bytes()).digest()[:16]
                                                              for path in sorted(folder.iterdir())]
    assert reports[-1] == (COUNT, COUNT) and [done for done, _ in reports] == sorted({done for done, _ in reports})
    numbers = count_decoded(monkeypatch)
    again = open_store(folder, preprocessing, report=lambda *numbers: pytest.fail("prepared again"))
    np.testing.assert_array_equal(again.images, prepared.images)
    np.testing.assert_array_equal(again.digests, prepared.digests)
    assert numbers == []


def test_the_folder_says_what_it_holds(folder: Path) -> None:
    open_store(folder)
    path = path_of(folder)
    assert {file.name for file in path.iterdir()} - {"lock"} == {"levels", "digests", "names.npz", "store.json"}
    assert json.loads((path / "store.json").read_bytes()) == {
        "format": 1, "pictures": COUNT, "shape": [12, 12, 3], "preprocessing": COLOR.as_dict()}
    assert ((path / "levels").stat().st_size, (path / "digests").stat().st_size) == (COUNT * SIZE, COUNT * 16)


def test_levels_are_mapped_and_not_copied(folder: Path) -> None:
    import mmap

    prepared = open_store(folder)
    base = prepared.images
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
    assert not prepared.images.flags.writeable
    with (path_of(folder) / "levels").open("r+b") as file:  # shared: a private copy would not change
        file.write(bytes([prepared.images.flat[0] ^ 0xFF]))
    assert prepared.images.flat[0] == expected(folder).flat[0] ^ 0xFF


def test_without_a_store_pictures_are_decoded_when_they_are_used(folder: Path) -> None:
    stored, decoded = open_store(folder), open_store(folder, keep=False)
    np.testing.assert_array_equal(decoded.digests, stored.digests)
    images = decoded.images
    assert images.shape == stored.images.shape and images.dtype == stored.images.dtype and len(images) == COUNT
    rows: Any
    for rows in (np.array([7, 3, 3]), np.zeros(0, np.int64), slice(2, 9, 3), slice(None), 5, np.int64(4), -1):
        np.testing.assert_array_equal(images[rows], stored.images[rows])
    assert sum(file.stat().st_size for path in (folder.parent / "stores").iterdir()
               for file in path.glob("levels")) == COUNT * SIZE  # of the first one alone
    (folder / "03.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"/03\.png: is no JPEG.*; has it changed since it was checked\?"):
        images[np.array([2, 3])]


def test_damaged_pictures_have_their_reasons_each_time(folder: Path) -> None:
    (folder / "03.png").write_bytes(b"text")
    (folder / "20.png").write_bytes((folder / "20.png").read_bytes()[:300])
    for keep in (True, False, True):
        prepared = open_store(folder, keep=keep)
        assert set(prepared.damaged) == {3, 20} and prepared.damaged[3].startswith("is no JPEG")
        rows = np.setdiff1d(np.arange(COUNT), [3, 20])
        assert prepared.digests.any(axis=1).nonzero()[0].tolist() == rows.tolist()
        assert len(prepared.images[rows]) == COUNT - 2
    Image.new("RGB", (20, 20), (9, 9, 9)).save(folder / "03.png")
    assert set(open_store(folder).damaged) == {20}


# Changes


def key_of(folder: Path, **options: Any) -> str:
    stores = folder.parent / "stores"
    before = set(stores.iterdir()) if stores.exists() else set()
    open_store(folder, **options)
    new = set(stores.iterdir()) - before
    return new.pop().name if new else "same"


def test_another_set_of_files_has_another_store(folder: Path) -> None:
    assert key_of(folder) != "same" and key_of(folder) == "same"
    assert key_of(folder, preprocessing=GRAY) != "same" and key_of(folder, keep=False) != "same"
    facts = (folder / "05.png").stat()
    shutil.copy(folder / "06.png", folder / "05.png")
    os.utime(folder / "05.png", ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert key_of(folder) != "same"
    np.testing.assert_array_equal(open_store(folder).images, expected(folder))
    shutil.copy(folder / "06.png", folder / "99.png")
    assert key_of(folder) != "same"
    (folder / "00.png").unlink()
    assert key_of(folder) != "same"
    (folder / "99.png").rename(folder / "98.png")
    assert key_of(folder) != "same"
    np.testing.assert_array_equal(open_store(folder).images, expected(folder))


def test_another_folder_with_the_same_names_sizes_and_times_has_another_store(tmp_path: Path) -> None:
    """Archives may give all files one time, and pictures of one size have one length in some formats."""
    for name, level in (("train", 10), ("test", 200)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (12, 12), (level, level, level)).save(tmp_path / name / "1.bmp")
        os.utime(tmp_path / name / "1.bmp", ns=(0, 10**18))
    assert open_store(tmp_path / "train").images.max() == 10
    assert open_store(tmp_path / "test").images.min() == 200


# Interruptions


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("cores", [1, 3])
def test_an_interrupted_preparation_continues(folder: Path, monkeypatch: pytest.MonkeyPatch,
                                              error: type[BaseException], cores: int) -> None:
    monkeypatch.setattr(store, "_cores", lambda: cores)
    monkeypatch.setattr(store, "SMALL", 0)
    with pytest.raises(error):
        open_store(folder, report=interrupt(after=12, error=error))
    numbers = count_decoded(monkeypatch)
    prepared = open_store(folder)
    assert sorted(numbers) == list(range(12, COUNT))
    np.testing.assert_array_equal(prepared.images, expected(folder))
    levels, digests = ((path_of(folder) / name).read_bytes() for name in ("levels", "digests"))
    shutil.rmtree(folder.parent / "stores")
    open_store(folder)
    assert levels == (path_of(folder) / "levels").read_bytes()
    assert digests == (path_of(folder) / "digests").read_bytes()


@pytest.mark.parametrize("cut", [("levels", 10 * SIZE + 5), ("digests", 10 * 16 + 3), ("levels", 0), ("digests", 0)])
def test_a_store_that_was_cut_is_prepared_again(folder: Path, cut: tuple[str, int]) -> None:
    open_store(folder)
    name, size = cut
    os.truncate(path_of(folder) / name, size)
    with pytest.raises(Interrupted):  # the files have their sizes again, but not their content
        open_store(folder, report=interrupt(after=4))
    for _ in range(2):
        prepared = open_store(folder)
        np.testing.assert_array_equal(prepared.images, expected(folder))
        assert prepared.digests.any(axis=1).all()


@pytest.mark.parametrize("name", ["levels", "digests"])
def test_a_store_that_lost_a_file_or_grew_is_repaired(folder: Path, name: str) -> None:
    open_store(folder)
    (path_of(folder) / name).unlink()
    np.testing.assert_array_equal(open_store(folder).images, expected(folder))
    with (path_of(folder) / name).open("ab") as file:
        file.write(b"surplus")
    prepared = open_store(folder)
    np.testing.assert_array_equal(prepared.images, expected(folder))
    assert prepared.digests.shape == (COUNT, 16)


# Disks


def fault_of(folder: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        open_store(folder, **options)
    message = str(caught.value)
    assert message.startswith(str(folder.parent)) and message.isprintable() and ";" in message
    return message


def test_what_is_done_stays_when_the_disk_fills(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = store._write_rows, [0]

    def write(file: Any, numbers: Any, rows: np.ndarray) -> None:
        if rows.shape[1] == SIZE:
            calls[0] += 1
            if calls[0] == 4:
                file.seek(int(numbers[0]) * SIZE)
                file.write(rows.tobytes()[:100])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, numbers, rows)

    monkeypatch.setattr(store, "_write_rows", write)
    message = fault_of(folder)
    assert "cannot be used as the store of prepared pictures (No space left on device)" in message
    assert "what is done stays: make room, or name another folder with `store`" in message
    monkeypatch.setattr(store, "_write_rows", real)
    wanted, numbers = expected(folder), count_decoded(monkeypatch)
    np.testing.assert_array_equal(open_store(folder).images, wanted)
    assert sorted(numbers) == list(range(12, COUNT))


def test_a_write_may_be_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short:
        def __init__(self, file: Any) -> None:
            self.file = file

        def seek(self, place: int) -> None:
            self.file.seek(place)

        def write(self, content: Any) -> int:
            return int(self.file.write(content[:max(1, len(content) // 3)]))

    real = store._write_rows
    monkeypatch.setattr(store, "_write_rows", lambda file, *rest: real(Short(file), *rest))  # type: ignore[arg-type]
    np.testing.assert_array_equal(open_store(folder).images, expected(folder))


def test_too_little_room_is_noticed_before_the_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    wanted = COUNT * SIZE + store.SPARE
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, wanted - 1))
    message = fault_of(folder, report=lambda *numbers: pytest.fail("prepared"))
    assert " MB are free; name another folder with `store`, or decode the pictures in each epoch" in message
    open_store(folder, keep=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, wanted))
    open_store(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 0))
    open_store(folder)  # is complete


def test_a_store_must_be_a_folder(folder: Path) -> None:
    (folder.parent / "stores").write_text("file")
    assert "cannot be used as the store of prepared pictures (" in fault_of(folder)


# Two at once


def test_a_second_preparation_of_the_same_pictures_waits_for_the_first(
        folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, release = threading.Event(), threading.Event()
    results: list[store.Prepared] = []

    def report(done: int, total: int) -> None:
        waiting.set()
        assert release.wait(10)

    def notice(line: str) -> None:
        assert "another process prepares these pictures; waiting for it" in line
        release.set()

    first = threading.Thread(target=lambda: results.append(open_store(folder, report=report)))
    first.start()
    try:
        assert waiting.wait(10)
        open_store(folder, GRAY)  # other pictures are free
        with monkeypatch.context() as patched:
            patched.setattr(store, "LONGEST_WAIT", 0.01)
            assert "does not finish; stop it" in fault_of(folder)
        second = open_store(folder, report=lambda done, total: pytest.fail("prepared twice"), notice=notice)
    finally:
        release.set()
        first.join()
    for prepared in (results[0], second):
        np.testing.assert_array_equal(prepared.images, expected(folder))
    with FileLock(max((folder.parent / "stores").glob("*"), key=lambda path: (path / "levels").stat().st_size) / "lock",
                  timeout=0):
        open_store(folder)  # a complete store can be read at any time


@pytest.mark.skipif(os.name != "posix", reason="this system has no such signal")
def test_a_process_that_was_killed_leaves_its_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = folder.parent / "child.py"
    child.write_text(f"""
import os, signal, sys, time
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
from pathlib import Path
from test_store import COLOR, SIZE, listed, store
def report(done, total):
    time.sleep(0.05)
    if done >= 12:
        os.kill(os.getpid(), signal.SIGKILL)
store.BLOCK_BYTES, store.SYNC_SECONDS = 4 * SIZE, 0.0
folder = Path({str(folder)!r})
store.open_store(listed(folder), COLOR, folder.parent / "stores", report=report)
""")
    process = subprocess.run([sys.executable, str(child)], capture_output=True, text=True)
    assert process.returncode < 0, process.stderr
    wanted, numbers = expected(folder), count_decoded(monkeypatch)
    prepared = open_store(folder)
    assert 0 not in numbers and {*range(12, COUNT)} <= {*numbers}, "the last block may not be recorded"
    np.testing.assert_array_equal(prepared.images, wanted)
    assert len(list((folder.parent / "stores").iterdir())) == 1
