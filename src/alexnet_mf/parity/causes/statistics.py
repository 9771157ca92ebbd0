"""Running statistics of batch normalization after the SGD steps, under each of the usual faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alexnet_mf.backends.numpy import BACKEND
from alexnet_mf.backends.numpy.backend import NumpyModel
from alexnet_mf.backends.numpy.layers import softmax_cross_entropy
from alexnet_mf.backends.numpy.trainer import Placed
from alexnet_mf.parity.causes import Array
from alexnet_mf.parity.ladder import Comparison
from alexnet_mf.parity.steps import sgd_rule, take_steps
from alexnet_mf.parity.tolerances import loss_error, relative_l2
from alexnet_mf.spec.layers import BatchNorm

SAME_STATISTICS = 1e-3
"""Largest difference of statistics under one rule; also limited to a tenth of the difference that it explains."""


@dataclass(frozen=True)
class Rule:
    """A wrong rule for the running statistics."""

    momentum: Callable[[float], float] = lambda right: right
    """Returns the share of the batch from the right one."""
    moves: int = 1
    """Number of moves in each step."""
    is_unbiased: bool = False
    """True if the variance of the batch is divided by n - 1."""


RULES = {
    "the momentum is taken for the share of the old value": Rule(lambda right: 1 - right),
    "the momentum is 0.01, Keras's default": Rule(lambda right: 0.01),
    "the momentum is 0.1, PyTorch's default": Rule(lambda right: 0.1),
    "they are replaced by those of the last batch": Rule(lambda right: 1.0),
    "they move twice in each step": Rule(moves=2),
    "the running variance follows the batch's variance divided by n - 1": Rule(is_unbiased=True)}


def is_evaluated(c: Comparison) -> bool:
    """Return True if the first SGD step has the loss of evaluation, and batch normalization gives it another one."""
    case, right = c.reference.case, c.reference.trace.meta["step_losses"][0]
    rows, mine = case.rows(0), c.subject.meta["step_losses"][0]
    model = BACKEND.build(case.network, case.parameters())
    logits = model.logits(model.place(case.inputs[rows], case.labels[rows]), len(rows))
    error = loss_error(mine, softmax_cross_entropy(logits, case.labels[rows])[0], logits)
    return error <= min(c.floors.step_loss, loss_error(mine, right, logits) / 10)


def statistics_causes(c: Comparison, names: Sequence[str],
                      branches: Sequence[Mapping[str, Array]] | None) -> Iterator[str]:
    """Yield the rules that give the backend's running statistics of these names.

    Args:
        branches: as for `take_steps`.
    """
    case = c.reference.case
    momenta = {layer.name: layer.momentum for layer in case.network.layers if isinstance(layer, BatchNorm)}
    batches: list[tuple[dict[str, Array], dict[str, int]]] = []  # statistics, and numbers of values behind each

    def collect(model: NumpyModel, batch: Placed) -> None:
        x, outputs = model.net.cast(batch.pixels()), model.training_outputs(batch)
        before = dict(zip(outputs, [x, *outputs.values()]))
        batches.append((model.net.batch_statistics(x, outputs),
                        {name: before[name].size // before[name].shape[1] for name in momenta}))

    def follows(name: str, rule: Rule) -> bool:
        layer, _, part = name.rpartition(".")
        start = case.parameters()[name].astype(np.float64)
        value = start
        for statistics, counts in batches:
            factor = counts[layer] / (counts[layer] - 1) if rule.is_unbiased and part == "running_var" else 1.0
            for _ in range(rule.moves):
                value = value + rule.momentum(momenta[layer]) * (factor * statistics[name] - value)
        mine, theirs = (trace.group("stepped")[name] for trace in (c.subject, c.reference.trace))
        bound = min(SAME_STATISTICS, relative_l2(mine - start, theirs - start) / 10)
        return relative_l2(mine - start, value - start) <= bound

    take_steps(case, case.parameters(), sgd_rule(case.sgd), branches=branches, watch=collect)
    with np.errstate(all="ignore"):  # one value has no unbiased variance
        yield from (cause for cause, rule in RULES.items() if all(follows(name, rule) for name in names))
