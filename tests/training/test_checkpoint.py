"""Checkpoints: a checkpoint loads bit for bit as it was saved, or is refused."""

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
from safetensors.numpy import save as serialize

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


def make_checkpoint(number: int = 7, dtype: type = np.float32, velocity: bool = True) -> Checkpoint:
    generator = np.random.default_rng(number)
    weights = {"conv1.weight": generator.random((3, 1, 5, 5)).astype(dtype), "conv1.bias": np.zeros(3, dtype),
               "bn1.running_mean": generator.random(3).astype(dtype)}
    momenta = {name: -value for name, value in weights.items() if parameters.is_trained(name)} if velocity else {}
    snapshot = Snapshot(dataclasses.replace(POSITION, number=number), TrainerState(weights, momenta, RATE_INSIDE))
    return Checkpoint(snapshot, RUN, SESSION, (12, "abc"))


@pytest.mark.parametrize("velocity", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loaded_checkpoint_equals_the_saved_one(tmp_path, dtype, velocity):
    saved = make_checkpoint(dtype=dtype, velocity=velocity)
    loaded = checkpoint.load(checkpoint.save(tmp_path, saved))
    assert loaded.snapshot.position == saved.snapshot.position
    assert (loaded.run, loaded.session, loaded.metrics) == (saved.run, saved.session, saved.metrics)
    for after, before in ((loaded.snapshot.state.parameters, saved.snapshot.state.parameters),
                         (loaded.snapshot.state.velocity, saved.snapshot.state.velocity)):
        assert parameters.digest(after) == parameters.digest(before)
        assert all(value.dtype == dtype for value in after.values())
    assert loaded.snapshot.state.rule == RATE_INSIDE


@pytest.mark.parametrize("settings, reported", [
    ({"threads": 2, "spins": "10000"}, []), ({"threads": 4, "spins": "10000"}, ["threads 2 then, 4 now"])])
def test_resuming_reports_only_changed_settings_that_change_numbers(settings, reported):
    _, lines = make_checkpoint().resumed_in(structs.replace(SESSION, settings=settings))
    assert [line.partition("(")[2].partition(")")[0] for line in lines] == reported


def save_with(tmp_path, **changes) -> Path:
    """Save a checkpoint that has a valid checksum and invalid content."""
    return checkpoint.save(tmp_path, dataclasses.replace(make_checkpoint(), **changes))


@pytest.mark.parametrize("run, message", [
    (make_run(zoo.LENET5, seed="5"), "run.seed: Expected `int`, got `str`"),
    (make_run(zoo.LENET5, seed=5.0), "run.seed: Expected `int`"),
    (make_run(zoo.LENET5, source={"name": 5}), "run.source.name: Expected `str`, got `int`"),
    (make_run(zoo.LENET5, recipe=[]), "run.recipe: Expected `object`, got `array`"),
    (make_run(zoo.LENET5, recipe={**plain(QUICK), "epochs": 0}), "`epochs` must be at least 1, not 0"),
    (make_run(zoo.LENET5, weights={}), "run.weights: Object missing required field"),
    ({}, "missing required field")])
def test_an_invalid_field_is_named(tmp_path, run, message):
    path = save_with(tmp_path, run=run)
    with pytest.raises(RunError) as caught:
        checkpoint.load(path)
    assert str(caught.value).startswith(f"{path.name} is damaged: ") and message in str(caught.value)


@pytest.mark.parametrize("content", [
    b"not safetensors at all", serialize({"conv1.bias": np.zeros(3, np.float32)}, {"alexnet_mf": "[" * 100_000})],
    ids=["another program's", "nested too deep"])
def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / f"step-00000007-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    path.write_bytes(content)
    with pytest.raises(RunError, match="is not a checkpoint of this program"):
        checkpoint.load(path)


STATE = make_checkpoint().snapshot.state
SHORT = np.zeros(3, np.float32)


@pytest.mark.parametrize("change, message", [
    ({"velocity": {"conv1.bias": SHORT}}, "momentum and weights differ in shape"),
    ({"velocity": STATE.velocity | {"conv1.weight": SHORT}}, "momentum and weights differ in shape"),
    ({"velocity": STATE.velocity | {"fc9.bias": SHORT}}, "momentum and weights differ in shape"),
    ({"velocity": STATE.velocity | {"bn1.running_mean": SHORT}}, "momentum and weights differ in shape"),
    ({"parameters": STATE.parameters | {"conv1.bias": np.zeros(3, np.int64)}},
     "conv1.bias is int64, not float32 or float64"),
    ({"parameters": STATE.parameters | {"conv1.bias": np.zeros(3, np.int64)}, "velocity": {}},
     "conv1.bias is int64, not float32 or float64")],
    ids=["missing", "wrong shape", "surplus", "of a statistic", "another dtype", "another dtype, no momentum"])
def test_tensors_that_do_not_fit_are_refused(tmp_path, change, message):
    snapshot = Snapshot(POSITION, dataclasses.replace(STATE, **change))
    with pytest.raises(RunError, match=f"is damaged: {message}"):
        checkpoint.load(save_with(tmp_path, snapshot=snapshot))


def test_a_checkpoint_is_plain_safetensors_with_canonical_names(tmp_path):
    tensors = load_file(checkpoint.save(tmp_path, make_checkpoint()))
    assert set(tensors) == {"conv1.weight", "conv1.bias", "bn1.running_mean", "velocity.conv1.weight",
                            "velocity.conv1.bias"}
    assert_array_equal(tensors["velocity.conv1.weight"], -tensors["conv1.weight"])


def test_every_flipped_bit_is_detected(tmp_path):
    path = checkpoint.save(tmp_path, make_checkpoint())
    whole = path.read_bytes()
    for place, bit in itertools.product(range(0, len(whole), 7), (0, 7)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=f"{path.name} is damaged: its checksum does not match"):
            checkpoint.load(path)


def test_the_latest_good_checkpoint_is_loaded_and_damaged_ones_are_named(tmp_path):
    paths = [checkpoint.save(tmp_path, make_checkpoint(number)) for number in (5, 9, 100_000_000)]
    path, loaded, faults = checkpoint.latest(tmp_path)
    assert (path, loaded.snapshot.position.number, faults) == (paths[2], 100_000_000, {})
    for damaged in paths[:0:-1]:
        damaged.write_bytes(b"")
    path, loaded, faults = checkpoint.latest(tmp_path)
    assert (path, loaded.snapshot.position.number) == (paths[0], 5)
    assert [(path, fault.split()[0]) for path, fault in faults.items()] == [(path, path.name) for path in paths[:0:-1]]
    paths[0].write_bytes(b"")
    with pytest.raises(RunError, match="all checkpoints are damaged") as caught:
        checkpoint.latest(tmp_path)
    assert all(damaged.name in str(caught.value) for damaged in paths)


def test_a_checkpoint_put_aside_is_ignored_until_it_is_superseded(tmp_path):
    paths = [checkpoint.save(tmp_path, make_checkpoint(number)) for number in (5, 9)]
    asides = [files.put_aside(path) for path in paths]
    assert [path.name for path in asides] == [f"{path.name}.damaged" for path in paths]
    again = checkpoint.save(tmp_path, make_checkpoint(5))
    assert files.put_aside(again).name == f"{paths[0].name}.damaged-2"
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.superseded(tmp_path, 4) == []
    assert sorted(checkpoint.superseded(tmp_path, 8)) == [asides[0], tmp_path / f"{paths[0].name}.damaged-2"]
    assert len(checkpoint.superseded(tmp_path, 9)) == 3


def test_a_folder_without_checkpoints_has_no_latest(tmp_path):
    (tmp_path / ".step-00000001-0123456789abcdef.safetensors.77.partial").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "nowhere") is None


def test_an_unreadable_checkpoint_is_not_called_damaged(tmp_path):
    path = checkpoint.save(tmp_path, make_checkpoint())
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match="cannot be read"):
        checkpoint.load(path)
