"""Operators that compute constants, change shapes, or are functions of each number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alexnet_mf.weights.formats.onnx.signals import (
    FUNCTIONS,
    MOST_FOLDED,
    PROBES,
    Node,
    Operators,
    Signal,
    Value,
    constant_of,
    is_linear,
    reshape,
    sizes_of,
    small,
    smalls,
    weight_of,
)
from alexnet_mf.weights.formats.onnx.tensors import DTYPES, Unreadable, constant, view
from alexnet_mf.weights.formats.onnx.walk import Walk
from alexnet_mf.weights.stored import FLOATS, StoredTensor

OPERATORS = Operators()


# Constants and shapes

DTYPE_OF_CONSTANT = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}


@OPERATORS.register("Constant")
def _constant(walk: Walk, node: Node) -> Value:
    [(kind, value)] = node.attributes.items()
    node.attributes.clear()
    if kind == "value":
        return walk.source.stored(value)
    return constant(np.array(value, DTYPE_OF_CONSTANT[kind]))


@OPERATORS.register("ConstantOfShape")
def _constant_of_shape(walk: Walk, node: Node, sizes: Value) -> Value:
    value, shape = node.attribute("value"), small(sizes).tolist()
    if math.prod(shape) > MOST_FOLDED:
        raise Unreadable("its result is too large")
    return constant(np.full(shape, small(walk.source.stored(value)).item() if value else np.float32(0)))


@OPERATORS.register("Concat")
def _concat(walk: Walk, node: Node, *values: Value) -> Value:
    return constant(np.concatenate(smalls(*values), node.attribute("axis")))


@OPERATORS.register("Gather")
def _gather(walk: Walk, node: Node, *values: Value) -> Value:
    array, indices = smalls(*values)
    return constant(np.take(array, indices, node.attribute("axis", 0)))


@OPERATORS.register("Slice")
def _slice(walk: Walk, node: Node, x: Value, *rest: Value) -> Value:
    array = small(x)
    starts, ends = node.argument(1, "starts"), node.argument(2, "ends")
    axes, steps = node.argument(3, "axes", [*range(len(starts))]), node.argument(4, "steps", [1] * len(starts))
    for axis, *limits in zip(axes, starts, ends, steps):
        array = array[(slice(None),) * (axis % array.ndim) + (slice(*limits),)]
    return constant(array)


@OPERATORS.register("Equal")
def _equal(walk: Walk, node: Node, *values: Value) -> Value:
    return constant(np.equal(*smalls(*values)))


@OPERATORS.register("Shape")
def _shape(walk: Walk, node: Node, x: Value) -> Value:
    return constant(np.array(sizes_of(x)[node.attribute("start", 0):node.attribute("end")], np.int64))


@OPERATORS.register("Reshape")
def _reshape(walk: Walk, node: Node, x: Value, *rest: Value) -> Value:
    sizes, before, keeps_zero = node.argument(1, "shape"), sizes_of(x), node.attribute("allowzero", 0)
    sizes = [before[i] if size == 0 and not keeps_zero else size for i, size in enumerate(sizes)]
    others = -math.prod(sizes)
    return reshape(x, [math.prod(before) // others if size == -1 else size for size in sizes])


@OPERATORS.register("Flatten")
def _flatten(walk: Walk, node: Node, x: Value) -> Value:
    sizes, axis = sizes_of(x), node.attribute("axis", 1)
    return reshape(x, [math.prod(sizes[:axis]), math.prod(sizes[axis:])])


@OPERATORS.register("Squeeze")
def _squeeze(walk: Walk, node: Node, x: Value, *rest: Value) -> Value:
    sizes = sizes_of(x)
    axes = [axis % len(sizes) for axis in node.argument(1, "axes", [i for i, size in enumerate(sizes) if size == 1])]
    return reshape(x, [size for i, size in enumerate(sizes) if i not in axes])


@OPERATORS.register("Unsqueeze")
def _unsqueeze(walk: Walk, node: Node, x: Value, *rest: Value) -> Value:
    sizes, axes = [*sizes_of(x)], node.argument(1, "axes")
    rank = len(sizes) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        sizes.insert(axis, 1)
    return reshape(x, sizes)


@OPERATORS.register("Transpose")
def _transpose(walk: Walk, node: Node, x: Value) -> Value:
    axes: Sequence[Any] = x.axes if isinstance(x, Signal) else constant_of(x).shape
    order = node.attribute("perm", [*range(len(axes))][::-1])
    if sorted(order) != [*range(len(axes))]:
        raise Unreadable(f"its order is {order}")
    permuted = tuple(axes[i] for i in order)
    if isinstance(x, Signal):
        return replace(x, axes=permuted, pads=tuple(x.pads[i] for i in order) if x.pads else ())
    return view(constant_of(x), permuted, lambda array: array.transpose(order))


@OPERATORS.register("Identity")
def _identity(walk: Walk, node: Node, x: Value) -> Value:
    return x


@OPERATORS.register("Cast")
def _cast(walk: Walk, node: Node, x: Value) -> Value:
    dtype = DTYPES.get(node.attribute("to"), "another type")
    if isinstance(x, StoredTensor) and dtype in ("bfloat16", "another type"):
        raise Unreadable(f"it makes a constant {dtype}")
    if isinstance(x, StoredTensor):
        return StoredTensor(dtype, x.shape, lambda: x.load().astype(dtype))
    if dtype not in FLOATS:
        raise Unreadable(f"it makes the image {dtype}")
    walk.compute_in(dtype)
    return x


# Functions of each number

WHOLE = ("Elu", "Gelu", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh")
"""Operators that are activations by themselves, if their input is a layer's output."""


@OPERATORS.register(*FUNCTIONS)
def _function(walk: Walk, node: Node, *values: Value) -> Value:
    fields = {name: node.attribute(name) for name in ("alpha", "approximate") if name in node.attributes}
    if node.operator == "Clip":
        values = (values[0], constant(np.float64(node.argument(1, "min", -np.inf))),
                  constant(np.float64(node.argument(2, "max", np.inf))))
    function = FUNCTIONS[node.operator]
    if isinstance(function, np.ufunc) and function.nin != len(values):  # one more would be the place of its result
        raise Unreadable(f"it has {len(values)} inputs")
    if node.operator in WHOLE and isinstance(values[0], Signal) and is_linear(values[0].curve):
        values = (walk.settle(values[0]), *values[1:])
    signals = [value for value in values if isinstance(value, Signal)]
    if not signals:
        return constant(function(*smalls(*values), **fields))
    first, windows = signals[0], {signal.window for signal in signals} - {0}
    if any((signal.stage, signal.axes) != (first.stage, first.axes) for signal in signals) or len(windows) > 1:
        raise Unreadable("it joins the outputs of several layers; only sequences of layers are supported")
    [rank] = {len(sizes_of(signal)) for signal in signals}
    operands, constants = list[Any](), list[float]()
    for value in values:
        if isinstance(value, Signal):
            operands.append(value.curve)
            constants += value.constants
            continue
        tensor = constant_of(value)
        if tensor.shape != (1,) * min(len(tensor.shape), rank):
            return _by_channel(walk, node, first, tensor, value is values[0])
        constants.append(float(small(tensor).item()))
        operands.append(constants[-1])
    result = replace(first, curve=function(*operands, **fields), constants=tuple(constants),
                     window=max(windows, default=0))
    return walk.settle(result) if node.operator in WHOLE and first.curve is PROBES else result


def _by_channel(walk: Walk, node: Node, x: Signal, tensor: StoredTensor, is_first: bool) -> Value:
    """Apply a constant with a number for each channel."""
    shape = (1,) * (len(x.axes) - len(tensor.shape)) + tensor.shape
    parts = [part for axis, size in zip(x.axes, shape) if size > 1 for part in axis]
    if len(parts) != 1 or math.prod(shape) != parts[0][1] or len(shape) > len(x.axes):
        raise Unreadable(f"its constant of shape {tensor.shape} is not one number for each channel")
    signal, numbers = walk.settle(x), weight_of(tensor).load().astype(np.float64).ravel()
    match node.operator, is_first:
        case "Add", _:
            walk.scale(1.0, numbers, parts[0])
        case "Sub", False:
            walk.scale(1.0, -numbers, parts[0])
        case "Mul", _:
            walk.scale(numbers, 0.0, parts[0])
        case "Div", False:
            walk.scale(1 / numbers, 0.0, parts[0])
        case _:
            raise Unreadable("it is not supported with one number for each channel")
    return replace(signal, stage=walk.stage)


