"""Peak memory of a training step, predicted by following its tensors as PyTorch allocates and frees them.

`Trainer.step` in eager PyTorch drops the gradients of the last step. The forward pass keeps the tensors that the
backward pass needs. The backward pass goes from the last layer to the first, and frees a layer's tensors once its
gradients are computed. The update follows. Workspaces of libraries, labels and scalars are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from alexnet_mf.analysis.costs import Costs, LayerCost, first_learner, is_view, saves_sums
from alexnet_mf.spec import arithmetic
from alexnet_mf.spec.layers import LEARNERS, AvgPool2d, Conv2d, Dropout, Layer, LocalResponseNorm, Normalize, sides

NORMALIZATION_FORWARD, NORMALIZATION_BACKWARD = 2, 3
"""Numbers of temporary tensors of its input's size in local response normalization, beside those it keeps."""


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


@dataclass
class _Step:
    """A layer in the order of the forward pass."""

    layer: Layer
    cost: LayerCost
    stays: bool
    """True if the backward pass needs its output."""
    copied: int
    """Bytes of a padded copy of its input."""
    folded: int = 0
    """Bytes of its folded input and kernel. During folding, the padded ones take as many."""
    widened: int = 0
    """Bytes of a copy of its input that exists while its weight gradient is computed."""

    @property
    def activation(self) -> str | None:
        return getattr(self.layer, "activation", None)

    @property
    def sums(self) -> int:
        """Bytes of the activation's input, if backward needs it instead of the output."""
        return self.cost.stored.activations if saves_sums(self.layer) else 0


def predicted_peak(costs: Costs, kernels: Mapping[str, Collection[str]] = {}) -> Peak:
    """Return the peak memory of the tensors in a training step after the first.

    Args:
        kernels: kernels of the convolutions, by layer, as `MeasurableModel.kernels` returns them.
    """
    weights = sum(layer.stored.weights for layer in costs.layers)
    velocity = sum(layer.stored.optimizer for layer in costs.layers)
    tape = Tape(weights + velocity + costs.pixels)
    layers = [(layer, cost) for layer, cost in zip(costs.network.layers, costs.layers) if not is_view(layer)]
    first = first_learner(costs.network)
    learns = [cost.name for _, cost in layers].index(first)  # before it, backward needs this layer's input alone
    inputs = arithmetic.input_shapes(costs.network)
    copies = [costs.batch_size * costs.item_bytes * arithmetic.padded_values(layer, inputs[layer.name])
              for layer, _ in layers]
    following = [*zip([layer for layer, _ in layers], copies), (None, 0)][1:]
    steps = [_Step(layer, cost, i >= learns - 1 and _stays(layer, after, copied > 0), copies[i])
             for i, ((layer, cost), (after, copied)) in enumerate(zip(layers, following))]
    _apply(kernels, steps, costs)
    _forward(tape, steps)
    logits = layers[-1][1].stored.activations
    tape.in_use += logits  # their log softmax, which the loss keeps
    tape.look("the end of the forward pass")
    tape.look("the gradient of the loss", 2 * logits)
    tape.in_use -= logits
    _backward(tape, steps, first)
    return tape.peak


def _apply(kernels: Mapping[str, Collection[str]], steps: list[_Step], costs: Costs) -> None:
    """Change the steps of the convolutions that are not computed as PyTorch's own layers."""
    inputs = arithmetic.input_shapes(costs.network)
    for step, following in itertools.pairwise(steps):
        layer, names = step.layer, kernels.get(step.cost.name, ())
        if not isinstance(layer, Conv2d):
            continue
        channels, height, width = inputs[layer.name]
        pixel = costs.batch_size * channels * costs.item_bytes
        if "ieee" in names:
            (top, bottom), (left, right) = sides(layer.padding)
            step.widened = pixel * (top + height + bottom) * (left + width + right + 1)
        if "fold" in names:  # backward needs the folded input and kernel, of whole blocks, and no padded copy
            step.cost = replace(step.cost, stored=replace(step.cost.stored, auxiliary=step.sums))
            blocks = -(-layer.kernel // layer.stride)
            rows, columns = (layer.stride * (size - 1 + blocks) for size in step.cost.output[1:])
            kernel = layer.channels * channels * (blocks * layer.stride)**2 * costs.item_bytes
            step.folded = pixel * rows * columns + kernel
        if "pool" in names:  # backward needs a byte for each pooled value, and not the convolution's output
            step.layer, step.stays = replace(layer, activation=None), False
            stored, item = following.cost.stored, costs.item_bytes
            following.cost = replace(following.cost, stored=replace(stored, auxiliary=stored.activations // item))


def _stays(layer: Layer, following: Layer | None, is_copied: bool) -> bool:
    """Return True if backward needs this layer's output: for its own activation, or as the next layer's input. Only
    dropout and a layer that reads a padded copy do not need their input. The logits stay because the caller keeps them.
    """
    needs_output = bool(getattr(layer, "activation", None)) and not saves_sums(layer)
    return needs_output or not (isinstance(following, Dropout) or is_copied)


def _forward(tape: Tape, steps: list[_Step]) -> None:
    before = 0  # the layer's input, if nothing else holds it
    for step in steps:
        output = step.cost.stored.activations
        kept = step.copied if step.cost.stored.auxiliary > step.sums else 0
        if step.copied:
            tape.in_use += step.copied
            tape.look(f"the padded input of {step.cost.name}")
            tape.in_use -= before
            before = 0
        tape.in_use += step.folded
        tape.look(f"the folded input of {step.cost.name}", step.folded)
        tape.in_use += step.cost.stored.auxiliary - kept + output
        passing = output if step.activation and not step.sums else 0
        if isinstance(step.layer, LocalResponseNorm):
            passing = NORMALIZATION_FORWARD * output
        if isinstance(step.layer, Normalize):
            passing = output  # the pixels minus their mean
        if isinstance(step.layer, AvgPool2d) and step.copied and not step.layer.count_padding:
            passing = output  # the sums
        tape.look(f"the output of {step.cost.name}", passing)
        tape.in_use -= before + step.copied - kept
        before = 0 if step.stays else output


def _backward(tape: Tape, steps: list[_Step], first: str) -> None:
    gradient = steps[-1].cost.activation_gradients  # in the layer's output
    tape.in_use += gradient
    for i in reversed(range(len(steps))):
        step, layer, cost = steps[i], steps[i].layer, steps[i].cost
        below = steps[i - 1].cost.stored.activations if i else 0
        if step.activation:
            tape.look(f"the gradients of {cost.name}", gradient)  # one before and one after the activation
            tape.in_use -= step.sums or cost.stored.activations
        passed_on = (step.copied or below) if cost.name != first else 0
        passing = NORMALIZATION_BACKWARD * gradient if isinstance(layer, LocalResponseNorm) else step.widened
        tape.in_use += passed_on + (cost.stored.weight_gradients if isinstance(layer, LEARNERS) else 0)
        tape.look(f"the gradients of {cost.name}", passing)
        if cost.name == first:
            return
        tape.in_use -= gradient + cost.stored.auxiliary - step.sums + step.folded
        if steps[i - 1].stays and (not steps[i - 1].activation or steps[i - 1].sums):
            tape.in_use -= below
        if step.copied:  # the gradient in the image, beside that in its padded copy
            tape.in_use += below
            tape.look(f"the gradients of {cost.name}")
            tape.in_use -= passed_on
            passed_on = below
        gradient = passed_on
