"""Read idx files (the format of MNIST and its successors), gzipped or not.

An idx file is a big-endian header (two zero bytes, the type of the values, the number of dimensions, each dimension in
four bytes) and then the values. The header is checked before it is used, so that a damaged or hostile file costs little
memory.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data.dataset import LabeledImages
from alexnet_mf.errors import DataError

IMAGE_SIZE = (28, 28)
CLASSES = 10
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


def _parse(stream: BinaryIO, item: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the values of an idx stream, (n, *item); raise ValueError if its content is wrong."""
    dimensions = 1 + len(item)
    (magic,) = struct.unpack(">I", _read_exactly(stream, 4))
    expected = _UNSIGNED_BYTE << 8 | dimensions
    if magic != expected:
        raise ValueError(f"wrong magic number 0x{magic:08x}, not 0x{expected:08x}")
    count, *sizes = struct.unpack(f">{dimensions}I", _read_exactly(stream, 4 * dimensions))
    if tuple(sizes) != item:
        raise ValueError(f"holds images of {'x'.join(map(str, sizes))}, not {'x'.join(map(str, item))}")
    if not 1 <= count <= MOST_ITEMS:
        raise ValueError(f"claims to hold {count:,} items, not 1 to {MOST_ITEMS:,}")
    values = _read_exactly(stream, count * int(np.prod(item, dtype=int)))
    if stream.read(1):  # reaching the end also makes gzip verify its checksum
        raise ValueError("surplus bytes after the last item")
    return np.frombuffer(values, np.uint8).reshape(count, *item)


def _read(path: Path, item: tuple[int, ...], remedy: str) -> NDArray[np.uint8]:
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


def read_images(path: Path, remedy: str = REMEDY) -> NDArray[np.uint8]:
    """Return the gray levels, (n, 28, 28), of an idx3 file, gzipped or not.

    Args:
        remedy: advice for a bad file; ends the error's message.

    Raises:
        DataError: if the file cannot be read or is not such a file; names the file and the fault.
    """
    return _read(path, IMAGE_SIZE, remedy)


def read_labels(path: Path, remedy: str = REMEDY) -> NDArray[np.int64]:
    """Return the labels 0-9, (n,), of an idx1 file, gzipped or not; arguments and errors as for `read_images`."""
    labels = _read(path, (), remedy)
    if labels.max() >= CLASSES:
        at = int(np.argmax(labels >= CLASSES))
        raise DataError(f"{path}: label {at} is {labels[at]}, not 0-{CLASSES - 1}; {remedy}")
    return labels.astype(np.int64)


def read_pair(images: Path, labels: Path, remedy: str = REMEDY) -> LabeledImages:
    """Return images and their labels.

    Raises:
        DataError: as `read_images`, and if the files hold different numbers of items.
    """
    pair = LabeledImages(read_images(images, remedy), read_labels(labels, remedy))
    if len(pair.images) != len(pair.labels):
        raise DataError(f"{images}: {len(pair.images):,} images, but {len(pair.labels):,} labels in {labels.name}; "
                        f"{remedy}")
    return pair
