"""Pictures from anywhere, made into what a network was trained on.

Whatever a picture's file says of itself is checked before anything is decoded, and no picture can take more memory than
`MOST_PIXELS` allow. Pillow is imported when there is something to read.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.data.preprocessing import Preparation
from alexnet_mf.data.sources import idx
from alexnet_mf.errors import DataError

FORMATS = ("PNG", "JPEG")
SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_BYTES = 100_000_000
MOST_PIXELS = 50_000_000
"""Of a picture as it is stored: 200 MB when it is decoded, four bytes each."""
MOST_ON_A_SIDE = 65_535
"""As many as a JPEG can have. Pillow keeps a pointer for each row, and lines of millions cost it far more than that."""
LIMITS = f"at most {MOST_PIXELS:,} pixels, and {MOST_ON_A_SIDE:,} on a side, are decoded"
IDX_REMEDY = "give PNG, JPEG or idx files of 28x28 images"


@dataclass(frozen=True, eq=False)
class Picture:
    """What a network is fed."""

    name: str
    """Its path; of an idx file's images, with the number in brackets."""
    pixels: NDArray[Any]


@dataclass(frozen=True)
class Unreadable:
    """A picture, or a file or folder of them, that cannot be read."""

    name: str
    reason: str
    """What is wrong, and the remedy, in a line."""


def read_all(paths: Sequence[Path], preparation: Preparation,
             limit: int | None = None) -> Iterator[Picture | Unreadable]:
    """Every picture in these files and folders, one after the other; what cannot be read is told, and passed over.

    Args:
        paths: PNG and JPEG files, idx files, packed or not, and folders of PNG and JPEG files.
        limit: of each folder, and each idx file, so many pictures only.
    """
    for path in paths:
        try:
            if path.is_dir():
                for file in folder(path)[:limit]:
                    yield from _one(file, preparation)
            elif idx.is_idx(path):
                for number, grey in enumerate(idx.read_images(path, IDX_REMEDY)[:limit]):
                    yield Picture(f"{path}[{number}]", _prepared_idx(grey, preparation))
            else:
                yield from _one(path, preparation)
        except DataError as error:
            yield _unreadable(path, error)


def folder(path: Path) -> list[Path]:
    """A folder's pictures, by name; folders in it are left alone.

    Raises:
        DataError: where it cannot be read, or has none.
    """
    try:
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES
                       and not file.name.startswith(".") and not file.is_dir())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not found:
        raise DataError(f"{path}: has no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file; folders in it are not "
                        f"searched, and idx files are to be named")
    return found


def read(path: Path, preparation: Preparation) -> NDArray[Any]:
    """One picture as a network takes it.

    Raises:
        DataError: where it cannot be read as PNG or JPEG, or is too large; names it.
    """
    try:
        content = files.read(path, MOST_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not content:
        raise DataError(f"{path}: is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pictures that are odd, or large: the size is checked here
        return _decode(path, content, preparation)


def _one(path: Path, preparation: Preparation) -> Iterator[Picture | Unreadable]:
    try:
        yield Picture(str(path), read(path, preparation))
    except DataError as error:
        yield _unreadable(path, error)


def _unreadable(path: Path, error: DataError) -> Unreadable:
    """An error without the path that it begins with."""
    return Unreadable(str(path), str(error).removeprefix(str(DataError(f"{path}: "))))


def _decode(path: Path, content: bytes, preparation: Preparation) -> NDArray[Any]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS or max(width, height) > MOST_ON_A_SIDE:
                raise _too_large(path, width, height)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return preparation(image)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is neither a PNG nor a JPEG picture, whatever its name, or its beginning is "
                        f"damaged") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, *_size_in_header(content)) from error
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever comes for a damaged file: SyntaxError, struct.error, ...
        raise DataError(f"{path}: is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error


def _too_large(path: Path, width: int, height: int) -> DataError:
    return DataError(f"{path}: is too large: {width}x{height} pixels; {LIMITS}; shrink it")


def _size_in_header(content: bytes) -> tuple[int, int]:
    """Width and height of what `Image.open` takes for a decompression bomb, and does not tell the size of."""
    from PIL import JpegImagePlugin, PngImagePlugin

    is_png = content.startswith(b"\x89PNG")
    with (PngImagePlugin.PngImageFile if is_png else JpegImagePlugin.JpegImageFile)(io.BytesIO(content)) as image:
        return image.size


def _prepared_idx(grey: NDArray[np.uint8], preparation: Preparation) -> NDArray[Any]:
    from PIL import Image

    return preparation(Image.fromarray(grey))
