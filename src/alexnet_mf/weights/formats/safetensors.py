"""Other programs' safetensors files: any names and floating-point dtypes, without a network in the header."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.errors import ParametersError
from alexnet_mf.weights import parameters
from alexnet_mf.weights.stored import StoredTensor, StoredWeights, widen

BFLOAT16 = "bfloat16"


def read(file: BinaryIO, path: Path) -> StoredWeights:
    """Return the tensors in a file, sorted by name as the library sorts them. It has checked the header.

    Raises:
        ParametersError: if the file is damaged; the message begins with the file's name.
    """
    described = parameters.read_header(path).tensors
    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size))
    tensors = {}
    for name, (dtype, shape) in described.items():
        begin, end = header[name]["data_offsets"]
        tensors[name] = StoredTensor(dtype, shape, functools.partial(_load, file, 8 + size + begin, end - begin, dtype,
                                                                     shape))
    return StoredWeights(tensors, layout=None, is_ordered=False)


def _load(file: BinaryIO, begin: int, size: int, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    file.seek(begin)
    content = file.read(size)
    if len(content) != size:
        raise ParametersError("ends too early; use another copy")
    if dtype == BFLOAT16:
        return widen(np.frombuffer(content, "<u2")).reshape(shape)
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).reshape(shape)
