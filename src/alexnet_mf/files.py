"""Write files that survive a crash: complete or absent, or growing line by line."""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from alexnet_mf.errors import AlexnetMfError

MOST_PER_WRITE = 2**24
"""Largest number of bytes per write call."""

MOST_JSON = 16_000_000
"""Largest size of JSON, in bytes; as Python objects it takes up to thirty times the memory."""
MOST_DIRECTORY = 2**25
"""Largest size of an archive's directory, in bytes."""
PARTIAL = ".partial"
"""Suffix of a file that is not complete yet; its name begins with a dot."""


def write(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file so that a crash leaves either the old file or the new one complete.

    Args:
        parts: the content, in consecutive parts. Large parts are not copied.

    Raises:
        OSError: as `replacing`.
    """
    if sum(map(len, parts)) <= MOST_PER_WRITE:
        parts = (b"".join(parts),)
    if path.exists() and not path.is_file():  # a pipe or a device has no old content to keep
        path.write_bytes(b"".join(parts))
        return
    with replacing(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
        try:
            for part in parts:
                _write_all(descriptor, part)
        finally:
            os.close(descriptor)


def write_result(path: Path | str, *parts: bytes | memoryview) -> None:
    """Write a file that the user named, as `write` does.

    Raises:
        AlexnetMfError: if it cannot be written.
    """
    try:
        write(Path(path), *parts)
    except OSError as error:
        raise AlexnetMfError(f"{path}: cannot be written ({error.strerror}); name another file") from error


def check_writable(path: Path) -> None:
    """Check, before the work, that its result can be written to a file.

    Raises:
        AlexnetMfError: if the folder is missing, or the file or folder cannot be written to.
    """
    if not path.parent.is_dir():
        raise AlexnetMfError(f"{path}: cannot be written: no folder {path.parent}; create it or name another file")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise AlexnetMfError(f"{path}: cannot be written; name another file")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write a file to. At the end the file is flushed to the disk and replaces `path`.

    Raises:
        OSError: if the disk is full, or anything else fails; the old file stays as it was.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():  # a library may rename a file of its own over a pipe or a device
        with tempfile.TemporaryDirectory(prefix="alexnet_mf-") as folder:
            complete = Path(folder) / target.name
            yield complete
            with complete.open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        _sync(partial, os.O_RDWR)
        os.replace(partial, target)
    except BaseException:
        with contextlib.suppress(OSError):  # the error before this one must reach the caller
            partial.unlink()
        raise
    _sync_folder(target.parent)


def read(path: Path, most: int) -> bytes:
    """Return the content of a file from an unknown source.

    Args:
        most: largest size in bytes.

    Raises:
        OSError: if it cannot be read, is larger, or is a device or a pipe, which may never end.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "not a file", str(path))
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise OSError(errno.EFBIG, f"larger than {most / 1e6:g} MB", str(path))
            return file.read(size)
    except ValueError as error:  # a null byte in the path
        raise OSError(errno.EINVAL, "the path has a null byte", str(path)) from error


def read_text(path: Path, most: int) -> str:
    """Return a text from an unknown source: UTF-8, or UTF-16 with a byte order mark, which PowerShell's `>` writes.

    Raises:
        OSError: as `read`.
        ValueError: if it is in another encoding; names the first byte at fault, not the file.
    """
    content = read(path, most)
    try:
        text = content.decode("utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else
                              "utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"is not UTF-8 text (byte 0x{byte:02x} at position {error.start:,}); save it as UTF-8"
                         ) from error
    if "\0" in text:
        raise ValueError("is not UTF-8 text (null bytes, as in UTF-16 without a byte order mark); save it as UTF-8")
    return text


def parse_json(content: bytes | str, most: int = MOST_JSON, nan: bool = False) -> Any:
    """Parse JSON from an unknown source.

    Args:
        most: largest length in bytes or characters.
        nan: True to accept NaN and infinities, which JSON lacks and Python writes.

    Raises:
        ValueError: if it is not JSON, too large, nested too deeply, or has a NaN that is not accepted.
    """
    if len(content) > most:
        raise ValueError(f"larger than {most / 1e6:g} MB")
    try:
        return json.loads(content, parse_constant=float if nan else _no_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a number in JSON")


def link(path: Path, other: Path) -> None:
    """Make `other` a hard link to `path`, in one step; copy the file if the file system has no links.

    `write` replaces files and never changes them, so a write to one name leaves the other as it is.

    Raises:
        OSError: as `write`.
    """
    partial = other.with_name(f".{other.name}.{os.getpid()}{PARTIAL}")
    try:
        os.link(path, partial)
    except OSError:
        write(other, path.read_bytes())
        return
    os.replace(partial, other)
    with contextlib.suppress(OSError):  # a rename between two names of one file does nothing
        partial.unlink()
    _sync_folder(other.parent)


def put_aside(path: Path) -> Path | None:
    """Rename a damaged file to the first free name of `NAME.damaged`, `NAME.damaged-2` and so on; return the new path.

    Return None if there is no such file.

    Raises:
        OSError: if the file cannot be renamed.
    """
    aside, number = path.with_name(f"{path.name}.damaged"), 2
    while aside.exists():
        aside, number = path.with_name(f"{path.name}.damaged-{number}"), number + 1
    if not path.exists():
        return None
    os.replace(path, aside)
    _sync_folder(path.parent)
    return aside


def remove_partial(folder: Path) -> None:
    """Remove the incomplete files that a crash left. No other process may be writing in this folder.

    Raises:
        OSError: if a file cannot be removed.
    """
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """Open an archive from an unknown source. `zipfile` alone would read a directory of any size into memory.

    Raises:
        ValueError: if the directory is too large.
        zipfile.BadZipFile: if it is not an archive.
    """
    archive: zipfile.ZipFile = zipfile.ZipFile(_BoundedFile(file))  # type: ignore[call-overload]
    archive.fp = file  # the members may be larger
    return archive


class _BoundedFile:
    """File that returns at most `MOST_DIRECTORY` bytes in one read."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(MOST_DIRECTORY + 1 if size < 0 else min(size, MOST_DIRECTORY + 1))
        if len(content) > MOST_DIRECTORY:
            raise ValueError("the archive's directory is too large")
        return content


class GrowingFile:
    """A file that grows by one line per write, with its size and checksum."""

    def __init__(self, path: Path, keep: int = 0):
        """Open the file and truncate it to its first `keep` bytes.

        Raises:
            OSError: if it cannot be opened or read.
        """
        self.path = path
        self.size = keep
        self._hash = hashlib.sha256(start(path, keep) if keep else b"")
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        os.ftruncate(self._descriptor, keep)

    def write(self, line: bytes) -> None:
        """Pass a line to the operating system: others can read it, and it outlives this process.

        Raises:
            OSError: if the disk is full, or anything else fails.
        """
        _write_all(self._descriptor, line)
        self.size += len(line)
        self._hash.update(line)

    def checksum(self) -> str:
        """Return the SHA-256 of the file."""
        return self._hash.hexdigest()

    def sync(self) -> None:
        """Flush the file to the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file; the lines that were written stay."""
        os.close(self._descriptor)


def start(path: Path, size: int) -> bytes:
    """Return the first `size` bytes of a file, or all of a shorter file.

    Raises:
        OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        return file.read(size)


def _write_all(descriptor: int, content: bytes | memoryview) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest[:MOST_PER_WRITE]):]


def _sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, and with it the renames in it."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
