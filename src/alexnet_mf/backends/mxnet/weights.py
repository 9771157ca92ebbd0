"""Canonical parameters to Gluon and back. MXNet's layout is the canonical one; its names have _ for the dot."""

from __future__ import annotations

from collections.abc import Mapping

import mxnet as mx
import numpy as np
from mxnet.gluon import nn
from numpy.typing import NDArray

from alexnet_mf.weights.parameters import Parameters


def load(net: nn.HybridSequential, parameters: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy canonical parameters into the initialised network."""
    for name, parameter in named_parameters(net).items():
        parameter.set_data(mx.nd.array(parameters[name], dtype="float32"))


def export(net: nn.HybridSequential) -> Parameters:
    """The network's parameters, copied to canonical arrays."""
    # Inference reorders weights for oneDNN behind one's back; to read them in that moment crashes, now and then.
    mx.nd.waitall()
    return {name: parameter.data().asnumpy() for name, parameter in named_parameters(net).items()}


def export_gradients(net: nn.HybridSequential) -> Parameters:
    """The gradients of the last backward pass, copied to canonical arrays."""
    return {name: parameter.grad().asnumpy() for name, parameter in named_parameters(net).items()}


def named_parameters(net: nn.HybridSequential) -> dict[str, mx.gluon.Parameter]:
    """The parameters under their canonical names: `conv1_weight` is conv1.weight."""
    return {".".join(name.rsplit("_", 1)): parameter for name, parameter in net.collect_params().items()}
