"""Speed settings and precisions change how fast a backend computes, and not what; and the parts that are timed do what
their names say."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from alexnet_mf import parameters
from alexnet_mf.backends.base import SPEED_SETTINGS, Backend, Execution, Sgd
from alexnet_mf.errors import BackendUnavailable
from alexnet_mf.parity.case import Case, random_case
from alexnet_mf.parity.referee import make_referee
from alexnet_mf.parity.run import answer, compare
from alexnet_mf.spec import Network

FRAMEWORKS = ["torch", "tensorflow", "mxnet"]
NETWORK_PHASES = {"input", "forward", "forward_backward", "optimizer", "step"}


def table(name: str) -> dict[str, dict[str, str]]:
    """A framework's settings by kind of device, each with its reason; the referee has none."""
    if name == "numpy":
        return {"cpu": {}}
    found: dict[str, dict[str, str]] = importlib.import_module(f"alexnet_mf.backends.{name}.speed").SPEED
    return found


def case_of(network: Network) -> Case:
    return random_case(network, seed=0, count=16, batch=2, steps=3)


@pytest.fixture
def model(backend: Backend, small: Network) -> Any:
    return backend.build(small, parameters.initialise(small, 0, random_biases=True))


# What is switched on


def test_every_setting_has_a_reason(backend_name):
    for kind, settings in table(backend_name).items():
        assert kind in ("cpu", "cuda")
        assert set(settings) <= set(SPEED_SETTINGS)
        for name, reason in settings.items():
            assert len(reason) > 20, f"{kind}: {name}"


@pytest.mark.parametrize("backend_name", FRAMEWORKS, indirect=True)
def test_the_ladder_holds_whatever_is_left_out(backend_name, backend, small):
    """With everything that makes it fast, without each, and without all."""
    right = make_referee(case_of(small))
    settings = table(backend_name)["cpu"]
    for without in (set(), *({name} for name in settings), set(settings)):
        found = answer(backend, right.case, execution=Execution(without=frozenset(without)))
        assert found.meta["settings"]["without"] == sorted(without)
        report = compare([found], referee=right)
        assert report.holds, (without, report.diagnoses)


@pytest.mark.parametrize("backend_name", ["torch", "tensorflow"], indirect=True)
def test_bfloat16_is_another_computation_and_holds_in_its_own_tier(backend, small):
    right = make_referee(case_of(small))
    found = answer(backend, right.case, execution=Execution("bfloat16"))
    assert found.meta["settings"]["precision"] == "bfloat16"
    report = compare([found], "bfloat16", right)
    assert report.holds, report.diagnoses
    assert not compare([found], "float32", right).holds
    assert parameters.digest(backend.build(small, right.case.parameters(), execution=Execution("bfloat16")).export()) \
        == parameters.digest(right.case.parameters()), "the weights stay float32"


def test_what_a_device_cannot_do_is_an_error(backend, small):
    values = parameters.initialise(small, 0)
    known = backend.precisions("cpu")
    assert known[0] == ("float64" if backend.name == "numpy" else "float32")
    with pytest.raises(BackendUnavailable, match=rf"no precision tf32 on cpu; there is {', '.join(known)}"):
        backend.build(small, values, execution=Execution("tf32"))
    with pytest.raises(BackendUnavailable, match="no setting 'magic' to leave out on cpu"):
        backend.build(small, values, execution=Execution(without=frozenset({"magic"})))


# What is timed


def test_each_phase_does_its_part_and_no_other(model, small):
    """Only `optimizer` and `step` change parameters; any number of times, in any order."""
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    data = model.place(images, np.arange(6) % 10)
    phases = model.phases(data, np.arange(4), Sgd(0.1), seed=0)
    assert set(phases) == NETWORK_PHASES
    before = parameters.digest(model.export())
    for name in ("input", "forward", "forward_backward", "forward", "forward_backward", "input"):
        for number in range(2):
            phases[name](number)
        model.synchronize()
        assert parameters.digest(model.export()) == before, name
    for name in ("optimizer", "step"):
        phases[name](0)
        model.synchronize()
        assert parameters.digest(model.export()) != before, name
        before = parameters.digest(model.export())


def test_the_step_that_is_timed_is_the_trainers(backend, small):
    values = parameters.initialise(small, 0, random_biases=True)
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    ends = []
    for timed in (True, False):
        model = backend.build(small, values)
        data = model.place(images, np.arange(6) % 10)
        indices = np.array([3, 1, 5, 0])
        step = model.phases(data, indices, Sgd(0.1), 7)["step"] if timed else None
        trainer = model.trainer(Sgd(0.1), 7)
        for number in range(2):
            if step:
                step(number)
            else:
                trainer.step(data, indices, number)
        model.synchronize()
        ends.append(model.export())
    for name, value in ends[0].items():
        assert_array_equal(value, ends[1][name], err_msg=name)


def test_ceilings_are_there(backend):
    found = backend.ceilings("cpu", Execution())
    assert set(found) == {"matrix product", "copy"}
    for ceiling in found.values():
        assert ceiling.amount > 1e6
        ceiling.call()
    backend.synchronize("cpu")
    assert backend.peak_memory("cpu") is None


def test_the_books_own_code_runs_on_a_batch(backend):
    calls = backend.book("cpu", 2)
    if backend.name == "numpy":
        assert calls == {}
        return
    assert set(calls) == {"forward", "step"}
    for call in calls.values():
        call()
        call()
    backend.synchronize("cpu")


