"""Files of Keras: the described network computes what Keras computes, or is refused by the layer's name."""

from __future__ import annotations

import importlib
import io
import itertools
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_mf import backends, conversion
from alexnet_mf.backends.numpy import network as reference
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network, arithmetic, digest
from alexnet_mf.spec.layers import (
    AdaptiveAvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    LocalResponseNorm,
    MaxPool2d,
    Normalize,
)
from alexnet_mf.weights import parameters
from alexnet_mf.weights.formats import keras as keras_file
from alexnet_mf.weights.formats import tensorflow
from alexnet_mf.weights.stored import StoredWeights

h5py = pytest.importorskip("h5py")


@pytest.fixture
def keras(requires: Any) -> Any:
    requires("tensorflow")
    backends.load("tensorflow")  # imports what must be imported before TensorFlow
    return importlib.import_module("keras")


def read(source: Path | bytes) -> tuple[StoredWeights, dict[str, np.ndarray]]:
    """Read a file, and load its tensors while it is open."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        stored = keras_file.read(file, Path("model.keras"))
        values = {name: tensor.load() for name, tensor in stored.tensors.items()}
    for name, tensor in stored.tensors.items():
        assert values[name].shape == tensor.shape
        assert values[name].dtype == ("float32" if tensor.dtype == "bfloat16" else tensor.dtype)
    assert stored.layout == "HWIO"
    return stored, values


def canonical(stored: StoredWeights, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return canonical parameters, converted independently of the package."""
    inputs = arithmetic.input_shapes(stored.network)
    images = [inputs[layer.name] for layer in stored.network.layers if isinstance(layer, Flatten)]
    flat = {after.name for before, after in itertools.pairwise(stored.network.layers)
            if isinstance(before, Flatten) and isinstance(after, BatchNorm)}
    result = {}
    for name, theirs in stored.names.items():
        value = values[theirs]
        if value.ndim == 4:
            value = np.einsum("hwio->oihw", value)
        elif value.ndim == 2:
            channels, height, width = images.pop() if images else (1, 1, len(value))
            value = np.einsum("hwcu->uchw", value.reshape(height, width, channels, -1)).reshape(value.shape[1], -1)
        elif name.partition(".")[0] in flat:
            channels, height, width = images[-1]
            value = np.einsum("hwc->chw", value.reshape(height, width, channels)).ravel()
        result[name] = value
    return result


def outputs(stored: StoredWeights, values: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Return the reference's outputs in float64."""
    net = reference.build(stored.network, {name: value.astype(np.float64)
                                           for name, value in canonical(stored, values).items()})
    logits = list(net.forward(np.moveaxis(pixels, 3, 1).astype(np.float64)))[-1][1]
    is_softmax = stored.network.output == "softmax"
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) if is_softmax else logits


def randomize(model: Any) -> Any:
    """Give all variables random values, so that a lost bias or a swapped kernel shows."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        if variable.dtype != "int64":
            middle = 1 if variable.name in ("variance", "moving_variance") else 0
            variable.assign(random.uniform(middle - 0.3, middle + 0.3, variable.shape))
    return model


def error_of(model: Any, path: Path, largest: float = 1) -> float:
    """Return the relative L2 error of the network that the file describes, against Keras."""
    pixels = np.random.default_rng(1).random((4, *model.input_shape[1:]), np.float32)
    expected = np.asarray(model(pixels * np.float32(largest), training=False))
    return float(np.linalg.norm(outputs(*read(path), pixels) - expected) / np.linalg.norm(expected))


END = "Flatten(), Dense(5)"
SUPPORTED: dict[str, tuple[str, float]] = {
    "LeNet": ("Conv2D(6, 5, padding='same', activation='sigmoid'), AveragePooling2D(2), "
              "Conv2D(4, 5, activation='sigmoid'), AveragePooling2D(2, 2), Flatten(), Dense(20, activation='sigmoid'), "
              "Dropout(0.2), Dense(10)", 1),
    "activations as layers": (f"Conv2D(4, 3), ReLU(), Conv2D(4, 3), Activation('sigmoid'), {END}", 1),
    "an activation as an argument": (f"Conv2D(4, 3, activation=ReLU()), {END}", 1),
    "ReLU after pooling": (f"Conv2D(4, 3), MaxPooling2D(), ReLU(), {END}", 1),
    "ReLU twice": (f"Conv2D(4, 3, activation='relu'), AveragePooling2D(3, 2), ReLU(), {END}", 1),
    "sigmoid after flattening": ("Conv2D(4, 3), Flatten(), Activation('sigmoid'), Dense(3)", 1),
    "tanh": (f"Conv2D(4, 3, activation='tanh'), Conv2D(4, 3), MaxPooling2D(), Activation('tanh'), {END}", 1),
    "ELU": (f"Conv2D(4, 3, activation='elu'), Conv2D(4, 3), ELU(0.3), {END}", 1),
    "leaky ReLU": (f"Conv2D(4, 3, activation='leaky_relu'), Conv2D(4, 3), LeakyReLU(0.1), Conv2D(4, 3), "
                   f"ReLU(negative_slope=0.3), Conv2D(4, 3, activation=LeakyReLU(0.2)), {END}", 1),
    "GELU": (f"Conv2D(4, 3, activation='gelu'), MaxPooling2D(), Conv2D(4, 3), Activation('gelu'), {END}", 1),
    "softmax": ("Flatten(), Dense(4, activation='softmax')", 1),
    "softmax as a layer": ("Conv2D(4, 3), Flatten(), Dense(4), Softmax()", 1),
    "groups and strides": (f"Conv2D(4, 3, 2), Conv2D(6, 3, groups=2, strides=3), {END}", 1),
    "zero padding": (f"ZeroPadding2D(2), Conv2D(6, 5, 2), {END}", 1),
    "zero padding before same": (f"ZeroPadding2D(1), Conv2D(6, 3, padding='same'), {END}", 1),
    "same that pads nothing": (f"Conv2D(6, 2, 2, padding='same'), MaxPooling2D(2, 2, padding='same'), {END}", 1),
    "cropping that no window sees": (f"ZeroPadding2D(1), Cropping2D(((0, 1), (0, 1))), Conv2D(6, 1, 2), {END}", 1),
    "global pooling": ("Conv2D(4, 3, activation='relu'), GlobalAveragePooling2D(), Flatten(), Dense(3)", 1),
    "global pooling with axes": ("Conv2D(4, 3), GlobalAveragePooling2D(keepdims=True), Flatten(), Dense(3)", 1),
    "noise": (f"RandomFlip(), GaussianNoise(1), Conv2D(4, 3), SpatialDropout2D(0.5), {END}", 1),
    "gray levels": (f"Rescaling(1 / 255), RandomRotation(0.1), Conv2D(4, 3), {END}", 255),
    "gray levels to [-1, 1]": (f"Rescaling(1 / 127.5, -1), Conv2D(4, 3), {END}", 255),
    "pixels to [-1, 1]": (f"Rescaling(2, offset=-1), Conv2D(4, 3), {END}", 1),
    "batch normalization": ("Conv2D(4, 3), BatchNormalization(), ReLU(), Conv2D(4, 3, use_bias=False), "
                            "BatchNormalization(momentum=0.5, epsilon=0.01), MaxPooling2D(), Activation('tanh'), "
                            f"{END}", 1),
    "batch normalization without gamma or beta": (
        f"Conv2D(4, 3), BatchNormalization(scale=False), Conv2D(4, 3), BatchNormalization(center=False), {END}", 1),
    "batch normalization of features": ("Conv2D(4, 3), Flatten(), BatchNormalization(), Dense(6), "
                                        "BatchNormalization(), ELU(), Dense(5)", 1),
    "batch normalization of pixels": (f"BatchNormalization(axis=3), Conv2D(4, 3), {END}", 1),
    "normalization": (f"Normalization(mean=[0.3], variance=[0.04]), Conv2D(4, 3), {END}", 1),
    "normalized gray levels": (f"Normalization(mean=70, variance=900, axis=None), Conv2D(4, 3), {END}", 255),
    "rescaling and normalization": (f"Rescaling(1 / 255), Normalization(mean=[0.3], variance=[0.04]), Conv2D(4, 3), "
                                    f"{END}", 255),
}
LATER: dict[str, tuple[str, str]] = {
    "same with strides": (f"Conv2D(4, 3, 2, padding='same', name='c'), {END}",
                          r"layer `c` \(Conv2D\) .*\(\(0, 1\), \(0, 1\)\)"),
    "same pooling": (f"MaxPooling2D(3, 2, padding='same', name='p'), {END}",
                     r"layer `p` \(MaxPooling2D\) .*\(\(0, 1\), \(0, 1\)\)"),
    "no bias": (f"Conv2D(4, 3, use_bias=False, name='c'), {END}", r"layer `c` \(Conv2D\) .*bias=False"),
}
"""Layers that the spec expresses, or does not yet."""
REFUSED: dict[str, tuple[str, str]] = {
    "softmax in the middle": ("Flatten(), Dense(4), Softmax(name='s'), Dense(3)", r"layer `s` .*before the end"),
    "flattening in another order": ("Conv2D(4, 3), Flatten(data_format='channels_first', name='f'), Dense(3)",
                                    r"layer `f` \(Flatten\) has data_format='channels_first'"),
    "permuting": ("Conv2D(4, 3), Permute((3, 1, 2), name='p'), Flatten(), Dense(3)", r"layer `p` \(Permute\) is"),
    "reshaping": ("Conv2D(4, 3), Reshape((26, 4, 26), name='r'), Flatten(), Dense(3)", r"layer `r` \(Reshape\) is"),
    "batch normalization of rows": (f"Conv2D(4, 3), BatchNormalization(axis=1, name='b'), {END}",
                                    r"layer `b` \(BatchNormalization\) has axis=1"),
    "another layer": (f"Conv2D(4, 3), LayerNormalization(name='ln'), {END}",
                      r"layer `ln` \(LayerNormalization\) is not supported; supported: Conv2D, Dense,"),
    "cropping at random": (f"RandomCrop(24, 24, name='r'), Conv2D(4, 3), {END}", r"layer `r` \(RandomCrop\) is not"),
    "a depthwise convolution": (f"DepthwiseConv2D(3, name='d'), {END}", r"layer `d` \(DepthwiseConv2D\) is not"),
    "dilation": (f"Conv2D(4, 3, dilation_rate=2, name='c'), {END}", r"layer `c` .*dilation_rate=\[2, 2\]"),
    "a window that is no square": (f"Conv2D(4, (3, 5), name='c'), {END}", r"layer `c` .*kernel_size=\[3, 5\]"),
    "strides that differ": (f"MaxPooling2D(2, (1, 2), name='p'), {END}", r"layer `p` .*strides=\[1, 2\]"),
    "a capped ReLU": (f"Conv2D(4, 3), ReLU(6.0, name='a'), {END}", r"layer `a` \(ReLU\) has max_value"),
    "capped ReLU": (f"Conv2D(4, 3, activation='relu6', name='c'), {END}", r"layer `c` .*activation='relu6'"),
    "ReLU after a mean": (f"Conv2D(4, 3), AveragePooling2D(2), ReLU(name='a'), {END}", r"layer `a` \(ReLU\) applies"),
    "GELU after a maximum": (f"Conv2D(4, 3), MaxPooling2D(), Activation('gelu', name='a'), {END}",
                             r"layer `a` \(Activation\) applies gelu"),
    "two activations": (f"Conv2D(4, 3, activation='relu'), Activation('sigmoid', name='a'), {END}",
                        r"layer `a` \(Activation\) applies sigmoid"),
    "an activation of pixels": (f"ReLU(name='a'), Conv2D(4, 3), {END}", r"layer `a` \(ReLU\) applies relu"),
    "zeros before a maximum": (f"Conv2D(4, 3), ZeroPadding2D(1, name='z'), MaxPooling2D(3), {END}",
                               r"layer `z` \(ZeroPadding2D\) adds zeros that can be the maximum"),
    "a window of zeros": (f"Conv2D(4, 3, activation='relu'), ZeroPadding2D(3, name='z'), MaxPooling2D(3), {END}",
                          r"layer `z` \(ZeroPadding2D\) adds zeros that can be the maximum"),
    "zeros before same": (f"ZeroPadding2D(1, name='z'), AveragePooling2D(3, padding='same'), {END}",
                          r"layer `z` \(ZeroPadding2D\) adds zeros before"),
    "zeros at the end": ("ZeroPadding2D(1, name='z'), Flatten(), Dense(3)", r"layer `z` \(ZeroPadding2D\) is not"),
    "cropping": (f"Cropping2D(((0, 1), (0, 1)), name='c'), Conv2D(4, 3), {END}", r"layer `c` \(Cropping2D\) crops"),
    "cropping at the top": (f"Cropping2D(1, name='c'), Conv2D(4, 3), {END}", r"layer `c` \(Cropping2D\) has cropping="),
    "an unknown range": (f"Normalization(mean=[5], variance=[4], name='n'), Conv2D(4, 3), {END}",
                         r"layer `n` \(Normalization\) does not show whether .*\[0, 1\] or in \[0, 255\]"),
    "scaling by zero": (f"Rescaling(0, name='r'), {END}", r"layer `r` \(Rescaling\) has arguments that cannot be read"),
    "too many means": (f"Rescaling([1, 1, 1], name='r'), {END}", r"layer `r` \(Rescaling\) has arguments that cannot"),
    "rescaling in the middle": (f"Conv2D(4, 3), Rescaling(2, name='r'), {END}", r"layer `r` \(Rescaling\) is not at"),
    "normalization of columns": (f"Normalization(axis=2, mean=[0.1] * 28, variance=[0.2] * 28, name='n'), {END}",
                                 r"layer `n` \(Normalization\) has axis=\[2\]"),
    "dense on images": ("Dense(3, name='d'), Flatten(), Dense(3)", r"layer `d` \(Dense\) .*takes flat features"),
    "no dense layer": ("Conv2D(4, 3), Flatten()", "the last layer must be a Dense layer"),
}




def build(keras: Any, text: str) -> Any:
    return randomize(keras.Sequential([keras.Input((28, 28, 1)), *eval(f"[{text}]", dict(vars(keras.layers)))]))


def conv(keras: Any) -> Any:
    return keras.layers.Conv2D(8, 3, padding="same", activation="relu")


def nested(keras: Any) -> Any:
    """Return the model of the report: ordered by path, its first two convolutions were swapped."""
    return keras.Sequential([keras.Input((28, 28, 1)), conv(keras), keras.Sequential([conv(keras)]), conv(keras),
                             keras.layers.Flatten(), keras.layers.Dense(10)])


def base_and_head(keras: Any) -> Any:
    """Return a half frozen base with a new head, called as in Keras's guide to transfer learning."""
    inner = keras.Input((28, 28, 1))
    base = keras.Model(inner, conv(keras)(keras.layers.MaxPooling2D()(conv(keras)(conv(keras)(inner)))))
    base.layers[1].trainable = False
    head = keras.Sequential([keras.layers.Flatten(), keras.Sequential([keras.layers.Dense(9, activation="sigmoid")])])
    pixels = keras.Input((28, 28, 1))
    return keras.Model(pixels, keras.layers.Dense(5)(head(base(pixels, training=False))))


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_described_network_computes_what_keras_computes(keras: Any, name: str, tmp_path: Path) -> None:
    text, largest = SUPPORTED[name]
    model = build(keras, text)
    for path in (tmp_path / "model.keras", tmp_path / "model.h5"):
        model.save(path)
        assert error_of(model, path, largest) < 2e-6


@pytest.mark.parametrize("name", LATER)
def test_it_is_computed_as_keras_computes_it_or_refused_by_name(keras: Any, name: str, tmp_path: Path) -> None:
    text, message = LATER[name]
    model, path = build(keras, text), tmp_path / "model.keras"
    model.save(path)
    try:
        assert error_of(model, path) < 2e-6
    except ParametersError as error:
        assert re.search(message, str(error))


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_spec_cannot_express_is_refused_by_name(keras: Any, name: str, tmp_path: Path) -> None:
    text, message = REFUSED[name]
    path = tmp_path / "model.keras"
    build(keras, text).save(path)
    with pytest.raises(ParametersError, match=message):
        read(path)


@pytest.mark.parametrize("make", [nested, base_and_head])
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_nested_models_are_read_in_the_order_of_computation(keras: Any, make: Any, ending: str, tmp_path: Path) -> None:
    model = randomize(make(keras))
    path = tmp_path / f"model.{ending}"
    model.save(path)
    assert error_of(model, path) < 2e-6
    stored, _ = read(path)
    assert stored.is_ordered
    assert list(stored.names.values()) == list(stored.tensors)


def test_notes_say_what_differs_from_the_model(keras: Any, tmp_path: Path) -> None:
    build(keras, f"Rescaling(1 / 255), RandomFlip(), Conv2D(4, 3), {END}").save(tmp_path / "model.keras")
    stored, _ = read(tmp_path / "model.keras")
    assert stored.notes == ("RandomFlip is left out: it changes nothing in inference",
                            "the network takes pixels in [0, 1], where Keras's model takes [0, 255]")
    assert isinstance(stored.network.layers[0], Conv2d)


def test_models_that_are_no_chain_are_refused(keras: Any, tmp_path: Path) -> None:
    layers, pixels = keras.layers, keras.Input((28, 28, 1))
    flat = layers.Flatten()(pixels)
    dense, dropout = layers.Dense(784, name="d"), layers.Dropout(0.5, name="drop")
    end = layers.Dense(3)
    add = layers.Add(name="add_1")
    for outputs, message in ((end(add([dense(flat), flat])), r"layer `add_1` \(Add\) has 2 inputs"),
                             (end(dense(dense(flat))), r"layer `d` \(Dense\) has 2 inputs"),
                             (end(dropout(flat, training=True)), r"layer `drop` .* called with more than its input"),
                             (end(flat * 2), r"layer `multiply.*` \(Multiply\) is called with more"),
                             ([end(flat), dense(flat)], "not a chain")):
        keras.Model(pixels, outputs).save(tmp_path / "model.keras")
        with pytest.raises(ParametersError, match=message):
            read(tmp_path / "model.keras")


def test_only_classes_of_keras_are_read(keras: Any, tmp_path: Path) -> None:
    class Conv2D(keras.layers.Conv2D):
        def call(self, x: Any) -> Any:
            return -super().call(x)

    keras.Sequential([keras.Input((28, 28, 1)), Conv2D(4, 3, name="c"), keras.layers.Flatten(), keras.layers.Dense(3)]
                     ).save(tmp_path / "model.keras")
    with pytest.raises(ParametersError, match=r"layer `c` \(Conv2D\) is not a class of Keras"):
        read(tmp_path / "model.keras")


def test_a_network_of_this_package_is_read_back(keras: Any, tmp_path: Path) -> None:
    from alexnet_mf.backends.tensorflow import network as native
    from alexnet_mf.backends.tensorflow import weights

    network = Network("own", (3, 29, 28), (
        Normalize("normalize", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), Conv2d("conv1", 8, 1, 2),
        LocalResponseNorm("norm1", 5, 1e-4, 0.75, 2.0), Conv2d("conv2", 8, 5, 2, 1, groups=2),
        MaxPool2d("pool2", 2, 2), AdaptiveAvgPool2d("pool2_2", 2), Flatten("flatten"), Dense("fc3", 6, "sigmoid"),
        Dropout("drop3", 0.5), Dense("fc4", 4)))
    drawn = parameters.initialize(network, 0, random_biases=True)
    model = native.build(network)
    weights.load(model, network, drawn)
    model.save(tmp_path / "own.keras")
    stored, values = read(tmp_path / "own.keras")
    assert stored.network.layers == network.layers
    assert digest(stored.network) == digest(network)
    assert parameters.digest(canonical(stored, values)) == parameters.digest(drawn)


def test_statistics_that_a_layer_was_adapted_to_are_read(keras: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((20, 28, 28, 2), np.float32) * np.float32(255)
    adapted = keras.layers.Normalization()
    adapted.adapt(pixels)
    model = keras.Sequential([keras.Input((28, 28, 2)), adapted, keras.layers.Flatten(), keras.layers.Dense(3)])
    for path in (tmp_path / "model.keras", tmp_path / "model.h5"):
        model.save(path)
        assert error_of(model, path, 255) < 2e-6
        assert not any("normalization" in name for name in read(path)[0].tensors)


# Weights alone


def test_weights_alone_come_in_the_order_of_their_numbers(keras: Any, tmp_path: Path) -> None:
    model = build(keras, f"{', '.join(['Conv2D(2, 1)'] * 12)}, Dropout(0.5), Flatten(), Dense(4), Dense(3)")
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    model.save_weights(tmp_path / "model.weights.h5")
    stored, values = read(tmp_path / "model.weights.h5")
    assert stored.network is None
    assert stored.is_ordered
    assert list(values)[:4] == ["layers/conv2d/vars/0", "layers/conv2d/vars/1", "layers/conv2d_1/vars/0",
                                "layers/conv2d_1/vars/1"]
    assert [value.tobytes() for value in values.values()] == [value.tobytes() for value in model.get_weights()]


@pytest.mark.parametrize("arguments", ["scale=False", "center=False", "scale=False, center=False"])
def test_batch_normalization_without_all_variables_needs_its_description(keras: Any, arguments: str,
                                                                         tmp_path: Path) -> None:
    build(keras, f"Conv2D(4, 3), BatchNormalization({arguments}), {END}").save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(ParametersError, match="gamma or beta is not one; save it again with"):
        read(tmp_path / "w.weights.h5")


def test_the_order_of_nested_models_is_not_in_weights_alone(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    ordered = keras.Sequential([keras.Input((28, 28, 1)), keras.Sequential([layers.Conv2D(2, 3), layers.Flatten()]),
                                keras.Sequential([layers.Dense(3)])])
    for model, is_ordered in ((nested(keras), False), (base_and_head(keras), False), (ordered, True)):
        model.save_weights(tmp_path / "model.weights.h5")
        assert read(tmp_path / "model.weights.h5")[0].is_ordered == is_ordered


def test_a_subclassed_model_is_read_without_a_network(keras: Any, tmp_path: Path) -> None:
    class Book(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.net = keras.Sequential([conv(keras), keras.layers.Flatten(), keras.layers.Dense(3)])

        def call(self, x: Any) -> Any:
            return self.net(x)

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.z, self.y, self.first = conv(keras), conv(keras), conv(keras)

        def call(self, x: Any) -> Any:
            return self.z(self.y(self.first(x)))

    for make, is_ordered in ((Book, True), (Net, False)):
        model = make()
        model(np.zeros((1, 28, 28, 1), np.float32))
        for path in (tmp_path / "model.keras", tmp_path / "model.weights.h5"):
            (model.save if path.suffix == ".keras" else model.save_weights)(path)
            stored, values = read(path)
            assert stored.network is None
            assert stored.is_ordered == is_ordered
            assert "could not be checked" in stored.notes[0]
            assert {value.tobytes() for value in values.values()} == {value.tobytes() for value in model.get_weights()}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes_are_kept(keras: Any, dtype: str, tmp_path: Path) -> None:
    layers = [keras.layers.Conv2D(2, 3, dtype=dtype), keras.layers.Flatten(), keras.layers.Dense(3, dtype=dtype)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    for path in (tmp_path / "model.keras", tmp_path / "model.h5", tmp_path / "model.weights.h5"):
        (model.save_weights if "weights" in path.name else model.save)(path)
        stored, values = read(path)
        assert {tensor.dtype for tensor in stored.tensors.values()} == {dtype}
        for value, variable in zip(values.values(), model.get_weights()):
            np.testing.assert_array_equal(value, variable.astype("float32") if dtype == "bfloat16" else variable)


# Legacy files of Keras 2, as its versions wrote them


def legacy(config: Any, weights: dict[str, dict[str, np.ndarray]], chunks: bool = False) -> bytes:
    """Return a file of Keras 2: attributes of bytes, optimizer weights, and on request the names in several parts."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        group = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
            file.create_group("optimizer_weights")["v"] = np.ones(3)
            group = file.create_group("model_weights")
        names = np.array([name.encode() for name in weights])
        for number, part in enumerate(np.array_split(names, 2) if chunks else [names]):
            group.attrs[f"layer_names{number}" if chunks else "layer_names"] = part
        for name, values in weights.items():
            layer = group.create_group(name)
            layer.attrs["weight_names"] = np.array([each.encode() for each in values], "S")
            for each, value in values.items():
                layer[each] = value
    return content.getvalue()


RANDOM = np.random.default_rng(0)
KERNEL, BIAS = RANDOM.random((3, 3, 1, 2), np.float32), RANDOM.random(2, np.float32)
FLAT, LAST = RANDOM.random((18, 4), np.float32), RANDOM.random(4, np.float32)
WEIGHTS = {"b": {"b/kernel:0": KERNEL, "b/bias:0": BIAS}, "flatten_1": {},
           "a": {"a_1/kernel:0": FLAT, "a_1/bias:0": LAST}}
LAYERS = [("Conv2D", {"name": "b", "filters": 2, "kernel_size": [3, 3], "activation": "relu", "padding": "valid",
                      "batch_input_shape": [None, 5, 5, 1], "data_format": "channels_last"}),
          ("Flatten", {"name": "flatten_1"}), ("Dense", {"name": "a", "units": 4, "activation": "linear"})]
NETWORK = Network("net", (1, 5, 5), (Conv2d("conv1", 2, 3), Flatten("flatten"), Dense("fc2", 4)))
SEQUENTIAL = [{"class_name": kind, "config": config} for kind, config in LAYERS]
MODEL = {"name": "m", "output_layers": [["a", 0, 0]], "layers": [
    {"class_name": "InputLayer", "name": "in", "config": {"name": "in", "batch_input_shape": [None, 5, 5, 1]},
     "inbound_nodes": []},
    *({"class_name": kind, "name": config["name"], "config": config, "inbound_nodes": [[[before, 0, 0, {}]]]}
      for (kind, config), before in zip(LAYERS, ("in", "b", "flatten_1")))]}


@pytest.mark.parametrize("chunks", [False, True])
@pytest.mark.parametrize("config", [{"class_name": "Sequential", "config": SEQUENTIAL},
                                    {"class_name": "Sequential", "config": {"name": "s", "layers": SEQUENTIAL}},
                                    {"class_name": "Model", "config": MODEL}], ids=["list", "Sequential", "Model"])
def test_files_of_keras_2_are_read(config: Any, chunks: bool) -> None:
    stored, values = read(legacy(config, WEIGHTS, chunks))
    assert digest(stored.network) == digest(NETWORK)
    assert stored.names == {"conv1.weight": "b/b/kernel:0", "conv1.bias": "b/b/bias:0", "fc2.weight": "a/a_1/kernel:0",
                            "fc2.bias": "a/a_1/bias:0"}
    assert [value.tobytes() for value in values.values()] == [value.tobytes() for value in (KERNEL, BIAS, FLAT, LAST)]


@pytest.mark.parametrize("chunks", [False, True])
def test_weights_alone_of_keras_2_come_in_the_order_of_the_layers(chunks: bool) -> None:
    stored, values = read(legacy(None, WEIGHTS, chunks))
    assert stored.network is None
    assert stored.is_ordered
    assert list(values) == ["b/b/kernel:0", "b/b/bias:0", "a/a_1/kernel:0", "a/a_1/bias:0"]
    inner = {"inner": {"y/kernel:0": KERNEL, "x/kernel:0": KERNEL}}
    assert not read(legacy(None, inner))[0].is_ordered  # one of them may be frozen


@pytest.mark.parametrize(("change", "message"), [
    (lambda weights: weights["b"].pop("b/bias:0"), "layer `b` .* has 0 variables named bias"),
    (lambda weights: weights["b"].update({"c/bias:0": BIAS}), "layer `b` .* has 2 variables named bias"),
    (lambda weights: weights["b"].update({"b/bias:0": LAST}), r"layer `b` .* bias of shape \(4,\), not \(2,\)"),
    (lambda weights: weights.pop("a"), "has no 'a'"),
])
def test_weights_that_do_not_fit_the_description_are_refused(change: Any, message: str) -> None:
    weights = {name: dict(values) for name, values in WEIGHTS.items()}
    change(weights)
    with pytest.raises(ParametersError, match=message):
        read(legacy({"class_name": "Sequential", "config": SEQUENTIAL}, weights))


# Bad files


def keras_3(config: Any = None, damage: Any = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a `.keras` file. `damage` receives the file of weights without the first kernel."""
    weights, content = io.BytesIO(), io.BytesIO()
    with h5py.File(weights, "w") as file:
        for name, value in (("conv2d/vars/1", BIAS), ("dense/vars/0", FLAT), ("dense/vars/1", LAST)):
            file[f"layers/{name}"] = value
        (damage or write_kernel)(file)
    with zipfile.ZipFile(content, "w", compression) as archive:
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config or DESCRIPTION))
        archive.writestr("model.weights.h5", weights.getvalue())
    return content.getvalue()


DESCRIPTION = {"class_name": "Sequential", "module": "keras", "config": {"name": "s", "layers": SEQUENTIAL}}
FIRST = "layers/conv2d/vars/0"


def write_kernel(file: Any) -> None:
    file[FIRST] = KERNEL


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_file_is_read_without_keras(compression: int) -> None:
    stored, values = read(keras_3(compression=compression))
    assert digest(stored.network) == digest(NETWORK)
    assert values[stored.names["conv1.weight"]].tobytes() == KERNEL.tobytes()


def link_to(link: Any) -> Any:
    def damage(file: Any) -> None:
        file["other"] = KERNEL
        file[FIRST] = link
    return damage


def store_outside(file: Any) -> None:
    file.create_dataset(FIRST, KERNEL.shape, "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def refer_outside(file: Any) -> None:
    layout = h5py.VirtualLayout(KERNEL.shape, "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", KERNEL.shape)
    file.create_virtual_dataset(FIRST, layout)


def claim_exabytes(file: Any) -> None:
    dataset = file.create_dataset(FIRST, (2**20,) * 3, "f4", chunks=(8, 8, 8), compression="gzip")
    dataset[0, 0, 0] = 1


@pytest.mark.parametrize("config", [None, {"class_name": "Net", "module": None}], ids=["described", "alone"])
@pytest.mark.parametrize(("damage", "message"), [
    (link_to(h5py.SoftLink("/other")), "has a link at"), (link_to(h5py.ExternalLink("a.h5", "x")), "has a link at"),
    (store_outside, "in another file"), (refer_outside, "in another file"),
    (lambda file: file.create_dataset(FIRST, KERNEL.shape, "f4"), "only a part of"),
    (lambda file: file.create_dataset(FIRST, KERNEL.shape, "f4", compression="gzip"), "only a part of"),
    (lambda file: file.create_dataset(FIRST, data=h5py.Empty("f4")), "no array at"),
    (claim_exabytes, r"of shape \(1048576, 1048576, 1048576\)|cannot be read"),
], ids=["soft link", "external link", "external", "virtual", "unwritten", "unwritten chunks", "empty", "exabytes"])
def test_damaged_variables_are_refused(damage: Any, message: str, config: Any) -> None:
    with pytest.raises(ParametersError, match=message):
        read(keras_3(config, damage))


def test_a_group_in_the_place_of_a_variable_is_refused() -> None:
    with pytest.raises(ParametersError, match="has no array at '/layers/conv2d/vars/0'"):
        read(keras_3(damage=lambda file: file.create_group(FIRST)))


def test_a_cycle_of_groups_is_refused() -> None:
    def damage(file: Any) -> None:
        for name in ("layers/a", "layers/b", "layers/conv2d/c"):
            file[name] = file["layers"]
    with pytest.raises(ParametersError, match="too many groups"):
        read(keras_3({"class_name": "Net"}, damage))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        with archive.open("model.weights.h5", "w", force_zip64=True) as member:
            for _ in range(65):
                member.write(bytes(2**20))
    with pytest.raises(ParametersError, match=r"claims 68,157,440 bytes for model\.weights\.h5"):
        read(tmp_path / "model.keras")


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" * 9, b"PK\x03\x04", b"\x80\x04\x95"])
def test_other_content_is_refused(content: bytes) -> None:
    with pytest.raises(ParametersError, match="cannot be read as a file of Keras"):
        read(content)


def with_last(**arguments: Any) -> str:
    last = {"class_name": "Dense", "config": {"name": "a", **arguments}}
    return json.dumps({"class_name": "Sequential", "config": {"layers": [*SEQUENTIAL[:2], last]}})


@pytest.mark.parametrize(("config", "message"), [
    ("[", "cannot be read as a file of Keras"), ("[1]", "damaged description"), ("[" * 100_000, "nested too deeply"),
    ('{"class_name": "Sequential"}', "damaged description"),
    ('{"class_name": "Sequential", "config": {"layers": []}}', "input shape None"),
    ('{"class_name": "Functional", "config": {"layers": [], "output_layers": ["a", 0, 0]}}', "not a chain"),
    (json.dumps({"class_name": "Sequential", "config": {"layers": SEQUENTIAL[:1] * 2}}), "`b` .* name of another"),
    (json.dumps({"class_name": "Sequential", "config": {"layers": [
        SEQUENTIAL[0], *({"class_name": "ReLU", "config": {"name": str(number)}} for number in range(100_000))]}}),
     "more than 1,000 layers"),
    (with_last(units="4"), "layer `a` .*'4'"), (with_last(units=5), "layer `a` .*shape"),
    (with_last(units=4, new=1), "layer `a` .*new=1"), (with_last(), "layer `a` .*'units'"),
    (with_last(units=4, dtype={"class_name": "QuantizedDTypePolicy"}), "layer `a` .*before it is quantized"),
])
def test_damaged_descriptions_are_refused(config: str, message: str) -> None:
    with pytest.raises(ParametersError, match=message):
        read(keras_3(config))


def test_a_truncated_file_is_refused() -> None:
    for content in (keras_3(), legacy(None, WEIGHTS)):
        for size in range(1, len(content), 97):
            with pytest.raises(ParametersError):
                read(content[:size])


JSON = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([2**40, 0.5, 1e308, "", "same"]),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
                    max_leaves=4)


def places(value: Any) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *place) for key, inner in items for place in places(inner))]


def check_one_line(content: bytes) -> None:
    """Check that a file is read or refused in one short line."""
    try:
        stored, _ = read(content)
    except ParametersError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1000
    else:
        assert stored.network is None or {*stored.names} == {*parameters.shapes(stored.network)}


@settings(max_examples=100)
@given(st.data())
def test_a_damaged_description_is_read_or_refused(data: Any) -> None:
    models = DESCRIPTION, {"class_name": "Model", "config": MODEL}
    model = json.loads(json.dumps(data.draw(st.sampled_from(models))))
    *place, last = data.draw(st.sampled_from(places(model)[1:]))
    parent = model
    for key in place:
        parent = parent[key]
    parent[last] = data.draw(JSON)
    check_one_line(keras_3(json.dumps(model)))


@settings(max_examples=100)
@given(st.data())
def test_damaged_bytes_are_read_or_refused(data: Any) -> None:
    content = bytearray(legacy({"class_name": "Sequential", "config": SEQUENTIAL}, WEIGHTS))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 5))
        content[at:at + 4] = data.draw(st.binary(min_size=1, max_size=4))
    check_one_line(bytes(content))


# SavedModel and checkpoints


def test_the_remedy_for_a_saved_model_works(keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.z, self.a = keras.layers.Dense(3), conv(keras)

        def call(self, x: Any) -> Any:
            return self.z(keras.ops.reshape(self.a(x), (-1, 784 * 8)))

    model = Net()
    expected = [*model(np.zeros((1, 28, 28, 1), np.float32)), *model.get_weights()][1:]
    model.export(tmp_path / "saved", verbose=False)
    with pytest.raises(ParametersError, match="is a SavedModel") as error:
        tensorflow.refuse(tmp_path / "saved")
    monkeypatch.chdir(tmp_path)
    exec(str(error.value).partition("with: ")[2], {})
    with np.load("weights.npz") as arrays:
        assert [name.rpartition("/")[2] for name in arrays] == ["kernel", "bias"] * 2
        assert [name.partition("/")[0] for name in arrays] == ["1", "1", "2", "2"]
        assert {value.tobytes() for value in arrays.values()} == {value.tobytes() for value in expected}
        assert [value.ndim for value in arrays.values()] == [4, 1, 2, 1]  # in the order of computation


@pytest.mark.parametrize("name", ["saved", "saved/checkpoint", "saved/ckpt-1", "saved/ckpt-1.index",
                                  "saved/ckpt-1.meta", "saved/ckpt-1.data-00000-of-00001"])
def test_a_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    for part in ("checkpoint", "ckpt-1.index", "ckpt-1.meta", "ckpt-1.data-00000-of-00001"):
        (tmp_path / "saved" / part).write_bytes(b"0")
    with pytest.raises(ParametersError, match="is a checkpoint of TensorFlow"):
        conversion.read(tmp_path / name)


@pytest.mark.parametrize("name", [".", "", "/", ".index", "checkpoint", "no/checkpoint", "w.safetensors", "images",
                                  "a" * 300])
def test_other_paths_are_no_checkpoints(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    for file in ("images.index", "w.safetensors", "w.safetensors.index", "w.safetensors.data-00000-of-00001"):
        (tmp_path / file).write_bytes(b"0")
    (tmp_path / "w.safetensors.data-00000-of-00001").rename(tmp_path / "data")
    tensorflow.refuse(Path(name))


@pytest.mark.parametrize("name, is_compiled", [("saved", True), ("saved/ckpt-1.index", False)])
def test_the_remedies_for_a_checkpoint_work(keras: Any, name: str, is_compiled: bool, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """More than ten layers, whose numbers do not sort by letters. Of a compiled model, the optimizer hides the names.
    """
    tf = importlib.import_module("tensorflow")
    text = ", ".join(["Conv2D(4, 3, padding='same'), BatchNormalization()"] * 6) + ", " + END
    model = build(keras, text)
    if is_compiled:
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
    tf.train.Checkpoint(model=randomize(model)).save(str(tmp_path / "saved/ckpt"))
    model.save(tmp_path / "expected.keras")
    monkeypatch.chdir(tmp_path)
    expected = conversion.read("expected.keras")
    with pytest.raises(ParametersError, match="is a checkpoint of TensorFlow") as error:
        conversion.read(name)
    with_model, without = (part.partition("write: ")[2] for part in str(error.value).split("; else"))
    exec(with_model, {"model": build(keras, text)})
    assert parameters.digest(conversion.read("model.keras").parameters) == parameters.digest(expected.parameters)
    if not is_compiled:
        exec(without, {})
        alone = conversion.read("weights.npz", net=expected.network)
        assert parameters.digest(alone.parameters) == parameters.digest(expected.parameters)


def test_the_remedy_for_a_checkpoint_with_names_works(keras: Any, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of TensorFlow 1 has the names of variables, and of the momenta of an optimizer."""
    tf = importlib.import_module("tensorflow")
    monkeypatch.chdir(tmp_path)
    values = {"conv1/weights": np.ones((5, 5, 1, 6), np.float32), "conv1/biases": np.ones(6, np.float32),
              "conv1/weights/Momentum": np.zeros((5, 5, 1, 6), np.float32), "global_step": np.zeros((), np.int64)}
    tf.raw_ops.SaveV2(prefix="model.ckpt-7", tensor_names=list(values), shape_and_slices=[""] * len(values),
                      tensors=list(values.values()))
    with pytest.raises(ParametersError, match="is a checkpoint of TensorFlow") as error:
        conversion.read("model.ckpt-7.index")
    exec(str(error.value).rpartition("write: ")[2], {})
    with np.load("weights.npz") as arrays:
        assert {name: value.shape for name, value in arrays.items()} == {
            "conv1/weights": (5, 5, 1, 6), "conv1/biases": (6,)}
