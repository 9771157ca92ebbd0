"""Weights files of other programs: exact conversion, use without this package, and refusal of bad files."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from caffe_files import caffemodel, inputs_of, layers_of
from numpy.testing import assert_array_equal
from sizes import by_size, narrower

import alexnet_mf
from alexnet_mf import backends, conversion, spec
from alexnet_mf.conversion import FORMATS, convert
from alexnet_mf.errors import AlexnetMfError, Notice, ParametersError
from alexnet_mf.parity.tolerances import TIERS, relative_l2
from alexnet_mf.spec import Network, Preprocessing, toml, zoo
from alexnet_mf.spec.preprocessing import FASHION_MNIST, IMAGENET
from alexnet_mf.spec.zoo import ALEXNET_OWT
from alexnet_mf.weights import layouts, names, parameters
from alexnet_mf.weights.formats import npz
from alexnet_mf.weights.metadata import entries
from alexnet_mf.weights.parameters import Parameters

NATIVE = {"torch": "torch", "keras": "tensorflow", "gluon": "mxnet", "npz": "numpy"}
"""Formats, and the backend that writes each."""
ENDINGS = {format_name: FORMATS[format_name].suffixes[0] for format_name in NATIVE}


@pytest.fixture(params=NATIVE)
def format_name(request: pytest.FixtureRequest, requires: Callable[[str], None]) -> str:
    requires(NATIVE[request.param])
    return str(request.param)


@pytest.fixture
def weights(small: Network) -> Parameters:
    return parameters.initialize(small, 0, random_biases=True)


@pytest.fixture
def net(small: Network, tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(toml.dump(small), encoding="utf-8")
    return str(path)


@pytest.fixture
def canonical(small: Network, weights: Parameters, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    parameters.save(path, weights, {"network": spec.as_dict(small), "seed": 5})
    return path


@pytest.fixture
def native(format_name: str, canonical: Path, tmp_path: Path) -> Path:
    path = tmp_path / f"weights{ENDINGS[format_name]}"
    convert(canonical, path)
    return path


@pytest.fixture
def framework(requires: Callable[[str], None]) -> Callable[..., Any]:
    """Return a function that imports a backend's framework, or a module that comes with it."""
    def load(backend: str, module: str | None = None) -> Any:
        requires(backend)
        backends.load(backend)
        return importlib.import_module(module or backend)
    return load


def assert_weights(path: Path, net: Network | str, weights: Parameters) -> None:
    """Assert that the file has these weights, bit for bit."""
    assert parameters.digest(conversion.read(path, net=net).parameters) == parameters.digest(weights)


# Round trips


@pytest.mark.parametrize("target", ["safetensors", *NATIVE])
def test_a_round_trip_keeps_every_bit(format_name, target, native, weights, net, tmp_path, requires):
    """A safetensors file names its network; the other files do not."""
    if target in NATIVE:
        requires(NATIVE[target])
    path = tmp_path / f"other{FORMATS[target].suffixes[0]}"
    done = convert(native, path, net=net)
    back = conversion.read(path, net=net if target in NATIVE else None)
    assert (done.source, done.destination, back.format) == (format_name, target, target)
    assert parameters.digest(back.parameters) == parameters.digest(weights) == done.sha256
    assert spec.fingerprint(back.network) == spec.fingerprint(toml.find_network(net))


ARCHITECTURES = {spec.digest(network): network.name for network in zoo.NETWORKS.values()}
"""Names of networks by architecture: of tabs with the same layers, one is enough."""


@pytest.mark.parametrize("name", by_size(ARCHITECTURES.values()))
def test_every_network_is_written_and_read_in_every_format(name, present, tmp_path):
    network = zoo.get_network(name)
    weights = parameters.initialize(network, 0, random_biases=True)
    is_plain = not any(isinstance(layer, spec.LocalResponseNorm) for layer in network.layers)
    formats = [each for each in conversion.WRITABLE if FORMATS[each].backend in (None, *present) and (
        each not in ("torchvision", "gluon-zoo") or names.is_alexnet_owt(network)) and (
            each != "keras-model" or is_plain)]
    assert len(formats) >= 3
    for each in formats:
        path = tmp_path / f"weights{FORMATS[each].suffixes[0]}"
        path.write_bytes(conversion.encode(each, network, weights))
        assert_weights(path, network, weights)
        path.unlink()


def test_a_canonical_file_keeps_its_metadata(canonical, small, weights, tmp_path):
    convert(canonical, tmp_path / "copy.safetensors")
    copy, metadata = parameters.load_with_metadata(tmp_path / "copy.safetensors", small)
    assert metadata == {"network": spec.as_dict(small), "seed": 5}
    assert parameters.digest(copy) == parameters.digest(weights)


def test_preprocessing_and_classes_travel_with_the_weights(small, weights, tmp_path):
    record, names = dataclasses.replace(FASHION_MNIST, mean=(0.3,), std=(0.2,)), list("abcdefghij")
    metadata = {"network": spec.as_dict(small), **entries(small, record, names)}
    parameters.save(tmp_path / "a.safetensors", weights, metadata)
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    copy = conversion.read(tmp_path / "b.safetensors")
    assert (copy.preprocessing, copy.classes) == (record, tuple(names))
    convert(tmp_path / "b.safetensors", tmp_path / "c.onnx")
    model = importlib.import_module("onnx").load(tmp_path / "c.onnx")
    stated = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(stated["preprocessing"]) == record.as_dict() and json.loads(stated["classes"]) == names
    assert model.graph.doc_string == f"pixels: float32 (N, 1, 28, 28); {record.describe()}"


def test_a_file_without_preprocessing_and_classes_is_read(canonical):
    assert (conversion.read(canonical).preprocessing, conversion.read(canonical).classes) == (None, None)


def test_preprocessing_is_baked_into_a_graph_alone(small, weights, canonical, tmp_path):
    def converted(path: Path, **metadata: Any) -> Any:
        parameters.save(tmp_path / "a.safetensors", weights, {"network": spec.as_dict(small), **metadata})
        return convert(tmp_path / "a.safetensors", path, bake_preprocessing=True)

    for path, metadata, message in (
            (tmp_path / "b.npz", {}, "b.npz: npz files have no graph to put the preprocessing into; leave out `bake"),
            (tmp_path / "b.onnx", {}, "a.safetensors: its preprocessing is unknown; leave out `bake_preprocessing`"),
            (tmp_path / "b.onnx", entries(small, IMAGENET),
             "a.safetensors: network small takes 1x28x28, but the preprocessing gives 3 channels; leave out `bake")):
        with pytest.raises(AlexnetMfError, match=message):
            converted(path, **metadata)
        assert not path.exists()
    with pytest.raises(AlexnetMfError, match="`bake_preprocessing` must be of type bool"):
        convert(canonical, tmp_path / "b.onnx", bake_preprocessing="yes")
    converted(tmp_path / "b.onnx", **entries(small, FASHION_MNIST))
    session = importlib.import_module("onnxruntime").InferenceSession(
        tmp_path / "b.onnx", providers=["CPUExecutionProvider"])
    levels = np.random.default_rng(0).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    model = backends.load("numpy").build(small, weights, "cpu")
    expected = model.logits(model.place(levels, np.zeros(3, np.int64)), 3)
    [actual] = session.run(["logits"], {"pixels": levels[:, np.newaxis].astype(np.float32)})
    assert relative_l2(actual, expected) < TIERS["float32"].output


# In the plain framework, without this package

ALONE = """
import sys
import numpy as np
{script}
assert not [name for name in sys.modules if name.startswith("alexnet_mf")]
np.save("logits.npy", logits)
"""

PLAIN = {
    "torch": """
import torch
from torch import nn
from collections import OrderedDict
net = nn.Sequential(OrderedDict([
    ("conv1", nn.Conv2d(1, 8, 5, stride=2, padding=1)), ("relu1", nn.ReLU()), ("pool1", nn.MaxPool2d(3, 2)),
    ("conv2", nn.Conv2d(8, 12, 3, padding=1)), ("relu2", nn.ReLU()), ("pool2", nn.MaxPool2d(2, 2)),
    ("flatten", nn.Flatten()), ("fc3", nn.Linear(108, 32)), ("relu3", nn.ReLU()), ("drop3", nn.Dropout()),
    ("fc4", nn.Linear(32, 10))])).eval()
net.load_state_dict(torch.load("weights.pt", weights_only=True))
logits = net(torch.from_numpy(np.load("images.npy"))).detach().numpy()
""",
    "keras": """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
from keras import layers
net = keras.Sequential([
    layers.Input((28, 28, 1)), layers.ZeroPadding2D(1), layers.Conv2D(8, 5, 2, activation="relu"),
    layers.MaxPool2D(3, 2), layers.Conv2D(12, 3, padding="same", activation="relu"), layers.MaxPool2D(2, 2),
    layers.Flatten(), layers.Dense(32, activation="relu"), layers.Dropout(0.5), layers.Dense(10)])
net.load_weights("weights.weights.h5")
logits = np.asarray(net(np.load("images.npy").transpose(0, 2, 3, 1)))
""",
    "gluon": """
np.bool = bool  # NumPy 1.24 removed what MXNet's last release reads
import mxnet as mx
from mxnet.gluon import nn
net = nn.HybridSequential()
net.add(nn.Conv2D(8, 5, 2, 1, activation="relu"), nn.MaxPool2D(3, 2), nn.Conv2D(12, 3, padding=1, activation="relu"),
        nn.MaxPool2D(2, 2), nn.Dense(32, activation="relu"), nn.Dropout(0.5), nn.Dense(10))
net.load_parameters("weights.params")
logits = net(mx.nd.array(np.load("images.npy"))).asnumpy()
""",
    "npz": """
arrays = np.load("weights.npz", allow_pickle=False)
x = np.load("images.npy").astype(np.float64)
def conv(x, w, b, stride, pad):
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    return np.maximum(np.einsum("nchwij,ocij->nohw", windows, w) + b[:, None, None], 0)
def pool(x, k, s):
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), (2, 3))[:, :, ::s, ::s].max((4, 5))
x = pool(conv(x, arrays["conv1.weight"], arrays["conv1.bias"], 2, 1), 3, 2)
x = pool(conv(x, arrays["conv2.weight"], arrays["conv2.bias"], 1, 1), 2, 2).reshape(len(x), -1)
x = np.maximum(x @ arrays["fc3.weight"].T + arrays["fc3.bias"], 0)
logits = x @ arrays["fc4.weight"].T + arrays["fc4.bias"]
""",
}

TORCHVISION = """
import torch, torchvision
net = torchvision.models.alexnet(weights=None).eval()
net.load_state_dict(torch.load("weights.pt", weights_only=True))
with torch.no_grad():
    logits = net(torch.from_numpy(np.load("images.npy"))).numpy()
"""


def run_script(script: str, folder: Path, images: np.ndarray) -> np.ndarray:
    """Run a script in a process of its own, and return its logits."""
    np.save(folder / "images.npy", images)
    done = subprocess.run([sys.executable, "-c", ALONE.format(script=script)], cwd=folder, capture_output=True,
                          text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "logits.npy")


def reference_logits(network: Network, weights: Parameters, images: np.ndarray) -> np.ndarray:
    model = backends.load("numpy").build(network, weights)
    return model.logits(model.place(images, np.zeros(len(images), np.int64)), len(images))


KERAS_MODEL = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
net = keras.models.load_model("weights.keras")
logits = np.asarray(net(np.load("images.npy").transpose(0, 2, 3, 1)))
"""


@pytest.mark.exhaustive
def test_a_whole_keras_model_needs_no_code_of_the_user(framework, small, weights, tmp_path):
    """The record and the classes travel in a member of the archive that Keras ignores."""
    framework("tensorflow")
    record = Preprocessing("gray", resize=(28, 28), mean=(0.5,), std=(0.25,))
    network = dataclasses.replace(small, layers=(*small.layers[:-3], spec.Dense("fc3", 32, "leaky_relu", 0.125),
                                                 *small.layers[-2:]))
    names = [f"garment {number}" for number in range(10)]
    parameters.save(tmp_path / "a.safetensors", weights, {"network": spec.as_dict(network), "seed": 5,
                                                          **entries(network, record, names)})
    convert(tmp_path / "a.safetensors", tmp_path / "weights.keras")
    read = conversion.read(tmp_path / "weights.keras")
    assert (read.preprocessing, read.classes, read.format) == (record, tuple(names), "keras")
    assert parameters.digest(read.parameters) == parameters.digest(weights)
    assert spec.digest(read.network) == spec.digest(network)
    images = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    logits = run_script(KERAS_MODEL, tmp_path, images)
    assert relative_l2(logits, reference_logits(network, weights, images)) < TIERS["float32"].output


def test_a_keras_model_has_no_layers_of_this_package(framework, tmp_path):
    """`alexnet-owt` has a mean over areas of one pixel, which changes nothing."""
    framework("tensorflow")
    network = narrower(ALEXNET_OWT)
    weights = parameters.initialize(network, 0)
    (tmp_path / "a.keras").write_bytes(conversion.encode("keras-model", network, weights))
    assert_weights(tmp_path / "a.keras", network, weights)
    with pytest.raises(ParametersError, match="Keras has no layer for norm1, norm2 of narrow-alexnet-2012; use "
                                              "`destination_format='keras'`"):
        network = narrower(zoo.get_network("alexnet-2012"))
        conversion.encode("keras-model", network, parameters.initialize(network, 0))


def test_the_plain_framework_computes_the_same_logits(format_name, native, small, weights, tmp_path):
    images = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    logits = run_script(PLAIN[format_name], tmp_path, images)
    expected = reference_logits(small, weights, images)
    assert np.ptp(expected) > 0.01
    assert relative_l2(logits, expected) < TIERS["float32"].output


@pytest.mark.exhaustive
def test_torchvision_computes_the_same_logits_of_alexnet_owt(requires, tmp_path):
    requires("torch")
    weights = parameters.initialize(ALEXNET_OWT, 0, random_biases=True)
    parameters.save(tmp_path / "weights.safetensors", weights, {"network": spec.as_dict(ALEXNET_OWT)})
    convert(tmp_path / "weights.safetensors", tmp_path / "weights.pt", destination_format="torchvision")
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    logits = run_script(TORCHVISION, tmp_path, images)
    assert relative_l2(logits, reference_logits(ALEXNET_OWT, weights, images)) < TIERS["float32"].output
    assert_weights(tmp_path / "weights.pt", "alexnet-owt", weights)  # torchvision's names are read, too


@pytest.mark.exhaustive
def test_a_first_normalization_layer_changes_no_file(format_name, native, weights, net, small, tmp_path):
    """The layer has no parameters, so the networks with and without it share their files."""
    normalized = dataclasses.replace(small, layers=(spec.Normalize("norm0", (0.286,), (0.353,)), *small.layers))
    read = conversion.read(native, net=normalized).parameters
    assert list(read) == list(weights)
    assert parameters.digest(read) == parameters.digest(weights)
    native.write_bytes(conversion.encode(format_name, normalized, weights))
    assert_weights(native, net, weights)
    images = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    logits = run_script(PLAIN[format_name], tmp_path, (images - np.float32(0.286)) / np.float32(0.353))
    assert relative_l2(logits, reference_logits(normalized, weights, images)) < TIERS["float32"].output


def trained_otherwise(path: Path, network: Network = ALEXNET_OWT) -> Network:
    """Return a TOML copy of `alexnet-owt` with other dropout rates, another learning rate and other biases."""
    copy = dataclasses.replace(spec.with_dropout(network, 0.25), name="mine", learning_rate=0.1,
                               bias_initialisation="uniform_fan_in")
    path.write_text(toml.dump(copy), encoding="utf-8")
    return toml.load(path)


def test_torchvisions_weights_fit_a_network_that_normalizes(requires, tmp_path, monkeypatch):
    """The layer is the transform that the weights expect. A copy with other training settings keeps the names."""
    requires("torch")
    narrow = narrower(ALEXNET_OWT)  # the whole network would take a gigabyte
    monkeypatch.setattr("alexnet_mf.spec.zoo.ALEXNET_OWT", narrow)
    normalized = dataclasses.replace(narrow, layers=(
        spec.Normalize("normalize", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), *narrow.layers))
    weights = parameters.initialize(normalized, 0)
    copy = trained_otherwise(tmp_path / "mine.toml", narrow)
    (tmp_path / "weights.pt").write_bytes(backends.load("torch").encode_weights("torchvision", copy, weights))
    assert_weights(tmp_path / "weights.pt", normalized, weights)


def test_torchvisions_names_are_for_alexnet_owt_alone(requires, canonical, tmp_path):
    requires("torch")
    with pytest.raises(ParametersError, match="torchvision's AlexNet is alexnet-owt, not small; use"):
        convert(canonical, tmp_path / "weights.pt", destination_format="torchvision")
    assert not (tmp_path / "weights.pt").exists()


# Files of other programs


def test_a_state_dict_with_numbered_modules_is_read(framework, weights, net, tmp_path):
    """The book keeps its modules in `net`, and numbers them, activations included."""
    torch = framework("torch")
    numbers = {"conv1": 0, "conv2": 3, "fc3": 7, "fc4": 10}
    for prefix in ("", "net."):
        state = {f"{prefix}{numbers[name.split('.')[0]]}.{name.split('.')[1]}": torch.from_numpy(value)
                 for name, value in weights.items()}
        torch.save(state, tmp_path / "theirs.pth")
        assert_weights(tmp_path / "theirs.pth", net, weights)


def test_a_module_that_pads_is_numbered(framework, tmp_path):
    torch = framework("torch")
    network = Network("padded", (1, 4, 4), (spec.Conv2d("conv1", channels=2, kernel=3, stride=2, padding="same"),
                                            spec.MaxPool2d("pool1", kernel=2, stride=1, padding="same"),
                                            spec.Flatten("flatten"), spec.Dense("fc2", units=3)))
    net = torch.nn.Sequential(torch.nn.ZeroPad2d((0, 1, 0, 1)), torch.nn.Conv2d(1, 2, 3, stride=2), torch.nn.ReLU(),
                              torch.nn.ZeroPad2d((0, 1, 0, 1)), torch.nn.MaxPool2d(2, 1), torch.nn.Flatten(),
                              torch.nn.Linear(8, 3))
    torch.save(net.state_dict(), tmp_path / "theirs.pt")
    read = conversion.read(tmp_path / "theirs.pt", net=network).parameters
    images = np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float32)
    logits = net(torch.from_numpy(images)).detach().numpy()
    assert relative_l2(logits, reference_logits(network, read, images)) < TIERS["float32"].output


def test_batch_normalization_of_pytorch_is_read_and_written(framework, tmp_path):
    """The class of the book, trained for a step: counters of batches are no weights."""
    torch = framework("torch")
    nn = torch.nn

    class BNLeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(1, 6, 5), nn.BatchNorm2d(6), nn.Sigmoid(), nn.AvgPool2d(2, 2),
                nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.Sigmoid(), nn.AvgPool2d(2, 2), nn.Flatten(),
                nn.Linear(256, 120), nn.BatchNorm1d(120), nn.Sigmoid(), nn.Linear(120, 84), nn.BatchNorm1d(84),
                nn.Sigmoid(), nn.Linear(84, 10))

        def forward(self, x: Any) -> Any:
            return self.net(x)

    torch.manual_seed(0)
    theirs, images = BNLeNet(), torch.rand(9, 1, 28, 28)
    theirs(images)  # moves the running statistics
    state, expected = theirs.state_dict(), theirs.eval()(images).detach().numpy()
    torch.save(state, tmp_path / "theirs.pt")
    arrays = {name: value.numpy() for name, value in state.items()}
    safetensors.numpy.save_file(arrays, tmp_path / "theirs.safetensors")
    npz_path = tmp_path / "theirs.npz"
    np.savez(npz_path, **arrays)
    for path in (tmp_path / "theirs.pt", tmp_path / "theirs.safetensors", npz_path):
        values = conversion.read(path, net="lenet5-bn").parameters
        model = backends.load("numpy").build(zoo.LENET5_BN, values, "cpu")
        logits = model.logits(model.place(images.numpy(), np.zeros(9, np.int64)), 9)
        assert relative_l2(logits, expected) < TIERS["float32"].output
    with pytest.raises(ParametersError, match=r"surplus net\.1\.weight.*its tensors fit lenet5-bn: name the network"):
        conversion.read(tmp_path / "theirs.pt", net="lenet5-relu")
    convert(tmp_path / "theirs.pt", tmp_path / "book.pt", net="lenet5-bn", destination_format="torch-book")
    again = BNLeNet().eval()
    again.load_state_dict(torch.load(tmp_path / "book.pt", weights_only=True))
    assert_array_equal(again(images).detach().numpy(), expected)
    built = alexnet_mf.build("lenet5-bn", backend="torch", weights=state)
    assert parameters.digest(built.export()) == parameters.digest(values)


def test_batch_normalization_is_written_for_the_books_gluon_class(framework, tmp_path):
    mx = framework("mxnet")
    nn = mx.gluon.nn

    class BNLeNet(nn.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.HybridSequential()
            self.net.add(nn.Conv2D(6, 5), nn.BatchNorm(), nn.Activation("sigmoid"), nn.AvgPool2D(2, 2),
                         nn.Conv2D(16, 5), nn.BatchNorm(), nn.Activation("sigmoid"), nn.AvgPool2D(2, 2),
                         nn.Dense(120), nn.BatchNorm(), nn.Activation("sigmoid"), nn.Dense(84), nn.BatchNorm(),
                         nn.Activation("sigmoid"), nn.Dense(10))

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return self.net(x)

    values = parameters.initialize(zoo.LENET5_BN, 0, random_biases=True)
    (tmp_path / "book.params").write_bytes(conversion.encode("gluon-book", zoo.LENET5_BN, values))
    theirs = BNLeNet()
    theirs.load_parameters(str(tmp_path / "book.params"))
    images = np.random.default_rng(0).random((3, 1, 28, 28), np.float32)
    expected = reference_logits(zoo.LENET5_BN, values, images)
    assert relative_l2(theirs(mx.nd.array(images)).asnumpy(), expected) < TIERS["float32"].output
    with pytest.warns(Notice, match="epsilon of batch normalization is not in the file, 1e-05 by the network"):
        assert_weights(tmp_path / "book.params", "lenet5-bn", values)


def test_gluons_names_are_those_of_its_blocks(framework):
    """Batch normalization has no activation, and does not flatten."""
    framework("mxnet")
    native = importlib.import_module("alexnet_mf.backends.mxnet.network")
    network = Network("blocks", (1, 12, 12), (
        spec.Conv2d("conv1", 3, 3, padding=((0, 1), (0, 0)), activation="elu"),
        spec.BatchNorm("bn1", activation="relu"),
        spec.Flatten("flatten"), spec.Dropout("drop1", 0.5), spec.BatchNorm("bn2", activation="gelu"),
        spec.Dense("fc3", units=4, activation="tanh"), spec.BatchNorm("bn3"), spec.Dense("fc4", units=2)))
    built = [block.prefix[:-1] for block in native.build(network)]
    assert names.blocks(network) == {layer.name: str(built.index(layer.name)) for layer in network.layers
                                     if isinstance(layer, spec.LEARNERS)}


def pruned(torch: Any, module: Any) -> str:
    torch.nn.utils.prune.l1_unstructured(module, "weight", 0.3)
    return "its weights are pruned: call torch.nn.utils.prune.remove(module, 'weight')"


def normalized(torch: Any, module: Any) -> str:
    torch.nn.utils.weight_norm(module)
    return "its weights are normalized: call torch.nn.utils.remove_weight_norm(module)"


def parametrized(torch: Any, module: Any) -> str:
    torch.nn.utils.parametrizations.spectral_norm(module)
    return "its weights are parametrized: call torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [pruned, normalized, parametrized])
def test_weights_in_another_form_are_refused_with_a_remedy_that_works(framework, small, net, tmp_path, change):
    torch = framework("torch")
    importlib.import_module("torch.nn.utils.prune")
    model = backends.load("torch").build(small, parameters.initialize(small, 0), "cpu").net
    message = change(torch, model.conv1)
    torch.save(model.state_dict(), tmp_path / "theirs.pt")
    with pytest.raises(ParametersError, match=re.escape(message)):
        conversion.read(tmp_path / "theirs.pt", net=net)
    exec(message.partition("call ")[2], {"torch": torch, "module": model.conv1})
    torch.save(model.state_dict(), tmp_path / "theirs.pt")
    read = conversion.read(tmp_path / "theirs.pt", net=net)
    assert_array_equal(read.parameters["conv1.weight"], model.conv1.weight.detach().numpy())


def test_quantized_weights_and_arrays_without_names_are_refused_with_a_remedy(framework, small, net, tmp_path):
    torch = framework("torch")
    values = {name: torch.from_numpy(value) for name, value in parameters.initialize(small, 0).items()}
    del values["fc4.weight"]
    torch.save({**values, "fc4.scale": torch.tensor(0.5), "fc4.zero_point": torch.tensor(3)}, tmp_path / "theirs.pt")
    with pytest.raises(ParametersError, match="its weights are quantized: save the model before it is quantized"):
        conversion.read(tmp_path / "theirs.pt", net=net)
    np.savez(tmp_path / "theirs.npz", *values.values())
    with pytest.raises(ParametersError, match=r"its arrays have no names: write np\.savez\(FILE, \*\*\{'conv1"):
        conversion.read(tmp_path / "theirs.npz", net=net)
    values = parameters.initialize(small, 0)
    np.savez(tmp_path / "theirs.npz", **values, **{"temperature.scale": np.float32(2)})
    with pytest.raises(ParametersError, match=r"surplus temperature\.scale; name another network with `net`$"):
        conversion.read(tmp_path / "theirs.npz", net=net)


def test_a_variance_below_0_is_refused(tmp_path):
    values = parameters.initialize(zoo.LENET5_BN, 0)
    values["bn1.running_var"][2] = -1
    np.savez(tmp_path / "theirs.npz", **values)
    with pytest.raises(ParametersError, match=r"bn1\.running_var has a variance below 0"):
        conversion.read(tmp_path / "theirs.npz", net="lenet5-bn")


def test_weights_alone_describe_no_network(canonical, small, weights, tmp_path):
    convert(canonical, tmp_path / "alone.npz")
    parameters.save(tmp_path / "alone.safetensors", weights, {})
    for name in ("alone.npz", "alone.safetensors"):
        with pytest.raises(ParametersError, match="has weights alone, which do not show their network; name a run"):
            conversion.find_described(tmp_path / name)
    assert conversion.find_described(canonical) == small


def test_a_state_dict_of_pytorch_before_1_6_is_read(framework, weights, net, tmp_path):
    torch = framework("torch")
    torch.save({name: torch.from_numpy(value) for name, value in weights.items()}, tmp_path / "old.pth",
               _use_new_zipfile_serialization=False)
    assert_weights(tmp_path / "old.pth", net, weights)


def test_a_whole_keras_model_with_optimizer_is_read(framework, weights, small, net, tmp_path):
    """Only the weights of the archive are read, because the description of the model could run any code."""
    keras = framework("tensorflow", "keras")
    model = keras.Sequential([
        keras.layers.Input((28, 28, 1)), keras.layers.ZeroPadding2D(1),
        keras.layers.Conv2D(8, 5, 2, activation="relu", name="any"), keras.layers.MaxPool2D(3, 2),
        keras.layers.Conv2D(12, 3, padding="same", activation="relu"), keras.layers.MaxPool2D(2, 2),
        keras.layers.Flatten(), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10, name="last")])
    weights_file = tmp_path / "in.weights.h5"
    weights_file.write_bytes(backends.load("tensorflow").encode_weights("keras", small, weights))
    model.load_weights(weights_file)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((2, 28, 28, 1), np.float32), np.zeros(2), verbose=0)
    model.load_weights(weights_file)
    model.save(tmp_path / "whole.keras")
    assert_weights(tmp_path / "whole.keras", net, weights)


DEEP = Network("deep", (1, 2, 2), (spec.Flatten("flatten"), *(spec.Dense(f"fc{i}", units=4) for i in range(12))))
"""Network for files that number the layers of a class: 10 must come after 9, not after 1."""
ODD = Network("odd", (4, 9, 7), (
    spec.Normalize("norm0", (0.5, 0.4, 0.3, 0.2), (0.1, 0.2, 0.3, 0.4)),
    spec.Conv2d("conv1", channels=6, kernel=3, stride=2, padding=2, groups=2, activation="leaky_relu", alpha=0.1,
                bias=False),
    spec.LocalResponseNorm("norm1", 3, 0.1, 0.75, 2.0), spec.AvgPool2d("pool1", 2, 1, "same", True),
    spec.Conv2d("conv2", 4, 3, padding=((1, 0), (1, 2)), activation="sigmoid"),
    spec.AdaptiveAvgPool2d("pool2", size=3), spec.Flatten("flatten"), spec.Dropout("drop3", rate=0.5),
    spec.Dense("fc3", units=5, activation="gelu", bias=False), spec.Dense("fc4", units=5)))
"""Network with groups, paddings that take modules of their own, layers without biases or parameters, and activations
that are layers in some frameworks."""


@pytest.mark.parametrize("network", [DEEP, ODD], ids=["deep", "odd"])
def test_the_content_determines_the_format_of_a_file_without_ending(format_name, network, tmp_path):
    weights = parameters.initialize(network, 0, random_biases=True)
    (tmp_path / "file").write_bytes(conversion.encode(format_name, network, weights))
    assert conversion.read(tmp_path / "file", net=network).format == format_name
    assert_weights(tmp_path / "file", network, weights)


def test_a_keras_model_that_keeps_its_layers_in_net_is_read(framework, weights, small, net, tmp_path):
    """The classes of the book have an attribute `net`."""
    keras = framework("tensorflow", "keras")
    from alexnet_mf.backends.tensorflow import network as keras_network
    from alexnet_mf.backends.tensorflow import weights as keras_weights

    class Book(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.net = keras_network.build(small)

        def call(self, x: Any) -> Any:
            return self.net(x)

    model = Book()
    model(np.zeros((1, 28, 28, 1), np.float32))
    keras_weights.load(model.net, small, weights)
    model.save_weights(tmp_path / "book.weights.h5")
    assert_weights(tmp_path / "book.weights.h5", net, weights)


@pytest.mark.exhaustive
def test_the_alexnet_of_the_model_zoo_is_read(framework, tmp_path):
    mx = framework("mxnet")
    zoo = mx.gluon.model_zoo.vision.alexnet(pretrained=False)
    zoo.initialize(mx.init.Xavier())
    zoo(mx.nd.zeros((1, 3, 224, 224)))
    zoo.save_parameters(str(tmp_path / "zoo.params"))
    tensors = conversion.read(tmp_path / "zoo.params", net="alexnet-owt").parameters
    blocks = [block for block in (*zoo.features, zoo.output)
              if isinstance(block, (mx.gluon.nn.Conv2D, mx.gluon.nn.Dense))]
    layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    for name, block in zip(layers, blocks, strict=True):
        assert_array_equal(tensors[f"{name}.weight"], block.weight.data().asnumpy())
        assert_array_equal(tensors[f"{name}.bias"], block.bias.data().asnumpy())


@pytest.mark.exhaustive
def test_the_model_zoo_computes_the_same_logits_of_alexnet_owt(framework, tmp_path):
    mx, backend = framework("mxnet"), backends.load("mxnet")
    weights = parameters.initialize(ALEXNET_OWT, 0)
    copy = trained_otherwise(tmp_path / "mine.toml")
    (tmp_path / "zoo.params").write_bytes(backend.encode_weights("gluon-zoo", copy, weights))
    zoo = mx.gluon.model_zoo.vision.alexnet(pretrained=False)
    zoo.load_parameters(str(tmp_path / "zoo.params"))
    pixels = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    model = backend.build(ALEXNET_OWT, weights)
    logits = model.logits(model.place(pixels, np.zeros(2, np.int64)), 2)
    assert relative_l2(zoo(mx.nd.array(pixels)).asnumpy(), logits) < TIERS["float32"].output
    assert_weights(tmp_path / "zoo.params", "alexnet-owt", weights)


def test_the_model_zoos_names_are_for_alexnet_owt_alone(requires, small):
    requires("mxnet")
    with pytest.raises(ParametersError, match=r"is alexnet-owt, not .*; use `destination_format='gluon'`"):
        backends.load("mxnet").encode_weights("gluon-zoo", small, {})


def test_gluon_files_with_other_names_are_read(framework, weights, net, tmp_path):
    mx = framework("mxnet")
    numbers = {"conv1": 0, "conv2": 2, "fc3": 4, "fc4": 6}
    for style in ("{layer}_{what}", "arg:{layer}_{what}", "net.{number}.{what}"):  # the last is the book's
        named = {style.format(layer=layer, what=what, number=numbers[layer]): mx.nd.array(weights[f"{layer}.{what}"])
                 for layer, what in (name.split(".") for name in weights)}
        mx.nd.save(str(tmp_path / "theirs.params"), named)
        assert_weights(tmp_path / "theirs.params", net, weights)


# Names, classes, dtypes and layouts of other programs


def test_files_are_read_without_their_frameworks(requires, canonical, weights, net, tmp_path):
    """h5py and onnx are libraries, not frameworks."""
    files = {}
    for name, backend in NATIVE.items():
        requires(backend)
        files[name] = convert(canonical, tmp_path / f"weights{ENDINGS[name]}").sha256
    script = f"""
import sys
sys.modules.update(dict.fromkeys(["torch", "tensorflow", "keras", "mxnet"]))
from alexnet_mf import conversion
from alexnet_mf.weights import layouts, names, parameters
for ending in {list(ENDINGS.values())}:
    print(parameters.digest(conversion.read("weights" + ending, {net!r}).parameters))"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(files.values()) == {parameters.digest(weights)}


@pytest.mark.parametrize("target", ["torch-book", "gluon-book", "torchvision", "gluon-zoo"])
def test_names_of_other_programs_are_written_back(requires, framework, target, tmp_path, monkeypatch):
    """A fine-tuned network has other classes. The names of torchvision and the model zoo tell the network."""
    requires(FORMATS[target].backend)
    narrow = narrower(ALEXNET_OWT)
    monkeypatch.setattr("alexnet_mf.spec.zoo.ALEXNET_OWT", narrow)
    monkeypatch.setitem(zoo.NETWORKS, "alexnet-owt", narrow)
    five = spec.with_classes(narrow, 5)
    weights = parameters.initialize(five, 0, random_biases=True)
    first = tmp_path / f"first{FORMATS[target].suffixes[0]}"
    first.write_bytes(conversion.encode(target, five, weights))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = None if target in ("torchvision", "gluon-zoo") else "alexnet-owt"
        done = convert(first, tmp_path / "middle.safetensors", net=net)
    assert "5 classes, where" in str(caught[-1].message)
    assert done.network == five and done.sha256 == parameters.digest(weights)
    convert(tmp_path / "middle.safetensors", tmp_path / f"again{first.suffix}", destination_format=target)
    names = [list(conversion.READERS[done_format](path.open("rb"), path).tensors)
             for path in (first, tmp_path / f"again{first.suffix}")
             for done_format in ["torch" if first.suffix == ".pt" else "gluon"]]
    assert names[0] == names[1] and len(names[0]) == 16


def test_safetensors_of_other_programs_are_read_like_their_own_files(net, small, weights, tmp_path):
    for modules, prefix in ((names.torchvision(small), "module."), (names.numbered(small), "net.")):
        tensors = {prefix + names.rename(name, modules): value for name, value in weights.items()}
        safetensors.numpy.save_file(tensors, tmp_path / "theirs.safetensors")
        with pytest.warns(Notice, match=f"names without `{prefix}`"):
            assert_weights(tmp_path / "theirs.safetensors", net, weights)


def test_bfloat16_safetensors_are_widened(net, weights, tmp_path):
    bits = {name: (np.ascontiguousarray(value).view(np.uint32) >> 16).astype("<u2") for name, value in weights.items()}
    header, position = {}, 0
    for name, value in bits.items():
        header[name] = {"dtype": "BF16", "shape": value.shape, "data_offsets": [position, position + value.nbytes]}
        position += value.nbytes
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(
        value.tobytes() for value in bits.values()))
    expected = {name: (value.astype(np.uint32) << 16).view(np.float32) for name, value in bits.items()}
    with pytest.warns(Notice, match="bfloat16 was widened to float32"):
        assert_weights(tmp_path / "a.safetensors", net, expected)


@pytest.mark.parametrize("content, reason", [
    (b"", "is empty; use another copy"), (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer, not"),
    (b" <!DOCTYPE html>", "is a web page; download the file again"), (b"\x1f\x8b\x08", "gzip; unpack it"),
    (b"PK\3\4 cut", r"is damaged or ends too early \(File is not a zip file\); use another copy")])
def test_other_files_are_named(content, reason, net, tmp_path):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ParametersError, match=reason):
        conversion.read(tmp_path / "a.pt", net)
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ParametersError, match=r"is a single array; write all arrays of a network to an \.npz file"):
        conversion.read(tmp_path / "a.npy", net)


def test_the_name_of_a_network_of_caffe_may_have_60_letters(tmp_path):
    """Then the file begins with a line feed and `<`."""
    network = narrower(zoo.get_network("alexnet-caffe"))
    content = caffemodel(layers_of(network, parameters.initialize(network, 0)), name="n" * 60, **inputs_of(network))
    assert content.startswith(b"\n<")
    (tmp_path / "a").write_bytes(content)
    assert conversion.format_of_content(tmp_path / "a") == "caffe"


def test_a_networks_part_of_a_training_program_is_found(framework, weights, net, tmp_path):
    torch = framework("torch")
    tensors = {f"model.{name}": torch.from_numpy(value) for name, value in weights.items()}
    torch.save({"state_dict": {**tensors, "loss.weight": torch.ones(10, 2)}}, tmp_path / "a.ckpt")
    with pytest.warns(Notice, match=r"entry 'state_dict'; names without `model\.`; without the tensors loss"):
        assert_weights(tmp_path / "a.ckpt", net, weights)
    torch.save({**tensors, **{name.replace("model", "teacher"): value for name, value in tensors.items()}},
               tmp_path / "b.ckpt")
    with pytest.raises(ParametersError, match="surplus"):
        conversion.read(tmp_path / "b.ckpt", net)


def test_a_softmax_is_written_into_a_keras_model(framework, small, weights, tmp_path):
    framework("tensorflow")
    network = dataclasses.replace(small, output="softmax")
    (tmp_path / "a.keras").write_bytes(conversion.encode("keras-model", network, weights))
    assert conversion.read(tmp_path / "a.keras").network.output == "softmax"


def test_the_advice_for_a_pickled_dictionary_of_layers_works(tmp_path):
    """Like `bvlc_alexnet.npy`: TensorFlow's layout, a square dense layer, and inputs of the first in another order."""
    network = narrower(zoo.get_network("alexnet-caffe"))
    weights = parameters.initialize(network, 0, random_biases=True)
    images = layouts.flattened_shapes(network)
    theirs: dict[str, list[np.ndarray]] = {}
    for name, value in weights.items():
        theirs.setdefault(name.partition(".")[0], []).append(layouts.to_native(value, images.get(name)))
    np.save(tmp_path / "theirs.npy", np.array(theirs, object), allow_pickle=True)
    with pytest.raises(ParametersError, match="is a pickle, which could run any program, so it is not read") as error:
        conversion.read(tmp_path / "theirs.npy", net=network)
    advice = str(error.value).partition("write an .npz file: ")[2].replace("FILE", repr("theirs.npy"))
    subprocess.run([sys.executable, "-c", f"import numpy as np; {advice}"], cwd=tmp_path, check=True, timeout=60)
    with pytest.warns(Notice, match=r"arrays in TensorFlow's layout \(height, width, in, out\) were converted"):
        assert_weights(tmp_path / "weights.npz", network, weights)


def test_a_file_that_describes_its_network_needs_no_name(framework, small, weights, tmp_path, canonical):
    pytest.importorskip("onnx")
    convert(canonical, tmp_path / "a.onnx")
    read = conversion.read(tmp_path / "a.onnx")
    assert spec.fingerprint(read.network) == spec.fingerprint(small)
    assert parameters.digest(read.parameters) == parameters.digest(weights)
    assert conversion.find_described(tmp_path / "a.onnx") == read.network
    other = dataclasses.replace(small, name="other", layers=(
        dataclasses.replace(small.layers[0], activation="sigmoid"), *small.layers[1:]))
    with pytest.raises(ParametersError, match="describes another network than other: conv1: activation is relu in the "
                                              "file, sigmoid in other; leave out `net`"):
        conversion.read(tmp_path / "a.onnx", other)


def test_another_name_for_the_same_network_is_written_into_the_header(canonical, small, tmp_path):
    """The name in the message and the name in the file are the same."""
    same = dataclasses.replace(spec.with_dropout(small, 0.1), name="same")
    (tmp_path / "same.toml").write_text(toml.dump(same), encoding="utf-8")
    done = convert(canonical, tmp_path / "b.safetensors", net=str(tmp_path / "same.toml"))
    assert done.network == conversion.read(tmp_path / "b.safetensors").network == same


def test_a_canonical_file_keeps_its_softmax_and_its_classes(tmp_path):
    """A built-in network's name stands for any number of classes."""
    five = dataclasses.replace(spec.with_classes(zoo.LENET5, 5), output="softmax")
    parameters.save(tmp_path / "a.safetensors", parameters.initialize(five, 0), {"network": spec.as_dict(five)})
    assert conversion.read(tmp_path / "a.safetensors", "lenet5").network == five
    with pytest.raises(ParametersError, match="has weights of lenet5-5-classes, which differs from lenet5-relu-5"):
        conversion.read(tmp_path / "a.safetensors", "lenet5-relu")


def test_a_graph_that_contains_its_preprocessing_is_not_read(canonical, small, weights, tmp_path):
    pytest.importorskip("onnx")
    for color in ("gray", "bgr"):
        network = small if color == "gray" else dataclasses.replace(small, input=(3, 28, 28))
        record = Preprocessing(color, resize=(28, 28), scale=1, mean=(1,) * network.input[0])
        parameters.save(tmp_path / "a.safetensors", parameters.initialize(network, 0), {
            "network": spec.as_dict(network), **entries(network, record)})
        convert(tmp_path / "a.safetensors", tmp_path / f"{color}.onnx", bake_preprocessing=True)
        with pytest.raises(ParametersError, match=r"contains its preprocessing \(`bake_preprocessing`\); use the file"):
            conversion.read(tmp_path / f"{color}.onnx")


def test_a_format_without_room_for_preprocessing_says_so(small, weights, tmp_path):
    parameters.save(tmp_path / "a.safetensors", weights, {"network": spec.as_dict(small),
                                                          **entries(small, FASHION_MNIST)})
    with pytest.warns(Notice, match="npz files have no room for preprocessing and class names; keep .*a.safetensors"):
        convert(tmp_path / "a.safetensors", tmp_path / "a.npz")


def test_an_entry_is_named_for_a_checkpoint_only(canonical, tmp_path):
    with pytest.raises(AlexnetMfError, match="has no entries, as a checkpoint of PyTorch has; leave out `entry`"):
        convert(canonical, tmp_path / "a.npz", entry="model")


# Tensors that do not fit


def write_torch(path: Path, tensors: dict[str, np.ndarray]) -> None:
    import torch

    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, path)


def write_keras(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write tensors as Keras does: HWIO, (in, out), layers numbered by class."""
    import h5py

    places = {"conv1": "conv2d", "conv2": "conv2d_1", "fc3": "dense", "fc4": "dense_1", "extra": "dense_2"}
    with h5py.File(path, "w") as file:
        for name, value in tensors.items():
            layer, what = name.split(".")
            turned = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
            file[f"layers/{places[layer]}/vars/{0 if what == 'weight' else 1}"] = turned


def write_gluon(path: Path, tensors: dict[str, np.ndarray]) -> None:
    import mxnet as mx

    mx.nd.save(str(path), {name: mx.nd.array(value, dtype=value.dtype) for name, value in tensors.items()})


def write_npz(path: Path, tensors: dict[str, np.ndarray]) -> None:
    np.savez(path, **tensors)


WRITERS = {"torch": write_torch, "keras": write_keras, "gluon": write_gluon, "npz": write_npz}


def test_missing_surplus_and_misshapen_tensors_are_all_named(format_name, weights, net, tmp_path):
    backends.load(NATIVE[format_name])
    tensors = dict(weights)
    del tensors["conv2.bias"], tensors["fc4.weight"]
    tensors["extra.weight"] = np.zeros((3, 2), np.float32)
    tensors["conv1.weight"] = np.zeros((8, 1, 3, 3), np.float32)
    tensors["fc3.weight"] = np.zeros((32, 100), np.float32)  # flatten gives 108
    tensors["fc3.bias"] = np.zeros(32, np.int64)
    path = tmp_path / f"theirs{ENDINGS[format_name]}"
    WRITERS[format_name](path, tensors)
    with pytest.raises(ParametersError) as error:
        convert(path, tmp_path / "out.safetensors", net=net)
    surplus = "layers/dense_2/vars/0" if format_name == "keras" else "extra.weight"
    expected = ["missing conv2.bias", "missing fc4.weight", f"surplus {surplus}",
                "conv1.weight is (8, 1, 3, 3), not (8, 1, 5, 5)", "fc3.weight is (32, 100), not (32, 108)",
                "fc3.bias is int64, not a float"]
    if format_name == "keras":  # integers are counters
        expected[-1] = "missing fc3.bias"
    for fault in expected:
        assert fault in str(error.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_the_error_for_weights_of_another_network_names_net(format_name, native, tmp_path):
    with pytest.raises(ParametersError, match=r"not the parameters of alexnet: .*; name another network with `net`"):
        convert(native, tmp_path / "out.safetensors", net="alexnet")
    with pytest.raises(ParametersError, match="does not name its network; name the network with `net`"):
        convert(native, tmp_path / "out.safetensors")


# Malicious and damaged files


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("harmed"),)


@pytest.mark.parametrize("old", [False, True])
def test_no_pytorch_file_is_unpickled(framework, net, tmp_path, monkeypatch, old):
    monkeypatch.chdir(tmp_path)
    framework("torch").save({"conv1.weight": Evil()}, tmp_path / "evil.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(ParametersError, match=r"contains no state_dict; save the weights alone with torch\.save"):
        conversion.read(tmp_path / "evil.pt", net=net)
    assert not (tmp_path / "harmed").exists()


def test_no_file_is_unpickled(net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open(tmp_path / "evil.npz", "wb") as file:
        np.savez(file, **{"conv1.weight": np.array([Evil()], object)})
    with pytest.raises(ParametersError, match=r"cannot be read as \.npz"):
        conversion.read(tmp_path / "evil.npz", net=net)
    for name in ("bare.safetensors", "bare.pt", "bare.npy"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil()))
        with pytest.raises(ParametersError, match=r"is a pickle, which could run any program, so it is not read; write "
                                                  r"its arrays to an \.npz file with np\.savez"):
            conversion.read(tmp_path / name, net=net)
    assert not (tmp_path / "harmed").exists()
    pickle.loads((tmp_path / "bare.pt").read_bytes())  # unpickling touches the file
    assert (tmp_path / "harmed").exists()


@pytest.mark.parametrize("change", [
    lambda inside: b"\x92" + inside[1:], lambda inside: inside.replace(b"(10,)", b"(10,(")],
                         ids=["no array", "a header that is no Python"])
def test_an_npz_file_with_a_bad_member_is_refused(weights, net, tmp_path, change):
    """NumPy returns the bytes of a member that is no array, and raises any error of its parser for a bad header."""
    np.savez(tmp_path / "good.npz", **weights)
    with zipfile.ZipFile(tmp_path / "good.npz") as good, zipfile.ZipFile(tmp_path / "bad.npz", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, change(good.read(name)) if name == "fc4.bias.npy" else good.read(name))
    with pytest.raises(ParametersError, match=r"bad\.npz: cannot be read as \.npz"):
        conversion.read(tmp_path / "bad.npz", net=net)


def test_bombs_in_npz_files_are_refused_soon(net, tmp_path):
    """NumPy reads a header of its second version whole, and zipfile the directory of an archive."""
    with zipfile.ZipFile(tmp_path / "header.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x02\0" + (10**8).to_bytes(4, "little") + b" " * 10**8)
    with pytest.raises(ParametersError, match=r"'a.npy' has version \(2, 0\) of NumPy's format; write it with"):
        conversion.read(tmp_path / "header.npz", net)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 65535, 65535, 40_000_000, 0, 0)
    (tmp_path / "directory.npz").write_bytes(b"PK\3\4" + bytes(40_000_000 - 4) + end)
    with pytest.raises(ParametersError, match=r"cannot be read \(the archive's directory is too large\)"):
        conversion.read(tmp_path / "directory.npz", net)
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        warnings.simplefilter("ignore")
        np.savez(tmp_path / "a.npz", x=np.zeros(1))
        for _ in range(2):
            archive.writestr("x.npy", zipfile.ZipFile(tmp_path / "a.npz").read("x.npy"))
    with pytest.raises(ParametersError, match="two arrays have one name"):
        conversion.read(tmp_path / "twice.npz", net)


def test_damaged_files_are_refused_or_read(format_name, native, net, tmp_path):
    """Truncated files and flipped bits give an error of this package, or weights that fit."""
    content, draw = native.read_bytes(), random.Random(0)
    path = tmp_path / f"damaged{ENDINGS[format_name]}"
    refused = 0
    ends = [0, 1, 7, 8, 9, 16, *(draw.randrange(len(content)) for _ in range(30))]
    damaged = [content[:end] for end in ends]
    for _ in range(120):
        changed = bytearray(content)
        for _ in range(draw.choice([1, 1, 8])):
            position = draw.choice([draw.randrange(len(changed)), draw.randrange(min(len(changed), 600)),
                                    -1 - draw.randrange(min(len(changed), 600))])
            changed[position] ^= 1 << draw.randrange(8)
        damaged.append(bytes(changed))
    for variant in damaged:
        path.write_bytes(variant)
        try:
            conversion.read(path, net, source_format=format_name)
        except ParametersError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= len(ends)


# Arguments


def test_an_ending_selects_the_first_format_that_has_it():
    endings = [ending for file_format in FORMATS.values() for ending in file_format.suffixes]
    assert {ending: conversion.format_of_name(Path(f"a{ending}")) for ending in endings} == {
        ".safetensors": "safetensors", ".pt": "torch", ".pth": "torch", ".weights.h5": "keras", ".params": "gluon",
        ".npz": "npz", ".onnx": "onnx", ".keras": "keras-model"}


@pytest.mark.parametrize("name, destination_format, fragment", [
    ("a.bin", None, r"unrecognized ending; supported: \.safetensors, \.pt, .*, \.onnx; use `destination_format`"),
    ("a.h5", None, "unrecognized ending"),
    ("a.h5", "keras", r"only if its name ends in \.weights\.h5"),
    ("a.npz", "keras-model", r"only if its name ends in \.keras"),
    ("a.params", "torch", r"has the ending of gluon, not of torch; name it \*\.pt"),
    ("a.pt", "onnx", r"has the ending of torch, not of onnx; name it \*\.onnx"),
    ("a.onnx", "safetensors", r"has the ending of onnx, not of safetensors; name it \*\.safetensors"),
    ("a.npz", "numpy", "`destination_format` must be one of safetensors, torch, .*, not 'numpy'"),
    ("gone/a.npz", None, "gone/a.npz: cannot be written: no folder")])
def test_a_destination_that_does_not_fit_is_refused(name, destination_format, fragment, canonical, tmp_path):
    with pytest.raises(AlexnetMfError, match=fragment):
        convert(canonical, tmp_path / name, destination_format=destination_format)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("options, message", [
    ({"source_format": "gluon-zoo"}, "`source_format` must be one of safetensors, .*, caffe, not 'gluon-zoo'"),
    ({"which": "first"}, "`which` must be one of last, best, not 'first'"),
    ({"which": "best"}, "weights.safetensors: is not a run folder; leave out `which='best'`"),
    ({"net": 3}, "`net` must be a network, its name or a .toml file, not 3"),
    ({"net": "lenet5"}, "weights.safetensors: has weights of small, which differs from lenet5; leave out `net`"),
    ({"source": 3}, "`source` must be a path, not 3"), ({"destination": ""}, "`destination` must be a path, not ''")])
def test_invalid_arguments_are_refused(canonical, tmp_path, options, message):
    with pytest.raises(AlexnetMfError, match=message):
        convert(**{"source": canonical, "destination": tmp_path / "a.npz", **options})
    assert not (tmp_path / "a.npz").exists()


def test_a_run_folder_takes_no_source_format(canonical, tmp_path):
    with pytest.raises(AlexnetMfError, match="is a run folder, whose format is safetensors; leave out `source_format`"):
        convert(tmp_path, tmp_path / "a.npz", source_format="npz")


def test_weights_of_another_network_are_refused_even_if_they_fit(canonical, small, weights):
    """A pooling layer has no parameters, so the tensors alone do not distinguish the networks."""
    other = dataclasses.replace(small, name="other", layers=tuple(
        spec.AvgPool2d(layer.name, kernel=2, stride=2) if layer.name == "pool2" else layer for layer in small.layers))
    parameters.check(weights, other)
    with pytest.raises(ParametersError, match="has weights of small, which differs from other"):
        conversion.read(canonical, other)
    same = dataclasses.replace(spec.with_dropout(small, 0.1), name="same", learning_rate=0.5)
    assert conversion.read(canonical, same).network == same


def test_an_existing_file_is_replaced_only_with_overwrite(canonical, tmp_path):
    path = tmp_path / "there.npz"
    path.write_text("mine")
    with pytest.raises(AlexnetMfError, match="exists; name another file, or replace it with `overwrite`"):
        convert(canonical, path)
    assert path.read_text() == "mine"
    convert(canonical, path, overwrite=True)
    assert conversion.format_of_content(path) == "npz"


def test_a_file_is_not_converted_into_itself(canonical):
    content = canonical.read_bytes()
    with pytest.raises(AlexnetMfError, match="is the source itself; name another file"):
        convert(canonical, canonical, overwrite=True)
    assert canonical.read_bytes() == content


def test_a_full_disk_keeps_the_old_file(canonical, tmp_path, failing_os):
    path = tmp_path / "there.npz"
    path.write_text("mine")
    failing_os(at=1, error=28)
    with pytest.raises(AlexnetMfError, match=r"cannot be written \(No space left on device\)"):
        convert(canonical, path, overwrite=True)
    assert path.read_text() == "mine"


def test_missing_onnx_is_reported_with_the_install_command(canonical, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "alexnet_mf.weights.onnx_graph", raising=False)
    with pytest.raises(AlexnetMfError, match=r"pip install onnx, or install alexnet_mf\[onnx\]"):
        convert(canonical, tmp_path / "a.onnx")


def test_a_missing_or_unrecognized_source_is_refused(tmp_path):
    with pytest.raises(ParametersError, match=r"gone: cannot be read \(No such file or directory\)"):
        convert(tmp_path / "gone", tmp_path / "a.npz")
    (tmp_path / "text").write_text("hello, this is a text that is no weights")
    with pytest.raises(ParametersError, match="unrecognized weights format; supported: safetensors, torch"):
        convert(tmp_path / "text", tmp_path / "a.npz")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    with pytest.raises(ParametersError, match=r"pipe: cannot be read \(not a file\)"):
        convert(tmp_path / "pipe", tmp_path / "a.npz")
    with pytest.raises(ParametersError, match=r"cannot be read \(embedded null byte\)"):
        convert(Path("a\0b"), tmp_path / "a.npz")


def test_a_file_that_reads_back_with_other_bits_is_not_written(canonical, tmp_path, monkeypatch):
    """A file is read back before it takes its name."""
    encode = npz.encode
    monkeypatch.setattr(npz, "encode", lambda weights: encode({name: value + np.float32(1e-3)
                                                             for name, value in weights.items()}))
    with pytest.raises(ParametersError, match="reads back with different bits; nothing was written"):
        convert(canonical, tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()
