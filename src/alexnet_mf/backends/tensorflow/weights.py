"""Copy canonical parameters to Keras and back, in its layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from keras import Sequential
from numpy.typing import NDArray

from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import Shape
from alexnet_mf.weights.layouts import flattened_shapes, to_canonical, to_native
from alexnet_mf.weights.names import CANONICAL
from alexnet_mf.weights.parameters import Parameters, is_trained


def load(net: Sequential, network: Network, parameters: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy canonical parameters into the network."""
    for name, variable in variables(net).items():
        variable.assign(to_native(parameters[name], flattened_shapes(network).get(name)))


def export(net: Sequential, network: Network) -> Parameters:
    """Return the network's parameters, copied to canonical arrays."""
    return export_values(variables(net), network)


def export_values(values: Mapping[str, Any], network: Network) -> Parameters:
    """Return native variables or gradients as canonical arrays."""
    flattened = flattened_shapes(network)
    return {name: np.ascontiguousarray(to_canonical(np.asarray(value), flattened.get(name)))
            for name, value in values.items()}


@contextmanager
def keeping_statistics(net: Sequential) -> Iterator[None]:
    """Restore the running statistics of batch normalization at the end."""
    before = [(variable, tf.identity(variable.value)) for name, variable in variables(net).items()
              if not is_trained(name)]
    try:
        yield
    finally:
        for variable, kept in before:
            variable.assign(kept)


def variables(net: Sequential) -> dict[str, Any]:
    """Return the variables by their canonical names, in the network's order."""
    return {f"{layer.name}.{CANONICAL[variable.name]}": variable for layer in net.layers for variable in layer.weights
            if variable.name in CANONICAL}  # not the state of dropout


def trained(net: Sequential) -> dict[str, Any]:
    """Return the variables that gradients change."""
    return {name: variable for name, variable in variables(net).items() if is_trained(name)}


def activations_to_canonical(value: NDArray[Any], image: Shape) -> NDArray[Any]:
    """Return a layer's output, NHWC or flattened from it, as NCHW or flattened in that order.

    Args:
        image: the (channels, height, width) that was flattened, or the output's own shape.
    """
    if value.ndim == 4:
        return np.ascontiguousarray(value.transpose(0, 3, 1, 2))
    if len(image) == 3:
        channels, height, width = image
        return value.reshape(-1, height, width, channels).transpose(0, 3, 1, 2).reshape(len(value), -1)
    return value
