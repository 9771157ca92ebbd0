"""Files of Keras: the described network computes what Keras computes, or is refused by the layer's name."""

from __future__ import annotations

import importlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_mf.backends.numpy import network as reference
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network, arithmetic, digest
from alexnet_mf.spec.layers import (
    AdaptiveAvgPool2d,
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
from alexnet_mf.weights.stored import StoredWeights
from tests.fuzz import bad_files

h5py = pytest.importorskip("h5py")


@pytest.fixture
def keras(requires: Any) -> Any:
    requires("tensorflow")
    return importlib.import_module("keras")


def read(path: Path) -> tuple[StoredWeights, dict[str, np.ndarray]]:
    """Read a file, and load its tensors while it is open."""
    with path.open("rb") as file:
        stored = keras_file.read(file, path)
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
    result = {}
    for name, theirs in stored.names.items():
        value = values[theirs]
        if value.ndim == 4:
            value = np.einsum("hwio->oihw", value)
        elif value.ndim == 2:
            channels, height, width = images.pop() if images else (1, 1, len(value))
            value = np.einsum("hwcu->uchw", value.reshape(height, width, channels, -1)).reshape(value.shape[1], -1)
        result[name] = value
    return result


def outputs(stored: StoredWeights, values: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Return the reference's logits in float64."""
    net = reference.build(stored.network, {name: value.astype(np.float64)
                                           for name, value in canonical(stored, values).items()})
    return list(net.forward(np.moveaxis(pixels, 3, 1).astype(np.float64)))[-1][1]


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


def conv(keras: Any, **arguments: Any) -> Any:
    return keras.layers.Conv2D(8, 3, padding="same", **{"activation": "relu", **arguments})


def nested(keras: Any) -> list[Any]:
    """Return the layers of the report: ordered by path, the first two convolutions were swapped."""
    return [conv(keras), keras.Sequential([conv(keras)]), conv(keras), keras.layers.Flatten(), keras.layers.Dense(10)]


def base_and_head(keras: Any) -> list[Any]:
    inner = keras.Input((26, 26, 4))
    base = keras.Model(inner, conv(keras)(keras.layers.MaxPooling2D()(inner)))
    head = keras.Sequential([keras.layers.Flatten(), keras.Sequential([keras.layers.Dense(9, activation="sigmoid")])])
    base.trainable = False
    return [keras.layers.Conv2D(4, 3), base, head, keras.layers.Dense(5)]


L = "keras.layers"
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
    "normalization": (f"Normalization(mean=[0.3], variance=[0.04]), Conv2D(4, 3), {END}", 1),
    "normalized gray levels": (f"Normalization(mean=70, variance=900, axis=None), Conv2D(4, 3), {END}", 255),
    "rescaling and normalization": (f"Rescaling(1 / 255), Normalization(mean=[0.3], variance=[0.04]), Conv2D(4, 3), "
                                    f"{END}", 255),
}
REFUSED: dict[str, tuple[str, str]] = {
    "tanh": (f"Conv2D(4, 3, activation='tanh', name='c'), {END}", r"layer `c` \(Conv2D\) .*tanh"),
    "elu": (f"Conv2D(4, 3, activation='elu', name='c'), {END}", r"layer `c` \(Conv2D\) .*elu"),
    "leaky ReLU": (f"Conv2D(4, 3), LeakyReLU(0.1, name='a'), {END}", r"layer `a` \(LeakyReLU\) .*leaky_relu"),
    "gelu": ("Flatten(), Dense(4, activation='gelu', name='d'), Dense(3)", r"layer `d` \(Dense\) .*gelu"),
    "same with strides": (f"Conv2D(4, 3, 2, padding='same', name='c'), {END}",
                          r"layer `c` \(Conv2D\) .*\(\(0, 1\), \(0, 1\)\)"),
    "same pooling": (f"MaxPooling2D(3, 2, padding='same', name='p'), {END}",
                     r"layer `p` \(MaxPooling2D\) .*\(\(0, 1\), \(0, 1\)\)"),
    "no bias": (f"Conv2D(4, 3, use_bias=False, name='c'), {END}", r"layer `c` \(Conv2D\) .*bias=False"),
    "batch normalization": (f"Conv2D(4, 3), BatchNormalization(name='b'), {END}", r"layer `b` \(BatchNormalization\)"),
    "softmax": ("Flatten(), Dense(4, activation='softmax', name='d')", r"layer `d` \(Dense\) ends the model with softmax"),
    "softmax as a layer": ("Flatten(), Dense(4), Softmax(name='s')", r"layer `s` \(Softmax\) ends the model"),
    "softmax in the middle": ("Flatten(), Dense(4), Softmax(name='s'), Dense(3)", r"layer `s` .*before the end"),
    "flattening in another order": ("Conv2D(4, 3), Flatten(data_format='channels_first', name='f'), Dense(3)",
                                    r"layer `f` \(Flatten\) has data_format='channels_first'"),
    "permuting": ("Conv2D(4, 3), Permute((3, 1, 2), name='p'), Flatten(), Dense(3)", r"layer `p` \(Permute\) is not"),
    "reshaping": ("Conv2D(4, 3), Reshape((26, 4, 26), name='r'), Flatten(), Dense(3)", r"layer `r` \(Reshape\) is not"),
    "another layer": (f"Conv2D(4, 3), LayerNormalization(name='ln'), {END}", r"layer `ln` \(LayerNormalization\) is not "
                      "supported; supported: Conv2D, Dense,"),
    "cropping at random": (f"RandomCrop(24, 24, name='r'), Conv2D(4, 3), {END}", r"layer `r` \(RandomCrop\) is not"),
    "a depthwise convolution": (f"DepthwiseConv2D(3, name='d'), {END}", r"layer `d` \(DepthwiseConv2D\) is not"),
    "dilation": (f"Conv2D(4, 3, dilation_rate=2, name='c'), {END}", r"layer `c` .*dilation_rate=\[2, 2\]"),
    "a window that is no square": (f"Conv2D(4, (3, 5), name='c'), {END}", r"layer `c` .*kernel_size=\[3, 5\]"),
    "strides that differ": (f"MaxPooling2D(2, (1, 2), name='p'), {END}", r"layer `p` .*strides=\[1, 2\]"),
    "a capped ReLU": (f"Conv2D(4, 3), ReLU(6.0, name='a'), {END}", r"layer `a` \(ReLU\) has max_value"),
    "capped ReLU": (f"Conv2D(4, 3, activation='relu6', name='c'), {END}", r"layer `c` .*activation='relu6'"),
    "ReLU after a mean": (f"Conv2D(4, 3), AveragePooling2D(2), ReLU(name='a'), {END}", r"layer `a` \(ReLU\) applies relu"),
    "two activations": (f"Conv2D(4, 3, activation='relu'), Activation('sigmoid', name='a'), {END}",
                        r"layer `a` \(Activation\) applies sigmoid"),
    "an activation of pixels": (f"ReLU(name='a'), Conv2D(4, 3), {END}", r"layer `a` \(ReLU\) applies relu"),
    "zeros before a maximum": (f"Conv2D(4, 3), ZeroPadding2D(1, name='z'), MaxPooling2D(3), {END}",
                               r"layer `z` \(ZeroPadding2D\) adds zeros that can be the maximum"),
    "more zeros than the window": (f"Conv2D(4, 3, activation='relu'), ZeroPadding2D(3, name='z'), MaxPooling2D(3), {END}",
                                   r"layer `z` \(ZeroPadding2D\) adds zeros that can be the maximum"),
    "zeros before a mean of its own padding": (f"ZeroPadding2D(1, name='z'), AveragePooling2D(3, padding='same'), {END}",
                                               r"layer `z` \(ZeroPadding2D\) adds zeros before"),
    "zeros at the end": ("ZeroPadding2D(1, name='z'), Flatten(), Dense(3)", r"layer `z` \(ZeroPadding2D\) is not direct"),
    "cropping": (f"Cropping2D(((0, 1), (0, 1)), name='c'), Conv2D(4, 3), {END}", r"layer `c` \(Cropping2D\) crops"),
    "cropping at the top": (f"Cropping2D(1, name='c'), Conv2D(4, 3), {END}", r"layer `c` \(Cropping2D\) has cropping="),
    "an unknown range": (f"Normalization(mean=[5], variance=[4], name='n'), Conv2D(4, 3), {END}",
                         r"layer `n` \(Normalization\) does not show whether .*\[0, 1\] or in \[0, 255\]"),
    "rescaling in the middle": (f"Conv2D(4, 3), Rescaling(2, name='r'), {END}", r"layer `r` \(Rescaling\) is not at the"),
    "normalization of columns": (f"Normalization(axis=2, mean=[0.1] * 28, variance=[0.2] * 28, name='n'), {END}",
                                 r"layer `n` \(Normalization\) has axis=\[2\]"),
    "statistics of columns": ("Normalization(name='n'), Permute((1, 3, 2)), Flatten(), Dense(3)", "Permute"),
    "dense on images": ("Dense(3, name='d'), Flatten(), Dense(3)", r"layer `d` \(Dense\) .*takes flat features"),
    "no dense layer": ("Conv2D(4, 3), Flatten()", "the last layer must be a Dense layer"),
}


def build(keras: Any, text: str) -> Any:
    layers = eval(f"[{text}]", dict(vars(keras.layers)))  # noqa: S307: a literal of this file
    return randomize(keras.Sequential([keras.Input((28, 28, 1)), *layers]))


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_described_network_computes_what_keras_computes(keras: Any, name: str, tmp_path: Path) -> None:
    text, largest = SUPPORTED[name]
    model = build(keras, text)
    for path in (tmp_path / "model.keras", tmp_path / "model.h5"):
        model.save(path)
        assert error_of(model, path, largest) < 2e-6


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_spec_cannot_express_is_refused_by_name(keras: Any, name: str, tmp_path: Path) -> None:
    text, message = REFUSED[name]
    model = build(keras, text)
    for path in (tmp_path / "model.keras", tmp_path / "model.h5"):
        model.save(path)
        with pytest.raises(ParametersError, match=message):
            read(path)
