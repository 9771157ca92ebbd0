"""The reference's float64 results, and its own errors in float32."""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass, replace

import numpy as np

from alexnet_mf import spec
from alexnet_mf.backends.numpy import BACKEND
from alexnet_mf.backends.numpy.backend import NumpyModel
from alexnet_mf.backends.numpy.network import NumpyNetwork
from alexnet_mf.backends.numpy.trainer import Placed
from alexnet_mf.parity.case import Case
from alexnet_mf.parity.steps import Array, branch_gradients, sgd_rule, take_steps
from alexnet_mf.parity.tolerances import (
    COST_FACTOR,
    TIERS,
    Floors,
    loss_error,
    norm_of_all,
    ratio,
    relative_l2,
    relative_largest,
)
from alexnet_mf.parity.trace import Trace, trace
from alexnet_mf.spec.layers import BatchNorm
from alexnet_mf.weights.parameters import Parameters

SOFTMAX_ERROR = 5e-6
"""Largest relative error of a probability in correct code. Measured in MXNet: 4.6e-6, over 2 to 33 classes and logits
of any size. Most of it is one error for the whole image, in the logarithm of its sum of exponentials."""

DRAWS = 6
"""Number of further float32 runs for a network with batch normalization, which divides by the spread of a batch and so
multiplies the errors of the layers before it."""

LARGEST_TOLERANCE = 0.9
"""Largest relative tolerance of a gradient. One that is missing has the error 1."""

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
        total = norm_of_all(references.values())
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


def has_batch_norm(network: spec.Network) -> bool:
    """Return True if the network normalizes batches."""
    return any(isinstance(layer, BatchNorm) for layer in network.layers)
