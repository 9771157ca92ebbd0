"""Costs of each layer on a batch, by arithmetic: multiply-accumulates, bytes stored and bytes moved.

Bytes moved are the fewest that an implementation can move: each operation reads its operands from memory once and
writes its result once, and an activation is part of its layer. The effect of caches between operations is ignored.
Operations without multiply-accumulates (pooling, normalization, dropout) count as traffic alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.layers import (
    LEARNERS,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LocalResponseNorm,
    MaxPool2d,
    Shape,
)

CONVOLUTIONS, DENSE, OTHER = "convolutions", "fully connected layers", "other layers"
PARTS = (CONVOLUTIONS, DENSE, OTHER)

FORWARD, WEIGHT_GRADIENT, INPUT_GRADIENT, UPDATE = "forward", "weight gradient", "input gradient", "update"

INDEX_BYTES, MASK_BYTES = 8, 1
"""Bytes that PyTorch keeps for each output of max pooling (the position of its maximum) and dropout (the mask)."""


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates, and bytes moved."""

    macs: int
    traffic: int
    """Fewest bytes read and written."""

    @property
    def flops(self) -> int:
        """Floating-point operations, two for each multiply-accumulate."""
        return 2 * self.macs

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, in FLOP per byte moved; 0 if nothing moves."""
        return self.flops / self.traffic if self.traffic else 0.0


@dataclass(frozen=True)
class Stored:
    """Bytes that training keeps from the forward pass to the backward pass, or longer."""

    weights: int
    """Parameters, and the running statistics of batch normalization."""
    weight_gradients: int
    optimizer: int
    """A velocity for each weight, with momentum."""
    activations: int
    """The layer's outputs; 0 for Flatten, whose output is a view of its input."""
    auxiliary: int
    """Other tensors that PyTorch keeps for the backward pass: positions of maxima, dropout masks, the input of a GELU,
    intermediate results of a normalization, padded copies."""

    @property
    def total(self) -> int:
        """Sum of all."""
        return self.weights + self.weight_gradients + self.optimizer + self.activations + self.auxiliary


@dataclass(frozen=True)
class LayerCost:
    """Costs of a layer on a batch, weights and biases together."""

    name: str
    kind: str
    part: str
    """One of PARTS."""
    output: Shape
    """Output shape for one image."""
    parameters: int
    stored: Stored
    activation_gradients: int
    """Bytes of the gradients of its outputs, which exist during part of the backward pass."""
    forward: Work
    """Inference, dropout off."""
    operations: dict[str, Work]
    """A training step: forward, weight gradient, input gradient and update, if the layer has them."""

    @property
    def training(self) -> Work:
        """Costs of a whole training step."""
        return total(self.operations.values())


@dataclass(frozen=True)
class Costs:
    """Costs of a network on a batch."""

    network: Network
    batch_size: int
    item_bytes: int
    momentum: bool
    layers: tuple[LayerCost, ...]

    @property
    def pixels(self) -> int:
        """Bytes of a batch of the network's inputs, which upsampling writes once per step."""
        return self.batch_size * arithmetic.input_values(self.network) * self.item_bytes

    @property
    def stored(self) -> int:
        """Bytes that training keeps from the forward to the backward pass, without the batch's pixels."""
        return sum(layer.stored.total for layer in self.layers)

    @property
    def forward(self) -> Work:
        """Costs of inference on a batch that is ready."""
        return total(layer.forward for layer in self.layers)

    @property
    def training(self) -> Work:
        """Costs of a training step, without upsampling the images."""
        return total(layer.training for layer in self.layers)

    def part(self, name: str) -> list[LayerCost]:
        """Return the layers of one of PARTS."""
        return [layer for layer in self.layers if layer.part == name]


def total(works: Iterable[Work]) -> Work:
    """Return the sum."""
    listed = list(works)
    return Work(sum(work.macs for work in listed), sum(work.traffic for work in listed))


def costs(network: Network, batch_size: int, item_bytes: int = 4, momentum: bool = False) -> Costs:
    """Return the costs of every layer.

    Args:
        item_bytes: size of a number: 4 in float32, 8 in float64.
        momentum: True if the optimizer keeps a velocity for each parameter.
    """
    inputs, outputs = arithmetic.input_shapes(network), arithmetic.output_shapes(network)
    macs = arithmetic.macs(network)
    first = first_learner(network)
    learning, layers = False, []
    for layer in network.layers:
        learning = learning or layer.name == first
        layers.append(_layer_cost(layer, inputs[layer.name], outputs[layer.name], batch_size * macs[layer.name],
                                  batch_size, item_bytes, momentum, learning, layer.name != first))
    return Costs(network, batch_size, item_bytes, momentum, tuple(layers))


def first_learner(network: Network) -> str:
    """Return the first layer with weights, where the backward pass ends."""
    return next(layer.name for layer in network.layers if isinstance(layer, LEARNERS))


def is_view(layer: Layer) -> bool:
    """Return True if the layer's output is its input, in the same memory."""
    return isinstance(layer, Flatten) or (isinstance(layer, Dropout) and not layer.rate)


def saves_sums(layer: Layer) -> bool:
    """Return True if the derivative of the layer's activation is computed from its input, not from its output."""
    return getattr(layer, "activation", None) in ("gelu", "gelu_tanh")


def _layer_cost(layer: Layer, inputs: Shape, outputs: Shape, macs: int, batch_size: int, item_bytes: int,
                momentum: bool, backward: bool, passes_on: bool) -> LayerCost:
    """Return the costs of a layer.

    Args:
        backward: True if the backward pass reaches this layer.
        passes_on: True if it continues to the layer before.
    """
    x, y = (batch_size * math.prod(shape) * item_bytes for shape in (inputs, outputs))
    parameters = arithmetic.parameter_count(layer, inputs)
    weights = parameters * item_bytes
    statistics = 2 * inputs[0] * item_bytes if isinstance(layer, BatchNorm) else 0
    viewed = is_view(layer)
    stored = Stored(weights + statistics, weights, weights * momentum, 0 if viewed else y,
                  auxiliary_bytes(layer, inputs, outputs, batch_size, item_bytes) if backward else 0)
    forward = Work(macs, 0 if viewed or isinstance(layer, Dropout) else x + weights + statistics + y)
    operations = {FORWARD: Work(macs, 0 if viewed else x + weights + 2 * statistics + y)}  # read, moved and written
    if backward and parameters:
        derivative = y if layer.activation else 0  # type: ignore[union-attr]  # computed from its outputs or inputs
        operations[WEIGHT_GRADIENT] = Work(macs, x + y + derivative + weights)
        operations[UPDATE] = Work(0, (5 if momentum else 3) * weights)  # reads and writes weight (and velocity)
    if backward and passes_on and not viewed:
        reads = 2 if isinstance(layer, (LocalResponseNorm, BatchNorm)) else 1  # their derivatives depend on the inputs
        operations[INPUT_GRADIENT] = Work(macs, weights + y + reads * x)
    part = CONVOLUTIONS if isinstance(layer, Conv2d) else DENSE if isinstance(layer, Dense) else OTHER
    return LayerCost(layer.name, type(layer).__name__, part, outputs, parameters, stored,
                     y if backward and not viewed else 0, forward, operations)


def auxiliary_bytes(layer: Layer, inputs: Shape, outputs: Shape, batch_size: int, item_bytes: int) -> int:
    """Return the bytes that PyTorch keeps of this layer for the backward pass, beside its inputs and outputs."""
    values = batch_size * math.prod(outputs)
    copied = item_bytes * batch_size * arithmetic.padded_values(layer, inputs)
    if isinstance(layer, LEARNERS):
        return copied + (item_bytes * values if saves_sums(layer) else 0)
    if isinstance(layer, MaxPool2d):
        return INDEX_BYTES * values + copied
    if isinstance(layer, Dropout) and layer.rate:
        return MASK_BYTES * values
    if isinstance(layer, LocalResponseNorm):  # padded squares, the base and the power
        padded = values // inputs[0] * (inputs[0] + layer.size - 1)
        return item_bytes * (padded + 2 * values)
    return copied
