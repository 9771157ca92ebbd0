"""The network as an ONNX graph, written from the spec alone. No backend takes part, so ONNX Runtime's result is an
independent check.

Each layer is a node under its name, and its activation another (a GELU is several). Weights are initializers under
canonical names. The input `pixels` is float32 (N, channels, height, width), the output `logits` is (N, classes); N is
free. If the network's `output` is `softmax`, a softmax follows, and the output is `probabilities`. The graph's
`doc_string` states the preprocessing of the pixels; `preprocessing` and `classes` in the model's metadata are JSON. The
graph is for prediction and has no dropout.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from alexnet_mf import spec
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network, Preprocessing, arithmetic
from alexnet_mf.spec.layers import Padding, sides
from alexnet_mf.weights.metadata import BAKED, entries
from alexnet_mf.weights.parameters import parts

OPSET = 13
"""Opset of 2020: its operators have not changed since, and old runtimes read it."""
IR_VERSION = 7
"""Version of ONNX's file format in the same release."""
LARGEST_FILE = 2**31 - 2**20
"""Largest size of the weights, in bytes: a protobuf message has at most 2 GiB."""
INPUT, LOGITS, PROBABILITIES, BATCH = "pixels", "logits", "probabilities", "N"

OPERATORS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "elu": "Elu", "leaky_relu": "LeakyRelu"}


def encode(network: Network, parameters: Mapping[str, NDArray[np.float32]], preprocessing: Preprocessing | None = None,
           classes: Sequence[str] | None = None, bake: bool = False) -> bytes:
    """Return the content of the file, after ONNX's own checker and shape inference.

    Args:
        preprocessing: the preprocessing of the pictures; None if it is unknown.
        classes: names of the classes.
        bake: put scaling, order of the channels and normalization into the graph, which then takes levels, 0 to 255,
            in the order red, green, blue.

    Raises:
        ParametersError: if the weights exceed the size of an ONNX file.
    """
    size = sum(value.nbytes for value in parameters.values())
    if size > LARGEST_FILE:
        raise ParametersError(f"{network.name}: its weights take {size / 1e9:.1f} GB, more than the 2 GB of an "
                              "ONNX file; use safetensors")
    model = build(network, parameters, preprocessing, classes, bake)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def build(network: Network, parameters: Mapping[str, NDArray[np.float32]], preprocessing: Preprocessing | None = None,
          classes: Sequence[str] | None = None, bake: bool = False) -> onnx.ModelProto:
    """Return the graph with its weights. The arguments are those of `encode`."""
    nodes: list[onnx.NodeProto] = []
    tensors = {name: np.ascontiguousarray(value, "<f4") for name, value in parameters.items()}
    inputs = arithmetic.input_shapes(network)
    last = INPUT
    if bake and preprocessing:
        nodes += _baked(preprocessing, tensors)
        last = nodes[-1].output[0] if nodes else INPUT
        preprocessing = dataclasses.replace(preprocessing, color="gray" if preprocessing.color == "gray" else "rgb",
                                            scale=1, mean=None, std=None)
    for layer in network.layers:
        for node in _nodes(layer, inputs[layer.name], last, tensors):
            nodes.append(node)
            last = node.output[0]
    output = nodes[-1].output[0] = LOGITS
    if network.output == "softmax":
        output = PROBABILITIES
        nodes.append(helper.make_node("Softmax", [LOGITS], [output], "softmax", axis=1))
    graph = helper.make_graph(
        nodes, network.name.replace("-", "_"),
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [BATCH, *network.input])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [BATCH, network.classes])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
        _description(network, preprocessing))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                              producer_name="alexnet_mf", doc_string=graph.doc_string)
    about = {name: json.dumps(value) for name, value in entries(network, preprocessing, classes or ()).items()}
    about |= {BAKED: "true"} if bake else {}
    helper.set_model_props(model, {"network": network.name, "spec_sha256": spec.fingerprint(network),
                                   "spec": json.dumps(spec.as_dict(network)), **about})
    return model


def _description(network: Network, preprocessing: Preprocessing | None) -> str:
    """Return the preprocessing of the graph's input in one line."""
    if preprocessing:
        steps = preprocessing.describe(network.input[1:])
    elif isinstance(network.layers[0], spec.Normalize):
        steps = "scaled to [0, 1]"
    else:
        steps = "preprocessed as in training; the weights file does not state how"
    return f"{INPUT}: float32 (N, {', '.join(map(str, network.input))}); {steps}"


def _baked(preprocessing: Preprocessing, tensors: dict[str, NDArray[Any]]) -> list[onnx.NodeProto]:
    """Return the nodes that turn levels, 0 to 255, into the network's numbers, by the operations of `to_inputs`.

    Args:
        tensors: receives their constants.
    """
    constants: dict[str, tuple[str, NDArray[Any]]] = {}
    if preprocessing.color == "bgr":
        constants["Gather"] = "order", np.array([2, 1, 0], np.int64)
    if preprocessing.scale != 1:
        constants["Mul"] = "scale", np.array(preprocessing.scale, np.float32)
    if preprocessing.mean:
        constants["Sub"] = "mean", np.array(preprocessing.mean, np.float32)[:, None, None]
    if preprocessing.std:
        constants["Div"] = "std", np.array(preprocessing.std, np.float32)[:, None, None]
    nodes: list[onnx.NodeProto] = []
    for operator, (name, value) in constants.items():
        tensors[f"{INPUT}.{name}"] = value
        nodes.append(helper.make_node(operator, [nodes[-1].output[0] if nodes else INPUT, f"{INPUT}.{name}"],
                                      [f"{INPUT}.{operator.lower()}"], f"{INPUT}.{operator.lower()}",
                                      **({"axis": 1} if operator == "Gather" else {})))
    return nodes


def _nodes(layer: spec.Layer, shape: spec.Shape, source: str,
           tensors: dict[str, NDArray[np.float32]]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a layer, whose last one gives its output. `shape` is the input's, without the batch.

    Args:
        tensors: receives the constants that are not parameters of the network.
    """
    name = layer.name

    def node(operator: str, *inputs: str, output: str = name, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [output], output, **attributes)

    match layer:
        case spec.Conv2d() | spec.Dense() | spec.BatchNorm():
            weights = (source, *(f"{name}.{part}" for part in parts(layer)))
            linear = f"{name}_linear" if layer.activation else name
            if isinstance(layer, spec.Conv2d):
                yield node("Conv", *weights, output=linear, kernel_shape=[layer.kernel] * 2,
                           strides=[layer.stride] * 2, pads=_pads(layer.padding), group=layer.groups)
            elif isinstance(layer, spec.Dense):
                yield node("Gemm", *weights, output=linear, transB=1)
            else:
                yield node("BatchNormalization", *weights, output=linear, epsilon=layer.epsilon,
                           momentum=1 - layer.momentum)
            if layer.activation in ("gelu", "gelu_tanh"):
                yield from _gelu(name, linear, layer.activation == "gelu_tanh", tensors)
            elif layer.activation:
                attributes: dict[str, Any] = {} if layer.alpha is None else {"alpha": layer.alpha}
                yield node(OPERATORS[layer.activation], linear, **attributes)
        case spec.MaxPool2d() | spec.AvgPool2d():
            windows: dict[str, Any] = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2,
                                       "pads": _pads(layer.padding)}
            if isinstance(layer, spec.MaxPool2d):
                yield node("MaxPool", source, **windows)
            else:
                yield node("AveragePool", source, **windows, count_include_pad=int(layer.count_padding))
        case spec.AdaptiveAvgPool2d():
            # ONNX has no operator for it: means over rows, then over columns, are two matrix products.
            rows, columns = (areas(pixels, layer.size) for pixels in shape[1:])
            tensors.update({f"{name}.rows": rows, f"{name}.columns": np.ascontiguousarray(columns.T)})
            yield node("MatMul", f"{name}.rows", source, output=f"{name}_rows")
            yield node("MatMul", f"{name}_rows", f"{name}.columns")
        case spec.LocalResponseNorm():
            # Like PyTorch, ONNX divides alpha by the number of channels.
            yield node("LRN", source, size=layer.size, alpha=layer.alpha * layer.size, beta=layer.beta, bias=layer.k)
        case spec.Normalize():
            for statistic, values in (("mean", layer.mean), ("std", layer.std)):
                tensors[f"{name}.{statistic}"] = np.array(values, np.float32)[:, None, None]
            yield node("Sub", source, f"{name}.mean", output=f"{name}_centred")
            yield node("Div", f"{name}_centred", f"{name}.std")
        case spec.Flatten():
            yield node("Flatten", source, axis=1)
        case spec.Dropout():
            return
        case _:
            raise TypeError(f"{layer!r} has no node in ONNX")


def _pads(padding: Padding) -> list[int]:
    """Return a padding in ONNX's order: top, left, bottom, right."""
    (top, bottom), (left, right) = sides(padding)
    return [top, left, bottom, right]


def _gelu(name: str, x: str, by_tanh: bool, tensors: dict[str, NDArray[np.float32]]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a GELU: opset 20 has an operator for it, older ones do not.

    Args:
        tensors: receives its constants.
    """
    numbers = {"one": 1, "half": 0.5, "scale": math.sqrt(2 / math.pi if by_tanh else 1 / 2), "cube": 0.044715}
    constants = {key: f"{name}.{key}" for key in numbers}
    tensors.update({constants[key]: np.array(value, np.float32) for key, value in numbers.items()
                    if by_tanh or key != "cube"})

    def node(operator: str, output: str, *inputs: str) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [output], output)

    argument = x
    if by_tanh:
        argument = f"{name}_argument"
        yield node("Mul", f"{name}_square", x, x)
        yield node("Mul", f"{name}_cube", f"{name}_square", x)
        yield node("Mul", f"{name}_scaled_cube", f"{name}_cube", constants["cube"])
        yield node("Add", argument, x, f"{name}_scaled_cube")
    yield node("Mul", f"{name}_scaled", argument, constants["scale"])
    yield node("Tanh" if by_tanh else "Erf", f"{name}_function", f"{name}_scaled")
    yield node("Add", f"{name}_share", f"{name}_function", constants["one"])
    yield node("Mul", f"{name}_half", x, constants["half"])
    yield node("Mul", name, f"{name}_half", f"{name}_share")


def areas(pixels: int, size: int) -> NDArray[np.float32]:
    """Return the share of each input row in each output row, (size, pixels)."""
    shares = np.zeros((size, pixels), np.float32)
    for i in range(size):
        first, end = i * pixels // size, -(-(i + 1) * pixels // size)
        shares[i, first:end] = 1 / (end - first)
    return shares
