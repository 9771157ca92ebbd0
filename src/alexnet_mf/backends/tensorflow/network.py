"""The network as Keras users write it: one `Sequential`, channels last."""

from __future__ import annotations

from keras import Sequential, layers

from alexnet_mf.spec import Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d, Network


def build(network: Network) -> Sequential:
    """The spec's layers, with Keras's own initial values; each layer bears its name."""
    channels, height, width = network.input
    net = Sequential([layers.Input((height, width, channels))], name=network.name.replace("-", "_"))
    for layer in network.layers:
        for part in native(layer):
            net.add(part)
    return net


def native(layer: Layer) -> list[layers.Layer]:
    """Keras's layer or layers for one layer."""
    match layer:
        case Conv2d():
            padding, keras_padding = [], "valid"
            if layer.padding and layer.stride == 1 and layer.kernel == 2 * layer.padding + 1:
                keras_padding = "same"  # provably the same zeros on every side
            elif layer.padding:
                padding = [layers.ZeroPadding2D(layer.padding, name=padding_name(layer))]
            return [*padding, layers.Conv2D(layer.channels, layer.kernel, layer.stride, keras_padding,
                                            activation=layer.activation, name=layer.name)]
        case MaxPool2d():
            return [layers.MaxPool2D(layer.kernel, layer.stride, name=layer.name)]
        case Flatten():
            return [layers.Flatten(name=layer.name)]
        case Dense():
            return [layers.Dense(layer.units, activation=layer.activation, name=layer.name)]
        case Dropout():
            return [layers.Dropout(layer.rate, seed=0, name=layer.name)]  # every step sets the seed anew


def padding_name(layer: Conv2d) -> str:
    """The name of the padding layer that stands before a convolution."""
    return f"{layer.name}_padding"


def parts(layer: Layer, net: Sequential) -> list[layers.Layer]:
    """The Keras layers of a built network that make up one canonical layer; the last one gives its output."""
    names = [layer.name] if not isinstance(layer, Conv2d) else [padding_name(layer), layer.name]
    return [part for part in net.layers if part.name in names]
