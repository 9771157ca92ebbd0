"""Rungs of the ladder: each is green for a correct trace, and red for the smallest fault of its own and for no other.

The reference's own layers in float32 take the place of a framework. Its trace is spoiled one number at a time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import traces
from traces import PLAIN, Change, put, rung_of, scale

from alexnet_mf import spec
from alexnet_mf.errors import TraceError
from alexnet_mf.parity.case import random_case
from alexnet_mf.parity.ladder import (
    RUNGS,
    Comparison,
    Measurement,
    Rung,
    dropout_activity,
    dropout_step,
    gradient_error,
)
from alexnet_mf.parity.reference import Reference, make_reference
from alexnet_mf.parity.run import Report, compare
from alexnet_mf.parity.steps import branch_gradients, sgd_rule, take_steps
from alexnet_mf.parity.tolerances import TIERS, ratio, relative_l2, relative_largest
from alexnet_mf.parity.trace import Trace
from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.layers import Conv2d, Dense, Dropout, Flatten
from alexnet_mf.weights import parameters

LAYERS = [layer.name for layer in PLAIN.layers]
PARAMETERS = list(parameters.shapes(PLAIN))


def make_trace(network: Network = PLAIN, **options: Any) -> Trace:
    return traces.make_trace(network, **{"batch": 4, "steps": 3, "continued": 2, **options})


@functools.cache
def correct() -> Trace:
    return make_trace()


@functools.cache
def reference() -> Reference:
    return make_reference(correct().case())


def spoiled(*changes: Change) -> Trace:
    return traces.spoiled(correct(), *changes)


def climb(answer: Trace, tier: str = "float32") -> Report:
    return compare([answer], tier, reference())


def failed_rungs(report: Report, name: str = "torch") -> list[str]:
    return [rung.name for rung in report.rungs[name] if not rung.holds]


# A correct trace


def test_every_rung_is_green_for_a_correct():
    report = climb(correct())
    assert [(rung.number, rung.name) for rung in report.rungs["torch"]] == list(enumerate(RUNGS, 1))
    assert len(RUNGS) == 10
    assert failed_rungs(report) == []
    assert report.holds
    assert report.diagnoses == {"torch": []}


def test_every_layer_parameter_and_step_is_measured():
    """No rung may be green because it had nothing to measure."""
    where = {rung.name: [m.where for m in rung.measurements] for rung in climb(correct()).rungs["torch"]}
    steps = ["loss of step 1", "loss of step 2", "loss of step 3"]
    assert sorted(where["layers and weights"]) == sorted(PARAMETERS)
    assert where["pixels"] == ["pixels"]
    assert where["output shapes"] == LAYERS
    assert where["layer outputs"] == [name for name in LAYERS for _ in ("L2", "largest")]
    assert where["logits and loss"] == ["logits", "loss"]
    assert [name for name in where["gradients"] if "tie" not in name] == PARAMETERS[::-1]
    assert where["SGD steps"] == steps + PARAMETERS
    assert set(where["dropout"]) == {"evaluation", "drop3", "drop4", "training step"}
    assert where["predicted classes"] == ["classes"]
    assert where["weight exchange"] == ["export", "loss of continued step 1", "loss of continued step 2"]


def test_the_reference_equals_itself_exactly():
    answer = reference().trace
    report = compare([answer])
    assert report.holds
    for name in ("layer outputs", "logits and loss", "gradients", "SGD steps"):
        assert {m.error for m in rung_of(report, name, "numpy").measurements} == {0}, name


def test_compare_computes_a_missing_reference():
    """The order of the traces does not matter, and a backend's own trace never serves as the reference."""
    claims = spoiled(lambda answer: answer.meta.update(float32_cost={}))
    for answers in ([correct()], [reference().trace, correct()], [correct(), reference().trace], [claims]):
        rungs = compare(answers).rungs["torch"]
        assert [rung.measurements for rung in rungs] == [rung.measurements for rung in climb(correct()).rungs["torch"]]


# The smallest faults that must show


def last_bit(values: Any) -> Any:
    values.view(np.uint32)[1, 0, 30, 30] ^= 1
    return values


def another_padding(network: dict[str, Any]) -> dict[str, Any]:
    network["layers"][0]["padding"] = 0
    return network


def row(name: str, key: str, value: Any) -> Change:
    """Change one layer's row in the backend's layer table."""
    def apply(answer: Trace) -> None:
        next(row for row in answer.meta["layers"] if row["name"] == name)[key] = value
    return apply


def one_value_off(values: Any) -> Any:
    """Change one value, too little for the L2 error and too much for the largest one."""
    i = np.unravel_index(values.argmax(), values.shape)
    values[i] *= 1 + 3e-5
    return values


def scale_update(name: str, factor: float) -> Change:
    """Scale the change that the steps made to a parameter."""
    def apply(answer: Trace) -> None:
        start, key = correct().case().parameters()[name], f"stepped/{name}"
        answer.tensors[key] = (start + factor * (answer.tensors[key].astype(np.float64) - start)).astype(np.float32)
    return apply


def swap_classes(logits: Any) -> Any:
    """Swap the two best classes of one image."""
    best, second = np.argsort(-logits[7])[:2]
    logits[7, [best, second]] = logits[7, [second, best]]
    return logits


def drop_one_more(values: Any) -> Any:
    values.ravel()[np.flatnonzero(values)[0]] = 0
    return values


def keep_all(answer: Trace) -> None:
    for step in ("first", "again"):
        answer.tensors[f"dropped/drop4/{step}/out"] = answer.tensors[f"dropped/drop4/{step}/in"] / np.float32(0.8)


def masks_stuck(answer: Trace) -> None:
    answer.tensors["dropped/drop3/second/out"] = answer.tensors["dropped/drop3/first/out"]


def nth(index: int, factor: float) -> Callable[[list[float]], list[float]]:
    return lambda losses: [loss * factor if i == index else loss for i, loss in enumerate(losses)]


OTHER = "0" * 64
SPOILED: dict[str, tuple[Change, list[str]]] = {
    "another padding in the spec": (put("network", another_padding), ["layers and weights"]),
    "a digest of one exported parameter": (put("exported_sha256", lambda d: d | {"fc4.bias": OTHER}),
                                           ["layers and weights"]),
    "a parameter never exported": (put("exported_sha256", lambda d: {k: v for k, v in d.items() if k != "fc4.bias"}),
                                   ["layers and weights"]),
    "a parameter too many": (put("exported_sha256", lambda d: d | {"fc6.bias": OTHER}), ["layers and weights"]),
    "a parameter count": (row("conv2", "parameters", 585), ["layers and weights"]),
    "a pixel's last bit": (put("pixels", last_bit), ["pixels"]),
    "pixels in float64": (put("pixels", lambda x: x.astype(np.float64)), ["pixels"]),
    "pixels with the channel last": (put("pixels", lambda x: x.transpose(0, 2, 3, 1)), ["pixels"]),
    "a shape": (row("pool1", "shape", (1, 8, 9, 9)), ["output shapes"]),
    "a shape with the channel last": (row("conv1", "shape", (1, 18, 18, 8)), ["output shapes"]),
    "a layer missing from the table": (put("layers", lambda rows: rows[1:]), ["output shapes"]),
    "one value of a layer": (put("outputs/conv1", one_value_off), ["layer outputs"]),
    "an output of another shape": (put("outputs/conv2", lambda x: x[:, :, :-1]), ["layer outputs"]),
    "logits": (scale("logits", 1 + 1e-5), ["logits and loss"]),
    "the loss": (put("loss", lambda loss: loss * (1 + 1e-5)), ["logits and loss"]),
    "a loss of NaN": (put("loss", lambda loss: math.nan), ["logits and loss"]),
    "a missing update": (scale_update("fc4.bias", 0), ["SGD steps"]),
    "two evaluations that differ": (put("evaluates_the_same_twice", lambda same: False), ["dropout"]),
    "a mask that is not repeated": (put("dropped/drop3/again/out", drop_one_more), ["dropout"]),
    "masks that do not change": (masks_stuck, ["dropout"]),
    "kept values that are scaled too little": (scale("dropped/drop3/first/out", 1 - 1e-5), ["dropout"]),
    "dropout that drops nothing": (keep_all, ["dropout"]),
    "the loss of a step with dropout": (put("dropout_step_loss", lambda loss: loss * (1 + 1e-4)), ["dropout"]),
    "dropout in evaluation": (put("outputs/drop3", drop_one_more), ["layer outputs", "dropout"]),
    "a class": (put("logits", swap_classes), ["logits and loss", "predicted classes"]),
    "logits of another shape": (put("logits", lambda x: x[:, :9]), ["logits and loss", "predicted classes"]),
    "the digest of all parameters": (put("parameters_sha256", lambda digest: OTHER), ["weight exchange"]),
}
for _i in range(3):
    SPOILED[f"the loss of step {_i + 1}"] = put("step_losses", nth(_i, 1 + 1e-4)), ["SGD steps"]
for _i in range(2):
    SPOILED[f"the loss of continued step {_i + 1}"] = put("continued_losses", nth(_i, 1 - 1e-4)), ["weight exchange"]
for _name in LAYERS:
    # Dropout's input and output in evaluation are no longer the same numbers.
    _also = ["dropout"] if _name in ("fc3", "drop3", "fc4", "drop4") else []
    SPOILED[f"the output of {_name}"] = scale(f"outputs/{_name}", 1 + 1e-5), ["layer outputs", *_also]
for _name in PARAMETERS:
    SPOILED[f"the gradient of {_name}"] = scale(f"gradients/{_name}", 1 + 1e-4), ["gradients"]
    SPOILED[f"the update of {_name}"] = scale_update(_name, 1.003), ["SGD steps"]


@pytest.mark.parametrize("change, rungs", SPOILED.values(), ids=SPOILED)
def test_a_rung_is_red_for_its_own_fault_and_no_other(change, rungs):
    report = climb(spoiled(change))
    assert failed_rungs(report) == rungs
    assert not report.holds
    assert report.diagnoses["torch"], "the lowest red rung has a diagnosis"


@pytest.mark.parametrize("group, name", [("gradients", name) for name in PARAMETERS]
                         + [("outputs", name) for name in LAYERS])
def test_only_the_wrong_tensor_is_named(group, name):
    failures = rung_of(climb(spoiled(scale(f"{group}/{name}", 1.01))),
                       "gradients" if group == "gradients" else "layer outputs").failures
    assert {failure.where for failure in failures} == {name}
    assert failures[0].error == pytest.approx(0.01, rel=1e-3)


def test_a_wrongly_reported_shape_is_no_divergent_layer():
    diagnoses = climb(spoiled(row("pool1", "shape", (1, 8, 9, 9)))).diagnoses["torch"]
    assert diagnoses == ["the measured shapes differ, the outputs of the batch do not"]


def test_a_step_in_evaluation_mode_is_distinguished_from_other_masks():
    without = correct().meta["loss"]  # of the same batch without dropout
    off, other = (climb(spoiled(put("dropout_step_loss", lambda _, value=value: value))).diagnoses["torch"]
                  for value in (without, without * 1.5))
    assert off == ["the dropout of the training step is off"]
    assert other == ["a training step has other masks than the layers"]


@pytest.mark.parametrize("group", ["pixels", "outputs/conv1", "outputs/fc5", "gradients/fc3.weight",
                                   "stepped/conv1.bias", "logits", "dropped/drop3/first/out", "dropped/logits"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_and_infinity_are_red_without_an_exception(group, value):
    def change(answer: Trace) -> None:
        values = answer.tensors[group]
        values[np.unravel_index(values.argmax(), values.shape)] = value
    report = climb(spoiled(change))
    assert failed_rungs(report)
    assert report.diagnoses["torch"]


def test_classes_with_a_tiny_margin_may_differ():
    """The margin of one image is smaller than the tolerance, in the reference too; all others have a clear class."""
    exact = reference()
    logits = exact.trace.tensors["logits"].copy()
    best, second = np.argsort(-logits[7])[:2]
    logits[7, second] = logits[7, best] * (1 - 1e-9)
    near = replace(exact, trace=Trace(exact.trace.meta, exact.trace.tensors | {"logits": logits}))
    answer = spoiled(put("logits", lambda _: swap_classes(logits.astype(np.float32))))
    assert answer.tensors["logits"][7].argmax() in (best, second)
    answer.tensors["logits"][7, second] *= np.float32(1 + 1e-6)  # the other class wins, without a tie
    rung = rung_of(compare([answer], reference=near), "predicted classes")
    assert answer.tensors["logits"][7].argmax() != logits[7].argmax()
    assert rung.holds
    assert rung.note == "23 of 24 images have a clear class"


# Near ties and wide gaps


def smallest(values: Any) -> tuple[int, ...]:
    """Return the index of the smallest positive value."""
    return tuple(np.unravel_index(np.where(values > 0, values, np.inf).argmin(), values.shape))


def close_the_nearest(values: Any) -> Any:
    """Close the ReLU that is nearest to closing."""
    values[smallest(values)] = 0
    return values


def relu_gap(references: Any) -> float:
    """Return the value of that ReLU over the largest value of its layer."""
    return float(references[smallest(references)] / references.max())


def follow_own_decisions(answer: Trace) -> None:
    """Replace the gradients by those that follow the trace's own layer outputs."""
    for name, value in branch_gradients(correct().case(), answer.group("training")).items():
        answer.tensors[f"gradients/{name}"] = value.astype(np.float32)


def test_gradients_follow_the_backends_own_near_ties_up_to_a_gap():
    """The allowed gap decides, not the gradient."""
    answer = spoiled(put("training/fc3", close_the_nearest), follow_own_decisions)
    gap = relu_gap(reference().trace.tensors["training/fc3"])
    assert gap > 1e-4, "a smaller gap would be a near tie by any measure"
    allowed = {factor: Comparison(answer, reference(), replace(TIERS["float32"], largest=gap * factor))
               for factor in (0.99, 1.01)}
    rungs = {factor: {rung.name: rung for rung in comparison.climb()} for factor, comparison in allowed.items()}
    assert rungs[1.01]["gradients"].holds
    assert rungs[1.01]["gradients"].note == "1 near tie decided differently"
    assert not rungs[0.99]["gradients"].holds
    ties = [failure for failure in rungs[0.99]["gradients"].failures if failure.where == "fc3, near ties"]
    assert ties[0].error == pytest.approx(gap, rel=1e-5)


def test_gradients_of_untraced_decisions_are_red():
    """Gradients must follow the traced decisions, however near the tie."""
    answer = spoiled(put("training/fc3", close_the_nearest), follow_own_decisions)
    answer.tensors["training/fc3"] = correct().tensors["training/fc3"]
    loose = Comparison(answer, reference(), replace(TIERS["float32"], largest=1.0))
    rung = {rung.name: rung for rung in loose.climb()}["gradients"]
    assert "fc3.bias" in {failure.where for failure in rung.failures}


def other_pool_choice(values: Any) -> Any:
    """Make the pixel beside the largest in conv1's output outgrow it; every ReLU decides as before."""
    image, channel, i, j = np.unravel_index(values[:, :, 2:-2, 2:-2].argmax(), values[:, :, 2:-2, 2:-2].shape)
    values[image, channel, i + 2, j + 3] = 1.5 * values[image, channel, i + 2, j + 2]
    return values


def close_the_widest(values: Any) -> Any:
    values[np.unravel_index(values.argmax(), values.shape)] = 0
    return values


@pytest.mark.parametrize("layer, tie, change", [("conv1", "conv1", close_the_widest), ("fc3", "fc3", close_the_widest),
                                                ("conv1", "pool1", other_pool_choice)])
@pytest.mark.parametrize("gradients", [lambda answer: None, follow_own_decisions],
                         ids=["the reference's", "its own"])
def test_a_wide_gap_is_red_and_not_a_tie(layer, tie, change, gradients):
    report = climb(spoiled(put(f"training/{layer}", change), gradients))
    assert failed_rungs(report) == ["gradients"]
    assert f"{tie}, near ties" in {failure.where for failure in rung_of(report, "gradients").failures}
    assert rung_of(report, "gradients").note == "", "nothing is called a near tie"


def test_equal_values_may_be_chosen_either_way():
    """The two largest values in one window of pool1 are equal in the reference."""
    exact = reference()
    values = exact.trace.tensors["training/conv1"].copy()
    image, channel, i, j = np.unravel_index(values[:, :, 2:-2, 2:-2].argmax(), values[:, :, 2:-2, 2:-2].shape)
    here, beside = (image, channel, i + 2, j + 2), (image, channel, i + 2, j + 3)
    values[beside] = values[here]
    tied = replace(exact, trace=Trace(exact.trace.meta, exact.trace.tensors | {"training/conv1": values}))
    mine = values.astype(np.float32)
    mine[beside] = np.nextafter(mine[here], np.float32(np.inf))  # otherwise the first is chosen
    answer = spoiled(put("training/conv1", lambda _: mine), follow_own_decisions)
    rung = rung_of(compare([answer], reference=tied), "gradients")
    assert rung.holds
    assert rung.note == "1 near tie decided differently"


def step_otherwise(change: Callable[[Any], Any]) -> Change:
    """Take steps that follow, and trace, another decision in fc3 at step 1."""
    def apply(answer: Trace) -> None:
        case = correct().case()
        answer.tensors["stepwise/0/fc3"] = change(answer.tensors["stepwise/0/fc3"])
        branches = [answer.group(f"stepwise/{step}") for step in range(case.steps)]
        run = take_steps(case, case.parameters(), sgd_rule(case.sgd), branches=branches)
        answer.meta["step_losses"] = run.losses
        for name, value in run.parameters.items():
            answer.tensors[f"stepped/{name}"] = value.astype(np.float32)
    return apply


def test_steps_follow_the_backends_own_near_ties_up_to_a_gap(monkeypatch):
    answer = spoiled(step_otherwise(close_the_nearest))
    case = correct().case()
    run = take_steps(case, case.parameters(), sgd_rule(case.sgd),
                     branches=[answer.group(f"stepwise/{step}") for step in range(case.steps)])
    assert failed_rungs(climb(answer)) == ["SGD steps"], "the gap is wider than any rounding"
    monkeypatch.setitem(TIERS, "float32", replace(TIERS["float32"], largest=run.gap * 0.99))
    assert failed_rungs(climb(answer)) == ["SGD steps"]
    monkeypatch.setitem(TIERS, "float32", replace(TIERS["float32"], largest=run.gap * 1.01))
    report = climb(answer)
    assert failed_rungs(report) == []
    assert rung_of(report, "SGD steps").note == f"3 steps, {run.flips} near ties decided differently"
    assert run.flips > 0
    answer.tensors["stepwise/0/fc3"] = correct().tensors["stepwise/0/fc3"]
    assert failed_rungs(climb(answer)) == ["SGD steps"], "only traced decisions are followed"


@pytest.mark.parametrize("change", [close_the_widest, lambda values: values * 0], ids=["one", "all"])
def test_a_wide_gap_in_the_steps_is_red_and_not_a_tie(change):
    report = climb(spoiled(step_otherwise(change)))
    assert failed_rungs(report) == ["SGD steps"]
    assert "tie" not in rung_of(report, "SGD steps").note


# Tolerances


@pytest.mark.parametrize("floor, cost, tolerance", [(2e-6, 0, 2e-6), (2e-6, 1e-7, 2e-6), (2e-6, 1e-6, 1e-5),
                                                    (0, 0, 0), (1e-3, 1e-4, 1e-3)])
def test_a_tolerance_is_the_larger_of_the_floor_and_ten_times_the_cost(floor, cost, tolerance):
    comparison = Comparison(correct(), replace(reference(), cost={"outputs/conv1": cost}))
    assert comparison.tolerance(floor, "outputs/conv1") == pytest.approx(tolerance)
    assert comparison.tolerance(floor, "outputs/conv2") == floor, "without a cost, the floor applies"


@pytest.mark.parametrize("tensor, cost, name", [
    ("outputs/conv2", ["outputs/conv2", "largest/conv2"], "layer outputs"),
    ("gradients/fc3.weight", ["gradients/fc3.weight"], "gradients"), ("logits", ["outputs/fc5"], "logits and loss")])
def test_a_measured_cost_widens_its_own_tolerance(tensor, cost, name):
    dear = replace(reference(), cost=dict.fromkeys(cost, 1e-4))
    within, beyond, cheap = (
        rung_of(compare([spoiled(scale(tensor, factor))], reference=by), name)
        for factor, by in ((1 + 9e-4, dear), (1 + 1.1e-3, dear), (1 + 9e-4, replace(dear, cost={}))))
    assert (within.holds, beyond.holds, cheap.holds) == (True, False, False)


@pytest.mark.parametrize("cost, factor, holds", [(1e-4, 9e-4, True), (1e-4, 1.1e-3, False), (0.0, 9e-4, False)])
def test_the_tolerance_of_an_update_follows_its_own_cost(cost, factor, holds):
    """The updates are the reference's own, one of them slightly longer."""
    answer = Trace(reference().trace.meta | {"backend": "torch"}, dict(reference().trace.tensors))
    start, end = correct().case().parameters()["fc3.weight"], answer.tensors["stepped/fc3.weight"]
    answer.tensors["stepped/fc3.weight"] = end + factor * (end - start)
    by = replace(reference(), cost=reference().cost | {"updates/fc3.weight": cost})
    failures = [failure.where for failure in rung_of(compare([answer], reference=by), "SGD steps").failures]
    assert failures == ([] if holds else ["fc3.weight"])


def test_the_reference_measures_the_cost_of_float32():
    """Every cost is of the order of float32 rounding; an update's cost includes the rounding of its larger weight."""
    cost = reference().cost
    named = {*(f"{group}/{name}" for group in ("outputs", "largest") for name in LAYERS),
             *(f"{group}/{name}" for group in ("gradients", "updates") for name in PARAMETERS), "loss", "step_loss"}
    assert named <= set(cost)
    assert all(0 <= value < (1e-3 if name.startswith("updates/") else 1e-5) for name, value in cost.items()), cost
    assert cost["outputs/conv1"] > 1e-8
    case = correct().case()
    start = case.parameters()["fc3.weight"]
    end = take_steps(case, case.parameters(), sgd_rule(case.sgd)).parameters["fc3.weight"]
    rounding = relative_l2(end.astype(np.float32) - start, end - start)
    assert rounding < cost["updates/fc3.weight"] < 4 * rounding


def test_floors_suffice_without_costs_except_for_updates():
    """Without costs, a correct trace exceeds a floor only in updates, which are small beside the rounded weights."""
    assert failed_rungs(compare([correct()], reference=replace(reference(), cost={}))) == ["SGD steps"]
    updates = {name: value for name, value in reference().cost.items() if name.startswith("updates/")}
    assert compare([correct()], reference=replace(reference(), cost=updates)).holds


@pytest.mark.parametrize("error, tiers", [
    (1e-3, {"tf32", "float16", "bfloat16"}), (1.5e-2, {"bfloat16"}), (0.5, set())])
def test_each_tier_is_wider_than_the_one_before(error, tiers):
    answer = spoiled(scale("outputs/conv1", 1 + error), scale("gradients/conv1.bias", 1 + error))
    assert {tier for tier in TIERS if climb(answer, tier).holds} == tiers


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("change", ["a pixel's last bit", "a digest of one exported parameter", "a shape",
                                    "a mask that is not repeated"])
def test_exact_checks_are_exact_in_every_tier(tier, change):
    apply, rungs = SPOILED[change]
    assert failed_rungs(climb(spoiled(apply), tier)) == rungs


def test_the_worst_measurement_is_the_first_beyond_its_tolerance_or_the_nearest_to_it():
    near, far, beyond = Measurement("near", 9.0, 10.0), Measurement("far", 1.0, 10.0), Measurement("beyond", 2.0, 1.0)
    exact = Measurement("exact", 0, 0)
    assert Rung(1, "", [far, near, exact]).worst is near
    assert Rung(1, "", [near, beyond, far]).worst is beyond
    assert Rung(1, "", [near, beyond, far]).failures == [beyond]
    assert Rung(1, "", [exact, Measurement("other", 1, 0)]).worst.where == "other"
    assert Measurement("at its tolerance", 1.0, 1.0).holds
    assert not Measurement("no number", math.nan, 1.0).holds


def test_errors_between_arrays():
    three = np.array([3.0, 4.0])
    assert relative_l2(three, three) == 0
    assert relative_l2(np.array([3.0, 4.5]), three) == pytest.approx(0.1)
    assert relative_largest(np.array([3.0, 4.5]), three) == pytest.approx(0.125)
    for error in (relative_l2, relative_largest):
        assert error(np.zeros(3), np.zeros(2)) == math.inf
        assert error(np.zeros(2), np.zeros(2)) == 0
        assert error(three, np.zeros(2)) == math.inf
        assert error(np.array([math.nan, 4.0]), three) == math.inf
        assert error(np.zeros(0), np.zeros(0)) == 0
    long = np.ones(100_000)  # longer than one block
    changed = long.copy()
    changed[-1] = 2
    assert relative_l2(changed, long) == pytest.approx(1 / math.sqrt(100_000))
    assert relative_largest(changed, long) == 1
    assert ratio(0, 0) == 0
    assert ratio(1, 0) == math.inf


def test_the_dropped_share_may_differ_by_five_standard_deviations():
    _, share, *_ = (m for m in rung_of(climb(correct()), "dropout").measurements if m.where == "drop4")
    values = np.count_nonzero(correct().tensors["dropped/drop4/first/in"])
    assert share.tolerance == pytest.approx(5 * math.sqrt(0.2 * 0.8 / values))


def test_an_inexact_softmax_moves_the_losses_of_the_next_steps():
    """The first step's loss cannot move; random networks revealed that the later ones do."""
    moved = reference().softmax_updates
    assert moved["loss of step 1"] == 0
    assert all(0 < moved[f"loss of step {step}"] < 1e-4 for step in range(2, reference().case.steps + 1))


@pytest.mark.parametrize("off, holds", [(3e-6, True), (3e-4, False)])
def test_a_small_loss_with_dropout_may_differ_by_the_rounding_of_a_loss(off, holds):
    """Random networks revealed that MXNet's logarithm rounds so."""
    logits = np.array([[9.0, 0.0]])
    case = SimpleNamespace(labels=np.array([0]), network=SimpleNamespace(layers=[SimpleNamespace(name="fc")]))
    subject = SimpleNamespace(meta={"dropout_step_loss": math.log1p(math.exp(-9)) + off},
                              group=lambda name: {"fc": logits + 1})
    comparison: Any = SimpleNamespace(reference=SimpleNamespace(case=case), subject=subject, floors=TIERS["float32"])
    assert dropout_step(comparison, logits).holds is holds


@pytest.mark.parametrize("rate", [0, 0.5, 0.99])
def test_dropout_after_a_dead_relu_is_green(rate):
    """Zeros leave nothing to drop; random networks have such layers."""
    dead = dict.fromkeys((f"drop/{call}" for call in ("first/in", "first/out", "again/out", "second/out")), np.zeros(8))
    assert all(measurement.holds for measurement in dropout_activity(Dropout("drop", rate=rate), dead))


# Several traces


def test_traces_are_labeled_by_backend_and_numbered_if_there_are_several():
    others = [spoiled(put("backend", lambda _, name=name: name)) for name in ("mxnet", "torch", "mxnet", "mxnet")]
    report = compare([*others, reference().trace], reference=reference())
    assert list(report.rungs) == ["mxnet#1", "torch", "mxnet#2", "mxnet#3", "numpy"]
    assert report.holds
    pairs = [(pair.first, pair.second) for pair in report.pairs]
    assert len(pairs) == 6
    assert ("mxnet#1", "torch") in pairs
    assert all("numpy" not in pair for pair in pairs)


def test_one_wrong_trace_of_two_is_named():
    report = compare([correct(), spoiled(scale("gradients/fc3.bias", 1.01))], reference=reference())
    assert failed_rungs(report, "torch#1") == []
    assert failed_rungs(report, "torch#2") == ["gradients"]
    assert not report.holds
    assert report.diagnoses["torch#1"] == []
    assert "fc3.bias: scaled by 1.01" in report.diagnoses["torch#2"][0]
    (pair,) = report.pairs
    assert (pair.pixels_equal, pair.output, pair.parameter) == (True, 0, "fc3.bias")
    assert pair.gradient == pytest.approx(0.01, rel=1e-2)


def test_a_note_names_the_start_of_continued_training():
    before = reference().trace.group("stepped")
    other = make_trace(name="mxnet", continue_from={name: value * np.float32(0.5) for name, value in before.items()})
    follower = make_trace(name="mxnet", continue_from=before)
    notes = {name: rungs[-1].note for name, rungs in
             compare([follower, other], reference=reference()).rungs.items()}
    assert notes == {"mxnet#1": "training continued from numpy's weights",
                     "mxnet#2": "continued training not checked: the trace that it starts from is missing"}
    follower.meta["continued_losses"] = other.meta["continued_losses"]  # claims a start that it did not use
    report = compare([follower], reference=reference())
    assert failed_rungs(report, "mxnet") == ["weight exchange"]
    assert "start from other weights" in report.diagnoses["mxnet"][0]


def trace_of(layers: tuple[Any, ...]) -> Trace:
    return make_trace(replace(PLAIN, layers=layers))


UNCOMPARABLE: dict[str, tuple[Callable[[], Trace], str]] = {
    "seed": (lambda: make_trace(seed=1), r"differ in seed \(0 and 1\)"),
    "dataset": (lambda: make_trace(origin="fashion-mnist"), "differ in dataset"),
    "steps": (lambda: make_trace(steps=2), "differ in plan"),
    "batch": (lambda: make_trace(batch=3), "differ in plan"),
    "images": (lambda: make_trace(inputs=correct().tensors["inputs"] ^ 1), "differ in inputs"),
    "labels": (lambda: make_trace(labels=(correct().tensors["labels"] + 1) % 10), "differ in inputs"),
    "units": (lambda: trace_of((*PLAIN.layers[:-1], Dense("fc5", units=11))),
              "different inputs, layers or parameters"),
    "kernel": (lambda: trace_of((replace(PLAIN.layers[0], kernel=6), *PLAIN.layers[1:])), "layers or parameters"),
    "names": (lambda: trace_of((replace(PLAIN.layers[0], name="first"), *PLAIN.layers[1:])), "layers or parameters"),
    "fewer layers": (lambda: trace_of((*PLAIN.layers[:-2], PLAIN.layers[-1])), "layers or parameters"),
}


@pytest.mark.parametrize("make, message", UNCOMPARABLE.values(), ids=UNCOMPARABLE)
def test_traces_of_different_cases_are_not_compared(make, message):
    with pytest.raises(TraceError, match=message) as caught:
        compare([correct(), make()])
    assert "\n" not in str(caught.value)
    with pytest.raises(TraceError, match="numpy and torch"):
        compare([make()], reference=reference())


def test_networks_of_the_same_layers_and_parameters_are_compared():
    """The ladder must find differences in padding, dropout and activation."""
    layers = [replace(layer, padding=0) if layer.name == "conv1" else layer for layer in PLAIN.layers]
    answer = trace_of(tuple(layers))
    assert arithmetic.parameter_counts(answer.case().network) == arithmetic.parameter_counts(PLAIN)
    report = climb(answer)
    assert failed_rungs(report)[0] == "layers and weights"
    assert report.diagnoses["torch"] == ["conv1.padding is 0, the reference's is 1",
                                         "first divergent layer: conv1: padding 0 instead of 1"]


def test_names_and_sources_of_networks_do_not_matter():
    renamed = replace(PLAIN, name="renamed", source="elsewhere")
    assert spec.fingerprint(renamed) == spec.fingerprint(PLAIN)
    assert climb(make_trace(renamed)).holds


def test_a_network_without_dropout_is_compared():
    """The inputs here are random numbers, not images."""
    network = Network("plain", (3, 9, 7), (Conv2d("conv1", channels=4, kernel=3), Flatten("flatten"),
                                           Dense("fc1", units=3)))
    case = random_case(network, 0, 12, batch=2, steps=2, continued=1)
    answer = make_trace(network, inputs=case.inputs, labels=case.labels, origin="random", batch=2, steps=2, continued=1)
    report = compare([answer])
    assert report.holds
    dropout = rung_of(report, "dropout")
    assert [measurement.where for measurement in dropout.measurements] == ["evaluation"]
    assert dropout.note == "the network has no dropout; only two evaluations are compared"


@pytest.mark.parametrize("right", [0.0, 1e-12])
def test_a_gradient_that_float32_does_not_resolve_is_measured_as_a_share_of_all(right: float) -> None:
    """A bias before batch normalization has no effect; all gradients have a norm of 5 here."""
    unresolved = replace(reference(), cost={"gradients/bias": math.inf if right == 0 else 1e4})
    gradients = {"bias": np.array([right]), "weight": np.array([3.0, 4.0])}
    comparison = Comparison(correct(), unresolved)
    close, far = (gradient_error(comparison, "bias", np.array([right + error]), gradients) for error in (1e-6, 1e-3))
    assert (close.error, close.tolerance) == (pytest.approx(2e-7, rel=1e-5), TIERS["float32"].gradient)
    assert close.holds and not far.holds
    assert not gradient_error(comparison, "bias", None, gradients).holds
