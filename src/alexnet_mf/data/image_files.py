"""Read pictures and idx files of images from any source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data.pictures import ENDINGS, FORMATS, OTHER_ENDINGS, decode, read_file
from alexnet_mf.data.preprocessing import prepare
from alexnet_mf.data.sources import idx
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Preprocessing

IDX_REMEDY = "give pictures, or idx files of images"


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, prepared for a network."""

    name: str
    """Path of the file; for images of an idx file followed by their number in brackets."""
    pixels: NDArray[np.uint8]
    """(height, width), or (height, width, 3): the return value of `prepare`."""


@dataclass(frozen=True)
class Unreadable:
    """An image, or a file or folder of images, that cannot be read."""

    name: str
    reason: str
    """The problem and the remedy, in one line."""


def read_all(paths: Sequence[Path], preprocessing: Preprocessing,
             limit: int | None = None) -> Iterator[Picture | Unreadable]:
    """Yield every image in these files and folders in turn, and an `Unreadable` for each that cannot be read.

    Args:
        paths: files of pictures, idx files (gzipped or not), and folders of pictures.
        limit: largest number of images to take from each folder and each idx file.
    """
    import PIL.Image

    for path in paths:
        try:
            if path.is_dir():
                for file in list_images(path)[:limit]:
                    yield from _one(file, preprocessing)
            elif idx.is_idx(path):
                for number, gray in enumerate(idx.read_images(path, IDX_REMEDY, (None, None))[:limit]):
                    yield Picture(f"{path}[{number}]", prepare(PIL.Image.fromarray(gray), preprocessing))
            else:
                yield from _one(path, preprocessing)
        except DataError as error:
            yield _unreadable(path, error)


def list_images(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted by name; folders in it are not searched.

    Raises:
        DataError: if the folder cannot be read, or has no image file.
    """
    try:
        paths = sorted(file for file in folder.iterdir() if file.suffix.lower() in (*ENDINGS, *OTHER_ENDINGS)
                       and not file.name.startswith(".") and not file.is_dir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    if not paths:
        raise DataError(f"{folder}: has no picture by the names of its files ({FORMATS}); subfolders are not "
                        "searched, and "
                        "idx files must be given by name")
    return paths


def read(path: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return one image, prepared for a network: (height, width), or (height, width, 3).

    Raises:
        DataError: if the file cannot be read as a picture, or the image is too large; names the file.
    """
    try:
        return prepare(decode(read_file(path)), preprocessing)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _one(path: Path, preprocessing: Preprocessing) -> Iterator[Picture | Unreadable]:
    try:
        yield Picture(str(path), read(path, preprocessing))
    except DataError as error:
        yield _unreadable(path, error)


def _unreadable(path: Path, error: DataError) -> Unreadable:
    """Return the error without the path that its message begins with."""
    return Unreadable(str(path), str(error).removeprefix(str(DataError(f"{path}: "))))
