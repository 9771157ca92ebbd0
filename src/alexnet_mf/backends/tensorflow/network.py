"""The network as Keras users write it: one `Sequential`, channels last."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras import DTypePolicy, Sequential, layers

from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LocalResponseNorm,
    MaxPool2d,
    Normalize,
    Shape,
    output_shape,
)


class AdaptiveAveragePooling2D(layers.Layer):
    """Only later versions of Keras have one: here means over rows, then over columns, are two matrix products."""

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._size = size

    def call(self, x: tf.Tensor) -> tf.Tensor:
        rows, columns = (tf.constant(self._shares(pixels), x.dtype) for pixels in x.shape[1:3])
        return tf.einsum("ih,nhwc,jw->nijc", rows, x, columns)

    def _shares(self, pixels: int) -> list[list[float]]:
        """For each row of the output, what share each row of the input has in it."""
        areas = [range(i * pixels // self._size, -(-(i + 1) * pixels // self._size)) for i in range(self._size)]
        return [[1 / len(area) if pixel in area else 0.0 for pixel in range(pixels)] for area in areas]


class LocalResponseNormalization(layers.Layer):
    """Keras has no layer for TensorFlow's function. Of the frameworks it alone takes alpha as the paper has it."""

    def __init__(self, size: int, alpha: float, beta: float, k: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._numbers = {"depth_radius": size // 2, "bias": k, "alpha": alpha, "beta": beta}

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.local_response_normalization(x, **self._numbers)


def build(network: Network, dtype: str = "float32") -> Sequential:
    """The spec's layers, with Keras's own initial values; each layer bears its name.

    Args:
        dtype: Keras's policy: `float32`, or `mixed_bfloat16`, which computes in bfloat16 with weights in float32.
    """
    channels, height, width = network.input
    net = Sequential([layers.Input((height, width, channels))], name=network.name.replace("-", "_"))
    shape: Shape = network.input
    for layer in network.layers:
        for part in native(layer, shape):
            part.dtype_policy = DTypePolicy("float32" if isinstance(layer, Normalize) else dtype)
            net.add(part)
        shape = output_shape(layer, shape)
    return net


def native(layer: Layer, shape: Shape) -> list[layers.Layer]:
    """Keras's layer or layers for one layer that takes `shape`, without the batch."""
    match layer:
        case Conv2d():
            before, keras_padding = [], "valid"
            if layer.padding and layer.stride == 1 and layer.kernel == 2 * layer.padding + 1:
                keras_padding = "same"  # provably the same zeros on every side
            elif layer.padding:
                before = [layers.ZeroPadding2D(layer.padding, name=f"{layer.name}_padding")]
            rest = [(size + 2 * layer.padding - layer.kernel) % layer.stride for size in shape[1:]]
            if layer.kernel == 1 and any(rest):
                # In TensorFlow 2.21 the weight gradient of a 1x1 convolution of stride 2 on even sizes corrupts the
                # heap (oneDNN, AVX-512). What no window reaches is cut off, and the sizes are odd.
                before.append(layers.Cropping2D([(0, size) for size in rest], name=f"{layer.name}_cropping"))
            return [*before, layers.Conv2D(layer.channels, layer.kernel, layer.stride, keras_padding,
                                            groups=layer.groups, activation=layer.activation, name=layer.name)]
        case MaxPool2d():
            return [layers.MaxPool2D(layer.kernel, layer.stride, name=layer.name)]
        case AvgPool2d():
            return [layers.AveragePooling2D(layer.kernel, layer.stride, name=layer.name)]
        case AdaptiveAvgPool2d():
            return [AdaptiveAveragePooling2D(layer.size, name=layer.name)]
        case LocalResponseNorm():
            return [LocalResponseNormalization(layer.size, layer.alpha, layer.beta, layer.k, name=layer.name)]
        case Normalize():
            # Keras takes the root of a variance, and if that is larger its epsilon, 1e-7, which no spec goes down to.
            return [layers.Normalization(mean=layer.mean, variance=[std**2 for std in layer.std], name=layer.name)]
        case Flatten():
            return [layers.Flatten(name=layer.name)]
        case Dense():
            return [layers.Dense(layer.units, activation=layer.activation, name=layer.name)]
        case Dropout():
            return [layers.Dropout(layer.rate, seed=0, name=layer.name)]  # every step sets the seed anew
        case _:
            raise TypeError(f"{layer!r} has no layer in Keras")


def parts(layer: Layer, net: Sequential) -> list[layers.Layer]:
    """The Keras layers of a built network that make up one canonical layer; the last one gives its output."""
    names = [layer.name] if not isinstance(layer, Conv2d) else \
        [f"{layer.name}_padding", f"{layer.name}_cropping", layer.name]
    return [part for part in net.layers if part.name in names]
