"""Read a graph node by node. Operators that are not supported are refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx

from alexnet_mf.errors import SpecError
from alexnet_mf.spec import Network
from alexnet_mf.weights.formats.onnx import layers, operators
from alexnet_mf.weights.formats.onnx.signals import Node, Value, small
from alexnet_mf.weights.formats.onnx.tensors import DTYPES, Tensors, Unreadable
from alexnet_mf.weights.formats.onnx.walk import Walk
from alexnet_mf.weights.stored import FLOATS

MOST_NODES = 10_000


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


def _if(walk: Walk, node: Node, condition: Value) -> Value:
    branches = node.attribute("else_branch"), node.attribute("then_branch")
    branch = branches[bool(small(condition))]
    for tensor in branch.initializer:
        if tensor.name in walk.values:
            raise Unreadable("another node or tensor has the name of one in its branch")
        walk.values[tensor.name] = tensor
    _follow(walk, branch.node)
    return walk.value(branch.output[0].name)


OPERATORS = operators.OPERATORS | layers.OPERATORS | {"If": _if}
