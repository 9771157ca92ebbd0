"""Copy canonical parameters to PyTorch and back. Layout and names are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from alexnet_mf.weights.parameters import COUNTER, Parameters, is_trained


def load(net: nn.Sequential, parameters: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy canonical parameters into the network."""
    net.load_state_dict({name: torch.tensor(value) for name, value in parameters.items()})


def export(net: nn.Sequential) -> Parameters:
    """Return the network's parameters and running statistics, copied to canonical arrays."""
    return {name: value.cpu().numpy().copy() for name, value in net.state_dict().items()
            if not name.endswith(COUNTER)}


def export_gradients(net: nn.Sequential) -> Parameters:
    """Return the gradients of the last backward pass, copied to canonical arrays."""
    return {name: value.grad.cpu().numpy().copy() for name, value in net.named_parameters() if value.grad is not None}


@contextmanager
def keeping_statistics(net: nn.Sequential) -> Iterator[None]:
    """Restore the running statistics of batch normalization at the end."""
    before = [(value, value.clone()) for name, value in net.state_dict().items() if not is_trained(name)]
    try:
        yield
    finally:
        for value, kept in before:
            value.copy_(kept)
