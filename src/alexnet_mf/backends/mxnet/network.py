"""The network as Gluon users write it: one `HybridSequential`."""

from __future__ import annotations

import math

from mxnet.gluon import nn

from alexnet_mf import spec
from alexnet_mf.backends.mxnet.layers import (
    ELU,
    AdaptiveAvgPool2D,
    Dropout,
    LocalResponseNorm,
    Normalize,
    Pad,
    PixelAvgPool2D,
    TanhGELU,
    round_factors,
)
from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.layers import even_padding
from alexnet_mf.weights.names import WITHIN, flattened_by_dense


def build(network: Network, precision: str = "float32") -> nn.HybridSequential:
    """Build the network, without initial values; each block has its layer's name as prefix.

    Args:
        precision: precision of convolutions and matrix products; everything else stays float32.
    """
    inputs = arithmetic.input_shapes(network)
    flattened = flattened_by_dense(network)
    net = nn.HybridSequential(prefix="")
    for layer in network.layers:
        if layer.name in flattened:
            continue
        for block in native(layer, inputs[layer.name]):
            if precision != "float32" and isinstance(block, (nn.Conv2D, nn.Dense)):
                round_factors(block, precision)
            net.add(block)
    return net


def native(layer: spec.Layer, inputs: spec.Shape) -> list[nn.HybridBlock]:
    """Return Gluon's blocks for a layer whose input has shape `inputs`, without the batch."""
    padding, prefix, *_ = names(layer)
    match layer:
        case spec.Conv2d():
            even = even_padding(layer, inputs)
            return [*([] if even else [Pad(layer.padding, prefix=padding)]),
                    nn.Conv2D(in_channels=inputs[0], channels=layer.channels, kernel_size=layer.kernel,
                              strides=layer.stride, padding=even[0] if even else 0, groups=layer.groups,
                              use_bias=layer.bias, activation=within(layer), prefix=prefix),
                    *after(layer)]
        case spec.MaxPool2d():
            if even := even_padding(layer, inputs):
                return [nn.MaxPool2D(pool_size=layer.kernel, strides=layer.stride, padding=even[0], ceil_mode=even[1],
                                     prefix=prefix)]
            return [Pad(layer.padding, -math.inf, prefix=padding),
                    nn.MaxPool2D(pool_size=layer.kernel, strides=layer.stride, prefix=prefix)]
        case spec.AvgPool2d():
            if even := even_padding(layer, inputs):
                return [nn.AvgPool2D(pool_size=layer.kernel, strides=layer.stride, padding=even[0], ceil_mode=even[1],
                                     count_include_pad=layer.count_padding, prefix=prefix)]
            if layer.count_padding:
                return [Pad(layer.padding, prefix=padding),
                        nn.AvgPool2D(pool_size=layer.kernel, strides=layer.stride, prefix=prefix)]
            return [PixelAvgPool2D(pool_size=layer.kernel, strides=layer.stride, padding=layer.padding, prefix=prefix)]
        case spec.AdaptiveAvgPool2d():
            return [AdaptiveAvgPool2D(size=layer.size, prefix=prefix)]
        case spec.LocalResponseNorm():
            return [LocalResponseNorm(size=layer.size, alpha=layer.alpha, beta=layer.beta, k=layer.k, prefix=prefix)]
        case spec.Normalize():
            return [Normalize(mean=layer.mean, std=layer.std, prefix=prefix)]
        case spec.Flatten():
            return [nn.Flatten(prefix=prefix)]
        case spec.Dense():
            return [nn.Dense(in_units=inputs[0], units=layer.units, use_bias=layer.bias, activation=within(layer),
                             prefix=prefix), *after(layer)]
        case spec.BatchNorm():
            # Gluon's momentum is the share of the old value.
            return [nn.BatchNorm(momentum=1 - layer.momentum, epsilon=layer.epsilon, in_channels=inputs[0],
                                 prefix=prefix), *after(layer)]
        case spec.Dropout():
            return [Dropout(rate=layer.rate, prefix=prefix)]
    raise TypeError(f"{layer!r} has no Gluon block")


def within(layer: spec.Learner) -> str | None:
    """Return Gluon's argument `activation`."""
    return layer.activation if layer.activation in WITHIN else None


def after(layer: spec.Learner) -> list[nn.HybridBlock]:
    """Return the block of an activation that is no argument, or nothing."""
    prefix = names(layer)[-1]
    match layer.activation, layer.alpha:
        case "elu", float(alpha):
            return [ELU(alpha, prefix=prefix)]
        case "leaky_relu", float(alpha):
            return [nn.LeakyReLU(alpha, prefix=prefix)]
        case "gelu", _:
            return [nn.GELU(prefix=prefix)]
        case "gelu_tanh", _:
            return [TanhGELU(prefix=prefix)]
    if isinstance(layer, spec.BatchNorm) and layer.activation:
        return [nn.Activation(layer.activation, prefix=prefix)]
    return []


def names(layer: spec.Layer) -> list[str]:
    """Return the prefixes of a layer's blocks; the first one, a padding, only some layers have."""
    activation = getattr(layer, "activation", None)
    is_contained = activation is None or (activation in WITHIN and not isinstance(layer, spec.BatchNorm))
    return [f"{layer.name}_padding_", f"{layer.name}_", *([] if is_contained else [f"{layer.name}_{activation}_"])]


def modules(layer: spec.Layer, net: nn.HybridSequential) -> list[nn.HybridBlock]:
    """Return the blocks of a built network that make up one layer; none for Flatten."""
    return [module for module in net if module.prefix in names(layer)]
