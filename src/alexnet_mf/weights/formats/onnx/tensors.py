"""Tensors in ONNX files: in the model, and in files beside it. Values are read last, after all checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from alexnet_mf.spec.layers import Shape
from alexnet_mf.weights.stored import StoredTensor

DTYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64",
          TensorProto.BFLOAT16: "bfloat16", TensorProto.INT64: "int64", TensorProto.INT32: "int32",
          TensorProto.BOOL: "bool"}
"""Types of weights, and of the constants that describe shapes."""
REMEDY = "export a sequence of supported layers"


class Unreadable(Exception):
    """A file that is not a sequential network, and the remedy."""

    def __init__(self, reason: str, remedy: str = REMEDY) -> None:
        super().__init__(reason)
        self.remedy = remedy


class Tensors:
    """Tensors of a model in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stored(self, tensor: onnx.TensorProto) -> StoredTensor:
        """Return a tensor, after comparing its size with its shape."""
        dtype, shape = DTYPES.get(tensor.data_type), tuple(tensor.dims)
        if dtype is None:
            names = TensorProto.DataType
            kind = names.Name(tensor.data_type) if tensor.data_type in names.values() else tensor.data_type
            raise Unreadable(f"tensor {tensor.name!r} is of type {kind}")
        if min(shape, default=0) < 0 or tensor.HasField("segment"):
            raise Unreadable(f"tensor {tensor.name!r} has the shape {shape}")
        count = math.prod(shape)
        size = count * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if tensor.data_location == TensorProto.EXTERNAL:
            load = self._external(tensor, size)
        elif tensor.HasField("raw_data"):
            _check(tensor, len(tensor.raw_data), size)
            load = lambda: numpy_helper.to_array(tensor)  # noqa: E731
        else:
            _check(tensor, len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))), count)
            load = lambda: numpy_helper.to_array(tensor)  # noqa: E731
        if dtype != "bfloat16":
            return StoredTensor(dtype, shape, load)
        return StoredTensor(dtype, shape, lambda: load().astype(np.float32))

    def _external(self, tensor: onnx.TensorProto, size: int) -> Callable[[], NDArray[Any]]:
        """Return a function that reads a tensor from a file in the model's folder, after checking place and size."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        remedy = "keep the files in one folder, or save the model with save_as_external_data=False"
        try:
            path = (self.folder / location).resolve()
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
            if not path.is_relative_to(self.folder.resolve()) or Path(location).is_absolute() or ".." in location:
                raise Unreadable(f"tensor {tensor.name!r} is in {location!r}, outside the model's folder", remedy)
            if not path.is_file():
                raise Unreadable(f"tensor {tensor.name!r} is in {location!r}, which is not beside the model", remedy)
            if offset < 0 or length != size or offset + size > path.stat().st_size:
                raise Unreadable(f"tensor {tensor.name!r} does not match the size of {location!r}", remedy)
        except (OSError, ValueError) as error:  # a null byte, or a number that is none
            raise Unreadable(f"tensor {tensor.name!r} is in {location!r}: {error}", remedy) from error

        def load() -> NDArray[Any]:
            with path.open("rb") as file:
                file.seek(offset)
                raw = file.read(size)
            return numpy_helper.to_array(TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=raw))

        return load


def _check(tensor: onnx.TensorProto, count: int, expected: int) -> None:
    if count != expected:
        raise Unreadable(f"tensor {tensor.name!r} of shape {tuple(tensor.dims)} does not match its data")


def constant(value: Any) -> StoredTensor:
    """Return an array as a tensor."""
    array = np.asarray(value)
    return StoredTensor(array.dtype.name, array.shape, lambda: array)


def view(tensor: StoredTensor, shape: Shape, function: Callable[[NDArray[Any]], NDArray[Any]]) -> StoredTensor:
    """Return a tensor of this shape whose values are a function of another's."""
    return StoredTensor(tensor.dtype, shape, lambda: function(tensor.load()))
