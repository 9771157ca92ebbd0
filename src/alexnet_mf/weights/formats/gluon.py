"""MXNet's weights files: `.params`, and `NAME-symbol.json` beside it, which describes the network. They need no MXNet.

`save_parameters`, `collect_params().save`, `export` and `save_checkpoint` write them. MXNet's own reader trusts a
file's sizes before it has seen the bytes.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.errors import ParametersError, SpecError
from alexnet_mf.weights.formats import gluon_symbol
from alexnet_mf.weights.stored import StoredTensor, StoredWeights, widen

# src/ndarray/ndarray.cc and src/c_api/c_api.cc of MXNet 1.9.1.
LIST_MAGIC = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
"""First number of an array. Older arrays begin with the rank. Since V3, rank 0 means one number, not none."""
DENSE = 0
DTYPES = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool", "int16", "uint16", "uint32",
          "uint64", "bfloat16")
"""Dtypes by mshadow's type flags."""
LARGEST_RANK, MOST_TENSORS, LONGEST_NAME = 32, 10_000, 1000

PART = r"[._](weight|bias|gamma|beta|(running|moving)_(mean|var))$"


def read(file: BinaryIO, path: Path) -> StoredWeights:
    """Return the tensors, and the network or its layers if there is a symbol file.

    Raises:
        ParametersError: if it is not such a file, or the symbol file is damaged, belongs to other weights or describes
            layers that the package lacks.
    """
    tensors = read_tensors(file)
    symbol = path.with_name(re.sub(r"-\d{4,}$", "", path.stem) + "-symbol.json")
    if not symbol.exists():
        names, is_ordered = _order(list(tensors))
        return StoredWeights({name: tensors[name] for name in names}, is_ordered=is_ordered)
    try:
        return gluon_symbol.describe(files.parse_json(files.read(symbol, files.MOST_JSON)), tensors, symbol.name)
    except SpecError as error:
        raise ParametersError(f"cannot be read: {symbol.name}: {error}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ParametersError(f"cannot be read with {symbol.name} ({reason}); use the symbol file of these weights, or "
                              "move it away to read them alone") from error


# The tensors


def read_tensors(file: BinaryIO) -> dict[str, StoredTensor]:
    """Return the tensors in the file's order.

    Raises:
        ParametersError: if it is not such a file.
    """
    try:
        size = file.seek(0, 2)
        file.seek(0)
        magic, _, count = _unpack(file, "<QQQ")
        if magic != LIST_MAGIC:
            raise ValueError("it does not begin with the right number")
        if count > MOST_TENSORS:
            raise ValueError(f"{count:,} arrays; at most {MOST_TENSORS:,} are allowed")
        arrays = [_array(file, size, number) for number in range(1, count + 1)]
        (names,) = _unpack(file, "<Q")
        if names != count:
            raise ValueError(f"{count} arrays have {names} names")
        tensors: dict[str, StoredTensor] = {}
        for array in arrays:
            (length,) = _unpack(file, "<Q")
            if length > LONGEST_NAME:
                raise ValueError(f"a name of {length:,} bytes")
            (name,) = _unpack(file, f"<{length}s")
            if tensors.setdefault(name.decode(), array) is not array:
                raise ValueError(f"two arrays are named {name.decode()!r}")
        if file.tell() != size:
            raise ValueError("its size does not match its header")
    except ValueError as error:
        raise ParametersError(f"cannot be read as MXNet's parameters ({error}); write them with net.save_parameters"
                              ) from error
    return tensors


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    content = file.read(struct.calcsize(layout))
    if len(content) < struct.calcsize(layout):
        raise ValueError("it ends too early")
    return struct.unpack(layout, content)


def _array(file: BinaryIO, size: int, number: int) -> StoredTensor:
    """Return the array at the file's position, and move to its end."""
    (magic,) = _unpack(file, "<I")
    (storage,) = _unpack(file, "<i") if magic in (V2, V3) else (DENSE,)
    (rank,) = _unpack(file, "<I") if magic in (V1, V2, V3) else (magic,)
    if storage != DENSE or (rank == 0 and magic != V3):
        raise ValueError(f"array {number} is {'sparse' if storage != DENSE else 'empty'}")
    if rank > LARGEST_RANK:
        raise ValueError(f"array {number} has {rank:,} dimensions")
    shape = _unpack(file, f"<{rank}{'q' if magic in (V1, V2, V3) else 'I'}")
    _, _, flag = _unpack(file, "<iii")  # the device, which does not matter here
    if not 0 <= flag < len(DTYPES) or min(shape, default=1) < 1:
        raise ValueError(f"array {number} has type {flag} and shape {shape}")
    begin, count = file.tell(), math.prod(shape)
    stored = np.dtype("<u2" if DTYPES[flag] == "bfloat16" else DTYPES[flag]).newbyteorder("<")
    if begin + count * stored.itemsize > size:
        raise ValueError("it ends too early")
    file.seek(begin + count * stored.itemsize)

    def load() -> NDArray[Any]:
        file.seek(begin)
        values = np.frombuffer(file.read(count * stored.itemsize), stored)
        if DTYPES[flag] == "bfloat16":  # the first half of a float32
            values = widen(values)
        return values.reshape(shape)
    return StoredTensor(DTYPES[flag], shape, load)


def _order(names: list[str]) -> tuple[list[str], bool]:
    """Return the names with each layer's together, and True if the layers are in the model's order.

    MXNet writes a dictionary in its order, which is that of the blocks or of the graph. But Python 2 orders
    dictionaries at random, and C++ by name. So each bias must follow its weight, and numbers must ascend.
    """
    layers: dict[str, list[str]] = {}
    numbers: dict[str, list[list[int]]] = {}
    for name in names:
        layers.setdefault(re.sub(PART, "", re.sub(gluon_symbol.PREFIX, "", name)), []).append(name)
        numbers.setdefault(re.sub(r"\d+", "0", name), []).append([int(text) for text in re.findall(r"\d+", name)])
    pairs = [(before, name[:-4] + {"bias": "weight", "beta": "gamma"}[name[-4:]])
             for before, name in zip(["", *names], names) if name.endswith(("bias", "beta"))]
    is_ordered = all(before == partner for before, partner in pairs) and \
        all(several == sorted(several) for several in numbers.values()) and \
        (bool(pairs) or len(numbers) == 1 or names != sorted(names))
    return [name for layer in layers.values() for name in layer], is_ordered
