"""Operators of ONNX graphs, each a function that takes a step of the walk. All others are refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import onnx

from alexnet_mf.errors import SpecError
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import same_padding
from alexnet_mf.weights import onnx_graph
from alexnet_mf.weights.formats.description import batch_share
from alexnet_mf.weights.formats.onnx.signals import (
    FUNCTIONS,
    MEANS,
    MOST_FOLDED,
    PROBES,
    Axis,
    Node,
    Signal,
    Value,
    axes_of,
    constant_of,
    decimal,
    is_close,
    is_linear,
    reshape,
    sizes_of,
    small,
    smalls,
    weight_of,
)
from alexnet_mf.weights.formats.onnx.tensors import DTYPES, Tensors, Unreadable, constant, view
from alexnet_mf.weights.formats.onnx.walk import Walk
from alexnet_mf.weights.parameters import STATE
from alexnet_mf.weights.stored import FLOATS, StoredTensor

Operator: TypeAlias = Callable[..., Value]
Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""Rows above and below, columns left and right."""

MOST_NODES = 10_000
MOST_SHARES = 2**24
OPERATORS: dict[str, Operator] = {}


def read_graph(model: onnx.ModelProto, tensors: Tensors) -> tuple[Network, Walk]:
    """Return the network that a model's graph computes, and the walk with its tensors and notes."""
    graph = model.graph
    if len(graph.output) != 1:
        raise Unreadable(f"it has {len(graph.output)} outputs, not one")
    if graph.sparse_initializer:
        raise Unreadable("it has sparse tensors")
    nodes, used = _needed(graph)
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    if len(initializers) != len(graph.initializer):
        raise Unreadable("two of its tensors have the same name")
    inputs = [entry for entry in graph.input if entry.name in used - initializers.keys()]
    if len(inputs) != 1:
        raise Unreadable(f"it has {len(inputs)} inputs, not one image")
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    walk = Walk(tensors, _image_shape(inputs[0]), model.producer_name == "alexnet_mf", opset)
    walk.values |= {**initializers, inputs[0].name: walk.image}
    walk.compute_in(DTYPES[inputs[0].type.tensor_type.elem_type])
    _follow(walk, nodes)
    try:
        return walk.finish(walk.value(graph.output[0].name), graph.name), walk
    except SpecError as error:
        raise Unreadable(str(error)) from error


def _needed(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], set[str]]:
    """Return the nodes that the output depends on, and the names that they use."""
    used, nodes = {graph.output[0].name}, []
    for node in reversed(graph.node):
        if not used.isdisjoint(node.output):
            nodes.append(node)
            used.update(_names(node))
    if len(nodes) > MOST_NODES:
        raise Unreadable(f"it has {len(nodes):,} nodes")
    return nodes[::-1], used


def _names(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node uses, also in the branches of an If."""
    yield from node.input
    for entry in node.attribute:
        yield from (output.name for output in entry.g.output)
        for inner in entry.g.node:
            yield from _names(inner)


def _image_shape(entry: onnx.ValueInfoProto) -> tuple[int, ...]:
    tensor = entry.type.tensor_type
    sizes = tuple(size.dim_value for size in tensor.shape.dim)
    if DTYPES.get(tensor.elem_type) not in FLOATS or len(sizes) != 4 or min(sizes) < 0:
        raise Unreadable(f"its input {entry.name[:80]!r} is not a floating-point image with four axes")
    if 0 in sizes[1:]:
        raise Unreadable(f"its input {entry.name[:80]!r} has no fixed size", "export it with a fixed height and width")
    return sizes


def _follow(walk: Walk, nodes: Iterable[onnx.NodeProto]) -> None:
    """Take the steps of the nodes."""
    for node in nodes:
        where = f"operator {node.op_type[:80]} of node {(node.name or ''.join(node.output))[:80]!r}"
        try:
            if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
                raise Unreadable("it is not supported")
            values = Node(node, [walk.value(name) for name in node.input])
            if node.output[0] in walk.values:
                raise Unreadable("another node or tensor has its result's name")
            with np.errstate(all="ignore"):
                walk.values[node.output[0]] = OPERATORS[node.op_type](walk, values, *values.inputs)
            if values.attributes:
                raise Unreadable(f"its attribute {min(values.attributes)[:80]!r} is not supported")
        except Unreadable as error:
            raise Unreadable(f"{where}: {error}", error.remedy) from error
        except Exception as error:  # whatever an attribute or a shape from outside makes Python and NumPy raise
            raise Unreadable(f"{where}: {error}") from error


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Register a function of a walk, a node, and the node's inputs."""
    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function
    return register


# Constants and shapes

DTYPE_OF_CONSTANT = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}


@operator("Constant")
def _constant(walk: Walk, node: Node) -> Value:
    [(kind, value)] = node.attributes.items()
    node.attributes.clear()
    if kind == "value":
        return walk.source.stored(value)
    return constant(np.array(value, DTYPE_OF_CONSTANT[kind]))


@operator("ConstantOfShape")
def _constant_of_shape(walk: Walk, node: Node, sizes: Value) -> Value:
    value, shape = node.attribute("value"), small(sizes).tolist()
    if math.prod(shape) > MOST_FOLDED:
        raise Unreadable("its result is too large")
    return constant(np.full(shape, small(walk.source.stored(value)).item() if value else np.float32(0)))


@operator("Concat")
def _concat(walk: Walk, node: Node, *values: Value) -> Value:
    return constant(np.concatenate(smalls(*values), node.attribute("axis")))


@operator("Gather")
def _gather(walk: Walk, node: Node, *values: Value) -> Value:
    array, indices = smalls(*values)
    return constant(np.take(array, indices, node.attribute("axis", 0)))


@operator("Slice")
def _slice(walk: Walk, node: Node, x: Value, *rest: Value) -> Value:
    array = small(x)
    starts, ends = node.argument(1, "starts"), node.argument(2, "ends")
    axes, steps = node.argument(3, "axes", [*range(len(starts))]), node.argument(4, "steps", [1] * len(starts))
    for axis, *limits in zip(axes, starts, ends, steps):
        array = array[(slice(None),) * (axis % array.ndim) + (slice(*limits),)]
    return constant(array)


@operator("Equal")
def _equal(walk: Walk, node: Node, *values: Value) -> Value:
    return constant(np.equal(*smalls(*values)))


@operator("If")
def _if(walk: Walk, node: Node, condition: Value) -> Value:
    branches = node.attribute("else_branch"), node.attribute("then_branch")
    branch = branches[bool(small(condition))]
    for tensor in branch.initializer:
        if tensor.name in walk.values:
            raise Unreadable("another node or tensor has the name of one in its branch")
        walk.values[tensor.name] = tensor
    _follow(walk, branch.node)
    return walk.value(branch.output[0].name)


@operator("Shape")
def _shape(walk: Walk, node: Node, x: Value) -> Value:
    return constant(np.array(sizes_of(x)[node.attribute("start", 0):node.attribute("end")], np.int64))


@operator("Reshape")
def _reshape(walk: Walk, node: Node, x: Value, *rest: Value) -> Value:
    sizes, before, keeps_zero = node.argument(1, "shape"), sizes_of(x), node.attribute("allowzero", 0)
    sizes = [before[i] if size == 0 and not keeps_zero else size for i, size in enumerate(sizes)]
    others = -math.prod(sizes)
    return reshape(x, [math.prod(before) // others if size == -1 else size for size in sizes])


@operator("Flatten")
def _flatten(walk: Walk, node: Node, x: Value) -> Value:
    sizes, axis = sizes_of(x), node.attribute("axis", 1)
    return reshape(x, [math.prod(sizes[:axis]), math.prod(sizes[axis:])])


@operator("Squeeze")
def _squeeze(walk: Walk, node: Node, x: Value, *rest: Value) -> Value:
    sizes = sizes_of(x)
    axes = [axis % len(sizes) for axis in node.argument(1, "axes", [i for i, size in enumerate(sizes) if size == 1])]
    return reshape(x, [size for i, size in enumerate(sizes) if i not in axes])


@operator("Unsqueeze")
def _unsqueeze(walk: Walk, node: Node, x: Value, *rest: Value) -> Value:
    sizes, axes = [*sizes_of(x)], node.argument(1, "axes")
    rank = len(sizes) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        sizes.insert(axis, 1)
    return reshape(x, sizes)


@operator("Transpose")
def _transpose(walk: Walk, node: Node, x: Value) -> Value:
    axes: Sequence[Any] = x.axes if isinstance(x, Signal) else constant_of(x).shape
    order = node.attribute("perm", [*range(len(axes))][::-1])
    if sorted(order) != [*range(len(axes))]:
        raise Unreadable(f"its order is {order}")
    permuted = tuple(axes[i] for i in order)
    if isinstance(x, Signal):
        return replace(x, axes=permuted, pads=tuple(x.pads[i] for i in order) if x.pads else ())
    return view(constant_of(x), permuted, lambda array: array.transpose(order))


@operator("Identity")
def _identity(walk: Walk, node: Node, x: Value) -> Value:
    return x


@operator("Cast")
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


@operator(*FUNCTIONS)
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


# Layers


@operator("Pad")
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


@operator("Conv")
def _convolution(walk: Walk, node: Node, x: Value, weight: Value, bias: Value = None) -> Value:
    image, tensor = walk.maps(x, may_pad=True), weight_of(weight)
    kernel = _square(tensor.shape[2:])
    if node.attribute("kernel_shape", [kernel] * 2) != [kernel] * 2 or image.fill:
        raise Unreadable("its kernel is not that of its weight, or its padding is not 0")
    stride, pads = _windows(node, kernel, [size + sum(pad) for size, pad in zip(walk.shape[1:], image.pads[2:])])
    return walk.add_weights("Conv2d", tensor, bias, channels=tensor.shape[0], kernel=kernel, stride=stride,
                            padding=_sum(image.pads[2:], pads), groups=node.attribute("group", 1))


@operator("MaxPool", "AveragePool")
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


@operator("GlobalAveragePool")
def _global_pool(walk: Walk, node: Node, x: Value) -> Value:
    walk.maps(x)
    return walk.add("AdaptiveAvgPool2d", size=1)


@operator("ReduceMean")
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


@operator("LRN")
def _response_norm(walk: Walk, node: Node, x: Value) -> Value:
    walk.maps(x)
    size = node.attribute("size")
    return walk.add_response_norm(size, *(node.attribute(name, default) for name, default in (
        ("alpha", 1e-4), ("bias", 1.0), ("beta", 0.75))))


@operator("Dropout")
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


@operator("BatchNormalization")
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


@operator("Gemm")
def _gemm(walk: Walk, node: Node, x: Value, weight: Value, bias: Value = None) -> Value:
    if node.attribute("transA", 0):
        raise Unreadable("it transposes the image")
    node.attribute("broadcast")  # until opset 7
    tensor = weight_of(weight) if node.attribute("transB", 0) else _transposed(weight_of(weight))
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    return _dense(walk, x, _times(tensor, alpha), None if bias is None else _times(weight_of(bias), beta))


@operator("MatMul")
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


@operator("Softmax", "LogSoftmax")
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
