"""Faults on purpose: each is built into a real network or its training, and the ladder must turn red at the right rung
and the right layer, and name the cause, or say that it knows none.

`ALEXNET_MF_FAULT_TABLE=FILE pytest tests/parity/test_faults.py` writes what was caught where as a Markdown table.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_mf import backends, data
from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.parity.case import Case, random_case
from alexnet_mf.parity.causes.inputs import IMAGENET
from alexnet_mf.parity.referee import Referee, make_referee
from alexnet_mf.parity.run import compare
from alexnet_mf.parity.trace import trace
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    LocalResponseNorm,
    MaxPool2d,
    Normalize,
)

# Sizes chosen so that faults stay silent, as in AlexNet: conv1 gives 18x18 with padding 0 and 1; pool1 gives 8x8 or,
# rounded up, 9x9, and pool2 makes 4x4 of both. fc4 is square, conv2 has as many input as output channels.
PLAIN = Network("plain", (1, 56, 56), (
    Conv2d("conv1", channels=8, kernel=5, stride=3, padding=1), MaxPool2d("pool1", kernel=3, stride=2),
    Conv2d("conv2", channels=8, kernel=3, padding=1), MaxPool2d("pool2", kernel=2, stride=2),
    Flatten("flatten"), Dense("fc3", units=96, activation="relu"), Dropout("drop3", rate=0.5),
    Dense("fc4", units=96, activation="sigmoid"), Dropout("drop4", rate=0.2), Dense("fc5", units=10)))
# Colour, not square, and a last pooling that swallows what the strides before it make different.
COLOUR = Network("colour", (3, 23, 26), (
    Conv2d("conv1", channels=4, kernel=3, stride=2, padding=1, activation="sigmoid"),
    MaxPool2d("pool1", kernel=3, stride=2), MaxPool2d("pool2", kernel=3, stride=4), Flatten("flatten"),
    Dense("fc1", units=5)))
# What the networks of 2012 and of the LeNet chapter have beyond these.
STREAMS = Network("streams", (4, 18, 19), (  # 7x7 reach `areas`, where plain pooling gives 3x3 too
    Conv2d("conv1", channels=16, kernel=3, padding=1, groups=2),
    LocalResponseNorm("norm1", size=5, alpha=0.1, beta=0.75, k=2.0), AvgPool2d("pool1", kernel=2, stride=2),
    Conv2d("conv2", channels=16, kernel=3, groups=4), AdaptiveAvgPool2d("areas", size=3), Flatten("flatten"),
    Dense("fc1", units=5)))
# What torchvision's weights take.
NORMALISED = Network("normalised", (3, 18, 17), (
    Normalize("normalize", *IMAGENET), Conv2d("conv1", channels=6, kernel=3, stride=2), Flatten("flatten"),
    Dense("fc1", units=5)))
NETWORKS = {network.name: network for network in (PLAIN, COLOUR, STREAMS, NORMALISED)}

NONE = "none of the usual causes reproduces it"


@dataclass(frozen=True)
class Fault:
    """One thing done wrong, and what the ladder must say of it."""

    name: str
    backend: str
    rung: str
    """The lowest red rung."""
    where: str
    """The layer, parameter tensor or step that the diagnosis names."""
    cause: str
    """Words of the diagnosis; NONE where it must not claim to know."""
    network: str
    break_model: Callable[[Any], None] | None = None
    """Breaks a model that was built right."""
    break_module: Callable[[pytest.MonkeyPatch], None] | None = None
    """Breaks the backend's code before it builds."""


IMPERATIVE = Execution(speed={"compile": False})
"""Gluon's blocks can be broken only where they are called one by one; TensorFlow would trace a graph for each fault."""
FAULTS: list[Fault] = []


def broken_model(name: str, backend: str, rung: str, where: str, cause: str, network: str = "plain") -> Any:
    """Registers a function that breaks a model after it was built."""
    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        FAULTS.append(Fault(name, backend, rung, where, cause, network, break_model=function))
        return function
    return register


def broken_module(name: str, backend: str, rung: str, where: str, cause: str, network: str = "plain") -> Any:
    """Registers a function that breaks a backend's module."""
    def register(function: Callable[[pytest.MonkeyPatch], None]) -> Callable[[pytest.MonkeyPatch], None]:
        FAULTS.append(Fault(name, backend, rung, where, cause, network, break_module=function))
        return function
    return register


@functools.cache
def question(network: str, seed: int = 0) -> Case:
    """The case of one of the networks."""
    if network != "plain":
        return random_case(NETWORKS[network], seed, 40)
    images = data.synthetic.draw(seed, train=1, test=48).test
    return Case(NETWORKS[network], seed, images.images, images.labels, "synthetic")


@functools.cache
def referee(network: str, seed: int = 0) -> Referee:
    """Its referee, once."""
    return make_referee(question(network, seed))


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, ...]]]:
    """What was caught where, for the README."""
    rows: list[tuple[str, ...]] = []
    yield rows
    path = os.environ.get("ALEXNET_MF_FAULT_TABLE")
    if path:
        lines = ["| fault | backend | lowest red rung | diagnosis |", "|---|---|---|---|"]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


# Pixels


@broken_module("pixels enlarged with aligned corners", "mxnet", "pixels", "pixels", "aligned corners")
def _(patch: pytest.MonkeyPatch) -> None:
    import mxnet as mx

    from alexnet_mf.backends.mxnet import trainer
    patch.setattr(trainer, "upsample", lambda images, size: mx.nd.contrib.BilinearResize2D(
        images.expand_dims(1).astype("float32"), height=size[0], width=size[1]) * float(trainer.PIXEL_SCALE))


@broken_module("nearest pixel instead of bilinear", "tensorflow", "pixels", "pixels", "nearest pixel")
def _(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from alexnet_mf.backends.tensorflow import trainer
    patch.setattr(trainer, "upsample", lambda images, size: trainer.PIXEL_SCALE * tf.image.resize(
        tf.cast(images[..., tf.newaxis], tf.float32), size, "nearest"))


@broken_module("pixels divided by 255", "torch", "pixels", "pixels", "a division by 255")
def _(patch: pytest.MonkeyPatch) -> None:
    from torch.nn import functional

    from alexnet_mf.backends.torch import trainer
    patch.setattr(trainer, "upsample", lambda images, size: functional.interpolate(
        images.unsqueeze(1).float(), size, mode="bilinear", align_corners=False) / 255)


@broken_module("scaled before enlarging", "torch", "pixels", "pixels", "last bits")
def _(patch: pytest.MonkeyPatch) -> None:
    from torch.nn import functional

    from alexnet_mf.backends.torch import trainer
    patch.setattr(trainer, "upsample", lambda images, size: functional.interpolate(
        images.unsqueeze(1).float() * float(trainer.PIXEL_SCALE), size, mode="bilinear", align_corners=False))


@broken_module("enlarged as uint8", "torch", "pixels", "pixels", "rounded to whole grey levels in each direction")
def _(patch: pytest.MonkeyPatch) -> None:
    from torch.nn import functional

    from alexnet_mf.backends.torch import trainer
    patch.setattr(trainer, "upsample", lambda images, size: functional.interpolate(
        images.unsqueeze(1), size, mode="bilinear", align_corners=False).float() * float(trainer.PIXEL_SCALE))


@broken_module("pixels normalised", "mxnet", "pixels", "pixels", "normalised by mean 0.5 and deviation 0.5")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.mxnet import trainer
    right = trainer.upsample
    patch.setattr(trainer, "upsample", lambda images, size: (right(images, size) - 0.5) / 0.5)


# Parameters


@broken_module("one bit of a weight flipped on loading", "tensorflow", "spec and parameters", "fc3.weight", NONE)
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.tensorflow import weights
    right = weights.load

    def load(net: Any, network: Network, parameters: dict[str, Any]) -> None:
        value = parameters["fc3.weight"].copy()
        value.view(np.uint32)[3, 5] ^= 1
        right(net, network, {**parameters, "fc3.weight": value})
    patch.setattr(weights, "load", load)


@broken_module("a dense weight exported transposed", "torch", "spec and parameters", "fc4.weight", "transposed")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.torch import weights
    right = weights.export
    patch.setattr(weights, "export", lambda net: {name: value.T.copy() if name == "fc4.weight" else value
                                                  for name, value in right(net).items()})


@broken_module("biases never loaded", "mxnet", "spec and parameters", "conv1.bias", ": zero")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.mxnet import weights
    right = weights.load
    patch.setattr(weights, "load", lambda net, parameters: right(net, {
        name: np.zeros_like(value) if name.endswith("bias") else value for name, value in parameters.items()}))


# Layers


@broken_model("conv1 padded by 0 instead of 1", "torch", "layer outputs", "conv1", "padding 0 instead of 1")
def _(model: Any) -> None:
    model.net.conv1.padding = (0, 0)


@broken_model("conv1 padded at the top and left only", "tensorflow", "layer outputs", "conv1",
              "asymmetric padding: 2 at the top and left, 0 at the bottom and right")
def _(model: Any) -> None:
    model.net.get_layer("conv1_padding").padding = ((2, 0), (2, 0))


@broken_model("Keras's `same` for padding 1 with stride 2", "tensorflow", "layer outputs", "conv1",
              "padding as TensorFlow's `same` has it (1 top, 1 bottom, 0 left, 1 right)", network="colour")
def _(model: Any) -> None:
    model.net.get_layer("conv1_padding").padding = ((0, 0), (0, 0))
    model.net.get_layer("conv1").padding = "same"


@broken_model("kernel's height and width swapped", "torch", "layer outputs", "conv1", "height and width are swapped")
def _(model: Any) -> None:
    conv = model.net.conv1
    conv.forward = lambda x: conv._conv_forward(x, conv.weight.transpose(2, 3), conv.bias)


@broken_model("kernel flipped", "mxnet", "layer outputs", "conv2", "the kernel is flipped")
def _(model: Any) -> None:
    import mxnet as mx
    conv = child(model, "conv2")
    conv.forward = lambda x: mx.nd.relu(mx.nd.Convolution(
        x, conv.weight.data().flip(axis=(2, 3)), conv.bias.data(), kernel=(3, 3), pad=(1, 1), num_filter=8))


@broken_model("conv2's input and output channels swapped", "torch", "layer outputs", "conv2",
              "input and output channels are swapped")
def _(model: Any) -> None:
    conv = model.net.conv2
    conv.forward = lambda x: conv._conv_forward(x, conv.weight.transpose(0, 1), conv.bias)


@broken_module("convolution weights reshaped to HWIO, not transposed", "tensorflow", "layer outputs", "conv1",
               "read in another layout (height, width, in, out)")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.tensorflow import weights
    native, canonical = weights.to_native, weights.to_canonical

    def reread(right: Callable[..., Any], order: tuple[int, ...]) -> Callable[..., Any]:
        return lambda value, image: (value.reshape([value.shape[i] for i in order]) if value.ndim == 4
                                     else right(value, image))
    patch.setattr(weights, "to_native", reread(native, (2, 3, 1, 0)))
    patch.setattr(weights, "to_canonical", reread(canonical, (3, 2, 0, 1)))


@broken_model("blue, green, red for red, green, blue", "mxnet", "layer outputs", "conv1",
              "the input channels are in reverse order", network="colour")
def _(model: Any) -> None:
    conv = child(model, "conv1")
    right = conv.forward
    conv.forward = lambda x: right(x.flip(axis=1))


@broken_model("conv2 without its ReLU", "tensorflow", "layer outputs", "conv2", "the activation is missing")
def _(model: Any) -> None:
    model.net.get_layer("conv2").activation = lambda x: x


@broken_model("the sigmoid applied twice", "mxnet", "layer outputs", "fc4", "the sigmoid is applied twice")
def _(model: Any) -> None:
    dense = child(model, "fc4")
    right = dense.forward
    dense.forward = lambda x: right(x).sigmoid()


@broken_model("leaky ReLU", "torch", "layer outputs", "conv2", "a leaky ReLU (0.01) instead of ReLU")
def _(model: Any) -> None:
    from torch import nn
    model.net.conv2_relu = nn.LeakyReLU()


@broken_model("conv1's bias dropped", "torch", "layer outputs", "conv1", "the bias is dropped")
def _(model: Any) -> None:
    conv = model.net.conv1
    conv.forward = lambda x: conv._conv_forward(x, conv.weight, 0 * conv.bias)


@broken_model("the last bias dropped", "tensorflow", "layer outputs", "fc5", "the bias is dropped")
def _(model: Any) -> None:
    dense = model.net.get_layer("fc5")
    dense.call = lambda x, training=None: x @ dense.kernel + 0 * dense.bias


@broken_model("bias added after the activation", "mxnet", "layer outputs", "conv2",
              "the bias is added after the activation")
def _(model: Any) -> None:
    import mxnet as mx
    conv = child(model, "conv2")
    conv.forward = lambda x: mx.nd.relu(mx.nd.Convolution(
        x, conv.weight.data(), no_bias=True, kernel=(3, 3), pad=(1, 1),
        num_filter=8)) + conv.bias.data().reshape((1, -1, 1, 1))


@broken_model("pooling rounds up", "torch", "shapes", "pool1", "rounded up instead of down")
def _(model: Any) -> None:
    model.net.pool1.ceil_mode = True


@broken_model("pooling with Keras's `same`", "tensorflow", "shapes", "pool1", "rounded up instead of down")
def _(model: Any) -> None:
    model.net.get_layer("pool1").padding = "same"


@broken_model("pool stride 3 instead of 2", "mxnet", "shapes", "pool1", "kernel 3 and stride 3 instead of 3 and 2",
              network="colour")
def _(model: Any) -> None:
    child(model, "pool1")._kwargs["stride"] = (3, 3)


@broken_model("pool kernel 2 instead of 3", "mxnet", "shapes", "pool1", "kernel 2 and stride 2 instead of 3 and 2")
def _(model: Any) -> None:
    child(model, "pool1")._kwargs["kernel"] = (2, 2)


@broken_model("average pooling", "tensorflow", "layer outputs", "pool2", "average instead of maximum")
def _(model: Any) -> None:
    import tensorflow as tf
    model.net.get_layer("pool2").call = lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID")


@broken_model("alpha divided by n, as PyTorch takes it", "torch", "layer outputs", "norm1",
              "alpha is divided by the number of channels in the sum", network="streams")
def _(model: Any) -> None:
    model.net.norm1.alpha = 0.1


@broken_model("alpha multiplied by n, as for PyTorch", "tensorflow", "layer outputs", "norm1",
              "alpha is multiplied by the number of channels in the sum", network="streams")
def _(model: Any) -> None:
    model.net.get_layer("norm1")._numbers["alpha"] *= 5


@broken_model("the size taken for the radius", "tensorflow", "layer outputs", "norm1",
              "the sum takes `size` channels on either side", network="streams")
def _(model: Any) -> None:
    model.net.get_layer("norm1")._numbers["depth_radius"] = 5


@broken_model("k left at its default of 1", "mxnet", "layer outputs", "norm1", "k is 1 instead of 2", network="streams")
def _(model: Any) -> None:
    child(model, "norm1")._k = 1.0


@broken_model("normalised along the rows", "tensorflow", "layer outputs", "norm1", "along the rows", network="streams")
def _(model: Any) -> None:
    import tensorflow as tf
    norm = model.net.get_layer("norm1")
    norm.call = lambda x: tf.transpose(tf.nn.local_response_normalization(
        tf.transpose(x, (0, 1, 3, 2)), **norm._numbers), (0, 1, 3, 2))


@broken_model("channels dealt out to the groups in turn", "torch", "layer outputs", "conv2",
              "go to the groups in turn", network="streams")
def _(model: Any) -> None:
    model.net.conv2.register_forward_pre_hook(
        lambda module, inputs: inputs[0].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2))


@broken_model("the two streams crossed", "mxnet", "layer outputs", "conv1", "inputs in reverse order",
              network="streams")
def _(model: Any) -> None:
    import mxnet as mx
    conv = child(model, "conv1")
    right = conv.forward
    conv.forward = lambda x: right(mx.nd.concat(x[:, 2:], x[:, :2], dim=1))


@broken_model("maximum pooling", "tensorflow", "layer outputs", "pool1", "maximum instead of average",
              network="streams")
def _(model: Any) -> None:
    import tensorflow as tf
    model.net.get_layer("pool1").call = lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID")


@broken_model("the largest value of each area", "torch", "layer outputs", "areas", "maximum instead of average",
              network="streams")
def _(model: Any) -> None:
    from torch import nn
    model.net.areas = nn.AdaptiveMaxPool2d(3)


@broken_model("plain average pooling for areas that do not divide", "mxnet", "layer outputs", "areas",
              "average pooling with kernel and stride 2", network="streams")
def _(model: Any) -> None:
    import mxnet as mx
    child(model, "areas").forward = lambda x: mx.nd.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="avg")


@broken_model("flattened as height, width, channel", "torch", "layer outputs", "flatten",
              "flattened as height, width, channel")
def _(model: Any) -> None:
    model.net.flatten.forward = lambda x: x.permute(0, 2, 3, 1).flatten(1)


@broken_module("dense weight not permuted to Keras's flatten order", "tensorflow", "layer outputs", "fc3",
               "read as if its input were flattened as height, width, channel")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.tensorflow import weights
    patch.setattr(weights, "flattened_shapes", lambda network: {})


@broken_model("a square dense weight transposed", "mxnet", "layer outputs", "fc4", "the weight is transposed")
def _(model: Any) -> None:
    import mxnet as mx
    dense = child(model, "fc4")
    dense.forward = lambda x: mx.nd.FullyConnected(x, dense.weight.data().T, dense.bias.data(), num_hidden=96).sigmoid()


@broken_model("softmax in the last layer", "tensorflow", "layer outputs", "fc5", "a softmax is applied to the logits")
def _(model: Any) -> None:
    import tensorflow as tf
    model.net.get_layer("fc5").activation = tf.nn.softmax


@broken_model("local response normalisation, as in the paper", "torch", "layer outputs", "pool1", NONE)
def _(model: Any) -> None:
    from torch.nn import functional
    model.net.pool1.register_forward_hook(lambda module, inputs, output: functional.local_response_norm(output, 5, k=2))


@broken_model("half precision inside conv2", "torch", "layer outputs", "conv2", NONE)
def _(model: Any) -> None:
    conv = model.net.conv2
    conv.forward = lambda x: conv._conv_forward(x.half().float(), conv.weight.half().float(), conv.bias)


# Normalisation


@broken_model("ImageNet's deviations forgotten", "torch", "layer outputs", "normalize", "it is not divided by std",
              network="normalised")
def _(model: Any) -> None:
    model.net.normalize.std.fill_(1)


@broken_model("ImageNet's means forgotten", "mxnet", "layer outputs", "normalize", "the mean is not subtracted",
              network="normalised")
def _(model: Any) -> None:
    child(model, "normalize")._mean = (0.0, 0.0, 0.0)


@broken_model("a deviation given to Keras as a variance", "tensorflow", "layer outputs", "normalize",
              "std is taken for a variance", network="normalised")
def _(model: Any) -> None:
    norm = model.net.get_layer("normalize")
    norm.variance = norm.variance ** 0.5


@broken_model("means and deviations of blue, green, red", "mxnet", "layer outputs", "normalize",
              "mean and std are of the channels in reverse order", network="normalised")
def _(model: Any) -> None:
    norm = child(model, "normalize")
    norm._mean, norm._std = norm._mean[::-1], norm._std[::-1]


@broken_model("no normalisation at all", "tensorflow", "layer outputs", "normalize", "the normalisation is missing",
              network="normalised")
def _(model: Any) -> None:
    model.net.get_layer("normalize").call = lambda x: x


@broken_module("normalised by the loader as well", "torch", "pixels", "pixels",
               "normalised by ImageNet's means and deviations", network="normalised")
def _(patch: pytest.MonkeyPatch) -> None:
    import torch

    from alexnet_mf.backends.torch import trainer
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    right = trainer.pixels
    patch.setattr(trainer, "pixels", lambda *arguments: (right(*arguments) - mean) / std)


# Dropout and modes


@broken_model("dropout left on in evaluation", "torch", "layer outputs", "drop3", "dropout is on in evaluation")
def _(model: Any) -> None:
    from torch.nn import functional
    model.net.drop3.forward = lambda x: functional.dropout(x, model.net.drop3.p, training=True)


@broken_model("dropout left on in evaluation", "mxnet", "layer outputs", "drop4", "dropout is on in evaluation")
def _(model: Any) -> None:
    from mxnet import nd
    block = child(model, "drop4")
    block.forward = lambda x: nd.Dropout(x, p=block._rate, mode="always")


@broken_model("old dropout: activations scaled in evaluation", "tensorflow", "layer outputs", "drop3",
              "scaled by 1 - rate in evaluation")
def _(model: Any) -> None:
    layer = model.net.get_layer("drop3")
    right = layer.call
    layer.call = lambda x, training=False: right(x, training=True) if training else x * (1 - layer.rate)


@broken_model("dropout of 0.3 instead of 0.5", "tensorflow", "dropout modes", "drop3", "not 0.5")
def _(model: Any) -> None:
    layer = model.net.get_layer("drop3")
    layer.rate *= 0.6


@broken_model("dropout that does not rescale", "mxnet", "dropout modes", "drop4",
              "scales what stays by 1, not by 1/(1 - rate), 1.25")
def _(model: Any) -> None:
    from mxnet import autograd
    block = child(model, "drop4")
    right = block.forward
    block.forward = lambda x: right(x) * (1 - block._rate if autograd.is_training() else 1)


@broken_module("dropout masks that never change", "torch", "dropout modes", "drop3", "another step has the same masks")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.torch import backend, trainer
    for module in (backend, trainer):
        patch.setattr(module, "dropout_seed", lambda seed, step: 7)


@broken_module("dropout masks drawn anew at every call", "mxnet", "dropout modes", "drop3",
               "the same step has other masks")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.mxnet import backend, trainer
    for module in (backend, trainer):
        patch.setattr(module, "seed_dropout", lambda seed, context: None)


@broken_module("training steps in evaluation mode", "torch", "dropout modes", "training step",
               "the dropout of the training step is off")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.torch.trainer import TorchTrainer
    right = TorchTrainer.step

    def step(self: Any, *arguments: Any) -> None:
        self.net.train = lambda mode=True: self.net
        right(self, *arguments)
        del self.net.train
    patch.setattr(TorchTrainer, "step", step)


@broken_model("noise of a millionth of a per cent", "torch", "dropout modes", "evaluation", "two evaluations differ")
def _(model: Any) -> None:
    import torch
    model.net.fc5.register_forward_hook(lambda module, inputs, output: output * (1 + 1e-7 * torch.randn_like(output)))


# Loss and gradients


@broken_module("loss summed instead of averaged", "torch", "logits and loss", "loss",
               "summed over the batch instead of averaged")
def _(patch: pytest.MonkeyPatch) -> None:
    from torch.nn import functional

    from alexnet_mf.backends.torch import backend
    summed = functools.partial(functional.cross_entropy, reduction="sum")
    patch.setattr(backend, "mean_loss", summed)


@broken_module("softmax before a loss that takes logits", "tensorflow", "logits and loss", "loss",
               "softmax applied twice")
def _(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from alexnet_mf.backends.tensorflow import backend
    right = backend.mean_loss
    patch.setattr(backend, "mean_loss", lambda logits, labels: right(tf.nn.softmax(logits), labels))


@broken_module("labels counted from 1", "mxnet", "logits and loss", "loss", "the labels are shifted by one")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.mxnet import backend
    right = backend.place
    patch.setattr(backend, "place", lambda network, inputs, labels, context: right(
        network, inputs, (labels + 1) % network.classes, context))


@broken_module("a focal loss", "torch", "logits and loss", "loss", NONE)
def _(patch: pytest.MonkeyPatch) -> None:
    from torch.nn import functional

    from alexnet_mf.backends.torch import backend

    def focal(logits: Any, labels: Any) -> Any:
        chosen = -functional.cross_entropy(logits, labels, reduction="none")
        return -((1 - chosen.exp()) ** 2 * chosen).mean()
    patch.setattr(backend, "mean_loss", focal)


@broken_model("logits that depend on the size of the batch", "torch", "logits and loss", "logits",
              "another batch size or order changes them")
def _(model: Any) -> None:
    model.net.fc5.register_forward_hook(
        lambda module, inputs, output: output + 0.01 * (len(output) - 4) if len(output) > 4 else output)


@broken_model("gradients scaled, as by a loss scale never taken back", "torch", "gradients", "all gradients",
              "scaled by 128")
def _(model: Any) -> None:
    for parameter in model.net.parameters():
        parameter.register_hook(lambda gradient: 128 * gradient)


@broken_module("gradients summed, loss averaged", "mxnet", "gradients", "all gradients",
               "the loss is summed over the batch instead of averaged")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.mxnet import weights
    right = weights.export_gradients
    patch.setattr(weights, "export_gradients", lambda net: {name: 4 * value for name, value in right(net).items()})


@broken_model("a layer detached", "torch", "gradients", "conv1.bias", "no gradient reaches it")
def _(model: Any) -> None:
    model.net.pool1.register_forward_hook(lambda module, inputs, output: output.detach().requires_grad_(False)
                                          + 0 * output)


@broken_model("a layer frozen by requires_grad", "torch", "gradients", "conv2.bias", "no gradient reaches it")
def _(model: Any) -> None:
    model.net.conv2.requires_grad_(False)


@broken_model("a ReLU that passes every gradient back", "tensorflow", "gradients", "fc3.bias",
              "its ReLU passes the gradient where its output is zero")
def _(model: Any) -> None:
    import tensorflow as tf
    model.net.get_layer("fc3").activation = lambda x: x + tf.stop_gradient(tf.nn.relu(x) - x)


@broken_model("conv2's gradient clipped", "torch", "gradients", "conv2.weight", NONE)
def _(model: Any) -> None:
    model.net.conv2.weight.register_hook(lambda gradient: gradient.clamp(-1e-3, 1e-3))


# SGD steps


def torch_optimizer(**options: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """A trainer whose SGD has other options than asked for."""
    def apply(patch: pytest.MonkeyPatch) -> None:
        from alexnet_mf.backends.torch.trainer import TorchTrainer
        right = TorchTrainer.__init__

        def start(self: Any, *arguments: Any) -> None:
            right(self, *arguments)
            for group in self.optimizer.param_groups:
                group |= options
        patch.setattr(TorchTrainer, "__init__", start)
    return apply


broken_module("momentum missing", "torch", "SGD steps", "SGD steps", "the momentum is missing")(
    torch_optimizer(momentum=0))
broken_module("Nesterov's momentum", "torch", "SGD steps", "SGD steps", "Nesterov's momentum")(
    torch_optimizer(nesterov=True))
broken_module("dampened momentum", "torch", "SGD steps", "SGD steps", "the momentum is dampened")(
    torch_optimizer(dampening=0.9))
broken_module("learning rate 1.7 times too large", "torch", "SGD steps", "SGD steps",
              NONE)(torch_optimizer(lr=0.017))
broken_module("learning rate 1.9 times too large", "torch", "SGD steps", "SGD steps",
              NONE)(torch_optimizer(lr=0.019))


@broken_module("gradients not cleared between steps", "torch", "SGD steps", "SGD steps",
               "the gradients are not cleared between steps")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.torch.trainer import TorchTrainer
    right = TorchTrainer.step

    def step(self: Any, *arguments: Any) -> None:
        self.optimizer.zero_grad = lambda: None
        right(self, *arguments)
    patch.setattr(TorchTrainer, "step", step)


@broken_module("loss summed in the training step", "torch", "SGD steps", "SGD steps",
               "the gradients are summed over the batch instead of averaged")
def _(patch: pytest.MonkeyPatch) -> None:
    from torch.nn import functional

    from alexnet_mf.backends.torch import trainer
    patch.setattr(trainer, "mean_loss", functools.partial(functional.cross_entropy, reduction="sum"))


def gluon_trainer(change: Callable[[Any], None]) -> Callable[[pytest.MonkeyPatch], None]:
    """An MXNet trainer changed after it was made."""
    def apply(patch: pytest.MonkeyPatch) -> None:
        from alexnet_mf.backends.mxnet.trainer import MXNetTrainer
        right = MXNetTrainer.__init__

        def start(self: Any, *arguments: Any) -> None:
            right(self, *arguments)
            change(self)
        patch.setattr(MXNetTrainer, "__init__", start)
    return apply


def _forget_the_batch(trainer: Any) -> None:
    step = trainer.trainer.step
    trainer.trainer.step = lambda batch_size: step(1)


def _freeze_conv2(trainer: Any) -> None:
    for parameter in trainer.trainer._params:
        if parameter.name.startswith("conv2"):
            parameter.lr_mult = 0


def _spare_the_biases(trainer: Any) -> None:
    for parameter in trainer.trainer._params:
        if parameter.name.endswith("bias"):
            parameter.wd_mult = 0


def _no_decay(trainer: Any) -> None:
    trainer.trainer._optimizer.wd = 0


def _faster(trainer: Any) -> None:
    trainer.trainer.set_learning_rate(0.1)


broken_module("trainer.step(1) for a batch of 4", "mxnet", "SGD steps", "SGD steps",
              "the gradients are summed over the batch instead of averaged")(gluon_trainer(_forget_the_batch))
broken_module("a layer that the trainer leaves out", "mxnet", "SGD steps", "conv2.weight, conv2.bias",
              "never changed")(gluon_trainer(_freeze_conv2))
broken_module("no weight decay", "mxnet", "SGD steps", "SGD steps", "the weight decay is missing")(
    gluon_trainer(_no_decay))
broken_module("no weight decay on biases", "mxnet", "SGD steps", "SGD steps",
              "the weight decay leaves out the biases")(gluon_trainer(_spare_the_biases))
broken_module("learning rate 10 times too large", "mxnet", "SGD steps", "SGD steps",
              "the learning rate is 10 times too large")(gluon_trainer(_faster))


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


@broken_module("clipped gradients in the step", "tensorflow", "SGD steps", "SGD steps", NONE)
def _(patch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from alexnet_mf.backends.tensorflow.trainer import TensorFlowTrainer
    right = TensorFlowTrainer.update
    patch.setattr(TensorFlowTrainer, "update", lambda self, gradients: right(
        self, [tf.clip_by_norm(gradient, 0.05) for gradient in gradients]))


@broken_module("every step takes the first batch", "tensorflow", "SGD steps", "SGD steps", NONE)
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.tensorflow.trainer import TensorFlowTrainer
    right = TensorFlowTrainer.step
    patch.setattr(TensorFlowTrainer, "step", lambda self, data, indices, number: right(
        self, data, np.arange(len(indices)), number))


# Weights from elsewhere


@broken_module("a schedule that halves the rate after six steps", "torch", "weights", "continued steps",
               "starts from these weights")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.torch.trainer import TorchTrainer
    right = TorchTrainer.step

    def step(self: Any, data: Any, indices: Any, number: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = 0.01 if number < 6 else 0.005
        right(self, data, indices, number)
    patch.setattr(TorchTrainer, "step", step)


@broken_module("weights loaded once, and ignored the second time", "mxnet", "weights", "continued steps",
               "does not start from these weights")
def _(patch: pytest.MonkeyPatch) -> None:
    from alexnet_mf.backends.mxnet import weights
    right = weights.load
    start = question("plain").parameters()
    patch.setattr(weights, "load", lambda net, parameters: right(net, start))


def child(model: Any, name: str) -> Any:
    """A Gluon block by its layer's name."""
    return next(block for block in model.net if block.prefix == f"{name}_")


@pytest.mark.parametrize(("backend_name", "fault"), [pytest.param(f.backend, f, id=f"{f.name}, {f.backend}")
                                                     for f in FAULTS], indirect=["backend_name"])
def test_a_fault_is_found(backend_name: str, fault: Fault, monkeypatch: pytest.MonkeyPatch,
                          table: list[tuple[str, ...]]) -> None:
    backend = backends.load(backend_name)

    def faulty_build(*arguments: Any) -> Any:
        model = backend.build(*arguments, execution=AS_IT_COMES if backend_name == "torch" else IMPERATIVE)
        if fault.break_model:
            fault.break_model(model)
        return model

    with monkeypatch.context() as patch:
        if fault.break_module:
            fault.break_module(patch)
        answer = trace(backend, question(fault.network), build=faulty_build)
    report = compare([answer], referee=referee(fault.network))

    red = [rung for rung in report.rungs[backend_name] if not rung.holds]
    assert red, "all rungs hold"
    said = "; ".join(report.diagnoses[backend_name])
    table.append((fault.name, backend_name, f"{red[0].number} {red[0].name}", said))
    print(f"\n{fault.name} | {backend_name} | {red[0].number} {red[0].name} | {said}")
    assert red[0].name == fault.rung, (said, red[0].failures[:3])
    assert fault.where in said
    assert fault.cause in said
    assert not report.holds


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in (1, 2)),
                                  *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 10))])
@pytest.mark.parametrize("network", list(NETWORKS))
def test_without_a_fault_all_is_green(backend_name: str, network: str, seed: int) -> None:
    """The question that the faults are asked, seed 0, and some others."""
    right = referee(network, seed)
    report = compare([trace(backends.load(backend_name), right.case)], referee=right)
    failures = [(rung.name, rung.failures) for rung in report.rungs[backend_name] if not rung.holds]
    assert not failures
    assert report.diagnoses == {backend_name: []}


def test_there_are_faults_enough() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    told = re.search(r"builds (\d+) faults", " ".join(readme.split()))
    assert told and int(told.group(1)) == len(FAULTS)
    assert {fault.backend for fault in FAULTS} == {"torch", "tensorflow", "mxnet"}
    assert len({fault.rung for fault in FAULTS}) >= 8
