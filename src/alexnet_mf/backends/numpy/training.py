"""Images to pixels, loss and gradients of a batch, and SGD steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.backends.common import PIXEL_SCALE, check_inputs, upsampling_factor
from alexnet_mf.backends.contract import RATE_OUTSIDE, Sgd, StepMetrics, Trainer, TrainerState
from alexnet_mf.backends.numpy.augmentation import augment
from alexnet_mf.backends.numpy.layers import Array, softmax_cross_entropy
from alexnet_mf.backends.numpy.network import NumpyNetwork
from alexnet_mf.data.augmentation import Draws, draw
from alexnet_mf.spec import Network


@dataclass(frozen=True)
class PlacedData:
    """Images as they came, uint8 or float32, and their labels."""

    inputs: NDArray[Any]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def image(self) -> tuple[int, ...]:
        """(channels, height, width) of the images as they came."""
        return self.inputs.shape[1:] if self.inputs.ndim == 4 else (1, *self.inputs.shape[1:])

    def rows(self, indices: NDArray[np.int64] | slice) -> PlacedData:
        """Some of the images."""
        return PlacedData(self.inputs[indices], self.labels[indices])


def place(inputs: NDArray[Any], labels: NDArray[np.int64], network: Network) -> PlacedData:
    """Check images and labels against the network, and keep a copy of them.

    Raises:
        DataError: where they do not fit it, or each other.
    """
    check_inputs(inputs, labels, network)
    return PlacedData(inputs.copy(), labels.astype(np.int64))


def pixels(data: PlacedData, network: Network, draws: Draws | None = None) -> NDArray[np.float32]:
    """What the network is fed: augmented, upsampled, scaled to [0, 1], NCHW.

    Bilinear upsampling is linear in rows and in columns, so it is one matrix on each side of the image. The numbers
    are exact in float32: weights are whole multiples of 1/16 (or coarser), the values of 1/256, below 256. Only the
    scaling rounds, once.
    """
    if data.inputs.dtype != np.uint8:
        return augment(data.inputs, draws, 1.0) if draws else data.inputs
    _, height, width = data.inputs.shape
    factor = upsampling_factor((height, width), network)
    grey = data.inputs.astype(np.float32)[:, np.newaxis]
    if draws:
        grey = augment(grey, draws, 255.0)
    upsampled = _upsampling_weights(height, factor) @ grey @ _upsampling_weights(width, factor).T
    return upsampled * PIXEL_SCALE


def _upsampling_weights(size: int, factor: int) -> NDArray[np.float32]:
    """(size * factor, size): each output pixel's share of each input pixel, half-pixel bilinear.

    Output pixel i has its centre at (i + 1/2) / factor input pixels; input pixel j has it at j + 1/2. The two nearest
    inputs share by distance, and beyond the first and the last centre the edge pixel is repeated.
    """
    position = (np.arange(size * factor) + 0.5) / factor - 0.5
    below = np.floor(position).astype(np.int64)
    share = position - below
    rows = np.arange(size * factor)
    weights = np.zeros((size * factor, size), np.float32)
    np.add.at(weights, (rows, np.clip(below, 0, size - 1)), 1 - share)
    np.add.at(weights, (rows, np.clip(below + 1, 0, size - 1)), share)
    return weights


def network_input(data: PlacedData, network: NumpyNetwork, draws: Draws | None = None) -> Array:
    """The pixels, in the dtype of the computation."""
    return pixels(data, network.spec, draws).astype(network.dtype, copy=False)


def loss_and_gradients(
    network: NumpyNetwork,
    data: PlacedData,
    dropout: tuple[int, int] | None = None,
    branch: Mapping[str, Array] | None = None,
    draws: Draws | None = None,
) -> tuple[float, Array, dict[str, Array]]:
    """Mean cross entropy of a batch, its logits, and the gradient in every parameter."""
    x = network_input(data, network, draws)
    outputs = dict(network.forward(x, dropout))
    logits = outputs[network.spec.layers[-1].name]
    loss, gradient = softmax_cross_entropy(logits, data.labels)
    return loss, logits, network.backward(gradient, x, outputs, dropout, branch)


class NumpyTrainer(Trainer[PlacedData]):
    """SGD with momentum and weight decay, in place, in the dtype of the parameters."""

    def __init__(self, network: NumpyNetwork, sgd: Sgd, seed: int, augment: tuple[str, ...] = ()) -> None:
        self._network = network
        self._sgd = sgd
        self._seed = seed
        self._augment = augment
        self._velocity = {name: np.zeros_like(value) for name, value in network.parameters.items()}
        self._losses: list[float] = []
        self._correct: list[int] = []

    def step(self, data: PlacedData, indices: NDArray[np.int64], number: int) -> None:
        """One step of mean softmax cross entropy on these rows of the data."""
        batch = data.rows(indices)
        draws = draw(self._augment, self._seed, number, len(batch), batch.image)
        loss, logits, gradients = loss_and_gradients(self._network, batch, dropout=(self._seed, number), draws=draws)
        self._losses.append(loss)
        self._correct.append(int((logits.argmax(axis=1) == batch.labels).sum()))
        self.update(gradients)

    def update(self, gradients: Mapping[str, Array]) -> None:
        """One update of the parameters, in place."""
        for name, weight in self._network.parameters.items():
            velocity = self._velocity[name]
            velocity *= self._sgd.momentum
            velocity += gradients[name]
            if self._sgd.weight_decay:
                velocity += self._sgd.weight_decay * weight
            weight -= self._sgd.learning_rate * velocity

    def read(self) -> StepMetrics:
        """The metrics of the steps since the last reading."""
        metrics = StepMetrics(np.array(self._losses, np.float64), np.array(self._correct, np.int64))
        self._losses, self._correct = [], []
        return metrics

    def export_state(self) -> TrainerState:
        """What the steps so far have made, in the dtype of the computation."""
        velocity = self._velocity if self._sgd.momentum else {}
        return TrainerState({name: value.copy() for name, value in self._network.parameters.items()},
                            {name: value.copy() for name, value in velocity.items()}, RATE_OUTSIDE)

    def load_state(self, state: TrainerState) -> None:
        """Go on from what such a trainer exported."""
        for name, value in state.parameters.items():
            self._network.parameters[name][:] = value
        for name, value in state.velocity.items():
            self._velocity[name][:] = value


def phases(
    network: NumpyNetwork, data: PlacedData, indices: NDArray[np.int64], sgd: Sgd, seed: int
) -> dict[str, Callable[[int], None]]:
    """The parts of a training step, each to be timed alone; see `Model.phases`."""
    trainer = NumpyTrainer(network, sgd, seed)
    rows = data.rows(indices)
    ready = PlacedData(network_input(rows, network), rows.labels)
    _, _, gradients = loss_and_gradients(network, ready)

    def enlarge(number: int) -> None:
        network_input(data.rows(indices), network)

    def forward(number: int) -> None:
        for _ in network.forward(ready.inputs):
            pass

    def forward_backward(number: int) -> None:
        loss_and_gradients(network, ready, dropout=(seed, number))

    def optimizer(number: int) -> None:
        trainer.update(gradients)

    def step(number: int) -> None:
        trainer.step(data, indices, number)

    return {"input": enlarge, "forward": forward, "forward_backward": forward_backward, "optimizer": optimizer,
            "step": step}
