"""Encoded pictures: their formats, and sets of them that are decoded later. Pillow is imported when there is a
picture."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.data.preprocessing import MOST_PIXELS, to_eight_bits
from alexnet_mf.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff")
"""Endings of the files that are read."""
OTHER_ENDINGS = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".raw", ".cr2", ".nef", ".arw", ".dng")
"""Endings of pictures that are not read."""
MOST_BYTES = 100_000_000
MOST_ON_A_SIDE = 65_535
"""Largest height and width, as in JPEG. Pillow keeps a pointer for each row: millions of rows cost much memory."""
FORMATS = "JPEG, PNG, WebP, BMP, GIF and TIFF"
ORIENTATION = 0x0112
"""Tag of EXIF data: a number from 1 to 8."""


class _Quiet:
    """Context in which warnings of Pillow's modules are not shown: it warns about damaged animations and EXIF data.
    Unlike `warnings.catch_warnings` it can be entered by several threads at once, and leaves other warnings alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._entry: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._entry = warnings.filters[0]

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                with contextlib.suppress(ValueError):  # somebody has restored other filters
                    warnings.filters.remove(self._entry)  # type: ignore[attr-defined]


_QUIET = _Quiet()


class Names(Sequence[str]):
    """Strings in one piece of memory: a million paths as Python objects take 100 MB."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self.content = b"".join(encoded)
        self.ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    @classmethod
    def joined(cls, parts: Sequence[Names]) -> Names:
        """Return all names of several parts."""
        whole = cls()
        whole.content = b"".join(part.content for part in parts)
        starts = np.cumsum([0, *(len(part.content) for part in parts)])
        ends = (part.ends[1:] + start for part, start in zip(parts, starts))
        whole.ends = np.concatenate([np.zeros(1, np.int64), *ends])
        return whole

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        number = range(len(self))[number]  # raises IndexError
        return self.content[self.ends[number]:self.ends[number + 1]].decode("utf-8", "surrogateescape")


class Pictures(ABC):
    """Encoded pictures, by number."""

    names: Sequence[str]
    stamps: NDArray[np.int64]
    """(n, 2): size of the picture's file and time of its last change in nanoseconds, or numbers like these."""

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, number: int) -> bytes:
        """Return the picture as it is encoded.

        Raises:
            DataError: if it cannot be read; the message lacks its name.
        """

    def name(self, number: int) -> str:
        """Return the name of a picture for messages."""
        return self.names[number]

    def image(self, number: int) -> Image:
        """Return the decoded picture.

        Raises:
            DataError: if it cannot be read or decoded; the message lacks its name.
        """
        return decode(self.read(number))

    def identity(self) -> bytes:
        """Return a digest of names and stamps: the same as long as no file is added, removed or changed."""
        names = self.names if isinstance(self.names, Names) else Names(self.names)
        return hashlib.sha256(b"".join([names.ends.tobytes(), names.content, self.stamps.tobytes()])).digest()


@dataclass(eq=False)
class PicturesInFolder(Pictures):
    """Pictures of a folder, by their paths in it."""

    folder: Path
    names: Names
    stamps: NDArray[np.int64]

    def name(self, number: int) -> str:
        return str(self.folder / self.names[number])

    def identity(self) -> bytes:
        """Return a digest of folder, names and stamps. Archives may give all files one time: the pictures of another
        folder can have the same names and stamps."""
        return hashlib.sha256(os.fsencode(os.path.realpath(self.folder)) + b"\0" + super().identity()).digest()


@dataclass(eq=False)
class PictureFiles(PicturesInFolder):
    """Pictures that are files."""

    def read(self, number: int) -> bytes:
        return read_file(self.folder / self.names[number])


def read_file(path: Path) -> bytes:
    """Return the content of a picture's file.

    Raises:
        DataError: if it cannot be read, is empty or too large; the message lacks its name.
    """
    try:
        content = files.read(path, MOST_BYTES)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})") from error
    if not content:
        raise DataError("is empty")
    return content


def decode(content: bytes) -> Image:
    """Return a picture of eight bits per channel, turned as its EXIF data say; of an animation the first.

    The size that the file states is checked before anything is decoded, so no file can take more memory than
    `MOST_PIXELS` allows.

    Raises:
        DataError: if it is in no known format, damaged or too large; the message lacks its name.
    """
    with _QUIET:
        try:
            try:
                image = _opened(content)
            except SyntaxError as error:
                raise DataError(f"is no {FORMATS.replace('and', 'or')} picture, or its beginning is damaged; convert "
                                "it to PNG") from error
            with image:
                _check_size(image)
                image.load()
                return to_eight_bits(_turned(image))
        except (MemoryError, DataError):
            raise
        except Exception as error:  # for a damaged file Pillow raises SyntaxError, struct.error and many others
            raise DataError(f"is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error


def _check_size(image: Image) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS or max(width, height) > MOST_ON_A_SIDE:
        raise DataError(f"is too large: {width}x{height} pixels; shrink it to at most {MOST_PIXELS:,} pixels, and "
                        f"{MOST_ON_A_SIDE:,} on a side")


def _turned(image: Image) -> Image:
    """Return a decoded picture as its EXIF data say; as it is stored if they are damaged. Not by Pillow's
    `exif_transpose`, which writes the data again and fails where they cannot be written."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:
        return image
    turns = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
             5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}
    return image.transpose(turns[orientation]) if orientation in turns else image


def size_of(content: bytes) -> tuple[int, bool]:
    """Return a picture's shorter side in pixels, and True if it has colors. Only its header is read: EXIF data can lie
    behind the pixels.

    Raises:
        DataError: if it is in no known format or too large; the message lacks its name.
    """
    try:
        with _QUIET, _opened(content) as image:
            _check_size(image)
            return min(image.size), image.mode not in ("1", "L", "LA", "La") and not image.mode.startswith(("I", "F"))
    except (MemoryError, DataError):
        raise
    except Exception as error:
        raise DataError("is damaged") from error


def _opened(content: bytes) -> Image:
    """Return a picture of which only the header has been read. Not by `Image.open`, which refuses large images without
    naming their size, and tries formats that nobody has asked for.

    Raises:
        SyntaxError: if it is in none of the formats.
    """
    for start, kind in _kinds():
        if content.startswith(start):
            return kind(io.BytesIO(content))
    if content[4:8] == b"ftyp":
        raise DataError("is HEIC, HEIF or AVIF, which are not read; convert it to JPEG")
    raise SyntaxError


@functools.cache
def _kinds() -> tuple[tuple[bytes, type[ImageFile]], ...]:
    """Return the beginning of each format's files, and Pillow's class for them."""
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.GifImagePlugin import GifImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.TiffImagePlugin import TiffImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    return ((b"\xff\xd8", JpegImageFile), (b"\x89PNG", PngImageFile), (b"BM", BmpImageFile), (b"GIF8", GifImageFile),
            (b"II*\0", TiffImageFile), (b"MM\0*", TiffImageFile), (b"RIFF", WebPImageFile))
