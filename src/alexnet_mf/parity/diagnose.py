"""Why a rung is red: the first divergent layer, and which of the usual causes reproduces what the backend computed.

A cause is never guessed. Each one is computed with the referee's functions from the backend's own input to the layer,
and named only if the result is what the backend gave, to well below the difference that it explains. Where several
causes give the same numbers, all are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import arithmetic
from alexnet_mf.backends.base import Sgd
from alexnet_mf.backends.numpy import layers
from alexnet_mf.layers import (
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
)
from alexnet_mf.parameters import digest
from alexnet_mf.parity.ladder import Comparison, Rung, same_shapes
from alexnet_mf.parity.measure import relative_l2
from alexnet_mf.parity.referee import Rule, branch_gradients, take_steps

Array: TypeAlias = NDArray[Any]
Cause: TypeAlias = tuple[str, Array]
"""A cause in words, and what the layer would give if it were so."""

REPRODUCES = 1e-4
"""A cause reproduces a result within this relative L2 error; also within a hundredth of the error that it explains."""
SAME_STEPS = 1e-3
"""A rule of SGD is the backend's if it gives the same updates within this; also within a tenth of the difference."""
LAST_BITS = 3e-7
"""Pixels that differ by less, relative L2, differ by rounding alone."""
ROUNDING = 2e-6
"""That hundredth need not be less than this, what float32 costs; but then a tenth."""
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Means and standard deviations of its red, green and blue in [0, 1], as torchvision's weights expect them."""


def diagnose(comparison: Comparison, rungs: list[Rung]) -> list[str]:
    """Sentences for the lowest red rung; none if all hold."""
    red = {rung.name: rung for rung in rungs if not rung.holds}
    sentences = []
    if "spec and parameters" in red:
        wrong = comparison.subject.meta["exported_sha256"]
        failures = red["spec and parameters"].failures
        sentences = [failure.what for failure in failures if failure.where not in wrong]
        tensors = [failure.where for failure in failures if failure.where in wrong]
        if tensors:
            sentences.append(_parameters(comparison, tensors))
            red = {name: red[name] for name in ("pixels", "layer outputs", "shapes") if name in red}
    finders: dict[str, Callable[[Comparison, Rung], str]] = {
        "pixels": _pixels, "layer outputs": _forward, "shapes": _forward, "logits and loss": _loss,
        "gradients": _gradients, "SGD steps": _steps, "dropout modes": _words, "predictions": _words,
        "weights": _continued}
    for name, find in finders.items():
        if name in red:
            return [*sentences, find(comparison, red[name])]
    return sentences


def _verdict(where: str, reproduced: str | None) -> str:
    return f"{where}: {reproduced}" if reproduced else f"{where}: none of the usual causes reproduces it"


def reproduce(result: Array, reference: Array, causes: Iterator[Cause]) -> str | None:
    """The causes that give `result`, which differs from `reference`."""
    difference = relative_l2(result, reference)
    bound = max(min(REPRODUCES, difference / 100), min(ROUNDING, difference / 10))
    with np.errstate(all="ignore"):
        found = [cause for cause, candidate in causes if relative_l2(candidate, result) <= bound]
    return " or ".join(found) or None


def _first(names: list[str], count: int = 4) -> str:
    return ", ".join(names[:count]) + (" ..." if len(names) > count else "")


# Parameters


def _parameters(c: Comparison, names: list[str]) -> str:
    """What was loaded, or exported, in place of the seed's parameters. Only digests travel in a trace."""
    mine, start = c.subject.meta["exported_sha256"], c.referee.case.parameters()
    explained = [[cause for cause, value in parameter_causes(start[name])
                  if mine[name] == digest({name: np.ascontiguousarray(value)})] if name in start else []
                 for name in names]
    common = [cause for cause in explained[0] if all(cause in causes for causes in explained)]
    return _verdict(f"parameters after loading and exporting, {_first(names)}", " or ".join(common) or None)


def parameter_causes(value: Array) -> Iterator[Cause]:
    """What can become of one tensor on its way in or out."""
    yield "zero", np.zeros_like(value)
    yield "in float64", value.astype(np.float64)
    yield "rounded to half precision", value.astype(np.float16).astype(np.float32)
    yield "cut to bfloat16", (value.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    if value.ndim == 2:
        yield "transposed", value.T
        if value.shape[0] != value.shape[1]:
            yield "its numbers read in another layout (in, out)", value.reshape(value.shape[::-1]).T
    if value.ndim == 4:
        out, inputs, height, width = value.shape
        yield "height and width swapped", value.swapaxes(2, 3)
        yield "input and output channels swapped", value.swapaxes(0, 1)
        yield "flipped", value[:, :, ::-1, ::-1]
        yield "its numbers read in another layout (height, width, in, out)", \
            value.reshape(height, width, inputs, out).transpose(3, 2, 0, 1)


# Pixels


def _pixels(c: Comparison, rung: Rung) -> str:
    mine, theirs = c.subject.tensors["pixels"], c.referee.trace.tensors["pixels"]
    if mine.shape == theirs.shape and relative_l2(mine, theirs) < LAST_BITS:
        grey = np.round(theirs.astype(np.float64) * 255 * 256) / 256  # exact, as `data` in the design says
        divided = np.array_equal(mine, grey.astype(np.float32) / np.float32(255))
        return "pixels: " + ("a division by 255 instead of a multiplication by float32(1/255)" if divided else
                             "only the last bits differ: scaled or interpolated in another order")
    return _verdict("pixels", reproduce(mine, theirs, pixel_causes(c.referee.case.inputs[:len(theirs)], theirs)))


def pixel_causes(images: Array, pixels: Array) -> Iterator[Cause]:
    """The other conventions of enlarging grey images and scaling them to [0, 1]."""
    yield "channels last instead of first", pixels.transpose(0, 2, 3, 1)
    yield "not scaled to [0, 1]", pixels * 255
    yield "scaled twice", pixels / 255
    yield "height and width swapped", pixels.swapaxes(2, 3)
    yield "inverted (1 - pixel)", 1 - pixels
    for mean, deviation in ((0.5, 0.5), (0.2860, 0.3530), (0.1307, 0.3081)):
        yield f"normalised by mean {mean} and deviation {deviation}", (pixels - mean) / deviation
    if pixels.shape[1] == 3:
        yield "normalised by ImageNet's means and deviations", layers.normalize_forward(pixels, *IMAGENET)
    if images.ndim != 3:
        return
    factor = pixels.shape[2] // images.shape[1]
    grey = images.astype(np.float64)[:, np.newaxis]
    yield "nearest pixel instead of bilinear", grey.repeat(factor, 2).repeat(factor, 3) / 255
    for name, positions in (("aligned corners instead of half-pixel centres", _aligned),
                            ("pixel corners (no half-pixel shift) instead of half-pixel centres", _asymmetric)):
        yield f"bilinear with {name}", _bilinear(grey, pixels.shape[2:], positions) / 255
    levels = np.round(pixels.astype(np.float64) * 255 * 256) / 256  # exact in 1/256
    yield "rounded to whole grey levels, halves up (resized as uint8)", np.floor(levels + 0.5) / 255
    yield "rounded to whole grey levels, halves to even (resized as uint8)", np.round(levels) / 255
    yield "rounded down to whole grey levels (resized as uint8)", np.floor(levels) / 255
    wide = np.floor(_bilinear(grey, (grey.shape[2], pixels.shape[3]), _half_pixel) + 0.5)
    yield "rounded to whole grey levels in each direction (resized as uint8)", \
        np.floor(_bilinear(wide, pixels.shape[2:], _half_pixel) + 0.5) / 255


def _half_pixel(size: int, larger: int) -> Array:
    return (np.arange(larger) + 0.5) * size / larger - 0.5


def _aligned(size: int, larger: int) -> Array:
    return np.arange(larger) * (size - 1) / max(larger - 1, 1)


def _asymmetric(size: int, larger: int) -> Array:
    return np.arange(larger) * size / larger


def _bilinear(x: Array, shape: tuple[int, ...], positions: Callable[[int, int], Array]) -> Array:
    for axis, larger in zip((2, 3), shape):
        size = x.shape[axis]
        position = np.clip(positions(size, larger), 0, size - 1)
        low = np.floor(position).astype(int)
        share = (position - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, size - 1), axis) * share
    return x


# Layers


def _forward(c: Comparison, rung: Rung) -> str:
    """The first layer that diverges, given what the backend itself fed it."""
    case = c.referee.case
    outputs, references = c.subject.group("outputs"), c.referee.trace.group("outputs")
    # A shape that is only told wrong is not an output that diverges.
    failing = {failure.where for failure in rung.failures} if rung.name == "layer outputs" else set()
    x: Array = c.subject.tensors["pixels"].astype(np.float64)
    for layer in case.network.layers:
        result = outputs[layer.name].astype(np.float64)
        if layer.name in failing or result.shape != references[layer.name].shape:
            reference = references[layer.name]
            causes = layer_causes(layer, x, case.parameters(), reference, case)
            cause = reproduce(result, reference, causes)
            if cause is None and isinstance(layer, Dropout):
                cause = _dropout_left_on(x, result)
            return _verdict(f"first divergent layer: {layer.name}", cause)
        x = result
    return "the measured shapes differ, the outputs of the batch do not"


def layer_causes(layer: Layer, x: Array, parameters: dict[str, Array], reference: Array, case: Any) -> Iterator[Cause]:
    """What one layer gives on its input `x` under each of the usual faults."""
    values = {name: value.astype(np.float64) for name, value in parameters.items()}
    match layer:
        case Conv2d():
            yield from _conv_causes(layer, x, values[f"{layer.name}.weight"], values[f"{layer.name}.bias"])
        case MaxPool2d():
            yield from _pool_causes(layer, x, reference)
        case AvgPool2d():
            yield from _avg_pool_causes(layer, x)
        case AdaptiveAvgPool2d():
            yield from _adaptive_causes(layer, x)
        case LocalResponseNorm():
            yield from _norm_causes(layer, x)
        case Normalize():
            yield from _normalize_causes(layer, x)
        case Flatten():
            yield "flattened as height, width, channel instead of channel, height, width", _flat(x, 0, 2, 3, 1)
            yield "flattened as channel, width, height instead of channel, height, width", _flat(x, 0, 1, 3, 2)
            yield "flattened as width, height, channel instead of channel, height, width", _flat(x, 0, 3, 2, 1)
        case Dense():
            image = next((arithmetic.input_shapes(case.network)[flatten.name] for flatten in case.network.layers
                          if isinstance(flatten, Flatten)), None)
            yield from _dense_causes(layer, x, values[f"{layer.name}.weight"], values[f"{layer.name}.bias"], image,
                                     layer is case.network.layers[-1])
        case Dropout():
            yield from _dropout_causes(layer, x)


def _flat(x: Array, *axes: int) -> Array:
    return x.transpose(axes).reshape(len(x), -1)


def _activations(layer: Conv2d | Dense, sums: Array) -> Iterator[Cause]:
    """The layer's weighted sums under other activations than its own."""
    if layer.activation is not None:
        yield "the activation is missing", sums
    if layer.activation != "relu":
        yield "a ReLU that the spec does not have", layers.relu_forward(sums)
    once = layers.sigmoid_forward(sums)
    if layer.activation == "sigmoid":
        yield "the sigmoid is applied twice", layers.sigmoid_forward(once)
    else:
        yield "a sigmoid that the spec does not have", once
    yield "a tanh that the spec does not have", np.tanh(sums)
    if layer.activation == "relu":
        yield "a leaky ReLU (0.01) instead of ReLU", np.where(sums > 0, sums, 0.01 * sums)
        yield "an ELU instead of ReLU", np.where(sums > 0, sums, np.expm1(np.minimum(sums, 0)))


def _activate(layer: Conv2d | Dense, sums: Array) -> Array:
    return {None: lambda v: v, "relu": layers.relu_forward, "sigmoid": layers.sigmoid_forward}[layer.activation](sums)


def _biases(layer: Conv2d | Dense, sums: Array, bias: Array) -> Iterator[Cause]:
    yield "the bias is dropped", _activate(layer, sums - bias)
    yield "the bias is added twice", _activate(layer, sums + bias)
    yield "the bias is subtracted", _activate(layer, sums - 2 * bias)
    yield "the bias is added after the activation", _activate(layer, sums - bias) + bias
    yield "the biases are in reverse order", _activate(layer, sums - bias + bias[::-1])


def _convolve(layer: Conv2d, x: Array, weight: Array, bias: Array, stride: int, sides: tuple[int, ...]) -> Array:
    top, bottom, left, right = sides
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    return layers.conv2d_forward(padded, weight, bias, stride, 0, layer.groups)


def _conv_causes(layer: Conv2d, x: Array, weight: Array, bias: Array) -> Iterator[Cause]:
    p = layer.padding
    shape = tuple((size + 2 * p - layer.kernel) // layer.stride + 1 for size in x.shape[2:])

    def give(weight: Array = weight, stride: int = layer.stride, sides: tuple[int, ...] = (p, p, p, p)) -> Array:
        return _convolve(layer, x, weight, bias, stride, sides)

    for q in range(2 * p + layer.stride + 1):
        if q != p and min(x.shape[2:]) + 2 * q >= layer.kernel:
            yield f"padding {q} instead of {p}", _activate(layer, give(sides=(q, q, q, q)))
    for before in range(2 * p + 1):
        after = 2 * p - before
        unread = before < p and shape == tuple((size + 2 * before - layer.kernel) // layer.stride + 1
                                               for size in x.shape[2:])  # then it is padding `before`, said above
        if before != after and not unread:
            yield f"asymmetric padding: {before} at the top and left, {after} at the bottom and right", \
                _activate(layer, give(sides=(before, after, before, after)))
    same = [max((-(-size // layer.stride) - 1) * layer.stride + layer.kernel - size, 0) for size in x.shape[2:]]
    if any(total % 2 for total in same):
        (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in same)
        yield f"padding as TensorFlow's `same` has it ({top} top, {bottom} bottom, {left} left, {right} right)", \
            _activate(layer, give(sides=(top, bottom, left, right)))
    sums = give()
    planes = bias[:, None, None]
    yield from _biases(layer, sums, planes)
    yield from _activations(layer, sums)
    yield "the kernel's height and width are swapped", _activate(layer, give(weight.swapaxes(2, 3)))
    yield "the kernel is flipped (convolution instead of cross-correlation)", \
        _activate(layer, give(weight[:, :, ::-1, ::-1]))
    if weight.shape[0] == weight.shape[1]:
        yield "the weight's input and output channels are swapped", _activate(layer, give(weight.swapaxes(0, 1)))
    if layer.groups > 1:
        yield from _group_causes(layer, x, weight, bias)
    out, inputs, kernel, _ = weight.shape
    yield "the weight's numbers are read in another layout (height, width, in, out)", \
        _activate(layer, give(weight.reshape(kernel, kernel, inputs, out).transpose(3, 2, 0, 1)))
    yield "the input channels are in reverse order", _activate(layer, give(weight[:, ::-1]))
    yield "the output channels are in reverse order", _activate(layer, sums[:, ::-1])
    for stride in range(1, 2 * layer.stride + 2):
        sizes = tuple((size + 2 * p - layer.kernel) // stride + 1 for size in x.shape[2:])
        if stride != layer.stride and sizes != shape:
            yield f"stride {stride} instead of {layer.stride}", _activate(layer, give(stride=stride))


def _group_causes(layer: Conv2d, x: Array, weight: Array, bias: Array) -> Iterator[Cause]:
    def give(x: Array) -> Array:
        return _convolve(layer, x, weight, bias, layer.stride, (layer.padding,) * 4)

    images, channels, *sizes = x.shape
    shares = x.reshape(images, layer.groups, channels // layer.groups, *sizes)
    turns = x.reshape(images, channels // layer.groups, layer.groups, *sizes).swapaxes(1, 2)
    yield "the input channels go to the groups in turn, not in blocks", _activate(layer, give(turns.reshape(x.shape)))
    yield "the groups take their inputs in reverse order", _activate(layer, give(shares[:, ::-1].reshape(x.shape)))
    sums = give(x)
    made = sums.reshape(images, layer.groups, -1, *sums.shape[2:]).swapaxes(1, 2).reshape(sums.shape)
    yield "the groups' outputs are shuffled together, one channel of each in turn", _activate(layer, made)


def _norm_causes(layer: LocalResponseNorm, x: Array) -> Iterator[Cause]:
    def give(x: Array = x, size: int = layer.size, alpha: float = layer.alpha, k: float = layer.k) -> Array:
        return layers.local_response_norm_forward(x, size, alpha, layer.beta, k)

    yield "it is missing", x
    yield "alpha is divided by the number of channels in the sum", give(alpha=layer.alpha / layer.size)
    yield "alpha is multiplied by the number of channels in the sum", give(alpha=layer.alpha * layer.size)
    yield "the sum takes `size` channels on either side", give(size=2 * layer.size + 1)
    yield "the sum takes `size` channels on either side, and alpha is divided by their number", \
        give(size=2 * layer.size + 1, alpha=layer.alpha / (2 * layer.size + 1))
    if layer.k != 1:
        yield f"k is 1 instead of {layer.k:g}", give(k=1.0)
    yield "the sum runs along the rows instead of the channels", give(x.swapaxes(1, 3)).swapaxes(1, 3)


def _normalize_causes(layer: Normalize, x: Array) -> Iterator[Cause]:
    mean, std = (np.array(values)[:, None, None] for values in (layer.mean, layer.std))
    right = (x - mean) / std
    yield "the normalisation is missing", x
    yield "the mean is not subtracted", x / std
    yield "it is not divided by std", x - mean
    yield "multiplied by std instead of divided", (x - mean) * std
    yield "divided by std^2, the variance", (x - mean) / std**2
    yield "std is taken for a variance", (x - mean) / np.sqrt(std)
    yield "the mean is added instead of subtracted", (x + mean) / std
    yield "divided by std before the mean is subtracted", x / std - mean
    yield "normalised twice", (right - mean) / std
    yield "the pixels are grey levels up to 255, not scaled to [0, 1]", (255 * x - mean) / std
    if len(layer.mean) > 1:
        yield "mean and std are of the channels in reverse order", (x - mean[::-1]) / std[::-1]
        yield "all channels have the first one's mean and std", (x - mean[0]) / std[0]
    own = x.mean(axis=(1, 2, 3), keepdims=True), x.std(axis=(1, 2, 3), keepdims=True)
    yield "each image is normalised by its own mean and std", (x - own[0]) / own[1]


def _avg_pool_causes(layer: AvgPool2d, x: Array) -> Iterator[Cause]:
    k, s = layer.kernel, layer.stride
    yield "maximum instead of average", layers.max_pool_forward(x, k, s)
    yield "the sum instead of the average", layers.avg_pool_forward(x, k, s) * k**2
    for kernel, stride in dict.fromkeys(((k - 1, s), (k + 1, s), (k, s - 1), (k, s + 1), (k, k), (s, s))):
        if (kernel, stride) != (k, s) and 1 <= kernel <= min(x.shape[2:]) and stride >= 1:
            yield f"kernel {kernel} and stride {stride} instead of {k} and {s}", \
                layers.avg_pool_forward(x, kernel, stride)
    if k > 1:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        yield "padding 1 instead of 0, its zeros counted", layers.avg_pool_forward(padded, k, s)


def _adaptive_causes(layer: AdaptiveAvgPool2d, x: Array) -> Iterator[Cause]:
    largest = np.empty((*x.shape[:2], layer.size, layer.size))
    for position, area in layers.areas(x, layer.size):
        largest[position] = area.max(axis=(2, 3))
    yield "maximum instead of average", largest
    kernel = min(x.shape[2:]) // layer.size
    if kernel and layers.avg_pool_forward(x, kernel, kernel).shape == largest.shape:
        yield f"average pooling with kernel and stride {kernel}", layers.avg_pool_forward(x, kernel, kernel)


def _pool_causes(layer: MaxPool2d, x: Array, reference: Array) -> Iterator[Cause]:
    k, s = layer.kernel, layer.stride
    yield "average instead of maximum", np.mean(layers.window_pixels(x, k, s), axis=0)
    for kernel, stride in dict.fromkeys(((k - 1, s), (k + 1, s), (k, s - 1), (k, s + 1), (k, k), (s, s))):
        if (kernel, stride) != (k, s) and 1 <= kernel <= min(x.shape[2:]) and stride >= 1:
            yield f"kernel {kernel} and stride {stride} instead of {k} and {s}", \
                layers.max_pool_forward(x, kernel, stride)
    for rounding, before, after in (("rounded up instead of down", 0, s - 1), ("padding 1 instead of 0", 1, 1),
                                    ("asymmetric padding: 0 at the top and left, 1 at the bottom and right", 0, 1),
                                    ("asymmetric padding: 1 at the top and left, 0 at the bottom and right", 1, 0)):
        if s == 2 and (before, after) == (0, 1) and rounding.startswith("asymmetric"):
            continue  # that is rounding up
        padded = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)), constant_values=-np.inf)
        yield rounding, layers.max_pool_forward(padded, k, s)
    if min(reference.shape[2:]) > 1:
        yield "minimum instead of maximum", -layers.max_pool_forward(-x, k, s)


def _dense_causes(layer: Dense, x: Array, weight: Array, bias: Array, image: tuple[int, ...] | None,
                  last: bool) -> Iterator[Cause]:
    sums = layers.dense_forward(x, weight, bias)
    yield from _biases(layer, sums, bias)
    if last:
        exponentials = np.exp(sums - sums.max(axis=1, keepdims=True))
        softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
        yield "a softmax is applied to the logits", softmax
        yield "a log-softmax is applied to the logits", np.log(softmax)
    yield from _activations(layer, sums)
    if weight.shape[0] == weight.shape[1]:
        yield "the weight is transposed", _activate(layer, layers.dense_forward(x, weight.T, bias))
    else:
        yield "the weight's numbers are read in another layout (in, out)", \
            _activate(layer, layers.dense_forward(x, weight.reshape(weight.shape[::-1]).T, bias))
    if image is not None and np.prod(image) == weight.shape[1]:
        for order, axes in (("height, width, channel", (0, 2, 3, 1)), ("channel, width, height", (0, 1, 3, 2)),
                            ("width, height, channel", (0, 3, 2, 1))):
            columns = weight.reshape(len(weight), *image).transpose(axes).reshape(weight.shape)
            yield f"the weight expects its input flattened as {order}", \
                _activate(layer, layers.dense_forward(x, columns, bias))
            inverse = np.argsort(np.arange(weight.shape[1]).reshape(image).transpose([a - 1 for a in axes[1:]]).ravel())
            if not np.array_equal(weight[:, inverse], columns):
                yield f"the weight is read as if its input were flattened as {order}", \
                    _activate(layer, layers.dense_forward(x, weight[:, inverse], bias))
    yield "the output units are in reverse order", _activate(layer, sums[:, ::-1])


def _dropout_left_on(x: Array, result: Array) -> str | None:
    """Dropout's own mark: some values are zero, and all others are larger by one factor."""
    active = x != 0
    kept = active & (result != 0)
    if not kept.any() or kept.sum() == active.sum():
        return None
    scale = float((result[kept] * x[kept]).sum() / (x[kept] ** 2).sum())
    if relative_l2(result[kept], scale * x[kept]) > ROUNDING:
        return None
    return f"dropout is on in evaluation: it drops {1 - kept.sum() / active.sum():.2f} and scales by {scale:.4g}"


def _dropout_causes(layer: Dropout, x: Array) -> Iterator[Cause]:
    yield "scaled by 1 - rate in evaluation", x * (1 - layer.rate)
    yield "scaled by 1/(1 - rate) in evaluation", x / (1 - layer.rate)


# Loss, gradients, steps


def _loss(c: Comparison, rung: Rung) -> str:
    case, mine = c.referee.case, c.subject.meta["loss"]
    last = c.subject.group("outputs")[case.network.layers[-1].name].astype(np.float64)
    if not any(failure.where == "loss" for failure in rung.failures):
        return f"logits: {_logits(c.subject.tensors['logits'], c.referee.trace.tensors['logits'], last)}"
    theirs = c.referee.trace.meta["loss"]
    bound = min(1e-5, abs(mine / theirs - 1) / 10)
    found = [cause for cause, value in loss_causes(last, case.labels[:case.batch], theirs)
             if abs(mine - value) <= bound * abs(value)]
    return _verdict("loss", " or ".join(found) or None)


def _logits(mine: Array, theirs: Array, first: Array) -> str:
    """The first batch's last layer is right, and some logits, computed in other batches, are not."""
    if relative_l2(mine[:len(first)], first) > ROUNDING:
        return "the first batch's, taken alone, are right, so another batch size or order changes them"
    wrong = [i for i, (a, b) in enumerate(zip(mine, theirs)) if relative_l2(a, b) > REPRODUCES]
    return f"the first batch's are right, those of {len(wrong)} later images are not"


def loss_causes(logits: Array, labels: NDArray[np.int64], right: float) -> Iterator[tuple[str, float]]:
    """What the loss is under each of the usual faults."""
    rows, classes = np.arange(len(labels)), logits.shape[1]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    chosen = softmax[rows, labels]
    yield "summed over the batch instead of averaged", right * len(labels)
    yield "averaged over the batch twice", right / len(labels)
    yield "softmax applied twice", layers.softmax_cross_entropy(softmax, labels)[0]
    yield "averaged over the classes too", right / classes
    yield "the softmax is missing", float(-logits[rows, labels].mean())
    yield "the logarithm is missing", float(-chosen.mean())
    yield "mean squared error instead of cross entropy", float(((softmax - np.eye(classes)[labels]) ** 2).mean())
    yield "in bits (logarithm to base 2) instead of nats", right / float(np.log(2))
    yield "label smoothing of 0.1", float((-np.log(chosen) * 0.9 - 0.1 * np.log(softmax).mean(axis=1)).mean())
    for shift in (1, -1):
        moved = layers.softmax_cross_entropy(logits, (labels + shift) % classes)[0]
        yield f"the labels are shifted by one ({shift:+d})", moved
    yield "the labels are in reverse order", layers.softmax_cross_entropy(logits, labels[::-1])[0]


def _gradients(c: Comparison, rung: Rung) -> str:
    """One factor for all, or the first wrong tensor in the direction in which gradients flow."""
    first = rung.failures[0].where
    mine, theirs = c.subject.group("gradients"), branch_gradients(c.referee.case, c.subject.group("training"))
    where = f"first divergent gradient, from the loss downwards: {first}"
    if first.endswith("near ties"):
        return f"gradients: {first}: a wide gap was decided otherwise, though the layer's outputs in evaluation agree"
    if first not in mine or not mine[first].any():
        return f"{where}: no gradient reaches it: frozen or detached"
    factors = {}
    for name, value in mine.items():
        factor = float((value * theirs[name]).sum() / max(float((theirs[name] ** 2).sum()), 1e-300))
        if relative_l2(value, factor * theirs[name]) < REPRODUCES:
            factors[name] = factor
    if first in factors and abs(factors[first] - 1) <= REPRODUCES:
        factors = {}  # less than a cause must reproduce: no factor explains it
    if len(factors) == len(theirs) and max(factors.values()) - min(factors.values()) < 1e-3 * abs(factors[first]):
        batch, factor = c.referee.case.batch, factors[first]
        known = (("the loss is summed over the batch instead of averaged", batch),
                 ("the loss is averaged over the batch twice", 1 / batch), ("the sign is wrong", -1))
        cause = next((text for text, value in known if abs(factor / value - 1) < REPRODUCES), None)
        return f"all gradients: scaled by {factor:.4g}" + (f" ({cause})" if cause else "")
    if first in factors:
        return f"{where}: scaled by {factors[first]:.4g}"
    return _verdict(where, reproduce(mine[first], theirs[first], gradient_causes(c, first, theirs[first])))


def gradient_causes(c: Comparison, name: str, right: Array) -> Iterator[Cause]:
    """What one parameter's gradient is under each of the usual faults."""
    case = c.referee.case
    if right.ndim == 2:
        yield "transposed", right.T
    if right.ndim == 4:
        yield "height and width are swapped", right.swapaxes(2, 3)
        yield "the kernel is flipped", right[:, :, ::-1, ::-1]
    yield "the weight decay is in it already", right + case.sgd.weight_decay * case.parameters()[name]
    layer = name.rpartition(".")[0]
    if any(other.name == layer and getattr(other, "activation", None) == "relu" for other in case.network.layers):
        training = c.subject.group("training")
        open_relu = {**training, layer: training[layer].astype(np.float64) + 1}  # all positive, the order kept
        yield "its ReLU passes the gradient where its output is zero", branch_gradients(case, open_relu)[name]


def _steps(c: Comparison, rung: Rung) -> str:
    """Which other rule of SGD gives the backend's parameters, by taking the steps with it."""
    case, mine, theirs = c.referee.case, c.subject.group("stepped"), c.referee.trace.group("stepped")
    start = case.parameters()
    errors = {name: relative_l2(mine[name] - start[name], theirs[name] - start[name]) for name in start}
    wrong = [failure.where for failure in rung.failures]
    frozen = [name for name in wrong if name in start and np.array_equal(mine[name], start[name])]
    if frozen:
        return f"SGD steps: {', '.join(frozen)} never changed"
    bound = min(max(SAME_STEPS, c.floors.update), max(errors.values()) / 10)
    branches = [c.subject.group(f"stepwise/{step}") for step in range(case.steps)] if same_shapes(c) else None
    found = [rule for rule, update in sgd_rules(case.sgd, case.batch).items()
             if _follows(c, take_steps(case, start, update, count=min(3, case.steps), branches=branches).losses)
             and max(relative_l2(mine[name] - start[name], value - start[name]) for name, value in
                     take_steps(case, start, update, branches=branches).parameters.items()) <= bound]
    return f"SGD steps: {' or '.join(found)}" if found else _verdict(f"SGD steps: {_first(wrong)}", None)


def _follows(c: Comparison, losses: list[float]) -> bool:
    """Whether a rule's first losses are the backend's: most wrong rules are told by them, without the other steps.
    Losses that are wrong from the first one on tell nothing."""
    mine, theirs = c.subject.meta["step_losses"], c.referee.trace.meta["step_losses"]
    if abs(mine[0] - theirs[0]) > c.floors.step_loss * abs(theirs[0]):
        return True
    return all(abs(a - b) <= 10 * c.floors.step_loss * abs(b) for a, b in zip(mine, losses))


def sgd_rules(sgd: Sgd, batch: int) -> dict[str, Rule]:
    """SGD by other rules than the stated one, each in words."""

    def rule(rate: float = sgd.learning_rate, momentum: float = sgd.momentum, decay: float = sgd.weight_decay,
             scale: float = 1.0, dampening: float = 0.0, nesterov: bool = False, decoupled: bool = False,
             bias_rate: float = 1.0, bias_decay: float = 1.0) -> Rule:
        def update(weight: Array, gradient: Array, state: dict[str, Array], step: int) -> None:
            own_rate, own_decay = (rate * bias_rate, decay * bias_decay) if weight.ndim == 1 else (rate, decay)
            g = scale * gradient + (0 if decoupled else own_decay * weight)
            v = state["v"] = momentum * state.get("v", 0) + (1 - dampening if step else 1) * g
            if decoupled:
                weight -= own_rate * own_decay * weight
            weight -= own_rate * (g + momentum * v if nesterov else v)
        return update

    def accumulated(weight: Array, gradient: Array, state: dict[str, Array], step: int) -> None:
        state["sum"] = state.get("sum", 0) + gradient
        rule()(weight, state["sum"], state, step)

    def rising(weight: Array, gradient: Array, state: dict[str, Array], step: int) -> None:
        rule(rate=-sgd.learning_rate)(weight, gradient, state, step)

    rules = {
        "the gradients are summed over the batch instead of averaged": rule(scale=batch),
        "the gradients are averaged over the batch twice": rule(scale=1 / batch),
        "the momentum is missing": rule(momentum=0),
        "the weight decay is missing": rule(decay=0),
        "Nesterov's momentum instead of the plain one": rule(nesterov=True),
        "the momentum is dampened (1 - momentum)": rule(dampening=sgd.momentum),
        "the weight decay is decoupled from the gradient": rule(decoupled=True),
        "the weight decay is doubled": rule(decay=2 * sgd.weight_decay),
        "the weight decay leaves out the biases": rule(bias_decay=0),
        "the biases learn at twice the rate": rule(bias_rate=2),
        "the gradients are not cleared between steps": accumulated,
        "the learning rate is 10 times too large": rule(rate=10 * sgd.learning_rate),
        "the learning rate is 10 times too small": rule(rate=sgd.learning_rate / 10),
        "the learning rate is doubled": rule(rate=2 * sgd.learning_rate),
        "the learning rate is halved": rule(rate=sgd.learning_rate / 2),
        "the weights move up the gradient": rising,
    }
    return rules


def _words(c: Comparison, rung: Rung) -> str:
    """The findings themselves say what is wrong."""
    return "; ".join(dict.fromkeys(failure.what for failure in rung.failures if failure.what))


def _continued(c: Comparison, rung: Rung) -> str:
    """Whether the training that goes on began where it should."""
    failures = [failure.where for failure in rung.failures]
    if "export" in failures:
        return _words(c, rung)
    if "loss of continued step 1" in failures:
        return "continued steps: does not start from these weights, the first loss differs already"
    return "continued steps: starts from these weights, then takes other steps"
