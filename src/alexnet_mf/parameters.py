"""Canonical parameters: the one form in which weights travel between frameworks.

A mapping from `conv1.weight`, `conv1.bias`, ... to float32 arrays: convolution weights (out, in, height, width), dense
weights (out, in) with the input flattened in channel, height, width order, biases (out,). Drawn by NumPy from a seed,
outside the frameworks, so that every backend starts from the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialise

from alexnet_mf import arithmetic, files
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Conv2d, Dense, Network, Shape

Parameters: TypeAlias = dict[str, NDArray[np.float32]]


def shapes(network: Network) -> dict[str, Shape]:
    """The canonical name and shape of every parameter, in the network's order."""
    inputs = arithmetic.input_shapes(network)
    result: dict[str, Shape] = {}
    for layer in network.layers:
        if isinstance(layer, (Conv2d, Dense)):
            result[f"{layer.name}.weight"] = shape = arithmetic.weight_shape(layer, inputs[layer.name])
            result[f"{layer.name}.bias"] = shape[:1]
    return result


def _stream(seed: int, name: str) -> np.random.Generator:
    """A stream of its own for each tensor, so that one layer's numbers do not depend on another's size."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()),))))


def _uniform(seed: int, name: str, shape: Shape, bound: float) -> NDArray[np.float32]:
    draws = _stream(seed, name).random(shape, dtype=np.float32)
    return (draws * np.float32(2) - np.float32(1)) * np.float32(bound)


def _fans(weight: Shape) -> tuple[int, int]:
    receptive = math.prod(weight[2:])
    return weight[1] * receptive, weight[0] * receptive


def initialise(network: Network, seed: int, *, random_biases: bool = False) -> Parameters:
    """Xavier-uniform weights, bound sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010), and the network's biases.

    Args:
        seed: any non-negative whole number; the same seed gives the same bits everywhere.
        random_biases: uniform biases of +-0.1 whatever the network says, for parity: a bias of zero hides its loss.
    """
    result: Parameters = {}
    for name, shape in shapes(network).items():
        if name.endswith(".weight"):
            fan_in, fan_out = _fans(shape)
            result[name] = _uniform(seed, name, shape, math.sqrt(6 / (fan_in + fan_out)))
        elif random_biases:
            result[name] = _uniform(seed, name, shape, 0.1)
        elif network.bias_initialisation == "uniform_fan_in":  # PyTorch's default: +-1 / sqrt(fan_in)
            result[name] = _uniform(seed, name, shape, 1 / math.sqrt(fan_in))
        else:
            result[name] = np.zeros(shape, np.float32)
    return result


def check(parameters: Mapping[str, NDArray[np.generic]], network: Network, where: str = "parameters") -> None:
    """Make sure that the parameters are this network's: names, shapes, float32, finite.

    Raises:
        ParametersError: names every tensor that is missing, surplus, mis-shaped, of another dtype or not finite.
    """
    expected = shapes(network)
    faults = [f"missing {name}" for name in expected if name not in parameters]
    faults += [f"surplus {name}" for name in parameters if name not in expected]
    for name, shape in expected.items():
        value = parameters.get(name)
        if value is None:
            continue
        if value.shape != shape:
            faults.append(f"{name} is {value.shape}, not {shape}")
        elif value.dtype != np.float32:
            faults.append(f"{name} is {value.dtype}, not float32")
        elif not np.isfinite(value).all():
            faults.append(f"{name} holds NaN or infinity")
    if faults:
        raise ParametersError(f"{where}: not the parameters of {network.name}: {'; '.join(faults)}")


def digest(parameters: Mapping[str, NDArray[np.generic]]) -> str:
    """SHA-256 over names, dtypes, shapes and bits: equal digests, equal parameters."""
    total = hashlib.sha256()
    for name in sorted(parameters):
        value = np.ascontiguousarray(parameters[name])
        total.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        total.update(value.data)
    return total.hexdigest()


def save(path: Path, parameters: Parameters, metadata: Mapping[str, object] | None = None) -> None:
    """Write what `to_bytes` gives. The file is whole or not there: one that was there before stays until then.

    Raises:
        ParametersError: where the file cannot be written.
    """
    try:
        files.write(path, to_bytes(parameters, metadata))
    except OSError as error:
        raise ParametersError(f"{path}: cannot be written ({error.strerror}); name another file") from error


def to_bytes(parameters: Parameters, metadata: Mapping[str, object] | None = None) -> bytes:
    """Safetensors in canonical layout, with `metadata` as JSON and a checksum in the header."""
    tensors = {name: np.ascontiguousarray(value) for name, value in parameters.items()}
    text = json.dumps(metadata or {})
    return serialise(tensors, {"alexnet_mf": text, "sha256": _checksum(tensors, text)})


def load(path: Path, network: Network) -> Parameters:
    """Read and check safetensors in canonical layout; nothing is unpickled.

    Raises:
        ParametersError: where the file is missing, damaged, or not this network's.
    """
    return load_with_metadata(path, network)[0]


def load_with_metadata(path: Path, network: Network) -> tuple[Parameters, dict[str, Any]]:
    """The same, with what `save` was given as metadata; {} for another program's file.

    Raises:
        ParametersError: as `load`.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            parameters = {name: file.get_tensor(name) for name in file.keys()}
            header = file.metadata() or {}
    except (OSError, SafetensorError, TypeError) as error:  # TypeError: a dtype that NumPy lacks, such as bfloat16
        raise ParametersError(f"{path}: cannot be read as safetensors ({error}); give a file that this program or "
                              f"the safetensors library wrote") from error
    check(parameters, network, str(path))
    text = header.get("alexnet_mf")
    if text is None:
        return parameters, {}
    if "sha256" in header and header["sha256"] != _checksum(parameters, text):  # files of version 0.1 have none
        raise ParametersError(f"{path}: is damaged: its checksum does not fit; take another copy")
    return parameters, dict(json.loads(text))


def _checksum(parameters: Mapping[str, NDArray[np.generic]], text: str) -> str:
    return hashlib.sha256(f"{digest(parameters)} {text}".encode()).hexdigest()
