"""Data in memory, and the training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.backends.contract import RATE_OUTSIDE, PlacedImages, Sgd, StepMetrics, Trainer, TrainerState
from alexnet_mf.backends.numpy.augment import augment
from alexnet_mf.backends.numpy.layers import Array, softmax_cross_entropy
from alexnet_mf.backends.numpy.network import NumpyNetwork
from alexnet_mf.data.augmentation import Draws
from alexnet_mf.data.preprocessing import PIXEL_SCALE, center_slices, check_inputs, input_size
from alexnet_mf.spec import Network


class Placed(PlacedImages):
    """Images and labels in memory."""

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: NDArray[np.int64] | slice) -> Placed:
        """Return some of the images."""
        return Placed(self.inputs[rows], self.labels[rows], self.size)

    def pixels(self, draws: Draws | None = None) -> NDArray[np.float32]:
        """Return the network's input for all images, before the cast to the dtype of the computation."""
        return pixels(self.inputs, self.size, draws)


def place(network: Network, inputs: NDArray[Any], labels: NDArray[np.int64]) -> Placed:
    """Copy images and labels."""
    check_inputs(inputs, labels, network)
    return Placed(inputs.copy(), labels.astype(np.int64), input_size(network))


def pixels(images: NDArray[Any], size: tuple[int, int], draws: Draws | None = None) -> NDArray[np.float32]:
    """Return the network's input: levels are cropped, augmented, upsampled and scaled, ready inputs only augmented."""
    if images.dtype != np.uint8:
        return augment(images, draws, 1.0) if draws else images
    levels = images[:, np.newaxis] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    if draws:
        return upsample(augment(levels.astype(np.float32), draws, 255.0), size)
    rows, columns = center_slices(levels.shape[2:], size)
    return upsample(levels[..., rows, columns], size)


def upsample(levels: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Turn levels (n, channels, h, w) into pixels (n, channels, *size): interpolated first, then scaled, to stay exact.

    Bilinear upsampling is linear in rows and in columns, so it is one matrix on each side of the image. The numbers
    are exact in float32: weights are whole multiples of 1/16 (or coarser), the values of 1/256, below 256. Only the
    scaling rounds, once.
    """
    levels = levels.astype(np.float32)
    if levels.shape[2:] != size:
        rows, columns = (_upsampling_weights(before, after // before) for before, after in zip(levels.shape[2:], size))
        levels = rows @ levels @ columns.T
    return levels * PIXEL_SCALE


def _upsampling_weights(size: int, factor: int) -> NDArray[np.float32]:
    """Return (size * factor, size): each output pixel's share of each input pixel, half-pixel bilinear.

    Output pixel i has its center at (i + 1/2) / factor input pixels; input pixel j has it at j + 1/2. The two nearest
    inputs share by distance, and beyond the first and the last center the edge pixel is repeated.
    """
    position = (np.arange(size * factor) + 0.5) / factor - 0.5
    below = np.floor(position).astype(np.int64)
    share = position - below
    rows = np.arange(size * factor)
    weights = np.zeros((size * factor, size), np.float32)
    np.add.at(weights, (rows, np.clip(below, 0, size - 1)), 1 - share)
    np.add.at(weights, (rows, np.clip(below + 1, 0, size - 1)), share)
    return weights


class NumpyTrainer(Trainer[Placed]):
    """SGD steps with momentum and weight decay, in place, in the dtype of the parameters."""

    def __init__(self, net: NumpyNetwork, sgd: Sgd, seed: int) -> None:
        self.net = net
        self.sgd = sgd
        self.seed = seed
        self._velocity = {name: np.zeros_like(net.parameters[name]) for name in net.trained}
        self._losses: list[float] = []
        self._correct: list[int] = []

    def step(self, data: Placed, indices: NDArray[np.int64] | None, number: int, draws: Draws | None = None) -> None:
        batch = data if indices is None else data.rows(indices)
        loss, logits, gradients = loss_and_gradients(self.net, batch, (self.seed, number), draws=draws, moving=True)
        self._losses.append(loss)
        self._correct.append(int((logits.argmax(axis=1) == batch.labels).sum()))
        self.update(gradients)

    def update(self, gradients: Mapping[str, Array]) -> None:
        """Update the parameters once, in place."""
        for name, velocity in self._velocity.items():
            weight = self.net.parameters[name]
            velocity *= self.sgd.momentum
            velocity += gradients[name]
            if self.sgd.weight_decay:
                velocity += self.sgd.weight_decay * weight
            weight -= self.sgd.learning_rate * velocity

    def read(self) -> StepMetrics:
        metrics = StepMetrics(np.array(self._losses, np.float64), np.array(self._correct, np.int64))
        self._losses, self._correct = [], []
        return metrics

    def export_state(self) -> TrainerState:
        velocity = self._velocity if self.sgd.momentum else {}
        return TrainerState({name: value.copy() for name, value in self.net.parameters.items()},
                            {name: value.copy() for name, value in velocity.items()}, RATE_OUTSIDE)

    def load_state(self, state: TrainerState) -> None:
        for name, value in state.parameters.items():
            self.net.parameters[name][:] = value
        for name, value in state.velocity.items():
            self._velocity[name][:] = value


def loss_and_gradients(
    net: NumpyNetwork,
    data: Placed,
    dropout: tuple[int, int] | None = None,
    branch: Mapping[str, Array] | None = None,
    draws: Draws | None = None,
    moving: bool = False,
) -> tuple[float, Array, dict[str, Array]]:
    """Return the mean cross entropy of a batch, its logits, and the gradient of every trained parameter.

    Args:
        moving: move the running statistics, as a training step does.
    """
    x = net.cast(data.pixels(draws))
    outputs = dict(net.forward(x, dropout, training=True))
    if moving:
        net.move_statistics(x, outputs)
    logits = outputs[net.spec.layers[-1].name]
    loss, gradient = softmax_cross_entropy(logits, data.labels)
    return loss, logits, net.backward(gradient, x, outputs, dropout, branch)
