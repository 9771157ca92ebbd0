"""Copy canonical parameters to Gluon and back. The layout is the same; names have _ for the dot, and batch
normalization has names of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import mxnet as mx
import numpy as np
from mxnet.gluon import nn
from numpy.typing import NDArray

from alexnet_mf.weights.names import CANONICAL
from alexnet_mf.weights.parameters import Parameters, is_trained


def load(net: nn.HybridSequential, parameters: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy canonical parameters into the initialized network."""
    for name, parameter in named_parameters(net).items():
        parameter.set_data(mx.nd.array(parameters[name], dtype="float32"))


def export(net: nn.HybridSequential) -> Parameters:
    """Return the network's parameters, copied to canonical arrays."""
    # Inference reorders weights for oneDNN in the background; reading them at that moment crashes now and then.
    mx.nd.waitall()
    return {name: parameter.data().asnumpy() for name, parameter in named_parameters(net).items()}


def export_gradients(net: nn.HybridSequential) -> Parameters:
    """Return the gradients of the last backward pass, copied to canonical arrays."""
    return {name: parameter.grad().asnumpy() for name, parameter in named_parameters(net).items() if is_trained(name)}


@contextmanager
def keeping_statistics(net: nn.HybridSequential) -> Iterator[None]:
    """Restore the running statistics of batch normalization at the end."""
    before = [(parameter, parameter.data().copy()) for name, parameter in named_parameters(net).items()
              if not is_trained(name)]
    try:
        yield
    finally:
        for parameter, kept in before:
            parameter.set_data(kept)


def named_parameters(net: nn.HybridSequential) -> dict[str, mx.gluon.Parameter]:
    """Return the parameters by their canonical names: `conv1_weight` is conv1.weight, `norm1_gamma` is norm1.weight."""
    result = {}
    for block in net:
        for name, parameter in block.collect_params().items():
            result[f"{block.prefix[:-1]}.{CANONICAL[name.removeprefix(block.prefix)]}"] = parameter
    return result
