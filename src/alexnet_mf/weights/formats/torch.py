"""PyTorch's weights files: a state_dict or a checkpoint of `torch.save`, or a model of `torch.jit.save`.

Reading needs no PyTorch, and nothing is unpickled: `opcodes` interprets the pickle, this module builds the tensors, and
no function that a file names is called. The formats are in torch/serialization.py and torch/_utils.py of PyTorch 2.14.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec.layers import Shape
from alexnet_mf.weights.formats.opcodes import Interpreter, Placeholder
from alexnet_mf.weights.stored import FLOATS, StoredTensor, StoredWeights, widen

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
"""First two objects in a file of PyTorch before 1.6."""
STORAGES = {"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
            "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Untyped": "uint8", "Bool": "bool",
            "ComplexFloat": "complex64", "ComplexDouble": "complex128", "QInt8": "qint8", "QUInt8": "quint8",
            "QInt32": "qint32", "QUInt4x2": "quint4x2", "QUInt2x4": "quint2x4"}
"""Dtypes by the storage classes `torch.FloatStorage`, ..."""
SIZES = {"bfloat16": 2, "qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1}
"""Bytes per element of the dtypes that NumPy lacks."""
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool")

OPTIMIZER = {"param_groups", "momentum_buffer", "exp_avg", "exp_avg_sq", "square_avg"}
"""Keys that only the state of an optimizer has."""
OPTIMIZER_KEY = re.compile(r"opt(im|imizer)?s?(_|[A-Z]|$)")
"""Keys of optimizers, such as `opt`, `optim_state` and `optimizerG`, but not of an `optimized_model`."""

MOST_BYTES = 2**25
"""Largest size of a pickle, and of an archive's directory. AlexNet's pickle has 2 kB."""
DEEPEST, MOST_AXES, MOST_NAMED = 8, 32, 10
"""Largest depth of a state_dict in a checkpoint, largest number of a tensor's axes, and of state_dicts in a message."""

STATE_DICT = "save the weights alone with torch.save(model.state_dict(), FILE)"
SAVE_AGAIN = 'save it again with torch.save(torch.load(FILE, weights_only=True, map_location="cpu"), NEW)'

Keys: TypeAlias = tuple[str, ...]
"""Path of an entry."""


@dataclass(frozen=True)
class Storage:
    """Flat numbers that tensors are views of."""

    key: str
    dtype: str
    count: int

    @property
    def size(self) -> int:
        return self.count * _itemsize(self.dtype)


@dataclass(frozen=True)
class Tensor:
    """A strided view of a storage. Offset and strides count elements."""

    dtype: str
    shape: Shape
    strides: tuple[int, ...] = ()
    offset: int = 0
    storage: Storage | None = None
    fault: str = ""
    """Description of a tensor that cannot be read."""


@dataclass(frozen=True)
class Extent:
    """Position and size of bytes in a file."""

    start: int
    size: int
    crc: int = 0
    """0 if the file has none: PyTorch omits it after `torch.serialization.set_crc32_options(False)`."""


@dataclass(frozen=True)
class Contents:
    """The saved object, and the way to its numbers."""

    root: Any
    extent: Callable[[str], Extent]
    """Returns a storage's bytes, by its key."""
    byte_order: str = "<"


def read(file: BinaryIO, path: Path, entry: str | None = None) -> StoredWeights:
    """Return the tensors of the one state_dict in a file, under their own names.

    The state_dict may be an entry of a checkpoint. Numbers of optimizers, integer scalars such as BatchNorm's counters,
    and entries other than tensors are left out.

    Args:
        entry: dotted path of the state_dict in a checkpoint, such as `state_dict` or `checkpoint.model_ema`; `.` is the
            saved object itself. Without it, the file must have exactly one.

    Raises:
        ParametersError: if the file is damaged or has no state_dict, or several and no `entry`; the message follows the
            file's name.
    """
    with _one_line_errors():
        file.seek(0)
        contents = _read_zip(file) if file.read(4) == b"PK\x03\x04" else _read_stream(file)
        keys, state = _select(contents.root, entry)
        tensors = {name: _stored(name, value, contents, file) for name, value in state.items()
                   if isinstance(value, Tensor) and not (value.dtype in INTEGERS and value.shape == ())}
    return StoredWeights(tensors, notes=(f"weights of the entry {'.'.join(keys)!r}",) if keys else ())


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except ParametersError:
        raise
    except Exception as error:  # whatever zipfile, pickletools, struct and the interpreter raise for a damaged file
        reason = str(error) if isinstance(error, (ValueError, OSError, zipfile.BadZipFile)) else "its pickle is damaged"
        raise ParametersError(f"cannot be read as a PyTorch file ({' '.join(reason.split())}); use another copy, or "
                              f"{STATE_DICT}") from error


# Files


def _read_zip(file: BinaryIO) -> Contents:
    """Return the contents of an archive: `*/data.pkl`, and the storages `*/data/KEY`."""
    with files.open_zip(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) < len(archive.infolist()):
            raise ValueError("two entries of the archive have one name")
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if any(name.endswith(("/models/model.json", "serialized_exported_program.json")) for name in entries):
        raise ParametersError("is an exported program; save its weights with "
                              "torch.save(torch.export.load(FILE).state_dict, NEW)")
    if len(pickles) != 1:
        raise ValueError(f"the archive has {len(pickles)} entries data.pkl, not 1")
    folder = pickles[0].removesuffix("data.pkl")

    def extent(name: str) -> Extent:
        entry = entries.get(folder + name)
        if entry is None:
            raise ValueError(f"the archive has no {name}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
            raise ParametersError(f"is a compressed archive; {SAVE_AGAIN}")
        file.seek(entry.header_offset)
        name_length, extra_length = struct.unpack("<26xHH", file.read(30))
        start = entry.header_offset + 30 + name_length + extra_length
        if start + entry.file_size > file.seek(0, io.SEEK_END):
            raise ValueError("it ends too early")
        return Extent(start, entry.file_size, entry.CRC)

    def content(name: str) -> bytes:
        where = extent(name)
        if where.size > MOST_BYTES:
            raise ValueError(f"{name} has more than {MOST_BYTES:,} bytes")
        return _bytes(file, where, 0, where.size)

    order = content("byteorder") if folder + "byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise ValueError("its byte order is neither little nor big")
    root = _interpreter({}).run(io.BytesIO(content("data.pkl")))
    return Contents(root, lambda key: extent(f"data/{key}"), "<" if order == b"little" else ">")


def _read_stream(file: BinaryIO) -> Contents:
    """Return the contents of a file of PyTorch before 1.6: five pickles in a row, then each storage's count and bytes.
    Its byte order is little on every machine."""
    file.seek(0)
    stream = io.BytesIO(file.read(MOST_BYTES))
    if stream.getvalue()[257:262] == b"ustar":
        raise ParametersError("is a tar archive of PyTorch's first versions, which PyTorch itself reads only by "
                              "unpickling; use a newer copy of the weights")
    storages: dict[str, Storage] = {}
    interpreter = _interpreter(storages)
    if interpreter.run(stream) != MAGIC or interpreter.run(stream) != VERSION:
        raise ValueError("it does not begin like one")
    interpreter.run(stream)  # properties of the machine that wrote the file
    root, keys = interpreter.run(stream), interpreter.run(stream)
    if not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise ValueError("its list of storages does not match its tensors")
    extents: dict[str, Extent] = {}
    position = stream.tell()
    for key in keys:
        storage = storages[key]
        file.seek(position)
        if struct.unpack("<q", file.read(8)) != (storage.count,):
            raise ValueError("a storage has another size than its tensors")
        extents[key] = Extent(position + 8, storage.size)
        position += 8 + storage.size
    if position > file.seek(0, io.SEEK_END):
        raise ValueError("it ends too early")
    return Contents(root, extents.__getitem__)


def _bytes(file: BinaryIO, extent: Extent, first: int, size: int) -> bytes:
    """Return a part of an extent, after comparing the whole with its checksum."""
    if extent.crc:
        file.seek(extent.start)
        crc, left = 0, extent.size
        while left > 0 and (chunk := file.read(min(left, 2**20))):
            crc, left = zlib.crc32(chunk, crc), left - len(chunk)
        if crc != extent.crc:
            raise ValueError("a checksum does not match")
    file.seek(extent.start + first)
    content = file.read(size)
    if len(content) < size:
        raise ValueError("it ends too early")
    return content


# The state_dict


def _select(root: Any, entry: str | None) -> tuple[Keys, Mapping[str, Any]]:
    """Return path and entries of the one state_dict, or of the one that `entry` names."""
    if isinstance(root, Placeholder):
        if not root.name.startswith("__torch__"):
            raise ParametersError(f"is a {root.name.replace(' ', '.')}, not a state_dict; {STATE_DICT}")
        root = dict(_script_parameters(root, (), set()))
    candidates = list(_state_dicts(root, (), set()))
    named = [(keys, state) for keys, state in candidates if entry in (None, ".".join(keys) or ".")]
    if len(named) == 1:
        return named[0]
    if not candidates:
        raise ParametersError(f"contains no state_dict; {STATE_DICT}")
    names = ", ".join(repr('.'.join(keys) or '.') for keys, _ in candidates[:MOST_NAMED])
    names += f" and {len(candidates) - MOST_NAMED:,} more" if len(candidates) > MOST_NAMED else ""
    if not named:
        raise ParametersError(f"has no state_dict {entry!r}; name one of {names} with `entry`")
    raise ParametersError(f"contains several state_dicts: {names}; use `convert` with `entry` to name one")


def _state_dicts(value: Any, keys: Keys, seen: set[int]) -> Iterator[tuple[Keys, Mapping[str, Any]]]:
    """Yield path and entries of each mapping with floating-point tensors of two or more axes: a checkpoint's accuracy
    is a tensor, too. An object in several places is yielded once."""
    if not isinstance(value, (dict, list, tuple)) or id(value) in seen or len(keys) > DEEPEST:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        if not OPTIMIZER.isdisjoint(value):
            return
        if any(isinstance(each, Tensor) and (each.fault or (each.dtype in FLOATS and len(each.shape) > 1))
               for each in value.values()):
            if any(isinstance(each, Tensor) and not isinstance(name, str) for name, each in value.items()):
                raise ValueError("it has a tensor without a name")
            yield keys, value
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(key, (str, int)) and not OPTIMIZER_KEY.match(str(key)):
            yield from _state_dicts(inner, (*keys, str(key)), seen)


def _script_parameters(module: Placeholder, keys: Keys, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors of a TorchScript module, which is an object whose attributes are tensors and modules."""
    state = module.state if isinstance(module.state, dict) else {}
    inner = {key: value for key, value in state.items()
             if isinstance(key, str) and isinstance(value, (Tensor, Placeholder))}
    if inner and (id(module) in seen or len(keys) > DEEPEST):
        raise ParametersError(f"is a TorchScript model with a layer in several places; {STATE_DICT}")
    seen.add(id(module))
    for key, value in inner.items():
        if isinstance(value, Tensor):
            yield ".".join((*keys, key)), value
        else:
            yield from _script_parameters(value, (*keys, key), seen)


# Tensors


def _itemsize(dtype: str) -> int:
    return SIZES.get(dtype) or np.dtype(dtype).itemsize


def _stored(name: str, tensor: Tensor, contents: Contents, file: BinaryIO) -> StoredTensor:
    """Return a tensor that can be loaded. Its view has been compared with the bytes in the file."""
    if tensor.fault or tensor.storage is None:
        raise ParametersError(f"{name} is {tensor.fault}; save ordinary float32 tensors")
    itemsize = _itemsize(tensor.dtype)
    count = math.prod(tensor.shape) and 1 + sum(  # elements from the first to the last
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides))
    extent = contents.extent(tensor.storage.key)
    if (tensor.offset + count) * itemsize > tensor.storage.size or tensor.storage.size > extent.size:
        raise ValueError(f"{name} is larger than its storage")
    dtype = np.dtype("uint16" if tensor.dtype == "bfloat16" else tensor.dtype)

    def load() -> NDArray[Any]:
        with _one_line_errors():
            content = _bytes(file, extent, tensor.offset * itemsize, count * itemsize)
            values = np.frombuffer(content, np.dtype(f"{contents.byte_order}{dtype.str[1:]}")).astype(dtype, copy=False)
            if tensor.dtype == "bfloat16":  # the first half of a float32
                values = widen(values)
            strides = [stride * values.itemsize for stride in tensor.strides]
            return np.lib.stride_tricks.as_strided(values, tensor.shape, strides, writeable=False)

    return StoredTensor(tensor.dtype, tensor.shape, load)


def _interpreter(storages: dict[str, Storage]) -> Interpreter:
    """Return an interpreter that builds tensors, and collects their storages by their keys."""
    def load(identifier: Any) -> Any:
        match identifier:
            case ("module", Placeholder() as kind, _, _):  # a class with its source, before 1.6
                return kind
            case ("storage", Placeholder() as kind, str() as key, _, int() as count) | \
                 ("storage", Placeholder() as kind, str() as key, _, int() as count, None):
                module, _, name = kind.name.partition(" ")
                dtype = STORAGES.get(name.removesuffix("Storage"))
                if module in ("torch", "torch.storage", "torch.cuda") and dtype and 0 <= count < 2**63:
                    storage = Storage(key, dtype, count)
                    if storages.setdefault(key, storage) == storage:
                        return storage
        raise ValueError("its pickle has an unknown storage, or one of two types")

    return Interpreter(_rebuild, load)


def _rebuild(function: str, arguments: tuple[Any, ...]) -> Any:
    """Return the tensor that a function of PyTorch would rebuild, or a placeholder for another function's result."""
    if function in ("torch._tensor _rebuild_from_type", "torch._tensor _rebuild_from_type_v2"):  # has attributes
        inner, kind, arguments, _ = arguments
        if kind.name in ("torch Tensor", "torch.nn.parameter Parameter", "torch.nn.parameter Buffer"):
            return _rebuild(inner.name, arguments)
        return Tensor("", (), fault=f"a tensor of class {kind.name.replace(' ', '.')}")
    module, _, name = function.partition(" ")
    if module != "torch._utils" or not name.startswith("_rebuild_"):
        return Placeholder(function)
    if name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        return _rebuild_tensor(name, arguments)
    if name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        return arguments[0]
    kinds = {"_rebuild_qtensor": "quantized", "_rebuild_sparse_tensor": "sparse", "_rebuild_nested_tensor": "nested",
             "_rebuild_meta_tensor_no_storage": "meta"}
    return Tensor("", (), fault=f"a {kinds.get(name, 'special')} tensor")


def _rebuild_tensor(function: str, arguments: tuple[Any, ...]) -> Tensor:
    """Return what `torch._utils._rebuild_tensor`, or its second or third version, would return."""
    storage, offset, shape, strides, *rest = arguments[:9]
    dtype: str = rest.pop(2).name.removeprefix("torch ") if function.endswith("_v3") else storage.dtype
    if not (len(shape) == len(strides) <= MOST_AXES) or not isinstance(storage, Storage) or not all(
            isinstance(number, int) and 0 <= number < 2**63 for number in (offset, *shape, *strides)):
        raise ValueError("a tensor has an impossible shape")
    fault = "" if dtype in FLOATS + INTEGERS else f"a tensor of {dtype}"
    if any(rest[2:]):  # after requires_grad and hooks
        fault = "a conjugated or negated view"
    return Tensor(dtype, tuple(shape), tuple(strides), offset, storage, fault)
