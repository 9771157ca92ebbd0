"""Layers of a network as data: their fields, and the shapes of their inputs and outputs.

An activation belongs to its layer. Padding is an explicit number of pixels on each side. Sizes round down. This module
imports nothing outside the standard library.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from alexnet_mf.errors import SpecError

Shape: TypeAlias = tuple[int, ...]
"""Shape of one image: (channels, height, width), or (features,) after `Flatten`."""

Activation: TypeAlias = Literal["relu", "sigmoid", "tanh", "elu", "leaky_relu", "gelu", "gelu_tanh"]
ACTIVATIONS: tuple[Activation, ...] = ("relu", "sigmoid", "tanh", "elu", "leaky_relu", "gelu", "gelu_tanh")
WITH_ALPHA = "elu", "leaky_relu"
"""Activations with a number: `elu` is alpha (exp(x) - 1) below 0, `leaky_relu` is alpha x there."""

Pair: TypeAlias = tuple[int, int]
Padding: TypeAlias = int | tuple[Pair, Pair] | Literal["same"]
"""A number of pixels on all sides; or ((top, bottom), (left, right)); or TensorFlow's "same", which a `Network`
replaces by the numbers for its input."""

LARGEST_TENSOR = 2**31 - 1
"""Largest number of values in one tensor: MXNet counts them in 32 bits, and more would not fit in any memory."""

SMALLEST_STD, LARGEST_STATISTIC = 1e-6, 1e6
"""Limits of `Normalize`, for pixels in [0, 1]. Far beyond them float32 loses the pixels; below 1e-7 Keras divides by
its own epsilon."""


def _check_integers(layer: Layer | _Pool2d, **least: int) -> None:
    """Check that each named field is a whole number of at least the given value."""
    for field, lowest in least.items():
        value = getattr(layer, field)
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise SpecError(f"layer {layer.name}: {field} must be a whole number of at least {lowest}, not {value!r}")
        if value > LARGEST_TENSOR:
            raise SpecError(f"layer {layer.name}: {field} must be at most {LARGEST_TENSOR:,}, not {value:,}")


def _is_number(value: object, least: float, most: float) -> bool:
    """Return True for a number from `least` to `most`."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most


def _check_number(layer: Layer, field: str, allowed: str = "a number of at least 0",
                  most: float = sys.float_info.max) -> None:
    """Check that the field is a number from 0 to `most`. Store it as a float: 1 and 1.0 must have equal digests."""
    value = getattr(layer, field)
    if not _is_number(value, 0, most):
        raise SpecError(f"layer {layer.name}: {field} must be {allowed}, not {value!r}")
    object.__setattr__(layer, field, float(value))


def _check_channels(layer: Normalize, field: str, least: float, limits: str) -> None:
    """Check that the field is a list or tuple of numbers. Store it as a tuple of floats."""
    values = getattr(layer, field)
    if not isinstance(values, (list, tuple)) or not values:
        raise SpecError(f"layer {layer.name}: {field} must be a list with a number for each channel, not {values!r}")
    for value in values:
        if not _is_number(value, least, LARGEST_STATISTIC):
            raise SpecError(f"layer {layer.name}: {field} must have numbers {limits}, not {value!r}")
    object.__setattr__(layer, field, tuple(map(float, values)))


def _check_padding(layer: Conv2d | _Pool2d) -> None:
    """Check a padding. Store equal numbers on all sides as one: equal paddings must have equal digests."""
    value: object = layer.padding
    if value == "same":
        return
    is_pairs = isinstance(value, (list, tuple)) and len(value) == 2 and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in value)
    numbers = [number for pair in value for number in pair] if is_pairs else [value]  # type: ignore[attr-defined]
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise SpecError(f"layer {layer.name}: padding must be a whole number of at least 0, "
                            f"[[top, bottom], [left, right]] or \"same\", not {value!r}")
        if number > LARGEST_TENSOR:
            raise SpecError(f"layer {layer.name}: padding must be at most {LARGEST_TENSOR:,}, not {number:,}")
    if is_pairs:
        top, bottom, left, right = numbers
        object.__setattr__(layer, "padding", top if len(set(numbers)) == 1 else ((top, bottom), (left, right)))


def _check_activation(layer: Learner) -> None:
    if layer.activation is not None and layer.activation not in ACTIVATIONS:
        raise SpecError(f"layer {layer.name}: activation must be one of {', '.join(ACTIVATIONS)} or none, "
                        f"not {layer.activation!r}")
    if layer.activation in WITH_ALPHA:
        if layer.alpha is None and layer.activation == "leaky_relu":
            raise SpecError(f"layer {layer.name}: leaky_relu needs alpha, its slope below 0; give the number, since "
                            "defaults differ: 0.01 in PyTorch, 0.3 in Keras")
        if layer.alpha is None:
            object.__setattr__(layer, "alpha", 1.0)
        _check_number(layer, "alpha")
    elif layer.alpha is not None:
        raise SpecError(f"layer {layer.name}: alpha belongs to {' and '.join(WITH_ALPHA)}, not to "
                        f"{layer.activation or 'a layer without activation'}; leave it out")


def _check_bias(layer: Conv2d | Dense) -> None:
    if not isinstance(layer.bias, bool):
        raise SpecError(f"layer {layer.name}: bias must be true or false, not {layer.bias!r}")


@dataclass(frozen=True)
class Conv2d:
    """A square convolution (cross-correlation), usually with a bias, then its activation.

    With groups, input and output channels are split into `groups` equal parts, in order. Each part of the output sees
    only its own part of the input.
    """

    name: str
    channels: int
    kernel: int
    stride: int = 1
    padding: Padding = 0
    activation: Activation | None = "relu"
    groups: int = 1
    alpha: float | None = None
    """Number of `elu` (1 by default) or `leaky_relu` (required); see `WITH_ALPHA`."""
    bias: bool = True

    def __post_init__(self) -> None:
        _check_integers(self, channels=1, kernel=1, stride=1, groups=1)
        _check_padding(self)
        _check_activation(self)
        _check_bias(self)
        if self.channels % self.groups:
            raise SpecError(f"layer {self.name}: {self.channels} channels cannot be divided into {self.groups} "
                            f"groups; use a multiple")


@dataclass(frozen=True)
class _Pool2d:
    """Square windows, `stride` apart. Each has at least one pixel of the image."""

    name: str
    kernel: int
    stride: int
    padding: Padding = 0

    def __post_init__(self) -> None:
        _check_integers(self, kernel=1, stride=1)
        _check_padding(self)
        if self.padding != "same" and max(map(max, sides(self.padding))) >= self.kernel:
            raise SpecError(f"layer {self.name}: padding {self.padding} must be below the kernel, {self.kernel}: "
                            "no window may have padding alone")


@dataclass(frozen=True)
class MaxPool2d(_Pool2d):
    """Maximum of each square window, padded by minus infinity; windows that do not fit are left out."""


@dataclass(frozen=True)
class AvgPool2d(_Pool2d):
    """Mean of each square window; windows that do not fit are left out."""

    count_padding: bool = False
    """True for the mean over all of the window, in which padding counts as zeros; False for the mean over its pixels of
    the image. PyTorch has True by default, and Keras False."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.count_padding, bool):
            raise SpecError(f"layer {self.name}: count_padding must be true or false, not {self.count_padding!r}")
        if not self.padding:  # equal layers must have equal digests
            object.__setattr__(self, "count_padding", False)


@dataclass(frozen=True)
class AdaptiveAvgPool2d:
    """Means over size x size areas, for an input of any height and width.

    Row i of the output covers the input's rows from floor(i height / size) up to, not including, ceil((i + 1) height /
    size), and columns likewise. Areas overlap by one pixel if the sizes do not divide.
    """

    name: str
    size: int

    def __post_init__(self) -> None:
        _check_integers(self, size=1)


@dataclass(frozen=True)
class LocalResponseNorm:
    """Division of each value by (k + alpha s) ** beta, where s is the sum of squares over `size` neighboring channels.

    Source: Krizhevsky et al. 2012, section 3.3, where `size` is called n. The sum has fewer terms at the first and last
    channels. The paper and TensorFlow do not divide alpha by n; PyTorch and MXNet do.
    """

    name: str
    size: int
    alpha: float
    beta: float
    k: float

    def __post_init__(self) -> None:
        _check_integers(self, size=1)
        if self.size % 2 == 0:  # frameworks disagree on which side has one neighbor more
            raise SpecError(f"layer {self.name}: size must be odd (a channel and as many neighbors on each "
                            f"side), not {self.size}")
        for field in ("alpha", "beta", "k"):
            _check_number(self, field)
        if self.k == 0:
            raise SpecError(f"layer {self.name}: k must be above 0: with 0 the layer divides 0 by 0")


@dataclass(frozen=True)
class Normalize:
    """(x - mean) / std, channel by channel: the first layer of a network that takes normalized pixels.

    The input pixels lie in [0, 1]. `mean` and `std` refer to these, as in torchvision's transform of this name: for
    ImageNet 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225, for red, green and blue. They belong to the network and are
    not parameters: training does not change them.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_channels(self, "mean", -LARGEST_STATISTIC, "between -1e6 and 1e6")
        _check_channels(self, "std", SMALLEST_STD, "between 1e-6 and 1e6")
        if len(self.mean) != len(self.std):
            raise SpecError(f"layer {self.name}: mean and std must have one number for each channel, not "
                            f"{len(self.mean)} and {len(self.std)}")


@dataclass(frozen=True)
class Flatten:
    """Reshape from (channels, height, width) to (features,), in that order."""

    name: str


@dataclass(frozen=True)
class Dense:
    """A fully connected layer, usually with a bias, then its activation."""

    name: str
    units: int
    activation: Activation | None = None
    alpha: float | None = None
    """Number of the activation, as in `Conv2d`."""
    bias: bool = True

    def __post_init__(self) -> None:
        _check_integers(self, units=1)
        _check_activation(self)
        _check_bias(self)


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalization of each channel, or of each feature after `Flatten`; then its activation.

    Source: Ioffe and Szegedy 2015. The output is weight (x - mean) / sqrt(variance + epsilon) + bias. Training takes
    mean and variance over the batch and its pixels, and evaluation takes the running ones. Each training step moves the
    running statistics towards the batch's: running = (1 - momentum) running + momentum batch. Momentum is the share of
    the batch, as in PyTorch; in Keras and MXNet it is that of the old value. The running variance is that of the batch,
    divided by n, as in Keras and MXNet; PyTorch and the paper divide it by n - 1.
    """

    name: str
    epsilon: float = 1e-5
    momentum: float = 0.1
    activation: Activation | None = None
    alpha: float | None = None
    """Number of the activation, as in `Conv2d`."""

    def __post_init__(self) -> None:
        _check_number(self, "epsilon")
        if self.epsilon == 0:
            raise SpecError(f"layer {self.name}: epsilon must be above 0: a constant channel has no variance")
        _check_number(self, "momentum", "a number from 0 to 1", 1)
        _check_activation(self)


@dataclass(frozen=True)
class Dropout:
    """Random zeros in training: a share `rate` of the values becomes 0, the others are scaled by 1 / (1 - rate)."""

    name: str
    rate: float

    def __post_init__(self) -> None:
        _check_number(self, "rate", "at least 0 and below 1", math.nextafter(1, 0))


Learner: TypeAlias = Conv2d | Dense | BatchNorm
LEARNERS = Conv2d, Dense, BatchNorm
"""Layers with parameters. They alone have activations."""
Layer: TypeAlias = (Conv2d | MaxPool2d | AvgPool2d | AdaptiveAvgPool2d | LocalResponseNorm | Normalize | Flatten |
                    Dense | BatchNorm | Dropout)
Windowed: TypeAlias = Conv2d | MaxPool2d | AvgPool2d
"""Layers of windows that move over the image."""
KINDS: dict[str, type[Layer]] = {kind.__name__: kind for kind in (
    Conv2d, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, LocalResponseNorm, Normalize, Flatten, Dense, BatchNorm, Dropout)}


def sides(padding: Padding) -> tuple[Pair, Pair]:
    """Return a padding as ((top, bottom), (left, right)).

    Raises:
        SpecError: for "same", which has numbers only in a `Network`.
    """
    if isinstance(padding, str):
        raise SpecError("padding \"same\" depends on the input's size; take the layer from a network")
    return padding if isinstance(padding, tuple) else ((padding, padding), (padding, padding))


def same_padding(sizes: Shape, kernel: int, stride: int) -> tuple[Pair, Pair]:
    """Return TensorFlow's `same` for an input of (height, width): ceil(size / stride) windows, as centered as possible,
    with an odd pixel at the end."""
    totals = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in sizes)
    height, width = ((total // 2, total - total // 2) for total in totals)
    return height, width


def ceil_padding(sizes: Shape, kernel: int, stride: int, padding: Padding = 0) -> tuple[Pair, Pair]:
    """Return the padding that gives the windows of a pooling which rounds up, for an input of (height, width).

    A last window that does not fit is added if it begins in the image or in the padding before it. So do PyTorch's
    `ceil_mode`, and, for strides up to the kernel, Caffe and MXNet's `full` convention. In an average pooling, the
    pixels that are added never count. So with `count_padding` only a padding of 0 can be rounded up.
    """
    result = []
    for size, (before, after) in zip(sizes, sides(padding)):
        windows = -(-(size + before + after - kernel) // stride) + 1
        if (windows - 1) * stride >= size + before:
            windows -= 1
        result.append((before, max(after, (windows - 1) * stride + kernel - size - before)))
    return result[0], result[1]


def even_padding(layer: Windowed, inputs: Shape) -> tuple[Pair, bool] | None:
    """Return the padding in height and in width that gives the same windows, with as much after as before the image,
    and True if the number of windows must round up; None if there is none.

    Most frameworks' layers have only such a padding: up to half the kernel in poolings, which alone can round up.
    """
    befores = height, width = sides(layer.padding)[0][0], sides(layer.padding)[1][0]
    is_pooling = not isinstance(layer, Conv2d)
    if is_pooling and 2 * max(befores) > layer.kernel:
        return None
    can_round_up = is_pooling and not getattr(layer, "count_padding", False)
    windows = output_shape(layer, inputs)[1:]
    spans = [size + 2 * before - layer.kernel for size, before in zip(inputs[1:], befores)]
    if min(spans) < 0:  # MXNet refuses windows larger than the padded image
        return None
    for rounds_up in (False, True)[:1 + can_round_up]:
        if windows == tuple((-(-span // layer.stride) if rounds_up else span // layer.stride) + 1 for span in spans):
            return (height, width), rounds_up
    return None


def image_pixels(layer: AvgPool2d, inputs: Shape) -> tuple[list[int], list[int]]:
    """Return the height and the width of the part of each window that lies in the image."""
    rows, columns = ([min(first + layer.kernel, size) - max(first, 0)
                      for first in range(-before, size + after - layer.kernel + 1, layer.stride)]
                     for size, (before, after) in zip(inputs[1:], sides(layer.padding)))
    return rows, columns


def explicit(layer: Layer, shape: Shape) -> Layer:
    """Return the layer with its padding as numbers, for an input of that shape."""
    if isinstance(layer, (Conv2d, MaxPool2d, AvgPool2d)) and layer.padding == "same" and len(shape) == 3:
        return replace(layer, padding=same_padding(shape[1:], layer.kernel, layer.stride))
    return layer


def output_shape(layer: Layer, shape: Shape) -> Shape:
    """Return the shape of one image after `layer`: (size + padding - kernel) // stride + 1 for height and width, where
    padding is the sum of both sides.

    Raises:
        SpecError: if the layer's class is unknown, or the layer does not accept that shape.
    """
    if type(layer) not in KINDS.values():
        raise SpecError(f"layer {layer.name}: unknown kind {type(layer).__name__!r}; known: {', '.join(KINDS)}")
    if isinstance(layer, (BatchNorm, Dropout)):
        return shape
    if isinstance(layer, Dense):
        if len(shape) != 1:
            raise SpecError(f"layer {layer.name}: a Dense layer takes flat features, not {shape}; "
                            f"put a Flatten before it")
        _check_size(layer, "weight", layer.units, shape[0])
        return (layer.units,)
    if len(shape) != 3:
        raise SpecError(f"layer {layer.name}: takes (channels, height, width), not the flat {shape}; put it before the "
                        f"Flatten")
    channels, *sizes = shape
    if isinstance(layer, Flatten):
        return (channels * sizes[0] * sizes[1],)
    if isinstance(layer, Normalize) and len(layer.mean) != channels:
        raise SpecError(f"layer {layer.name}: mean and std have numbers for {len(layer.mean)} channels, but the input "
                        f"has {channels}; give one for each")
    if isinstance(layer, (LocalResponseNorm, Normalize)):
        return shape
    if isinstance(layer, AdaptiveAvgPool2d):
        _check_size(layer, "output", channels, layer.size, layer.size)
        return (channels, layer.size, layer.size)
    padding = same_padding(shape[1:], layer.kernel, layer.stride) if layer.padding == "same" else layer.padding
    padded = [size + before + after for size, (before, after) in zip(sizes, sides(padding))]
    if layer.kernel > min(padded):
        raise SpecError(f"layer {layer.name}: kernel {layer.kernel} is larger than its padded input "
                        f"{padded[0]}x{padded[1]} ({sizes[0]}x{sizes[1]}, padding {padding}); "
                        f"use a larger input, smaller strides before it, or a smaller kernel")
    height, width = ((size - layer.kernel) // layer.stride + 1 for size in padded)
    if not isinstance(layer, Conv2d):
        if padding:
            _check_size(layer, "padded input", channels, *padded)
        return (channels, height, width)
    if channels % layer.groups:
        raise SpecError(f"layer {layer.name}: {channels} input channels cannot be divided into {layer.groups} groups; "
                        f"change `groups`, or the number of channels in the layer before")
    _check_size(layer, "weight", layer.channels, channels // layer.groups, layer.kernel, layer.kernel)
    _check_size(layer, "padded input", channels, *padded)
    _check_size(layer, "output", layer.channels, height, width)
    return (layer.channels, height, width)


def _check_size(layer: Layer, what: str, *sizes: int) -> None:
    """Check that a tensor of these sizes is not too large for any memory, before anything allocates it."""
    if math.prod(sizes) > LARGEST_TENSOR:
        raise SpecError(f"layer {layer.name}: a {what} of {'x'.join(map(str, sizes))} is too large: no tensor may have "
                        f"more than {LARGEST_TENSOR:,} numbers")
