"""The ladder: ten rungs, each one function with a measured error, a stated tolerance and a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import spec
from alexnet_mf.backends.numpy.layers import softmax_cross_entropy
from alexnet_mf.errors import TraceError
from alexnet_mf.parity.reference import LARGEST_TOLERANCE, Reference
from alexnet_mf.parity.steps import branch_gradients, flips, sgd_rule, take_steps
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
from alexnet_mf.parity.trace import Trace, digests
from alexnet_mf.spec import arithmetic
from alexnet_mf.spec.layers import Dropout
from alexnet_mf.weights import parameters


@dataclass(frozen=True)
class Measurement:
    """An error with its tolerance."""

    where: str
    """The layer, parameter or step."""
    error: float
    tolerance: float
    what: str = ""
    """The failure in words, if the number does not say it."""

    @property
    def holds(self) -> bool:
        return bool(self.error <= self.tolerance)  # of NumPy's numbers it is NumPy's bool, which JSON does not take


def judge(where: str, error: float, tolerance: float, wrong: str) -> Measurement:
    """Return a measurement, with the words `wrong` if it fails. `error` is a bool or a count for equality."""
    return Measurement(where, float(error), tolerance, "" if error <= tolerance else wrong)


@dataclass(frozen=True)
class Rung:
    """The measurements of one rung in one backend."""

    number: int
    name: str
    measurements: list[Measurement]
    note: str = ""

    @property
    def holds(self) -> bool:
        return all(measurement.holds for measurement in self.measurements)

    @property
    def worst(self) -> Measurement:
        """The first failed measurement furthest beyond its tolerance, or else the one closest to it."""
        return max(self.measurements, key=lambda m: (not m.holds, ratio(m.error, m.tolerance)))

    @property
    def failures(self) -> list[Measurement]:
        return [measurement for measurement in self.measurements if not measurement.holds]


@dataclass
class Comparison:
    """A backend's trace beside the reference's."""

    subject: Trace
    reference: Reference
    floors: Floors = field(default_factory=lambda: TIERS["float32"])
    origins: Mapping[str, Trace] = field(default_factory=dict)
    """Traces by the digest of their stepped parameters, from which other traces may have continued."""

    def tolerance(self, floor: float, name: str) -> float:
        """Return the larger of the floor and a multiple of the error of float32."""
        return max(floor, COST_FACTOR * self.reference.cost.get(name, 0.0))

    def climb(self) -> list[Rung]:
        """Return all rungs, from the first to the last."""
        return [Rung(number, name, *rung(self)) for number, (name, rung) in enumerate(RUNGS.items(), 1)]


Finding = tuple[list[Measurement], str]


def spec_and_parameters(c: Comparison) -> Finding:
    """Rung 1: the same layers with the same initial weights, bit for bit."""
    mine, theirs = c.subject.meta["network"], spec.as_dict(c.reference.case.network)
    measurements = [Measurement("spec", 1, 0, line) for line in spec_differences(mine, theirs)]
    expected = arithmetic.parameter_counts(c.subject.case().network)
    for row in c.subject.meta["layers"]:
        if row["parameters"] != expected.get(row["name"]):
            measurements.append(Measurement(row["name"], 1, 0, f"{row['name']}: {row['parameters']:,} parameters, not "
                                                        f"{expected.get(row['name'], 0):,}"))
    mine, theirs = c.subject.meta["exported_sha256"], digests(c.reference.case.parameters())
    return [*measurements, *(judge(name, mine.get(name) != theirs.get(name), 0, f"{name} is not as drawn from the seed")
                      for name in {**theirs, **mine})], ""


def spec_differences(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return a phrase for each field in which two networks differ, except names, sources and initial biases: parity
    draws biases of its own."""
    if [layer["name"] for layer in mine["layers"]] != [layer["name"] for layer in theirs["layers"]]:
        return ["its layers differ from the reference's"]
    lines = []
    if mine["input"] != theirs["input"]:
        lines = [f"input is {mine['input']}, the reference's is {theirs['input']}"]
    for a, b in zip(mine["layers"], theirs["layers"]):
        lines += [f"{a['name']}.{key} is {a.get(key)}, the reference's is {b.get(key)}"
                  for key in {**a, **b} if a.get(key) != b.get(key)]
    return lines


def pixels(c: Comparison) -> Finding:
    """Rung 2: the pixels that enter the network, bit for bit."""
    mine, theirs = c.subject.tensors["pixels"], c.reference.trace.tensors["pixels"]
    if mine.shape != theirs.shape:
        return [Measurement("pixels", math.inf, 0, f"pixels are {mine.shape}, not {theirs.shape}")], ""
    if mine.dtype != theirs.dtype:
        return [Measurement("pixels", math.inf, 0, f"pixels are {mine.dtype}, not {theirs.dtype}")], ""
    different = int((mine.view(np.uint32) != theirs.view(np.uint32)).sum())
    return [judge("pixels", different, 0, f"{different:,} of {mine.size:,} pixels differ")], ""


def layer_shapes(c: Comparison) -> Finding:
    """Rung 3: the output shape of each layer, measured."""
    rows = {row["name"]: tuple(row["shape"]) for row in c.subject.meta["layers"]}
    expected = {name: (1, *shape) for name, shape in arithmetic.output_shapes(c.reference.case.network).items()}
    return [judge(name, rows.get(name) != expected.get(name), 0,
                  f"{name} gives {rows.get(name)}, not {expected.get(name)}") for name in {**expected, **rows}], ""


def layer_outputs(c: Comparison) -> Finding:
    """Rung 4: the output of each layer after its activation."""
    measurements = []
    values, references = c.subject.group("outputs"), c.reference.trace.group("outputs")
    for layer in c.reference.case.network.layers:
        name, value = layer.name, values[layer.name]
        error, peak = relative_l2(value, references[name]), relative_largest(value, references[name])
        measurements += [Measurement(name, error, c.tolerance(c.floors.output, f"outputs/{name}")),
                         Measurement(name, peak, c.tolerance(c.floors.largest, f"largest/{name}"), f"{name}, largest")]
    return measurements, ""


def logits_and_loss(c: Comparison) -> Finding:
    """Rung 5: the logits of every input, and the loss."""
    mine, theirs = c.subject, c.reference.trace
    last = c.reference.case.network.layers[-1].name
    logits = relative_l2(mine.tensors["logits"], theirs.tensors["logits"])
    loss = loss_error(mine.meta["loss"], theirs.meta["loss"], theirs.tensors[f"outputs/{last}"])
    return [Measurement("logits", logits, c.tolerance(c.floors.output, f"outputs/{last}")),
            Measurement("loss", loss, max(c.tolerance(c.floors.loss, "loss"),
                                          c.reference.cost.get("softmax/loss", 0.0)))], ""


def gradients(c: Comparison) -> Finding:
    """Rung 6: the gradient of every trained parameter, with near ties decided as in the backend."""
    case, mine = c.reference.case, c.subject.group("gradients")
    decided: dict[str, tuple[int, float]] = {}
    if same_shapes(c):
        decided = flips(case.network, c.subject.tensors["pixels"], c.subject.group("training"),
                        c.reference.trace.group("training"))
    # Only near ties may be decided differently: a wide gap is a fault.
    ties = [Measurement(f"{name}, near ties", gap, max(c.tolerance(c.floors.largest, f"largest/{name}"),
                                                       c.tolerance(c.floors.largest, f"training/{name}")))
            for name, (count, gap) in decided.items() if count]
    followed = bool(ties) and all(tie.holds for tie in ties)
    references = (branch_gradients(case, c.subject.group("training")) if followed
                  else c.reference.trace.group("gradients"))
    # From the loss down, as gradients flow: the first wrong one is closest to the cause.
    errors = [gradient_error(c, name, mine.get(name), references)
              for name in reversed(parameters.trained(case.network))]
    note = _near_ties(sum(count for count, _ in decided.values())) if followed else ""
    return [*errors, *ties], note


def gradient_error(c: Comparison, name: str, mine: NDArray[Any] | None,
                   references: Mapping[str, NDArray[Any]]) -> Measurement:
    """Return the relative error of a gradient; for one that float32 does not resolve, as a share of all gradients."""
    if mine is None or mine.shape != references[name].shape:
        return Measurement(name, math.inf, c.floors.gradient)
    tolerance = max(c.tolerance(c.floors.gradient, f"gradients/{name}"), c.reference.cost.get(f"softmax/{name}", 0.0))
    if tolerance <= LARGEST_TOLERANCE:
        return Measurement(name, relative_l2(mine, references[name]), tolerance)
    total = norm_of_all(references.values())
    share = ratio(float(np.linalg.norm(references[name])), total)
    return Measurement(name, ratio(float(np.linalg.norm(mine - references[name])), total),
                       max(c.tolerance(c.floors.gradient, f"shares/{name}"),
                           c.reference.cost.get(f"softmax/{name}", 0.0) * share if share else 0.0))


def same_shapes(c: Comparison) -> bool:
    """Return True if every layer's output has the reference's shape."""
    references = c.reference.trace.group("training")
    return all(value.shape == references[name].shape for name, value in c.subject.group("training").items())


def steps(c: Comparison) -> Finding:
    """Rung 7: the update of every parameter and running statistic by the SGD steps, and the loss of each step."""
    case, theirs = c.reference.case, c.reference.trace
    measurements = step_errors(c, theirs.group("stepped"), theirs.meta["step_losses"])
    note = f"{case.steps} steps"
    if all(measurement.holds for measurement in measurements) or not same_shapes(c):
        return measurements, note
    # One near tie decided differently moves a small batch's gradient by up to 1 %, and later steps amplify that. So the
    # reference repeats the steps and decides near ties as the backend did.
    branches = [c.subject.group(f"stepwise/{step}") for step in range(case.steps)]
    run = take_steps(case, case.parameters(), sgd_rule(case.sgd), branches=branches)
    if run.gap > c.tolerance(c.floors.largest, "gap"):  # no near tie
        return measurements, note
    note = f"{note}, {_near_ties(run.flips)}"
    measurements = step_errors(c, run.parameters, run.losses)
    if not all(measurement.holds for measurement in measurements):
        measurements = [replace(m, tolerance=max(m.tolerance, c.reference.softmax_updates.get(m.where, 0.0)))
                        for m in measurements]
    return measurements, note


def step_errors(c: Comparison, parameters: Mapping[str, NDArray[Any]], losses: list[float]) -> list[Measurement]:
    """Return the errors of the losses, and of the update of every parameter."""
    measurements = [Measurement(f"loss of step {i}", loss_error(a, b, step_logits(c, i)),
                         c.tolerance(c.floors.step_loss, "step_loss"))
             for i, (a, b) in enumerate(zip(c.subject.meta["step_losses"], losses), 1)]
    mine = c.subject.group("stepped")
    for name, start in c.reference.case.parameters().items():
        error = relative_l2(mine[name] - start, parameters[name] - start)
        measurements.append(Measurement(name, error, c.tolerance(c.floors.update, f"updates/{name}")))
    return measurements


def step_logits(c: Comparison, step: int) -> NDArray[Any]:
    """Return the reference's logits in a step, counted from 1."""
    logits: NDArray[Any] = c.reference.trace.tensors[f"stepwise/{step - 1}/{c.reference.case.network.layers[-1].name}"]
    return logits


def _near_ties(count: int) -> str:
    return f"{count} near tie{'' if count == 1 else 's'} decided differently"


def modes(c: Comparison) -> Finding:
    """Rung 8: dropout is off in evaluation; in training it drops the stated share, rescales, and follows the step."""
    case = c.reference.case
    measurements = [judge("evaluation", not c.subject.meta["evaluates_the_same_twice"], 0, "two evaluations differ")]
    outputs = c.subject.group("outputs")
    dropped = c.subject.group("dropped")
    source = c.subject.tensors["pixels"]
    for layer in case.network.layers:
        if isinstance(layer, Dropout):
            changed = not np.array_equal(outputs[layer.name], source)
            measurements += [judge(layer.name, changed, 0, f"{layer.name} changes its input in evaluation"),
                      *dropout_activity(layer, dropped)]
        source = outputs[layer.name]
    if "logits" in dropped:
        measurements.append(dropout_step(c, dropped["logits"]))
    return measurements, "" if dropped else "the network has no dropout; only two evaluations are compared"


def dropout_step(c: Comparison, logits: NDArray[Any]) -> Measurement:
    """Check that an SGD step uses the dropout masks that the layers draw at its seed and number."""
    labels, loss = c.reference.case.labels[:len(logits)], c.subject.meta["dropout_step_loss"]
    last = c.reference.case.network.layers[-1].name
    expected, without = (softmax_cross_entropy(values.astype(np.float64), labels)[0]
                         for values in (logits, c.subject.group("training")[last]))
    error = loss_error(loss, expected, logits) if np.isfinite(logits).all() else math.inf
    tolerance = c.floors.step_loss
    off = loss_error(loss, without, logits) <= tolerance
    return judge("training step", error, tolerance, "the dropout of the training step is off" if off else
                 "a training step has other masks than the layers")


def dropout_activity(layer: Dropout, dropped: dict[str, NDArray[Any]]) -> Iterator[Measurement]:
    """Measure a dropout layer in training: the share that it drops, and its rescaling."""
    first, source = dropped[f"{layer.name}/first/out"], dropped[f"{layer.name}/first/in"]
    active = source != 0
    kept = active & (first != 0)
    count = int(active.sum())
    share = 1 - kept.sum() / count if count else layer.rate  # after a dead ReLU all inputs are 0
    spread = 5 * math.sqrt(layer.rate * (1 - layer.rate) / max(count, 1))  # five sigma of a fair draw
    yield judge(layer.name, abs(share - layer.rate), spread, f"{layer.name} drops {share:.3f}, not {layer.rate}")
    scaled = relative_l2(first[kept], source[kept] / (1 - layer.rate))
    factor = float(first[kept].sum() / source[kept].sum()) if kept.any() else 0
    yield judge(layer.name, scaled, 1e-6, f"{layer.name} scales kept values by {factor:.4g}, not by 1/(1 - rate) = "
                                          f"{1 / (1 - layer.rate):.4g}")
    again, second = dropped[f"{layer.name}/again/out"], dropped[f"{layer.name}/second/out"]
    other = not np.array_equal(first != 0, again != 0)
    yield judge(layer.name, other, 0, f"{layer.name}: the masks differ when a step is repeated")
    if layer.rate and count > 100:
        stuck = np.array_equal(first != 0, second != 0)
        yield judge(layer.name, stuck, 0, f"{layer.name}: two steps have the same masks")


def predictions(c: Comparison) -> Finding:
    """Rung 9: the same class for every input whose margin in the reference exceeds the tolerance."""
    mine, theirs = c.subject.tensors["logits"], c.reference.trace.tensors["logits"]
    if mine.shape != theirs.shape:
        return [Measurement("logits", math.inf, 0, f"logits are {mine.shape}, not {theirs.shape}")], ""
    last = c.reference.case.network.layers[-1].name
    ranked = np.sort(theirs, axis=1)
    margin = ranked[:, -1] - ranked[:, -2] if theirs.shape[1] > 1 else np.inf
    needed = 2 * c.tolerance(c.floors.largest, f"largest/{last}") * np.abs(theirs).max()
    clear = np.broadcast_to(margin > needed, len(theirs))
    wrong = int((clear & (mine.argmax(1) != theirs.argmax(1))).sum())
    return [judge("classes", wrong, 0, f"{wrong} of {int(clear.sum())} classes differ")], \
        f"{int(clear.sum())} of {len(clear)} images have a clear class"


def weights(c: Comparison) -> Finding:
    """Rung 10: exported weights equal the loaded ones, and training continued from another backend's weights follows
    the reference."""
    case, meta = c.reference.case, c.subject.meta
    changed = meta["parameters_sha256"] != parameters.digest(case.parameters())
    measurements = [judge("export", changed, 0, "the exported weights differ from the loaded ones")]
    origin = c.origins.get(meta["continued_from_sha256"])
    if origin is None:
        return measurements, "continued training not checked: the trace that it starts from is missing"
    run = take_steps(case, origin.group("stepped"), sgd_rule(case.sgd), case.steps, case.continued)
    logits = step_logits(c, case.steps)
    tolerance = c.tolerance(c.floors.step_loss, "step_loss")
    measurements += [Measurement(f"loss of continued step {i}", loss_error(a, b, logits), tolerance)
              for i, (a, b) in enumerate(zip(meta["continued_losses"], run.losses), 1)]
    return measurements, f"training continued from {origin.backend}'s weights"


RUNGS: dict[str, Callable[[Comparison], Finding]] = {
    "layers and weights": spec_and_parameters,
    "pixels": pixels,
    "output shapes": layer_shapes,
    "layer outputs": layer_outputs,
    "logits and loss": logits_and_loss,
    "gradients": gradients,
    "SGD steps": steps,
    "dropout": modes,
    "predicted classes": predictions,
    "weight exchange": weights,
}


def check_comparable(traces: list[Trace]) -> None:
    """Check that the traces have the same inputs, seed and plan of steps.

    Raises:
        TraceError: says what differs.
    """
    first = traces[0]
    for other in traces[1:]:
        for key, what in (("seed", "seed"), ("data", "dataset"), ("plan", "plan of steps"), ("case_sha256", "inputs")):
            if other.meta[key] != first.meta[key]:
                values = "" if key == "case_sha256" else f" ({first.meta[key]} and {other.meta[key]})"
                raise TraceError(f"the traces of {first.backend} and {other.backend} differ in {what}{values}; "
                                 "write both with the same arguments of `parity_trace`")
        mine, theirs = (spec.from_dict(each.meta["network"]) for each in (first, other))
        if parts(mine) != parts(theirs):
            raise TraceError(f"the traces of {first.backend} and {other.backend} are of networks with different "
                             f"inputs, layers or parameters ({mine.name} and {theirs.name}); write both with the same "
                             "`net`")


def parts(network: spec.Network) -> tuple[Any, ...]:
    """Return the parts that must be equal to compare two networks by layer. Padding and dropout may differ."""
    return network.input, [(layer.name, type(layer)) for layer in network.layers], parameters.shapes(network)
