"""Read idx files (the format of MNIST and its successors), gzipped or not, and find the sets of them in a folder.

An idx file is a big-endian header (two zero bytes, the type of the values, the number of dimensions, each dimension in
four bytes) and then the values. The header is checked before it is used, so that a damaged or hostile file costs little
memory.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.data.dataset import Dataset, LabeledImages
from alexnet_mf.errors import DataError, one_line

IMAGE_SIZE = (28, 28)
CLASSES = 10
LARGEST_SIDE = 65_535
MOST_ITEMS = 1_000_000  # 784 MB of images; bounds the memory that a damaged or hostile header can request

REMEDY = "replace it, or point `data_dir` at the four Fashion-MNIST files"

_UNSIGNED_BYTE = 8
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


def _read_exactly(stream: BinaryIO, size: int) -> bytearray:
    """Read in chunks: memory grows with the size of the file, not with the size that the header states."""
    content = bytearray()
    while len(content) < size:
        chunk = stream.read(min(_CHUNK, size - len(content)))
        if not chunk:
            raise ValueError(f"truncated after {len(content)} of {size} bytes")
        content += chunk
    return content


def _parse(stream: BinaryIO, item: tuple[int | None, ...]) -> NDArray[np.uint8]:
    """Return the values of an idx stream, (n, *item), where None is any size; raise ValueError if its content is
    wrong."""
    dimensions = 1 + len(item)
    (magic,) = struct.unpack(">I", _read_exactly(stream, 4))
    expected = _UNSIGNED_BYTE << 8 | dimensions
    if magic != expected:
        raise ValueError(f"wrong magic number 0x{magic:08x}, not 0x{expected:08x}")
    count, *sizes = struct.unpack(f">{dimensions}I", _read_exactly(stream, 4 * dimensions))
    if any(wanted not in (None, size) for size, wanted in zip(sizes, item)):
        raise ValueError(f"holds images of {'x'.join(map(str, sizes))}, not {'x'.join(map(str, item))}")
    if not all(1 <= size <= LARGEST_SIDE for size in sizes):
        raise ValueError(f"claims to hold images of {'x'.join(map(str, sizes))}")
    if not 1 <= count <= MOST_ITEMS:
        raise ValueError(f"claims to hold {count:,} items, not 1 to {MOST_ITEMS:,}")
    values = _read_exactly(stream, count * int(np.prod(sizes, dtype=int)))
    if stream.read(1):  # reaching the end also makes gzip verify its checksum
        raise ValueError("surplus bytes after the last item")
    return np.frombuffer(values, np.uint8).reshape(count, *sizes)


def _read(path: Path, item: tuple[int | None, ...], remedy: str) -> NDArray[np.uint8]:
    try:
        with path.open("rb") as file:
            # By content, not by name: some browsers unpack .gz files and keep the name, others do the reverse.
            if file.peek(2)[:2] == _GZIP_MAGIC:
                with gzip.GzipFile(fileobj=file) as stream:
                    return _parse(stream, item)  # type: ignore[arg-type]  # a BinaryIO in all but name
            return _parse(file, item)
    except ValueError as fault:
        raise DataError(f"{path}: {fault}; {remedy}") from fault
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: truncated or damaged gzip ({error}); {remedy}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from error


def is_idx(path: Path) -> bool:
    """Return True if a file begins like an idx file or a gzipped file; False if it cannot be read."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(4)
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return False
    return start[:2] == _GZIP_MAGIC or start[:3] == bytes([0, 0, _UNSIGNED_BYTE])


def read_images(path: Path, remedy: str = REMEDY,
                size: tuple[int | None, int | None] = IMAGE_SIZE) -> NDArray[np.uint8]:
    """Return the gray levels, (n, height, width), of an idx3 file, gzipped or not.

    Args:
        remedy: advice for a bad file; ends the error's message.
        size: (height, width) that the images must have; None for any.

    Raises:
        DataError: if the file cannot be read or is not such a file; names the file and the fault.
    """
    return _read(path, size, remedy)


def read_labels(path: Path, remedy: str = REMEDY, classes: int = CLASSES) -> NDArray[np.int64]:
    """Return the labels, (n,), of an idx1 file, gzipped or not; errors as for `read_images`.

    Args:
        classes: the labels must be smaller.
    """
    labels = _read(path, (), remedy)
    if labels.max() >= classes:
        at = int(np.argmax(labels >= classes))
        raise DataError(f"{path}: label {at} is {labels[at]}, not 0-{classes - 1}; {remedy}")
    return labels.astype(np.int64)


def read_pair(images: Path, labels: Path, remedy: str = REMEDY,
              size: tuple[int | None, int | None] = IMAGE_SIZE, classes: int = CLASSES) -> LabeledImages:
    """Return images and their labels; arguments as for `read_images` and `read_labels`.

    Raises:
        DataError: as these two, and if the files hold different numbers of items.
    """
    pair = LabeledImages(read_images(images, remedy, size), read_labels(labels, remedy, classes))
    if len(pair.images) != len(pair.labels):
        raise DataError(f"{images}: {len(pair.images):,} images, but {len(pair.labels):,} labels in {labels.name}; "
                        f"{remedy}")
    return pair


# Sets of four files

_NAME = re.compile(r"(?P<set>.*?)(?P<part>train|t10k|test)-(?P<kind>images|labels)[-.]idx[13]-ubyte(\.gz)?$")
MOST_MAPPING = 100_000
"""Largest size of a file with the characters of EMNIST's labels, in bytes."""


@dataclass(frozen=True)
class IdxSet:
    """A data set of four files, and perhaps a fifth with the names of its classes."""

    folder: Path
    name: str
    """Beginning of the names of its files, such as `emnist-letters-`."""
    files: dict[str, Path]
    """Path by part and kind: `train images` and so on."""

    def load(self) -> Dataset:
        """Return the dataset. Its classes are the labels that occur in the training set, in their order.

        Raises:
            DataError: if a file is missing or damaged; names it.
        """
        lacking = [key for part in ("train", "test") for kind in ("images", "labels")
                   if (key := f"{part} {kind}") not in self.files]
        if lacking:
            raise DataError(f"{self.folder}: lacks the file of the {' and the '.join(lacking)} beside "
                            f"{next(iter(self.files.values())).name}; add it")
        train, test = (read_pair(self.files[f"{part} images"], self.files[f"{part} labels"], "replace it",
                                 (None, None), 256) for part in ("train", "test"))
        if train.images.shape[1:] != test.images.shape[1:]:
            raise DataError(f"{self.folder}: training images are {_by(train)}, test images {_by(test)}; give images "
                            "of one size")
        labels = np.unique(train.labels)
        if len(labels) < 2:
            raise DataError(f"{self.folder}: all training images have label {labels[0]}; a network needs at least two "
                            "classes")
        if unknown := sorted(set(np.unique(test.labels).tolist()) - set(labels.tolist())):
            raise DataError(f"{self.folder}: test images have label {unknown[0]}, which the training images lack; "
                            "use the files of one set")
        names = self._names()
        classes = tuple(names.get(label, str(label)) for label in labels.tolist())
        if len(set(classes)) < len(classes):
            classes = tuple(map(str, labels.tolist()))
        train, test = (LabeledImages(part.images, np.searchsorted(labels, part.labels)) for part in (train, test))
        title = self.name.rstrip("-._") or "idx files"
        return Dataset("idx", train, test, classes, f"{title} in {self.folder}")

    def _names(self) -> dict[int, str]:
        """Return the character of each label, from EMNIST's mapping: a label and its code points in each line."""
        path = self.folder / f"{self.name}mapping.txt"
        try:
            lines = [line.split() for line in files.read_text(path, MOST_MAPPING).splitlines() if line.strip()]
            return {int(line[0]): one_line(chr(int(line[1]))) for line in lines}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, IndexError, OverflowError) as error:
            raise DataError(f"{path}: is no mapping of labels to characters; replace or remove it") from error


def _by(part: LabeledImages) -> str:
    return "x".join(map(str, part.images.shape[1:]))


def find_sets(path: Path) -> IdxSet | None:
    """Return the set of idx files that a path names: a folder, torchvision's `NAME` or its `raw`, one of the files, or
    the beginning of their names. None if there are none.

    Raises:
        DataError: if there are several; names them.
    """
    folder, beginning = (path, "") if path.is_dir() else (path.parent, path.name)
    if match := _NAME.match(beginning):
        beginning = match["set"]
        candidates = [one for one in _sets_in(folder) if one.name == beginning]
    else:
        places: Sequence[Path] = [folder, folder / "raw", *sorted(folder.glob("*/raw"))] if not beginning else [folder]
        candidates = [one for place in places for one in _sets_in(place) if one.name.startswith(beginning)]
        exact = [one for one in candidates if beginning and one.name.rstrip("-._") == beginning.rstrip("-._")]
        candidates = exact if len(exact) == 1 else candidates
    if len(candidates) > 1:
        names = [str(one.folder / one.name.rstrip("-._")) if one.name else str(one.folder) for one in candidates]
        raise DataError(f"{path}: holds several sets; name one: {', '.join(names)}")
    return candidates[0] if candidates else None


def _sets_in(folder: Path) -> list[IdxSet]:
    """Return the sets of a folder, in the order of their names. A file that is also there gzipped counts once."""
    sets: dict[str, IdxSet] = {}
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if _NAME.match(entry.name) and entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []
    for name in names:
        if match := _NAME.match(name):
            one = sets.setdefault(match["set"], IdxSet(folder, match["set"], {}))
            part = "train" if match["part"] == "train" else "test"
            one.files[f"{part} {match['kind']}"] = folder / name
    return [sets[name] for name in sorted(sets)]
