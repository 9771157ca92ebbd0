"""Caffe's files: the network that they describe, their tensors bit for bit, and OpenCV's logits as a witness.

OpenCV reads the same bytes with its own copy of Caffe's format, and computes with code of its own.
"""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from caffe_files import (
    BLOB,
    NET,
    V2_LAYER,
    blob,
    caffemodel,
    chain,
    encode,
    inputs_of,
    layers_of,
    prototxt,
    tagged,
    varint,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import by_size, narrower

from alexnet_mf import backends, spec
from alexnet_mf.errors import ParametersError
from alexnet_mf.parity.tolerances import TIERS, relative_l2
from alexnet_mf.spec import Network, Preprocessing, zoo
from alexnet_mf.weights import onnx_graph, parameters
from alexnet_mf.weights.formats import caffe
from alexnet_mf.weights.parameters import Parameters
from alexnet_mf.weights.stored import StoredWeights

TOLERANCE = TIERS["float32"].output
PATH = Path("weights.caffemodel")
CV2_MISSING = "OpenCV is the witness: pip install 'opencv-python-headless<5'"
MIXED = Network("mixed", (4, 23, 19), (
    spec.Conv2d("conv1", channels=6, kernel=4, stride=2, padding=3, groups=2),
    spec.LocalResponseNorm("norm1", 5, 0.5, 0.75, 1.0), spec.MaxPool2d("pool1", kernel=3, stride=2),
    spec.Conv2d("conv2", channels=4, kernel=1, activation="sigmoid"), spec.AvgPool2d("pool2", kernel=2, stride=1),
    spec.Conv2d("conv3", 5, 2, activation=None), spec.Flatten("flatten"),
    spec.Dense("fc4", units=7, activation="sigmoid"), spec.Dense("fc5", units=6, activation="relu"),
    spec.Dropout("drop5", rate=0.3), spec.Dense("fc6", units=3)))
"""Layers with numbers that reveal faults: sizes that do not divide, normalization that matters."""
SMALL = [zoo.LENET5, zoo.LENET5_RELU, MIXED, narrower(zoo.ALEXNET_CAFFE), narrower(zoo.CAFFENET)]
FORMS = [{"v1": True}, {"v1": False}, {"v1": True, "is_packed": False}, {"v1": False, "is_legacy": True}]


def read(content: bytes, **options: Any) -> StoredWeights:
    return caffe.read(io.BytesIO(content), PATH, **options)


def network_of(weights: StoredWeights) -> Network:
    assert weights.network is not None
    return weights.network


def values_of(weights: StoredWeights) -> Parameters:
    """Return the tensors under their canonical names."""
    return {name: np.array(weights.tensors[key].load(), np.float32, order="C") for name, key in weights.names.items()}


def random_images(network: Network) -> np.ndarray:
    """Return two images in [0, 1]; for AlexNet as Caffe has them, so large that the normalization matters."""
    images = np.random.default_rng(0).random((2, *network.input), dtype=np.float32)
    return images * 255 - 117 if network.input == zoo.ALEXNET_CAFFE.input else images


def logits(backend: str, network: Network, weights: Parameters) -> np.ndarray:
    model = backends.load(backend).build(network, weights)
    return model.logits(model.place(random_images(network), np.zeros(2, np.int64)), 2)


def opencv_logits(layers: list[dict[str, Any]], content: bytes, network: Network) -> np.ndarray:
    """Return the logits that OpenCV computes from a file."""
    cv2 = pytest.importorskip("cv2", reason=CV2_MISSING)
    net = cv2.dnn.readNetFromCaffe(prototxt(layers, **inputs_of(network, 2)), content)
    net.enableWinograd(False)  # its convolutions are less exact than float32's
    net.setInput(random_images(network))
    last = [layer["name"] for layer in layers if layer["type"] == "InnerProduct"][-1]
    return net.forward(last).reshape(2, -1)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.name)
def test_a_file_gives_its_network_and_every_bit(network, form, tmp_path):
    weights = parameters.initialize(network, 0, random_biases=True)
    content = caffemodel(layers_of(network, weights), **form, **inputs_of(network))
    (tmp_path / "w").write_bytes(content)
    with open(tmp_path / "w", "rb") as file:
        assert caffe.is_net(file)
        stored = caffe.read(file, tmp_path / "w")
        assert (stored.layout, stored.is_ordered, stored.notes, dict(stored.metadata)) == ("OIHW", True, (), {})
        assert network_of(stored).layers == network.layers
        assert spec.digest(network_of(stored)) == spec.digest(network)
        names = [layer["name"] for layer in layers_of(network, weights) if "blobs" in layer]
        assert list(stored.tensors) == [f"{name}[{index}]" for name in names for index in (0, 1)]
        tensors = {name: stored.tensors[key] for name, key in stored.names.items()}
        assert {name: tensor.shape for name, tensor in tensors.items()} == parameters.shapes(network)
        assert {tensor.dtype for tensor in tensors.values()} == {"float32"}
        assert parameters.digest(values_of(stored)) == parameters.digest(weights)


@pytest.mark.parametrize("net, name", [(zoo.ALEXNET_CAFFE, "alexnet-caffe"), (zoo.CAFFENET, "caffenet")])
def test_the_built_in_networks_are_caffes(net, name):
    """Only the channels are fewer here."""
    small = narrower(net)
    weights = parameters.initialize(small, 0)
    stored = read(caffemodel(layers_of(small, weights), **inputs_of(small)))
    assert network_of(stored).layers == narrower(zoo.get_network(name)).layers


# OpenCV


@pytest.mark.parametrize("network", [*SMALL, *by_size([zoo.ALEXNET_CAFFE, zoo.CAFFENET])], ids=lambda net: net.name)
def test_opencv_gives_the_logits_of_every_backend(network, present):
    """One test compares all backends, so that a network's weights are drawn once."""
    weights = parameters.initialize(network, 0, random_biases=True)
    layers = layers_of(network, weights)
    contents = [caffemodel(layers, v1, **inputs_of(network)) for v1 in (True, False)]
    witness, again = (opencv_logits(layers, content, network) for content in contents)
    assert np.array_equal(witness, again) and np.ptp(witness) > 0.01
    stored = read(contents[0])
    values = values_of(stored)
    errors = {name: relative_l2(logits(name, network_of(stored), values), witness) for name in {*present, "numpy"}}
    assert network_of(stored).output == "softmax"
    session = onnxruntime.InferenceSession(onnx_graph.encode(replace(network_of(stored), output="logits"), values),
                                           providers=["CPUExecutionProvider"])
    errors["onnx"] = relative_l2(session.run(["logits"], {"pixels": random_images(network)})[0], witness)
    assert max(errors.values()) < 2 * TOLERANCE, errors  # two float32 computations, each within one of the truth
    assert errors["numpy"] < TOLERANCE, errors


def test_opencv_converts_v1_into_the_same_network(tmp_path):
    """OpenCV parses all layers, brings them into the second form, and writes them with Google's encoder."""
    cv2 = pytest.importorskip("cv2", reason=CV2_MISSING)
    weights = parameters.initialize(MIXED, 0, random_biases=True)
    source = {"name": "data", "type": "Data", "top": ["data", "label"], "include": {"phase": 0}, "transform_param": {
        "scale": 0.5, "mean_value": 3.0, "mirror": 1}}
    layers = [source, *layers_of(MIXED, weights)[:-1], *ENDS]
    (tmp_path / "v1").write_bytes(caffemodel(layers, v1=True))
    cv2.dnn.shrinkCaffeModel(str(tmp_path / "v1"), str(tmp_path / "v2"), ["None"])
    contents = [(tmp_path / name).read_bytes() for name in ("v1", "v2")]
    assert [b"InnerProduct" in content for content in contents] == [False, True]
    for content in contents:
        stored = read(content, input_shape=MIXED.input)
        assert network_of(stored).layers == MIXED.layers
        assert parameters.digest(values_of(stored)) == parameters.digest(weights)


# Layers


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).uniform(-0.5, 0.5, shape).astype(np.float32)


def convolution(name: str = "conv1", channels: int = 3, count: int = 4, kernel: int = 3, **param: Any) -> tuple:
    """Return a convolution with its blobs. A parameter None is left out."""
    fields = {"num_output": count, "kernel_size": kernel, **param}
    blobs = [array(count, channels // param.get("group", 1), kernel, kernel), array(count)]
    blobs = blobs[:1 + param.get("bias_term", 1)]
    return name, "Convolution", {"blobs": blobs, "convolution_param": {
        key: value for key, value in fields.items() if value is not None}}


def dense(name: str, inputs: int, count: int = 2, **param: Any) -> tuple:
    blobs = [array(count, inputs), array(count)][:1 + param.get("bias_term", 1)]
    return name, "InnerProduct", {"blobs": blobs, "inner_product_param": {"num_output": count, **param}}


def pooling(name: str = "pool1", **param: Any) -> tuple:
    return name, "Pooling", {"pooling_param": param}


def norm(**param: Any) -> tuple:
    return "norm1", "LRN", {"lrn_param": param}


def batch_norm(name: str, count: int, total: float = 4, **param: Any) -> tuple:
    """Return a normalization, whose blobs are sums of statistics, and the sum of their weights."""
    return name, "BatchNorm", {"blobs": [array(count) * total, (array(count, 1)[:, 0] + 1) * total,
                                         np.array([total], np.float32)], "batch_norm_param": param}


def scale(name: str, count: int, bias_term: int = 1, **param: Any) -> tuple:
    blobs = [array(count, 2)[:, 0], array(count, 3)[:, 0]][:1 + bias_term]
    return name, "Scale", {"blobs": blobs, "scale_param": {"bias_term": bias_term, **param}}


RELU = ("relu1", "ReLU", {})
FC = dense("fc2", 4 * 6 * 6)
"""A dense layer after a convolution of 8x8 pixels with a kernel of 3."""
FC2 = spec.Dense("fc2", 2)
INPUT = {"input": "data", "input_shape": {"dim": [1, 3, 8, 8]}}


def conv1(**changes: Any) -> spec.Conv2d:
    return spec.Conv2d(**{"name": "conv1", "channels": 4, "kernel": 3, "activation": None, **changes})


CASES: dict[str, tuple[list[tuple], tuple[spec.Layer, ...]]] = {
    "repeated sizes": ([convolution(kernel_size=[3, 3], stride=[1, 1], pad=[0, 0], dilation=[1, 1]), FC], (conv1(),)),
    "sizes by axis": ([convolution(kernel_size=None, kernel_h=3, kernel_w=3, stride_h=2, stride_w=2, pad_h=1, pad_w=1),
                       dense("fc2", 4 * 4 * 4)], (conv1(stride=2, padding=1),)),
    "paddings by axis": ([convolution(pad_h=1, pad_w=2), pooling(kernel_size=2, stride=2, pad_h=0, pad_w=1),
                          dense("fc2", 4 * 4 * 6)],
                         (conv1(padding=((1, 1), (2, 2))), spec.MaxPool2d("pool1", 2, 2, ((0, 0), (1, 1))))),
    "groups": ([convolution(channels=3, count=6, group=3), dense("fc2", 6 * 6 * 6)], (conv1(channels=6, groups=3),)),
    "relu": ([convolution(), RELU, FC], (conv1(activation="relu"),)),
    "sigmoid": ([convolution(), ("sigmoid", "Sigmoid", {}), FC], (conv1(activation="sigmoid"),)),
    "relu after pooling": ([convolution(), pooling(kernel_size=2, stride=2), RELU, dense("fc2", 4 * 3 * 3)],
                           (conv1(activation="relu"), spec.MaxPool2d("pool1", 2, 2))),
    "pooling by axis": ([convolution(), pooling(kernel_h=2, kernel_w=2, stride_h=2, stride_w=2, pool=1),
                         dense("fc2", 4 * 3 * 3)], (conv1(), spec.AvgPool2d("pool1", 2, 2))),
    "maxima, rounded up": ([convolution(), pooling(kernel_size=3, stride=2), dense("fc2", 4 * 3 * 3)],
                           (conv1(), spec.MaxPool2d("pool1", 3, 2, ((0, 1), (0, 1))))),
    "means, rounded up": ([convolution(), pooling(pool=1, kernel_size=3, stride=2), dense("fc2", 4 * 3 * 3)],
                          (conv1(), spec.AvgPool2d("pool1", 3, 2, ((0, 1), (0, 1))))),
    "padded maxima": ([convolution(), pooling(kernel_size=3, stride=2, pad=1), dense("fc2", 4 * 4 * 4)],
                      (conv1(), spec.MaxPool2d("pool1", 3, 2, ((1, 2), (1, 2))))),
    "padded means": ([convolution(), pooling(pool=1, kernel_size=2, stride=2, pad=1), dense("fc2", 4 * 4 * 4)],
                     (conv1(), spec.AvgPool2d("pool1", 2, 2, 1, count_padding=True))),
    "stride of 1": ([convolution(), pooling(kernel_size=3), dense("fc2", 4 * 4 * 4)],
                    (conv1(), spec.MaxPool2d("pool1", 3, 1))),
    "two poolings": ([convolution(), pooling("a", kernel_size=2), pooling("b", kernel_size=2), dense("fc2", 4 * 4 * 4)],
                     (conv1(), spec.MaxPool2d("pool1", 2, 1), spec.MaxPool2d("pool1_2", 2, 1))),
    "global means": ([convolution(), pooling(pool=1, global_pooling=1), dense("fc2", 4)],
                     (conv1(), spec.AdaptiveAvgPool2d("pool1", 1))),
    "global maxima": ([convolution(), pooling(pool=0, global_pooling=1), dense("fc2", 4)],
                      (conv1(), spec.MaxPool2d("pool1", 6, 1))),
    "normalization": ([convolution(), norm(alpha=0.5), FC],
                      (conv1(), spec.LocalResponseNorm("norm1", 5, 0.1, 0.75, 1.0))),
    "another normalization": ([convolution(), norm(local_size=3, alpha=0.6, beta=0.5), FC],
                              (conv1(), spec.LocalResponseNorm("norm1", 3, 0.6 / 3, 0.5, 1.0))),
    "flatten and dropout": ([convolution(), ("d", "Dropout", {"include": {"phase": 0}}), ("flat", "Flatten", {}), FC],
                            (conv1(), spec.Dropout("drop1", 0.5))),
    "no biases": ([convolution(bias_term=0), FC], (replace(conv1(), bias=False),)),
    "leaky": ([convolution(), ("r", "ReLU", {"relu_param": {"negative_slope": 0.125}}), FC],
              (replace(conv1(), activation="leaky_relu", alpha=0.125),)),
    "elu": ([convolution(), ("e", "ELU", {"elu_param": {"alpha": 0.5}}), FC],
            (replace(conv1(), activation="elu", alpha=0.5),)),
    "batch normalization": ([convolution(bias_term=0), batch_norm("bn", 4, eps=0.01, moving_average_fraction=0.9),
                             scale("s", 4), RELU, FC],
                            (replace(conv1(), bias=False), spec.BatchNorm("bn1", 0.01, 0.1, "relu"))),
    "batch normalization without weights": ([convolution(), batch_norm("bn", 4), FC],
                                            (conv1(), spec.BatchNorm("bn1", 1e-5, 0.001))),
    "batch normalization without biases": ([convolution(), batch_norm("bn", 4, use_global_stats=1),
                                            scale("s", 4, bias_term=0), FC],
                                           (conv1(), spec.BatchNorm("bn1", 1e-5, 0.001))),
    "batch normalization of features": ([convolution(), dense("fc", 4 * 6 * 6, 5), batch_norm("bn", 5), scale("s", 5),
                                         dense("fc2", 5)],
                                        (conv1(), spec.Dense("fc2", 5), spec.BatchNorm("bn2", 1e-5, 0.001))),
    "a transposed matrix": ([convolution(), (*FC[:2], {
        "blobs": [np.ascontiguousarray(FC[2]["blobs"][0].T), FC[2]["blobs"][1]],
        "inner_product_param": {"num_output": 2, "transpose": 1}})], (conv1(),)),
}


@pytest.mark.parametrize("case", CASES)
def test_layers_become_the_specs_and_opencv_agrees(case):
    layers, expected = CASES[case]
    file_layers = chain(*layers)
    content = caffemodel(file_layers, **INPUT)
    stored = read(content)
    network = network_of(stored)
    assert network.input == (3, 8, 8)
    last = replace(FC2, name=network.layers[-1].name)
    assert tuple(layer for layer in network.layers if not isinstance(layer, spec.Flatten)) == (*expected, last)
    values = values_of(stored)
    parameters.check(values, network)
    assert {name: stored.tensors[key].shape for name, key in stored.names.items()} == parameters.shapes(network)
    assert np.array_equal(values["conv1.weight"], layers[0][2]["blobs"][0])
    if case == "a transposed matrix":  # OpenCV ignores `transpose`
        assert np.array_equal(values["fc2.weight"], FC[2]["blobs"][0])
        return
    assert relative_l2(logits("numpy", network, values), opencv_logits(file_layers, content, network)) < TOLERANCE


@pytest.mark.parametrize("param, expected", [({"alpha": 0.5, "k": 2.0}, (0.1, 2.0)), ({}, (0.2, 1.0))])
def test_the_constant_and_the_defaults_of_a_normalization_are_caffes(param, expected):
    """OpenCV 4.11 takes 1 for k always, because it calls the parameter `bias`, and has another default of alpha."""
    alpha, k = expected
    stored = read(caffemodel(chain(convolution(), norm(**param), FC), **INPUT))
    assert network_of(stored).layers[1] == spec.LocalResponseNorm("norm1", 5, alpha, 0.75, k)


@pytest.mark.parametrize("v1", [True, False])
def test_doubles_stay_doubles(v1):
    layers = chain(convolution(), FC)
    for layer in layers:
        layer["blobs"] = [values.astype(np.float64) + 1e-9 for values in layer["blobs"]]
    stored = read(caffemodel(layers, v1, **INPUT))
    assert {tensor.dtype for tensor in stored.tensors.values()} == {"float64"}
    assert np.array_equal(stored.tensors["fc2[0]"].load(), layers[1]["blobs"][0])


def test_statistics_of_nothing_are_0_and_a_normalization_by_the_batch_is_named():
    """Before the first step of a training, the sum of weights is 0."""
    stored = read(unsupported(convolution(), batch_norm("bn", 4, total=0, use_global_stats=0), FC))
    assert stored.notes == ("bn normalizes by its running statistics, in training by the batch",)
    values = values_of(stored)
    for part, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 0)):
        assert np.array_equal(values[f"bn1.{part}"], np.full(4, value, np.float32))


def test_gradients_in_a_file_are_left_out():
    layers = chain(convolution(), FC)
    content = encode({"layer": [{**layer, "blobs": [{**blob(values), "diff": values + 1} for values in layer["blobs"]]}
                                for layer in layers], **INPUT}, NET)
    assert np.array_equal(read(content).tensors["fc2[0]"].load(), FC[2]["blobs"][0])


# The chain, the input and the data layer

ENDS = [{"name": "accuracy", "type": "Accuracy", "bottom": ["fc6", "label"], "top": ["accuracy"],
         "include": {"phase": 1}},
        {"name": "loss", "type": "SoftmaxWithLoss", "bottom": ["fc6", "label"], "top": ["loss"]}]


def data_layer(**fields: Any) -> dict[str, Any]:
    return {"name": "data", "type": "Data", "top": ["data", "label"], **fields}


SHAPES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "input_shape": ([], INPUT),
    "input_shape of two": ([], {"input": ["label", "data"], "input_shape": [{"dim": [1]}, {"dim": [1, 3, 8, 8]}]}),
    "input_dim": ([], {"input": "data", "input_dim": [10, 3, 8, 8]}),
    "input_dim of two": ([], {"input": ["mask", "data"], "input_dim": [1, 1, 9, 9, 10, 3, 8, 8]}),
    "Input": ([{"name": "i", "type": "Input", "top": ["data"], "input_param": {"shape": {"dim": [1, 3, 8, 8]}}}], {}),
    "Input of two": ([{"name": "i", "type": "Input", "top": ["x", "data"], "input_param": {
        "shape": [{"dim": [1, 1, 1, 1]}, {"dim": [1, 3, 8, 8]}]}}], {}),
    "MemoryData": ([data_layer(type="MemoryData", memory_data_param={"batch_size": 5, "channels": 3, "height": 8,
                                                                     "width": 8})], {}),
    "crop_size": ([data_layer(transform_param={"crop_size": 8})], {})}


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("kind", SHAPES)
def test_the_input_is_that_of_the_file(kind, group):
    sources, net = SHAPES[kind]
    layers = chain(convolution(count=3, group=group), dense("fc2", 3 * 6 * 6))
    assert network_of(read(caffemodel([*sources, *layers], **net))).input == (3, 8, 8)


@pytest.mark.parametrize("sources, net", [([], {}), ([], {"input": "data"}), ([data_layer()], {}),
                                          ([{"name": "i", "type": "Input", "top": ["data"]}], {})])
def test_without_the_inputs_size_the_network_must_be_named(sources, net):
    content = caffemodel([*sources, *chain(convolution(), FC)], **net)
    with pytest.raises(ParametersError, match=r"^does not give the size of its images; name its network with `net`$"):
        read(content)
    assert network_of(read(content, input_shape=(3, 8, 8))).input == (3, 8, 8)


SMALL_CROP = {"resize": (256, 256), "crop": (8, 8)}
RESIZED = "pictures resized to 256x256 before the crop, as by Caffe's scripts; the file does not state it"


@pytest.mark.parametrize("layer, expected", [
    (data_layer(transform_param={"crop_size": 8, "mean_value": [104.0, 117.0, 123.0]}),
     Preprocessing("bgr", scale=1, mean=(104, 117, 123), **SMALL_CROP)),
    (data_layer(transform_param={"crop_size": 8, "scale": 0.00390625, "mean_value": 128.0, "mirror": 1}),
     Preprocessing("bgr", scale=1 / 256, mean=(0.5, 0.5, 0.5), **SMALL_CROP)),
    (data_layer(transform_param={"scale": 0.017}), Preprocessing("bgr", scale=0.017)),
    (data_layer(), Preprocessing("bgr", scale=1)), (data_layer(type="HDF5Data"), None)])
def test_the_data_layer_gives_the_preprocessing(layer, expected):
    stored = read(caffemodel([layer, *chain(convolution(), FC)]), input_shape=(3, 8, 8))
    assert stored.metadata == ({"preprocessing": expected.as_dict()} if expected else {})
    assert stored.notes == ((RESIZED,) if expected and expected.crop else ())


@pytest.mark.parametrize("layers", [
    [data_layer(include={"phase": 0}, transform_param={"crop_size": 8, "mean_value": 1.0}),
     data_layer(include={"phase": 1}, transform_param={"crop_size": 8, "mean_file": "a/mean.binaryproto"})],
    [data_layer(transform_param={"crop_size": 8, "mean_file": "a/mean.binaryproto"})]])
def test_the_data_layer_of_the_test_phase_counts_and_a_mean_image_is_named(layers):
    stored = read(caffemodel([*layers, *chain(convolution(), FC)]))
    assert stored.metadata == {}
    assert stored.notes == ("preprocessing unknown: training subtracted the mean image 'a/mean.binaryproto', which the "
                            "file does not contain",)


def test_gray_images_and_the_oldest_data_layers_are_read():
    layer = data_layer(data_param={"scale": 0.5, "crop_size": 8}, transform_param={"scale": 0.1})
    stored = read(caffemodel([layer, *chain(convolution(channels=1), FC)], v1=True))
    assert network_of(stored).input == (1, 8, 8)
    assert stored.metadata == {"preprocessing": Preprocessing("gray", scale=0.5, **SMALL_CROP).as_dict()}


def test_a_training_with_its_splits_loss_and_accuracy_is_read():
    layers = chain(convolution(), FC)
    split = {"name": "fc2_split", "type": "Split", "bottom": ["fc2"], "top": ["fc2_0", "fc2_1"]}
    ends = [{**end, "bottom": [f"fc2_{index}", "label"]} for index, end in enumerate(ENDS)]
    stored = read(caffemodel([data_layer(transform_param={"crop_size": 8}), *layers, split, *ends]))
    assert [layer.name for layer in network_of(stored).layers] == ["conv1", "flatten", "fc2"]


def test_names_come_from_the_file_or_from_its_name():
    layers = chain(convolution(), FC)
    assert network_of(read(caffemodel(layers, **{**INPUT, "name": "My net (v2)"}))).name == "My-net-v2"
    assert network_of(read(caffemodel(layers, **{**INPUT, "name": ""}))).name == "weights"
    assert network_of(read(caffemodel(layers, **{**INPUT, "name": "\n\x1b" * 99}))).name == "caffe"


# Files that are refused


def unsupported(*layers: tuple, **net: Any) -> bytes:
    return caffemodel(chain(*layers), **{**INPUT, **net})


CONCAT = {"name": "c", "type": "Concat", "bottom": ["conv1", "data"], "top": ["c"]}
AGAIN = {"name": "again", "type": "ReLU", "bottom": ["conv1"], "top": ["again"]}
REFUSED: dict[str, tuple[bytes, str]] = {
    "another type": (unsupported(convolution(), ("p", "PReLU", {}), FC),
                     "layer 'p' (PReLU) is of a type that is not supported; supported: BatchNorm, Convolution, "),
    "a normalization without statistics": (unsupported(convolution(), ("bn", "BatchNorm", {}), FC),
                                           "layer 'bn' (BatchNorm) has 0 blobs, expected 3"),
    "a scale alone": (unsupported(convolution(), scale("s", 4), FC),
                      "layer 's' (Scale) does not follow a BatchNorm; only a scale that does can be read"),
    "two scales": (unsupported(convolution(), batch_norm("bn", 4), scale("s", 4), scale("t", 4), FC),
                   "layer 't' (Scale) does not follow a BatchNorm"),
    "a scale of columns": (unsupported(convolution(), batch_norm("bn", 4), scale("s", 4, axis=3), FC),
                           "layer 's' (Scale) has axis 3"),
    "V1 type": (caffemodel(chain(convolution(), ("x", "BNLL", {}), FC), v1=True, **INPUT),
                "layer 'x' (BNLL) is of a type that is not supported"),
    "two inputs": (caffemodel([*chain(convolution()), CONCAT], **INPUT), "layer 'c' (Concat) is of a type that is not"),
    "branch": (caffemodel([*chain(convolution(), RELU), AGAIN], **INPUT),
               "layer 'again' (ReLU) takes 'conv1', which is not the output of the layer before it; only a chain"),
    "after the softmax": (unsupported(convolution(), ("p", "Softmax", {}), FC),
                          "layer 'fc2' (InnerProduct) takes 'p', which is not the output"),
    "softmax in place": (caffemodel([*chain(convolution()), {"name": "p", "type": "Softmax", "bottom": ["conv1"],
                                                             "top": ["conv1"]}, {**AGAIN}], **INPUT),
                         "layer 'again' (ReLU) takes 'conv1', which is not"),
    "phase": (unsupported(convolution(), (*FC[:2], {**FC[2], "include": {"phase": 1}})),
              "layer 'fc2' (InnerProduct) belongs to some phases only (`include`, `exclude`)"),
    "two outputs": (caffemodel([{**chain(convolution())[0], "top": ["a", "b"]}], **INPUT),
                    "has 1 inputs and 2 outputs; only a chain of layers can be read"),
    "dilation": (unsupported(convolution(dilation=2), FC), "layer 'conv1' (Convolution) is dilated; only dilation 1"),
    "rectangle": (unsupported(convolution(kernel_size=[3, 5]), FC), "has kernel_size 3 and 5; height and width must"),
    "one side": (unsupported(convolution(kernel_size=None, kernel_h=3), FC), "has kernel_size 3 and 0; height and"),
    "no kernel": (unsupported(convolution(kernel_size=None), FC), "has kernel_size missing"),
    "sides": (unsupported(convolution(kernel_size=None, kernel_h=3, kernel_w=2), FC),
              "has kernel_size 3 and 2; height and width must have one size"),
    "three sides": (unsupported(convolution(pad=[1, 0, 1]), FC),
                    "has pad 1 and 0 and 1; height and width must have one size each"),
    "axis": (unsupported(convolution(axis=2), FC), "has axis 2; only 1 can be read"),
    "dense axis": (unsupported(convolution(), dense("fc2", 36, axis=2)), "has axis 2; only 1 can be read"),
    "flatten": (unsupported(convolution(), ("f", "Flatten", {"flatten_param": {"axis": 2}}), FC), "has axis 2; only 1"),
    "flatten end": (unsupported(convolution(), ("f", "Flatten", {"flatten_param": {"end_axis": 2}}), FC),
                    "has end_axis 2; only -1 can be read"),
    "stochastic": (unsupported(convolution(), pooling(pool=2, kernel_size=2)), "pools neither maxima nor means"),
    "padded means, rounded up": (unsupported(convolution(), pooling(pool=1, kernel_size=3, stride=2, pad=1)),
                                 "(Pooling) has windows that reach beyond its 6x6 pixels: Caffe rounds"),
    "padded global means": (unsupported(convolution(), pooling(pool=1, global_pooling=1, pad=1)),
                            "(Pooling) pads its input; all of an image can only be pooled without padding"),
    "a slope below 0": (unsupported(convolution(), ("r", "ReLU", {"relu_param": {"negative_slope": -0.1}}), FC),
                        "alpha must be a number of at least 0, not -0.1"),
    "relu alone": (unsupported(RELU, convolution(), FC),
                   "(ReLU) does not follow a Convolution, InnerProduct or BatchNorm"),
    "relu twice": (unsupported(convolution(), RELU, ("r", "ReLU", {}), FC), "layer 'r' (ReLU) does not follow a Conv"),
    "sigmoid after means": (unsupported(convolution(), pooling(pool=1, kernel_size=2), ("s", "Sigmoid", {}), FC),
                            "layer 's' (Sigmoid) does not follow a Convolution, InnerProduct or BatchNorm"),
    "sigmoid after dropout": (unsupported(convolution(), ("d", "Dropout", {}), ("s", "Sigmoid", {}), FC),
                              "layer 's' (Sigmoid) does not follow a Convolution, InnerProduct or BatchNorm"),
    "all of a rectangle": (unsupported(convolution(), pooling(global_pooling=1), input_shape={"dim": [1, 3, 8, 9]}),
                           "layer 'pool1' (Pooling) pools all of 6x7 pixels; only squares can be read"),
    "within channels": (unsupported(convolution(), ("n", "LRN", {"lrn_param": {"norm_region": 1}}), FC),
                        "layer 'n' (LRN) normalizes within channels; only normalization across channels can be read"),
    "even size": (unsupported(convolution(), ("n", "LRN", {"lrn_param": {"local_size": 4}}), FC),
                  "describes a network that cannot be built (layer norm1: size must be odd"),
    "no size": (unsupported(convolution(), ("n", "LRN", {"lrn_param": {"local_size": 0}}), FC), "size must be a whole"),
    "no classes": (unsupported(convolution()), "the last layer must be a Dense layer with one unit for each class"),
    "wrong input": (unsupported(convolution(), FC, input_shape={"dim": [3, 8, 8]}), "its images have 3 axes, not 4"),
    "means": (caffemodel([data_layer(transform_param={"crop_size": 8, "mean_value": [1.0, 2.0]}),
                          *chain(convolution(), FC)]), "layer 'data' (Data) has 2 mean values for 3 channels"),
    "no weights": (unsupported((*convolution()[:2], {"convolution_param": {"num_output": 4, "kernel_size": 3}}), FC),
                   "layer 'conv1' (Convolution) has no weights; name a file that Caffe saved in training"),
    "three blobs": (unsupported((*FC[:2], {**FC[2], "blobs": FC[2]["blobs"] + [array(2)]})), "has 3 blobs, expected 2"),
    "same name": (unsupported(convolution(), dense("conv1", 144)),
                  "layer 'conv1' (InnerProduct) has the name of another layer; rename one of them"),
    "axes": (unsupported((*convolution()[:2], {**convolution()[2], "blobs": [array(4, 27), array(4)]}), FC),
             "has a blob of shape (4, 27) with 108 values, expected 4 axes"),
    "bias axes": (unsupported((*FC[:2], {**FC[2], "blobs": [FC[2]["blobs"][0], array(2, 1)]})), "blob of shape (2, 1)"),
    "V0": (encode({"layers": [{"layer": {"name": "conv1"}}]}, {"layers": (2, {"layer": (1, {"name": (1, "string")})})}),
           "has Caffe's layers of 2013 (V0); upgrade it with Caffe's `upgrade_net_proto_binary`"),
    "V1 and V2": (encode({"layers": [{"name": "a"}], "layer": [{"name": "a"}]}, NET), "has layers of two forms"),
    "no layers": (encode({"name": "a"}, NET),
                  "cannot be read as .caffemodel (has no layers); copy or download it again"),
    "empty": (b"", "has no layers"),
    "a fork's parameter": (encode({"layer": [{**chain(RELU)[0], "relu_param": {"negative_slope": 0, "new": 1}}]}, {
        "layer": (100, {**V2_LAYER, "relu_param": (123, {"negative_slope": (1, "float"), "new": (9, "varint")})})}),
        "has a parameter that BVLC's Caffe does not define, field 9"),
}
"""Files, and part of the message."""


@pytest.mark.parametrize("case", REFUSED)
def test_the_refusal_names_the_layer_and_the_limit(case):
    content, message = REFUSED[case]
    with pytest.raises(ParametersError) as error:
        read(content)
    assert message in str(error.value)
    assert "; " in str(error.value) and "\n" not in str(error.value)


LIES: dict[str, dict[str, Any]] = {
    "more values than the shape": {"shape": {"dim": [2, 143]}, "data": array(2, 144)},
    "fewer values": {"shape": {"dim": [2, 145]}, "data": array(2, 144)},
    "a huge shape": {"shape": {"dim": [2**62, 2**62]}, "data": array(2, 144)},
    "a negative shape": {"shape": {"dim": [-2, -144]}, "data": array(2, 144)},
    "no values": {"shape": {"dim": [2, 144]}}, "no shape": {"data": array(2, 144)},
    "empty": {"shape": {"dim": [0, 144]}, "data": array(0)},
    "many axes": {"shape": {"dim": [1] * 9000 + [2, 145]}, "data": array(2, 144)}}


@pytest.mark.parametrize("case", LIES)
def test_sizes_that_lie_are_refused_before_anything_is_allocated(case):
    layers = chain(convolution(), FC)
    written = [{**layers[0], "blobs": [blob(values) for values in layers[0]["blobs"]]},
               {**layers[1], "blobs": [LIES[case], blob(layers[1]["blobs"][1])]}]
    with pytest.raises(ParametersError, match=r"^layer 'fc2' \(InnerProduct\) has a blob of shape \(.*\) with [0-9]+ "):
        read(encode({"layer": written, **INPUT}, NET))


GOOD = caffemodel(chain(convolution(), RELU, pooling(kernel_size=2, stride=2), ("d", "Dropout", {}), dense("fc2", 36)),
                  v1=True, **INPUT)


def check_outcome(content: bytes) -> None:
    """Read a file and all its tensors, or meet an error of one line."""
    try:
        stored = read(content, input_shape=(3, 8, 8))
    except ParametersError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return
    for tensor in stored.tensors.values():
        values = tensor.load()
        assert (values.dtype.name, values.shape) == (tensor.dtype, tensor.shape)


def test_every_truncated_file_is_refused():
    """A file that ends between two layers is still a message, but the last layer is not dense."""
    ends = 0
    for size in range(len(GOOD)):
        with pytest.raises(ParametersError):
            read(GOOD[:size])
        ends += caffe.is_net(io.BytesIO(GOOD[:size]))
    assert ends == 4


@settings(max_examples=300)
@given(st.data())
def test_any_damage_gives_a_file_or_one_line(data):
    content = bytearray(GOOD)
    places = st.one_of(st.integers(0, 200), st.integers(0, len(content) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        place, change = data.draw(places), data.draw(st.binary(max_size=6))
        content[place:place + data.draw(st.integers(0, 6))] = change
    check_outcome(bytes(content))


@given(st.binary(max_size=300))
def test_any_bytes_give_one_line(content):
    check_outcome(content)


@pytest.mark.parametrize("content", [
    tagged(100, 2, b"") * 1_000_000, tagged(100, 2, tagged(7, 2, tagged(5, 2, bytes(8)) * 9000)) * 20,
    encode({"layer": [{"name": "a" * 10**7, "type": "b" * 10**7}]}, NET),
    tagged(100, 2, tagged(2, 2, b"ReLU") + tagged(3, 2, b"data") * 9000) * 20,
    tagged(8, 2, tagged(1, 2, bytes(10**7))) + GOOD], ids=["layers", "blobs", "names", "inputs", "axes"])
def test_bombs_end_soon_in_one_line(content):
    start = time.monotonic()
    check_outcome(content)
    assert time.monotonic() - start < 10


def test_nesting_has_no_depth():
    """A message is read to the depth that the reader knows, so deep ones end like others."""
    content = b""
    for _ in range(5000):
        content = tagged(100, 2, content)
    check_outcome(content)


def test_other_files_are_not_recognized():
    onnx_file = onnx_graph.encode(zoo.LENET5, parameters.initialize(zoo.LENET5, 0))
    graph_def = tagged(1, 2, b"\x0a\x01a") * 3 + tagged(2, 2, b"") + tagged(4, 2, b"\x08\x01")  # TensorFlow's GraphDef
    solver_state = tagged(1, 0, varint(5)) + tagged(2, 2, b"a.caffemodel") + tagged(3, 2, b"")
    mean_image = encode(blob(array(1, 3, 8, 8), is_legacy=True), BLOB)
    for content in (onnx_file, graph_def, solver_state, mean_image, b"", b"name: 'net'\nlayer {}", bytes(100),
                    np.random.default_rng(0).bytes(1000), caffemodel([]), GOOD + b"\x00"):
        assert not caffe.is_net(io.BytesIO(content))
        with pytest.raises(ParametersError):
            read(content)
    assert caffe.is_net(io.BytesIO(GOOD))
    assert onnx.load_from_string(onnx_file).graph.node
