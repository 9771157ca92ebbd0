"""What a network costs, from its spec alone: shapes, parameters and multiply-accumulates.

All figures are for one image.
"""

from __future__ import annotations

import math

from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import Conv2d, Dense, Layer, Shape, output_shape


def output_shapes(network: Network) -> dict[str, Shape]:
    """The shape of one image after each layer, by layer name."""
    shapes: dict[str, Shape] = {}
    shape: Shape = network.input
    for layer in network.layers:
        shape = shapes[layer.name] = output_shape(layer, shape)
    return shapes


def input_shapes(network: Network) -> dict[str, Shape]:
    """The shape of one image before each layer, by layer name."""
    outputs = list(output_shapes(network).values())
    return {layer.name: shape for layer, shape in zip(network.layers, [network.input, *outputs])}


def weight_shape(layer: Conv2d | Dense, inputs: Shape) -> Shape:
    """The canonical weight's shape: (out, in / groups, kernel, kernel) or (out, in)."""
    if isinstance(layer, Conv2d):
        return (layer.channels, inputs[0] // layer.groups, layer.kernel, layer.kernel)
    return (layer.units, inputs[0])


def parameter_count(layer: Layer, inputs: Shape) -> int:
    """Weights and biases of one layer."""
    if not isinstance(layer, (Conv2d, Dense)):
        return 0
    shape = weight_shape(layer, inputs)
    return math.prod(shape) + shape[0]


def parameter_counts(network: Network) -> dict[str, int]:
    """Weights and biases of each layer, by layer name."""
    inputs = input_shapes(network)
    return {layer.name: parameter_count(layer, inputs[layer.name]) for layer in network.layers}


def macs(network: Network) -> dict[str, int]:
    """Multiply-accumulates of each layer's forward pass over one image: convolutions and dense layers, biases and all
    other layers left out."""
    inputs, outputs = input_shapes(network), output_shapes(network)
    return {layer.name: math.prod(weight_shape(layer, inputs[layer.name])) * math.prod(outputs[layer.name][1:])
            if isinstance(layer, (Conv2d, Dense)) else 0
            for layer in network.layers}


def training_macs(network: Network) -> dict[str, int]:
    """Multiply-accumulates of each layer in a training step, an image: forward, and backward to weights and to inputs.

    Each of the three takes as many as the forward pass. The first layer with weights needs no gradient in its inputs:
    nothing below it learns.
    """
    forward = macs(network)
    first = next(layer.name for layer in network.layers if isinstance(layer, (Conv2d, Dense)))
    return {name: count * (2 if name == first else 3) for name, count in forward.items()}


def input_values(network: Network) -> int:
    """Pixels of all channels of one image, as the network is fed it."""
    return math.prod(network.input)


def training_values(network: Network, batch_size: int) -> int:
    """Numbers that a training step on a batch must hold: weights, gradients and momentum; and of each image the pixels,
    every layer's output, and the gradients of all of these."""
    image = input_values(network) + sum(map(math.prod, output_shapes(network).values()))
    return 3 * sum(parameter_counts(network).values()) + 2 * image * batch_size
