"""The network as Gluon users write it: one `HybridSequential`."""

from __future__ import annotations

from typing import Any

from mxnet.gluon import nn

from alexnet_mf.spec import Network, arithmetic, layers
from alexnet_mf.spec.layers import AdaptiveAvgPool2d, AvgPool2d, Conv2d, Dense, Flatten, Layer, MaxPool2d, Shape


class Dropout(nn.Dropout):
    """Gluon's own, without cuDNN: that keeps one random state for good, which no seed reaches (src/resource.cc)."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.Dropout(x, p=self._rate, cudnn_off=True)


class AdaptiveAvgPool2D(nn.HybridBlock):
    """Gluon has no block for MXNet's operator."""

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._size = size

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.contrib.AdaptiveAvgPooling2D(x, output_size=self._size)


class LocalResponseNorm(nn.HybridBlock):
    """The sum over neighbouring channels is an average pooling over them, times their number.

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


def build(network: Network, precision: str = "float32") -> nn.HybridSequential:
    """The spec's layers, not yet initialised; each block bears its layer's name. Dense blocks flatten by themselves.

    In another precision convolutions and matrix products are in it, and all else stays float32.
    """
    inputs = arithmetic.input_shapes(network)
    net = nn.HybridSequential(prefix="")
    for layer in network.layers:
        if not isinstance(layer, Flatten):
            net.add(native(layer, inputs[layer.name]))
            if precision != "float32" and isinstance(layer, (Conv2d, Dense)):
                round_factors(net[-1], precision)
    return net


def native(layer: Layer, inputs: Shape) -> nn.HybridBlock:
    """Gluon's block for one layer."""
    prefix = f"{layer.name}_"
    match layer:
        case Conv2d():
            return nn.Conv2D(layer.channels, layer.kernel, layer.stride, layer.padding, in_channels=inputs[0],
                             groups=layer.groups, activation=layer.activation, prefix=prefix)
        case MaxPool2d():
            return nn.MaxPool2D(layer.kernel, layer.stride, prefix=prefix)
        case AvgPool2d():
            return nn.AvgPool2D(layer.kernel, layer.stride, prefix=prefix)
        case AdaptiveAvgPool2d():
            return AdaptiveAvgPool2D(layer.size, prefix=prefix)
        case layers.LocalResponseNorm():
            return LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k, prefix=prefix)
        case layers.Normalize():
            return Normalize(layer.mean, layer.std, prefix=prefix)
        case Dense():
            return nn.Dense(layer.units, in_units=inputs[0], activation=layer.activation, prefix=prefix)
        case layers.Dropout():
            return Dropout(layer.rate, prefix=prefix)
    raise TypeError(f"{layer!r} has no block of its own")


def round_factors(block: nn.HybridBlock, precision: str) -> None:
    """Have a block round its inputs and parameters to that precision; what it gives is float32 again, and so are the
    gradients that it hands back. MXNet's own mixed precision (`amp.init`) is the whole process's."""
    forward = block.hybrid_forward

    def hybrid_forward(F: Any, x: Any, **parameters: Any) -> Any:
        rounded = {name: F.amp_cast(value, dtype=precision) for name, value in parameters.items()}
        return F.amp_cast(forward(F, F.amp_cast(x, dtype=precision), **rounded), dtype="float32")
    block.hybrid_forward = hybrid_forward


def block(layer: Layer, net: nn.HybridSequential) -> Any:
    """The block of a built network that is one canonical layer; none for Flatten."""
    return next((child for child in net if child.prefix == f"{layer.name}_"), None)
