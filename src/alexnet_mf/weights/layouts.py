"""Convert tensors between the canonical layout and TensorFlow's: HWIO convolutions, (in, out) dense weights, flattened
from height, width, channels."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.layers import BatchNorm, Dense, Flatten, Shape
from alexnet_mf.weights.parameters import parts


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
    of the dense weight that takes it, and of batch normalizations before it."""
    images = flattened_outputs(network)
    result = {f"{layer.name}.weight": images[before.name] for before, layer in zip(network.layers, network.layers[1:])
              if isinstance(layer, Dense) and before.name in images}
    return result | {f"{layer.name}.{part}": images[layer.name] for layer in network.layers
                     if isinstance(layer, BatchNorm) and layer.name in images for part in parts(layer)}


def to_native(value: NDArray[Any], image: Shape | None) -> NDArray[Any]:
    """Return a canonical tensor in TensorFlow's layout.

    Args:
        image: the (channels, height, width) whose flattened order the tensor has; None for any other tensor.
    """
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 2 and image is not None:
        units = len(value)
        return value.reshape(units, *image).transpose(2, 3, 1, 0).reshape(-1, units)
    if value.ndim == 1 and image is not None:
        return value.reshape(image).transpose(1, 2, 0).reshape(-1)
    return value.T


def to_canonical(value: NDArray[Any], image: Shape | None) -> NDArray[Any]:
    """Return one of TensorFlow's tensors in canonical layout; `image` is as for `to_native`."""
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


def canonical_shape(shape: Shape) -> Shape:
    """Return the shape that `to_canonical` gives."""
    if len(shape) == 4:
        return (shape[3], shape[2], *shape[:2])
    return shape[::-1] if len(shape) == 2 else shape
