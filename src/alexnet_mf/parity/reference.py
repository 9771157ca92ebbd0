"""The reference's float64 results, its own errors in float32, and its decisions on near ties."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import spec
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.backends.numpy import BACKEND
from alexnet_mf.backends.numpy.backend import NumpyModel
from alexnet_mf.backends.numpy.layers import max_pool_choice, pad, window_pixels
from alexnet_mf.backends.numpy.network import NumpyNetwork
from alexnet_mf.backends.numpy.trainer import Placed
from alexnet_mf.parity.case import Case
from alexnet_mf.parity.tolerances import COST_FACTOR, TIERS, Floors, ratio, relative_l2, relative_largest
from alexnet_mf.parity.trace import Trace, trace
from alexnet_mf.spec.layers import LEARNERS, BatchNorm, Learner, MaxPool2d
from alexnet_mf.weights.parameters import Parameters

Array: TypeAlias = NDArray[Any]

SOFTMAX_ERROR = 5e-6
"""Largest relative error of a probability in correct code. Measured in MXNet: 4.6e-6, over 2 to 33 classes and logits
of any size. Most of it is one error for the whole image, in the logarithm of its sum of exponentials."""

DRAWS = 6
"""Number of further float32 runs for a network with batch normalization, which divides by the spread of a batch and so
multiplies the errors of the layers before it."""

LARGEST_TOLERANCE = 0.9
"""Largest relative tolerance of a gradient. One that is missing has the error 1."""

Rule: TypeAlias = Callable[[Array, Array, dict[str, Array], int], None]
"""Function that updates a weight in place from its gradient, its own state, and the step's number, counted from 0."""


@dataclass
class Reference:
    """The float64 results, and the reference's own errors in float32 on the same batch."""

    case: Case
    trace: Trace
    cost: dict[str, float]
    """Relative errors of the reference in float32, named like tensors (`outputs/conv1`, `gradients/fc6.bias`);
    also `largest/conv1`, `updates/conv1.bias`, `loss` and `step_loss`. `softmax/conv1.bias` and `softmax/loss` are the
    errors that the least exact softmax causes in a gradient and in the loss.

    With batch normalization also `gap`, the widest gap of a near tie that the SGD steps decided differently,
    `shares/conv1.bias`, the error of a gradient over the norm of all, and `training/conv1`, the largest error of an
    output in training over its largest value."""

    def at(self, floors: Floors) -> Reference:
        """Return the reference with the errors that a tier's tolerances allow. They grow in batch normalization alone.
        """
        if not has_batch_norm(self.case.network):
            return self
        cost = inexact_cost(self.case, self.trace, floors)
        return replace(self, cost={name: max(value, cost.get(name, 0.0)) for name, value in self.cost.items()})

    def noise(self) -> set[str]:
        """Return the names of the gradients that float32 does not resolve.

        Batch normalization removes a bias before it, and a factor but for epsilon, so their gradients are rounding.
        """
        return {name for name in self.trace.group("gradients")
                if COST_FACTOR * self.cost.get(f"gradients/{name}", 0.0) > LARGEST_TOLERANCE}

    @functools.cached_property
    def softmax_updates(self) -> dict[str, float]:
        """Largest relative effects of an inexact softmax on each parameter's change in the SGD steps, and on each
        step's loss through the earlier changes.

        The computation repeats the steps image by image, so it runs only if an update exceeds its tolerance."""
        case, start = self.case, self.case.parameters()
        velocity, total = dict.fromkeys(start, 0.0), dict.fromkeys(start, 0.0)
        losses: dict[str, float] = {}

        def add_up(model: NumpyModel, batch: Placed) -> None:
            loss, gradients = model.gradients(batch)
            change = sum(total[name] * float(np.linalg.norm(gradient)) for name, gradient in gradients.items())
            losses[f"loss of step {len(losses) + 1}"] = loss_error(loss + change, loss, model.logits(batch, len(batch)))
            for name, moved in softmax_moves(model, batch, case.seed).items():
                velocity[name] = case.sgd.momentum * velocity[name] + moved
                total[name] += case.sgd.learning_rate * velocity[name]

        run = take_steps(case, start, sgd_rule(case.sgd), watch=add_up)
        return losses | {name: ratio(total[name], float(np.linalg.norm(run.parameters[name] - start[name])))
                         for name in start}


def make_reference(case: Case, continue_from: Parameters | None = None) -> Reference:
    """Run the reference in float64, and once more in float32 to measure the errors of float32.

    Args:
        continue_from: as for `trace`.
    """
    exact = trace(BACKEND, case, continue_from=continue_from)
    single = trace(BACKEND, case, build=functools.partial(BACKEND.build, dtype=np.float32))
    own = Reference(case, exact, float32_errors(case, single, exact) | softmax_cost(case, exact))
    return own.at(TIERS["float32"])


def plain_sums(x: Array) -> Array:
    """Return the sum of each channel, one value added after the other, as in MXNet. In float32, the sum of n values of
    one sign has a relative error of about sqrt(n) / 2 last bits, and of more if they are equal."""
    return np.add.accumulate(np.moveaxis(x, 1, 0).reshape(x.shape[1], -1), axis=1)[:, -1]


class InexactNetwork(NumpyNetwork):
    """A network that adds up plainly, and whose layers have outputs and gradients with random relative errors."""

    channel_sums = staticmethod(plain_sums)

    def __init__(self, draw: int, floors: Floors, network: spec.Network, parameters: dict[str, Array]) -> None:
        """Take the number of the draw, and the tolerances. Draw 0 has no random errors."""
        super().__init__(network, parameters)
        self.draw, self.floors = draw, floors

    def learned(self, layer: spec.Learner, x: Array, training: bool) -> Array:
        return self.err(layer.name, super().learned(layer, x, training), self.floors.output)

    def deactivate(self, layer: spec.Learner, gradient: Array, x: Array, output: Array, chosen: Array) -> Array:
        gradient = super().deactivate(layer, gradient, x, output, chosen)
        return self.err(f"{layer.name}.gradient", gradient, self.floors.gradient)

    def parameter_gradients(self, layer: spec.Conv2d | spec.Dense, gradient: Array, x: Array) -> dict[str, Array]:
        gradients = super().parameter_gradients(layer, gradient, x)
        bias = f"{layer.name}.bias"
        return gradients | ({bias: plain_sums(gradient)} if bias in gradients else {})

    def err(self, name: str, values: Array, tolerance: float) -> Array:
        """Return values with errors that `COST_FACTOR` makes the tolerance. They are the same each time."""
        if not self.draw:
            return values
        stream, size = np.random.default_rng((self.draw, zlib.crc32(name.encode()))), tolerance / COST_FACTOR
        return values * stream.choice(np.array([1 - size, 1 + size], self.dtype), values.shape)


def inexact_cost(case: Case, exact: Trace, floors: Floors) -> dict[str, float]:
    """Return the largest errors of float32 runs whose outputs and gradients are as inexact as these tolerances allow.
    """
    def build(draw: int, network: spec.Network, parameters: Parameters, device: str) -> NumpyModel:
        model = BACKEND.build(network, parameters, device, dtype=np.float32)
        model.net = InexactNetwork(draw, floors, network, model.parameters)
        return model

    errors = [float32_errors(case, trace(BACKEND, case, build=functools.partial(build, draw)), exact)
              for draw in range(DRAWS)]
    return {name: max(error[name] for error in errors) for name in errors[0]}


def float32_errors(case: Case, single: Trace, exact: Trace) -> dict[str, float]:
    """Return the errors of a run of the reference in float32."""
    cost = {}
    references = exact.group("outputs")
    for name, value in single.group("outputs").items():
        cost[f"outputs/{name}"] = relative_l2(value, references[name])
        cost[f"largest/{name}"] = relative_largest(value, references[name])
    references = branch_gradients(case, single.group("training"))
    cost |= {f"gradients/{name}": relative_l2(value, references[name])
             for name, value in single.group("gradients").items()}
    start = case.parameters()
    branches = [single.group(f"stepwise/{step}") for step in range(case.steps)]
    run = take_steps(case, start, sgd_rule(case.sgd), branches=branches)
    cost |= {f"updates/{name}": relative_l2(value - start[name], run.parameters[name] - start[name])
             for name, value in single.group("stepped").items()}
    last = case.network.layers[-1].name
    losses = zip(single.meta["step_losses"], run.losses, branches)
    if has_batch_norm(case.network):
        cost["gap"] = run.gap
        total = math.hypot(*(float(np.linalg.norm(value)) for value in references.values()))
        cost |= {f"shares/{name}": ratio(float(np.linalg.norm(value - references[name])), total)
                 for name, value in single.group("gradients").items()}
        cost |= {f"training/{name}": relative_largest(value, exact.tensors[f"training/{name}"])
                 for name, value in single.group("training").items()}
    cost["step_loss"] = max((loss_error(a, b, branch[last]) for a, b, branch in losses), default=0.0)
    logits = exact.tensors[f"outputs/{last}"]
    cost["loss"] = loss_error(single.meta["loss"], exact.meta["loss"], logits)
    return cost


def softmax_cost(case: Case, exact: Trace) -> dict[str, float]:
    """Return the errors that the least exact softmax causes."""
    logits = exact.tensors[f"outputs/{case.network.layers[-1].name}"]
    cost = {"softmax/loss": loss_error(exact.meta["loss"] + SOFTMAX_ERROR, exact.meta["loss"], logits)}
    model = BACKEND.build(case.network, case.parameters())
    moves = softmax_moves(model, model.place(case.inputs[:case.batch], case.labels[:case.batch]), case.seed)
    cost |= {f"softmax/{name}": ratio(moves[name], float(np.linalg.norm(gradient)))
             for name, gradient in exact.group("gradients").items()}
    return cost


def loss_error(loss: float, reference: float, logits: Array) -> float:
    """Return the error of a loss over the loss or the largest logit: a small loss is a difference of larger numbers."""
    return ratio(abs(loss - reference), max(abs(reference), float(np.abs(logits).max())))


def softmax_moves(model: NumpyModel, batch: Placed, seed: int) -> dict[str, float]:
    """Return how far `SOFTMAX_ERROR` in the probabilities can move each gradient, as a Euclidean norm. That is far
    beside the gradient if a batch's images or a plane's pixels nearly cancel, as they may in a bias.

    Each image has its own error, and errors need not cancel as the gradients do, so the effects of all images are
    added. Within an image, the errors have either one sign or random signs, whichever moves the gradient further.
    """
    moved: dict[str, float] = {}
    stream = np.random.default_rng(seed)
    coupled = has_batch_norm(model.network)  # an image's logits depend on the others
    last = model.network.layers[-1].name
    for image in range(len(batch)):
        part, row = (batch, image) if coupled else (batch.rows(slice(image, image + 1)), 0)
        logits = model.training_outputs(part)[last]
        powers = np.exp(logits[row] - logits[row].max())
        errors = np.zeros_like(logits)
        errors[row] = SOFTMAX_ERROR * powers / powers.sum() / len(batch)
        one, other = (model.pull_back(part, pattern)
                      for pattern in (errors, errors * stream.choice([-1.0, 1.0], logits.shape)))
        for name in one:
            worse = max(float(np.linalg.norm(one[name])), float(np.linalg.norm(other[name])))
            moved[name] = moved.get(name, 0.0) + worse
    return moved


def branch_gradients(case: Case, branch: Mapping[str, Array]) -> dict[str, Array]:
    """Return float64 gradients, with near ties in ReLU and max pooling decided as in another run's layer outputs."""
    model = BACKEND.build(case.network, case.parameters())
    batch = model.place(case.inputs[:case.batch], case.labels[:case.batch])
    return model.gradients(batch, branch=branch)[1]


def flips(network: spec.Network, pixels: Array, mine: Mapping[str, Array],
          theirs: Mapping[str, Array]) -> dict[str, tuple[int, float]]:
    """Count the decisions in which a run differs from the reference: ReLU's signs, max pooling's choices. Other
    activations whose slope jumps at zero decide like ReLU.

    Args:
        pixels: input of both.
        mine, theirs: outputs of each layer in the run and in the reference.

    Returns:
        For each layer that decides, the number of differing decisions and their widest gap: between the reference's
        values of the two choices, or from zero, over the largest value there.
    """
    result = {}
    x = y = pixels
    for layer in network.layers:
        if isinstance(layer, LEARNERS) and has_jump(layer):
            a, b = mine[layer.name], theirs[layer.name]
            other = (a > 0) != (b > 0)
            gaps = np.maximum(np.abs(a[other]), np.abs(b[other]))
            result[layer.name] = int(other.sum()), ratio(float(gaps.max(initial=0)), float(np.abs(b).max()))
        elif isinstance(layer, MaxPool2d):
            choices = [max_pool_choice(values, layer.kernel, layer.stride, layer.padding) for values in (x, y)]
            other = choices[0] != choices[1]
            windows = np.stack(window_pixels(pad(y, layer.padding, -np.inf), layer.kernel, layer.stride))
            chosen = np.take_along_axis(windows, choices[0][np.newaxis], 0)[0]
            gaps = (theirs[layer.name] - chosen)[other]
            result[layer.name] = int(other.sum()), ratio(float(gaps.max(initial=0)), float(np.abs(y).max()))
        x, y = mine[layer.name], theirs[layer.name]
    return result


def has_batch_norm(network: spec.Network) -> bool:
    """Return True if the network normalizes batches."""
    return any(isinstance(layer, BatchNorm) for layer in network.layers)


def has_jump(layer: Learner) -> bool:
    """Return True if the slope of the layer's activation jumps at zero."""
    return layer.activation in ("relu", "leaky_relu") or (layer.activation == "elu" and layer.alpha != 1)


@dataclass(frozen=True)
class Steps:
    """Result of the reference's SGD steps."""

    parameters: dict[str, Array]
    """Parameters after the steps, in float64."""
    losses: list[float]
    flips: int
    """Number of near ties decided as in another run, unlike the reference's own decision."""
    gap: float
    """Widest gap among these, as in `flips`."""


def sgd_rule(sgd: Sgd) -> Rule:
    """Return the stated update rule: v = momentum v + g + weight_decay w; w = w - learning_rate v."""

    def update(weight: Array, gradient: Array, state: dict[str, Array], step: int) -> None:
        state["v"] = sgd.momentum * state.get("v", 0) + gradient + sgd.weight_decay * weight
        weight -= sgd.learning_rate * state["v"]

    return update


def take_steps(case: Case, start: Mapping[str, Array], update: Rule, first: int = 0, count: int | None = None,
               branches: Sequence[Mapping[str, Array]] | None = None,
               watch: Callable[[NumpyModel, Placed], None] | None = None) -> Steps:
    """Take the reference's SGD steps without dropout, from any parameters, by any rule.

    Args:
        branches: layer outputs of another run in each step; its decisions on near ties are followed.
        watch: receives the model and the batch before each step.
    """
    model = BACKEND.build(spec.with_dropout(case.network, 0), start)
    states: dict[str, dict[str, Array]] = {name: {} for name in start}
    losses, count_flips, widest = [], 0, 0.0
    with np.errstate(all="ignore"):  # a wrong rule may diverge
        for step in range(case.steps if count is None else count):
            rows = case.rows(first + step)
            batch = model.place(case.inputs[rows], case.labels[rows])
            branch = branches[step] if branches else None
            if watch:
                watch(model, batch)
            if branch is not None:
                outputs = model.training_outputs(batch)
                for number, gap in flips(case.network, model.pixels(batch), branch, outputs).values():
                    count_flips, widest = count_flips + number, max(widest, gap)
            loss, gradients = model.gradients(batch, branch=branch, moving=True)
            losses.append(loss)
            for name, gradient in gradients.items():
                update(model.parameters[name], gradient, states[name], step)
    return Steps({name: np.nan_to_num(value) for name, value in model.parameters.items()}, losses, count_flips, widest)
