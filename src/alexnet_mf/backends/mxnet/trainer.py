"""Data that stays on the device, and the training step."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn
from numpy.typing import NDArray

from alexnet_mf.backends.contract import RATE_INSIDE, PlacedImages, Sgd, StepMetrics, Trainer, TrainerState
from alexnet_mf.backends.mxnet import weights
from alexnet_mf.backends.mxnet.augment import augment
from alexnet_mf.backends.randomness import dropout_seed
from alexnet_mf.data.augmentation import Draws
from alexnet_mf.data.preprocessing import PIXEL_SCALE, center_slices, check_inputs, input_size
from alexnet_mf.spec import Network


class Placed(PlacedImages):
    """Images and labels on the device."""

    def batch(self, rows: mx.nd.NDArray | slice, draws: Draws | None = None) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
        """Return the network's input and the labels of some rows."""
        if isinstance(rows, slice):
            return pixels(self.inputs[rows], self.size, draws), self.labels[rows]
        return pixels(mx.nd.take(self.inputs, rows), self.size, draws), mx.nd.take(self.labels, rows)


def place(network: Network, inputs: NDArray[Any], labels: NDArray[np.int64], context: mx.Context) -> Placed:
    """Copy images and labels to the device, once."""
    check_inputs(inputs, labels, network)
    return Placed(mx.nd.array(inputs, ctx=context, dtype=inputs.dtype),
                  mx.nd.array(labels, ctx=context, dtype="int32"), input_size(network))


def pixels(images: mx.nd.NDArray, size: tuple[int, int], draws: Draws | None = None) -> mx.nd.NDArray:
    """Return the network's input: levels are cropped, augmented, upsampled and scaled, ready inputs only augmented."""
    if images.dtype != np.uint8:
        return augment(images, draws, 1.0) if draws else images
    levels = images.expand_dims(1) if images.ndim == 3 else images.transpose((0, 3, 1, 2))
    if draws:
        return upsample(augment(levels.astype("float32"), draws, 255.0), size)
    rows, columns = center_slices(levels.shape[2:], size)
    return upsample(levels[:, :, rows, columns], size)


def upsample(levels: mx.nd.NDArray, size: tuple[int, int]) -> mx.nd.NDArray:
    """Turn levels (n, channels, h, w) into pixels (n, channels, *size): interpolated first, then scaled, to stay
    exact."""
    levels = levels.astype("float32")
    if levels.shape[2:] != size:
        levels = mx.nd.contrib.BilinearResize2D(levels, height=size[0], width=size[1],
                                                align_corners=False)  # its default is True
    return levels * float(PIXEL_SCALE)


def seed_dropout(seed: int, context: mx.Context) -> None:
    """Make the next masks a function of this 32-bit seed."""
    mx.random.seed(seed, ctx=context)


class MXNetTrainer(Trainer[Placed]):
    """SGD steps by Gluon's trainer."""

    def __init__(self, net: nn.HybridSequential, sgd: Sgd, seed: int, context: mx.Context):
        self.net = net
        self.seed = seed
        self.context = context
        self.trainer = gluon.Trainer(net.collect_params(), "sgd", {
            "learning_rate": sgd.learning_rate, "momentum": sgd.momentum, "wd": sgd.weight_decay})
        self.loss = gluon.loss.SoftmaxCrossEntropyLoss()
        self._losses: list[mx.nd.NDArray] = []
        self._correct: list[mx.nd.NDArray] = []

    def step(self, data: Placed, indices: NDArray[np.int64] | None, number: int, draws: Draws | None = None) -> None:
        rows = slice(None) if indices is None else mx.nd.array(indices, ctx=self.context, dtype="int32")
        pixels, labels = data.batch(rows, draws)
        losses, logits = self.forward_backward(pixels, labels, number)
        self.trainer.step(len(labels))  # one loss per image; this call divides by the batch size
        self._losses.append(losses.mean())
        self._correct.append((logits.argmax(axis=1).astype("int32") == labels).sum())

    def forward_backward(self, pixels: mx.nd.NDArray, labels: mx.nd.NDArray,
                         number: int) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
        """Compute gradients in place, summed over the batch; return the loss of each image and the logits."""
        seed_dropout(dropout_seed(self.seed, number), self.context)
        with autograd.record():
            logits = self.net(pixels)
            losses = self.loss(logits, labels)
        losses.backward()
        return losses, logits

    def read(self) -> StepMetrics:
        losses = np.array([loss.asscalar() for loss in self._losses], np.float64)
        correct = np.array([count.asscalar() for count in self._correct], np.int64)
        self._losses, self._correct = [], []
        return StepMetrics(losses, correct)

    def export_state(self) -> TrainerState:
        parameters = weights.export(self.net)  # waits for all work in progress
        states = self._updater.states
        return TrainerState(parameters, {name: states[i].asnumpy() for name, i in self._places().items()
                                         if states.get(i) is not None}, RATE_INSIDE)

    def load_state(self, state: TrainerState) -> None:
        weights.load(self.net, state.parameters)
        for name, i in self._places().items():
            if name in state.velocity:
                self._updater.states[i] = mx.nd.array(state.velocity[name], ctx=self.context, dtype="float32")
                self._updater.states_synced[i] = True

    @property
    def _updater(self) -> Any:
        """Return Gluon's velocities by index. Its own functions to read and write them use pickle."""
        return self.trainer._updaters[0]

    def _places(self) -> dict[str, int]:
        """Return each parameter's index: Gluon sorts them by name."""
        return {name: self.trainer._param2idx[parameter.name]
                for name, parameter in weights.named_parameters(self.net).items()}
