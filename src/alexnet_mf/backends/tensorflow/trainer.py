"""Data that stays on the device, and the training step."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from alexnet_mf.backends.contract import RATE_INSIDE, PlacedImages, Sgd, StepMetrics, Trainer, TrainerState
from alexnet_mf.backends.randomness import dropout_seed
from alexnet_mf.backends.tensorflow import weights
from alexnet_mf.backends.tensorflow.augment import SPECIFICATION, arrays, augment, tensors
from alexnet_mf.data.augmentation import Draws
from alexnet_mf.data.preprocessing import PIXEL_SCALE, center_slices, check_inputs, input_size
from alexnet_mf.spec import Network
from alexnet_mf.weights import layouts


class Placed(PlacedImages):
    """Images and labels on the device; ready inputs are NHWC."""

    def batch(self, rows: slice, draws: Draws | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the network's input and the labels of some rows."""
        drawn = tensors(draws) if draws else ()
        return pixels(self.inputs[rows], self.size, draws, drawn), self.labels[rows]


def place(network: Network, inputs: NDArray[Any], labels: NDArray[np.int64], device: str) -> Placed:
    """Copy images and labels to the device, once."""
    check_inputs(inputs, labels, network)
    if inputs.dtype != np.uint8:
        inputs = inputs.transpose(0, 2, 3, 1)
    with tf.device(device):
        return Placed(tf.identity(inputs), tf.identity(labels), input_size(network))


def pixels(images: tf.Tensor, size: tuple[int, int], draws: Draws | None = None,
           drawn: tuple[tf.Tensor, ...] = ()) -> tf.Tensor:
    """Return the network's input: levels are cropped, augmented, upsampled and scaled, ready inputs only augmented."""
    if images.dtype != tf.uint8:
        return augment(images, draws, drawn, 1.0) if draws else images
    levels = images[..., tf.newaxis] if len(images.shape) == 3 else images
    if draws:
        return upsample(augment(tf.cast(levels, tf.float32), draws, drawn, 255.0), size)
    rows, columns = center_slices(levels.shape[1:3], size)
    return upsample(levels[:, rows, columns], size)


def upsample(levels: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Turn levels (n, h, w, channels) into pixels (n, *size, channels): interpolated first, then scaled, to stay
    exact."""
    levels = tf.cast(levels, tf.float32)
    if tuple(levels.shape[1:3]) != size:
        levels = tf.image.resize(levels, size, "bilinear")  # half-pixel centers are its only convention
    return levels * PIXEL_SCALE


def seed_dropout(net: keras.Sequential, seed: tf.Tensor) -> None:
    """Make the next masks a function of this 32-bit seed; each layer gets a stream of its own."""
    for number, layer in enumerate(net.layers):
        if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
            layer.seed_generator.state.assign(tf.stack([seed, tf.constant(number, seed.dtype)]))


BLOCK_SECONDS = 0.1
"""Approximate length of a block of steps; a stop waits for the end of the block."""
MOST_STEPS = 64
"""Largest number of steps in a block."""


class TensorFlowTrainer(Trainer[Placed]):
    """SGD steps as one graph (`tf.function`), traced once for any batch size; or eagerly, if not compiled.

    The graph takes a block of steps at a time. Python and the copies of arguments cost 1 to 2 ms a call, which is half
    of a small network's step on a CPU (`lenet5-relu`, batch 64, 2 cores: 3.9 ms a step instead of 6.0).
    """

    def __init__(self, net: keras.Sequential, network: Network, sgd: Sgd, seed: int, device: str,
                 compiled: bool, waiting: list[TensorFlowTrainer]):
        """
        Args:
            waiting: trainers of the model with pending steps; see `take_steps`.
        """
        self.net = net
        self.network = network
        self.seed = seed
        self.device = device
        self.sgd = sgd
        self.optimizer = keras.optimizers.SGD(sgd.learning_rate, sgd.momentum)
        self._losses: list[tf.Tensor] = []
        self._correct: list[tf.Tensor] = []
        self._draws: Draws | None = None
        """Draws of the pending steps' last. A graph is traced with its first, and reads only what they have in
        common."""
        self._graph: Any = None
        self._traced: tuple[Any, ...] = ()
        """Size of the graph's images, and the values that its draws have in common."""
        self._compiled = compiled
        self._waiting = waiting
        self._data: Placed
        self._block: list[tuple[NDArray[np.int64], int, tuple[NDArray[Any], ...]]] = []
        """Rows, dropout seed and draws of each pending step on `_data`."""
        self._block_steps, self._most_steps = 1, MOST_STEPS
        self._began: float | None = None
        """Time of the first step since the last reading."""
        self._unread = 0

    def step(self, data: Placed, indices: NDArray[np.int64] | None, number: int, draws: Draws | None = None) -> None:
        indices = np.arange(len(data.labels)) if indices is None else indices
        traced = (data.inputs.shape[1:], draws and (draws.kinds, draws.padding, draws.size))
        is_other = bool(self._block) and (data is not self._data or len(indices) != len(self._block[0][0])
                                          or traced != self._traced)
        if is_other or self._waiting != [self]:
            finish_steps(self._waiting)
            self._waiting.append(self)
        if traced != self._traced:
            self._traced, self._graph = traced, None
        self._data, self._draws = data, draws
        self._began = self._began or time.perf_counter()
        self._unread += 1
        self._block.append((indices.copy(), dropout_seed(self.seed, number), arrays(draws) if draws else ()))
        if len(self._block) >= self._block_steps:
            self.take_steps()

    def take_steps(self) -> None:
        """Take the pending steps. The model calls this before anything that depends on its weights."""
        block, self._block = self._block, []
        self._waiting.remove(self)
        began = time.perf_counter()
        rows, seeds, *drawn = map(np.stack, zip(*((rows, seed, *draws) for rows, seed, draws in block)))
        with tf.device(self.device):
            if self._graph is None:
                images = self._data.inputs
                self._graph = self._steps if not self._compiled else tf.function(self._steps, input_signature=[
                    tf.TensorSpec([None, *images.shape[1:]], images.dtype), tf.TensorSpec([None], tf.int64),
                    tf.TensorSpec([None, None], tf.int64), tf.TensorSpec([None], tf.uint32),
                    SPECIFICATION if drawn else ()])
            losses, correct = self._graph(self._data.inputs, self._data.labels, tf.constant(rows),
                                          tf.constant(seeds, tf.uint32), tuple(map(tf.constant, drawn)))
        self._losses.append(losses)
        self._correct.append(correct)
        seconds = (time.perf_counter() - began) / len(block)
        if self._compiled:
            self._block_steps = max(1, min(self._most_steps, int(BLOCK_SECONDS / seconds)))

    def read(self) -> StepMetrics:
        finish_steps(self._waiting)
        with tf.device(self.device):  # joined there: one copy for all steps
            losses, correct = (tf.concat(values, 0).numpy() if values else np.zeros(0)
                               for values in (self._losses, self._correct))
        self._losses, self._correct = [], []
        if self._began:  # by the device's own time: the call of a graph may return before it has finished
            self._most_steps = max(1, min(MOST_STEPS, int(self._unread * BLOCK_SECONDS /
                                                          (time.perf_counter() - self._began))))
        self._began, self._unread = None, 0
        return StepMetrics(losses.astype(np.float64), correct.astype(np.int64))

    def export_state(self) -> TrainerState:
        finish_steps(self._waiting)
        momenta = self.optimizer.momentums if self.optimizer.built and self.sgd.momentum else []
        velocity = weights.export_values(dict(zip(weights.trained(self.net), momenta)), self.network)
        return TrainerState(weights.export(self.net, self.network), velocity, RATE_INSIDE)

    def load_state(self, state: TrainerState) -> None:
        finish_steps(self._waiting)
        weights.load(self.net, self.network, state.parameters)
        if state.velocity:
            variables = weights.trained(self.net)
            with tf.device(self.device):
                self.optimizer.build(list(variables.values()))
            flattened = layouts.flattened_shapes(self.network)
            for name, momentum in zip(variables, self.optimizer.momentums):
                momentum.assign(layouts.to_native(state.velocity[name], flattened.get(name)))

    def _steps(self, images: tf.Tensor, labels: tf.Tensor, rows: tf.Tensor, seeds: tf.Tensor,
               drawn: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        """Take a step for each row of `rows`; return the losses and the numbers of correct images."""
        count = tf.shape(seeds)[0]

        def step(i: tf.Tensor, losses: tf.TensorArray, correct: tf.TensorArray) -> tuple[Any, ...]:
            x, y = self.gather(images, labels, rows[i], tuple(values[i] for values in drawn))
            loss, logits, gradients = self.forward_backward(x, y, seeds[i])
            self.update(gradients)
            right = tf.math.count_nonzero(tf.argmax(logits, 1) == y)
            return i + 1, losses.write(i, loss), correct.write(i, right)

        results = (tf.TensorArray(tf.float32, count), tf.TensorArray(tf.int64, count))
        _, losses, correct = tf.while_loop(lambda i, *results: i < count, step, (0, *results), parallel_iterations=1)
        return losses.stack(), correct.stack()

    def gather(self, images: tf.Tensor, labels: tf.Tensor, rows: tf.Tensor,
               drawn: tuple[tf.Tensor, ...] = ()) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the network's input and the labels of some rows."""
        inputs = pixels(tf.gather(images, rows), input_size(self.network), self._draws, drawn)
        return inputs, tf.gather(labels, rows)

    def forward_backward(self, x: tf.Tensor, y: tf.Tensor,
                         seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Return the loss, the logits, and the gradient of each variable."""
        seed_dropout(self.net, seed)
        with tf.GradientTape() as tape:
            logits = self.net(x, training=True)
            loss = mean_loss(logits, y)
        variables = weights.trained(self.net).values()
        return loss, logits, tape.gradient(loss, [variable.value for variable in variables])

    def update(self, gradients: list[tf.Tensor]) -> None:
        """Update the variables once."""
        variables = list(weights.trained(self.net).values())
        if self.sgd.weight_decay:  # Keras's weight decay is decoupled, as in AdamW; the paper's is not
            gradients = [g + self.sgd.weight_decay * w for g, w in zip(gradients, variables)]
        with tf.init_scope():  # variables are created outside the graph
            self.optimizer.build(variables)  # does nothing the second time
        # Not `optimizer.apply`: it sums the gradients of all replicas first, by `all_reduce`, whose gradient TensorFlow
        # registers under a new name for each graph and never removes. The registry then keeps the graph, its
        # variables and the buffers of its kernels until the process ends (TensorFlow 2.21, Keras 3.15).
        for gradient, variable in zip(gradients, variables):
            self.optimizer.update_step(gradient, variable, self.optimizer.learning_rate)


def finish_steps(waiting: list[TensorFlowTrainer]) -> None:
    """Take the pending steps of one model's trainers."""
    for trainer in waiting[:]:
        trainer.take_steps()


def mean_loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the mean softmax cross entropy."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32)))
