"""The network as Keras users write it: one `Sequential`, channels last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import DTypePolicy, Sequential, layers

from alexnet_mf import spec
from alexnet_mf.backends.tensorflow.layers import (
    AdaptiveAveragePooling2D,
    LocalResponseNormalization,
    PixelAveragePooling2D,
    before,
    before_convolution,
    gelu_tanh,
    padding,
)
from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.layers import image_pixels


def build(network: Network, dtype: str = "float32") -> Sequential:
    """Build the network with Keras's own initial values; each layer has its name.

    Args:
        dtype: Keras's policy: `float32`, or `mixed_bfloat16`, which computes in bfloat16 with weights in float32.
    """
    inputs = arithmetic.input_shapes(network)
    channels, height, width = network.input
    net = Sequential([layers.Input((height, width, channels))], name=network.name.replace("-", "_"))
    for layer in network.layers:
        for module in native(layer, inputs[layer.name]):
            module.dtype_policy = DTypePolicy("float32" if isinstance(layer, spec.Normalize) else dtype)
            net.add(module)
    return net


def native(layer: spec.Layer, inputs: spec.Shape) -> list[layers.Layer]:
    """Return Keras's layers for a layer whose input has shape `inputs`, without the batch."""
    name = layer.name
    match layer:
        case spec.Conv2d():
            return [*before_convolution(layer, inputs),
                    layers.Conv2D(filters=layer.channels, kernel_size=layer.kernel, strides=layer.stride,
                                  padding=padding(layer, inputs), groups=layer.groups, use_bias=layer.bias,
                                  activation=within(layer), name=name),
                    *after(layer)]
        case spec.MaxPool2d():
            return [*before(layer, inputs),
                    layers.MaxPool2D(pool_size=layer.kernel, strides=layer.stride, padding=padding(layer, inputs),
                                     name=name)]
        case spec.AvgPool2d():
            paddings = before(layer, inputs)
            if paddings and not layer.count_padding:
                return [*paddings, PixelAveragePooling2D(pixels=image_pixels(layer, inputs), pool_size=layer.kernel,
                                                         strides=layer.stride, name=name)]
            return [*paddings,
                    layers.AveragePooling2D(pool_size=layer.kernel, strides=layer.stride,
                                            padding=padding(layer, inputs), name=name)]
        case spec.AdaptiveAvgPool2d():
            return [AdaptiveAveragePooling2D(size=layer.size, name=name)]
        case spec.LocalResponseNorm():
            return [LocalResponseNormalization(size=layer.size, alpha=layer.alpha, beta=layer.beta, k=layer.k,
                                               name=name)]
        case spec.Normalize():
            # Keras divides by the root of the variance or by its epsilon, 1e-7, whichever is larger; the spec allows no
            # smaller std.
            return [layers.Normalization(mean=layer.mean, variance=[std**2 for std in layer.std], name=name)]
        case spec.Flatten():
            return [layers.Flatten(name=name)]
        case spec.Dense():
            return [layers.Dense(units=layer.units, use_bias=layer.bias, activation=within(layer), name=name),
                    *after(layer)]
        case spec.BatchNorm():
            # Keras's momentum is the share of the old value.
            return [layers.BatchNormalization(momentum=1 - layer.momentum, epsilon=layer.epsilon, name=name),
                    *after(layer)]
        case spec.Dropout():
            return [layers.Dropout(rate=layer.rate, seed=0, name=name)]  # every step sets its own seed
    raise TypeError(f"{layer!r} has no Keras layer")


def within(layer: spec.Learner) -> str | Callable[[Any], Any] | None:
    """Return Keras's argument `activation`, which has no room for a number."""
    if layer.activation == "gelu_tanh":
        return gelu_tanh
    return layer.activation if layer.alpha is None else None


def after(layer: spec.Learner) -> list[layers.Layer]:
    """Return the Keras layer of an activation that is no argument, or nothing."""
    name = f"{layer.name}_{layer.activation}"
    match layer.activation:
        case "elu":
            return [layers.ELU(alpha=layer.alpha, name=name)]
        case "leaky_relu":
            return [layers.LeakyReLU(negative_slope=layer.alpha, name=name)]
    if isinstance(layer, spec.BatchNorm) and layer.activation:
        return [layers.Activation(within(layer), name=name)]
    return []


def names(layer: spec.Layer) -> list[str]:
    """Return the names that a layer's Keras layers may have in the network."""
    before = ["padding", "cropping"] if isinstance(layer, (spec.Conv2d, spec.MaxPool2d, spec.AvgPool2d)) else []
    after = [layer.activation] if isinstance(layer, spec.LEARNERS) else []
    return [*(f"{layer.name}_{what}" for what in before), layer.name, *(f"{layer.name}_{what}" for what in after)]


def modules(layer: spec.Layer, net: Sequential) -> list[layers.Layer]:
    """Return the Keras layers of a built network that make up one layer; the last one gives its output."""
    return [module for module in net.layers if module.name in names(layer)]
