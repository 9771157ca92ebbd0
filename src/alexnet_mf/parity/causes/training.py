"""Loss, gradients and SGD steps under each of the usual faults."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.backends.contract import Sgd
from alexnet_mf.backends.numpy import layers
from alexnet_mf.evaluation import log_probabilities
from alexnet_mf.parity.causes import REPRODUCES, ROUNDING, Array, Cause, first_of, reproduce, verdict
from alexnet_mf.parity.causes.statistics import is_evaluated, statistics_causes
from alexnet_mf.parity.ladder import Comparison, Rung, same_shapes
from alexnet_mf.parity.steps import Rule, branch_gradients, take_steps
from alexnet_mf.parity.tolerances import relative_l2
from alexnet_mf.weights.parameters import is_trained

PASSED_WHOLE = {"relu": "its ReLU passes the gradient where its output is zero",
                "elu": "its ELU passes the gradient whole where its output is negative",
                "leaky_relu": "its leaky ReLU passes the gradient whole where its output is negative"}
"""Causes by the activations that pass a gradient unchanged where their output is positive."""
SAME_STEPS = 1e-3
"""Largest difference of updates under one SGD rule; also limited to a tenth of the difference that it explains."""


def diagnose_loss(c: Comparison, rung: Rung) -> str:
    """Name the fault that gives this loss from the backend's logits, or the logits that are wrong."""
    case, mine = c.reference.case, c.subject.meta["loss"]
    evaluated, trained = (c.subject.group(mode)[case.network.layers[-1].name].astype(np.float64)
                          for mode in ("outputs", "training"))
    if not any(failure.where == "loss" for failure in rung.failures):
        return f"logits: {_logits(c.subject.tensors['logits'], c.reference.trace.tensors['logits'], evaluated)}"
    theirs, labels = c.reference.trace.meta["loss"], case.labels[:case.batch]
    bound = min(1e-5, abs(mine / theirs - 1) / 10)
    usual = {"computed in evaluation, so batches are normalized by the running statistics":
             layers.softmax_cross_entropy(evaluated, labels)[0], **dict(loss_causes(trained, labels, theirs))}
    causes = [cause for cause, value in usual.items() if abs(mine - value) <= bound * abs(value)]
    return verdict("loss", " or ".join(causes) or None)


def _logits(mine: Array, theirs: Array, first: Array) -> str:
    """Return which logits are wrong if the last layer is right for the first batch."""
    if relative_l2(mine[:len(first)], first) > ROUNDING:
        return "right for the first batch alone, so they depend on the batch size or order"
    wrong = [i for i, (a, b) in enumerate(zip(mine, theirs)) if relative_l2(a, b) > REPRODUCES]
    return f"right for the first batch, wrong for {len(wrong)} later images"


def loss_causes(logits: Array, labels: NDArray[np.int64], right: float) -> Iterator[tuple[str, float]]:
    """Yield the usual faults of a loss, each with the loss that it gives."""
    rows, classes = np.arange(len(labels)), logits.shape[1]
    logarithms = log_probabilities(logits)
    softmax = np.exp(logarithms)
    yield "summed over the batch instead of averaged", right * len(labels)
    yield "averaged over the batch twice", right / len(labels)
    yield "softmax applied twice", layers.softmax_cross_entropy(softmax, labels)[0]
    yield "averaged over the classes too", right / classes
    yield "the softmax is missing", float(-logits[rows, labels].mean())
    yield "the logarithm is missing", float(-softmax[rows, labels].mean())
    yield "mean squared error instead of cross entropy", float(((softmax - np.eye(classes)[labels]) ** 2).mean())
    yield "in bits (logarithm to base 2) instead of nats", right / float(np.log(2))
    yield "label smoothing of 0.1", float(-(0.9 * logarithms[rows, labels] + 0.1 * logarithms.mean(axis=1)).mean())
    for shift in (1, -1):
        moved = layers.softmax_cross_entropy(logits, (labels + shift) % classes)[0]
        yield f"the labels are shifted by one ({shift:+d})", moved
    yield "the labels are in reverse order", layers.softmax_cross_entropy(logits, labels[::-1])[0]


def diagnose_gradients(c: Comparison, rung: Rung) -> str:
    """Name one factor for all gradients, or the first wrong gradient, from the loss downwards, and its faults."""
    first = rung.failures[0].where
    mine, theirs = c.subject.group("gradients"), branch_gradients(c.reference.case, c.subject.group("training"))
    where = f"first divergent gradient, from the loss downwards: {first}"
    if first.endswith("near ties"):
        return f"gradients: {first}: a wide gap was decided differently, though the layer's outputs in evaluation agree"
    if first not in mine or not mine[first].any():
        return f"{where}: no gradient reaches it: frozen or detached"
    noise = c.reference.noise()
    if first in noise:
        return f"{where}: batch normalization leaves it none, but it is larger than rounding explains"
    factors = {}
    theirs = {name: value for name, value in theirs.items() if name not in noise}
    for name in theirs.keys() & mine.keys():
        value = mine[name]
        factor = float((value * theirs[name]).sum() / max(float((theirs[name] ** 2).sum()), 1e-300))
        if relative_l2(value, factor * theirs[name]) < REPRODUCES:
            factors[name] = factor
    if first in factors and abs(factors[first] - 1) <= REPRODUCES:
        factors = {}  # a factor of 1 explains nothing
    if len(factors) == len(theirs) and max(factors.values()) - min(factors.values()) < 1e-3 * abs(factors[first]):
        batch, factor = c.reference.case.batch, factors[first]
        usual = (("the loss is summed over the batch instead of averaged", batch),
                 ("the loss is averaged over the batch twice", 1 / batch), ("the sign is wrong", -1))
        cause = next((text for text, value in usual if abs(factor / value - 1) < REPRODUCES), None)
        return f"all gradients: scaled by {factor:.4g}" + (f" ({cause})" if cause else "")
    if first in factors:
        return f"{where}: scaled by {factors[first]:.4g}"
    return verdict(where, reproduce(mine[first], theirs[first], gradient_causes(c, first, theirs[first])))


def gradient_causes(c: Comparison, name: str, right: Array) -> Iterator[Cause]:
    """Yield the usual faults of a parameter's gradient, each with the gradient that it gives."""
    case = c.reference.case
    if right.ndim == 2:
        yield "transposed", right.T
    if right.ndim == 4:
        yield "height and width are swapped", right.swapaxes(2, 3)
        yield "the kernel is flipped", right[:, :, ::-1, ::-1]
    yield "the weight decay is in it already", right + case.sgd.weight_decay * case.parameters()[name]
    layer = name.rpartition(".")[0]
    activation = next(getattr(other, "activation", None) for other in case.network.layers if other.name == layer)
    if activation in PASSED_WHOLE:
        training = c.subject.group("training")
        outputs = training[layer].astype(np.float64)
        passing = {**training, layer: outputs - outputs.min() + 1}  # all positive, the order kept
        yield PASSED_WHOLE[activation], branch_gradients(case, passing)[name]


def diagnose_steps(c: Comparison, rung: Rung) -> str:
    """Name the other SGD rules that give the backend's parameters when they take the steps."""
    case, mine, theirs = c.reference.case, c.subject.group("stepped"), c.reference.trace.group("stepped")
    start = case.parameters()
    errors = {name: relative_l2(mine[name] - start[name], theirs[name] - start[name]) for name in start}
    wrong = [failure.where for failure in rung.failures]
    if "loss of step 1" in wrong and is_evaluated(c):
        return "SGD steps: taken in evaluation, so batches are normalized by the running statistics"
    frozen = [name for name in wrong if name in start and np.array_equal(mine[name], start[name])]
    if frozen:
        return f"SGD steps: {', '.join(frozen)} never changed"
    bound = min(max(SAME_STEPS, c.floors.update), max(errors.values()) / 10)
    branches = [c.subject.group(f"stepwise/{step}") for step in range(case.steps)] if same_shapes(c) else None
    if not any(name.startswith("loss") or is_trained(name) for name in wrong):
        causes = " or ".join(statistics_causes(c, wrong, branches))
        return verdict(f"SGD steps: {first_of(wrong)}", causes or None)
    rules = [rule for rule, update in sgd_rules(case.sgd, case.batch).items()
             if _follows(c, take_steps(case, start, update, count=min(3, case.steps), branches=branches).losses)
             and max(relative_l2(mine[name] - start[name], value - start[name]) for name, value in
                     take_steps(case, start, update, branches=branches).parameters.items()) <= bound]
    return f"SGD steps: {' or '.join(rules)}" if rules else verdict(f"SGD steps: {first_of(wrong)}", None)


def _follows(c: Comparison, losses: list[float]) -> bool:
    """Return True if a rule's first losses are the backend's. They rule out most wrong rules without the other steps.
    If the first loss is wrong already, nothing can be ruled out."""
    mine, theirs = c.subject.meta["step_losses"], c.reference.trace.meta["step_losses"]
    if abs(mine[0] - theirs[0]) > c.floors.step_loss * abs(theirs[0]):
        return True
    return all(abs(a - b) <= 10 * c.floors.step_loss * abs(b) for a, b in zip(mine, losses))


def sgd_rules(sgd: Sgd, batch: int) -> dict[str, Rule]:
    """Return SGD rules other than the stated one, by their description."""

    def rule(rate: float = sgd.learning_rate, momentum: float = sgd.momentum, decay: float = sgd.weight_decay,
             scale: float = 1.0, dampening: float = 0.0, nesterov: bool = False, decoupled: bool = False,
             bias_rate: float = 1.0, bias_decay: float = 1.0) -> Rule:
        def update(weight: Array, gradient: Array, state: dict[str, Array], step: int) -> None:
            own_rate, own_decay = (rate * bias_rate, decay * bias_decay) if weight.ndim == 1 else (rate, decay)
            g = scale * gradient + (0 if decoupled else own_decay * weight)
            v = state["v"] = momentum * state.get("v", 0) + (1 - dampening if step else 1) * g
            if decoupled:
                weight -= own_rate * own_decay * weight
            weight -= own_rate * (g + momentum * v if nesterov else v)
        return update

    def accumulated(weight: Array, gradient: Array, state: dict[str, Array], step: int) -> None:
        state["sum"] = state.get("sum", 0) + gradient
        rule()(weight, state["sum"], state, step)

    return {
        "the gradients are summed over the batch instead of averaged": rule(scale=batch),
        "the gradients are averaged over the batch twice": rule(scale=1 / batch),
        "the momentum is missing": rule(momentum=0),
        "the weight decay is missing": rule(decay=0),
        "Nesterov's momentum instead of the plain one": rule(nesterov=True),
        "the momentum is dampened (1 - momentum)": rule(dampening=sgd.momentum),
        "the weight decay is decoupled from the gradient": rule(decoupled=True),
        "the weight decay is doubled": rule(decay=2 * sgd.weight_decay),
        "the weight decay leaves out the biases": rule(bias_decay=0),
        "the biases learn at twice the rate": rule(bias_rate=2),
        "the gradients are not cleared between steps": accumulated,
        "the learning rate is 10 times too large": rule(rate=10 * sgd.learning_rate),
        "the learning rate is 10 times too small": rule(rate=sgd.learning_rate / 10),
        "the learning rate is doubled": rule(rate=2 * sgd.learning_rate),
        "the learning rate is halved": rule(rate=sgd.learning_rate / 2),
        "the weights move up the gradient": rule(rate=-sgd.learning_rate),
    }
