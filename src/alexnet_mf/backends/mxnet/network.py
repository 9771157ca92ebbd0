"""The network as Gluon users write it: one `HybridSequential`."""

from __future__ import annotations

from mxnet.gluon import nn

from alexnet_mf import arithmetic
from alexnet_mf.spec import Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d, Network, Shape


def build(network: Network) -> nn.HybridSequential:
    """The spec's layers, not yet initialised; each block bears its layer's name. Dense blocks flatten by themselves."""
    inputs = arithmetic.input_shapes(network)
    net = nn.HybridSequential(prefix="")
    for layer in network.layers:
        if not isinstance(layer, Flatten):
            net.add(native(layer, inputs[layer.name]))
    return net


def native(layer: Layer, inputs: Shape) -> nn.HybridBlock:
    """Gluon's block for one layer."""
    prefix = f"{layer.name}_"
    match layer:
        case Conv2d():
            return nn.Conv2D(layer.channels, layer.kernel, layer.stride, layer.padding, in_channels=inputs[0],
                             activation=layer.activation, prefix=prefix)
        case MaxPool2d():
            return nn.MaxPool2D(layer.kernel, layer.stride, prefix=prefix)
        case Dense():
            return nn.Dense(layer.units, in_units=inputs[0], activation=layer.activation, prefix=prefix)
        case Dropout():
            return nn.Dropout(layer.rate, prefix=prefix)
    raise TypeError(f"{layer!r} has no block of its own")


def block(layer: Layer, net: nn.HybridSequential) -> nn.HybridBlock | None:
    """The block of a built network that is one canonical layer; none for Flatten."""
    return next((child for child in net if child.prefix == f"{layer.name}_"), None)
