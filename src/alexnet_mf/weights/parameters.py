"""Canonical parameters: the one form in which weights travel between frameworks.

A mapping from `conv1.weight`, `conv1.bias`, ... to float32 arrays: convolution weights (out, in, height, width), dense
weights (out, in) with the input flattened in channel, height, width order, biases (out,). Batch normalization has a
weight and a bias for each channel, and two arrays of state that no gradient changes: `norm1.running_mean` and
`norm1.running_var`. NumPy draws the parameters from a seed, outside the frameworks, so every backend starts from the
same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from alexnet_mf import files
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.layers import BatchNorm, Conv2d, Dense, Learner, Shape
from alexnet_mf.weights import tensor_file

Parameters: TypeAlias = dict[str, NDArray[np.float32]]

KEY = "alexnet_mf.weights"
"""Key of the metadata and checksum in a safetensors header, as JSON. They share one entry, because the safetensors
library writes several in an order that differs from process to process."""
DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16", "I32": "int32", "I64": "int64"}
"""NumPy's names for those safetensors dtypes that weights are likely to have."""
STATE = "running_mean", "running_var"
"""Last parts of the names of running statistics."""
COUNTER = ".num_batches_tracked"
"""End of the name of PyTorch's count of batches, which batch normalization uses only without a momentum."""
MOST_NAMED, LONGEST_NAME = 12, 80
"""Largest number of tensors that an error names, and largest length of a name that it quotes from a file."""


def shapes(network: Network) -> dict[str, Shape]:
    """Return the canonical name and shape of every parameter, in the network's order."""
    inputs = arithmetic.input_shapes(network)
    result: dict[str, Shape] = {}
    for layer in network.layers:
        if isinstance(layer, (Conv2d, Dense)):
            shape = arithmetic.weight_shape(layer, inputs[layer.name])
            result |= {f"{layer.name}.{part}": shape if part == "weight" else shape[:1] for part in parts(layer)}
        elif isinstance(layer, BatchNorm):
            result |= {f"{layer.name}.{part}": inputs[layer.name][:1] for part in parts(layer)}
    return result


def parts(layer: Learner) -> list[str]:
    """Return the last parts of the names of a layer's parameters and running statistics."""
    if isinstance(layer, BatchNorm):
        return ["weight", "bias", *STATE]
    return ["weight", "bias"] if layer.bias else ["weight"]


def is_trained(name: str) -> bool:
    """Return True for the name of a parameter that gradients change, False for running statistics."""
    return name.rpartition(".")[2] not in STATE


def trained(network: Network) -> list[str]:
    """Return the canonical names of the parameters that gradients change, in the network's order."""
    return [name for name in shapes(network) if is_trained(name)]


def _uniform(seed: int, name: str, shape: Shape, bound: float) -> NDArray[np.float32]:
    """Draw from the tensor's own stream, so that one layer's numbers do not depend on another's size."""
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()),)))
    draws = np.random.Generator(bits).random(shape, dtype=np.float32)
    return (draws * np.float32(2) - np.float32(1)) * np.float32(bound)


def initialize(network: Network, seed: int, *, random_biases: bool = False) -> Parameters:
    """Draw Xavier-uniform weights, bound sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010), and biases.

    Batch normalization begins with weight 1, bias 0, and running statistics of mean 0 and variance 1.

    Args:
        seed: any non-negative integer; the same seed gives the same bits everywhere.
        random_biases: draw uniform biases and running means within +-0.1, not the network's, and weights and running
            variances of batch normalization within 1 +- 0.5. Parity cannot detect a lost bias of 0.
    """
    result: Parameters = {}
    normalizations = {layer.name for layer in network.layers if isinstance(layer, BatchNorm)}
    for name, shape in shapes(network).items():
        layer, _, part = name.rpartition(".")
        if layer in normalizations:
            usual, reach = (1, 0.5) if part in ("weight", "running_var") else (0, 0.1)
            result[name] = np.full(shape, usual, np.float32)
            if random_biases:
                result[name] += _uniform(seed, name, shape, reach)
        elif part == "weight":
            fan_out, fan_in = (size * math.prod(shape[2:]) for size in shape[:2])
            result[name] = _uniform(seed, name, shape, math.sqrt(6 / (fan_in + fan_out)))
        elif random_biases:
            result[name] = _uniform(seed, name, shape, 0.1)
        elif network.bias_initialisation == "uniform_fan_in":  # PyTorch's default: +-1 / sqrt(fan_in)
            result[name] = _uniform(seed, name, shape, 1 / math.sqrt(fan_in))
        else:
            result[name] = np.zeros(shape, np.float32)
    return result


def check(parameters: Mapping[str, NDArray[np.generic]], network: Network, where: str = "parameters") -> None:
    """Check that the parameters are this network's: names, shapes, float32, finite.

    Raises:
        ParametersError: if a tensor is missing, surplus, mis-shaped, of another dtype or not finite; names all of them.
    """
    expected = shapes(network)
    faults = _misfits({name: (value.dtype.name, value.shape) if isinstance(value, np.ndarray) else
                       (type(value).__name__, expected.get(name, ())) for name, value in parameters.items()}, network)
    faults |= {name: f"{name} contains NaN or infinity" for name, value in parameters.items()
               if name not in faults and not np.isfinite(value).all()}
    _refuse(faults, network, where)


def _misfits(tensors: Mapping[str, tuple[str, Shape]], network: Network) -> dict[str, str]:
    """Return the faults of tensors with these dtypes and shapes, by name."""
    expected = shapes(network)
    faults = {name: f"missing {name}" for name in expected if name not in tensors}
    faults |= {name: f"surplus {printable(name)}" for name in tensors if name not in expected}
    for name, wanted in expected.items():
        dtype, shape = tensors.get(name, ("float32", wanted))
        if shape != wanted:
            faults[name] = f"{name} is {shape}, not {wanted}"
        elif dtype != "float32":
            faults[name] = f"{name} is {dtype}, not float32"
    return faults


def _refuse(faults: Mapping[str, str], network: Network, where: str) -> None:
    if faults:
        raise ParametersError(f"{where}: {misfit(network, list(faults.values()))}")


def misfit(network: Network, faults: list[str]) -> ParametersError:
    """Return the error for tensors that are not the network's; it names the first faults."""
    more = f"; and {len(faults) - MOST_NAMED:,} more" if len(faults) > MOST_NAMED else ""
    return ParametersError(f"not the parameters of {network.name}: {'; '.join(faults[:MOST_NAMED])}{more}")


def printable(name: str) -> str:
    """Return a name from a file as part of one line."""
    short = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    return short if short.isprintable() else ascii(short)


def digest(parameters: Mapping[str, NDArray[np.generic]]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bits: equal digests mean equal parameters."""
    total = hashlib.sha256()
    for name in sorted(parameters):
        value = np.ascontiguousarray(parameters[name])
        total.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        total.update(value.data)
    return total.hexdigest()


def save(path: Path, parameters: Parameters, metadata: Mapping[str, object] | None = None) -> None:
    """Write the weights to a safetensors file, completely or not at all.

    Raises:
        AlexnetMfError: if the file cannot be written, or the metadata contain NaN or infinity.
    """
    files.write_result(path, *to_buffers(parameters, metadata))


def to_bytes(parameters: Parameters, metadata: Mapping[str, object] | None = None) -> bytes:
    """Return the content of the safetensors file as one bytes object."""
    return b"".join(to_buffers(parameters, metadata))


def to_buffers(parameters: Parameters, metadata: Mapping[str, object] | None = None) -> list[bytes | memoryview]:
    """Return safetensors in canonical layout, with metadata and a checksum in the header. Equal parameters and metadata
    give equal bytes.

    Raises:
        ParametersError: if the metadata contain NaN or infinity, which JSON does not have.
    """
    metadata = dict(metadata or {})
    try:
        json.dumps(metadata, allow_nan=False)
    except ValueError as error:
        raise ParametersError("`metadata` contains NaN or infinity; use finite numbers or null") from error
    about = json.dumps({"metadata": metadata, "sha256": _checksum(parameters, metadata)})
    return tensor_file.buffers(parameters, {KEY: about})


@dataclass(frozen=True)
class Header:
    """Header of a safetensors file."""

    tensors: dict[str, tuple[str, Shape]]
    """Dtype and shape, by name."""
    metadata: dict[str, Any]
    """The metadata that `save` received; {} in another program's file."""
    checksum: str | None
    """The file's own `_checksum`; None in another program's file."""


def read_header(path: Path) -> Header:
    """Return a file's header. The safetensors library has compared it with the file's size.

    Raises:
        ParametersError: if the file is missing or damaged.
    """
    with _opened(path) as file:
        return _header(file, path)


def fits(header: Header, network: Network) -> bool:
    """Return True if a file's tensors are the network's, by names, dtypes and shapes."""
    return not _misfits(header.tensors, network)


def load(path: Path, network: Network) -> Parameters:
    """Read and check safetensors in canonical layout. Nothing is unpickled.

    Raises:
        ParametersError: if the file is missing, damaged, or not this network's.
    """
    return load_with_metadata(path, network)[0]


def load_with_metadata(path: Path, network: Network) -> tuple[Parameters, dict[str, Any]]:
    """Read and check safetensors as `load` does, and return its metadata too.

    Raises:
        ParametersError: as `load`.
    """
    with _opened(path) as file:
        header = _header(file, path)
        _refuse(_misfits(header.tensors, network), network, str(path))  # before anything large is read
        parameters = {name: file.get_tensor(name) for name in shapes(network)}
    check(parameters, network, str(path))
    if header.checksum not in (None, _checksum(parameters, header.metadata)):
        raise ParametersError(f"{path}: is damaged: its checksum does not match; use another copy")
    return parameters, header.metadata


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        if path.exists() and not path.is_file():  # a folder, or a pipe, which would block
            raise OSError("not a regular file")
        with safe_open(path, framework="numpy") as file:
            yield file
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: a null byte in the path
        if isinstance(error, ParametersError):
            raise
        raise ParametersError(f"{path}: cannot be read as safetensors ({' '.join(str(error).split())}); name another "
                              "file") from error


def _header(file: Any, path: Path) -> Header:
    tensors = {}
    for name in file.keys():
        described = file.get_slice(name)
        dtype = described.get_dtype()
        tensors[name] = (DTYPES.get(dtype, dtype), tuple(described.get_shape()))
    entry = (file.metadata() or {}).get(KEY)
    if entry is None:
        return Header(tensors, {}, None)
    try:
        content = files.parse_json(entry)
        metadata, checksum = content["metadata"], content["sha256"]
        if not isinstance(metadata, dict) or not isinstance(checksum, str):
            raise TypeError("another type")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ParametersError(f"{path}: is damaged: the entry {KEY} of its header cannot be read; use another copy"
                              ) from error
    return Header(tensors, metadata, checksum)


def _checksum(parameters: Mapping[str, NDArray[np.generic]], metadata: Mapping[str, object]) -> str:
    return hashlib.sha256(f"{digest(parameters)} {json.dumps(metadata)}".encode()).hexdigest()
