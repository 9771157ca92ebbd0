"""Layers: the first one that diverges, and its output on the backend's own input under each of the usual faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from alexnet_mf import spec
from alexnet_mf.backends.numpy import layers
from alexnet_mf.parity.causes import FLATTENED, ROUNDING, Array, Cause, reproduce, verdict
from alexnet_mf.parity.causes.paddings import other_paddings
from alexnet_mf.parity.causes.weighted import batch_norm_causes, conv_causes, dense_causes
from alexnet_mf.parity.ladder import Comparison, Rung
from alexnet_mf.parity.tolerances import relative_l2
from alexnet_mf.spec import arithmetic
from alexnet_mf.spec.layers import Padding, ceil_padding, sides


def diagnose_layers(c: Comparison, rung: Rung) -> str:
    """Name the first divergent layer, and the fault that gives its output on the backend's own input."""
    case = c.reference.case
    outputs, references = c.subject.group("outputs"), c.reference.trace.group("outputs")
    # If only the reported shape is wrong, the output does not diverge.
    failing = {failure.where for failure in rung.failures} if rung.name == "layer outputs" else set()
    x: Array = c.subject.tensors["pixels"].astype(np.float64)
    for layer in case.network.layers:
        result = outputs[layer.name].astype(np.float64)
        if layer.name in failing or result.shape != references[layer.name].shape:
            reference = references[layer.name]
            causes = layer_causes(layer, x, case.parameters(), reference, case)
            cause = reproduce(result, reference, causes)
            if cause is None and isinstance(layer, spec.Dropout):
                cause = _dropout_left_on(x, result)
            return verdict(f"first divergent layer: {layer.name}", cause)
        x = result
    return "the measured shapes differ, the outputs of the batch do not"


def diagnose_training(c: Comparison) -> str | None:
    """Name the first layer that diverges in training, and its fault; None if there is none.

    Layers before it agree in training, and all agree in evaluation.
    """
    case, outputs, references = c.reference.case, c.subject.group("training"), c.reference.trace.group("training")
    x: Array = c.subject.tensors["pixels"].astype(np.float64)
    for layer in case.network.layers:
        result, reference = outputs[layer.name].astype(np.float64), references[layer.name]
        if relative_l2(result, reference) > 10 * c.tolerance(c.floors.output, f"outputs/{layer.name}"):
            causes = layer_causes(layer, x, case.parameters(), reference, case, training=True)
            return verdict(f"first divergent layer in training: {layer.name}", reproduce(result, reference, causes))
        x = result
    return None


def layer_causes(layer: spec.Layer, x: Array, parameters: dict[str, Array], reference: Array,
                 case: Any, training: bool = False) -> Iterator[Cause]:
    """Yield the usual faults of a layer, each with the output that it gives on the input `x`."""
    values = {name: value.astype(np.float64) for name, value in parameters.items()}
    match layer:
        case spec.Conv2d():
            yield from conv_causes(layer, x, *weight_and_bias(layer, values))
        case spec.MaxPool2d():
            yield from _pool_causes(layer, x, reference)
        case spec.AvgPool2d():
            yield from _avg_pool_causes(layer, x)
        case spec.AdaptiveAvgPool2d():
            yield from _adaptive_causes(layer, x)
        case spec.LocalResponseNorm():
            yield from _norm_causes(layer, x)
        case spec.Normalize():
            yield from _normalize_causes(layer, x)
        case spec.Flatten():
            for order, axes in FLATTENED.items():
                yield f"flattened as {order} instead of channel, height, width", x.transpose(axes).reshape(len(x), -1)
        case spec.Dense():
            image = next((arithmetic.input_shapes(case.network)[flatten.name] for flatten in case.network.layers
                          if isinstance(flatten, spec.Flatten)), None)
            yield from dense_causes(layer, x, *weight_and_bias(layer, values), image, layer is case.network.layers[-1])
        case spec.BatchNorm():
            yield from batch_norm_causes(layer, x, values, training)
        case spec.Dropout():
            yield "scaled by 1 - rate in evaluation", x * (1 - layer.rate)
            yield "scaled by 1/(1 - rate) in evaluation", x / (1 - layer.rate)


def weight_and_bias(layer: spec.Conv2d | spec.Dense, values: dict[str, Array]) -> tuple[Array, Array]:
    """Return a layer's parameters; its bias is zero if it has none."""
    weight = values[f"{layer.name}.weight"]
    return weight, values[f"{layer.name}.bias"] if layer.bias else np.zeros(len(weight))


def _norm_causes(layer: spec.LocalResponseNorm, x: Array) -> Iterator[Cause]:
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


def _normalize_causes(layer: spec.Normalize, x: Array) -> Iterator[Cause]:
    mean, std = (np.array(values)[:, None, None] for values in (layer.mean, layer.std))
    right = (x - mean) / std
    yield "the normalization is missing", x
    yield "the mean is not subtracted", x / std
    yield "it is not divided by std", x - mean
    yield "multiplied by std instead of divided", (x - mean) * std
    yield "divided by std^2, the variance", (x - mean) / std**2
    yield "std is taken for a variance", (x - mean) / np.sqrt(std)
    yield "the mean is added instead of subtracted", (x + mean) / std
    yield "divided by std before the mean is subtracted", x / std - mean
    yield "normalized twice", (right - mean) / std
    yield "the pixels are gray levels up to 255, not scaled to [0, 1]", (255 * x - mean) / std
    if len(layer.mean) > 1:
        yield "mean and std are of the channels in reverse order", (x - mean[::-1]) / std[::-1]
        yield "all channels have the first one's mean and std", (x - mean[0]) / std[0]
    own = x.mean(axis=(1, 2, 3), keepdims=True), x.std(axis=(1, 2, 3), keepdims=True)
    yield "each image is normalized by its own mean and std", (x - own[0]) / own[1]


def _other_windows(layer: spec.MaxPool2d | spec.AvgPool2d, x: Array, pool: Callable[..., Array]) -> Iterator[Cause]:
    k, s, pixels = layer.kernel, layer.stride, max(map(max, sides(layer.padding)))
    for kernel, stride in dict.fromkeys(((k - 1, s), (k + 1, s), (k, s - 1), (k, s + 1), (k, k), (s, s))):
        if (kernel, stride) != (k, s) and pixels < kernel <= min(x.shape[2:]) and stride >= 1:
            yield f"kernel {kernel} and stride {stride} instead of {k} and {s}", pool(x, kernel, stride)


def _avg_pool_causes(layer: spec.AvgPool2d, x: Array) -> Iterator[Cause]:
    k, s, right, counted = layer.kernel, layer.stride, layer.padding, layer.count_padding

    def give(x: Array = x, kernel: int = k, stride: int = s, padding: Padding = right, count: bool = counted) -> Array:
        return layers.avg_pool_forward(x, kernel, stride, padding, count)

    yield "maximum instead of average", layers.max_pool_forward(x, k, s, right)
    yield "the sum instead of the average", give(count=True) * k**2
    if right:
        yield f"the zeros of the padding {'do not count' if counted else 'count'}", give(count=not counted)
    yield from _other_windows(layer, x, give)
    rounded_up = ceil_padding(x.shape[2:], k, s, right)
    if rounded_up != sides(right):
        yield "rounded up instead of down", give(padding=rounded_up, count=False)
    for words, padding in other_paddings(layer, x.shape, k - 1):
        for count in (True, False) if padding else (False,):
            zeros = "" if not padding else f", its zeros {'counted' if count else 'not counted'}"
            yield f"{words}{zeros}", give(padding=padding, count=count)


def _adaptive_causes(layer: spec.AdaptiveAvgPool2d, x: Array) -> Iterator[Cause]:
    largest = np.empty((*x.shape[:2], layer.size, layer.size))
    for position, area in layers.areas(x, layer.size):
        largest[position] = area.max(axis=(2, 3))
    yield "maximum instead of average", largest
    kernel = min(x.shape[2:]) // layer.size
    if kernel and layers.avg_pool_forward(x, kernel, kernel).shape == largest.shape:
        yield f"average pooling with kernel and stride {kernel}", layers.avg_pool_forward(x, kernel, kernel)


def _pool_causes(layer: spec.MaxPool2d, x: Array, reference: Array) -> Iterator[Cause]:
    k, s, right = layer.kernel, layer.stride, layer.padding

    def give(x: Array = x, kernel: int = k, stride: int = s, padding: Padding = right) -> Array:
        return layers.max_pool_forward(x, kernel, stride, padding)

    yield "average instead of maximum", layers.avg_pool_forward(x, k, s, right)
    if right:
        yield "average instead of maximum, the zeros of the padding counted", \
            layers.avg_pool_forward(x, k, s, right, count_padding=True)
        yield "padded by zeros instead of minus infinity", give(layers.pad(x, right), padding=0)
    yield from _other_windows(layer, x, give)
    rounded_up = ceil_padding(x.shape[2:], k, s, right)
    if rounded_up != sides(right):
        yield "rounded up instead of down", give(padding=rounded_up)
    for words, padding in other_paddings(layer, x.shape, k - 1):
        if padding != rounded_up:
            yield words, give(padding=padding)
    if min(reference.shape[2:]) > 1:
        yield "minimum instead of maximum", -give(-x)


def _dropout_left_on(x: Array, result: Array) -> str | None:
    """Return a cause if dropout is on: some values are zero, and all others are scaled by one factor."""
    active = x != 0
    kept = active & (result != 0)
    if not kept.any() or kept.sum() == active.sum():
        return None
    scale = float((result[kept] * x[kept]).sum() / (x[kept] ** 2).sum())
    if relative_l2(result[kept], scale * x[kept]) > ROUNDING:
        return None
    return f"dropout is on in evaluation: it drops {1 - kept.sum() / active.sum():.2f} and scales by {scale:.4g}"
