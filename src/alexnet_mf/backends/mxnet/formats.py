"""Gluon's weights files: `.params`, as `save_parameters` writes and `load_parameters` reads them.

MXNet writes them. This module reads them: MXNet's own reader trusts a file's sizes before it has seen the bytes.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import tempfile
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import nn
from numpy.typing import NDArray

from alexnet_mf import spec
from alexnet_mf.backends.mxnet import network as native
from alexnet_mf.backends.mxnet import weights
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.layers import Layer, Normalize
from alexnet_mf.weights.parameters import STATE, Parameters

# src/ndarray/ndarray.cc and src/c_api/c_api.cc of MXNet 1.9.1.
LIST_MAGIC = 0x112
ARRAY_MAGICS = (0xF993FAC9, 0xF993FACA)
"""Versions 2 and 3, which differ in the meaning of an empty shape."""
DENSE = 0
DTYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")
"""Dtypes by mshadow's type flags."""
LARGEST_RANK = 32

MODEL_ZOO = {"features.0": "conv1", "features.2": "conv2", "features.4": "conv3", "features.5": "conv4",
             "features.6": "conv5", "features.9": "fc6", "features.11": "fc7", "output": "fc8"}
"""Names in the model zoo's AlexNet, which is `alexnet-owt`."""
ZOO = "gluon-zoo"


def encode(file_format: str, network: Network, parameters: Parameters) -> bytes:
    """Return the file that Gluon's `save_parameters` writes, for the network or for the model zoo's AlexNet.

    The network is saved without its normalization, which in Gluon is a transform of the data, not a block.

    Raises:
        ParametersError: for the model zoo's names of another network.
    """
    if file_format == ZOO and spec.digest(network) != spec.digest(zoo.ALEXNET_OWT):
        raise ParametersError(f"the model zoo's AlexNet is alexnet-owt, not {network.name}; "
                              "use `destination_format='gluon'`")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.params"
        if file_format == ZOO:
            mx.nd.save(str(path), {f"{theirs}.{part}": mx.nd.array(parameters[f"{name}.{part}"])
                                   for theirs, name in MODEL_ZOO.items() for part in ("weight", "bias")})
        else:
            net = native.build(dataclasses.replace(network, layers=_without_normalization(network)))
            net.initialize(mx.init.Zero())
            weights.load(net, parameters)
            net.save_parameters(str(path))
        return path.read_bytes()


def decode(content: bytes, network: Network) -> dict[str, NDArray[Any]]:
    """Return the tensors, under their canonical names if they have one.

    Raises:
        ParametersError: if it is not such a file.
    """
    try:
        tensors = parse(content)
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise ParametersError(f"cannot be read as Gluon's parameters ({error}); write them with "
                              "net.save_parameters") from error
    canonical = other_names(network)
    renamed = {name: canonical.get(name.removeprefix("arg:"), name) for name in tensors}
    return {name if renamed[name] != name and renamed[name] in tensors else renamed[name]: value
            for name, value in tensors.items()}


def other_names(network: Network) -> dict[str, str]:
    """Return the canonical name for each name in Gluon's files.

    A `Sequential` numbers its blocks, which contain most activations, and Dense flattens by itself; the book keeps it
    in `net`. Older files have a block's prefix instead: `conv1_weight`.
    """
    result: dict[str, str] = {}
    blocks = native.blocks(dataclasses.replace(network, layers=_without_normalization(network)))
    for position, (layer, block) in enumerate(blocks):
        if isinstance(block, (nn.Conv2D, nn.Dense, nn.BatchNorm)):
            for part in ("weight", "bias", *weights.PARTS, *STATE):
                for theirs in (f"{position}.{part}", f"net.{position}.{part}", f"{layer.name}_{part}"):
                    result[theirs] = f"{layer.name}.{weights.PARTS.get(part, part)}"
    return result | {f"{theirs}.{part}": f"{name}.{part}" for theirs, name in MODEL_ZOO.items()
                     for part in ("weight", "bias")}


def _without_normalization(network: Network) -> tuple[Layer, ...]:
    return tuple(layer for layer in network.layers if not isinstance(layer, Normalize))


def parse(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the named arrays of a file of NDArrays, as views of its bytes.

    Raises:
        ValueError: if it is not such a file.
        struct.error: if it ends too early.
    """
    magic, _, count = struct.unpack_from("<QQQ", content)
    if magic != LIST_MAGIC:
        raise ValueError("it does not begin with the right number")
    position, arrays = 24, []
    for _ in range(count):
        array, position = _array(content, position)
        arrays.append(array)
    (names,) = struct.unpack_from("<Q", content, position)
    position += 8
    if names != len(arrays):
        raise ValueError(f"{len(arrays)} arrays have {names} names")
    tensors: dict[str, NDArray[Any]] = {}
    for array in arrays:
        (length,) = struct.unpack_from("<Q", content, position)
        name = content[position + 8:position + 8 + length].decode()
        position += 8 + length
        if name in tensors:
            raise ValueError(f"two arrays are named {name!r}")
        tensors[name] = array
    if position != len(content):
        raise ValueError("its size does not match its header")
    return tensors


def _array(content: bytes, position: int) -> tuple[NDArray[Any], int]:
    """Return the array at a position, and the position of its end."""
    magic, storage, rank = struct.unpack_from("<IiI", content, position)
    if magic not in ARRAY_MAGICS or storage != DENSE or not 0 < rank <= LARGEST_RANK:
        raise ValueError("it contains an array that is empty, sparse or of a version before 1.0")
    position += 12
    shape = struct.unpack_from(f"<{rank}q", content, position)
    position += 8 * rank
    _, _, flag = struct.unpack_from("<iii", content, position)  # the device, which does not matter here
    position += 12
    if not 0 <= flag < len(DTYPES) or min(shape) < 1:
        raise ValueError(f"it contains an array of type {flag} and shape {shape}")
    dtype, size = np.dtype(DTYPES[flag]), math.prod(shape)
    end = position + size * dtype.itemsize
    if end > len(content):
        raise ValueError("it ends too early")
    return np.frombuffer(content, dtype, size, position).reshape(shape), end
