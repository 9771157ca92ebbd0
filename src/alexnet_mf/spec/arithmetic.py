"""Costs of a network, computed from its spec: shapes, parameters and multiply-accumulates.

All numbers are for one image.
"""

from __future__ import annotations

import math

from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import (
    LEARNERS,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Layer,
    MaxPool2d,
    Shape,
    even_padding,
    output_shape,
    sides,
)


def output_shapes(network: Network) -> dict[str, Shape]:
    """Return the shape of one image after each layer, by layer name."""
    shapes: dict[str, Shape] = {}
    shape: Shape = network.input
    for layer in network.layers:
        shape = shapes[layer.name] = output_shape(layer, shape)
    return shapes


def input_shapes(network: Network) -> dict[str, Shape]:
    """Return the shape of one image before each layer, by layer name."""
    outputs = list(output_shapes(network).values())
    return {layer.name: shape for layer, shape in zip(network.layers, [network.input, *outputs])}


def weight_shape(layer: Conv2d | Dense, inputs: Shape) -> Shape:
    """Return the shape of the canonical weight: (out, in / groups, kernel, kernel) or (out, in)."""
    if isinstance(layer, Conv2d):
        return (layer.channels, inputs[0] // layer.groups, layer.kernel, layer.kernel)
    return (layer.units, inputs[0])


def parameter_count(layer: Layer, inputs: Shape) -> int:
    """Return the number of weights and biases of one layer. Running statistics are no parameters."""
    if isinstance(layer, BatchNorm):
        return 2 * inputs[0]
    if not isinstance(layer, (Conv2d, Dense)):
        return 0
    shape = weight_shape(layer, inputs)
    return math.prod(shape) + shape[0] * layer.bias


def parameter_counts(network: Network) -> dict[str, int]:
    """Return the number of weights and biases of each layer, by layer name."""
    inputs = input_shapes(network)
    return {layer.name: parameter_count(layer, inputs[layer.name]) for layer in network.layers}


def macs(network: Network) -> dict[str, int]:
    """Return the multiply-accumulates of each layer's forward pass over one image.

    Convolutions and dense layers are counted, without their biases; all other layers count as 0.
    """
    inputs, outputs = input_shapes(network), output_shapes(network)
    return {layer.name: math.prod(weight_shape(layer, inputs[layer.name])) * math.prod(outputs[layer.name][1:])
            if isinstance(layer, (Conv2d, Dense)) else 0
            for layer in network.layers}


def training_macs(network: Network) -> dict[str, int]:
    """Return the multiply-accumulates of each layer in a training step, per image.

    Forward pass, gradients of the weights and gradients of the inputs take the same number each. The first layer with
    weights needs no gradients of its inputs: no layer before it has parameters.
    """
    forward = macs(network)
    first = next(layer.name for layer in network.layers if isinstance(layer, LEARNERS))
    return {name: count * (2 if name == first else 3) for name, count in forward.items()}


def input_values(network: Network) -> int:
    """Return the number of pixels of one input image, over all channels."""
    return math.prod(network.input)


def padded_values(layer: Layer, inputs: Shape) -> int:
    """Return the number of values in the padded copy of one layer's input; 0 if frameworks pad without a copy."""
    if not isinstance(layer, (Conv2d, MaxPool2d, AvgPool2d)) or even_padding(layer, inputs):
        return 0
    return inputs[0] * math.prod(size + sum(pair) for size, pair in zip(inputs[1:], sides(layer.padding)))


def training_values(network: Network, batch_size: int) -> int:
    """Return the number of values that a training step on a batch must store.

    These are weights, gradients and momentum and, for each image, the pixels, every layer's output, padded copies and
    the gradients of all three.
    """
    inputs = input_shapes(network)
    image = input_values(network) + sum(map(math.prod, output_shapes(network).values())) + sum(
        padded_values(layer, inputs[layer.name]) for layer in network.layers)
    return 3 * sum(parameter_counts(network).values()) + 2 * image * batch_size
