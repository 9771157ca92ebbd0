"""Read PNG, JPEG and idx files of images from any source.

The size that a file states is checked before anything is decoded, so no file can take more memory than `MOST_PIXELS`
allows. Pillow is imported when there is a file to read.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.data.preprocessing import MOST_PIXELS, prepare
from alexnet_mf.data.sources import idx
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Preprocessing

SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_BYTES = 100_000_000
MOST_ON_A_SIDE = 65_535
"""Largest height and width, as in JPEG. Pillow keeps a pointer for each row: millions of rows cost much memory."""
IDX_REMEDY = "give PNG, JPEG or idx files of 28x28 images"


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
        paths: PNG and JPEG files, idx files (gzipped or not), and folders of PNG and JPEG files.
        limit: largest number of images to take from each folder and each idx file.
    """
    import PIL.Image

    for path in paths:
        try:
            if path.is_dir():
                for file in list_images(path)[:limit]:
                    yield from _one(file, preprocessing)
            elif idx.is_idx(path):
                for number, gray in enumerate(idx.read_images(path, IDX_REMEDY)[:limit]):
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
        paths = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES
                       and not file.name.startswith(".") and not file.is_dir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    if not paths:
        raise DataError(f"{folder}: has no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file; subfolders are not "
                        f"searched, and idx files must be given by name")
    return paths


def read(path: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return one image, prepared for a network: (height, width), or (height, width, 3).

    Raises:
        DataError: if the file cannot be read as PNG or JPEG, or the image is too large; names the file.
    """
    try:
        content = files.read(path, MOST_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not content:
        raise DataError(f"{path}: is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about damaged animations and EXIF data: neither is needed
        return _decode(path, content, preprocessing)


def _one(path: Path, preprocessing: Preprocessing) -> Iterator[Picture | Unreadable]:
    try:
        yield Picture(str(path), read(path, preprocessing))
    except DataError as error:
        yield _unreadable(path, error)


def _unreadable(path: Path, error: DataError) -> Unreadable:
    """Return the error without the path that its message begins with."""
    return Unreadable(str(path), str(error).removeprefix(str(DataError(f"{path}: "))))


def _decode(path: Path, content: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    from PIL import ImageOps
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    # Not by `Image.open`, which refuses large images without naming their size.
    image_file = PngImageFile if content.startswith(b"\x89PNG") else JpegImageFile
    try:
        try:
            image = image_file(io.BytesIO(content))
        except SyntaxError as error:
            raise DataError("is neither a PNG nor a JPEG image, or its beginning is damaged; convert it to PNG"
                            ) from error
        with image:
            width, height = image.size
            if width * height > MOST_PIXELS or max(width, height) > MOST_ON_A_SIDE:
                raise DataError(f"is too large: {width}x{height} pixels; shrink it to at most {MOST_PIXELS:,} pixels, "
                                f"and {MOST_ON_A_SIDE:,} on a side")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return prepare(image, preprocessing)
    except MemoryError:
        raise
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # for a damaged file Pillow raises SyntaxError, struct.error and many others
        raise DataError(f"{path}: is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error
