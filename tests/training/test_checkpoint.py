"""Checkpoints: what goes in comes out, bit for bit, or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from numpy.testing import assert_array_equal
from run_folders import make_run
from safetensors.numpy import load_file
from safetensors.numpy import save as serialise

from alexnet_mf import files
from alexnet_mf.backends.contract import RATE_INSIDE, TrainerState
from alexnet_mf.errors import RunError
from alexnet_mf.instruments.records import plain
from alexnet_mf.spec import zoo
from alexnet_mf.training import checkpoint
from alexnet_mf.training.checkpoint import Checkpoint
from alexnet_mf.training.loop import Epoch, Position, Snapshot
from alexnet_mf.training.recipe import QUICK
from alexnet_mf.training.record import Session, fields
from alexnet_mf.weights import parameters

EPOCH = Epoch(1, 1 / 3, 0.1, 2 / 3, 1e-300)
POSITION = Position(7, [EPOCH], [1 / 3, 0.1, 5e-324], 2 / 7, 3, 24, 16, 0.1)

RUN = make_run(zoo.LENET5)
SESSION = Session(**fields(RUN, Session))


def make(number: int = 7, dtype: type = np.float32, velocity: bool = True) -> Checkpoint:
    generator = np.random.default_rng(number)
    weights = {"conv1.weight": generator.random((3, 1, 5, 5)).astype(dtype), "conv1.bias": np.zeros(3, dtype)}
    momenta = {name: -value for name, value in weights.items()} if velocity else {}
    snapshot = Snapshot(dataclasses.replace(POSITION, number=number), TrainerState(weights, momenta, RATE_INSIDE))
    return Checkpoint(snapshot, RUN, SESSION, (12, "abc"))


@pytest.mark.parametrize("velocity", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_goes_in_comes_out(tmp_path, dtype, velocity):
    given = make(dtype=dtype, velocity=velocity)
    found = checkpoint.load(checkpoint.save(tmp_path, given))
    assert found.snapshot.position == given.snapshot.position
    assert (found.run, found.session, found.metrics) == (given.run, given.session, given.metrics)
    for mine, theirs in ((found.snapshot.state.parameters, given.snapshot.state.parameters),
                         (found.snapshot.state.velocity, given.snapshot.state.velocity)):
        assert parameters.digest(mine) == parameters.digest(theirs)
        assert all(value.dtype == dtype for value in mine.values())
    assert found.snapshot.state.rule == RATE_INSIDE


@pytest.mark.parametrize("settings, told", [
    ({"threads": 2, "spins": "10000"}, []), ({"threads": 4, "spins": "10000"}, ["threads 2 then, 4 now"])])
def test_settings_that_change_numbers_are_told_and_others_not(settings, told):
    _, lines = make().resumed_in(structs.replace(SESSION, settings=settings))
    assert [line.partition("(")[2].partition(")")[0] for line in lines] == told


def saved_with(tmp_path, **changes) -> Path:
    """A checkpoint that is what it says, and says what makes no sense."""
    return checkpoint.save(tmp_path, dataclasses.replace(make(), **changes))


@pytest.mark.parametrize("run, told", [
    (make_run(zoo.LENET5, seed="5"), "run.seed: Expected `int`, got `str`"),
    (make_run(zoo.LENET5, seed=5.0), "run.seed: Expected `int`"),
    (make_run(zoo.LENET5, data_name="mnist"), "run.data_name: Invalid enum value 'mnist'"),
    (make_run(zoo.LENET5, recipe=[]), "run.recipe: Expected `object`, got `array`"),
    (make_run(zoo.LENET5, recipe={**plain(QUICK), "epochs": 0}), "`epochs` must be at least 1, not 0"),
    (make_run(zoo.LENET5, weights={}), "run.weights: Object missing required field"),
    ({}, "missing required field")])
def test_what_makes_no_sense_is_told_by_place(tmp_path, run, told):
    path = saved_with(tmp_path, run=run)
    with pytest.raises(RunError) as caught:
        checkpoint.load(path)
    assert str(caught.value).startswith(f"{path.name} is damaged: ") and told in str(caught.value)


@pytest.mark.parametrize("content", [
    b"not safetensors at all", serialise({"conv1.bias": np.zeros(3, np.float32)}, {"alexnet_mf": "[" * 100_000})],
    ids=["another program's", "nested too deep"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / f"step-00000007-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    path.write_bytes(content)
    with pytest.raises(RunError, match="is not a checkpoint of this program"):
        checkpoint.load(path)


STATE = make().snapshot.state
SHORT = np.zeros(3, np.float32)


@pytest.mark.parametrize("change, told", [
    ({"velocity": {"conv1.bias": SHORT}}, "its momentum is not the weights'"),
    ({"velocity": STATE.velocity | {"conv1.weight": SHORT}}, "its momentum is not the weights'"),
    ({"velocity": STATE.velocity | {"fc9.bias": SHORT}}, "its momentum is not the weights'"),
    ({"parameters": STATE.parameters | {"conv1.bias": np.zeros(3, np.int64)}},
     "conv1.bias is int64, not float32 or float64"),
    ({"parameters": STATE.parameters | {"conv1.bias": np.zeros(3, np.int64)}, "velocity": {}},
     "conv1.bias is int64, not float32 or float64")],
                         ids=["missing", "mis-shaped", "surplus", "another dtype", "another dtype, no momentum"])
def test_tensors_that_do_not_fit_are_refused(tmp_path, change, told):
    snapshot = Snapshot(POSITION, dataclasses.replace(STATE, **change))
    with pytest.raises(RunError, match=f"is damaged: {told}"):
        checkpoint.load(saved_with(tmp_path, snapshot=snapshot))


def test_it_is_plain_safetensors_under_canonical_names(tmp_path):
    tensors = load_file(checkpoint.save(tmp_path, make()))
    assert set(tensors) == {"conv1.weight", "conv1.bias", "velocity.conv1.weight", "velocity.conv1.bias"}
    assert_array_equal(tensors["velocity.conv1.weight"], -tensors["conv1.weight"])


def test_every_flipped_bit_is_seen(tmp_path):
    path = checkpoint.save(tmp_path, make())
    whole = path.read_bytes()
    for place, bit in itertools.product(range(0, len(whole), 7), (0, 7)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=f"{path.name} is damaged: its checksum does not fit"):
            checkpoint.load(path)


def test_the_latest_good_one_is_taken_and_the_others_are_named(tmp_path):
    paths = [checkpoint.save(tmp_path, make(number)) for number in (5, 9, 100_000_000)]
    path, found, faults = checkpoint.latest(tmp_path)
    assert (path, found.snapshot.position.number, faults) == (paths[2], 100_000_000, {})
    for damaged in paths[:0:-1]:
        damaged.write_bytes(b"")
    path, found, faults = checkpoint.latest(tmp_path)
    assert (path, found.snapshot.position.number) == (paths[0], 5)
    assert [(path, fault.split()[0]) for path, fault in faults.items()] == [(path, path.name) for path in paths[:0:-1]]
    paths[0].write_bytes(b"")
    with pytest.raises(RunError, match="no checkpoint is good") as caught:
        checkpoint.latest(tmp_path)
    assert all(damaged.name in str(caught.value) for damaged in paths)


def test_one_that_was_put_aside_is_none_any_more_and_goes_when_there_is_another_as_late(tmp_path):
    paths = [checkpoint.save(tmp_path, make(number)) for number in (5, 9)]
    asides = [files.put_aside(path) for path in paths]
    assert [path.name for path in asides] == [f"{path.name}.damaged" for path in paths]
    again = checkpoint.save(tmp_path, make(5))
    assert files.put_aside(again).name == f"{paths[0].name}.damaged-2"
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.superseded(tmp_path, 4) == []
    assert sorted(checkpoint.superseded(tmp_path, 8)) == [asides[0], tmp_path / f"{paths[0].name}.damaged-2"]
    assert len(checkpoint.superseded(tmp_path, 9)) == 3


def test_no_checkpoint_is_no_fault(tmp_path):
    (tmp_path / ".step-00000001-0123456789abcdef.safetensors.77.partial").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "nowhere") is None


def test_one_that_cannot_be_read_is_not_called_damaged(tmp_path):
    path = checkpoint.save(tmp_path, make())
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match="cannot be read"):
        checkpoint.load(path)
