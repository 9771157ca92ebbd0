"""The layers that Gluon has no block for, or none that is right, and the rounding of a block's factors."""

from __future__ import annotations

from typing import Any

from mxnet.gluon import nn


class Dropout(nn.Dropout):
    """Gluon's own, without cuDNN: that keeps one random state for good, which no seed reaches (src/resource.cc)."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.Dropout(x, p=self._rate, cudnn_off=True)


class AdaptiveAvgPool2D(nn.HybridBlock):
    """MXNet's operator, which Gluon has no block for."""

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._size = size

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.contrib.AdaptiveAvgPooling2D(x, output_size=self._size)


class LocalResponseNorm(nn.HybridBlock):
    """The sum over neighboring channels is an average pooling over them, times their number.

    Not MXNet's own operator, LRN: in 1.9.1 its gradient is wrong by up to 90 % where oneDNN hands it the input or the
    gradient in a layout of its own, as it does beside convolutions of 16 channels or more, and no copy in between keeps
    it from doing so in a hybridized network.
    """

    def __init__(self, size: int, alpha: float, beta: float, k: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._size, self._alpha, self._beta, self._k = size, alpha, beta, k

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        squares = F.reshape(F.expand_dims(F.square(x), 1), shape=(0, 0, 0, -3))  # (n, 1, channels, height * width)
        means = F.Pooling(squares, kernel=(self._size, 1), pad=(self._size // 2, 0), pool_type="avg",
                          count_include_pad=True)  # beyond the first and last channel there are zeros, which count
        sums = F.reshape_like(means, x) * self._size
        return x * (self._k + self._alpha * sums) ** -self._beta


class Normalize(nn.HybridBlock):
    """Each channel less its mean, over its deviation.

    Gluon's own, `transforms.Normalize`, is for pictures: its operator takes one or three channels.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._mean, self._std = mean, std

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        # Numbers of the graph: a Gluon constant would be one of the network's parameters, and in its files.
        return F.concat(*((F.slice_axis(x, axis=1, begin=channel, end=channel + 1) - mean) / std
                          for channel, (mean, std) in enumerate(zip(self._mean, self._std))), dim=1)


def round_factors(block: nn.HybridBlock, precision: str) -> None:
    """Make a block round its inputs and parameters to that precision.

    Its output is float32 again, and so are the gradients that it hands back. MXNet's own mixed precision (`amp.init`)
    applies to the whole process.
    """
    forward = block.hybrid_forward

    def hybrid_forward(F: Any, x: Any, **parameters: Any) -> Any:
        rounded = {name: F.amp_cast(value, dtype=precision) for name, value in parameters.items()}
        return F.amp_cast(forward(F, F.amp_cast(x, dtype=precision), **rounded), dtype="float32")
    block.hybrid_forward = hybrid_forward
