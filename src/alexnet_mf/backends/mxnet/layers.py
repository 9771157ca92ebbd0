"""Layers that Gluon lacks or computes wrongly, and the rounding of a block's factors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from mxnet.gluon import nn

from alexnet_mf.spec.layers import Padding, sides


class Dropout(nn.Dropout):
    """Gluon's Dropout without cuDNN, whose random state ignores the seed (src/resource.cc)."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.Dropout(x, p=self._rate, cudnn_off=True)


class Pad(nn.HybridBlock):
    """MXNet's operator as a block: a number around the image."""

    def __init__(self, padding: Padding, value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        height, width = sides(padding)
        self._numbers = {"pad_width": (0, 0, 0, 0, *height, *width), "constant_value": value}

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.pad(x, mode="constant", **self._numbers)


class PixelAvgPool2D(nn.HybridBlock):
    """Average pooling with the mean over each window's pixels of the image, without its padding."""

    def __init__(self, pool_size: int, strides: int, padding: Padding, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pad = Pad(padding, prefix="")
        self._kwargs = {"kernel": (pool_size,) * 2, "stride": (strides,) * 2, "pool_type": "avg"}

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        # The share of the image is computed, since a Gluon constant would be one of the network's parameters.
        values, shares = (F.Pooling(self._pad(each), **self._kwargs) for each in (x, F.ones_like(x)))
        return values / shares


class AdaptiveAvgPool2D(nn.HybridBlock):
    """MXNet's operator as a block, which Gluon lacks."""

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._size = size

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.contrib.AdaptiveAvgPooling2D(x, output_size=self._size)


class LocalResponseNorm(nn.HybridBlock):
    """Local response normalization, with the sum over neighboring channels as their average pooling times their number.

    MXNet's own operator, LRN, cannot be used: in 1.9.1 its gradient is wrong by up to 90 % if oneDNN passes it the
    input or the gradient in its own layout. oneDNN does so beside convolutions of 16 channels or more, and in a
    hybridized network no copy in between prevents it.
    """

    def __init__(self, size: int, alpha: float, beta: float, k: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._size, self._alpha, self._beta, self._k = size, alpha, beta, k

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        squares = F.reshape(F.expand_dims(F.square(x), 1), shape=(0, 0, 0, -3))  # (n, 1, channels, height * width)
        means = F.Pooling(squares, kernel=(self._size, 1), pad=(self._size // 2, 0), pool_type="avg",
                          count_include_pad=True)  # the zeros beyond the first and last channel count
        sums = F.reshape_like(means, x) * self._size
        return x * (self._k + self._alpha * sums) ** -self._beta


class Normalize(nn.HybridBlock):
    """(x - mean) / std, channel by channel.

    Gluon's own `transforms.Normalize` takes images of one or three channels only.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # As float32: MXNet refuses a number below double's smallest normal one.
        self._mean, self._std = (np.array(values, np.float32).tolist() for values in (mean, std))

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        # Plain numbers: a Gluon constant would be one of the network's parameters, and would be saved in its files.
        return F.concat(*((F.slice_axis(x, axis=1, begin=channel, end=channel + 1) - mean) / std
                          for channel, (mean, std) in enumerate(zip(self._mean, self._std))), dim=1)


class ELU(nn.HybridBlock):
    """ELU with the right slope just above 0. Gluon's own, in 1.9.1, gives values up to 6e-8 the slope of negative ones,
    which is alpha."""

    def __init__(self, alpha: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._alpha = alpha

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.where(x > 0, x, self._alpha * F.expm1(F.minimum(x, 0)))


class TanhGELU(nn.HybridBlock):
    """GELU's approximation by tanh. Gluon's own GELU is the exact function."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return 0.5 * x * (1 + F.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def round_factors(block: nn.HybridBlock, precision: str) -> None:
    """Make a block round its inputs and parameters to that precision.

    Its output is float32 again, and so are the gradients that it returns. MXNet's own mixed precision (`amp.init`)
    applies to the whole process.
    """
    forward = block.hybrid_forward

    def hybrid_forward(F: Any, x: Any, **parameters: Any) -> Any:
        rounded = {name: F.amp_cast(value, dtype=precision) for name, value in parameters.items()}
        return F.amp_cast(forward(F, F.amp_cast(x, dtype=precision), **rounded), dtype="float32")
    block.hybrid_forward = hybrid_forward
