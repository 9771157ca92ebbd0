"""Peak memory of a training step, predicted by following its tensors as PyTorch allocates and frees them.

`Trainer.step` in eager PyTorch drops the gradients of the last step. The forward pass keeps the tensors that the
backward pass needs. The backward pass goes from the last layer to the first, and frees a layer's tensors once its
gradients are computed. The update follows. Workspaces of libraries, labels and scalars are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from alexnet_mf.analysis.costs import Costs, LayerCost, first_learner, is_view
from alexnet_mf.spec.layers import Conv2d, Dense, Dropout, Layer, LocalResponseNorm, Normalize

NORMALISATION_FORWARD, NORMALISATION_BACKWARD = 2, 3
"""Temporary tensors of local response normalization, each of its input's size, beside those it keeps."""


@dataclass(frozen=True)
class Peak:
    """Peak memory and its moment."""

    bytes: int
    moment: str
    """`the end of the forward pass`, `the gradients of conv2`, ..."""


class Tape:
    """Bytes in use, and their peak so far."""

    def __init__(self, in_use: int) -> None:
        self.in_use = in_use
        self.peak = Peak(in_use, "the beginning")

    def look(self, moment: str, temporary: int = 0) -> None:
        """Update the peak with the bytes in use and those of temporary tensors."""
        if self.in_use + temporary > self.peak.bytes:
            self.peak = Peak(self.in_use + temporary, moment)


def predicted_peak(costs: Costs) -> Peak:
    """Return the peak memory of the tensors in a training step after the first."""
    weights = sum(layer.held.weights for layer in costs.layers)
    velocity = sum(layer.held.optimizer for layer in costs.layers)
    tape = Tape(weights + velocity + costs.pixels)
    layers = [(layer, cost) for layer, cost in zip(costs.network.layers, costs.layers) if not is_view(layer)]
    first = first_learner(costs.network)
    learns = [cost.name for _, cost in layers].index(first)  # below it backward needs the input of this layer alone
    stays = [i >= learns - 1 and _stays(layer, layers[i + 1][0] if i + 1 < len(layers) else None)
             for i, (layer, _) in enumerate(layers)]
    _forward(tape, layers, stays)
    logits = layers[-1][1].held.activations
    tape.in_use += logits  # their log softmax, which the loss keeps
    tape.look("the end of the forward pass")
    tape.look("the gradient of the loss", 2 * logits)
    tape.in_use -= logits
    _backward(tape, layers, stays, first)
    return tape.peak


def _stays(layer: Layer, following: Layer | None) -> bool:
    """Return True if backward needs this layer's output: for its own activation, or as the next layer's input. Dropout
    alone needs none. The logits stay because the caller holds them.
    """
    return bool(getattr(layer, "activation", None)) or not isinstance(following, Dropout)


def _forward(tape: Tape, layers: list[tuple[Layer, LayerCost]], stays: list[bool]) -> None:
    before = 0  # the layer's input, if nothing else holds it
    for (layer, cost), kept in zip(layers, stays):
        output = cost.held.activations
        tape.in_use += cost.held.auxiliary + output
        passing = output if getattr(layer, "activation", None) else 0
        if isinstance(layer, LocalResponseNorm):
            passing = NORMALISATION_FORWARD * output
        if isinstance(layer, Normalize):
            passing = output  # the pixels less their mean
        tape.look(f"the output of {cost.name}", passing)
        tape.in_use -= before
        before = 0 if kept else output


def _backward(tape: Tape, layers: list[tuple[Layer, LayerCost]], stays: list[bool], first: str) -> None:
    gradient = layers[-1][1].activation_gradients  # in the layer's output
    tape.in_use += gradient
    for i in reversed(range(len(layers))):
        layer, cost = layers[i]
        below = layers[i - 1][1].held.activations if i else 0
        if getattr(layer, "activation", None):
            tape.look(f"the gradients of {cost.name}", gradient)  # one before and one after the activation
            tape.in_use -= cost.held.activations
        passed_on = below if cost.name != first else 0
        passing = NORMALISATION_BACKWARD * gradient if isinstance(layer, LocalResponseNorm) else 0
        tape.in_use += passed_on + (cost.held.weight_gradients if isinstance(layer, (Conv2d, Dense)) else 0)
        tape.look(f"the gradients of {cost.name}", passing)
        if cost.name == first:
            return
        tape.in_use -= gradient + cost.held.auxiliary
        if stays[i - 1] and not getattr(layers[i - 1][0], "activation", None):
            tape.in_use -= below
        gradient = passed_on
