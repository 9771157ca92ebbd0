"""Gradients and SGD steps of the reference in float64, with near ties decided as in another run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import spec
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.backends.numpy import BACKEND
from alexnet_mf.backends.numpy.backend import NumpyModel
from alexnet_mf.backends.numpy.layers import max_pool_choice, pad, window_pixels
from alexnet_mf.backends.numpy.trainer import Placed
from alexnet_mf.parity.case import Case
from alexnet_mf.parity.tolerances import ratio
from alexnet_mf.spec.layers import LEARNERS, Learner, MaxPool2d

Array: TypeAlias = NDArray[Any]
Rule: TypeAlias = Callable[[Array, Array, dict[str, Array], int], None]
"""Function that updates a weight in place from its gradient, its own state, and the step's number, counted from 0."""


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
