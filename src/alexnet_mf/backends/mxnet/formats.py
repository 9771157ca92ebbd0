"""Gluon's weights files: `.params`, as `save_parameters` writes them. `weights.formats.gluon` reads them."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from pathlib import Path
from typing import Any

import mxnet as mx
from numpy.typing import NDArray

from alexnet_mf import spec
from alexnet_mf.backends.mxnet import network as native
from alexnet_mf.backends.mxnet import weights
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.layers import Conv2d, Dense, Flatten, Layer, Normalize
from alexnet_mf.weights.formats import gluon
from alexnet_mf.weights.parameters import Parameters

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
    tensors = {name: tensor.load() for name, tensor in gluon.read_tensors(io.BytesIO(content)).items()}
    canonical = other_names(network)
    renamed = {name: canonical.get(name.removeprefix("arg:"), name) for name in tensors}
    return {name if renamed[name] != name and renamed[name] in tensors else renamed[name]: value
            for name, value in tensors.items()}


def other_names(network: Network) -> dict[str, str]:
    """Return the canonical name for each name in Gluon's files.

    A `Sequential` numbers its blocks, which contain their activations, and Dense flattens by itself; the book keeps it
    in `net`. Older files have a block's prefix instead: `conv1_weight`.
    """
    result: dict[str, str] = {}
    blocks = [layer for layer in _without_normalization(network) if not isinstance(layer, Flatten)]
    for position, layer in enumerate(blocks):
        if isinstance(layer, (Conv2d, Dense)):
            for part in ("weight", "bias"):
                for theirs in (f"{position}.{part}", f"net.{position}.{part}", f"{layer.name}_{part}"):
                    result[theirs] = f"{layer.name}.{part}"
    return result | {f"{theirs}.{part}": f"{name}.{part}" for theirs, name in MODEL_ZOO.items()
                     for part in ("weight", "bias")}


def _without_normalization(network: Network) -> tuple[Layer, ...]:
    return tuple(layer for layer in network.layers if not isinstance(layer, Normalize))
