"""Measurements of `analyze`, by a worker on a simulated device and by a worker process."""

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


def test_times_and_ceilings_are_those_of_the_device(measured, fake):
    result = measured()
    assert {phase: estimate.median for phase, estimate in result.seconds.items()} == {
        "forward": 1.0, "step": 4.0, "optimizer": 0.5, "matrix product": 1.0, "copy": 0.5}
    assert all(estimate.n == 3 for estimate in result.seconds.values())
    assert (result.ceilings.flops, result.ceilings.bandwidth) == (2.0**40, 2.0**31)
    assert (result.device, result.description, result.precision) == ("cpu", "a simulated device", "float32")
    assert result.versions == {"fake": "1.0"} and result.conditions.command == ["alexnet-mf", "analyze"]
    assert fake["torch"].sgd.momentum == 0.9, "the recipe's momentum"


def test_the_peak_of_the_allocator_is_recorded(measured, fake):
    assert measured().memory.allocator is None
    fake["torch"].allocated = 12345
    memory = measured().memory
    assert memory.allocator == 12345
    assert 0 < memory.imported <= memory.process


@pytest.mark.parametrize("allocator, holds, off", [
    (None, True, None), (1000, True, 0.0), (1100, True, 0.1), (1101, False, 0.101), (899, False, -0.101)])
def test_a_prediction_holds_within_ten_percent(allocator, holds, off):
    memory = Memory(None, None, allocator)
    assert memory.holds(1000) is holds
    assert memory.off(1000) == (None if off is None else pytest.approx(off))


@pytest.mark.parametrize("word, message", [
    ("start", "torch: starting: no such luck"), ("memory", "torch: memory: no such luck"),
    ("step", "torch: step: no such luck"), ("copy", "torch: copy: no such luck"),
    ("sample", "torch: copy: no such luck")])
def test_a_failing_worker_is_reported_and_closed(measured, failing, word, message):
    connect, workers = failing(lambda command: word in command.values(), WorkerGone("backend torch: no such luck"))
    with pytest.raises(BenchError, match=f"^backend {message}; .*`measure=False`"):
        measured(connect=connect)
    assert workers[0].inner.closed and workers[0].failures == 1


@pytest.mark.parametrize("failures, is_measured", [(1, True), (2, True), (3, False)])
def test_a_refused_phase_is_warmed_up_again_twice(measured, failing, failures, is_measured):
    left = iter(range(failures))
    connect, _ = failing(lambda command: "step" in command.values() and next(left, None) is not None,
                         WorkerFailed("the timer does not wait for the device"))
    if is_measured:
        assert measured(connect=connect).seconds["step"].median == 4.0
    else:
        with pytest.raises(BenchError, match="torch: step: the timer does not wait for the device"):
            measured(connect=connect)


# Inputs


def test_inputs_are_gray_images_or_else_random_numbers():
    gray = worker.inputs(zoo.LENET5, 0, 6)
    assert (gray.name, gray.train.images.dtype, gray.train.images.shape) == ("synthetic", np.uint8, (6, 28, 28))
    color = worker.inputs(zoo.ALEXNET_OWT, 0, 2)
    assert (color.name, color.train.images.dtype) == ("random", np.float32)
    assert color.train.images.shape == (2, 3, 224, 224)
    few = spec.Network("few", (1, 28, 28), (layers.Flatten("flatten"), layers.Dense("fc", units=3)))
    assert set(worker.inputs(few, 0, 30).train.labels) == {0, 1, 2}


def test_a_worker_process_measures_every_backend_with_color_images(backend_name):
    network = spec.Network("color", (3, 12, 12), (
        layers.Conv2d("conv1", channels=4, kernel=3), layers.MaxPool2d("pool1", 2, 2), layers.Flatten("flatten"),
        layers.Dense("fc2", units=5)))
    result = measure(network, backend_name, "cpu", 4, 0.5, rounds=1, sample_seconds=0.01)
    assert result.backend == backend_name and result.device == "cpu"
    assert all(estimate.median > 0 for estimate in result.seconds.values())
    assert result.ceilings.flops > 1e8 and result.ceilings.bandwidth > 1e7
    assert result.memory.allocator is None, "the CPU's allocator reports no peak"
    assert result.precision == ("float64" if backend_name == "numpy" else "float32")
    assert backends.BACKENDS[backend_name].framework in result.versions


# The function `analyze`


def test_analyze_records_its_call_and_reports_costs_first(fake, local, small, monkeypatch):
    monkeypatch.setattr(measurements.measure, "__kwdefaults__", {**measurements.measure.__kwdefaults__,
                                                                 "connect": local})
    reports = []
    analysis = analyze(small, "torch", batch_size=4, rounds=2, report_costs=reports.append)
    assert [report.measured for report in reports] == [None] and reports[0].costs == analysis.costs
    assert analysis.measured.seconds["step"].median == 4.0
    (command,) = analysis.measured.conditions.command
    assert command == ("alexnet_mf.analyze('small', 'torch', batch_size=4, recipe='quick', device='auto', rounds=2, "
                       "sample_seconds=0.2)")
    values = plain(analysis.record())
    jsonschema.validate(values, json_schema(), jsonschema.Draft202012Validator)
    assert values["measured"]["measured_seconds"]["step"]["median"] == 4.0
    assert parse(values, Record) == analysis.record()


def test_costs_alone_need_no_backend(small):
    analysis = analyze(small, measure=False)
    assert analysis.holds and plain(analysis.record())["measured"] is None
    with pytest.raises(AlexnetMfError, match="`recipe` must be one of book, quick, not 'slow'"):
        analyze(small, measure=False, recipe="slow")
