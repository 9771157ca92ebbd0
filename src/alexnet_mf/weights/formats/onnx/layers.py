"""Operators that are layers of the spec."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from alexnet_mf.spec.layers import same_padding
from alexnet_mf.weights import onnx_graph
from alexnet_mf.weights.formats.description import batch_share
from alexnet_mf.weights.formats.onnx.signals import (
    MEANS,
    PROBES,
    Axis,
    Node,
    Operators,
    Signal,
    Value,
    axes_of,
    decimal,
    is_close,
    sizes_of,
    weight_of,
)
from alexnet_mf.weights.formats.onnx.tensors import Unreadable, view
from alexnet_mf.weights.formats.onnx.walk import Walk
from alexnet_mf.weights.parameters import STATE
from alexnet_mf.weights.stored import StoredTensor

Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""Rows above and below, columns left and right."""

MOST_SHARES = 2**24
OPERATORS = Operators()


@OPERATORS.register("Pad")
def _pad(walk: Walk, node: Node, x: Value, *rest: Value) -> Value:
    rank, sizes = len(sizes_of(x)), node.argument(1, "pads")
    fill, axes = node.argument(2, "value", 0.0), node.argument(3, "axes", [*range(rank)])
    if node.attribute("mode", "constant") != "constant" or min(sizes) < 0 or not isinstance(x, Signal):
        raise Unreadable("it is not a padding of the image with a constant")
    pads = [(0, 0)] * rank
    for axis, before, after in zip(axes, sizes[:len(axes)], sizes[len(axes):]):
        pads[axis] = before, after
    return replace(x, pads=tuple(pads), fill=float(fill)) if any(sizes) else x


def _square(sizes: Sequence[int]) -> int:
    if len(sizes) != 2 or sizes[0] != sizes[1]:
        raise Unreadable(f"its kernel or stride is {'x'.join(map(str, sizes))}, not square")
    return sizes[0]


def _windows(node: Node, kernel: int, sizes: Sequence[int]) -> tuple[int, Pads]:
    """Return the stride and the padding of windows over an image of this height and width."""
    if set(node.attribute("dilations", [1])) != {1}:
        raise Unreadable("its dilation is not 1")
    stride = _square(node.attribute("strides", [1, 1]))
    auto, (top, left, bottom, right) = node.attribute("auto_pad", "NOTSET"), node.attribute("pads", [0] * 4)
    if auto == "NOTSET":
        return stride, ((top, bottom), (left, right))
    if auto == "VALID":
        return stride, ((0, 0), (0, 0))
    height, width = same_padding(tuple(sizes), kernel, stride)  # an odd pixel comes at the end, in SAME_LOWER before
    return stride, {"SAME_UPPER": (height, width), "SAME_LOWER": (height[::-1], width[::-1])}[auto]


def _sum(pads: Sequence[tuple[int, int]], other: Pads) -> Pads:
    (top, bottom), (left, right) = ((a + c, b + d) for (a, b), (c, d) in zip(pads, other))
    return (top, bottom), (left, right)


@OPERATORS.register("Conv")
def _convolution(walk: Walk, node: Node, x: Value, weight: Value, bias: Value = None) -> Value:
    image, tensor = walk.maps(x, may_pad=True), weight_of(weight)
    kernel = _square(tensor.shape[2:])
    if node.attribute("kernel_shape", [kernel] * 2) != [kernel] * 2 or image.fill:
        raise Unreadable("its kernel is not that of its weight, or its padding is not 0")
    stride, pads = _windows(node, kernel, [size + sum(pad) for size, pad in zip(walk.shape[1:], image.pads[2:])])
    return walk.add_weights("Conv2d", tensor, bias, channels=tensor.shape[0], kernel=kernel, stride=stride,
                            padding=_sum(image.pads[2:], pads), groups=node.attribute("group", 1))


@OPERATORS.register("MaxPool", "AveragePool")
def _pool(walk: Walk, node: Node, x: Value) -> Value:
    sizes, is_mean = node.attribute("kernel_shape"), node.operator == "AveragePool"
    if len(sizes) == 3:
        return _mean_of_squares(walk, node, x, sizes)
    image, kernel = walk.maps(x, may_pad=True), _square(sizes)
    padded = [size + sum(pad) for size, pad in zip(walk.shape[1:], image.pads[2:])]
    auto = node.attributes.get("auto_pad", b"NOTSET")
    stride, pads = _windows(node, kernel, padded)
    node.attribute("storage_order")
    count = bool(node.attribute("count_include_pad", 0))
    if any(map(any, image.pads)):
        if (image.fill or any(map(any, pads))) if is_mean else not _is_lowest(walk, image.fill):
            raise Unreadable("its input is padded with values that its windows would not leave out")
        pads, count = _sum(image.pads[2:], pads), is_mean
    if node.attribute("ceil_mode", 0):
        if auto != b"NOTSET":
            raise Unreadable("it rounds up, with a padding of its own")
        more = [_excess(size, pad, kernel, stride) for size, pad in zip(walk.shape[1:], pads)]
        if is_mean and count and any(more) and any(map(any, pads)):
            raise Unreadable("its last windows divide by their area within the padding, which the spec does not")
        pads, count = _sum(pads, ((0, more[0]), (0, more[1]))), count and not any(more)
    is_used = any(before or (size + after - kernel) // stride * stride + kernel > size
                  for size, (before, after) in zip(walk.shape[1:], pads))
    fields = {"padding": pads} if is_used else {}
    return walk.add("AvgPool2d" if is_mean else "MaxPool2d", kernel=kernel, stride=stride,
                    **fields, **({"count_padding": True} if is_mean and count and fields else {}))


def _is_lowest(walk: Walk, fill: float) -> bool:
    """Return True if no value of the last layer's output is below the padding's."""
    last = walk.layers[-1] if walk.layers else None
    return fill <= -3e38 or (fill == 0 and getattr(last, "activation", "") in ("relu", "sigmoid"))


def _excess(size: int, pad: tuple[int, int], kernel: int, stride: int) -> int:
    """Return the number of values by which the last window of a pooling that rounds up exceeds the padded image."""
    excess = -(size + sum(pad) - kernel) % stride
    return excess if size + sum(pad) + excess - kernel < size + pad[0] else 0  # a window beyond the image is left out


def _mean_of_squares(walk: Walk, node: Node, x: Value, sizes: Sequence[int]) -> Value:
    """Return the mean of squares over neighboring channels, (images, 1, channels, height, width)."""
    if not isinstance(x, Signal) or len(x.axes) != 5 or not is_close(x.curve, PROBES**2):
        raise Unreadable("it pools no images in N, C, H, W order")
    node.attribute("count_include_pad")
    walk.arrange(x.axes[:1] + x.axes[2:])
    around = ((0, 0),) * 2 + ((sizes[0] // 2,) * 2,) + ((0, 0),) * 2
    if x.axes != axes_of(walk.batch, ("", 1), *walk.parts) or (x.pads or ((0, 0),) * 5) != around or x.fill or \
            sizes[1:] != [1, 1] or any(node.attribute("pads", [0])) or node.attribute("ceil_mode", 0) or \
            {*node.attribute("strides", [1]), *node.attribute("dilations", [1])} != {1} or \
            node.attribute("auto_pad", "NOTSET") != "NOTSET":
        raise Unreadable("it is not the pooling of a local response normalization")
    return replace(x, curve=MEANS, pads=(), window=sizes[0])


@OPERATORS.register("GlobalAveragePool")
def _global_pool(walk: Walk, node: Node, x: Value) -> Value:
    walk.maps(x)
    return walk.add("AdaptiveAvgPool2d", size=1)


@OPERATORS.register("ReduceMean")
def _mean(walk: Walk, node: Node, x: Value, *rest: Value) -> Value:
    signal, keeps = walk.settle(x), node.attribute("keepdims", 1)
    node.attribute("noop_with_empty_axes")
    walk.arrange(signal.axes)
    rank = len(signal.axes)
    axes = {axis % rank for axis in node.argument(1, "axes")}
    removed = sorted(part for axis in axes for part in signal.axes[axis])
    if rank != 4 or removed != sorted(part for part in walk.parts[1:] if part[1] > 1) or len(axes) != 2:
        raise Unreadable("it is not the mean over height and width")
    channels = walk.parts[0]
    walk.add("AdaptiveAvgPool2d", size=1)
    left: list[Axis] = [() if i in axes else tuple(walk.parts[0] if part == channels else part for part in axis)
                        for i, axis in enumerate(signal.axes) if keeps or i not in axes]
    return Signal(walk.stage, tuple(left))


@OPERATORS.register("LRN")
def _response_norm(walk: Walk, node: Node, x: Value) -> Value:
    walk.maps(x)
    size = node.attribute("size")
    return walk.add_response_norm(size, *(node.attribute(name, default) for name, default in (
        ("alpha", 1e-4), ("bias", 1.0), ("beta", 0.75))))


@OPERATORS.register("Dropout")
def _dropout(walk: Walk, node: Node, x: Value, *rest: Value) -> Value:
    rate = node.argument(1, "ratio", 0.5)
    node.attribute("seed")
    if node.argument(2, "training_mode", False) or not node.attribute("is_test", 1):
        raise Unreadable("it is in training mode")
    signal = walk.settle(x)
    walk.arrange(signal.axes)
    if len(signal.axes) == 2:
        walk.features(signal)
    walk.add("Dropout", rate=decimal(rate))
    return replace(signal, stage=walk.stage)


@OPERATORS.register("BatchNormalization")
def _batch_norm(walk: Walk, node: Node, x: Value, *statistics: Value) -> Value:
    is_test = node.attribute("is_test", int(walk.opset >= 7))
    if node.attribute("training_mode", 0) or not is_test or len(node.outputs) > 1:  # more outputs until opset 13
        raise Unreadable("it is in training mode")
    if not node.attribute("spatial", 1):
        raise Unreadable("it normalizes each pixel")
    signal = walk.settle(x)
    walk.arrange(signal.axes)
    tensors = [weight_of(value) for value in statistics]
    if len(signal.axes) == 2:
        merged = walk.features(signal)
        tensors = [_in_order(walk, merged, tensor) for tensor in tensors]
    else:
        walk.maps(signal)
    walk.add("BatchNorm", epsilon=decimal(node.attribute("epsilon", 1e-5)),
             momentum=batch_share(decimal(node.attribute("momentum", 0.9))))
    for part, tensor in zip(("weight", "bias", *STATE), tensors, strict=True):
        walk.tensors[f"{walk.layers[-1].name}.{part}"] = tensor
    return replace(signal, stage=walk.stage)


def _dense(walk: Walk, x: Value, weight: StoredTensor, bias: Value = None) -> Value:
    """Add a dense layer with a weight (out, in), whose inputs have the order of the graph's merged axes."""
    merged = walk.features(x)
    if len(weight.shape) != 2 or weight.shape[1] != math.prod(walk.shape):
        raise Unreadable(f"its weight has the shape {weight.shape}, for {walk.shape[0]} inputs")
    return walk.add_weights("Dense", _in_order(walk, merged, weight), bias, units=weight.shape[0])


def _in_order(walk: Walk, merged: Axis, tensor: StoredTensor) -> StoredTensor:
    """Return a tensor with the features of its last axis in canonical order, not in that of the graph's merged axes."""
    order = [1 + merged.index(part) for part in walk.parts if part[1] > 1]
    if order == sorted(order):
        return tensor
    split = [size for _, size in merged]
    return view(tensor, tensor.shape, lambda array: array.reshape(-1, *split).transpose(0, *order).reshape(array.shape))


def _transposed(tensor: StoredTensor) -> StoredTensor:
    return view(tensor, tensor.shape[::-1], lambda array: array.T)


def _times(tensor: StoredTensor, factor: float) -> StoredTensor:
    return tensor if factor == 1 else view(tensor, tensor.shape, lambda array: array * array.dtype.type(factor))


@OPERATORS.register("Gemm")
def _gemm(walk: Walk, node: Node, x: Value, weight: Value, bias: Value = None) -> Value:
    if node.attribute("transA", 0):
        raise Unreadable("it transposes the image")
    node.attribute("broadcast")  # until opset 7
    tensor = weight_of(weight) if node.attribute("transB", 0) else _transposed(weight_of(weight))
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    return _dense(walk, x, _times(tensor, alpha), None if bias is None else _times(weight_of(bias), beta))


@OPERATORS.register("MatMul")
def _product(walk: Walk, node: Node, x: Value, other: Value) -> Value:
    if isinstance(other, Signal):
        return _rows(walk, weight_of(x), other)
    if isinstance(x, Signal) and walk.rows:
        return _columns(walk, x, weight_of(other))
    return _dense(walk, x, _transposed(weight_of(other)))


def _rows(walk: Walk, shares: StoredTensor, x: Signal) -> Value:
    """Average rows, as this package writes the first half of an adaptive pooling."""
    walk.maps(x)
    channels, (name, height), columns = walk.parts
    walk.rows = shares.shape[0]
    _check_shares(shares, height, walk.rows)
    return Signal(walk.stage, axes_of(walk.batch, channels, (name, walk.rows), columns))


def _columns(walk: Walk, x: Signal, shares: StoredTensor) -> Value:
    """Average columns, the second half."""
    size, walk.rows = walk.rows, 0
    channels, (name, _), (_, width) = walk.parts
    axes = axes_of(walk.batch, channels, (name, size), walk.parts[2])
    if (x.stage, x.axes) != (walk.stage, axes) or x.curve is not PROBES or x.pads:
        raise Unreadable("it does not follow the product for the rows")
    _check_shares(_transposed(shares), width, size)
    return walk.add("AdaptiveAvgPool2d", size=size)


def _check_shares(shares: StoredTensor, pixels: int, size: int) -> None:
    """Check that a matrix averages pixels over the areas of an adaptive pooling."""
    if shares.shape != (size, pixels) or size * pixels > MOST_SHARES or \
            not np.array_equal(shares.load(), onnx_graph.areas(pixels, size)):
        raise Unreadable("it multiplies the image by a matrix")


@OPERATORS.register("Softmax", "LogSoftmax")
def _softmax(walk: Walk, node: Node, x: Value) -> Value:
    signal = walk.settle(x)
    if len(signal.axes) != 2 or node.attribute("axis", -1) not in (1, -1):
        raise Unreadable("it is not over the classes")
    if node.operator == "Softmax":
        walk.output = "softmax"
    else:  # softmax and cross entropy are the same after it
        walk.notes += ("the LogSoftmax at the end is left out",)
    walk.end = signal
    return signal
