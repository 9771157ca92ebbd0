"""ONNX files of other programs: the network that is read gives the logits that ONNX Runtime gives for the file."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from alexnet_mf import backends, spec
from alexnet_mf.errors import AlexnetMfError, ParametersError
from alexnet_mf.parity.tolerances import relative_l2
from alexnet_mf.spec import Network, zoo
from alexnet_mf.weights import onnx_graph, parameters
from alexnet_mf.weights.formats import onnx as onnx_file
from alexnet_mf.weights.stored import StoredWeights

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("parity", "fuzz")]  # as for the tests there
from bad_files import of_bytes  # noqa: E402
from test_random_specs import networks  # noqa: E402

TOLERANCE = 2e-6


def model(body: str, image: str = "N,2,9,7", element: str = "float", opset: int = 18) -> onnx.ModelProto:
    """Return a graph from x to y in ONNX's own notation. A name such as t_3_8 is a random tensor of that shape, p_3 one
    of positive numbers."""
    graph = onnx.parser.parse_graph(f"g ({element}[{image}] x) => ({element}[N, C] y) {{ {body} }}")
    dtype = {"float": np.float32, "float16": np.float16, "double": np.float64}[element]
    for name in dict.fromkeys(re.findall(r"\b[tp](?:_\d+)+\b", body)):
        shape = [int(size) for size in name.split("_")[1:]]
        values = np.random.default_rng(sum(shape)).uniform(-1, 1, shape) / np.sqrt(max(1, np.prod(shape[1:])))
        values = abs(values) / 2 + 0.3 if name[0] == "p" else values
        graph.initializer.append(numpy_helper.from_array(values.astype(dtype), name))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def read(content: bytes | onnx.ModelProto, path: Path = Path("model.onnx")) -> StoredWeights:
    return onnx_file.read(io.BytesIO(content if isinstance(content, bytes) else content.SerializeToString()), path)


def float32(stored: StoredWeights) -> parameters.Parameters:
    """Return the values, after comparing them with what was announced."""
    assert stored.names == {name: name for name in stored.tensors}
    values = {name: tensor.load() for name, tensor in stored.tensors.items()}
    assert {name: (value.dtype.name, value.shape) for name, value in values.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in stored.tensors.items()}
    return {name: np.ascontiguousarray(value, np.float32) for name, value in values.items()}


def error_of(stored: StoredWeights, content: bytes | Path, images: int = 4) -> float:
    """Return the distance between the reference's logits for the network and ONNX Runtime's for the file."""
    network = stored.network
    assert network is not None
    batch = np.random.default_rng(0).random((images, *network.input), np.float32)
    reference = backends.load("numpy").build(network, float32(stored))
    expected = reference.logits(reference.place(batch, np.zeros(images, np.int64)), images)
    session = onnxruntime.InferenceSession(content if isinstance(content, bytes) else str(content),
                                           providers=["CPUExecutionProvider"])
    notes = " ".join(stored.notes)
    pixels = batch * np.float32(255 if "255" in notes else 1)
    pixels = pixels.transpose(0, 2, 3, 1) if "N, H, W, C" in notes else pixels
    image, *unused = session.get_inputs()  # tf2onnx leaves inputs that no node takes
    pixels = pixels.astype({"tensor(float16)": np.float16, "tensor(double)": np.float64}.get(image.type, np.float32))
    others = {entry.name: np.ones(entry.shape, np.float32) for entry in unused}
    [actual] = session.run(None, {image.name: pixels, **others})
    if network.output == "softmax":
        expected = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    if "LogSoftmax" in notes:
        expected = expected - np.log(np.exp(expected).sum(1, keepdims=True))
    return relative_l2(actual, expected)


def text(network: Network | None) -> str:
    """Return the layers in short."""
    assert network is not None
    return " ".join(type(layer).__name__ + (f"-{layer.activation}" if getattr(layer, "activation", None) else "")
                    for layer in network.layers)


def architecture(network: Network | None) -> list[spec.Layer]:
    """Return the layers without names and dropout, with numbers as in float32."""
    assert network is not None
    return [replace(layer, name="", **{key: tuple(np.float32(value).tolist()) for key, value in vars(layer).items()
                                       if key in ("mean", "std")})
            for layer in network.layers if not isinstance(layer, spec.Dropout)]


# Files of this package


@settings(max_examples=40, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(network=networks(), has_spec=st.booleans())
def test_a_written_network_reads_back(network: Network, has_spec: bool) -> None:
    """Older files have no spec beside the graph; theirs comes from the nodes, without dropout and names."""
    weights = parameters.initialize(network, 0, random_biases=True)
    written = onnx_graph.build(network, weights)
    if not has_spec:
        del written.metadata_props[:]
    stored = read(written)
    if has_spec:
        assert stored.network == network
    assert stored.network is not None and stored.network.input == network.input
    assert architecture(stored.network) == architecture(network)
    assert [value.tobytes() for value in float32(stored).values()] == [
        weights[name].tobytes() for name in parameters.shapes(network)]
    assert not stored.notes


@pytest.mark.parametrize("name", ["lenet5", "alexnet-28"])
def test_layers_get_the_names_of_the_built_in_networks(name: str) -> None:
    network = zoo.get_network(name)
    written = onnx_graph.build(network, parameters.initialize(network, 0))
    assert read(written).network == network
    del written.metadata_props[:]
    stored = read(written)
    assert stored.network is not None
    assert [layer.name for layer in stored.network.layers] == [
        layer.name for layer in network.layers if not isinstance(layer, spec.Dropout)]
    assert [*stored.tensors] == [*parameters.shapes(network)]


@pytest.mark.parametrize("change", [
    lambda fields: fields["layers"][0].update(activation="relu"), lambda fields: fields.update(output="softmax"),
    lambda fields: fields["layers"].insert(0, {"kind": "Normalize", "name": "n", "mean": [0.5], "std": [0.5]}),
    lambda fields: fields["layers"].pop(), lambda fields: fields.update(input=[1, 29, 28]),
    lambda fields: fields.clear()])
def test_a_spec_beside_another_graph_is_ignored(change: Callable[[dict[str, Any]], Any]) -> None:
    network = zoo.get_network("lenet5")
    written = onnx_graph.build(network, parameters.initialize(network, 0))
    fields = spec.as_dict(network)
    change(fields)
    next(entry for entry in written.metadata_props if entry.key == "spec").value = json.dumps(fields)
    stored = read(written)
    assert stored.network is not None and (stored.network.name, stored.network.output) == ("lenet5", "logits")
    assert architecture(stored.network) == architecture(network)


@pytest.mark.parametrize("mean, std", [((3.0, -1.0), (2.0, 9.0)), ((0.0, 0.0), (1.0, 1.0))])
def test_own_normalization_is_kept(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    network = Network("small", (2, 3, 3), (spec.Normalize("normalize", mean, std), spec.Flatten("flatten"),
                                           spec.Dense("fc1", units=2)))
    written = onnx_graph.build(network, parameters.initialize(network, 0))
    del written.metadata_props[:]
    stored = read(written)
    assert stored.network == network and not stored.notes


def test_metadata() -> None:
    network = zoo.get_network("lenet5")
    written = onnx_graph.build(network, parameters.initialize(network, 0))
    for key, value in {"classes": '["a", "b"]', "preprocessing": "[" * 100_000, "author": "x"}.items():
        written.metadata_props.add(key=key, value=value)
    assert read(written).metadata == {"network": "lenet5", "spec_sha256": spec.fingerprint(network),
                                      "classes": ["a", "b"]}


# Idioms of other programs

FLAT = "f = Flatten(c) y = Gemm<transB=1>(f, t_3_140, t_3)"
"""A dense layer after 4 channels of 7x5."""
IDIOMS = {
    "Gemm with factors": ("c = Conv(x, t_4_2_3_3, t_4) f = Flatten(c) y = Gemm<alpha=0.5, beta=3.0>(f, t_140_3, t_1_3)",
                          "Conv2d Flatten Dense"),
    "MatMul and Add": ("c = Conv(x, t_4_2_3_3) d = Add(c, t_4_1_1) r = Relu(d) f = Flatten(r) m = MatMul(f, t_140_5) "
                       "a = Add(t_5, m) s = Sigmoid(a) n = MatMul(s, t_5_3) y = Add(n, t_1_3)",
                       "Conv2d-relu Flatten Dense-sigmoid Dense"),
    "transposed weights": ("w = Transpose<perm=[3,2,0,1]>(t_3_3_2_4) c = Conv(x, w, t_4) f = Flatten(c) "
                           "v = Transpose(t_140_3) i = Identity(v) y = Gemm<transB=1>(f, i, t_3)",
                           "Conv2d Flatten Dense"),
    "reshape with 0 and -1": ("c = Conv(x, t_4_2_3_3) k = Constant<value_ints=[0,-1]>() f = Reshape(c, k) "
                              "y = MatMul(f, t_140_3)", "Conv2d Flatten Dense"),
    "reshape by shape": ("c = Conv(x, t_4_2_3_3) s = Shape(c) z = Constant<value_int=0>() n = Gather(s, z) "
                         "e = Constant<value_ints=[0]>() u = Unsqueeze(n, e) m = Constant<value_ints=[-1]>() "
                         "k = Concat<axis=0>(u, m) f = Reshape(c, k) y = MatMul(f, t_140_3)", "Conv2d Flatten Dense"),
    "squeezed axes": ("c = Conv(x, t_4_2_3_3) g = GlobalAveragePool(c) a = Constant<value_ints=[3]>() "
                      "s = Squeeze(g, a) b = Constant<value_ints=[-1]>() f = Squeeze(s, b) y = MatMul(f, t_4_3)",
                      "Conv2d AdaptiveAvgPool2d Flatten Dense"),
    "dropout and casts": ("c = Cast<to=1>(x) d = Conv(c, t_4_2_3_3) r = Relu(d) q = Constant<value_float=0.25>() "
                          "o, _ = Dropout(r, q) f = Flatten(o) y = MatMul(f, t_140_3)",
                          "Conv2d-relu Dropout Flatten Dense"),
    "pooling": ("c = Conv(x, t_4_2_3_3) m = MaxPool<kernel_shape=[2,2]>(c) a = AveragePool<kernel_shape=[2,2], "
                "strides=[2,2], count_include_pad=1>(m) f = Flatten(a) y = MatMul(f, t_24_3)",
                "Conv2d MaxPool2d AvgPool2d Flatten Dense"),
    "global pooling": ("c = Conv(x, t_4_2_3_3, t_4) g = GlobalAveragePool(c) f = Flatten(g) y = MatMul(f, t_4_3)",
                       "Conv2d AdaptiveAvgPool2d Flatten Dense"),
    "mean": ("c = Conv(x, t_4_2_3_3, t_4) a = Constant<value_ints=[-1, 2]>() f = ReduceMean<keepdims=0>(c, a) "
             "y = MatMul(f, t_4_3)", "Conv2d AdaptiveAvgPool2d Flatten Dense"),
    "normalized responses": ("c = Conv(x, t_4_2_3_3, t_4) n = LRN<size=3, alpha=0.5, beta=0.6, bias=2.0>(c) "
                             "f = Flatten(n) y = MatMul(f, t_140_3)", "Conv2d LocalResponseNorm Flatten Dense"),
    "padding after a limit": (f"d = Conv(x, t_4_2_3_3) z = Constant<value_float=0.0>() r = Clip(d, z) "
                              f"a = Constant<value_ints=[0,0,1,1,0,0,1,1]>() p = Pad(r, a) "
                              f"c = Conv(p, t_4_4_3_3) {FLAT}", "Conv2d-relu Conv2d Flatten Dense"),
    "sigmoid from exponential": (f"d = Conv(x, t_4_2_3_3) n = Neg(d) e = Exp(n) o = Constant<value_float=1.0>() "
                                 f"p = Add(e, o) c = Div(o, p) {FLAT}", "Conv2d-sigmoid Flatten Dense"),
    "relu as a limit": (f"d = Conv(x, t_4_2_3_3) z = Constant<value_float=0.0>() c = Clip(d, z) {FLAT}",
                        "Conv2d-relu Flatten Dense"),
    "relu as a maximum": (f"d = Conv(x, t_4_2_3_3) z = Constant<value_float=0.0>() c = Max(z, d) {FLAT}",
                          "Conv2d-relu Flatten Dense"),
    "mean and deviation": (f"m = Sub(x, t_1_2_1_1) n = Div(m, p_2_1_1) c = Conv(n, t_4_2_3_3) {FLAT}",
                           "Normalize Conv2d Flatten Dense"),
    "one mean and deviation": (f"h = Constant<value_float=0.5>() q = Constant<value_float=0.25>() m = Sub(x, h) "
                               f"n = Div(m, q) c = Conv(n, t_4_2_3_3) {FLAT}", "Normalize Conv2d Flatten Dense"),
    "pixels to 255": (f"s = Constant<value_float=0.003921568859368563>() n = Mul(x, s) c = Conv(n, t_4_2_3_3) {FLAT}",
                      "Conv2d Flatten Dense"),
    "pixels to 255 with means": (f"s = Constant<value_floats=[123.0, 104.0]>() a = Constant<value_ints=[1,2]>() "
                                 f"u = Unsqueeze(s, a) n = Sub(x, u) k = Constant<value_float=0.017>() o = Mul(n, k) "
                                 f"c = Conv(o, t_4_2_3_3) {FLAT}", "Normalize Conv2d Flatten Dense"),
    "unused nodes": (f"c = Conv(x, t_4_2_3_3) q = QuantizeLinear(x, t_1) {FLAT}", "Conv2d Flatten Dense"),
    "softmax": ("c = Conv(x, t_4_2_3_3) f = Flatten(c) g = MatMul(f, t_140_3) y = Softmax(g)",
                "Conv2d Flatten Dense"),
    "GELU": (f"d = Conv(x, t_4_2_3_3, t_4) r = Constant<value_float=1.4142135381698608>() e = Div(d, r) g = Erf(e) "
             f"o = Constant<value_float=1.0>() i = Add(g, o) j = Mul(d, i) h = Constant<value_float=0.5>() "
             f"c = Mul(j, h) {FLAT}", "Conv2d-gelu Flatten Dense"),
    "GELU by tanh": (f"d = Conv(x, t_4_2_3_3) e = Add(d, t_4_1_1) n = Constant<value_float=3.0>() p = Pow(e, n) "
                     f"k = Constant<value_float=0.044715>() q = Mul(k, p) s = Add(e, q) "
                     f"r = Constant<value_float=0.7978845834732056>() t = Mul(s, r) u = Tanh(t) "
                     f"o = Constant<value_float=1.0>() v = Add(o, u) h = Constant<value_float=0.5>() w = Mul(v, h) "
                     f"c = Mul(e, w) {FLAT}", "Conv2d-gelu_tanh Flatten Dense"),
    "log softmax": ("c = Conv(x, t_4_2_3_3) f = Flatten(c) g = MatMul(f, t_140_3) y = LogSoftmax(g)",
                    "Conv2d Flatten Dense"),
    "N, H, W, C": ("t = Transpose<perm=[0,3,1,2]>(x) c = Conv(t, t_4_7_1_1) r = Relu(c) "
                   "u = Transpose<perm=[0,2,3,1]>(r) k = Constant<value_ints=[-1,72]>() f = Reshape(u, k) "
                   "y = MatMul(f, t_72_3)", "Conv2d-relu Flatten Dense"),
    "N, H, W, C throughout": (
        "m = Sub(x, t_7) n = Div(m, p_1_1_1_7) t = Transpose<perm=[0,3,1,2]>(n) c = Conv(t, t_4_7_1_1) "
        "u = Transpose<perm=[0,2,3,1]>(c) b = Add(u, t_4) s = Tanh(b) v = Transpose<perm=[0,3,1,2]>(s) "
        "p = MaxPool<kernel_shape=[2,2]>(v) w = Transpose<perm=[0,2,3,1]>(p) d = Dropout(w) f = Flatten(d) "
        "e = Dropout(f) y = Gemm(e, t_32_3)", "Normalize Conv2d-tanh MaxPool2d Dropout Flatten Dropout Dense"),
    "mean in N, H, W, C": ("t = Transpose<perm=[0,3,1,2]>(x) c = Conv(t, t_4_7_1_1, t_4) "
                           "u = Transpose<perm=[0,2,3,1]>(c) a = Constant<value_ints=[1,2]>() "
                           "g = ReduceMean<keepdims=0>(u, a) y = MatMul(g, t_4_3)",
                           "Conv2d AdaptiveAvgPool2d Flatten Dense"),
    "elu and leaky relu": (f"a = Conv(x, t_4_2_3_3) b = Elu<alpha=0.7>(a) d = Conv(b, t_4_4_1_1) e = LeakyRelu(d) "
                           f"g = Conv(e, t_4_4_1_1) q = Constant<value_float=0.2>() h = Mul(g, q) c = Max(g, h) {FLAT}",
                           "Conv2d-elu Conv2d-leaky_relu Conv2d-leaky_relu Flatten Dense"),
    "PyTorch's normalized responses": (
        f"d = Conv(x, t_4_2_3_3) r = Relu(d) q = Mul(r, r) k = Constant<value_ints=[-1,1,4,7,5]>() h = Reshape(q, k) "
        f"a = Constant<value_ints=[0,0,1,0,0,0,0,1,0,0]>() i = Pad(h, a) "
        f"j = AveragePool<kernel_shape=[3,1,1], strides=[1,1,1], count_include_pad=1>(i) "
        f"e = Constant<value_ints=[1]>() s = Squeeze(j, e) alpha = Constant<value_float=0.6>() l = Mul(s, alpha) "
        f"one = Constant<value_float=2.0>() m = Add(l, one) beta = Constant<value_float=0.75>() n = Pow(m, beta) "
        f"c = Div(r, n) {FLAT}",
        "Conv2d-relu LocalResponseNorm Flatten Dense"),
    "batch normalization": (f"d = Conv(x, t_4_2_3_3) e = BatchNormalization<epsilon=0.01, momentum=0.8>(d, t_4, t_4, "
                            f"t_4, p_4) c = Relu(e) {FLAT}", "Conv2d BatchNorm-relu Flatten Dense"),
    "batch normalization of features": (
        "c = Conv(x, t_4_2_3_3) f = Flatten(c) b = BatchNormalization(f, t_140, t_140, t_140, p_140) "
        "d = MatMul(b, t_140_5) e = BatchNormalization(d, t_5, t_5, t_5, p_5) g = Tanh(e) y = MatMul(g, t_5_3)",
        "Conv2d Flatten BatchNorm Dense BatchNorm-tanh Dense"),
    "batch normalization of features in N, H, W, C": (
        "t = Transpose<perm=[0,3,1,2]>(x) c = Conv(t, t_4_7_1_1) u = Transpose<perm=[0,2,3,1]>(c) "
        "k = Constant<value_ints=[-1,72]>() f = Reshape(u, k) b = BatchNormalization(f, t_72, t_72, t_72, p_72) "
        "y = MatMul(b, t_72_3)", "Conv2d Flatten BatchNorm Dense"),
    "batch normalization as a product and a sum": (
        f"d = Conv(x, t_4_2_3_3, t_4) m = Mul(d, p_4_1_1) a = Add(m, t_4_1_1) c = Relu(a) {FLAT}",
        "Conv2d-relu Flatten Dense"),
    "batch normalization as a quotient": (
        "c = Conv(x, t_4_2_3_3) f = Flatten(c) g = MatMul(f, t_140_5) s = Sub(g, t_5) q = Div(s, p_1_5) "
        "a = Add(q, t_5) r = Relu(a) y = MatMul(r, t_5_3)", "Conv2d Flatten Dense-relu Dense"),
    "a product and a sum after a ReLU": (
        f"d = Conv(x, t_4_2_3_3) r = Relu(d) m = Mul(r, t_4_1_1) a = Add(m, t_4_1_1) c = Tanh(a) {FLAT}",
        "Conv2d-relu BatchNorm-tanh Flatten Dense"),
    "a product after dense features": (
        "c = Conv(x, t_4_2_3_3) f = Flatten(c) g = MatMul(f, t_140_5) r = Relu(g) q = Div(r, p_5) "
        "y = MatMul(q, t_5_3)", "Conv2d Flatten Dense-relu BatchNorm Dense"),
    "one channel": ("c = Conv(x, p_1_2_3_3) d = Add(c, t_1_1_1) r = Relu(d) f = Flatten(r) y = Gemm(f, t_35_3)",
                    "Conv2d-relu Flatten Dense")}


ENDS = "f = Flatten(c) y = Gemm(f, t_{}_3)".format
PADDED = {
    "same": ('c = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, t_4_2_4_4, t_4) ' + ENDS(80), ((1, 2), (1, 2))),
    "same, more before": ('c = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, t_4_2_4_4) ' + ENDS(80), ((2, 1), (2, 1))),
    "sides": ("c = Conv<pads=[1,0,2,3]>(x, t_4_2_3_3) " + ENDS(320), ((1, 2), (0, 3))),
    "a node": ("a = Constant<value_ints=[0,0,1,0,0,0,2,3]>() p = Pad(x, a) c = Conv(p, t_4_2_3_3) " + ENDS(320),
               ((1, 2), (0, 3))),
    "a node and sides": ("a = Constant<value_ints=[0,0,1,0,0,0,2,3]>() p = Pad(x, a) "
                         "c = Conv<pads=[1,1,1,1]>(p, t_4_2_3_3) " + ENDS(480), ((2, 3), (1, 4))),
    "a node in N, H, W, C": ("a = Constant<value_ints=[0,2,1,0,0,1,2,0]>() p = Pad(x, a) "
                             "t = Transpose<perm=[0,3,1,2]>(p) c = Conv(t, t_4_7_3_3) " + ENDS(120), ((2, 1), (1, 2)))}


@pytest.mark.parametrize("name", PADDED)
def test_padding(name: str) -> None:
    body, padding = PADDED[name]
    file = model(body)
    stored = read(file)
    assert stored.network is not None
    assert getattr(stored.network.layers[0], "padding", None) == padding
    assert error_of(stored, file.SerializeToString()) < TOLERANCE


WINDOWS = "kernel_shape=[3,3], strides=[2,2]"
POOLED = {
    "maximum": (f"c = MaxPool<{WINDOWS}, pads=[1,1,1,1]>(d) " + ENDS(48), spec.MaxPool2d("pool1", 3, 2, 1)),
    "maximum, sides": (f"c = MaxPool<{WINDOWS}, pads=[2,0,1,1]>(d) " + ENDS(32),
                       spec.MaxPool2d("pool1", 3, 2, ((2, 1), (0, 1)))),
    "maximum, rounded up": ("c = MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(d) " + ENDS(48),
                            spec.MaxPool2d("pool1", 2, 2, ((0, 1), (0, 1)))),
    "maximum, same": ('c = MaxPool<kernel_shape=[2,2], strides=[1,1], auto_pad="SAME_UPPER">(d) ' + ENDS(140),
                      spec.MaxPool2d("pool1", 2, 1, ((0, 1), (0, 1)))),
    "mean": (f"c = AveragePool<{WINDOWS}, pads=[1,1,1,1]>(d) " + ENDS(48), spec.AvgPool2d("pool1", 3, 2, 1)),
    "mean, counted": (f"c = AveragePool<{WINDOWS}, pads=[1,1,1,1], count_include_pad=1>(d) " + ENDS(48),
                      spec.AvgPool2d("pool1", 3, 2, 1, count_padding=True)),
    "mean, rounded up": ("c = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(d) " + ENDS(48),
                         spec.AvgPool2d("pool1", 2, 2, ((0, 1), (0, 1)))),
    "mean of a padded image": ("a = Constant<value_ints=[0,0,1,0,0,0,0,2]>() p = Pad(d, a) "
                               f"c = AveragePool<{WINDOWS}>(p) " + ENDS(36),
                               spec.AvgPool2d("pool1", 3, 2, ((1, 0), (0, 2)), count_padding=True))}


@pytest.mark.parametrize("name", POOLED)
def test_padding_of_poolings(name: str) -> None:
    """The image of the pooling has 7x5 pixels of either sign."""
    body, pool = POOLED[name]
    file = model("d = Conv(x, t_4_2_3_3, t_4) " + body)
    stored = read(file)
    assert stored.network is not None
    assert stored.network.layers[1] == pool
    assert error_of(stored, file.SerializeToString()) < TOLERANCE


@pytest.mark.parametrize("name", IDIOMS)
def test_idioms(name: str) -> None:
    body, layers = IDIOMS[name]
    file = model(body)
    onnx.checker.check_model(file, full_check=True)
    stored = read(file)
    assert text(stored.network) == layers
    assert error_of(stored, file.SerializeToString()) < TOLERANCE


def test_other_numbers_keep_their_dtype() -> None:
    stored = read(model(IDIOMS["MatMul and Add"][0], element="double"))
    assert {tensor.dtype for tensor in stored.tensors.values()} == {"float64"}  # ONNX Runtime has no such convolution
    assert not stored.notes
    file = model(IDIOMS["MatMul and Add"][0], element="float16")
    stored = read(file)
    assert {tensor.dtype for tensor in stored.tensors.values()} == {"float16"}
    assert stored.notes == ("the file computes in float16, this program in float32",)
    assert error_of(stored, file.SerializeToString()) < 2e-3


def test_bfloat16_is_widened_exactly() -> None:
    file = model(IDIOMS["Gemm with factors"][0])
    values = numpy_helper.to_array(file.graph.initializer[0]).astype("<f4").view("<u4") & 0xFFFF0000
    file.graph.initializer[0].CopyFrom(helper.make_tensor(
        "t_4_2_3_3", onnx.TensorProto.BFLOAT16, values.shape, (values >> 16).astype("<u2").tobytes(), raw=True))
    tensor = read(file).tensors["conv1.weight"]
    assert tensor.dtype == "bfloat16"
    assert tensor.load().dtype == np.float32 and tensor.load().tobytes() == values.tobytes()


def test_a_graph_of_caffe2() -> None:
    """Numbers of images are fixed, a pooling's padding is in no window, dropout has two outputs."""
    file = model("c = Conv<pads=[1,1,1,1]>(x, t_4_2_3_3, t_4) r = Relu(c) n = LRN<size=5, alpha=0.01>(r) "
                 "p = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[0,0,1,1]>(n) "
                 "k = Constant<value=int64[2] {1,48}>() f = Reshape(p, k) g = Gemm<transB=1>(f, t_6_48, t_6) "
                 "h = Relu(g) d, _ = Dropout(h) i = Gemm<transB=1>(d, t_3_6, t_3) y = Softmax(i)",
                 image="1,2,9,7", opset=9)
    stored = read(file)
    assert text(stored.network) == ("Conv2d-relu LocalResponseNorm MaxPool2d Flatten Dense-relu Dropout Dense")
    assert error_of(stored, file.SerializeToString(), images=1) < TOLERANCE


def test_a_fixed_batch_may_be_reshaped_by_numbers() -> None:
    body = "c = Conv(x, t_4_2_3_3) k = Constant<value_ints=[1,140]>() f = Reshape(c, k) y = MatMul(f, t_140_3)"
    file = model(body, image="1,2,9,7")
    assert error_of(read(file), file.SerializeToString(), images=1) < TOLERANCE
    with pytest.raises(ParametersError, match="operator Reshape of node 'f': it changes the shape"):
        read(model(body))


def test_attributes_of_older_opsets() -> None:
    file = model("c = Conv(x, t_4_2_3_3, t_4) g = GlobalAveragePool(c) f = Squeeze<axes=[2,3]>(g) "
                 "d, _ = Dropout<ratio=0.3>(f) r = Clip<min=0.0>(d) y = Gemm(r, t_4_3, t_3)", opset=9)
    with pytest.raises(ParametersError, match="relu cannot follow drop1"):
        read(file)
    file = model("c = Conv(x, t_4_2_3_3, t_4) r = Clip<min=0.0>(c) g = GlobalAveragePool(r) f = Squeeze<axes=[2,3]>(g) "
                 "d, _ = Dropout<ratio=0.3>(f) y = Gemm(d, t_4_3, t_3)", opset=9)
    stored = read(file)
    assert text(stored.network) == "Conv2d-relu AdaptiveAvgPool2d Flatten Dropout Dense"
    assert error_of(stored, file.SerializeToString()) < TOLERANCE


# Files of the exporters themselves


def torch_network() -> Any:
    from torch import manual_seed, nn, rand

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.LocalResponseNorm(3, 0.5, 0.7, 2.0),
                nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 2, groups=2, bias=False), nn.Tanh(),
                nn.AvgPool2d(2, 1),
                nn.Conv2d(4, 6, 1), nn.LeakyReLU(0.2))
            self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(12, 7, bias=False), nn.ELU(0.5), nn.Linear(7, 5),
                                            nn.LogSoftmax(1))

        def forward(self, x: Any) -> Any:
            x = self.features((x - 0.5) / 0.25)
            return self.classifier(x.view(x.size(0), -1))

    manual_seed(0)
    net = Network()
    net(rand(9, 3, 18, 14))  # moves the running statistics
    return net.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True])
def test_pytorch(dynamo: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")
    path = tmp_path / "model.onnx"
    free = {"dynamic_shapes": ({0: "N"},)} if dynamo else {"dynamic_axes": {"x": {0: "N"}}, "input_names": ["x"]}
    torch.onnx.export(torch_network(), (torch.rand(2, 3, 18, 14),), str(path), dynamo=dynamo, verbose=False, **free)
    with path.open("rb") as file:
        stored = onnx_file.read(file, path)
        assert text(stored.network) == ("Normalize Conv2d-relu LocalResponseNorm MaxPool2d BatchNorm Conv2d-tanh "
                                        "AvgPool2d Conv2d-leaky_relu Flatten Dense-elu Dense")
        assert stored.notes == ("the LogSoftmax at the end is left out",)
        assert error_of(stored, path) < TOLERANCE


@pytest.mark.filterwarnings("ignore")
def test_keras(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tf2onnx")
    keras.utils.set_random_seed(0)
    kl = keras.layers
    net = keras.Sequential([
        kl.Input((18, 14, 3)), kl.Rescaling(1 / 255), kl.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3]),
        kl.Conv2D(8, 5, strides=2, padding="same", activation="relu", bias_initializer="normal"), kl.MaxPooling2D(2),
        kl.BatchNormalization(), kl.Conv2D(4, 2, activation="tanh"), kl.Dropout(0.5), kl.Flatten(),
        kl.Dense(6, activation="sigmoid", bias_initializer="normal"), kl.Dense(5, bias_initializer="normal")])
    net(np.random.default_rng(0).random((9, 18, 14, 3), np.float32), training=True)  # moves the running statistics
    path = tmp_path / "model.onnx"
    net.export(str(path), format="onnx", verbose=False)
    with path.open("rb") as file:
        stored = onnx_file.read(file, path)
        assert text(stored.network) == ("Normalize Conv2d-relu MaxPool2d BatchNorm Conv2d-tanh Flatten Dense-sigmoid "
                                        "Dense")
        assert stored.notes == ("the file takes images in N, H, W, C order", "the file takes pixels from 0 to 255",
                                "a multiplication after pool1 is a batch normalization with mean 0 and variance 1")
        assert error_of(stored, path) < TOLERANCE


# Refused


REFUSED = {
    "unknown operator": ("c = QLinearConv(x, t_1) y = Flatten(c)",
                         "operator QLinearConv of node 'c': it is not supported"),
    "branches": ("c = Conv(x, t_4_2_3_3) d = Conv(x, t_4_2_3_3) e = Add(c, d) f = Flatten(e) y = MatMul(f, t_140_3)",
                 "operator Conv of node 'd': it takes the output of an earlier layer"),
    "residual": ("c = Conv(x, t_4_2_3_3) d = Conv(c, t_4_4_1_1) e = Add(c, d) f = Flatten(e) y = MatMul(f, t_140_3)",
                 "operator Add of node 'e': it joins the outputs of several layers"),
    "own function": (f"d = Conv(x, t_4_2_3_3) s = Sigmoid(d) c = Mul(d, s) {FLAT}", "joins the outputs"),
    "limit of 6": (f"d = Conv(x, t_4_2_3_3) a = Constant<value_float=0.0>() b = Constant<value_float=6.0>() "
                   f"c = Clip(d, a, b) {FLAT}", "operator Gemm of node 'y': the nodes before it compute a function"),
    "image subtracted": (f"d = Sub(x, t_2_9_7) c = Conv(d, t_4_2_3_3) {FLAT}", "is not one number for each channel"),
    "rows scaled": (f"d = Mul(x, t_9_1) c = Conv(d, t_4_2_3_3) {FLAT}", "an axis that is not the channels'"),
    "channels reversed": (f"i = Constant<value_ints=[1,0]>() d = Gather<axis=1>(x, i) c = Conv(d, t_4_2_3_3) {FLAT}",
                          "operator Gather of node 'd'"),
    "unclear range": (f"k = Constant<value_float=0.6>() d = Mul(x, k) c = Conv(d, t_4_2_3_3) {FLAT}",
                      "does not show their range\\); export the network without it"),
    "scaled probabilities": ("c = Conv(x, t_4_2_3_3) f = Flatten(c) m = MatMul(f, t_140_3) s = Softmax(m) "
                             "y = Add(s, s)", "follows the softmax"),
    "layer of probabilities": ("c = Conv(x, t_4_2_3_3) f = Flatten(c) m = MatMul(f, t_140_3) s = Softmax(m) "
                               "y = MatMul(s, t_3_3)", "operator MatMul of node 'y': it follows the softmax"),
    "padded images": ("a = Constant<value_ints=[0,0,1,1,0,0,1,1]>() p = Pad(x, a) g = GlobalAveragePool(p) "
                      "f = Flatten(g) y = MatMul(f, t_2_3)",
                      "operator GlobalAveragePool of node 'g': its input is padded"),
    "mean over channels": ("c = Conv(x, t_4_2_3_3) a = Constant<value_ints=[1,2]>() f = ReduceMean<keepdims=0>(c, a) "
                           "y = MatMul(f, t_5_3)", "it is not the mean over height and width"),
    "two results of one name": (f"c = Conv(x, t_4_2_3_3) d = Relu(c) d = Tanh(c) e = Identity(d) c = Relu(e) {FLAT}",
                                "another node or tensor has its result's name"),
    "dilation": (f"c = Conv<dilations=[2,2]>(x, t_4_2_3_3) {FLAT}", "its dilation is not 1"),
    "a pooling of padding alone": ("a = Constant<value_ints=[0,0,3,3,0,0,3,3]>() l = Constant<value_float=-3.4e38>() "
                                   "d = Conv(x, t_4_2_3_3) p = Pad(d, a, l) c = MaxPool<kernel_shape=[3,3]>(p) " + FLAT,
                                   "padding 3 must be below the kernel, 3"),
    "a mean that rounds up within its padding": (
        "d = Conv(x, t_4_2_3_3) c = AveragePool<kernel_shape=[4,4], strides=[2,2], pads=[1,1,1,1], ceil_mode=1, "
        "count_include_pad=1>(d) " + FLAT, "its last windows divide by their area within the padding"),
    "statistics of the batch": (
        f"d = Conv(x, t_4_2_3_3) c, m, v = BatchNormalization<training_mode=1>(d, t_4, t_4, t_4, p_4) {FLAT}",
        "operator BatchNormalization of node 'cmv': it is in training mode"),
    "a product of flattened channels": (
        "c = Conv(x, t_4_2_3_3) f = Flatten(c) m = Mul(f, t_140) y = MatMul(m, t_140_3)",
        "operator Mul of node 'm': its constant of shape .140,. is not one number for each channel"),
    "oblong kernel": (f"c = Conv(x, t_4_2_3_1) {FLAT}", "its kernel or stride is 3x1, not square"),
    "unknown attribute": (f"c = Conv<secret=1>(x, t_4_2_3_3) {FLAT}", "its attribute 'secret' is not supported"),
    "transposed image": (f"t = Transpose<perm=[0,1,3,2]>(x) c = Conv(t, t_4_2_3_3) {FLAT}", "neither N, C, H, W nor"),
    "channels and rows swapped": ("c = Conv(x, t_4_2_3_3) t = Transpose<perm=[0,2,1,3]>(c) d = Conv(t, t_3_7_1_1) "
                                  "g = GlobalAveragePool(d) y = Flatten(g)", "N, C, H, W order"),
    "split axes": ("c = Conv(x, t_4_2_3_3) k = Constant<value_ints=[-1,2,14,5]>() d = Reshape(c, k) "
                   "y = Flatten(d)", "splits or mixes"),
    "training": (f"d = Conv(x, t_4_2_3_3) r = Constant<value_float=0.5>() t = Equal(r, r) c = Dropout(d, r, t) {FLAT}",
                 "training mode"),
    "no last layer": ("y = Conv(x, t_4_2_3_3)", "is not \\(images, classes\\)"),
    "cycle": (f"c = Conv(x, e) d = Relu(c) e = Transpose(d) {FLAT}", "no node before it gives 'e'"),
    "wrong sizes": ("c = Conv(x, t_4_2_3_3) f = Flatten(c) y = MatMul(f, t_141_3)", "its weight has the shape"),
    "wrong channels": (f"c = Conv(x, t_4_3_3_3) {FLAT}", "conv1.weight is"),
    "wrong bias": (f"c = Conv(x, t_4_2_3_3, t_5) {FLAT}", "its bias has the shape"),
    "free height": (f"c = Conv(x, t_4_2_3_3) {FLAT}", "export it with a fixed height and width"),
    "large constants": ("k = Constant<value_ints=[99999,99999]>() c = ConstantOfShape(k) d = Add(x, c) y = Flatten(d)",
                        "its result is too large"),
    "padding with 1": (f"a = Constant<value_ints=[0,0,1,1,0,0,1,1]>() i = Constant<value_float=1.0>() d = Pad(x, a, i) "
                       f"c = Conv(d, t_4_2_5_5) {FLAT}", "its padding is not 0")}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    body, message = REFUSED[name]
    with pytest.raises(ParametersError, match=f"^cannot be read as ONNX \\(.*{message}") as error:
        read(model(body, image="N,2,H,7" if name == "free height" else "N,2,9,7"))
    assert "; " in str(error.value)


@pytest.mark.parametrize("image, element", [("N,126", "float"), ("N,2,3,7,3", "float"), ("N,2,9,7", "uint8")])
def test_other_inputs_are_refused(image: str, element: str) -> None:
    file = model(f"c = Conv(x, t_4_2_3_3) {FLAT}", image)
    file.graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype({"float": "f4"}.get(
        element, element)))
    with pytest.raises(ParametersError, match="its input 'x' is not a floating-point image"):
        read(file)


def test_two_attributes_or_tensors_of_one_name_are_refused() -> None:
    """Another reader could take the other one."""
    file = model(IDIOMS["Gemm with factors"][0])
    file.graph.node[2].attribute.append(file.graph.node[2].attribute[0])
    with pytest.raises(ParametersError, match="two of its attributes have the same name"):
        read(file)
    file = model(IDIOMS["Gemm with factors"][0])
    file.graph.initializer.append(file.graph.initializer[0])
    with pytest.raises(ParametersError, match="two of its tensors have the same name"):
        read(file)


@pytest.mark.parametrize("opset, body", [
    (13, "d = Conv(x, t_4_2_3_3) c, m, v, n, w = BatchNormalization(d, t_4, t_4, t_4, p_4) "),
    (9, "d = Conv(x, t_4_2_3_3) c, m, v, n, w = BatchNormalization(d, t_4, t_4, t_4, p_4) "),
    (6, "d = Conv(x, t_4_2_3_3) c = BatchNormalization(d, t_4, t_4, t_4, p_4) ")])
def test_batch_normalization_in_training_is_refused_in_every_opset(opset: int, body: str) -> None:
    """Before opset 14 it has five outputs, and before opset 7 it is the default."""
    with pytest.raises(ParametersError, match="it is in training mode"):
        read(model(body + FLAT, opset=opset))
    if opset == 6:
        stored = read(model(body.replace("Normalization(", "Normalization<is_test=1>(") + FLAT, opset=opset))
        assert text(stored.network) == "Conv2d BatchNorm Flatten Dense"


def test_an_input_of_unclear_order_is_refused() -> None:
    """Flattened pixels in the order of the file: only a number of channels like 1 or 3 shows it."""
    body = "f = Flatten(x) y = MatMul(f, t_126_3)"
    with pytest.raises(ParametersError, match="neither N, C, H, W nor N, H, W, C"):
        read(model(body, "N,2,9,7"))
    file = model(f"m = Mul(x, p_9_1) {body.replace('x', 'm')}", "N,2,9,7")
    with pytest.raises(ParametersError, match="neither N, C, H, W nor N, H, W, C"):
        read(file)
    for image, scale in (("N,2,9,7", "p_2_1_1"), ("N,9,7,2", "p_2")):
        file = model(f"m = Sub(x, {scale}) {body.replace('x', 'm')}", image)
        assert error_of(read(file), file.SerializeToString()) < TOLERANCE
    for image in ("N,3,6,7", "N,6,7,3"):
        file = model(body, image)
        assert error_of(read(file), file.SerializeToString()) < TOLERANCE


def test_without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(AlexnetMfError, match=r"need onnx.*; pip install onnx, or install alexnet_mf\[onnx\]"):
        read(b"")


# Tensors in other files


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model with its tensors in another file of its folder."""
    path = tmp_path / "folder" / "model.onnx"
    path.parent.mkdir()
    onnx.save_model(model(IDIOMS["MatMul and Add"][0]), path, save_as_external_data=True, location="model.data",
                    size_threshold=0)
    return path


def moved(path: Path, **entries: str) -> onnx.ModelProto:
    """Return the model with other entries for the place of its tensors."""
    file = onnx.load(path, load_external_data=False)
    for tensor in file.graph.initializer:
        for key, value in entries.items():
            next(entry for entry in tensor.external_data if entry.key == key).value = value
    return file


def test_tensors_beside_the_model(external: Path) -> None:
    stored = read(external.read_bytes(), external)
    inside = read(model(IDIOMS["MatMul and Add"][0]))
    assert parameters.digest(float32(stored)) == parameters.digest(float32(inside))


def test_tensors_outside_the_folder_are_refused(external: Path) -> None:
    data = external.parent / "model.data"
    other = external.parent.parent / "other"
    data.rename(other)
    for location in ("../other", str(other), "../folder/../other"):
        with pytest.raises(ParametersError, match="outside the model's folder"):
            read(moved(external, location=location), external)
    data.symlink_to(other)
    with pytest.raises(ParametersError, match="outside the model's folder"):
        read(moved(external), external)


@pytest.mark.parametrize("entries, message", [
    ({"location": "nothing"}, "which is not beside the model"), ({"location": "."}, "which is not beside the model"),
    ({"location": "\0"}, "null"), ({"offset": "-1"}, "does not match the size"),
    ({"offset": "9" * 30}, "does not match"), ({"offset": "9" * 5000}, "digits"), ({"length": "1"}, "does not match"),
    ({"length": "x"}, "invalid literal")])
def test_tensors_in_damaged_files_are_refused(external: Path, entries: dict[str, str], message: str) -> None:
    with pytest.raises(ParametersError, match=message):
        read(moved(external, **entries), external)


# Damaged files


@pytest.mark.parametrize("content", [
    b"", b"a text", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", model(IDIOMS["GELU"][0]).SerializeToString()[:-20]],
    ids=["empty", "text", "HDF5", "archive", "truncated"])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(ParametersError, match=r"^cannot be read as ONNX \(.*\); use another copy$"):
        read(content)


def test_large_constants_are_not_computed() -> None:
    """Each node doubles the number of values."""
    grown = " ".join(f"a{i} = Concat<axis=0>(a{i - 1}, a{i - 1})" for i in range(1, 60))
    with pytest.raises(ParametersError, match="its constants are too large"):
        read(model(f"a0 = Constant<value_ints=[1,1,1,1]>() {grown} c = Reshape(x, a59) y = Conv(c, t_4_2_3_3)"))


def test_sizes_that_do_not_match_are_refused() -> None:
    file = model(IDIOMS["MatMul and Add"][0])
    file.graph.initializer[0].dims[0] = 2**40
    with pytest.raises(ParametersError, match="does not match its data"):
        read(file)
    file = model(IDIOMS["MatMul and Add"][0], image=f"N,{2**40},{2**40},{2**40}")
    with pytest.raises(ParametersError, match="too large"):
        read(file)


def consume(content: bytes | onnx.ModelProto) -> None:
    """Read a file and its tensors, or refuse it."""
    try:
        float32(read(content))
    except ParametersError as error:
        assert str(error).startswith("cannot be read as ONNX (") and "\n" not in str(error) and len(str(error)) < 2000


GOOD = model(IDIOMS["N, H, W, C throughout"][0]).SerializeToString()


@settings(max_examples=200, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(of_bytes(GOOD))
def test_damaged_bytes(content: bytes) -> None:
    consume(content)


NUMBERS = st.sampled_from([0, 1, -1, 2, 3, 7, 2**31, 2**62, -(2**62)])
CHANGES = ["operator", "input", "input", "drop", "remove", "attribute", "numbers", "numbers", "dims", "reshape",
           "image"]
OPERATORS = ["Relu", "Tanh", "Softmax", "Transpose", "Flatten", "Neg"]


@st.composite
def damaged_graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """Connect, exchange or remove nodes, and change numbers and shapes."""
    file = model(draw(st.sampled_from([body for body, _ in (*IDIOMS.values(), *PADDED.values())])))
    for _ in range(draw(st.integers(1, 3))):
        node, other = (draw(st.sampled_from([*file.graph.node])) for _ in range(2))
        tensor = draw(st.sampled_from([*file.graph.initializer] or [onnx.TensorProto()]))
        entry = draw(st.sampled_from([*node.attribute] or [onnx.AttributeProto()]))
        change = draw(st.sampled_from(CHANGES))
        if change == "operator":
            node.op_type = draw(st.sampled_from([other.op_type, *OPERATORS]))
        elif change == "input" and node.input:
            node.input[draw(st.integers(0, len(node.input) - 1))] = draw(
                st.sampled_from([*other.input, *other.output, tensor.name, "x", ""]))
        elif change == "drop" and node.input:
            del node.input[-1]
        elif change == "remove" and len(file.graph.node) > 1:
            after = node.output[0]
            for later in file.graph.node:
                later.input[:] = [node.input[0] if name == after and node.input else name for name in later.input]
            file.graph.node.remove(node)
        elif change == "attribute" and other.attribute:
            node.attribute.append(other.attribute[0])
        elif change == "numbers":
            entry.i, entry.f = draw(NUMBERS), float(draw(NUMBERS))
            entry.ints[:] = draw(st.permutations([*entry.ints])) if draw(st.booleans()) else [
                draw(NUMBERS) for _ in entry.ints]
        elif change == "dims" and tensor.dims:
            tensor.dims[0] = draw(NUMBERS)
        elif change == "reshape":
            tensor.dims[:] = draw(st.permutations([*tensor.dims]))
        elif change == "image":
            file.graph.input[0].type.tensor_type.shape.dim[draw(st.integers(0, 3))].dim_value = abs(draw(NUMBERS))
    return file


@settings(max_examples=300, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(damaged_graphs())
def test_damaged_graphs(file: onnx.ModelProto) -> None:
    """A damaged graph is refused, or has the logits that ONNX Runtime has for it."""
    try:
        stored = read(file)
    except ParametersError as error:
        assert str(error).startswith("cannot be read as ONNX (") and "\n" not in str(error) and len(str(error)) < 2000
        return
    weights = float32(stored)
    assert stored.network is not None
    assert {name: value.shape for name, value in weights.items()} == parameters.shapes(stored.network)
    if np.prod(stored.network.input) > 10_000:
        return
    try:
        error = error_of(stored, file.SerializeToString())
    except Exception as refusal:
        assert "ONNXRuntimeError" in str(refusal)
        return
    assert error < 1e-5
