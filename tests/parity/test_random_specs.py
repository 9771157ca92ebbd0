"""Correct networks of any shape stay green: random small specs, in every backend, up the whole ladder."""

from __future__ import annotations

import functools
import gc
import math
import sys
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from traces import assert_green, rung_of

from alexnet_mf import backends
from alexnet_mf.backends.numpy import layers, trainer
from alexnet_mf.errors import SpecError
from alexnet_mf.parity.case import random_case
from alexnet_mf.parity.reference import SOFTMAX_ERROR, Reference, make_reference
from alexnet_mf.parity.run import compare
from alexnet_mf.parity.trace import trace
from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.layers import (
    Activation,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    LocalResponseNorm,
    MaxPool2d,
    Normalize,
    output_shape,
    same_padding,
    sides,
)


def paddings(most: int) -> st.SearchStrategy[Any]:
    """Draw a padding of up to `most` pixels: the same on all sides, or any four numbers, or `same`."""
    side = st.integers(0, most)
    return st.one_of(side, side, st.tuples(st.tuples(side, side), st.tuples(side, side)), st.just("same"))


ACTIVATIONS = st.sampled_from([
    {"activation": None}, {"activation": "relu"}, {"activation": "relu"}, {"activation": "sigmoid"},
    {"activation": "tanh"}, {"activation": "elu"}, {"activation": "elu", "alpha": 0.5},
    {"activation": "leaky_relu", "alpha": 0.1}, {"activation": "gelu"}, {"activation": "gelu_tanh"}])
BIASES = st.sampled_from([True, True, False])
RATES = st.sampled_from([0, 0.1, 0.25, 0.5, 0.8])


def normalizations(name: str) -> st.SearchStrategy[BatchNorm]:
    """Draw a batch normalization."""
    return st.builds(lambda epsilon, momentum, activation: BatchNorm(name, epsilon, momentum, **activation),
                     st.sampled_from([1e-5, 1e-3]), st.sampled_from([0.1, 0.01, 0.5]), ACTIVATIONS)


@st.composite
def networks(draw: Any) -> Network:
    """Draw a network: up to four convolutions (some grouped), poolings and normalizations in any order, then up to two
    hidden dense layers, and batch normalization and dropout after any of them. Inputs are odd and oblong; a third is
    normalized first."""
    image = (draw(st.integers(1, 3)), draw(st.integers(5, 24)), draw(st.integers(5, 24)))
    shape: Any = image
    layers: list[Any] = []
    if draw(st.integers(0, 2)) == 2:
        layers.append(Normalize("normalize", *(tuple(draw(st.floats(low, 1.0, allow_subnormal=False))
                                                     for _ in range(image[0])) for low in (-0.5, 0.05))))
    for number in range(1, draw(st.integers(1, 4)) + 1):
        kernel, stride = draw(st.integers(1, 5)), draw(st.integers(1, 4))
        layer_type = draw(st.sampled_from([Conv2d, Conv2d, Conv2d, Conv2d, MaxPool2d, MaxPool2d, AvgPool2d, AvgPool2d,
                                           AdaptiveAvgPool2d, LocalResponseNorm]))
        layer: Any
        if layer_type is Conv2d:
            groups = draw(st.sampled_from([share for share in range(1, shape[0] + 1) if shape[0] % share == 0]))
            each = draw(st.integers(1, 5) if groups == 1 else st.sampled_from([1, 2, 3, 8]))
            layer = Conv2d(f"conv{number}", channels=groups * each, kernel=kernel, stride=stride,
                           padding=draw(paddings(3)), groups=groups, bias=draw(BIASES), **draw(ACTIVATIONS))
        elif layer_type is AdaptiveAvgPool2d:
            layer = AdaptiveAvgPool2d(f"areas{number}", size=draw(st.integers(1, 5)))
        elif layer_type is LocalResponseNorm:
            layer = LocalResponseNorm(f"norm{number}", size=draw(st.sampled_from([1, 3, 5])),
                                      alpha=draw(st.sampled_from([1e-4, 0.1])), beta=draw(st.sampled_from([0.5, 0.75])),
                                      k=draw(st.sampled_from([1, 2])))
        else:
            numbers = {"kernel": kernel, "stride": stride, "padding": draw(paddings(kernel - 1))}
            if layer_type is AvgPool2d:
                numbers["count_padding"] = draw(st.booleans())
            layer = layer_type(f"pool{number}", **numbers)
        try:
            shape = output_shape(layer, shape)
        except SpecError:  # its kernel is larger than what is left
            continue
        layers.append(layer)
        if draw(st.integers(0, 3)) == 3:
            layers.append(draw(normalizations(f"norm_{layer.name}")))
        if draw(st.integers(0, 3)) == 3:
            layers.append(Dropout(f"drop_{layer.name}", rate=draw(RATES)))
    layers.append(Flatten("flatten"))
    if draw(st.integers(0, 5)) == 5:
        layers.append(draw(normalizations("norm_flatten")))
    if draw(st.integers(0, 3)) == 3:
        layers.append(Dropout("drop_flatten", rate=draw(RATES)))
    for number in range(1, draw(st.integers(0, 2)) + 1):
        layers.append(Dense(f"hidden{number}", units=draw(st.integers(2, 12)), bias=draw(BIASES),
                            **draw(ACTIVATIONS)))
        if draw(st.integers(0, 3)) == 3:
            layers.append(draw(normalizations(f"norm_hidden{number}")))
        if draw(st.booleans()):
            layers.append(Dropout(f"drop_hidden{number}", rate=draw(RATES)))
    layers.append(Dense("last", units=draw(st.integers(2, 6)), bias=draw(BIASES)))
    return Network("random", image, tuple(layers))


@functools.lru_cache(maxsize=1000)  # the next backend draws the same networks
def reference(network: Network) -> Reference:
    """Return the reference's results for a random case of this network."""
    return make_reference(random_case(network, seed=0, count=30, batch=3, steps=3))


def check(backend_name: str, network: Network) -> None:
    """Check that all rungs are green."""
    assert_green(backend_name, reference(network))
    if "keras" in sys.modules:  # Keras keeps its models
        sys.modules["keras"].backend.clear_session()
    gc.collect()


QUIET = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck),
         "phases": [Phase.generate]}  # each example costs a second, so a red one is not shrunk


@settings(max_examples=5, **QUIET)
@given(network=networks())
def test_a_few_random_specs(backend_name: str, network: Network) -> None:
    check(backend_name, network)


@pytest.mark.exhaustive
@settings(max_examples=25, **QUIET)
@given(network=networks())
def test_random_specs(backend_name: str, network: Network) -> None:
    check(backend_name, network)


@pytest.mark.slow
@settings(max_examples=500, **QUIET)
@given(network=networks())
def test_many_random_specs(backend_name: str, network: Network) -> None:
    check(backend_name, network)


def test_the_random_networks_cover_all_layer_types() -> None:
    """The strategy draws what the fixed networks lack."""
    drawn: list[Network] = []

    @settings(max_examples=300, **QUIET)
    @given(network=networks())
    def collect(network: Network) -> None:
        drawn.append(network)

    collect()
    layers = [layer for network in drawn for layer in network.layers]
    convolutions = [layer for layer in layers if isinstance(layer, Conv2d)]
    poolings = [layer for layer in layers if isinstance(layer, MaxPool2d)]
    assert any(network.input[1] != network.input[2] for network in drawn)
    assert {network.input[0] for network in drawn} == {1, 2, 3}
    assert {layer.activation for layer in convolutions} == {None, *get_args(Activation)}
    assert {layer.bias for layer in layers if isinstance(layer, (Conv2d, Dense))} == {True, False}
    pairs = [(layer.kernel, pair) for layer in convolutions for pair in sides(layer.padding)]
    assert any(before > kernel // 2 for kernel, (before, _) in pairs)
    assert any(before < after for _, (before, after) in pairs) and any(before > after for _, (before, after) in pairs)
    strided = [(layer, arithmetic.input_shapes(network)[layer.name][1:]) for network in drawn
               for layer in network.layers if isinstance(layer, Conv2d) and layer.stride > 1]
    assert any(isinstance(layer.padding, tuple) and layer.padding == same_padding(sizes, layer.kernel, layer.stride)
               for layer, sizes in strided)
    assert any(layer.stride > layer.kernel for layer in convolutions)
    assert any(layer.stride < layer.kernel for layer in poolings)
    assert any(isinstance(layer.padding, int) and layer.padding for layer in poolings)
    assert any(isinstance(layer.padding, tuple) for layer in poolings)
    means = [layer for layer in layers if isinstance(layer, AvgPool2d) and layer.padding]
    assert {layer.count_padding for layer in means} == {True, False}
    types = {type(layer) for layer in layers}
    assert types >= {AvgPool2d, AdaptiveAvgPool2d, LocalResponseNorm, Normalize, BatchNorm}
    assert {layer.activation for layer in layers if isinstance(layer, BatchNorm)} == {None, *get_args(Activation)}
    assert {len(layer.mean) for layer in layers if isinstance(layer, Normalize)} == {1, 2, 3}
    assert any(layer.groups > 1 for layer in convolutions)
    before_dropout = {type(before) for network in drawn for before, layer in zip(network.layers, network.layers[1:])
                      if isinstance(layer, Dropout)}
    assert before_dropout >= {Conv2d, MaxPool2d, Flatten, Dense}


# The random specs revealed this: a gradient whose images nearly cancel shows how exact the softmax is.

CANCELLING = Network("cancelling", (1, 22, 11), (
    Conv2d("conv1", channels=2, kernel=3, stride=3, padding=3), Conv2d("conv2", channels=5, kernel=5, stride=3,
                                                                       activation=None),
    Flatten("flatten"), Dense("hidden", units=4, activation="relu"), Dense("last", units=5)))


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_no_softmax_is_less_exact_than_the_ladder_assumes(backend_name: str, scale: float) -> None:
    """For one image, the gradient in the last bias is the probabilities, minus one at the label."""
    network = Network("softmax", (1, 4, 4), (Flatten("flatten"), Dense("last", units=16)))
    case = random_case(network, seed=0, count=48, batch=1, steps=0, continued=0)
    values = {name: value * np.float32(scale) for name, value in case.parameters().items()}
    model, right = (backends.load(name).build(network, values) for name in (backend_name, "numpy"))
    for image in range(len(case.inputs)):
        rows = slice(image, image + 1)
        mine, theirs = (each.gradients(each.place(case.inputs[rows], case.labels[rows]))[1]["last.bias"]
                        for each in (model, right))
        others = np.arange(16) != case.labels[image]
        assert mine[others] == pytest.approx(theirs[others], rel=SOFTMAX_ERROR, abs=0)


def test_the_softmax_error_of_a_gradient_has_a_tight_bound() -> None:
    """The bound covers all signs of the images' errors, and is less than three times the largest error."""
    right = reference(CANCELLING)
    case, exact = right.case, right.trace.group("gradients")
    model: Any = backends.load("numpy").build(CANCELLING, case.parameters())
    batch = model.place(case.inputs[:case.batch], case.labels[:case.batch])
    logits = right.trace.tensors["outputs/last"]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    largest = dict.fromkeys(exact, 0.0)
    for corner in range(2 ** case.batch):
        signs = [[1.0 if corner >> image & 1 else -1.0] for image in range(case.batch)]
        moved = model.pull_back(batch, SOFTMAX_ERROR * probabilities * np.array(signs) / case.batch)
        for name, gradient in exact.items():
            error = float(np.linalg.norm(moved[name]) / np.linalg.norm(gradient))
            assert error <= right.cost[f"softmax/{name}"] * (1 + 1e-9), name
            largest[name] = max(largest[name], error)
    for name, error in largest.items():
        assert right.cost[f"softmax/{name}"] < 3 * error, name


@pytest.mark.parametrize("times, holds", [(0.9, True), (10, False)])
def test_the_softmax_error_of_updates_has_a_bound(monkeypatch: pytest.MonkeyPatch, times: float, holds: bool) -> None:
    """The probabilities of each image have an error, of either sign."""
    right = reference(CANCELLING)
    numpy: Any = backends.load("numpy")
    exact = layers.softmax_cross_entropy

    def inexact(logits: Any, labels: Any) -> Any:
        loss, gradient = exact(logits, labels)
        probabilities = gradient * len(labels) + (np.arange(logits.shape[1]) == labels[:, None])
        signs = np.array([[1.0], [-1.0], [1.0]])
        return loss, gradient + times * SOFTMAX_ERROR * signs * probabilities / len(labels)

    monkeypatch.setattr(trainer, "softmax_cross_entropy", inexact)
    answer = trace(numpy, right.case)
    monkeypatch.undo()
    answer.meta["backend"] = "torch"
    report = compare([answer], reference=right)
    steps = rung_of(report, "SGD steps")
    assert steps.holds is holds
    moved, losses = right.softmax_updates, [m for m in steps.measurements if m.where.startswith("loss")]
    assert max(m.error / moved.get(m.where, math.inf) for m in steps.measurements if m not in losses) > 0.3 * times
    assert all(m.error <= times * moved[m.where] + 1e-12 for m in losses)
