"""ONNX files of other programs: the network that is read gives the logits that ONNX Runtime gives for the file."""

from __future__ import annotations

import io
import json
import re
import sys
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

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("parity", "fuzz")]  # as pytest does for their tests
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
        graph.initializer.append(numpy_helper.from_array((abs(values) + 0.5 if name[0] == "p" else values).astype(dtype),
                                                         name))
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
    assert np.ptp(expected) > 0.001
    return relative_l2(actual, expected)


def text(network: Network | None) -> str:
    """Return the layers in short."""
    assert network is not None
    return " ".join(type(layer).__name__ + (f"-{layer.activation}" if getattr(layer, "activation", None) else "")
                    for layer in network.layers)


def architecture(network: Network | None) -> list[spec.Layer]:
    """Return the layers without names and dropout, with numbers as in float32."""
    assert network is not None
    return [replace(layer, **{"name": "", **{key: tuple(np.float32(value).tolist()) for key, value in vars(layer).items()
                                             if key in ("mean", "std")}})
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


def test_a_spec_beside_another_graph_is_ignored() -> None:
    network = zoo.get_network("lenet5")
    written = onnx_graph.build(network, parameters.initialize(network, 0))
    [entry] = [entry for entry in written.metadata_props if entry.key == "spec"]
    entry.value = entry.value.replace("sigmoid", "relu")
    stored = read(written)
    assert stored.network is not None and stored.network.name == "my-lenet5"
    assert architecture(stored.network) == architecture(network)


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
    "reshape with 0 and -1": (f"c = Conv(x, t_4_2_3_3) k = Constant<value_ints=[0,-1]>() f = Reshape(c, k) "
                              "y = MatMul(f, t_140_3)", "Conv2d Flatten Dense"),
    "reshape by shape": ("c = Conv(x, t_4_2_3_3) s = Shape(c) z = Constant<value_int=0>() n = Gather(s, z) "
                         "e = Constant<value_ints=[0]>() u = Unsqueeze(n, e) m = Constant<value_ints=[-1]>() "
                         "k = Concat<axis=0>(u, m) f = Reshape(c, k) y = MatMul(f, t_140_3)", "Conv2d Flatten Dense"),
    "squeezed axes": ("c = Conv(x, t_4_2_9_7) a = Constant<value_ints=[3]>() s = Squeeze(c, a) b = Constant<value_ints=[-1]>()"
                      " f = Squeeze(s, b) y = MatMul(f, t_4_3)", None),
    "dropout and casts": (f"c = Cast<to=1>(x) d = Conv(c, t_4_2_3_3) r = Relu(d) q = Constant<value_float=0.25>() "
                          "o, _ = Dropout(r, q) f = Flatten(o) y = MatMul(f, t_140_3)",
                          "Conv2d-relu Dropout Flatten Dense"),
    "pooling": (f"c = Conv(x, t_4_2_3_3) m = MaxPool<kernel_shape=[2,2]>(c) a = AveragePool<kernel_shape=[2,2], "
                "strides=[2,2], count_include_pad=1>(m) f = Flatten(a) y = MatMul(f, t_24_3)",
                "Conv2d MaxPool2d AvgPool2d Flatten Dense"),
    "global pooling": ("c = Conv(x, t_4_2_3_3, t_4) g = GlobalAveragePool(c) f = Flatten(g) y = MatMul(f, t_4_3)",
                       "Conv2d AdaptiveAvgPool2d Flatten Dense"),
    "mean": ("c = Conv(x, t_4_2_3_3, t_4) a = Constant<value_ints=[-1, 2]>() f = ReduceMean<keepdims=0>(c, a) "
             "y = MatMul(f, t_4_3)", "Conv2d AdaptiveAvgPool2d Flatten Dense"),
    "normalized responses": (f"c = Conv(x, t_4_2_3_3, t_4) n = LRN<size=3, alpha=0.5, beta=0.6, bias=2.0>(c) "
                             "f = Flatten(n) y = MatMul(f, t_140_3)", "Conv2d LocalResponseNorm Flatten Dense"),
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
    "log softmax": (f"c = Conv(x, t_4_2_3_3) f = Flatten(c) g = MatMul(f, t_140_3) y = LogSoftmax(g)", None)}


@pytest.mark.parametrize("name", IDIOMS)
def test_idioms(name: str) -> None:
    body, layers = IDIOMS[name]
    file = model(body)
    if name not in ("unused nodes",):
        onnx.checker.check_model(file, full_check=True)
    stored = read(file)
    print(stored.network)
    if layers:
        assert text(stored.network) == layers
    assert error_of(stored, file.SerializeToString()) < TOLERANCE
