"""Every backend fulfills the contract of `backends/contract.py`."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from alexnet_mf import backends, spec
from alexnet_mf.backends.contract import RATE_INSIDE, RATE_OUTSIDE, Backend, Model, Sgd, Trainer
from alexnet_mf.backends.execution import Execution
from alexnet_mf.errors import BackendUnavailable, DataError
from alexnet_mf.parity.tolerances import relative_l2
from alexnet_mf.spec import Network, arithmetic, layers, with_dropout
from alexnet_mf.spec.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    LocalResponseNorm,
    MaxPool2d,
    Normalize,
)
from alexnet_mf.spec.toml import find_network
from alexnet_mf.spec.zoo import get_network
from alexnet_mf.weights import parameters


@functools.lru_cache(maxsize=1)
def canonical(network: Network) -> parameters.Parameters:
    """Return a network's parameters with random biases, cached for the next test."""
    return parameters.initialize(network, 0, random_biases=True)


@pytest.fixture(scope="module", autouse=True)
def clear_cache():
    yield
    canonical.cache_clear()


def build(backend: Backend, network: Network) -> Model[Any]:
    return backend.build(network, canonical(network), "cpu")


def some_data(network: Network, images: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.random((images, *network.input), np.float32), generator.integers(0, network.classes, images)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy over a batch, in float64, written out."""
    logits = logits.astype(np.float64)
    return float(np.mean([math.log(sum(np.exp(row - row.max()))) - (row[label] - row.max())
                          for row, label in zip(logits, labels)]))


# Parameters


def test_export_gives_the_canonical_parameters_bit_for_bit(backend, small):
    for network in (small, BATCHES):
        exported = build(backend, network).export()
        assert {name: (value.shape, value.dtype) for name, value in exported.items()} == \
            {name: (shape, np.float32) for name, shape in parameters.shapes(network).items()}
        assert parameters.digest(exported) == parameters.digest(canonical(network))


def test_the_model_and_its_export_are_copies(backend, small):
    start = parameters.initialize(small, 0, random_biases=True)
    model = backend.build(small, start, "cpu")
    inputs, labels = some_data(small, 3)
    data = model.place(inputs, labels)
    before = model.logits(data, 3)
    exported = model.export()
    for value in (*start.values(), *exported.values(), inputs):
        value[:] = 0
    assert_array_equal(model.logits(data, 3), before)
    exported = model.export()
    model.trainer(Sgd(0.1), 0).step(data, np.arange(3), 0)
    assert parameters.digest(model.export()) != parameters.digest(canonical(small))
    assert parameters.digest(exported) == parameters.digest(canonical(small)), "a later step changed the export"


def test_two_models_are_independent(backend, small):
    one, other = build(backend, small), build(backend, small)
    one.trainer(Sgd(0.1), 0).step(one.place(*some_data(small, 4)), np.arange(4), 0)
    assert parameters.digest(one.export()) != parameters.digest(canonical(small))
    assert parameters.digest(other.export()) == parameters.digest(canonical(small))


# The layer table


def assert_rows_agree_with_the_arithmetic(rows, network: Network, channels_last: bool) -> None:
    shapes = arithmetic.output_shapes(network)
    assert [row.name for row in rows] == [layer.name for layer in network.layers]
    assert {row.name: row.shape for row in rows} == {name: (1, *shape) for name, shape in shapes.items()}
    assert {row.name: row.parameters for row in rows} == arithmetic.parameter_counts(network)
    for row in rows:
        native = row.shape
        if channels_last and len(native) == 4:
            native = (native[0], native[2], native[3], native[1])
        assert row.native_shape == native, row.name
        assert row.native


def test_describe_agrees_with_the_arithmetic(backend, small):
    """An oblong network shows if height and width are swapped."""
    oblong = Network("oblong", (2, 12, 20), (
        Conv2d("conv1", channels=3, kernel=3, padding=1), MaxPool2d("pool1", kernel=3, stride=2), Flatten("flatten"),
        Dense("fc2", units=4)))
    for network in (small, oblong, BATCHES):
        assert_rows_agree_with_the_arithmetic(build(backend, network).describe(), network, backend.name == "tensorflow")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["alexnet", "alexnet-tab"])
def test_alexnet_has_the_shapes_and_parameters_of_the_spec(backend, name):
    """The layers have the chapter's shapes, and the export returns the parameters from the backend's own layout."""
    network = find_network(name, backend.name)
    model = build(backend, network)
    rows = model.describe()
    assert [row.name for row in rows] == [
        "conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "flatten", "fc6", "drop6", "fc7",
        "drop7", "fc8"]
    assert sum(row.parameters for row in rows) == 46_764_746
    assert rows[7].shape == (1, 256, 5, 5)
    assert rows[7].native_shape == ((1, 5, 5, 256) if backend.name == "tensorflow" else (1, 256, 5, 5))
    assert_rows_agree_with_the_arithmetic(rows, network, backend.name == "tensorflow")
    assert parameters.digest(model.export()) == parameters.digest(canonical(network))


def test_the_layer_table_names_the_native_classes(backend, small):
    rows = {row.name: row.native for row in build(backend, small).describe()}
    assert (rows["conv1"], rows["pool1"], rows["flatten"], rows["fc4"]) == {
        "torch": ("Conv2d + ReLU", "MaxPool2d", "Flatten", "Linear"),
        "tensorflow": ("ZeroPadding2D + Conv2D", "MaxPooling2D", "Flatten", "Dense"),
        "mxnet": ("Conv2D", "MaxPool2D", "(flattened by Dense)", "Dense"),
        "numpy": ("conv2d + relu", "max_pool", "flatten", "dense"),
    }[backend.name]


@pytest.mark.parametrize("padding, native", [
    (((1, 1), (2, 2)), ("Conv2d + ReLU", "ZeroPadding2D + Conv2D", "Conv2D", "conv2d + relu")),
    (((0, 1), (0, 1)), ("ZeroPad2d + Conv2d + ReLU", "Conv2D", "Pad + Conv2D", "conv2d + relu")),
    (((1, 0), (1, 2)), ("ZeroPad2d + Conv2d + ReLU", "ZeroPadding2D + Conv2D", "Pad + Conv2D", "conv2d + relu"))])
def test_a_padding_is_part_of_its_layer(backend, padding, native):
    """The second one is TensorFlow's `same` for even sizes."""
    network = Network("padded", (2, 12, 20), (Conv2d("conv1", channels=3, kernel=3, stride=2, padding=padding),
                                              Flatten("flatten"), Dense("fc2", units=4)))
    rows = build(backend, network).describe()
    assert_rows_agree_with_the_arithmetic(rows, network, backend.name == "tensorflow")
    assert rows[0].native == native[["torch", "tensorflow", "mxnet", "numpy"].index(backend.name)]


@pytest.mark.parametrize("layer, native", [
    (MaxPool2d("pool1", 3, 2, 1), ("MaxPool2d", "LowestPadding2D + MaxPooling2D", "MaxPool2D", "max_pool")),
    (MaxPool2d("pool1", 3, 2, "same"), ("MaxPool2d", "MaxPooling2D", "MaxPool2D", "max_pool")),
    (MaxPool2d("pool1", 2, 1, ((0, 1), (1, 0))), ("ConstantPad2d + MaxPool2d", "LowestPadding2D + MaxPooling2D",
                                                  "Pad + MaxPool2D", "max_pool")),
    (AvgPool2d("pool1", 3, 2, "same"), ("AvgPool2d", "AveragePooling2D", "AvgPool2D", "avg_pool")),
    (AvgPool2d("pool1", 3, 2, 1), ("AvgPool2d", "ZeroPadding2D + PixelAveragePooling2D", "AvgPool2D", "avg_pool")),
    (AvgPool2d("pool1", 3, 2, 1, True), ("AvgPool2d", "ZeroPadding2D + AveragePooling2D", "AvgPool2D", "avg_pool")),
    (AvgPool2d("pool1", 2, 1, "same"), ("ZeroPad2d + PixelAvgPool2d", "AveragePooling2D", "PixelAvgPool2D",
                                        "avg_pool")),
    (AvgPool2d("pool1", 2, 1, "same", True), ("ZeroPad2d + AvgPool2d", "ZeroPadding2D + AveragePooling2D",
                                              "Pad + AvgPool2D", "avg_pool"))], ids=str)
def test_a_pooling_pads_by_itself_where_it_can(backend, layer, native):
    """For even sizes, PyTorch and MXNet round up where TensorFlow pads by `same`."""
    network = Network("padded", (2, 12, 20), (layer, Flatten("flatten"), Dense("fc2", units=4)))
    rows = build(backend, network).describe()
    assert_rows_agree_with_the_arithmetic(rows, network, backend.name == "tensorflow")
    assert rows[0].native == native[["torch", "tensorflow", "mxnet", "numpy"].index(backend.name)]


# Pixels


def exact_pixels(images: np.ndarray, factor: int) -> np.ndarray:
    """Upsample bilinearly (half-pixel centers) in integers, then multiply by float32(1/255) in float32.

    The center of output pixel i lies (2 i + 1 - factor) / (2 factor) input pixels from the center of input pixel 0. All
    weights are integers in units of 1 / (2 factor), and all sums in units of its square; float32 is exact for them.
    """
    def weights(size: int) -> np.ndarray:
        matrix = np.zeros((size * factor, size), np.int64)
        for i in range(size * factor):
            below, share = divmod(2 * i + 1 - factor, 2 * factor)
            matrix[i, min(max(below, 0), size - 1)] += 2 * factor - share
            matrix[i, min(max(below + 1, 0), size - 1)] += share
        return matrix

    total = np.stack([weights(image.shape[0]) @ image.astype(np.int64) @ weights(image.shape[1]).T for image in images])
    assert total.max() < 2**24
    gray = total.astype(np.float32) / np.float32(4 * factor**2)  # a power of two: exact
    return gray[:, np.newaxis] * np.float32(1 / 255)


def test_the_exact_pixels_by_hand():
    """At twice the size, the outer pixels repeat the edge, and the others mix two pixels 3 to 1."""
    image = np.array([[[0, 64], [128, 192]]], np.uint8)
    rows = np.array([0, (3 * 0 + 64) / 4, (0 + 3 * 64) / 4, 64])
    expected = np.stack([rows + 128 * share for share in (0, 1 / 4, 3 / 4, 1)]).astype(np.float32)
    assert_array_equal(exact_pixels(image, 2)[0, 0], expected * np.float32(1 / 255))


def gray_images(seed: int, size: int = 28) -> np.ndarray:
    """Return images: noise, a chessboard, a ramp over all gray levels, and plain ones of 0, 1, 254 and 255."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, size, size), np.uint8)
    chessboard = (np.indices((size, size)).sum(0) % 2 * 255).astype(np.uint8)
    ramp = (np.arange(size * size) % 256).astype(np.uint8).reshape(size, size)
    plain = [np.full((size, size), level, np.uint8) for level in (0, 1, 254, 255)]
    return np.concatenate([noise, np.stack([chessboard, ramp, *plain])])


@pytest.mark.parametrize("factor, height, width", [(1, 28, 28), (2, 28, 28), (4, 28, 28), (8, 28, 28), (4, 7, 5)])
def test_pixels_are_bit_identical_to_the_exact_fraction(backend, factor, height, width):
    network = Network("enlarged", (1, height * factor, width * factor), (Flatten("flatten"), Dense("fc1", units=10)))
    images = gray_images(factor)[:, :height, :width]
    model = build(backend, network)
    pixels = model.pixels(model.place(images, np.zeros(len(images), np.int64)))
    assert pixels.shape == (len(images), *network.input)
    assert pixels.dtype == np.float32
    assert_array_equal(pixels.view(np.uint32), exact_pixels(images, factor).view(np.uint32))
    assert pixels.min() == 0
    assert pixels.max() == np.float32(255) * np.float32(1 / 255)


def test_the_network_receives_the_exact_pixels(backend, small):
    """Images and their exact pixels give the same logits, and the same loss in training."""
    images, labels = gray_images(3), np.arange(10)
    model, other = build(backend, small), build(backend, small)
    as_images, as_pixels = model.place(images, labels), other.place(exact_pixels(images, 1), labels)
    assert_array_equal(model.logits(as_images, 4), other.logits(as_pixels, 4))
    losses = []
    for network, data in ((model, as_images), (other, as_pixels)):
        trainer = network.trainer(Sgd(0.1), 0)
        trainer.step(data, np.array([3, 9, 4]), 0)
        losses.append(trainer.read().losses[0])
    assert losses[0] == losses[1]


def test_float32_inputs_are_used_unchanged(backend, small):
    inputs, labels = some_data(small, 3)
    inputs = inputs * 1000 - 300  # neither scaled nor clipped
    model = build(backend, small)
    assert_array_equal(model.pixels(model.place(inputs, labels)), inputs)


WRONG = {
    "float64": lambda inputs, labels: (inputs.astype(np.float64), labels),
    "int64": lambda inputs, labels: (inputs.astype(np.int64), labels),
    "channels last": lambda inputs, labels: (inputs.transpose(0, 2, 3, 1), labels),
    "float32 without channels": lambda inputs, labels: (inputs[:, 0], labels),
    "another size": lambda inputs, labels: (inputs[..., :27, :27], labels),
    "images of another size": lambda inputs, labels: (np.zeros((3, 27, 27), np.uint8), labels),
    "images in color": lambda inputs, labels: (np.zeros((3, 28, 28, 3), np.uint8), labels),
    "images that are wide and low": lambda inputs, labels: (np.zeros((3, 14, 56), np.uint8), labels),
    "a factor of 14/3": lambda inputs, labels: (np.zeros((3, 6, 6), np.uint8), labels),
    "a factor of 7": lambda inputs, labels: (np.zeros((3, 4, 4), np.uint8), labels),
    "images with the channels first": lambda inputs, labels: (np.zeros((3, 1, 28, 28), np.uint8), labels),
    "oblong images": lambda inputs, labels: (np.zeros((3, 28, 14), np.uint8), labels),
    "fewer labels": lambda inputs, labels: (inputs, labels[:2]),
    "labels in a matrix": lambda inputs, labels: (inputs, labels[:, np.newaxis]),
    "a label of 10": lambda inputs, labels: (inputs, np.array([0, 10, 1])),
    "a label of -1": lambda inputs, labels: (inputs, np.array([0, -1, 1])),
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_wrong_inputs_are_refused(backend, small, spoil):
    with pytest.raises(DataError):
        build(backend, small).place(*spoil(*some_data(small, 3)))


def test_a_factor_of_16_is_refused(backend):
    """The weights would be finer than 1/16, and the pixels would depend on the order of the sums."""
    network = Network("x16", (1, 16, 16), (Flatten("flatten"), Dense("fc1", units=10)))
    with pytest.raises(DataError):
        build(backend, network).place(np.zeros((2, 1, 1), np.uint8), np.zeros(2, np.int64))


# Outputs


def assert_matches_reference(model: Model[Any], inputs: np.ndarray, labels: np.ndarray) -> None:
    """Check a model's outputs, loss, gradients and one training step against the reference."""
    start = canonical(model.network)
    reference = backends.load("numpy").build(model.network, start)
    data, expected_data = model.place(inputs, labels), reference.place(inputs, labels)
    outputs, expected = model.outputs(data), reference.outputs(expected_data)
    assert list(outputs) == list(expected)
    for name, value in outputs.items():
        assert relative_l2(value, expected[name]) < 2e-6, name
    (loss, gradients), (expected_loss, expected) = model.gradients(data), reference.gradients(expected_data)
    assert loss == pytest.approx(expected_loss, rel=5e-6)
    assert list(gradients) == parameters.trained(model.network)
    for name, value in gradients.items():
        assert relative_l2(value, expected[name]) < 1e-5, name
    for each, batch in ((model, data), (reference, expected_data)):
        each.trainer(Sgd(0.5), 0).step(batch, np.arange(len(labels)), 0)
    for name, value in model.export().items():
        assert relative_l2(value - start[name], reference.parameters[name] - start[name]) < 1e-4, name


@pytest.mark.parametrize("backend_name", backends.FRAMEWORKS, indirect=True)
@pytest.mark.parametrize("layer", [
    Conv2d("conv1", channels=4, kernel=3, stride=2, padding=1), Conv2d("conv1", channels=4, kernel=5, padding=2),
    Conv2d("conv1", channels=4, kernel=3, stride=2, padding="same"),
    Conv2d("conv1", channels=4, kernel=4, padding="same"),
    Conv2d("conv1", channels=4, kernel=3, stride=2, padding=((1, 0), (2, 1))),
    Conv2d("conv1", channels=4, kernel=5, padding=((0, 0), (3, 2))),
    Conv2d("conv1", channels=4, kernel=2, stride=3, padding=((0, 1), (0, 1))),
    Conv2d("conv1", channels=4, kernel=1, stride=2, padding=((0, 1), (1, 2))),
    Conv2d("conv1", channels=4, kernel=4, padding=2), Conv2d("conv1", channels=4, kernel=3, padding=2),
    Conv2d("conv1", channels=4, kernel=1, stride=2), Conv2d("conv1", channels=4, kernel=3, activation="sigmoid"),
    Conv2d("conv1", channels=4, kernel=3, padding=1, activation=None)], ids=str)
def test_every_convolution_matches_the_reference(backend, layer):
    """On an odd or oblong image, `same` often differs from the padding, and a backend must not use it then."""
    network = Network("convolution", (2, 12, 9), (
        layer, MaxPool2d("pool1", kernel=2, stride=1), Flatten("flatten"), Dropout("drop2", rate=0),
        Dense("fc2", units=5, activation="sigmoid"), Dense("fc3", units=4)))
    assert_matches_reference(build(backend, network), *some_data(network, 3))


# Enough channels for the frameworks' fast code: from 16 on oneDNN uses other kernels, and MXNet's own LRN is wrong.
COMBINATIONS = {
    "groups and LRN": (
        Conv2d("conv1", channels=32, kernel=5, stride=2, padding=2, groups=2),
        LocalResponseNorm("norm1", size=5, alpha=0.1, beta=0.75, k=2.0), MaxPool2d("pool1", kernel=3, stride=2),
        Conv2d("conv2", channels=48, kernel=3, padding=1, groups=4),
        LocalResponseNorm("norm2", size=3, alpha=0.5, beta=0.5, k=1.0)),
    "padded unevenly": (
        Conv2d("conv1", channels=32, kernel=3, stride=2, padding="same"),
        Conv2d("conv2", channels=32, kernel=5, padding=((0, 1), (3, 2)), groups=2),
        Conv2d("conv3", channels=32, kernel=3, stride=2, padding=((1, 0), (2, 1)))),
    "LRN of the paper": (
        Conv2d("conv1", channels=16, kernel=3), LocalResponseNorm("norm1", size=5, alpha=1e-4, beta=0.75, k=2.0),
        Conv2d("conv2", channels=16, kernel=1, stride=2, groups=2)),
    "each channel alone": (
        LocalResponseNorm("norm1", size=1, alpha=0.3, beta=1.0, k=0.5),
        Conv2d("conv1", channels=16, kernel=3, stride=3, padding=1, groups=4, activation="sigmoid")),
    "more neighbors than channels": (
        Conv2d("conv1", channels=3, kernel=2), LocalResponseNorm("norm1", size=9, alpha=0.3, beta=0.75, k=1.0)),
    "average pooling": (
        AvgPool2d("pool1", kernel=2, stride=2), Conv2d("conv2", channels=16, kernel=3),
        AvgPool2d("pool2", kernel=3, stride=1)),
    "padded poolings": (
        MaxPool2d("pool0", kernel=3, stride=2, padding=1), Conv2d("conv1", channels=16, kernel=2, activation=None),
        MaxPool2d("pool1", kernel=3, stride=1, padding="same"), Conv2d("conv2", channels=16, kernel=1, activation=None),
        AvgPool2d("pool2", kernel=3, stride=2, padding=1), Conv2d("conv3", channels=16, kernel=1, activation=None),
        AvgPool2d("pool3", kernel=3, stride=1, padding=1, count_padding=True)),
    "poolings that round up": (
        Conv2d("conv1", channels=16, kernel=2, activation=None),
        MaxPool2d("pool1", kernel=3, stride=2, padding=((0, 1), (0, 0))), Conv2d("conv2", channels=16, kernel=2),
        AvgPool2d("pool2", kernel=3, stride=2, padding=((0, 1), (0, 0)))),
    "unevenly padded poolings": (
        Conv2d("conv1", channels=16, kernel=2, activation=None),
        MaxPool2d("pool1", kernel=2, stride=1, padding=((1, 0), (0, 1))), Conv2d("conv2", channels=16, kernel=1),
        AvgPool2d("pool2", kernel=2, stride=1, padding="same"), Conv2d("conv3", channels=16, kernel=1, activation=None),
        AvgPool2d("pool3", kernel=4, stride=3, padding=((3, 0), (1, 2)), count_padding=True),
        Conv2d("conv4", channels=16, kernel=1, activation=None),
        MaxPool2d("pool4", kernel=4, stride=1, padding=((3, 1), (0, 3)))),
    "a maximum of more than the image": (
        Conv2d("conv1", channels=16, kernel=5, stride=6), MaxPool2d("pool1", 5, 4, padding=((1, 2), (1, 2)))),
    "a mean of more than the image": (
        Conv2d("conv1", channels=16, kernel=5, stride=6), AvgPool2d("pool1", 5, 4, padding=((1, 2), (1, 2)))),
    "areas that divide": (Conv2d("conv1", channels=16, kernel=2, padding=1), AdaptiveAvgPool2d("areas", size=5)),
    "areas that overlap": (Conv2d("conv1", channels=16, kernel=2), AdaptiveAvgPool2d("areas", size=4)),
    "more areas than pixels": (Conv2d("conv1", channels=4, kernel=7), AdaptiveAvgPool2d("areas", size=15)),
    "ELU": (
        Conv2d("conv1", channels=32, kernel=3, activation="elu"), MaxPool2d("pool1", kernel=2, stride=2),
        Conv2d("conv2", channels=16, kernel=3, groups=2, activation="elu", alpha=0.5)),
    "leaky ReLU": (
        Conv2d("conv1", channels=32, kernel=3, activation="leaky_relu", alpha=0.1),
        MaxPool2d("pool1", kernel=2, stride=2),
        Conv2d("conv2", channels=16, kernel=3, groups=2, activation="leaky_relu", alpha=0.3)),
    "GELU": (
        Conv2d("conv1", channels=32, kernel=3, activation="gelu"), MaxPool2d("pool1", kernel=2, stride=2),
        Conv2d("conv2", channels=16, kernel=3, groups=2, activation="gelu")),
    "approximate GELU": (
        Conv2d("conv1", channels=32, kernel=3, activation="gelu_tanh"), MaxPool2d("pool1", kernel=2, stride=2),
        Conv2d("conv2", channels=16, kernel=3, groups=2, activation="gelu_tanh")),
    "without biases": (
        Conv2d("conv1", channels=32, kernel=3, bias=False), MaxPool2d("pool1", kernel=2, stride=2),
        Conv2d("conv2", channels=16, kernel=3, groups=2, activation="gelu", bias=False)),
    "tanh": (
        Conv2d("conv1", channels=32, kernel=3, activation="tanh"), MaxPool2d("pool1", kernel=2, stride=2),
        Conv2d("conv2", channels=16, kernel=3, groups=2, activation="tanh")),
    "batch normalization": (
        Conv2d("conv1", channels=32, kernel=3, activation=None, bias=False), BatchNorm("bn1", activation="relu"),
        MaxPool2d("pool1", kernel=2, stride=2), Conv2d("conv2", channels=16, kernel=3),
        BatchNorm("bn2", epsilon=1e-3, momentum=0.3, activation="sigmoid"),
        Conv2d("conv3", channels=16, kernel=1, bias=False), BatchNorm("bn3", activation="leaky_relu", alpha=0.1)),
    "batch normalization of pixels": (
        BatchNorm("bn0", momentum=0.5), Conv2d("conv1", channels=16, kernel=3), BatchNorm("bn1", activation="gelu")),
    "batch normalization after Flatten": (
        Conv2d("conv1", channels=16, kernel=5, stride=3), Flatten("flatten"), BatchNorm("bn2", activation="tanh"),
        Dense("fc3", units=24, bias=False), BatchNorm("bn3", activation="elu", alpha=0.5),
        Dropout("drop3", rate=0.0), BatchNorm("bn4", activation="gelu_tanh")),
    "normalized": (
        Normalize("norm0", mean=(0.5, -0.1, -1e-310, 0.25), std=(0.25, 1.0, 3.0, 0.5)),
        Conv2d("conv1", channels=16, kernel=3)),
    "normalized, then pooled": (
        Normalize("norm0", mean=(0.5,) * 4, std=(0.25,) * 4), AvgPool2d("pool0", kernel=2, stride=2),
        Conv2d("conv1", channels=16, kernel=1, groups=2)),
}


@pytest.mark.parametrize("backend_name", backends.FRAMEWORKS, indirect=True)
@pytest.mark.parametrize("layers", COMBINATIONS.values(), ids=COMBINATIONS)
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "eager"])
def test_every_layer_type_matches_the_reference(backend, layers, compiled):
    is_flat = any(isinstance(layer, Flatten) for layer in layers)
    network = Network("layers", (4, 19, 14), (*layers, *([] if is_flat else [Flatten("flatten")]),
                                              Dense("last", units=5)))
    speed = {"compile": False} if not compiled and backend.name != "torch" else {}
    inputs, labels = some_data(network, 12 if any(isinstance(layer, BatchNorm) for layer in layers) else 3)
    model = backend.build(network, canonical(network), "cpu", Execution(speed=speed))
    assert_matches_reference(model, (inputs - 0.5) * 8, labels)


@pytest.mark.parametrize("backend_name", backends.FRAMEWORKS, indirect=True)
@pytest.mark.parametrize("layer", [
    MaxPool2d("pool1", kernel=3, stride=2, padding=1), MaxPool2d("pool1", kernel=3, stride=2, padding="same"),
    MaxPool2d("pool1", kernel=3, stride=1, padding=((0, 1), (1, 0))),
    MaxPool2d("pool1", kernel=4, stride=2, padding=((3, 1), (0, 3)))], ids=str)
def test_the_first_of_equal_pixels_gets_the_gradient_beside_padding(backend, layer):
    """Black and white images and weights of -1 and 1 give equal sums of different pixels in almost every window."""
    network = Network("ties", (2, 10, 9), (Conv2d("conv1", channels=16, kernel=2), layer, Flatten("flatten"),
                                           Dense("last", units=5)))
    inputs, labels = some_data(network, 3)
    start = {name: np.sign(value) / (100 if name.startswith("last") else 1)
             for name, value in canonical(network).items()}
    gradients, expected = (each.gradients(each.place(inputs.round(), labels))[1]["conv1.weight"]
                           for each in (load.build(network, start) for load in (backend, backends.load("numpy"))))
    assert relative_l2(gradients, expected) < 1e-5


@dataclasses.dataclass(frozen=True)
class UnknownLayer:
    """Layer type unknown to every backend."""

    name: str


def test_an_unknown_layer_type_is_an_error(backend, monkeypatch):
    monkeypatch.setitem(layers.KINDS, "UnknownLayer", UnknownLayer)
    output_shape = layers.output_shape
    for module in (spec.network, arithmetic):
        monkeypatch.setattr(module, "output_shape", lambda layer, shape: (
            shape if isinstance(layer, UnknownLayer) else output_shape(layer, shape)))
    network = Network("unknown", (1, 4, 4), (UnknownLayer("odd"), Flatten("flatten"), Dense("last", units=2)))
    with pytest.raises(TypeError, match=r"UnknownLayer.*odd"):
        model = backend.build(network, canonical(network))
        model.outputs(model.place(*some_data(network, 1)))


def test_logits_do_not_depend_on_the_batch_size(backend, small):
    """The logits equal the last layer's output at every batch size."""
    model = build(backend, small)
    data = model.place(*some_data(small, 7))
    expected = model.outputs(data)["fc4"]
    for batch_size in (3, 1, 7, 100):
        logits = model.logits(data, batch_size)
        assert logits.shape == (7, 10)
        assert relative_l2(logits, expected) < 1e-6


def test_dropout_is_off_in_outputs_logits_and_gradients(backend, small):
    """The results equal those of the same network without dropout."""
    bare = with_dropout(small, 0)
    model, without = build(backend, small), backend.build(bare, canonical(small), "cpu")
    data, data_without = (m.place(*some_data(small, 5)) for m in (model, without))
    outputs = model.outputs(data)
    assert_array_equal(outputs["drop3"], outputs["fc3"])
    assert_array_equal(model.logits(data, 5), without.logits(data_without, 5))
    loss, gradients = model.gradients(data)
    loss_without, gradients_without = without.gradients(data_without)
    assert loss == loss_without
    for name, value in gradients.items():
        assert_array_equal(value, gradients_without[name], err_msg=name)


def test_dropout_stays_off_after_training_steps(backend, small):
    """A training step turns dropout on for itself alone."""
    model = build(backend, small)
    data = model.place(*some_data(small, 5))
    model.trainer(Sgd(0.01), 0).step(data, np.arange(5), 0)
    outputs = model.outputs(data)
    assert_array_equal(outputs["drop3"], outputs["fc3"])
    assert relative_l2(model.logits(data, 5), outputs["fc4"]) < 1e-6
    assert model.gradients(data)[0] == pytest.approx(cross_entropy(outputs["fc4"], some_data(small, 5)[1]), rel=1e-5)


# Batch normalization

BATCHES = Network("batches", (1, 28, 28), (
    Conv2d("conv1", channels=4, kernel=5, stride=3, activation=None, bias=False),
    BatchNorm("bn1", epsilon=1e-3, momentum=0.3), Dropout("drop1", rate=0.2), Flatten("flatten"),
    BatchNorm("bn2", activation="relu"), Dense("fc3", units=10)))


def normalized(x: np.ndarray, layer: BatchNorm, values: parameters.Parameters, *statistics: np.ndarray) -> np.ndarray:
    """Return a batch normalization's output before its activation, in float64."""
    weight, bias, mean, variance = (
        value.astype(np.float64).reshape(-1, *[1] * (x.ndim - 2))
        for value in (values[f"{layer.name}.weight"], values[f"{layer.name}.bias"], *statistics))
    return weight * (x - mean) / np.sqrt(variance + layer.epsilon) + bias


def statistics_of(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    axes = (0, 2, 3) if x.ndim == 4 else 0
    return x.mean(axes, np.float64), x.astype(np.float64).var(axes)


@pytest.mark.parametrize("training", [False, True])
def test_batches_are_normalized_by_the_running_statistics_or_their_own(backend, training):
    model, values = build(backend, BATCHES), canonical(BATCHES)
    outputs = model.outputs(model.place(*some_data(BATCHES, 6)), dropout=(0, 0) if training else None)
    for layer, before in ((BATCHES.layers[1], "conv1"), (BATCHES.layers[4], "flatten")):
        x = outputs[before]
        running = [values[f"{layer.name}.{part}"] for part in ("running_mean", "running_var")]
        expected = normalized(x, layer, values, *(statistics_of(x) if training else running))
        expected = np.maximum(expected, 0) if layer.activation else expected
        assert relative_l2(outputs[layer.name], expected) < 2e-6, layer.name


def test_a_training_step_moves_the_running_statistics(backend):
    """The share `momentum` of the way goes to the batch's mean and to its variance, which is the mean square."""
    model, before = build(backend, BATCHES), canonical(BATCHES)
    inputs, labels = some_data(BATCHES, 9)
    data, rows = model.place(inputs, labels), np.array([7, 2, 3, 5])
    outputs = model.outputs(model.place(inputs[rows], labels[rows]), dropout=(3, 8))
    model.trainer(Sgd(0.1), 3).step(data, rows, 8)
    after = model.export()
    for name, momentum, source in (("bn1", 0.3, "conv1"), ("bn2", 0.1, "flatten")):
        for part, value in zip(("running_mean", "running_var"), statistics_of(outputs[source])):
            expected = (1 - momentum) * before[f"{name}.{part}"].astype(np.float64) + momentum * value
            assert_allclose(after[f"{name}.{part}"], expected, rtol=1e-5, atol=1e-7, err_msg=name)


def test_inference_and_gradients_leave_the_running_statistics(backend):
    model = build(backend, BATCHES)
    data = model.place(*some_data(BATCHES, 6))
    loss, gradients = model.gradients(data)
    model.outputs(data, dropout=(0, 0))
    model.outputs(data)
    model.logits(data, 4)
    assert parameters.digest(model.export()) == parameters.digest(canonical(BATCHES))
    assert set(gradients) == {"conv1.weight", "bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias", "fc3.weight",
                              "fc3.bias"}
    again, same = model.gradients(data)
    assert again == loss
    for name, value in gradients.items():
        assert_array_equal(same[name], value)


def test_logits_after_training_steps_use_the_running_statistics(backend):
    """A new model with the exported parameters gives the same logits, whatever the batch."""
    model = build(backend, BATCHES)
    data = model.place(*some_data(BATCHES, 6))
    trainer = model.trainer(Sgd(0.1, momentum=0.9), 3)
    for step in range(3):
        trainer.step(data, np.arange(6), step)
    other = backend.build(BATCHES, model.export(), "cpu")
    logits = model.logits(data, 6)
    assert relative_l2(logits, other.logits(other.place(*some_data(BATCHES, 6)), 1)) < 1e-6
    assert relative_l2(logits, model.logits(data, 1)) < 1e-6


def test_a_batch_of_one_image_has_no_variance(backend):
    """Each feature is its own mean, so it is normalized to 0, and the output is the bias."""
    model, values = build(backend, BATCHES), canonical(BATCHES)
    data = model.place(*some_data(BATCHES, 1))
    outputs = model.outputs(data, dropout=(0, 0))
    # x scale + (bias - mean scale) is the bias up to rounding, and here the scale is 316, 1 / sqrt(epsilon).
    assert_allclose(outputs["bn2"][0], np.maximum(values["bn2.bias"], 0), atol=2e-4)
    model.trainer(Sgd(0.1), 3).step(data, np.array([0]), 0)
    after = model.export()
    assert all(np.isfinite(value).all() for value in after.values())
    assert_allclose(after["bn2.running_var"], 0.9 * values["bn2.running_var"], rtol=1e-6)


# Dropout masks

DROPS = Network("drops", (1, 28, 28), (
    Flatten("flatten"), Dropout("drop1", rate=0.5), Dropout("drop2", rate=0.2), Dense("fc3", units=10)))


@pytest.fixture
def drops(backend) -> tuple[Model[Any], Any]:
    """Return a model with dropout on its input, and 50 images without zero pixels, whose outputs show the masks."""
    model = build(backend, DROPS)
    inputs, labels = some_data(DROPS, 50)
    return model, model.place(inputs + np.float32(0.5), labels)


def masks(drops, seed: int, step: int) -> dict[str, np.ndarray]:
    model, data = drops
    return {name: value != 0 for name, value in model.outputs(data, dropout=(seed, step)).items() if "drop" in name}


def test_dropout_zeroes_its_share_and_scales_the_rest(drops):
    model, data = drops
    outputs = model.outputs(data, dropout=(0, 0))
    before = outputs["flatten"]
    kept = outputs["drop1"] != 0
    assert abs(kept.mean() - 0.5) < 5 * math.sqrt(0.5 * 0.5 / kept.size)
    assert_allclose(outputs["drop1"][kept], before[kept] / (1 - 0.5), rtol=1e-6)
    both = outputs["drop2"] != 0
    assert abs(both.sum() / kept.sum() - 0.8) < 5 * math.sqrt(0.8 * 0.2 / kept.sum())
    assert_allclose(outputs["drop2"][both], before[both] / (1 - 0.5) / (1 - 0.2), rtol=1e-6)
    assert not (both & ~kept).any()


def test_masks_are_a_function_of_seed_and_step(backend, drops):
    """Other steps, other seeds, training in between or a new model change no mask."""
    model, data = drops
    first = masks(drops, 7, 3)
    masks(drops, 7, 4)
    masks(drops, 8, 3)
    model.trainer(Sgd(0.0), 5).step(data, np.arange(50), 11)
    again = masks(drops, 7, 3)
    fresh = build(backend, DROPS)
    rebuilt = {name: value != 0 for name, value in
               fresh.outputs(fresh.place(*some_data(DROPS, 50)), dropout=(7, 3)).items()}
    for name, mask in first.items():
        assert_array_equal(again[name], mask)
        assert_array_equal(rebuilt[name], mask)


@pytest.mark.parametrize("seed, step", [(7, 4), (8, 3), (3, 7), (7, 2**31)])
def test_masks_of_other_steps_and_seeds_are_independent(drops, seed, step):
    """Masks agree only by chance, even when shifted; MXNet's streams of close seeds agree after a shift."""
    one, other = masks(drops, 7, 3)["drop1"], masks(drops, seed, step)["drop1"]
    for shift in range(200):
        shifted = np.roll(other.ravel(), shift * other.size // 200)
        assert abs((one.ravel() == shifted).mean() - 0.5) < 6 * math.sqrt(0.25 / one.size), shift


def test_two_dropout_layers_have_different_masks(backend):
    """At equal shape and rate, the second mask keeps half of the values that the first keeps."""
    twins = Network("twins", (1, 28, 28), (
        Flatten("flatten"), Dropout("drop1", rate=0.5), Dropout("drop2", rate=0.5), Dense("fc3", units=10)))
    model = build(backend, twins)
    inputs, labels = some_data(twins, 50)
    outputs = model.outputs(model.place(inputs + np.float32(0.5), labels), dropout=(0, 0))
    first, both = outputs["drop1"] != 0, outputs["drop2"] != 0
    assert abs(both.sum() / first.sum() - 0.5) < 5 * math.sqrt(0.25 / first.sum())


def test_images_of_one_batch_have_different_masks(drops):
    mask = masks(drops, 0, 0)["drop1"]
    assert len({row.tobytes() for row in mask}) == len(mask)


def test_a_training_step_uses_the_masks_of_its_seed_and_number(backend, small):
    """The step's loss equals the loss of the outputs with these masks; other masks give another loss."""
    model = build(backend, small)
    inputs, labels = some_data(small, 16)
    data = model.place(inputs, labels)
    expected = {step: cross_entropy(model.outputs(data, dropout=(3, step))["fc4"], labels) for step in (0, 5, 6)}
    trainer = model.trainer(Sgd(0.0), 3)
    for step in (5, 0, 6):
        trainer.step(data, np.arange(16), step)
    assert_allclose(trainer.read().losses, [expected[5], expected[0], expected[6]], rtol=1e-5)
    assert len({round(loss, 4) for loss in expected.values()}) == 3


# Gradients and steps


@pytest.mark.parametrize("activation", [
    {"activation": "relu"}, {"activation": "elu", "alpha": 0.5}, {"activation": "leaky_relu", "alpha": 0.1}], ids=str)
def test_the_slope_jumps_exactly_at_zero(backend, activation):
    """A value however small has the slope of its sign, and zero that of negative values."""
    values = np.array([1, 1e-6, 5e-8, 1e-10, 0, -1e-10, -5e-8, -1], np.float32)
    network = Network("slopes", (1, 1, 8), (
        Flatten("flatten"), Dense("fc1", units=8, **activation), Dense("fc2", units=2)))
    start = {**canonical(network), "fc1.weight": np.eye(8, dtype=np.float32), "fc1.bias": np.zeros(8, np.float32)}
    slopes, expected = (model.gradients(model.place(values.reshape(1, 1, 1, 8), np.array([0])))[1]["fc1.bias"]
                        for model in (backends.load(name).build(network, start) for name in (backend.name, "numpy")))
    assert_allclose(slopes, expected, rtol=1e-4, atol=1e-9)


def test_gradients_are_those_of_the_mean_loss(backend, small):
    """Repeated data give the same gradients, unlike a summed loss. The parameters stay as they were."""
    model, reference = build(backend, small), build(backends.load("numpy"), small)
    inputs, labels = some_data(small, 4)
    loss, gradients = model.gradients(model.place(inputs, labels))
    expected_loss, expected = reference.gradients(reference.place(inputs, labels))
    assert loss == pytest.approx(expected_loss, rel=5e-6)
    for name, value in gradients.items():
        assert relative_l2(value, expected[name]) < 1e-5, name
    doubled_loss, doubled = model.gradients(model.place(np.repeat(inputs, 2, axis=0), np.repeat(labels, 2)))
    assert doubled_loss == pytest.approx(loss, rel=5e-6)
    for name, value in gradients.items():
        assert relative_l2(doubled[name], value) < 1e-5, name
    assert parameters.digest(model.export()) == parameters.digest(canonical(small))


@pytest.mark.parametrize("sgd", [Sgd(0.25), Sgd(0.1, momentum=0.9), Sgd(0.1, weight_decay=0.05),
                                 Sgd(0.1, momentum=0.8, weight_decay=0.05)], ids=str)
def test_momentum_and_weight_decay_follow_their_definition(backend, small, sgd):
    """v = momentum v + g + weight_decay w; w = w - learning_rate v, biases included.

    g is the gradient of the mean over a step's own rows: all eight, then three and four of them out of order.
    """
    network = with_dropout(small, 0)
    model = build(backend, network)
    inputs, labels = some_data(network, 8)
    data, trainer = model.place(inputs, labels), model.trainer(sgd, 0)
    velocity = {name: np.zeros(shape) for name, shape in parameters.shapes(network).items()}
    losses, correct = [], []
    for step, rows in enumerate(map(np.array, ([0, 1, 2, 3, 4, 5, 6, 7], [6, 0, 3], [5, 1, 7, 2]))):
        before, batch = model.export(), model.place(inputs[rows], labels[rows])
        loss, gradients = model.gradients(batch)
        losses.append(loss)
        correct.append((model.logits(batch, 8).argmax(1) == labels[rows]).sum())
        velocity = {name: sgd.momentum * value + gradients[name].astype(np.float64)
                    + sgd.weight_decay * before[name].astype(np.float64) for name, value in velocity.items()}
        trainer.step(data, rows, step)
        for name, value in model.export().items():
            update = -sgd.learning_rate * velocity[name]
            assert np.abs(update).max() > 1e-4, f"{name} hardly moves: the test would show nothing"
            # float32 rounds a weight of 0.3 by up to 2e-8.
            assert_allclose(value.astype(np.float64) - before[name], update, rtol=1e-4, atol=1e-7, err_msg=name)
    metrics = trainer.read()
    assert metrics.losses == pytest.approx(losses, rel=5e-6)
    assert metrics.correct.tolist() == correct


def test_read_returns_one_entry_per_step_and_clears_them(backend, small):
    model = build(backend, small)
    data = model.place(*some_data(small, 12))
    trainer = model.trainer(Sgd(0.01), 0)
    assert (len(trainer.read().losses), len(trainer.read().correct)) == (0, 0)
    for step in range(3):
        trainer.step(data, np.arange(4 * step, 4 * step + 4), step)
    metrics = trainer.read()
    assert metrics.losses.shape == metrics.correct.shape == (3,)
    assert (metrics.losses.dtype, metrics.correct.dtype) == (np.float64, np.int64)
    assert ((0 <= metrics.correct) & (metrics.correct <= 4)).all()
    assert len(trainer.read().losses) == 0
    trainer.step(data, np.arange(5), 3)
    assert len(trainer.read().losses) == 1


# A trainer's state and reproducibility


def some_steps(trainer: Trainer[Any], data: Any, numbers: range) -> list[float]:
    for step in numbers:
        trainer.step(data, np.array([(3 * step + i) % 10 for i in range(7)]), step)
    return trainer.read().losses.tolist()


def test_the_same_seed_gives_the_same_losses_bit_for_bit(backend, small):
    first, again, other = [], [], []
    for losses, seed in ((first, 4), (again, 4), (other, 5)):
        model = build(backend, small)
        losses += some_steps(model.trainer(Sgd(0.05, momentum=0.9), seed), model.place(gray_images(0), np.arange(10)),
                             range(5))
    assert again == first
    assert other[0] != first[0], "dropout is on, and another seed has other masks"


@pytest.mark.parametrize("evaluated", [False, True], ids=["", "evaluated"])
@pytest.mark.parametrize("sgd", [Sgd(0.05), Sgd(0.05, momentum=0.9), Sgd(0.05, momentum=0.8, weight_decay=0.01)],
                         ids=str)
@pytest.mark.parametrize("name", ["small", "batches"])
def test_another_trainer_resumes_with_the_same_bits(backend, small, name, sgd, evaluated):
    """The other model was built on other parameters; inference before the export may rearrange weights."""
    network = small if name == "small" else BATCHES
    model = build(backend, network)
    data = model.place(gray_images(0), np.arange(10))
    trainer = model.trainer(sgd, 4)
    some_steps(trainer, data, range(3))
    if evaluated:
        model.logits(data, 10)
    state = trainer.export_state()
    losses = some_steps(trainer, data, range(3, 6))
    other = backend.build(network, parameters.initialize(network, 1), "cpu")
    resumed = other.trainer(sgd, 4)
    resumed.load_state(state)
    assert some_steps(resumed, other.place(gray_images(0), np.arange(10)), range(3, 6)) == losses
    expected, actual = trainer.export_state(), resumed.export_state()
    assert parameters.digest(actual.parameters) == parameters.digest(expected.parameters)
    assert parameters.digest(actual.velocity) == parameters.digest(expected.velocity)
    assert set(state.velocity) == (set(parameters.trained(network)) if sgd.momentum else set())


def test_the_state_of_a_trainer_is_a_copy(backend, small):
    model = build(backend, small)
    data = model.place(gray_images(0), np.arange(10))
    trainer = model.trainer(Sgd(0.05, momentum=0.9), 4)
    some_steps(trainer, data, range(2))
    state = trainer.export_state()
    digests = parameters.digest(state.parameters), parameters.digest(state.velocity)
    for _ in range(2):
        some_steps(trainer, data, range(2, 3))
        assert (parameters.digest(state.parameters), parameters.digest(state.velocity)) == digests
        trainer.load_state(state)


def test_velocity_follows_the_rule_in_canonical_layout(backend, small):
    """After two steps on the same images, v = m g1 + g2, times the negative learning rate if the rule includes it."""
    model = build(backend, with_dropout(small, 0))
    data = model.place(*some_data(small, 6))
    trainer = model.trainer(Sgd(0.25, momentum=0.5), 0)
    gradients = []
    for step in range(2):
        gradients.append(model.gradients(data)[1])
        trainer.step(data, np.arange(6), step)
    state = trainer.export_state()
    scale = {RATE_OUTSIDE: 1.0, RATE_INSIDE: -0.25}[state.rule]
    for name, velocity in state.velocity.items():
        expected = scale * (0.5 * gradients[0][name].astype(np.float64) + gradients[1][name])
        assert_allclose(velocity, expected, rtol=1e-4, atol=1e-7, err_msg=name)
    assert parameters.digest({name: value.astype(np.float32) for name, value in state.parameters.items()}) == \
        parameters.digest(model.export())


@pytest.mark.exhaustive
@pytest.mark.parametrize("backend_name", backends.FRAMEWORKS, indirect=True)
def test_alexnet_repeats_bit_for_bit(backend):
    """At AlexNet's size, the processor's cores share every sum."""
    network = get_network("alexnet")
    images, labels = np.random.default_rng(0).integers(0, 256, (24, 28, 28), np.uint8), np.arange(24) % 10

    def losses() -> list[float]:
        model = build(backend, network)
        data, trainer = model.place(images, labels), model.trainer(Sgd(0.01, momentum=0.9), 0)
        for step in range(3):
            trainer.step(data, np.arange(8 * step, 8 * step + 8), step)
        return trainer.read().losses.tolist()

    assert losses() == losses()


# Devices


def test_every_backend_has_a_cpu_and_auto_takes_the_best(backend, small):
    names = [device.name for device in backend.devices()]
    assert "cpu" in names
    assert backend.build(small, canonical(small), "cpu").device == "cpu"
    assert backend.build(small, canonical(small), "auto").device == names[0]


@pytest.mark.parametrize("device, fault", [("cuda:99", "no"), ("tpu", "unknown"), ("CPU", "unknown"), ("", "unknown")])
def test_a_device_error_lists_the_devices(backend, small, device, fault):
    with pytest.raises(BackendUnavailable, match=f"{backend.name}: {fault} device '{device}'.*cpu"):
        backend.build(small, canonical(small), device)


def test_the_registry_names_the_default_precision(backend):
    assert backend.precisions("cpu")[0] == backends.BACKENDS[backend.name].precision


def test_versions_and_settings_describe_the_backend(backend):
    framework = backends.BACKENDS[backend.name].framework
    assert backend.versions()[framework].split("+")[0] == backends.framework_version(backend.name).split("+")[0]
    assert all(isinstance(version, str) for version in backend.versions().values())
    assert backend.settings()
