"""Files of datasets and weights: in a folder that the user names, or downloaded into a cache and checked by a hash."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import platformdirs

from alexnet_mf.errors import DataError

ENVIRONMENT_VARIABLE = "ALEXNET_MF_DATA_DIR"
TIMEOUT = (10, 30)
"""Seconds to wait for a connection, and for each further chunk of the file."""

_CHUNK = 1 << 16  # bytes; each chunk of pooch's default, 1 kB, costs a flush and a progress update


class Progress(Protocol):
    """Progress bar of a download: tqdm's, or one like it. It counts the bytes of one file."""

    total: Any

    def update(self, n: int) -> Any: ...

    def reset(self) -> Any: ...

    def close(self) -> Any: ...


def cache_folder(name: str) -> Path:
    """Return the folder of one dataset's or all pretrained weights' downloads for the current user."""
    return Path(platformdirs.user_cache_dir("alexnet_mf")) / name


def named_folder(data_dir: Path | None = None) -> Path | None:
    """Return the folder that the user names, by argument or by ALEXNET_MF_DATA_DIR; None without both."""
    if data_dir is not None:
        return Path(data_dir)
    value = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(value) if value else None


def find(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the path of each file in a folder that the user named. Each may be gzipped (`.gz`) or unpacked.

    Raises:
        DataError: if there is no such folder, or it lacks a file.
    """
    remedy = f"point `data_dir` or {ENVIRONMENT_VARIABLE} at a folder with {', '.join(names)} (or these unpacked)"
    try:
        if not folder.is_dir():
            raise DataError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; {remedy}")
        paths = {name: path for name in names if (path := _existing(folder, name))}
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error}); {remedy}") from error
    if missing := [name for name in names if name not in paths]:
        lacking = f"all {len(names)} files" if not paths else ", ".join(missing)
        raise DataError(f"{folder}: lacks {lacking}; {remedy}")
    return paths


def fetch(folder: Path, title: str, hashes: Mapping[str, str | None], mirrors: Sequence[str], remedy: str,
          progress: Progress | None = None) -> dict[str, Path]:
    """Return the path of each file in the cache. Download those that are missing or fail their hash.

    Args:
        title: name of the dataset or the weights, for messages.
        hashes: the published hash of each file, or its beginning: `md5:...`; None if none is published.
        mirrors: URLs of folders that hold the files, in the order of preference.
        remedy: advice if no mirror delivers a file; ends the error's message.
        progress: shown during downloads; pooch closes it after each file.

    Raises:
        DataError: if no mirror delivers a file, or the cache cannot be used.
    """
    remaining, paths = list(mirrors), {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, checksum in hashes.items():
            path = _existing(folder, name)
            if path is None or path.name == name:  # an unpacked file has no published hash: it is parsed strictly
                path = _fetch_file(folder, title, name, checksum, remaining, remedy, progress)
            paths[name] = path
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be used as the cache ({error.strerror or error}); "
                        f"{remedy}") from error
    return paths


def _existing(folder: Path, name: str) -> Path | None:
    """Return the path of the file, else of its unpacked form, else None."""
    return next((path for path in (folder / name, folder / name.removesuffix(".gz")) if path.is_file()), None)


def has_hash(path: Path, checksum: str) -> bool:
    """Return True if the file's hash begins with the published one, `md5:...`, `sha1:...` or `sha256:...`."""
    import pooch

    algorithm, _, digits = checksum.partition(":")
    return bool(pooch.file_hash(str(path), alg=algorithm).startswith(digits))


def _fetch_file(folder: Path, title: str, name: str, checksum: str | None, mirrors: list[str], remedy: str,
                progress: Progress | None) -> Path:
    """Return one file from the cache, or from the first mirror that delivers it; that mirror moves to the front.

    pooch downloads to a temporary file beside the target and renames it when it is complete. A damaged one is replaced.
    """
    import pooch  # not needed if the user names a folder

    # `identity`: the bytes as published, which hash and progress count, and not unpacked on the way.
    downloader = pooch.HTTPDownloader(progressbar=progress, chunk_size=_CHUNK, timeout=TIMEOUT,
                                      headers={"Accept-Encoding": "identity"})
    if (folder / name).exists():
        (folder / name).open("rb").close()  # an unreadable file is not the mirrors' fault
        if checksum and not has_hash(folder / name, checksum):
            (folder / name).unlink()
    failures = []
    for mirror in tuple(mirrors):
        try:
            with _quiet(pooch.get_logger()):
                path = Path(pooch.retrieve(mirror + name, None, fname=name, path=folder, downloader=downloader))
            if checksum and not has_hash(path, checksum):
                path.unlink()
                raise ValueError("another hash")
        except (OSError, ValueError) as error:  # requests raises OSErrors
            failures.append(f"{urlsplit(mirror).netloc}: {_summary(error)}")
        else:
            mirrors.remove(mirror)
            mirrors.insert(0, mirror)  # so that the next file does not wait for a dead mirror
            return path
    raise DataError(f"{name}: no mirror of {title} delivers it ({'; '.join(failures)}); {remedy}")


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Silence pooch's messages about each download: only the command line prints."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _summary(error: BaseException) -> str:
    """Return the cause of a failed download in a few words: the HTTP status, or the innermost error."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP {status}"
    if not isinstance(error, OSError):
        return "its hash is not the published one"
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return " ".join(text.split())[:100] or type(error).__name__
