"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): found in a folder, or downloaded and verified."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import platformdirs

from alexnet_mf.data import idx
from alexnet_mf.data.images import FASHION_CLASSES, Dataset
from alexnet_mf.errors import DataError

ENVIRONMENT_VARIABLE = "ALEXNET_MF_DATA_DIR"

MD5 = {  # as published in the README of github.com/zalandoresearch/fashion-mnist
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}

MIRRORS = (  # folders that hold the four files, tried in this order
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)

TIMEOUT = (10, 30)
"""Seconds to wait for a connection, and then for each next piece of the file."""

_CHUNK = 1 << 16  # bytes; pooch's own kilobyte costs a flush and a progress update each


class Progress(Protocol):
    """What is shown while a file downloads: a tqdm bar, or anything like it. Numbers are bytes of that file."""

    total: Any

    def update(self, n: int) -> Any: ...

    def reset(self) -> Any: ...

    def close(self) -> Any: ...


def cache_folder() -> Path:
    """Where downloads are kept for the current user."""
    return Path(platformdirs.user_cache_dir("alexnet_mf")) / "fashion-mnist"


def explicit_folder(data_dir: Path | None = None) -> Path | None:
    """The folder that the user named, by argument or else by ALEXNET_MF_DATA_DIR; None where neither is given."""
    if data_dir is not None:
        return Path(data_dir)
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(named) if named else None


def load(data_dir: Path | None = None, progress: Progress | None = None) -> Dataset:
    """Fashion-MNIST: 60,000 training and 10,000 test images.

    A folder named by `data_dir`, or by ALEXNET_MF_DATA_DIR, is final: it must hold the four files, packed or not, of
    any number of images, and nothing is downloaded. Otherwise the user's cache folder is used, and what is missing or
    damaged there is downloaded into it.

    Args:
        progress: shown during downloads; passed on to pooch.HTTPDownloader, which closes it after each file.

    Raises:
        DataError: where files are missing, damaged or cannot be downloaded; names them and the remedy.
    """
    folder = explicit_folder(data_dir)
    if folder is not None:
        return _read(_find(folder), folder, idx.REMEDY)
    folder = cache_folder()
    return _read(_fetch(folder, progress), folder, "delete it and run again, or use `data='synthetic'`")


def _read(paths: dict[str, Path], folder: Path, remedy: str) -> Dataset:
    train_images, train_labels, test_images, test_labels = (paths[name] for name in MD5)
    train = idx.read_pair(train_images, train_labels, remedy)
    test = idx.read_pair(test_images, test_labels, remedy)
    return Dataset("fashion-mnist", train, test, FASHION_CLASSES, f"Fashion-MNIST from {folder}")


def _present(folder: Path, name: str) -> Path | None:
    """The packed file of that name, else the unpacked one, else None."""
    for path in (folder / name, folder / name.removesuffix(".gz")):
        if path.is_file():
            return path
    return None


def _find(folder: Path) -> dict[str, Path]:
    """The four files in a folder that the user named."""
    names = ", ".join(MD5)
    remedy = f"point `data_dir` or {ENVIRONMENT_VARIABLE} at a folder with {names} (or these unpacked)"
    try:
        if not folder.is_dir():
            raise DataError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; {remedy}")
        found = {name: _present(folder, name) for name in MD5}
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error}); {remedy}") from error
    missing = [name for name, path in found.items() if path is None]
    if missing:
        lacking = "all four files" if len(missing) == len(MD5) else ", ".join(missing)
        raise DataError(f"{folder}: lacks {lacking}; {remedy}")
    return {name: path for name, path in found.items() if path is not None}


def _fetch(folder: Path, progress: Progress | None) -> dict[str, Path]:
    """The four files in the cache, after downloading what is not there or fails its hash."""
    mirrors = list(MIRRORS)
    paths = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, md5 in MD5.items():
            present = _present(folder, name)
            # An unpacked file has no published hash: it is parsed strictly instead.
            unpacked = present is not None and present.name != name
            paths[name] = present if present and unpacked else _fetch_file(folder, name, md5, mirrors, progress)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be used as the cache ({error.strerror or error}); "
                        f"point `data_dir` at the four Fashion-MNIST files, or use `data='synthetic'`") from error
    return paths


def _fetch_file(folder: Path, name: str, md5: str, mirrors: list[str], progress: Progress | None) -> Path:
    """One file from the cache or the first mirror that has it, which moves to the front of `mirrors`.

    pooch downloads to a temporary file beside the target and moves it only once its hash is right: a file of that name
    is never a part of one, and a damaged one is replaced.
    """
    import pooch  # not needed where the user names a folder

    # `identity`: the bytes as published, which the hash and the progress count; not unpacked again on the way.
    downloader = pooch.HTTPDownloader(progressbar=progress, chunk_size=_CHUNK, timeout=TIMEOUT,
                                      headers={"Accept-Encoding": "identity"})
    if (folder / name).exists():
        (folder / name).open("rb").close()  # if it cannot be read, that is not the mirrors' fault
    said = []
    for mirror in tuple(mirrors):
        try:
            with _quiet(pooch.get_logger()):
                path = Path(pooch.retrieve(mirror + name, f"md5:{md5}", fname=name, path=folder, downloader=downloader))
        except (OSError, ValueError) as error:  # requests raises OSErrors; pooch ValueErrors, for a wrong hash
            said.append(f"{urlsplit(mirror).netloc}: {_briefly(error)}")
        else:
            mirrors.remove(mirror)
            mirrors.insert(0, mirror)  # so that the next file does not wait for a dead mirror again
            return path
    raise DataError(f"{name}: no mirror of Fashion-MNIST could deliver it ({'; '.join(said)}); point `data_dir` at the "
                    f"four files, or use `data='synthetic'`")


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Only the command line prints: keep pooch's news of each download to itself."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _briefly(error: BaseException) -> str:
    """A failed download in a few words: the HTTP status, or the cause at the bottom of the chain of errors."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP {status}"
    if not isinstance(error, OSError):
        return "the md5 is not the published one"
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return " ".join(text.split())[:100] or type(error).__name__
