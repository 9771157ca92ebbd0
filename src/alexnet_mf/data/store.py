"""Prepared pictures on disk: decoded once, in one file of levels that is mapped into memory.

A store belongs to a set of files and a preprocessing: its folder is named by a digest of both. `levels` has the
prepared pictures one after the other, `digests` 16 bytes for each that is done: the beginning of its file's SHA-256.
`names.npz` has their names. A preparation that was interrupted continues with the pictures that have none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import mmap
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.data.downloads import cache_folder
from alexnet_mf.data.pictures import Names, Pictures, decode
from alexnet_mf.data.preprocessing import flat, prepare
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

FORMAT = 1
LEVELS, DIGESTS, NAMES, RECORD = "levels", "digests", "names.npz", "store.json"
DIGEST = 16
"""Bytes of a picture's digest."""
BLOCK_BYTES = 2**21
"""Approximate size of the prepared pictures that a thread returns at a time."""
MOST_IN_BLOCK = 256
SMALL = 2**14
"""Size of encoded pictures, in bytes, below which one thread is as fast as many: Python's lock takes their time."""
SYNC_SECONDS = 0.5
"""Shortest time between two records of what is done. They wait for the disk, beside the preparation."""
SPARE = 2**26
"""Bytes that the disk keeps free beside a store."""

LONGEST_WAIT = 86_400.0
"""Seconds to wait for another process that prepares the same pictures."""
LARGE = 10**8
"""Size of prepared pictures, in bytes, that is announced before the preparation."""

Report: TypeAlias = Callable[[int, int], None]
"""Receives the number of pictures done and of all."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Pictures that have all been decoded once."""

    images: Any
    """`data.Images`: levels, uint8 (n, height, width) or (n, height, width, 3)."""
    digests: NDArray[np.uint8]
    """(n, 16): what identifies each picture's file."""
    damaged: dict[int, str]
    """Reason for each picture that could not be decoded; its levels are 0."""
    path: Path
    """Folder of the store."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Pictures that are decoded whenever they are used."""

    is_decoded_when_used = True
    pictures: Pictures
    preprocessing: Preprocessing
    shape: tuple[int, ...]

    @property
    def dtype(self) -> Any:
        """Type of the levels."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def picture(self, row: int) -> Image:
        """Return a picture at its full size, gray or in color as the network takes it.

        Raises:
            DataError: if it cannot be decoded any more; names it.
        """
        try:
            return flat(self.pictures.image(row), self.preprocessing)
        except DataError as error:
            raise DataError(f"{self.pictures.name(row)}: {error}; restore it") from error

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        if isinstance(rows, (int, np.integer)):
            number = int(rows)
            try:
                return prepare(self.pictures.image(number), self.preprocessing.stored)
            except DataError as error:
                raise DataError(f"{self.pictures.name(number)}: {error}; has it changed since it was checked? Restore "
                                "it, or keep prepared pictures in a store") from error
        numbers = range(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows).tolist()
        levels = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for place, number in zip(levels, numbers):
            place[:] = self[number]
        return levels


def stored_shape(preprocessing: Preprocessing) -> tuple[int, ...]:
    """Return the shape of a stored picture: (height, width) or (height, width, 3)."""
    size = preprocessing.stored.size
    assert size
    return (*size, 3) if preprocessing.channels == 3 else size


def open_store(pictures: Pictures, preprocessing: Preprocessing, folder: Path | None = None, keep: bool = True,
               report: Report = lambda done, total: None,
               notice: Callable[[str], None] = lambda line: None) -> Prepared:
    """Return the prepared pictures. What is not in the store yet is prepared, by all cores.

    Args:
        folder: folder of all stores; without it one in the user's cache.
        keep: False decodes every picture once, to check it and to know its digest, but keeps no levels; they are
            decoded again when they are used.
        report: is called during the preparation.
        notice: receives the size of a large store before the preparation.

    Raises:
        DataError: if the disk has no room, or another process prepares the same pictures; what is done stays.
    """
    shape = (len(pictures), *stored_shape(preprocessing))
    key = hashlib.sha256(json.dumps([FORMAT, keep, preprocessing.as_dict()]).encode() + pictures.identity())
    path = (folder or cache_folder("prepared")) / key.hexdigest()[:32]
    try:
        path.mkdir(parents=True, exist_ok=True)
        damaged = _fill(path, pictures, preprocessing, shape, keep, report, notice)
        digests = np.frombuffer((path / DIGESTS).read_bytes(), np.uint8, len(pictures) * DIGEST).reshape(-1, DIGEST)
        levels: Any = _mapped(path / LEVELS, shape) if keep else Decoded(pictures, preprocessing, shape)
    except Timeout as error:
        raise DataError(f"{path}: another process prepares these pictures and does not finish; stop it") from error
    except OSError as error:
        room = "what is done stays: make room, or " if error.errno == errno.ENOSPC else ""
        raise DataError(f"{path}: cannot be used as the store of prepared pictures ({error.strerror or error}); {room}"
                        "name another folder with `store`") from error
    return Prepared(levels, digests, damaged, path)


def changes(before: Path, after: Path) -> list[str]:
    """Return a line for each picture that one of two stores lacks, or has with another content: sorted by name. No line
    if the earlier store is gone."""
    try:
        old, new = ({name: bytes(digest) for name, digest in zip(_names(path), np.frombuffer(
            (path / DIGESTS).read_bytes(), np.uint8).reshape(-1, DIGEST))} for path in (before, after))
    except (OSError, ValueError, KeyError):
        return []
    lines = [(name, "is missing") for name in old.keys() - new.keys()]
    lines += [(name, "is new") for name in new.keys() - old.keys()]
    lines += [(name, "is another picture") for name in old.keys() & new.keys() if old[name] != new[name]]
    return [f"{name} {change}" for name, change in sorted(lines)]


def _names(path: Path) -> Names:
    with np.load(path / NAMES, allow_pickle=False) as stored:
        names = Names()
        names.content, names.ends = stored["content"].tobytes(), stored["ends"]
    return names


def _mapped(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(content, np.uint8, int(np.prod(shape, dtype=np.int64))).reshape(shape)


def _fill(path: Path, pictures: Pictures, preprocessing: Preprocessing, shape: tuple[int, ...], keep: bool,
          report: Report, notice: Callable[[str], None]) -> dict[int, str]:
    """Prepare the pictures that the store lacks. Return the reason for each that cannot be decoded."""
    size = int(np.prod(shape[1:], dtype=np.int64))
    if not len(_missing(path, shape, keep)):
        return {}
    lock = FileLock(path / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notice(f"{path}: another process prepares these pictures; waiting for it")
        lock.acquire(timeout=LONGEST_WAIT)
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        missing = _missing(path, shape, keep)
        if not len(missing):  # the other process has finished
            return {}
        if keep:
            _check_room(path, len(missing) * size)
            if len(missing) * size >= LARGE:
                notice(f"preparing {len(missing):,} pictures of {'x'.join(map(str, shape[1:]))}: "
                       f"{len(missing) * size / 1e9:.1f} GB in {path}")
        names = pictures.names if isinstance(pictures.names, Names) else Names(pictures.names)
        content = io.BytesIO()
        np.savez(content, content=np.frombuffer(names.content, np.uint8), ends=names.ends)
        files.write(path / NAMES, content.getbuffer())
        files.write(path / RECORD, json.dumps({"format": FORMAT, "pictures": shape[0], "shape": shape[1:],
                                               "preprocessing": preprocessing.as_dict()}).encode())
        with _opened(path / DIGESTS, shape[0] * DIGEST) as digests:
            # Digests of levels that were cut off: once that file is extended, its size no longer tells.
            _write_rows(digests, missing, np.zeros((len(missing), DIGEST), np.uint8))
            os.fsync(digests.fileno())
        with _opened(path / LEVELS, shape[0] * size if keep else 0) as levels, \
                _opened(path / DIGESTS, shape[0] * DIGEST) as digests:
            return _prepare(pictures, preprocessing, shape[1:], missing, levels if keep else None, digests, report)


def _missing(path: Path, shape: tuple[int, ...], keep: bool) -> NDArray[np.int64]:
    """Return the numbers of the pictures that are not prepared."""
    if not (path / DIGESTS).exists():
        return np.arange(shape[0])
    digests = np.frombuffer((path / DIGESTS).read_bytes()[:shape[0] * DIGEST], np.uint8)
    done = np.zeros(shape[0], bool)
    whole = digests[:len(digests) // DIGEST * DIGEST].reshape(-1, DIGEST)
    done[:len(whole)] = whole.any(axis=1)
    if keep:  # a file that was cut
        size = int(np.prod(shape[1:], dtype=np.int64))
        done[(path / LEVELS).stat().st_size // size if (path / LEVELS).exists() else 0:] = False
    return np.flatnonzero(~done)


def _check_room(path: Path, wanted: int) -> None:
    free = shutil.disk_usage(path).free - SPARE
    if wanted > free:
        raise DataError(f"{path}: the prepared pictures take {wanted / 1e6:,.0f} MB, and {max(0, free) / 1e6:,.0f} MB "
                        "are free; name another folder with `store`, or decode the pictures in each epoch with "
                        "`store=False`")


@contextlib.contextmanager
def _opened(path: Path, size: int) -> Iterator[BinaryIO]:
    """Open a file of this size for changes; bytes that it lacks are 0."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b", buffering=0) as file:
        file.truncate(size)
        yield file  # type: ignore[misc]  # a BinaryIO in all but name


def _prepare(pictures: Pictures, preprocessing: Preprocessing, shape: tuple[int, ...], missing: NDArray[np.int64],
             levels: BinaryIO | None, digests: BinaryIO, report: Report) -> dict[int, str]:
    """Write the levels and digests of these pictures."""
    size = int(np.prod(shape, dtype=np.int64))
    in_block = max(1, min(MOST_IN_BLOCK, BLOCK_BYTES // size))
    blocks = deque(missing[start:start + in_block] for start in range(0, len(missing), in_block))
    sizes = pictures.stamps[missing, 0]
    threads = thread_count(sizes)
    damaged: dict[int, str] = {}
    written: list[tuple[NDArray[np.int64], NDArray[np.uint8]]] = []
    done, last_sync = 0, time.monotonic()

    def record(written: list[tuple[NDArray[np.int64], NDArray[np.uint8]]]) -> None:
        """Record what is done, once it is on the disk."""
        if levels:
            os.fsync(levels.fileno())
        for numbers, values in written:
            _write_rows(digests, numbers, values)
        os.fsync(digests.fileno())

    # One more than there are cores: a thread waits for Python's lock or the disk now and then.
    with ThreadPoolExecutor(threads + (threads > 1), "prepare") as pool, ThreadPoolExecutor(1, "record") as recorder:
        recording: Future[None] | None = None
        working: deque[tuple[NDArray[np.int64], Future[Any]]] = deque()
        try:
            while blocks or working:
                while blocks and len(working) < 2 * threads:
                    numbers = blocks.popleft()
                    working.append((numbers, pool.submit(_block, pictures, numbers, preprocessing, shape)))
                numbers, future = working.popleft()
                block, values, faults = future.result()
                if levels:
                    _write_rows(levels, numbers, block.reshape(len(numbers), size))
                written.append((numbers, values))
                damaged |= faults
                done += len(numbers)
                if time.monotonic() - last_sync > SYNC_SECONDS and (recording is None or recording.done()):
                    if recording:
                        recording.result()
                    recording, written, last_sync = recorder.submit(record, written), [], time.monotonic()
                report(done, len(missing))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            if recording:
                recording.result()
            record(written)
    return damaged


def _block(pictures: Pictures, numbers: NDArray[np.int64], preprocessing: Preprocessing,
           shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], dict[int, str]]:
    """Return some prepared pictures, their digests, and the reason for each that cannot be decoded."""
    levels, digests = np.empty((len(numbers), *shape), np.uint8), np.zeros((len(numbers), DIGEST), np.uint8)
    damaged, stored = {}, preprocessing.stored
    for place, digest, number in zip(levels, digests, numbers.tolist()):
        try:
            content = pictures.read(number)
            place[:] = prepare(decode(content), stored)
            digest[:] = np.frombuffer(hashlib.sha256(content).digest()[:DIGEST], np.uint8)
        except DataError as error:
            damaged[number] = str(error)
            place[:] = 0
    return levels, digests, damaged


def _write_rows(file: BinaryIO, numbers: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
    """Write rows of equal size to their places; neighbors in one call."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    for part in np.split(np.arange(len(numbers)), breaks):
        file.seek(int(numbers[part[0]]) * rows.shape[1])
        content = memoryview(rows[part].reshape(-1).data)
        while content:
            content = content[file.write(content):]


def thread_count(sizes: NDArray[np.int64]) -> int:
    """Return the number of threads that decode pictures of these sizes, in bytes, fastest."""
    return 1 if len(sizes) and sizes.mean() < SMALL else _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
