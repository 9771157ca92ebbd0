"""Layers that Keras lacks, and the padding that its convolutions and poolings lack."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf
from keras import activations, layers

from alexnet_mf import spec
from alexnet_mf.spec.layers import Windowed, same_padding, sides


class AdaptiveAveragePooling2D(layers.Layer):
    """Means over rows, then over columns, as two matrix products. Only later versions of Keras have this layer."""

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._size = size

    def call(self, x: tf.Tensor) -> tf.Tensor:
        rows, columns = (tf.constant(self._shares(pixels), x.dtype) for pixels in x.shape[1:3])
        return tf.einsum("ih,nhwc,jw->nijc", rows, x, columns)

    def _shares(self, pixels: int) -> list[list[float]]:
        """Return, for each row of the output, the share of each row of the input."""
        areas = [range(i * pixels // self._size, -(-(i + 1) * pixels // self._size)) for i in range(self._size)]
        return [[1 / len(area) if pixel in area else 0.0 for pixel in range(pixels)] for area in areas]


class LocalResponseNormalization(layers.Layer):
    """TensorFlow's function as a layer. Only TensorFlow defines alpha as the paper does."""

    def __init__(self, size: int, alpha: float, beta: float, k: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._numbers = {"depth_radius": size // 2, "bias": k, "alpha": alpha, "beta": beta}

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.local_response_normalization(x, **self._numbers)


def gelu_tanh(x: tf.Tensor) -> tf.Tensor:
    """Return GELU's approximation; Keras's name `gelu` means the exact function."""
    return activations.gelu(x, approximate=True)


class LowestPadding2D(layers.ZeroPadding2D):
    """`ZeroPadding2D` with minus infinity, for max pooling."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.pad(x, [(0, 0), *self.padding, (0, 0)], constant_values=-math.inf)


class PixelAveragePooling2D(layers.AveragePooling2D):
    """`AveragePooling2D` of a padded image, with the mean over each window's pixels of the image alone."""

    def __init__(self, pixels: tuple[list[int], list[int]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        height, width = self.pool_size
        self._shares = [[[height * width / (rows * columns)] for columns in pixels[1]] for rows in pixels[0]]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return super().call(x) * tf.constant(self._shares, x.dtype)


def padding(layer: Windowed, inputs: spec.Shape) -> str:
    """Return Keras's word for a layer's padding: `same` if that has the same numbers on every side.

    Its average pooling does not count the pixels that `same` adds.
    """
    if not layer.padding or getattr(layer, "count_padding", False):
        return "valid"
    return "same" if sides(layer.padding) == same_padding(inputs[1:], layer.kernel, layer.stride) else "valid"


def before(layer: Windowed, inputs: spec.Shape) -> list[layers.Layer]:
    """Return the layer that pads the input, if Keras's own padding cannot."""
    if not layer.padding or padding(layer, inputs) == "same":
        return []
    padded = LowestPadding2D if isinstance(layer, spec.MaxPool2d) else layers.ZeroPadding2D
    return [padded(padding=sides(layer.padding), name=f"{layer.name}_padding")]


def before_convolution(layer: spec.Conv2d, inputs: spec.Shape) -> list[layers.Layer]:
    """Return the layers that pad or crop the input of a convolution if Keras's own padding cannot."""
    result = before(layer, inputs)
    rest = [(size + sum(pair) - layer.kernel) % layer.stride for size, pair in zip(inputs[1:], sides(layer.padding))]
    if layer.kernel == 1 and any(rest):
        # In TensorFlow 2.21 the weight gradient of a 1x1 convolution of stride 2 on even sizes corrupts the heap
        # (oneDNN, AVX-512). Cropping the pixels that no window reaches makes the sizes odd.
        result.append(layers.Cropping2D(cropping=[(0, size) for size in rest], name=f"{layer.name}_cropping"))
    return result
