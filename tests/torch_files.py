"""PyTorch's files, assembled without PyTorch."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping

import numpy as np

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


def inside(value: object) -> bytes:
    """Return the opcodes that build an object, without the beginning and the end of its pickle."""
    return pickle.dumps(value, 2)[2:-1]


def whole(opcodes: bytes) -> bytes:
    return b"\x80\x02" + opcodes + b"."


def mapping(entries: Mapping[str, bytes]) -> bytes:
    """Return the opcodes that build a dict of objects with these opcodes."""
    return b"}(" + b"".join(inside(name) + value for name, value in entries.items()) + b"u"


def tensor(key: str, shape: Iterable[int], strides: Iterable[int] | None = None, offset: int = 0, *,
           count: int | None = None, storage: str = "torch\nFloatStorage", is_old: bool = False) -> bytes:
    """Return the opcodes that build a tensor, by default one that takes its whole storage.

    Args:
        count: number of elements of the storage.
    """
    shape = tuple(shape)
    sizes = [int(np.prod(shape[axis + 1:], dtype=object)) for axis in range(len(shape))]
    count = int(np.prod(shape, dtype=object)) if count is None else count
    identifier = b"(" + inside("storage") + f"c{storage}\n".encode() + inside(key) + inside("cpu") + inside(count)
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + identifier + (b"NtQ" if is_old else b"tQ") + inside(offset) +
            inside(shape) + inside(tuple(sizes if strides is None else strides)) +
            b"\x89ccollections\nOrderedDict\n)RtR")


def archive(opcodes: bytes, storages: Mapping[str, bytes] = {}, others: Mapping[str, bytes] = {},
            compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return the file of an object with these opcodes."""
    entries = {"data.pkl": whole(opcodes), "version": b"3\n", **others,
               **{f"data/{key}": value for key, value in storages.items()}}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, content in entries.items():
            target.writestr(f"archive/{name}", content)
    return file.getvalue()


def stream(opcodes: bytes, storages: Mapping[str, bytes] = {}) -> bytes:
    """Return the file of PyTorch before 1.6, with float32 storages."""
    return (MAGIC + whole(opcodes) + pickle.dumps(list(storages), 2) +
            b"".join(struct.pack("<q", len(content) // 4) + content for content in storages.values()))


WEIGHT = np.arange(6, dtype="<f4").reshape(2, 3) - 2.5
BIAS = np.array([0.25, -1], "<f4")
STORAGES = {"0": WEIGHT.tobytes(), "1": BIAS.tobytes()}
STATE = {"fc1.weight": tensor("0", (2, 3)), "fc1.bias": tensor("1", (2,))}
OLD_STATE = {"fc1.weight": tensor("0", (2, 3), is_old=True), "fc1.bias": tensor("1", (2,), is_old=True)}
