"""Gluon's weights files: `.params`, as `save_parameters` writes and `load_parameters` reads them."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import mxnet as mx

from alexnet_mf.backends.mxnet import network as native
from alexnet_mf.backends.mxnet import weights
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network
from alexnet_mf.weights import names
from alexnet_mf.weights.parameters import Parameters


def encode(file_format: str, network: Network, parameters: Parameters) -> bytes:
    """Return the file that Gluon's `save_parameters` writes, for the network, the book's class, or the model zoo's
    AlexNet.

    The network is saved without its normalization, which in Gluon is a transform of the data, not a block.

    Raises:
        ParametersError: for the model zoo's names of another network.
    """
    modules = {}
    if file_format == "gluon-zoo":
        if not names.is_alexnet_owt(network):
            raise ParametersError(f"the model zoo's AlexNet is alexnet-owt, not {network.name}; "
                                  "use `destination_format='gluon'`")
        modules = names.model_zoo(network)
    elif file_format == "gluon-book":
        modules = {layer: f"net.{number}" for layer, number in names.blocks(network).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.params"
        net = native.build(dataclasses.replace(network, layers=names.without_normalization(network)))
        net.initialize(mx.init.Zero())
        weights.load(net, parameters)
        if modules:
            mx.nd.save(str(path), {f"{modules[layer]}.{parameter.name.removeprefix(f'{layer}_')}": parameter.data()
                                   for name, parameter in weights.named_parameters(net).items()
                                   for layer in [name.partition(".")[0]]})
        else:
            net.save_parameters(str(path))
        return path.read_bytes()
