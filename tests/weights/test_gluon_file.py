"""MXNet's weights files: as MXNet writes them, as older versions wrote them, and damaged."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_files import DEEP, of_bytes, of_json_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from alexnet_mf import backends, spec
from alexnet_mf.errors import ParametersError
from alexnet_mf.parity.tolerances import relative_l2
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.layers import Layer
from alexnet_mf.weights import matching, parameters
from alexnet_mf.weights.formats import gluon
from alexnet_mf.weights.stored import StoredWeights

V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6, "bool": 7}
"""MXNet's numbers of dtypes."""


@pytest.fixture
def mx(requires: Callable[[str], None]) -> Any:
    requires("mxnet")
    backends.load("mxnet")
    import mxnet

    return mxnet


@contextmanager
def opened(path: Path) -> Iterator[StoredWeights]:
    with path.open("rb") as file:
        yield gluon.read(file, path)


def arrays(path: Path) -> dict[str, np.ndarray]:
    with opened(path) as stored:
        tensors = {name: tensor.load() for name, tensor in stored.tensors.items()}
        assert {name: (value.dtype.name, value.shape) for name, value in tensors.items()} == \
            {name: (tensor.dtype, tensor.shape) for name, tensor in stored.tensors.items()}
    return tensors


def refusal(path: Path) -> str:
    with path.open("rb") as file, pytest.raises(ParametersError) as caught:
        gluon.read(file, path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def short(value: object) -> str:
    return value if isinstance(value, str) and len(value) < 50 else "file"


def array(value: np.ndarray, version: int | None = V2) -> bytes:
    """Return an array as a version of MXNet writes it; None is the time before 1.0."""
    rank, sizes = struct.pack("<I", value.ndim), struct.pack(f"<{value.ndim}{'I' if version is None else 'q'}",
                                                             *value.shape)
    start = b"" if version is None else struct.pack("<I", version) + (b"" if version == V1 else bytes(4))
    return start + rank + sizes + struct.pack("<iii", 1, 0, FLAGS[value.dtype.name]) + value.tobytes()


def params(tensors: dict[str, np.ndarray], version: int | None = V2) -> bytes:
    names = b"".join(struct.pack("<Q", len(name)) + name.encode() for name in tensors)
    return struct.pack("<QQQ", 0x112, 0, len(tensors)) + \
        b"".join(array(value, version) for value in tensors.values()) + struct.pack("<Q", len(tensors)) + names


# The tensors


def long_net(mx: Any) -> Any:
    """Return more than ten layers, whose names do not sort by number, and batch normalization, which has state."""
    nn = mx.gluon.nn
    net = nn.HybridSequential()
    with net.name_scope():
        for _ in range(11):
            net.add(nn.Conv2D(3, 1, in_channels=3))
        net.add(nn.BatchNorm(in_channels=3), nn.Dense(4))
    net.initialize(mx.init.Normal(1))
    net.hybridize()
    net(mx.nd.ones((1, 3, 2, 2)))
    return net


WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "save_parameters": lambda net, path: net.save_parameters(str(path)),
    "collect_params": lambda net, path: net.collect_params().save(str(path)),
    "export": lambda net, path: net.export(str(path.with_name("net"))),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_each_writers_file_gives_the_tensors_in_the_models_order(mx, writer, tmp_path):
    net = long_net(mx)
    path = tmp_path / "net-0000.params"
    WRITERS[writer](net, path)
    (tmp_path / "net-symbol.json").unlink(missing_ok=True)
    tensors = arrays(path)
    expected = [parameter.data().asnumpy() for parameter in net.collect_params().values()]
    assert len(tensors) == len(expected) == 28
    for value, own in zip(tensors.values(), expected, strict=True):
        assert_array_equal(value, own)
    with opened(path) as stored:
        assert stored.is_ordered
        assert stored.network is stored.layers is None


def test_statistics_after_all_other_tensors_are_put_with_their_layer(mx, tmp_path):
    x = mx.sym.BatchNorm(mx.sym.Convolution(mx.sym.Variable("data"), name="c", kernel=(1, 1), num_filter=2), name="b")
    x = mx.sym.FullyConnected(x, name="f", num_hidden=2)
    module = mx.mod.Module(x, label_names=None)
    module.bind([("data", (1, 2, 3, 3))])
    module.init_params()
    module.save_checkpoint(str(tmp_path / "net"), 12)
    (tmp_path / "net-symbol.json").unlink()
    assert list(mx.nd.load(str(tmp_path / "net-0012.params")))[-2:] == ["aux:b_moving_mean", "aux:b_moving_var"]
    with opened(tmp_path / "net-0012.params") as stored:
        assert stored.is_ordered
        assert list(stored.tensors) == ["arg:c_weight", "arg:c_bias", "arg:b_gamma", "arg:b_beta", "aux:b_moving_mean",
                                        "aux:b_moving_var", "arg:f_weight", "arg:f_bias"]


@pytest.mark.parametrize("is_ordered, names", [
    (True, "c2_weight c2_bias c10_weight c10_bias"), (True, "0.weight 2.weight 10.weight"),
    (True, "b_weight a_weight"), (True, "features.0.weight"),
    (False, "arg:a_bias arg:a_weight arg:b_bias arg:b_weight"), (False, "a_weight b_weight a_bias b_bias"),
    (False, "c10_weight c10_bias c2_weight c2_bias"), (False, "n_beta n_gamma"), (False, "a_weight b_weight")],
    ids=["numbers", "numbers alone", "no order by name", "one", "sorted", "apart", "numbers sorted as text",
         "sorted normalization", "sorted, without biases"])
def test_the_order_is_trusted_only_if_nothing_else_explains_it(is_ordered, names):
    """C++ sorts names, and Python 2 writes them at random."""
    stored = gluon.read(io.BytesIO(params(dict.fromkeys(names.split(), np.ones(1, "f4")))), Path("absent.params"))
    assert stored.is_ordered == is_ordered


@pytest.mark.parametrize("dtype", FLAGS)
def test_dtypes_stay_as_they_are(dtype, tmp_path):
    values = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    (tmp_path / "a.params").write_bytes(params({"a": values, "b": values[:, :1].copy()}))
    tensors = arrays(tmp_path / "a.params")
    assert_array_equal(tensors["a"], values)
    assert_array_equal(tensors["b"], values[:, :1])


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int32", "int64"])
def test_mxnet_writes_the_same_dtypes(mx, dtype, tmp_path):
    values = mx.nd.array([[0, 1, 2], [3, 4, 5]], dtype=dtype)
    mx.nd.save(str(tmp_path / "a.params"), {"a": values})
    assert_array_equal(arrays(tmp_path / "a.params")["a"], values.asnumpy(), strict=True)


def test_bfloat16_becomes_float32(mx, tmp_path):
    numbers = mx.nd.array([[1, -2.5, 3.14159]])
    mx.nd.save(str(tmp_path / "a.params"), {"a": mx.nd.amp_cast(numbers, dtype="bfloat16")})
    with opened(tmp_path / "a.params") as stored:
        tensor = stored.tensors["a"]
        assert (tensor.dtype, tensor.shape) == ("bfloat16", (1, 3))
        assert_array_equal(tensor.load(), np.array([[1, -2.5, 3.140625]], np.float32), strict=True)


@pytest.mark.parametrize("version", [None, V1, V2, V3])
def test_all_versions_are_read_as_mxnet_reads_them(version, request, tmp_path):
    tensors = {"b_weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b_bias": np.array([7, 8], np.float32)}
    path = tmp_path / "a.params"
    path.write_bytes(params(tensors, version))
    assert list(arrays(path)) == list(tensors)
    for name, value in arrays(path).items():
        assert_array_equal(value, tensors[name], strict=True)
    if version != V3:  # which MXNet reads in its NumPy mode only
        for name, value in request.getfixturevalue("mx").nd.load(str(path)).items():
            assert_array_equal(value.asnumpy(), tensors[name])


def test_arrays_of_mxnets_numpy_mode_are_read(mx, tmp_path):
    with mx.util.np_shape(True):
        mx.nd.save(str(tmp_path / "a.params"), {"a": mx.nd.ones((2, 3)), "one": mx.nd.array([5]).reshape(())})
        mx.nd.save(str(tmp_path / "b.params"), {"a": mx.nd.ones((2, 0))})
    assert_array_equal(arrays(tmp_path / "a.params")["one"], np.array(5, np.float32), strict=True)
    assert "array 1 has type 0 and shape (2, 0)" in refusal(tmp_path / "b.params")


def test_sparse_and_nameless_arrays_are_refused(mx, tmp_path):
    mx.nd.save(str(tmp_path / "a.params"), {"a": mx.nd.ones((1,)), "b": mx.nd.ones((2, 2)).tostype("row_sparse")})
    assert "array 2 is sparse" in refusal(tmp_path / "a.params")
    mx.nd.save(str(tmp_path / "b.params"), [mx.nd.ones((1,))])
    assert "1 arrays have 0 names" in refusal(tmp_path / "b.params")


def test_values_are_read_only_when_they_are_asked_for():
    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            self.count += len(content)
            return content

    file = Counting(params({"a": np.zeros((4, 1000), "f4"), "b": np.ones((2, 1000), "f8")}))
    stored = gluon.read(file, Path("absent.params"))
    assert file.count < 200
    assert_array_equal(stored.tensors["b"].load(), np.ones((2, 1000)))
    assert file.count < 200 + 16_000


# The symbol file


def export(network: Network, folder: Path) -> parameters.Parameters:
    """Write the backend's own network with `export`; return its weights."""
    import mxnet as mx

    from alexnet_mf.backends.mxnet import network as native
    from alexnet_mf.backends.mxnet import weights

    net, values = native.build(network), parameters.initialize(network, 0, random_biases=True)
    net.initialize(mx.init.Zero())
    weights.load(net, values)
    net.hybridize()
    net(mx.nd.zeros((1, *network.input)))
    net.export(str(folder / "net"))
    return values


def assert_described(path: Path, layers: tuple[Layer, ...], values: parameters.Parameters) -> None:
    with opened(path) as stored:
        assert (stored.network.layers if stored.network else stored.layers) == layers
        assert list(stored.tensors) == list(stored.names.values())
        assert list(stored.names) == list(values)
        for name, theirs in stored.names.items():
            assert_array_equal(stored.tensors[theirs].load(), values[name], strict=True)


@pytest.mark.parametrize("net", ["lenet5", "lenet5-relu", "alexnet-28", "small"])
def test_an_exported_network_describes_its_layers(mx, net, small, tmp_path):
    network = small if net == "small" else zoo.get_network(net)
    assert_described(tmp_path / "net-0000.params", network.layers, export(network, tmp_path))


def alexnet(mx: Any, shape: tuple[int, ...] | None = None) -> Any:
    """Return a small AlexNet of 2012 with groups, as users of the Module API write it."""
    x = mx.sym.Variable("data", shape=shape)
    x = mx.sym.Convolution(x, name="c1", kernel=(5, 5), stride=(2, 2), num_filter=8)
    x = mx.sym.LRN(mx.sym.Activation(x, act_type="relu"), alpha=5e-4, beta=0.75, knorm=2, nsize=5)
    x = mx.sym.Pooling(x, pool_type="max", kernel=(3, 3), stride=(2, 2))
    x = mx.sym.Convolution(x, name="c2", kernel=(3, 3), pad=(1, 1), num_filter=6, num_group=2)
    x = mx.sym.Pooling(mx.sym.sigmoid(x), pool_type="avg", kernel=(2, 2))
    x = mx.sym.FullyConnected(x, name="f1", num_hidden=7)
    x = mx.sym.Dropout(mx.sym.relu(x), p=0.25)
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, name="f2", num_hidden=3), name="softmax")


ALEXNET = (
    spec.Conv2d("conv1", 8, 5, 2), spec.LocalResponseNorm("norm1", 5, 1e-4, 0.75, 2), spec.MaxPool2d("pool1", 3, 2),
    spec.Conv2d("conv2", 6, 3, padding=1, groups=2, activation="sigmoid"), spec.AvgPool2d("pool2", 2, 1),
    spec.Flatten("flatten"), spec.Dense("fc3", 7, "relu"), spec.Dropout("drop3", 0.25), spec.Dense("fc4", 3))


def test_a_checkpoint_of_the_module_api_gives_the_same_outputs(mx, tmp_path):
    module = mx.mod.Module(alexnet(mx, (0, 2, 20, 20)))
    module.bind([("data", (2, 2, 20, 20))], [("softmax_label", (2,))], for_training=False)
    module.init_params(mx.init.Normal(0.5))
    module.save_checkpoint(str(tmp_path / "my net"), 3)
    with opened(tmp_path / "my net-0003.params") as stored:
        assert stored.network == Network("my-net", (2, 20, 20), ALEXNET, output="softmax")
        assert stored.notes == ("layers from my net-symbol.json",)
        weights = {name: stored.tensors[theirs].load() for name, theirs in stored.names.items()}
    pixels = np.random.default_rng(0).random((2, 2, 20, 20), dtype=np.float32)
    model = backends.load("numpy").build(stored.network, weights)
    logits = model.logits(model.place(pixels, np.zeros(2, np.int64)), 2)
    module.forward(mx.io.DataBatch([mx.nd.array(pixels)]), is_train=False)
    powers = np.exp(logits)
    assert relative_l2(module.get_outputs()[0].asnumpy(), powers / powers.sum(1, keepdims=True)) < 1e-6


def test_without_the_inputs_shape_the_layers_are_described(mx, tmp_path):
    symbol = alexnet(mx)
    shapes, _, _ = symbol.infer_shape(data=(1, 2, 20, 20))
    weights = {name: mx.nd.random.normal(shape=shape) for name, shape in zip(symbol.list_arguments(), shapes)
               if name not in ("data", "softmax_label")}
    mx.model.save_checkpoint(str(tmp_path / "net"), 0, symbol, dict(sorted(weights.items())), {})
    names = dict(zip(("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc3.weight", "fc3.bias",
                      "fc4.weight", "fc4.bias"), weights))
    assert_described(tmp_path / "net-0000.params", ALEXNET, {name: weights[theirs].asnumpy()
                                                             for name, theirs in names.items()})
    with opened(tmp_path / "net-0000.params") as stored:
        assert stored.is_ordered
        assert stored.network is None


def test_exports_of_mxnets_numpy_mode_are_described(mx, tmp_path):
    nn = mx.gluon.nn
    mx.npx.set_np()
    try:
        net = nn.HybridSequential()
        net.add(nn.Conv2D(3, kernel_size=3, padding=1, activation="sigmoid"), nn.AvgPool2D(pool_size=2, strides=2),
                nn.Flatten(), nn.Dense(4, activation="relu"), nn.Dropout(0.5), nn.Dense(2))
        net.initialize()
        net.hybridize()
        net(mx.np.zeros((1, 1, 8, 8)))
        net.export(str(tmp_path / "net"))
        values = [parameter.data().asnumpy() for parameter in net.collect_params().values()]
    finally:
        mx.npx.reset_np()
    names = [f"{layer}.{part}" for layer in ("conv1", "fc2", "fc3") for part in ("weight", "bias")]
    assert_described(tmp_path / "net-0000.params", (
        spec.Conv2d("conv1", 3, 3, padding=1, activation="sigmoid"), spec.AvgPool2d("pool1", 2, 2),
        spec.Flatten("flatten"), spec.Dense("fc2", 4, "relu"), spec.Dropout("drop2", 0.5), spec.Dense("fc3", 2)),
        dict(zip(names, values, strict=True)))


@pytest.mark.exhaustive
def test_the_export_of_the_model_zoo_is_described(mx, tmp_path):
    net = mx.gluon.model_zoo.vision.alexnet()
    net.initialize()
    net.hybridize()
    net(mx.nd.zeros((1, 3, 224, 224)))
    net.export(str(tmp_path / "net"))
    layers = [layer for layer in zoo.ALEXNET_OWT.layers if layer.name not in ("avgpool", "drop5", "drop6")]
    layers[-2:-2] = [spec.Dropout("drop6", 0.5)]
    layers[-1:-1] = [spec.Dropout("drop7", 0.5)]
    values = [parameter.data().asnumpy() for parameter in net.collect_params().values()]
    assert_described(tmp_path / "net-0000.params", tuple(layers),
                     dict(zip(parameters.shapes(zoo.ALEXNET_OWT), values, strict=True)))


# Symbol files by hand


def node(operator: str, name: str, *inputs: int, **attributes: str) -> dict[str, Any]:
    return {"op": operator, "name": name, "attrs": attributes, "inputs": [[number, 0, 0] for number in inputs]}


def graph(*middle: dict[str, Any], old: str = "attrs", **changes: Any) -> dict[str, Any]:
    """Return a convolution, the nodes from number 4, and a dense layer after the last of them."""
    conv = {"kernel": "(3, 3)", "num_filter": "2"} | changes
    nodes = [node("null", "data"), node("null", "c_weight"), node("null", "c_bias"),
             node("Convolution", "c", 0, 1, 2, **conv), *middle, node("null", "f_weight"), node("null", "f_bias")]
    last = 3 + len(middle)
    nodes.append(node("FullyConnected", "f", last, last + 1, last + 2, num_hidden="4"))
    for entry in nodes:
        entry[old] = entry.pop("attrs")
    return {"nodes": nodes, "arg_nodes": [], "heads": [[len(nodes) - 1, 0, 0]]}


TENSORS = {"c_weight": np.ones((2, 1, 3, 3), np.float32), "c_bias": np.zeros(2, np.float32),
           "f_weight": np.ones((4, 32), np.float32), "f_bias": np.zeros(4, np.float32)}
"""Tensors of `graph`, for an input of 6x6."""


def write(folder: Path, symbol: object, tensors: dict[str, np.ndarray] = TENSORS) -> Path:
    """Write both files; return the path of the weights."""
    (folder / "net-0000.params").write_bytes(params({f"arg:{name}": value for name, value in tensors.items()}))
    text = symbol if isinstance(symbol, (str, bytes)) else json.dumps(symbol)
    (folder / "net-symbol.json").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / "net-0000.params"


CONV, FLAT, DENSE = spec.Conv2d("conv1", 2, 3, activation=None), spec.Flatten("flatten"), spec.Dense("fc2", 4)


@pytest.mark.parametrize("old", ["attrs", "attr", "param"])
def test_attributes_of_all_versions_are_read(old, tmp_path):
    with opened(write(tmp_path, graph(old=old, workspace="512", cudnn_tune="off", __lr_mult__="2", stride="[1L, 1L]",
                                      layout="None"))) as stored:
        assert stored.layers == (CONV, FLAT, DENSE)
        assert stored.names["fc2.bias"] == "arg:f_bias"


@pytest.mark.parametrize("operator, attributes, layer", [
    ("Pooling", {"kernel": "(2, 2)"}, spec.MaxPool2d("pool1", 2, 1)),
    ("Pooling", {"kernel": "(3, 3)", "stride": "(2, 2)", "pool_type": "avg"}, spec.AvgPool2d("pool1", 3, 2)),
    ("Pooling", {"global_pool": "True", "pool_type": "avg", "kernel": "(1, 1)", "pooling_convention": "full"},
     spec.AdaptiveAvgPool2d("pool1", 1)),
    ("Pooling", {"kernel": "(3, 3)", "pad": "(1, 1)"}, spec.MaxPool2d("pool1", 3, 1, 1)),
    ("Pooling", {"kernel": "(3, 3)", "pad": "(1, 1)", "pool_type": "avg"}, spec.AvgPool2d("pool1", 3, 1, 1, True)),
    ("Pooling", {"kernel": "(3, 3)", "pad": "(1, 1)", "pool_type": "avg", "count_include_pad": "False"},
     spec.AvgPool2d("pool1", 3, 1, 1)),
    ("_contrib_AdaptiveAvgPooling2D", {"output_size": "6"}, spec.AdaptiveAvgPool2d("pool1", 6)),
    ("LRN", {"nsize": "5"}, spec.LocalResponseNorm("norm1", 5, 2e-5, 0.75, 2)),
    ("Dropout", {}, spec.Dropout("drop1", 0.5))])
def test_defaults_are_mxnets(operator, attributes, layer, tmp_path):
    tensors = TENSORS | {"f_weight": np.ones((4, 3), np.float32)}
    with opened(write(tmp_path, graph(node(operator, "x", 3, **attributes)), tensors)) as stored:
        assert stored.layers == (CONV, layer, FLAT, DENSE)


@pytest.mark.parametrize("changes, fragment", [
    ({"dilate": "(2, 2)"}, "node 'c': dilate 2 is not supported, only 1"),
    ({"layout": "NHWC"}, "node 'c': layout 'NHWC' is not supported, only 'NCHW'"),
    ({"kernel": "(3, 2)"}, "layer c: kernel must be a whole number of at least 1, not (3, 2)"),
    ({"kernel": "(3,)"}, "layer c: kernel must be a whole number of at least 1, not (3,)"),
    ({"pad": "(1, 0, 0)"}, "layer c: padding must be"), ({"stride": "x"}, "layer c: stride must be"),
    ({"num_filter": "None"}, "layer c: channels must be"), ({"rate": "1"}, "node 'c': 'rate' is not supported")])
def test_what_a_convolution_cannot_be_is_refused_by_name(changes, fragment, tmp_path):
    message = refusal(write(tmp_path, graph(**changes)))
    assert message.startswith("cannot be read: net-symbol.json: ")
    assert fragment in message


@pytest.mark.parametrize("middle, fragment", [
    ([node("Pooling", "p", 3, kernel="(2, 2)", pad="(1, 0, 0)")], "layer p: padding must be"),
    ([node("Pooling", "p", 3, kernel="(2, 2)", pooling_convention="full")], "node 'p': pooling_convention 'full'"),
    ([node("Pooling", "p", 3, kernel="(2, 2)", pool_type="sum")], "node 'p': pool_type 'sum' is not supported"),
    ([node("Pooling", "p", 3, global_pool="True")], "node 'p': pool_type 'max' is not supported, only 'avg'"),
    ([node("Activation", "a", 3, act_type="softsign")],
     "node 'a': act_type 'softsign' is not supported, only relu, sigmoid, tanh; use a network without it"),
    ([node("Activation", "a", 3)], "node 'a': act_type 'None' is not supported"),
    ([node("relu", "a", 3), node("relu", "b", 4)], "node 'b': an activation is supported only after a layer"),
    ([node("Dropout", "d", 3, mode="always")], "node 'd': mode 'always' is not supported"),
    ([node("softmax", "s", 3)], "node 's': a softmax is supported only at the end"),
    ([node("transpose", "t", 3)], "node 't': operator 'transpose' is not supported"),
    ([node("elemwise_add", "sum", 3, 3)], "node 'sum' (elemwise_add) does not have one input"),
    ([node("LRN", "n", 3, nsize="4")], "layer n: size must be odd"), ([node("LRN", "n", 3)], "layer n: size must be")])
def test_layers_that_the_package_lacks_are_refused_by_name(middle, fragment, tmp_path):
    assert fragment in refusal(write(tmp_path, graph(*middle)))


def test_two_outputs_are_refused(tmp_path):
    assert "2 outputs" in refusal(write(tmp_path, graph() | {"heads": [[3, 0, 0], [6, 0, 0]]}))


@pytest.mark.parametrize("tensors, fragment", [
    ({"c_weight": np.ones((3, 1, 3, 3), np.float32)}, "'arg:c_weight' is (3, 1, 3, 3)"),
    ({"c_bias": np.ones(3, np.float32)}, "'arg:c_weight' is (2, 1, 3, 3)"),
    ({"f_weight": np.ones((4, 32, 1), np.float32)}, "'arg:f_weight' is (4, 32, 1)"),
    ({"c_weight": np.ones(2, np.float32)}, "'arg:c_weight' is (2,)"), ({"x": np.ones(1)}, "only one of them has 'x'")])
def test_a_symbol_file_of_other_weights_is_refused(tensors, fragment, tmp_path):
    message = refusal(write(tmp_path, graph(), TENSORS | tensors))
    assert fragment in message
    assert message.endswith("; use the symbol file of these weights, or move it away to read them alone")


def test_two_tensors_of_one_name_are_refused(tmp_path):
    path = write(tmp_path, graph())
    path.write_bytes(params({f"arg:{name}": value for name, value in TENSORS.items()} | {"c_bias": TENSORS["c_bias"]}))
    assert "only one of them has" in refusal(path)


def test_an_input_that_the_weights_do_not_fit_is_refused(tmp_path):
    symbol = graph()
    symbol["nodes"][0]["attrs"] = {"__shape__": "(1, 1, 7, 7)"}
    assert "the tensors do not fit an input of 1x7x7" in refusal(write(tmp_path, symbol))


def test_a_symbol_file_is_optional(tmp_path):
    path = write(tmp_path, graph())
    path.rename(tmp_path / "other.params")
    with opened(tmp_path / "other.params") as stored:
        assert stored.layers is stored.network is None
        assert list(stored.tensors) == ["arg:c_weight", "arg:c_bias", "arg:f_weight", "arg:f_bias"]


# Bad files


@pytest.mark.parametrize("symbol, reason", [
    ("", "Expecting value"), ("{}", "not a graph"), ("[]", "not a graph"), (DEEP, "nested too deeply"),
    (b"\xff", "utf-8"),
    (graph() | {"heads": [[-1, 0, 0]]}, "not a graph"), (graph() | {"heads": [[6, 1, 0]]}, "not a graph"),
    (graph() | {"nodes": [7]}, "not a graph"), (graph() | {"heads": 3}, "not a graph"),
    ({"nodes": [node("relu", "loop", 0)], "heads": [[0, 0, 0]]}, "not a graph"),
    ({"nodes": [node("null", "data")], "heads": [[0, 0, 0]]}, "only one of them has"),
    (graph(kernel=3), "not a graph"), (graph(kernel=f"({'9' * 5000})"), "4300 digits"),
    (json.dumps(graph()).replace("[[3, 0, 0], [4, 0, 0], [5, 0, 0]]", "[[3, 0, 0]]"), "node 'f' has 1 inputs, not 3")],
    ids=short)
def test_a_damaged_symbol_file_is_refused(symbol, reason, tmp_path):
    message = refusal(write(tmp_path, symbol))
    assert message.startswith("cannot be read with net-symbol.json (")
    assert reason in message


def test_layers_of_one_kind_after_another_get_names_of_their_own(tmp_path):
    with opened(write(tmp_path, graph(node("Dropout", "a", 3), node("Dropout", "b", 4)))) as stored:
        assert [layer.name for layer in stored.layers] == ["conv1", "drop1", "drop1_2", "flatten", "fc2"]


def test_very_long_graphs_are_refused_soon(tmp_path):
    many = [node("Dropout", f"d{number}", number) for number in range(3, 20_000)]
    assert "more than 1,000 layers" in refusal(write(tmp_path, graph(*many)))
    many = [node("Flatten", f"d{number}", number) for number in range(3, 20_000)]
    with opened(write(tmp_path, graph(*many))) as stored:
        assert len(stored.layers) == 3


@pytest.mark.parametrize("content, reason", [
    (b"", "it ends too early"), (b"x" * 100, "does not begin with the right number"),
    (struct.pack("<QQQ", 0x112, 0, 2**60), "1,152,921,504,606,846,976 arrays; at most 10,000"),
    (struct.pack("<QQQIiI", 0x112, 0, 1, V2, 0, 2**32 - 1), "array 1 has 4,294,967,295 dimensions"),
    (struct.pack("<QQQI", 0x112, 0, 1, 33), "array 1 has 33 dimensions"),
    (struct.pack("<QQQIiI", 0x112, 0, 1, V2, 0, 0), "array 1 is empty"),
    (struct.pack("<QQQI", 0x112, 0, 1, 0), "array 1 is empty"),
    (struct.pack("<QQQIiI2qiii", 0x112, 0, 1, V2, 0, 2, 2**62, 2**62, 1, 0, 0), "it ends too early"),
    (struct.pack("<QQQIiI2qiii", 0x112, 0, 1, V2, 0, 2, -1, -4, 1, 0, 0), "type 0 and shape (-1, -4)"),
    (struct.pack("<QQQIiI1qiii", 0x112, 0, 1, V2, 0, 1, 1, 1, 0, 13), "type 13 and shape (1,)"),
    (params(TENSORS)[:-1], "it ends too early"), (params(TENSORS) + b"x", "its size does not match its header"),
    (params({"a" * 1001: np.ones(1)}), "a name of 1,001 bytes"),
    (params({"ab": np.ones(1), "ac": np.ones(1)}).replace(b"ac", b"ab"), "two arrays are named 'ab'"),
    (params({"a": np.ones(1)})[:-1] + b"\xff", "can't decode")], ids=short)
def test_a_damaged_file_is_refused(content, reason, tmp_path):
    (tmp_path / "a.params").write_bytes(content)
    message = refusal(tmp_path / "a.params")
    assert re.fullmatch(r"cannot be read as MXNet's parameters \(.*\); write them with net.save_parameters", message)
    assert reason in message


@settings(max_examples=300, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_damage_is_refused_in_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    parts = [f"b_{part}" for part in ("gamma", "beta", "moving_mean", "moving_var")]
    symbol = graph(*(node("null", part) for part in parts), node("BatchNorm", "b", 3, 4, 5, 6, 7, eps="0.01", axis="1"),
                   node("Activation", "a", 8, act_type="relu"), node("Pooling", "p", 9, kernel="(2, 2)"),
                   node("LRN", "n", 10, nsize="5", alpha="0.5"), node("Dropout", "d", 11, p="0.3", axes="()"))
    tensors = TENSORS | {"f_weight": np.ones((4, 18), np.float32)} | dict.fromkeys(parts, np.ones(2, np.float32))
    write(folder, symbol, tensors)
    name, damage = data.draw(st.sampled_from([("net-0000.params", of_bytes), ("net-symbol.json", of_json_text)]))
    path = folder / name
    path.write_bytes(data.draw(damage(path.read_bytes())))
    try:
        with opened(folder / "net-0000.params") as stored:
            for tensor in stored.tensors.values():
                assert tensor.load().shape == tensor.shape
    except ParametersError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("operator, attributes, activation, alpha", [
    ("Activation", {"act_type": "tanh"}, "tanh", None), ("tanh", {}, "tanh", None), ("_npi_tanh", {}, "tanh", None),
    ("LeakyReLU", {}, "leaky_relu", 0.25), ("LeakyReLU", {"act_type": "leaky", "slope": "0.1"}, "leaky_relu", 0.1),
    ("LeakyReLU", {"act_type": "elu", "slope": "1.0"}, "elu", 1.0), ("LeakyReLU", {"act_type": "gelu"}, "gelu", None)])
def test_activations_are_described(operator, attributes, activation, alpha, tmp_path):
    with opened(write(tmp_path, graph(node(operator, "a", 3, **attributes)))) as stored:
        assert stored.layers[0] == spec.Conv2d("conv1", 2, 3, activation=activation, alpha=alpha)


@pytest.mark.parametrize("act_type", ["prelu", "rrelu", "selu"])
def test_other_kinds_of_leaky_relu_are_refused(act_type, tmp_path):
    assert f"act_type {act_type!r} is not supported" in refusal(
        write(tmp_path, graph(node("LeakyReLU", "a", 3, act_type=act_type))))


def test_layers_without_biases_are_described(mx, tmp_path):
    nn = mx.gluon.nn
    net = nn.HybridSequential()
    net.add(nn.Conv2D(3, 3, use_bias=False, activation="relu"), nn.Dense(4, use_bias=False))
    net.initialize()
    net.hybridize()
    net(mx.nd.zeros((1, 2, 6, 6)))
    net.export(str(tmp_path / "net"))
    values = [parameter.data().asnumpy() for parameter in net.collect_params().values()]
    assert_described(tmp_path / "net-0000.params", (
        spec.Conv2d("conv1", 3, 3, bias=False), spec.Flatten("flatten"), spec.Dense("fc2", 4, bias=False)),
        dict(zip(("conv1.weight", "fc2.weight"), values, strict=True)))


def logits_of(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Return the reference's logits of the layers that a file describes."""
    with opened(path) as stored:
        network = Network("file", pixels.shape[1:], stored.layers)
        values = {name: stored.tensors[theirs].load() for name, theirs in stored.names.items()}
    model = backends.load("numpy").build(network, values)
    return model.logits(model.place(pixels, np.zeros(len(pixels), np.int64)), len(pixels))


def randomize(parameters: Iterable[tuple[str, Any]]) -> None:
    """Give parameters random values, variances around 1."""
    stream = np.random.default_rng(0)
    for name, value in parameters:
        value[:] = stream.uniform(-0.5, 0.5, value.shape) + name.endswith("var")


def test_batch_normalization_of_gluon_is_described(mx, tmp_path):
    nn = mx.gluon.nn
    net = nn.HybridSequential()
    net.add(nn.Conv2D(3, 3, use_bias=False), nn.BatchNorm(epsilon=1e-3, momentum=0.7), nn.Activation("relu"),
            nn.MaxPool2D(), nn.Flatten(), nn.BatchNorm(), nn.Dense(5), nn.BatchNorm(), nn.LeakyReLU(0.3), nn.Dense(4))
    net.initialize()
    net.hybridize()
    pixels = np.random.default_rng(1).random((3, 2, 7, 8), np.float32)
    net(mx.nd.array(pixels))
    randomize((name, parameter.data()) for name, parameter in net.collect_params().items())
    net.export(str(tmp_path / "net"))
    with opened(tmp_path / "net-0000.params") as stored:
        assert stored.layers == (
            spec.Conv2d("conv1", 3, 3, activation=None, bias=False), spec.BatchNorm("bn1", 1e-3, 0.3, "relu"),
            spec.MaxPool2d("pool1", 2, 2), spec.Flatten("flatten"), spec.BatchNorm("bn1_2"), spec.Dense("fc2", 5),
            spec.BatchNorm("bn2", activation="leaky_relu", alpha=0.3), spec.Dense("fc3", 4))
    assert relative_l2(logits_of(tmp_path / "net-0000.params", pixels), net(mx.nd.array(pixels)).asnumpy()) < 2e-6


@pytest.mark.parametrize("fixed", ["False", "false", "0", "True", "true", "1", None])
def test_a_fixed_gamma_is_1_whatever_the_file_has(mx, fixed, tmp_path):
    """`fix_gamma` is the default of MXNet's operator; epsilon is 0.001 then. MXNet reads switches in any spelling."""
    x = mx.sym.Convolution(mx.sym.Variable("data"), name="c", kernel=(3, 3), num_filter=2)
    x = mx.sym.FullyConnected(mx.sym.BatchNorm(x, name="b"), name="f", num_hidden=4)
    pixels = np.random.default_rng(1).random((3, 1, 6, 6), np.float32)
    module = mx.mod.Module(x, label_names=None)
    module.bind([("data", pixels.shape)], for_training=False)
    module.init_params()
    values = [dict(each) for each in module.get_params()]
    randomize((name, value) for each in values for name, value in each.items())
    module.set_params(*values)
    module.save_checkpoint(str(tmp_path / "net"), 0)
    assert mx.nd.load(str(tmp_path / "net-0000.params"))["arg:b_gamma"].asnumpy().max() < 0.6
    symbol = json.loads((tmp_path / "net-symbol.json").read_text())
    norm = next(entry for entry in symbol["nodes"] if entry["op"] == "BatchNorm")
    norm["attrs"] = {} if fixed is None else {"fix_gamma": fixed}
    (tmp_path / "net-symbol.json").write_text(json.dumps(symbol))
    net = mx.gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params"))
    with opened(tmp_path / "net-0000.params") as stored:
        assert stored.layers[1] == spec.BatchNorm("bn1", 1e-3, 0.1)
    assert relative_l2(logits_of(tmp_path / "net-0000.params", pixels), net(mx.nd.array(pixels)).asnumpy()) < 2e-6


@pytest.mark.parametrize("attributes, fragment", [
    ({"axis": "2"}, "axis 2 is not supported"), ({"output_mean_var": "True"}, "output_mean_var True is not supported")])
def test_other_batch_normalizations_are_refused(attributes, fragment, tmp_path):
    parts = [node("null", f"b_{part}") for part in ("gamma", "beta", "moving_mean", "moving_var")]
    symbol = graph(*parts, node("BatchNorm", "b", 3, 4, 5, 6, 7, **attributes))
    assert fragment in refusal(write(tmp_path, symbol))


def test_paddings_of_height_and_width_are_described(mx, tmp_path):
    nn = mx.gluon.nn
    net = nn.HybridSequential()
    net.add(nn.Conv2D(3, 3, padding=(1, 2)), nn.MaxPool2D(2, 2, (0, 1)), nn.AvgPool2D(2, 1, (1, 0)), nn.Dense(4))
    net.initialize(mx.init.Normal(1))
    net.hybridize()
    pixels = np.random.default_rng(1).random((3, 2, 7, 8), np.float32)
    expected = net(mx.nd.array(pixels)).asnumpy()
    net.export(str(tmp_path / "net"))
    with opened(tmp_path / "net-0000.params") as stored:
        assert [layer.padding for layer in stored.layers[:3]] == [
            ((1, 1), (2, 2)), ((0, 0), (1, 1)), ((1, 1), (0, 0))]
    assert relative_l2(logits_of(tmp_path / "net-0000.params", pixels), expected) < 2e-6


def test_without_the_inputs_size_a_network_must_be_named(tmp_path):
    message = "describes its layers without the size of their input; name a network with that input with `net`$"
    with opened(write(tmp_path, graph())) as stored, pytest.raises(ParametersError, match=message):
        matching.identify(stored)
