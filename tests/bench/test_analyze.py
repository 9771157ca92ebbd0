"""What `analyze` measures: asked of a worker on a device that the test plays, and of one in a process of its own."""

from __future__ import annotations

from typing import Any

import jsonschema
import numpy as np
import pytest

from alexnet_mf import backends, spec
from alexnet_mf.analysis import measure as measurements
from alexnet_mf.analysis.measure import Memory, measure
from alexnet_mf.analysis.record import Record, json_schema
from alexnet_mf.analysis.run import analyze
from alexnet_mf.bench import worker
from alexnet_mf.errors import AlexnetMfError, BenchError
from alexnet_mf.instruments.process import WorkerFailed, WorkerGone
from alexnet_mf.instruments.records import parse, plain
from alexnet_mf.spec import layers, zoo


@pytest.fixture
def measured(fake, local, small):
    def run(**options: Any) -> Any:
        return measure(small, "torch", "auto", 4, 0.9, **{
            "rounds": 3, "connect": local, "command": ["alexnet-mf", "analyze"], **options})
    return run


def test_times_and_ceilings_are_the_devices(measured, fake):
    found = measured()
    assert {what: taken.median for what, taken in found.seconds.items()} == {
        "forward": 1.0, "step": 4.0, "optimizer": 0.5, "matrix product": 1.0, "copy": 0.5}
    assert all(taken.n == 3 for taken in found.seconds.values())
    assert (found.ceilings.flops, found.ceilings.bandwidth) == (2.0**40, 2.0**31)
    assert (found.device, found.description, found.precision) == ("cpu", "a device that a test plays", "float32")
    assert found.versions == {"fake": "1.0"} and found.conditions.command == ["alexnet-mf", "analyze"]
    assert fake["torch"].sgd.momentum == 0.9, "the recipe's"


def test_what_the_allocator_says(measured, fake):
    assert measured().memory.allocator is None
    fake["torch"].allocated = 12345
    memory = measured().memory
    assert memory.allocator == 12345
    assert 0 < memory.imported <= memory.process


@pytest.mark.parametrize("allocator, holds, off", [
    (None, True, None), (1000, True, 0.0), (1100, True, 0.1), (1101, False, 0.101), (899, False, -0.101)])
def test_ten_percent_either_way(allocator, holds, off):
    memory = Memory(None, None, allocator)
    assert memory.holds(1000) is holds
    assert memory.off(1000) == (None if off is None else pytest.approx(off))


@pytest.mark.parametrize("what, said", [
    ("start", "torch: starting: no such luck"), ("memory", "torch: memory: no such luck"),
    ("step", "torch: step: no such luck"), ("copy", "torch: copy: no such luck"),
    ("sample", "torch: copy: no such luck")])
def test_a_worker_that_fails_is_told_and_ended(measured, failing, what, said):
    connect, made = failing(lambda command: what in command.values(), WorkerGone("backend torch: no such luck"))
    with pytest.raises(BenchError, match=f"^backend {said}; .*`measure=False`"):
        measured(connect=connect)
    assert made[0].inner.closed and made[0].failures == 1


@pytest.mark.parametrize("times, done", [(1, True), (2, True), (3, False)])
def test_a_phase_that_is_refused_by_chance_is_warmed_up_again(measured, failing, times, done):
    left = iter(range(times))
    connect, _ = failing(lambda command: "step" in command.values() and next(left, None) is not None,
                         WorkerFailed("the device is not waited for"))
    if done:
        assert measured(connect=connect).seconds["step"].median == 4.0
    else:
        with pytest.raises(BenchError, match="torch: step: the device is not waited for"):
            measured(connect=connect)


# Inputs


def test_grey_images_where_the_network_takes_them_else_random_numbers():
    grey = worker.inputs(zoo.LENET5, 0, 6)
    assert (grey.name, grey.train.images.dtype, grey.train.images.shape) == ("synthetic", np.uint8, (6, 28, 28))
    colour = worker.inputs(zoo.ALEXNET_OWT, 0, 2)
    assert (colour.name, colour.train.images.dtype) == ("random", np.float32)
    assert colour.train.images.shape == (2, 3, 224, 224)
    few = spec.Network("few", (1, 28, 28), (layers.Flatten("flatten"), layers.Dense("fc", units=3)))
    assert set(worker.inputs(few, 0, 30).train.labels) == {0, 1, 2}


def test_a_process_measures_every_backend_and_three_channels(backend_name):
    network = spec.Network("colour", (3, 12, 12), (
        layers.Conv2d("conv1", channels=4, kernel=3), layers.MaxPool2d("pool1", 2, 2), layers.Flatten("flatten"),
        layers.Dense("fc2", units=5)))
    found = measure(network, backend_name, "cpu", 4, 0.5, rounds=1, sample_seconds=0.01)
    assert found.backend == backend_name and found.device == "cpu"
    assert all(taken.median > 0 for taken in found.seconds.values())
    assert found.ceilings.flops > 1e8 and found.ceilings.bandwidth > 1e7
    assert found.memory.allocator is None, "a CPU has no allocator that tells"
    assert found.precision == ("float64" if backend_name == "numpy" else "float32")
    assert backends.BACKENDS[backend_name].framework in found.versions


# The function of the verb


def test_the_function_records_how_it_was_called_and_gives_the_arithmetic_first(fake, local, small, monkeypatch):
    monkeypatch.setattr(measurements.measure, "__kwdefaults__", {**measurements.measure.__kwdefaults__,
                                                                 "connect": local})
    first = []
    analysis = analyze(small, "torch", batch_size=4, rounds=2, report_costs=first.append)
    assert [one.measured for one in first] == [None] and first[0].costs == analysis.costs
    assert analysis.measured.seconds["step"].median == 4.0
    (command,) = analysis.measured.conditions.command
    assert command == ("alexnet_mf.analyze('small', 'torch', batch_size=4, recipe='quick', device='auto', rounds=2, "
                       "sample_seconds=0.2)")
    values = plain(analysis.record())
    jsonschema.validate(values, json_schema(), jsonschema.Draft202012Validator)
    assert values["measured"]["measured_seconds"]["step"]["median"] == 4.0
    assert parse(values, Record) == analysis.record()


def test_the_arithmetic_alone_takes_no_backend(small):
    analysis = analyze(small, measure=False)
    assert analysis.holds and plain(analysis.record())["measured"] is None
    with pytest.raises(AlexnetMfError, match="`recipe` must be one of book, quick, not 'slow'"):
        analyze(small, measure=False, recipe="slow")
