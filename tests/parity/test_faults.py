"""Deliberate faults: each is built into a real network or its training, and the ladder must turn red at the right rung
and the right layer, and name the cause, or admit that it knows none.

`ALEXNET_MF_FAULT_TABLE=FILE pytest tests/parity/test_faults.py` writes the diagnoses as a Markdown table.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traces import PLAIN, assert_green

from alexnet_mf import backends, data, spec
from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.data.preprocessing import PIXEL_SCALE
from alexnet_mf.parity.case import Case, random_case
from alexnet_mf.parity.causes.inputs import IMAGENET
from alexnet_mf.parity.reference import Reference, make_reference
from alexnet_mf.parity.run import compare
from alexnet_mf.parity.trace import trace
from alexnet_mf.spec import Network

# Color, not square; the last pooling hides differences that the strides before it make.
COLOR = Network("color", (3, 23, 26), (
    spec.Conv2d("conv1", channels=4, kernel=3, stride=2, padding=1, activation="sigmoid"),
    spec.MaxPool2d("pool1", kernel=3, stride=2), spec.MaxPool2d("pool2", kernel=3, stride=4), spec.Flatten("flatten"),
    spec.Dense("fc1", units=5)))
# Layers of the 2012 paper and of the LeNet chapter that the networks above lack.
STREAMS = Network("streams", (4, 18, 19), (  # `areas` receives 7x7, which plain pooling makes 3x3 too
    spec.Conv2d("conv1", channels=16, kernel=3, padding=1, groups=2),
    spec.LocalResponseNorm("norm1", size=5, alpha=0.1, beta=0.75, k=2.0), spec.AvgPool2d("pool1", kernel=2, stride=2),
    spec.Conv2d("conv2", channels=16, kernel=3, groups=4), spec.AdaptiveAvgPool2d("areas", size=3),
    spec.Flatten("flatten"), spec.Dense("fc1", units=5)))
# Normalized inputs, as torchvision's weights need them.
NORMALIZED = Network("normalized", (3, 18, 17), (
    spec.Normalize("normalize", *IMAGENET), spec.Conv2d("conv1", channels=6, kernel=3, stride=2),
    spec.Flatten("flatten"), spec.Dense("fc1", units=5)))
# Paddings as TensorFlow and Keras have them: an odd pixel at the end.
PADDED = Network("padded", (3, 24, 26), (
    spec.Conv2d("conv1", channels=4, kernel=3, stride=2, padding="same"),
    spec.Conv2d("conv2", channels=4, kernel=3, padding=((0, 2), (1, 1))), spec.Flatten("flatten"),
    spec.Dense("fc1", units=5)))
# Negative values in front of padded poolings: a padding of zeros would show.
POOLED = Network("pooled", (2, 21, 24), (
    spec.Conv2d("conv1", channels=6, kernel=2, activation=None),
    spec.MaxPool2d("pool1", kernel=3, stride=1, padding=1),
    spec.MaxPool2d("pool2", kernel=3, stride=2, padding=((0, 1), (1, 1))),
    spec.AvgPool2d("pool3", kernel=3, stride=1, padding=1),
    spec.AvgPool2d("pool4", kernel=3, stride=2, padding=1, count_padding=True),
    spec.Flatten("flatten"), spec.Dense("fc1", units=5)))
# Other activations than the networks above have.
CURVES = Network("curves", (2, 14, 13), (
    spec.Conv2d("conv1", channels=6, kernel=3, stride=2, activation="tanh"),
    spec.Conv2d("conv2", channels=8, kernel=2, activation="leaky_relu", alpha=0.1, bias=False),
    spec.Conv2d("conv3", channels=8, kernel=2, activation="elu", alpha=0.5),
    spec.Flatten("flatten"), spec.Dense("fc1", units=8, activation="tanh"),
    spec.Dense("fc2", units=8, activation="gelu"), spec.Dense("fc3", units=8, activation="gelu_tanh"),
    spec.Dense("fc4", units=5)))
BATCHES = Network("batches", (2, 14, 13), (
    spec.Conv2d("conv1", channels=6, kernel=3, stride=2, activation=None, bias=False),
    spec.BatchNorm("bn1", epsilon=1e-3, momentum=0.3, activation="relu"),
    spec.Conv2d("conv2", channels=8, kernel=2), spec.BatchNorm("bn2"), spec.Flatten("flatten"),
    spec.Dense("fc3", units=8, activation="relu"), spec.BatchNorm("bn3", momentum=0.05), spec.Dense("fc4", units=5)))
# Batch normalizations that almost remove each other's weights, whose gradients float32 does not resolve.
STACKED = Network("stacked", (1, 28, 28), (
    spec.BatchNorm("bn0"), spec.Conv2d("conv1", channels=6, kernel=5, stride=2, activation=None, bias=False),
    spec.BatchNorm("bn1", activation="relu"), spec.MaxPool2d("pool1", kernel=2, stride=2), spec.BatchNorm("bn2"),
    spec.Flatten("flatten"), spec.BatchNorm("bn3"), spec.Dropout("drop3", rate=0.3), spec.Dense("fc4", units=10)))
NETWORKS = {network.name: network for network in (PLAIN, COLOR, STREAMS, NORMALIZED, PADDED, POOLED, CURVES, BATCHES,
                                                  STACKED)}

NONE = "none of the usual causes reproduces it"


@dataclass(frozen=True)
class Fault:
    """One fault, and the diagnosis that the ladder must give."""

    part: str
    """Broken part: a `layer` or the whole `model`, after a correct build, or a `module`, before the build."""
    name: str
    backend: str
    rung: str
    """The lowest red rung."""
    where: str
    """The layer, parameter tensor or step that the diagnosis names."""
    cause: str
    """Words of the diagnosis; NONE if it must not name a cause."""
    network: str = "plain"

    def __call__(self, change: Callable[[Any], Any]) -> None:
        """Register the function that breaks the part; it takes the layer `where` names, the model, or a MonkeyPatch."""
        FAULTS.append((self, change))


IMPERATIVE = Execution(speed={"compile": False})
"""No compilation: Gluon's blocks can only be broken if called one by one; TensorFlow would trace a graph per fault."""
FAULTS: list[tuple[Fault, Callable[[Any], Any]]] = []
broken_layer, broken_model, broken_module = (functools.partial(Fault, part) for part in ("layer", "model", "module"))
torch, tf, mx = (functools.partial(importlib.import_module, name) for name in ("torch", "tensorflow", "mxnet"))
"""The frameworks, imported when a fault first uses them."""


def layer_of(model: Any, name: str) -> Any:
    if hasattr(model.net, "get_layer"):
        return model.net.get_layer(name)
    if hasattr(model.net, name):
        return getattr(model.net, name)
    return next(block for block in model.net if block.prefix == f"{name}_")


def attributes(**values: Any) -> Callable[[Any], None]:
    def apply(layer: Any) -> None:
        for name, value in values.items():
            setattr(layer, name, value)
    return apply


def computing(compute: Callable[..., Any]) -> Callable[[Any], None]:
    """Replace a layer's function by `compute`, which takes the layer, its correct function and its inputs."""
    def apply(layer: Any) -> None:
        name = "call" if hasattr(layer, "call") else "forward"
        setattr(layer, name, functools.partial(compute, layer, getattr(layer, name)))
    return apply


def instead(name: str, make: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Replace a backend's function by `make` of the correct one."""
    def apply(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(f"alexnet_mf.backends.{name}", make(pkgutil.resolve_name(f"alexnet_mf.backends.{name}")))
    return apply


@functools.cache
def fault_case(network: str, seed: int = 0) -> Case:
    if network != "plain":
        return random_case(NETWORKS[network], seed, 40)
    images = data.synthetic.draw(seed, train=1, test=48).test
    return Case(NETWORKS[network], seed, images.images, images.labels, "synthetic")


@functools.cache
def reference(network: str, seed: int = 0) -> Reference:
    return make_reference(fault_case(network, seed))


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, ...]]]:
    """Rows of the Markdown table: fault, backend, lowest red rung, diagnosis."""
    rows: list[tuple[str, ...]] = []
    yield rows
    path = os.environ.get("ALEXNET_MF_FAULT_TABLE")
    if path:
        lines = ["# Faults put into the frameworks, and what `parity` says", "",
                 "Written by `ALEXNET_MF_FAULT_TABLE=FILE pytest tests/parity/test_faults.py`.", "",
                 "| fault | backend | lowest red rung | diagnosis |", "|---|---|---|---|"]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


# Pixels


def bilinear(images: Any, size: Any) -> Any:
    """Enlarge images by PyTorch's own interpolation."""
    return torch().nn.functional.interpolate(images, size, mode="bilinear", align_corners=False)


broken_module("pixels enlarged with aligned corners", "mxnet", "pixels", "pixels", "aligned corners")(
    instead("mxnet.trainer.upsample", lambda right: lambda images, size: mx().nd.contrib.BilinearResize2D(
        images.astype("float32"), height=size[0], width=size[1]) * float(PIXEL_SCALE)))
broken_module("nearest pixel instead of bilinear", "tensorflow", "pixels", "pixels", "nearest pixel")(
    instead("tensorflow.trainer.upsample", lambda right: lambda images, size: PIXEL_SCALE * tf().image.resize(
        tf().cast(images, tf().float32), size, "nearest")))
broken_module("pixels divided by 255", "torch", "pixels", "pixels", "a division by 255")(
    instead("torch.trainer.upsample", lambda right: lambda images, size:
            bilinear(images.float(), size) / 255))
broken_module("scaled before enlarging", "torch", "pixels", "pixels", "last bits")(
    instead("torch.trainer.upsample", lambda right: lambda images, size:
            bilinear(images.float() * float(PIXEL_SCALE), size)))
broken_module("enlarged as uint8", "torch", "pixels", "pixels", "rounded to whole gray levels in each direction")(
    instead("torch.trainer.upsample", lambda right: lambda images, size:
            bilinear(images, size).float() * float(PIXEL_SCALE)))
broken_module("pixels normalized", "mxnet", "pixels", "pixels", "normalized by mean 0.5 and deviation 0.5")(
    instead("mxnet.trainer.upsample", lambda right: lambda images, size: (right(images, size) - 0.5) / 0.5))


# Parameters


def flip_a_bit(value: Any) -> Any:
    flipped = value.copy()
    flipped.view(np.uint32)[3, 5] ^= 1
    return flipped


broken_module("one bit of a weight flipped on loading", "tensorflow", "layers and weights", "fc3.weight", NONE)(
    instead("tensorflow.weights.load", lambda right: lambda net, network, parameters: right(
        net, network, {**parameters, "fc3.weight": flip_a_bit(parameters["fc3.weight"])})))
broken_module("a dense weight exported transposed", "torch", "layers and weights", "fc4.weight", "transposed")(
    instead("torch.weights.export", lambda right: lambda net: {
        name: value.T.copy() if name == "fc4.weight" else value for name, value in right(net).items()}))
broken_module("biases never loaded", "mxnet", "layers and weights", "conv1.bias", ": zero")(
    instead("mxnet.weights.load", lambda right: lambda net, parameters: right(net, {
        name: np.zeros_like(value) if name.endswith("bias") else value for name, value in parameters.items()})))


# Layers


broken_layer("conv1 padded by 0 instead of 1", "torch", "layer outputs", "conv1", "padding 0 instead of 1")(
    attributes(padding=(0, 0)))
broken_model("conv1 padded at the top and left only", "tensorflow", "layer outputs", "conv1",
             "asymmetric padding: 2 at the top and left, 0 at the bottom and right")(
    lambda model: attributes(padding=((2, 0), (2, 0)))(layer_of(model, "conv1_padding")))


@broken_model("Keras's `same` for padding 1 with stride 2", "tensorflow", "layer outputs", "conv1",
              "padding as TensorFlow's `same` has it (1 top, 1 bottom, 0 left, 1 right)", "color")
def _(model: Any) -> None:
    layer_of(model, "conv1_padding").padding = ((0, 0), (0, 0))
    layer_of(model, "conv1").padding = "same"


@broken_model("padding 1 for TensorFlow's `same` with stride 2", "torch", "layer outputs", "conv1",
              "padding 1 instead of 0 top, 1 bottom, 0 left, 1 right", "padded")
def _(model: Any) -> None:
    model.net.conv1_padding = torch().nn.Identity()
    model.net.conv1.padding = (1, 1)


broken_model("the odd pixel before the image instead of after it", "mxnet", "layer outputs", "conv1",
             "padding 1 top, 0 bottom, 1 left, 0 right instead of 0 top, 1 bottom, 0 left, 1 right: its sides are "
             "swapped", "padded")(
    lambda model: layer_of(model, "conv1_padding")._numbers.update(pad_width=(0, 0, 0, 0, 1, 0, 1, 0)))
broken_model("height padded before width, which PyTorch's order reverses", "torch", "layer outputs", "conv2",
             "its height and width are swapped", "padded")(
    lambda model: attributes(padding=(0, 2, 1, 1))(model.net.conv2_padding))
broken_layer("kernel's height and width swapped", "torch", "layer outputs", "conv1", "height and width are swapped")(
    computing(lambda conv, right, x: conv._conv_forward(x, conv.weight.transpose(2, 3), conv.bias)))
broken_layer("kernel flipped", "mxnet", "layer outputs", "conv2", "the kernel is flipped")(
    computing(lambda conv, right, x: mx().nd.relu(mx().nd.Convolution(
        x, conv.weight.data().flip(axis=(2, 3)), conv.bias.data(), kernel=(3, 3), pad=(1, 1), num_filter=8))))
broken_layer("conv2's input and output channels swapped", "torch", "layer outputs", "conv2",
             "input and output channels are swapped")(
    computing(lambda conv, right, x: conv._conv_forward(x, conv.weight.transpose(0, 1), conv.bias)))


@broken_module("convolution weights reshaped to HWIO, not transposed", "tensorflow", "layer outputs", "conv1",
               "read in another layout (height, width, in, out)")
def _(patch: pytest.MonkeyPatch) -> None:
    for name, order in (("to_native", (2, 3, 1, 0)), ("to_canonical", (3, 2, 0, 1))):
        instead(f"tensorflow.weights.{name}", lambda right, order=order: lambda value, image: (
            value.reshape([value.shape[i] for i in order]) if value.ndim == 4 else right(value, image)))(patch)


broken_layer("blue, green, red instead of red, green, blue", "mxnet", "layer outputs", "conv1",
             "the input channels are in reverse order", "color")(
    computing(lambda conv, right, x: right(x.flip(axis=1))))
broken_layer("conv2 without its ReLU", "tensorflow", "layer outputs", "conv2", "the activation is missing")(
    attributes(activation=lambda x: x))
broken_layer("the sigmoid applied twice", "mxnet", "layer outputs", "fc4", "the sigmoid is applied twice")(
    computing(lambda dense, right, x: right(x).sigmoid()))


@broken_model("leaky ReLU", "torch", "layer outputs", "conv2", "a leaky ReLU (0.01) instead of ReLU")
def _(model: Any) -> None:
    model.net.conv2_relu = torch().nn.LeakyReLU()


broken_model("a sigmoid for tanh", "torch", "layer outputs", "conv1", "a sigmoid instead of tanh", "curves")(
    lambda model: attributes(conv1_tanh=torch().nn.Sigmoid())(model.net))
broken_layer("LeCun's scaled tanh", "tensorflow", "layer outputs", "fc1",
             "LeCun's 1.7159 tanh(2 x / 3) instead of tanh", "curves")(
    attributes(activation=lambda x: 1.7159 * tf().tanh(2 / 3 * x)))
broken_layer("tanh applied twice", "mxnet", "layer outputs", "fc1", "the tanh is applied twice", "curves")(
    computing(lambda dense, right, x: right(x).tanh()))
broken_model("PyTorch's slope of leaky ReLU", "torch", "layer outputs", "conv2",
             "a leaky ReLU (0.01) instead of leaky ReLU (0.1)", "curves")(
    lambda model: attributes(negative_slope=0.01)(model.net.conv2_leaky_relu))
broken_model("Keras's slope of leaky ReLU", "tensorflow", "layer outputs", "conv2",
             "a leaky ReLU (0.3) instead of leaky ReLU (0.1)", "curves")(
    lambda model: attributes(negative_slope=0.3)(layer_of(model, "conv2_leaky_relu")))
broken_model("ReLU for leaky ReLU", "mxnet", "layer outputs", "conv2", "a ReLU instead of leaky ReLU (0.1)", "curves")(
    lambda model: attributes(_alpha=0.0)(layer_of(model, "conv2_leaky_relu")))
broken_model("ELU without its number", "mxnet", "layer outputs", "conv3", "an ELU (1) instead of ELU (0.5)", "curves")(
    lambda model: attributes(_alpha=1.0)(layer_of(model, "conv3_elu")))
broken_model("leaky ReLU for ELU", "torch", "layer outputs", "conv3", "a leaky ReLU (0.01) instead of ELU (0.5)",
             "curves")(
    lambda model: attributes(conv3_elu=torch().nn.LeakyReLU())(model.net))
broken_model("an ELU that passes every gradient back", "tensorflow", "gradients", "conv3.bias",
             "its ELU passes the gradient whole where its output is negative", "curves")(
    lambda model: computing(lambda elu, right, x: x + tf().stop_gradient(right(x) - x))(layer_of(model, "conv3_elu")))
broken_model("the approximate GELU for the exact one", "torch", "layer outputs", "fc2",
             "an approximate GELU (tanh) instead of exact GELU", "curves")(
    lambda model: attributes(approximate="tanh")(model.net.fc2_gelu))
broken_layer("Keras's `gelu` for the approximate one", "tensorflow", "layer outputs", "fc3",
             "an exact GELU instead of approximate GELU (tanh)", "curves")(
    lambda dense: attributes(activation=lambda x: tf().nn.gelu(x))(dense))
broken_model("a SiLU for GELU", "mxnet", "layer outputs", "fc2", "a SiLU instead of exact GELU", "curves")(
    lambda model: computing(lambda gelu, right, x: x * x.sigmoid())(layer_of(model, "fc2_gelu")))
broken_layer("conv1's bias dropped", "torch", "layer outputs", "conv1", "the bias is dropped")(
    computing(lambda conv, right, x: conv._conv_forward(x, conv.weight, 0 * conv.bias)))
broken_layer("the last bias dropped", "tensorflow", "layer outputs", "fc5", "the bias is dropped")(
    computing(lambda dense, right, x, training=None: x @ dense.kernel + 0 * dense.bias))
broken_layer("bias added after the activation", "mxnet", "layer outputs", "conv2",
             "the bias is added after the activation")(
    computing(lambda conv, right, x: conv.bias.data().reshape((1, -1, 1, 1)) + mx().nd.relu(mx().nd.Convolution(
        x, conv.weight.data(), no_bias=True, kernel=(3, 3), pad=(1, 1), num_filter=8))))
broken_layer("pooling rounds up", "torch", "output shapes", "pool1", "rounded up instead of down")(
    attributes(ceil_mode=True))
broken_layer("pooling with Keras's `same`", "tensorflow", "output shapes", "pool1", "rounded up instead of down")(
    attributes(padding="same"))
broken_layer("max pooling padded by zeros", "torch", "layer outputs", "pool1",
             "padded by zeros instead of minus infinity", "pooled")(
    computing(lambda pool, right, x: torch().nn.functional.max_pool2d(
        torch().nn.functional.pad(x, (1, 1, 1, 1)), 3, 1)))
broken_layer("max pooling without its padding", "mxnet", "output shapes", "pool1", "padding 0 instead of 1", "pooled")(
    lambda pool: pool._kwargs.update(pad=(0, 0)))
broken_layer("padding 1 for a pooling with TensorFlow's `same`", "torch", "layer outputs", "pool2",
             "padding 1 instead of 0 top, 1 bottom, 1 left, 1 right", "pooled")(attributes(padding=1, ceil_mode=False))
broken_layer("a pooling that does not round up", "mxnet", "output shapes", "pool2",
             "rounded down instead of up", "pooled")(
    lambda pool: pool._kwargs.update(pooling_convention="valid"))


@broken_model("Keras's `same` for an average pooling with padding 1", "tensorflow", "layer outputs", "pool4",
              "padding as TensorFlow's `same` has it (0 top, 1 bottom, 0 left, 1 right), its zeros not counted",
              "pooled")
def _(model: Any) -> None:
    layer_of(model, "pool4_padding").padding = ((0, 0), (0, 0))
    layer_of(model, "pool4").padding = "same"


broken_layer("zeros counted in the mean, PyTorch's default", "torch", "layer outputs", "pool3",
             "the zeros of the padding count", "pooled")(attributes(count_include_pad=True))
broken_layer("zeros counted in the mean, MXNet's default", "mxnet", "layer outputs", "pool3",
             "the zeros of the padding count", "pooled")(lambda pool: pool._kwargs.update(count_include_pad=True))
broken_layer("zeros not counted in the mean", "mxnet", "layer outputs", "pool4",
             "the zeros of the padding do not count", "pooled")(
    lambda pool: pool._kwargs.update(count_include_pad=False))
broken_layer("pool stride 3 instead of 2", "mxnet", "output shapes", "pool1",
             "kernel 3 and stride 3 instead of 3 and 2", "color")(lambda pool: pool._kwargs.update(stride=(3, 3)))
broken_layer("pool kernel 2 instead of 3", "mxnet", "output shapes", "pool1",
             "kernel 2 and stride 2 instead of 3 and 2")(lambda pool: pool._kwargs.update(kernel=(2, 2)))
broken_layer("average pooling", "tensorflow", "layer outputs", "pool2", "average instead of maximum")(
    computing(lambda pool, right, x: tf().nn.avg_pool2d(x, 2, 2, "VALID")))
broken_layer("alpha divided by n, as PyTorch takes it", "torch", "layer outputs", "norm1",
             "alpha is divided by the number of channels in the sum", "streams")(attributes(alpha=0.1))
broken_layer("alpha multiplied by n, as for PyTorch", "tensorflow", "layer outputs", "norm1",
             "alpha is multiplied by the number of channels in the sum", "streams")(
    lambda norm: norm._numbers.update({"alpha": 5 * norm._numbers["alpha"]}))
broken_layer("the size taken for the radius", "tensorflow", "layer outputs", "norm1",
             "the sum takes `size` channels on either side", "streams")(
    lambda norm: norm._numbers.update({"depth_radius": 5}))
broken_layer("k left at its default of 1", "mxnet", "layer outputs", "norm1", "k is 1 instead of 2", "streams")(
    attributes(_k=1.0))
broken_layer("normalized along the rows", "tensorflow", "layer outputs", "norm1", "along the rows", "streams")(
    computing(lambda norm, right, x: tf().transpose(tf().nn.local_response_normalization(
        tf().transpose(x, (0, 1, 3, 2)), **norm._numbers), (0, 1, 3, 2))))
broken_layer("channels assigned to the groups in turn", "torch", "layer outputs", "conv2", "go to the groups in turn",
             "streams")(
    computing(lambda conv, right, x: right(x.unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2))))
broken_layer("the two streams crossed", "mxnet", "layer outputs", "conv1", "inputs in reverse order", "streams")(
    computing(lambda conv, right, x: right(mx().nd.concat(x[:, 2:], x[:, :2], dim=1))))
broken_layer("maximum pooling", "tensorflow", "layer outputs", "pool1", "maximum instead of average", "streams")(
    computing(lambda pool, right, x: tf().nn.max_pool2d(x, 2, 2, "VALID")))
broken_layer("the largest value of each area", "torch", "layer outputs", "areas", "maximum instead of average",
             "streams")(
    computing(lambda areas, right, x: torch().nn.functional.adaptive_max_pool2d(x, 3)))
broken_layer("plain average pooling for areas that do not divide", "mxnet", "layer outputs", "areas",
             "average pooling with kernel and stride 2", "streams")(
    computing(lambda areas, right, x: mx().nd.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="avg")))
broken_layer("flattened as height, width, channel", "torch", "layer outputs", "flatten",
             "flattened as height, width, channel")(
    computing(lambda flatten, right, x: x.permute(0, 2, 3, 1).flatten(1)))
broken_module("dense weight not permuted to Keras's flatten order", "tensorflow", "layer outputs", "fc3",
              "read as if its input were flattened as height, width, channel")(
    instead("tensorflow.weights.flattened_shapes", lambda right: lambda network: {}))
broken_layer("a square dense weight transposed", "mxnet", "layer outputs", "fc4", "the weight is transposed")(
    computing(lambda dense, right, x: mx().nd.FullyConnected(
        x, dense.weight.data().T, dense.bias.data(), num_hidden=96).sigmoid()))
broken_layer("softmax in the last layer", "tensorflow", "layer outputs", "fc5", "a softmax is applied to the logits")(
    attributes(activation=lambda x: tf().nn.softmax(x)))
broken_layer("local response normalization, as in the paper", "torch", "layer outputs", "pool1", NONE)(
    computing(lambda pool, right, x: torch().nn.functional.local_response_norm(right(x), 5, k=2)))
broken_layer("half precision inside conv2", "torch", "layer outputs", "conv2", NONE)(
    computing(lambda conv, right, x: conv._conv_forward(x.half().float(), conv.weight.half().float(), conv.bias)))


# Normalization


broken_layer("ImageNet's deviations forgotten", "torch", "layer outputs", "normalize", "it is not divided by std",
             "normalized")(lambda norm: norm.std.fill_(1))
broken_layer("ImageNet's means forgotten", "mxnet", "layer outputs", "normalize", "the mean is not subtracted",
             "normalized")(attributes(_mean=(0.0, 0.0, 0.0)))
broken_layer("a deviation given to Keras as a variance", "tensorflow", "layer outputs", "normalize",
             "std is taken for a variance", "normalized")(
    lambda norm: attributes(variance=norm.variance ** 0.5)(norm))
broken_layer("means and deviations of blue, green, red", "mxnet", "layer outputs", "normalize",
             "mean and std are of the channels in reverse order", "normalized")(
    lambda norm: attributes(_mean=norm._mean[::-1], _std=norm._std[::-1])(norm))
broken_layer("no normalization at all", "tensorflow", "layer outputs", "normalize", "the normalization is missing",
             "normalized")(computing(lambda norm, right, x: x))


@broken_module("normalized by the loader as well", "torch", "pixels", "pixels",
               "normalized by ImageNet's means and deviations", "normalized")
def _(patch: pytest.MonkeyPatch) -> None:
    mean, std = (torch().tensor(values)[:, None, None] for values in IMAGENET)
    instead("torch.trainer.pixels", lambda right: lambda *arguments: (right(*arguments) - mean) / std)(patch)


# Dropout and modes


broken_layer("dropout left on in evaluation", "torch", "layer outputs", "drop3", "dropout is on in evaluation")(
    computing(lambda drop, right, x: torch().nn.functional.dropout(x, drop.p, training=True)))
broken_layer("dropout left on in evaluation", "mxnet", "layer outputs", "drop4", "dropout is on in evaluation")(
    computing(lambda drop, right, x: mx().nd.Dropout(x, p=drop._rate, mode="always")))
broken_layer("old dropout: activations scaled in evaluation", "tensorflow", "layer outputs", "drop3",
             "scaled by 1 - rate in evaluation")(
    computing(lambda drop, right, x, training=False: right(x, training=True) if training else x * (1 - drop.rate)))
broken_layer("dropout of 0.3 instead of 0.5", "tensorflow", "dropout", "drop3", "not 0.5")(
    lambda drop: attributes(rate=0.6 * drop.rate)(drop))
broken_layer("dropout that does not rescale", "mxnet", "dropout", "drop4",
             "scales kept values by 1, not by 1/(1 - rate) = 1.25")(
    computing(lambda drop, right, x: right(x) * (1 - drop._rate if mx().autograd.is_training() else 1)))


def everywhere(backend: str, name: str, function: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Replace a function in both modules of a backend that use it."""
    def apply(patch: pytest.MonkeyPatch) -> None:
        for module in ("backend", "trainer"):
            instead(f"{backend}.{module}.{name}", lambda right: function)(patch)
    return apply


broken_module("dropout masks that never change", "torch", "dropout", "drop3", "two steps have the same masks")(
    everywhere("torch", "dropout_seed", lambda seed, step: 7))
broken_module("dropout masks drawn again at every call", "mxnet", "dropout", "drop3",
              "the masks differ when a step is repeated")(
    everywhere("mxnet", "seed_dropout", lambda seed, context: None))


@broken_module("training steps in evaluation mode", "torch", "dropout", "training step",
               "the dropout of the training step is off")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.torch.trainer import TorchTrainer
    right = TorchTrainer.step

    def step(self: Any, *arguments: Any) -> None:
        self.net.train = lambda mode=True: self.net
        right(self, *arguments)
        del self.net.train
    patch.setattr(TorchTrainer, "step", step)


broken_model("relative noise of 1e-7", "torch", "dropout", "evaluation", "two evaluations differ")(
    lambda model: computing(lambda dense, right, x: right(x) * (1 + 1e-7 * torch().randn(10)))(model.net.fc5))


# Loss and gradients


def summed(logits: Any, labels: Any) -> Any:
    """Return PyTorch's loss, summed instead of averaged."""
    return torch().nn.functional.cross_entropy(logits, labels, reduction="sum")


def focal(logits: Any, labels: Any) -> Any:
    chosen = -torch().nn.functional.cross_entropy(logits, labels, reduction="none")
    return -((1 - chosen.exp()) ** 2 * chosen).mean()


broken_module("loss summed instead of averaged", "torch", "logits and loss", "loss",
              "summed over the batch instead of averaged")(instead("torch.backend.mean_loss", lambda right: summed))
broken_module("softmax before a loss that takes logits", "tensorflow", "logits and loss", "loss",
              "softmax applied twice")(
    instead("tensorflow.backend.mean_loss", lambda right: lambda logits, labels:
            right(tf().nn.softmax(logits), labels)))
broken_module("labels counted from 1", "mxnet", "logits and loss", "loss", "the labels are shifted by one")(
    instead("mxnet.backend.place", lambda right: lambda network, inputs, labels, context: right(
        network, inputs, (labels + 1) % network.classes, context)))
broken_module("a focal loss", "torch", "logits and loss", "loss", NONE)(
    instead("torch.backend.mean_loss", lambda right: focal))
broken_model("logits that depend on the size of the batch", "torch", "logits and loss", "logits",
             "depend on the batch size or order")(
    lambda model: computing(lambda dense, right, x: right(x) + 0.01 * max(len(x) - 4, 0))(model.net.fc5))


@broken_model("gradients scaled, as by a loss scale never undone", "torch", "gradients", "all gradients",
              "scaled by 128")
def _(model: Any) -> None:
    for parameter in model.net.parameters():
        parameter.register_hook(lambda gradient: 128 * gradient)


broken_module("gradients summed, loss averaged", "mxnet", "gradients", "all gradients",
              "the loss is summed over the batch instead of averaged")(
    instead("mxnet.weights.export_gradients", lambda right: lambda net: {
        name: 4 * value for name, value in right(net).items()}))
broken_model("a layer detached", "torch", "gradients", "conv1.bias", "no gradient reaches it")(
    lambda model: computing(lambda pool, right, x: right(x).detach() + 0 * right(x))(model.net.pool1))
broken_layer("a layer frozen by requires_grad", "torch", "gradients", "conv2.bias", "no gradient reaches it")(
    lambda conv: conv.requires_grad_(False))
broken_layer("a ReLU that passes every gradient back", "tensorflow", "gradients", "fc3.bias",
             "its ReLU passes the gradient where its output is zero")(
    attributes(activation=lambda x: x + tf().stop_gradient(tf().nn.relu(x) - x)))
broken_layer("conv2's gradient clipped", "torch", "gradients", "conv2.weight", NONE)(
    lambda conv: conv.weight.register_hook(lambda gradient: gradient.clamp(-1e-3, 1e-3)))


# SGD steps


def alter(trainer: str, change: Callable[[Any], None]) -> Callable[[pytest.MonkeyPatch], None]:
    """Change a trainer after its construction."""
    def wrap(right: Callable[..., None]) -> Callable[..., None]:
        def start(self: Any, *arguments: Any) -> None:
            right(self, *arguments)
            change(self)
        return start
    return instead(f"{trainer}.__init__", wrap)


def torch_optimizer(**options: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Change the options of PyTorch's SGD."""
    return alter("torch.trainer.TorchTrainer", lambda trainer: trainer.update.options.update(options))


for _name, _cause, _options in (
        ("momentum missing", "the momentum is missing", {"momentum": 0}),
        ("Nesterov's momentum", "Nesterov's momentum", {"nesterov": True}),
        ("dampened momentum", "the momentum is dampened", {"dampening": 0.9}),
        ("learning rate 1.7 times too large", NONE, {"lr": 0.017}),
        ("learning rate 1.9 times too large", NONE, {"lr": 0.019})):
    broken_module(_name, "torch", "SGD steps", "SGD steps", _cause)(torch_optimizer(**_options))


broken_module("gradients not cleared between steps", "torch", "SGD steps", "SGD steps",
              "the gradients are not cleared between steps")(
    alter("torch.trainer.TorchTrainer", lambda trainer: attributes(drop_gradients=lambda: None)(trainer.update)))
broken_module("loss summed in the training step", "torch", "SGD steps", "SGD steps",
              "the gradients are summed over the batch instead of averaged")(
    instead("torch.trainer.mean_loss", lambda right: summed))


def gluon_trainer(change: Callable[[Any], None]) -> Callable[[pytest.MonkeyPatch], None]:
    """Change a Gluon trainer after its construction."""
    return alter("mxnet.trainer.MXNetTrainer", lambda trainer: change(trainer.trainer))


def forget_the_batch(trainer: Any) -> None:
    step = trainer.step
    trainer.step = lambda batch_size: step(1)


def multiplied(name: str, **factors: float) -> Callable[[Any], None]:
    """Change the factors of rate or decay of the parameters that have `name` in their names."""
    def change(trainer: Any) -> None:
        for parameter in trainer._params:
            if name in parameter.name:
                attributes(**factors)(parameter)
    return change


broken_module("trainer.step(1) for a batch of 4", "mxnet", "SGD steps", "SGD steps",
              "the gradients are summed over the batch instead of averaged")(gluon_trainer(forget_the_batch))
broken_module("a layer that the trainer leaves out", "mxnet", "SGD steps", "conv2.weight, conv2.bias",
              "never changed")(gluon_trainer(multiplied("conv2", lr_mult=0)))
broken_module("no weight decay", "mxnet", "SGD steps", "SGD steps", "the weight decay is missing")(
    gluon_trainer(lambda trainer: attributes(wd=0)(trainer._optimizer)))
broken_module("no weight decay on biases", "mxnet", "SGD steps", "SGD steps",
              "the weight decay leaves out the biases")(gluon_trainer(multiplied("bias", wd_mult=0)))
broken_module("learning rate 10 times too large", "mxnet", "SGD steps", "SGD steps",
              "the learning rate is 10 times too large")(gluon_trainer(lambda trainer: trainer.set_learning_rate(0.1)))


@broken_module("Keras's own, decoupled weight decay", "tensorflow", "SGD steps", "SGD steps",
               "the weight decay is decoupled from the gradient")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.tensorflow import weights
    from alexnet_mf.backends.tensorflow.trainer import TensorFlowTrainer
    right = TensorFlowTrainer.update

    def update(self: Any, gradients: Any) -> None:
        sgd = self.sgd
        for variable in weights.variables(self.net).values():
            variable.assign_sub(sgd.learning_rate * sgd.weight_decay * variable)
        self.sgd = replace(sgd, weight_decay=0)
        right(self, gradients)
        self.sgd = sgd
    patch.setattr(TensorFlowTrainer, "update", update)


broken_module("clipped gradients in the step", "tensorflow", "SGD steps", "SGD steps", NONE)(
    instead("tensorflow.trainer.TensorFlowTrainer.update", lambda right: lambda self, gradients: right(
        self, [tf().clip_by_norm(gradient, 0.05) for gradient in gradients])))
broken_module("every step takes the first batch", "tensorflow", "SGD steps", "SGD steps", NONE)(
    instead("tensorflow.trainer.TensorFlowTrainer.step", lambda right: lambda self, data, indices, number: right(
        self, data, np.arange(len(indices)), number)))


# Batch normalization


broken_layer("MXNet's default `fix_gamma`", "mxnet", "layer outputs", "bn1", "the weight is 1 (MXNet's `fix_gamma`)",
             "batches")(lambda bn: bn._kwargs.update(fix_gamma=True))
broken_layer("Keras's default epsilon", "tensorflow", "layer outputs", "bn2", "epsilon is 0.001 instead of 1e-05",
             "batches")(attributes(epsilon=1e-3))
broken_layer("batches normalized by their own statistics in evaluation", "torch", "layer outputs", "bn2",
             "normalized by the batch's statistics instead of the running ones", "batches")(
    computing(lambda bn, right, x: torch().nn.functional.batch_norm(x, None, None, bn.weight, bn.bias, True,
                                                                    eps=bn.eps)))
broken_layer("batches normalized by the running statistics in training", "tensorflow", "logits and loss", "bn1",
             "normalized by the running statistics instead of the batch's", "batches")(
    computing(lambda bn, right, x, training=None, mask=None: right(x, training=False)))
broken_layer("the running variance of PyTorch", "torch", "SGD steps", "bn1.running_var",
             "the running variance follows the batch's variance divided by n - 1", "batches")(
    computing(lambda bn, right, x: torch().nn.BatchNorm2d.forward(bn, x)))
broken_layer("Keras's momentum in PyTorch", "torch", "SGD steps", "bn1.running_mean",
             "the momentum is taken for the share of the old value", "batches")(attributes(momentum=0.7))
broken_layer("PyTorch's momentum in MXNet", "mxnet", "SGD steps", "bn3.running_mean",
             "the momentum is taken for the share of the old value", "batches")(
    lambda bn: bn._kwargs.update(momentum=0.05))
broken_layer("Keras's default momentum", "tensorflow", "SGD steps", "bn3.running_mean",
             "the momentum is 0.01, Keras's default", "batches")(attributes(momentum=0.99))
broken_layer("running statistics that never move", "mxnet", "SGD steps", "bn1.running_mean", "never changed",
             "batches")(lambda bn: bn._kwargs.update(momentum=1.0))
broken_model("mean and variance without gradients", "torch", "gradients", "conv1.weight", NONE, "batches")(
    lambda model: computing(lambda bn, right, x: torch().nn.functional.batch_norm(
        x, x.mean((0, 2, 3)).detach(), x.var((0, 2, 3), correction=0).detach(), bn.weight, bn.bias, eps=bn.eps)
        if bn.training else right(x))(layer_of(model, "bn1")))
broken_module("weights loaded without the running statistics", "tensorflow", "layers and weights", "bn1.running_mean",
              "as before training, 0 and 1", "batches")(
    instead("tensorflow.weights.load", lambda right: lambda net, network, values: right(net, network, {
        name: np.full_like(value, name.endswith("var")) if "running" in name else value
        for name, value in values.items()})))


# Weights from elsewhere


@broken_module("a schedule that halves the rate after six steps", "torch", "weight exchange", "continued steps",
               "start from the right weights")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.torch.trainer import TorchTrainer
    right = TorchTrainer.step

    def step(self: Any, data: Any, indices: Any, number: int) -> None:
        self.set_rate(0.01 if number < 6 else 0.005)
        right(self, data, indices, number)
    patch.setattr(TorchTrainer, "step", step)


broken_module("weights loaded once, and ignored the second time", "mxnet", "weight exchange", "continued steps",
              "start from other weights")(
    instead("mxnet.weights.load", lambda right: lambda net, parameters: right(net, fault_case("plain").parameters())))


@pytest.mark.parametrize(("backend_name", "fault", "change"), [
    pytest.param(fault.backend, fault, change, id=f"{fault.name}, {fault.backend}") for fault, change in FAULTS],
    indirect=["backend_name"])
def test_a_fault_is_diagnosed(backend_name: str, fault: Fault, change: Callable[[Any], Any],
                              monkeypatch: pytest.MonkeyPatch, table: list[tuple[str, ...]]) -> None:
    backend = backends.load(backend_name)

    def faulty_build(*arguments: Any) -> Any:
        model = backend.build(*arguments, execution=AS_IT_COMES if backend_name == "torch" else IMPERATIVE)
        if fault.part != "module":
            change(model if fault.part == "model" else layer_of(model, fault.where.partition(".")[0]))
        return model

    with monkeypatch.context() as patch:
        if fault.part == "module":
            change(patch)
        answer = trace(backend, fault_case(fault.network), build=faulty_build)
    report = compare([answer], reference=reference(fault.network))

    red = [rung for rung in report.rungs[backend_name] if not rung.holds]
    assert red, "all rungs hold"
    diagnosis = "; ".join(report.diagnoses[backend_name])
    table.append((fault.name, backend_name, f"{red[0].number} {red[0].name}", diagnosis))
    print(f"\n{fault.name} | {backend_name} | {red[0].number} {red[0].name} | {diagnosis}")
    assert red[0].name == fault.rung, (diagnosis, red[0].failures[:3])
    assert fault.where in diagnosis
    assert fault.cause in diagnosis
    assert not report.holds


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in (1, 2)),
                                  *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 10))])
@pytest.mark.parametrize("network", list(NETWORKS))
def test_networks_without_a_fault_are_green(backend_name: str, network: str, seed: int) -> None:
    """Seed 0 is the case of the faults."""
    assert_green(backend_name, reference(network, seed))


def test_the_documentation_states_the_number_of_faults() -> None:
    page = (Path(__file__).parents[2] / "docs" / "comparers" / "parity.md").read_text(encoding="utf-8")
    count = re.search(r"builds (\d+) faults", " ".join(page.split()))
    assert count and int(count.group(1)) == len(FAULTS)
    assert {fault.backend for fault, _ in FAULTS} == {"torch", "tensorflow", "mxnet"}
    assert len({fault.rung for fault, _ in FAULTS}) >= 8
