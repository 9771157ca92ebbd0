"""Copy canonical parameters to Gluon and back. The layout is the same; names have _ for the dot."""

from __future__ import annotations

from collections.abc import Mapping

import mxnet as mx
import numpy as np
from mxnet.gluon import nn
from numpy.typing import NDArray

from alexnet_mf.weights.parameters import Parameters


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
    return {name: parameter.grad().asnumpy() for name, parameter in named_parameters(net).items()}


def named_parameters(net: nn.HybridSequential) -> dict[str, mx.gluon.Parameter]:
    """Return the parameters by their canonical names: `conv1_weight` is conv1.weight."""
    return {".".join(name.rsplit("_", 1)): parameter for name, parameter in net.collect_params().items()}
