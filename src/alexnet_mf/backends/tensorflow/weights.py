"""Convert canonical parameters to Keras's layout and back: HWIO convolutions, (in, out) dense, flattened from HWC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import Sequential, layers
from numpy.typing import NDArray

from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.layers import BatchNorm, Dense, Flatten, Shape
from alexnet_mf.weights.parameters import Parameters, is_trained

NORMALIZATION = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
"""Keras's names for the parameters of batch normalization."""


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


def variables(net: Sequential) -> dict[str, Any]:
    """Return the variables by their canonical names, in the network's order."""
    result: dict[str, Any] = {}
    for layer in net.layers:
        if isinstance(layer, layers.BatchNormalization):
            result |= {f"{layer.name}.{part}": getattr(layer, name) for part, name in NORMALIZATION.items()}
        elif layer.trainable_variables:
            result[f"{layer.name}.weight"] = layer.kernel
            if layer.use_bias:
                result[f"{layer.name}.bias"] = layer.bias
    return result


def trained(net: Sequential) -> dict[str, Any]:
    """Return the variables that gradients change."""
    return {name: variable for name, variable in variables(net).items() if is_trained(name)}


def flattened_outputs(network: Network) -> dict[str, Shape]:
    """Return the (channels, height, width) of the image behind each layer's flat output, up to the next Dense."""
    inputs = arithmetic.input_shapes(network)
    result: dict[str, Shape] = {}
    image: Shape | None = None
    for layer in network.layers:
        if isinstance(layer, Flatten):
            image = inputs[layer.name]
        elif isinstance(layer, Dense):
            image = None
        if image is not None:
            result[layer.name] = image
    return result


def flattened_shapes(network: Network) -> dict[str, Shape]:
    """Return the (channels, height, width) of each flattened image, by the names of the parameters in its order: those
    of the dense weight that takes it, and of batch normalizations before it.
    """
    images = flattened_outputs(network)
    result = {f"{layer.name}.weight": images[before.name] for before, layer in zip(network.layers, network.layers[1:])
              if isinstance(layer, Dense) and before.name in images}
    return result | {f"{layer.name}.{part}": images[layer.name] for layer in network.layers
                     if isinstance(layer, BatchNorm) and layer.name in images for part in NORMALIZATION}


def to_native(value: NDArray[Any], image: Shape | None) -> NDArray[Any]:
    """Return a canonical tensor in Keras's layout."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 2 and image is not None:
        units = len(value)
        return value.reshape(units, *image).transpose(2, 3, 1, 0).reshape(-1, units)
    if value.ndim == 1 and image is not None:
        return value.reshape(image).transpose(1, 2, 0).reshape(-1)
    return value.T


def to_canonical(value: NDArray[Any], image: Shape | None) -> NDArray[Any]:
    """Return one of Keras's tensors in canonical layout."""
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if value.ndim == 2 and image is not None:
        channels, height, width = image
        units = value.shape[1]
        return value.reshape(height, width, channels, units).transpose(3, 2, 0, 1).reshape(units, -1)
    if value.ndim == 1 and image is not None:
        channels, height, width = image
        return value.reshape(height, width, channels).transpose(2, 0, 1).reshape(-1)
    return value.T


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
