"""Correct networks of any shape stay green: random small specs, in every backend, up the whole ladder."""

from __future__ import annotations

import functools
import gc
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from alexnet_mf import backends
from alexnet_mf.errors import SpecError
from alexnet_mf.parity.case import random_case
from alexnet_mf.parity.referee import Referee, make_referee
from alexnet_mf.parity.run import compare
from alexnet_mf.parity.trace import trace
from alexnet_mf.spec import Conv2d, Dense, Dropout, Flatten, MaxPool2d, Network, output_shape

ACTIVATIONS = st.sampled_from([None, "relu", "relu", "sigmoid"])
RATES = st.sampled_from([0, 0.1, 0.25, 0.5, 0.8])


@st.composite
def networks(draw: Any) -> Network:
    """Up to four convolutions and poolings in any order, then up to two hidden dense layers, and dropout after any of
    them; odd and oblong inputs."""
    image = (draw(st.integers(1, 3)), draw(st.integers(5, 24)), draw(st.integers(5, 24)))
    shape: Any = image
    layers: list[Any] = []
    for number in range(1, draw(st.integers(1, 4)) + 1):
        kernel, stride = draw(st.integers(1, 5)), draw(st.integers(1, 4))
        layer: Any = MaxPool2d(f"pool{number}", kernel=kernel, stride=stride)
        if draw(st.integers(0, 2)):
            layer = Conv2d(f"conv{number}", channels=draw(st.integers(1, 5)), kernel=kernel, stride=stride,
                           padding=draw(st.integers(0, 3)), activation=draw(ACTIVATIONS))
        try:
            shape = output_shape(layer, shape)
        except SpecError:  # its kernel is larger than what is left
            continue
        layers.append(layer)
        if draw(st.integers(0, 3)) == 3:
            layers.append(Dropout(f"drop_{layer.name}", rate=draw(RATES)))
    layers.append(Flatten("flatten"))
    if draw(st.integers(0, 3)) == 3:
        layers.append(Dropout("drop_flatten", rate=draw(RATES)))
    for number in range(1, draw(st.integers(0, 2)) + 1):
        layers.append(Dense(f"hidden{number}", units=draw(st.integers(2, 12)), activation=draw(ACTIVATIONS)))
        if draw(st.booleans()):
            layers.append(Dropout(f"drop_hidden{number}", rate=draw(RATES)))
    layers.append(Dense("last", units=draw(st.integers(2, 6))))
    return Network("random", image, tuple(layers))


@functools.lru_cache(maxsize=1000)  # the same networks come again for the next backend
def referee(network: Network) -> Referee:
    """The answers for a random case of this network."""
    return make_referee(random_case(network, seed=0, count=30, batch=3, steps=3))


def check(backend_name: str, network: Network) -> None:
    """All rungs hold."""
    right = referee(network)
    report = compare([trace(backends.load(backend_name), right.case)], referee=right)
    failures = [(rung.name, rung.note, rung.failures) for rung in report.rungs[backend_name] if not rung.holds]
    assert not failures, (network, report.diagnoses)
    forget()


def forget() -> None:
    """Keras keeps what it has built."""
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
    gc.collect()


QUIET = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck),
         "phases": [Phase.generate]}  # each example costs a second: a red one is shown as it is, not made smaller


@settings(max_examples=25, **QUIET)
@given(network=networks())
def test_random_specs(backend_name: str, network: Network) -> None:
    check(backend_name, network)


@pytest.mark.slow
@settings(max_examples=500, **QUIET)
@given(network=networks())
def test_many_random_specs(backend_name: str, network: Network) -> None:
    check(backend_name, network)


def test_the_networks_are_of_all_kinds() -> None:
    """What the strategy draws has what the fixed networks lack."""
    drawn: list[Network] = []

    @settings(max_examples=100, **QUIET)
    @given(network=networks())
    def collect(network: Network) -> None:
        drawn.append(network)

    collect()
    layers = [layer for network in drawn for layer in network.layers]
    convolutions = [layer for layer in layers if isinstance(layer, Conv2d)]
    poolings = [layer for layer in layers if isinstance(layer, MaxPool2d)]
    assert any(network.input[1] != network.input[2] for network in drawn)
    assert {network.input[0] for network in drawn} == {1, 2, 3}
    assert {layer.activation for layer in convolutions} == {None, "relu", "sigmoid"}
    assert any(layer.padding > layer.kernel // 2 for layer in convolutions)
    assert any(layer.stride > layer.kernel for layer in convolutions)
    assert any(layer.stride < layer.kernel for layer in poolings)
    behind = {type(before) for network in drawn for before, layer in zip(network.layers, network.layers[1:])
              if isinstance(layer, Dropout)}
    assert behind == {Conv2d, MaxPool2d, Flatten, Dense}
