"""Benchmark runs: the order of the samples, and failures that do not stop the other workers."""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from typing import Any

import pytest
from console import script

from alexnet_mf import backends
from alexnet_mf.bench import run as runs
from alexnet_mf.bench.load import busy_processes
from alexnet_mf.bench.plan import CEILINGS, PHASES, Plan
from alexnet_mf.bench.run import Bench
from alexnet_mf.errors import AlexnetMfError, BackendUnavailable, BenchError
from alexnet_mf.instruments.process import WorkerFailed, WorkerGone
from alexnet_mf.instruments.records import plain


def rounds_of(result: dict[str, Any]) -> list[int]:
    return [sample["round"] for sample in result["samples"]]


def test_every_worker_gives_a_sample_of_each_phase_in_each_round(measured):
    record = measured(rounds=4)
    assert record["complete"] and not record["failures"]
    assert [(w["backend"], w["style"]) for w in record["workers"]] == [
        ("torch", "alexnet_mf"), ("torch", "book"), ("mxnet", "alexnet_mf"), ("mxnet", "book")]
    assert len(record["results"]) == 2 * (len(PHASES) + len(CEILINGS) + 2)
    assert all(rounds_of(result) == [0, 1, 2, 3] for result in record["results"])


def samples(measured: Any) -> list[tuple[int, str]]:
    """Return (worker number, phase) of all samples in order."""
    numbers: dict[int, int] = {}
    return [(numbers.setdefault(id(worker), len(numbers)), command["phase"])
            for worker, command in measured.commands if command["do"] == "sample"]


def test_samples_are_interleaved(measured):
    """A round takes one sample per worker and phase. The samples of a phase follow each other."""
    measured(rounds=4)
    sampled = samples(measured)
    size = len(sampled) // 4
    rounds = [sampled[start:start + size] for start in range(0, len(sampled), size)]
    for tasks in rounds:
        assert len(set(tasks)) == size
        phases = [phase for _, phase in tasks]
        assert [phase for i, phase in enumerate(phases) if i == 0 or phase != phases[i - 1]] == list(
            dict.fromkeys(phases)), "a phase is sampled without interruption"
    assert rounds[1] == rounds[0][::-1] and rounds[3] == rounds[2][::-1]
    assert rounds[2] not in (rounds[0], rounds[1])


def test_the_seed_decides_the_order():
    tasks: Any = [(phase, worker) for phase in PHASES for worker in "abc"]
    assert runs.order(tasks, 0, random.Random("1")) == runs.order(tasks, 0, random.Random("1"))
    assert runs.order(tasks, 0, random.Random("1")) != runs.order(tasks, 0, random.Random("2"))


def test_every_batch_size_has_processes_of_its_own(measured, find):
    """Separate processes keep the peak memory of each batch size separate."""
    record = measured(("torch",), batch_sizes=(4, 8), rounds=1)
    assert [worker["batch_size"] for worker in record["workers"]] == [4, 4, 8, 8]
    assert [worker["id"] for worker in record["workers"]] == [0, 1, 2, 3]
    assert find(record, "torch", "step", batch_size=8)["work"]["images"] == 8


def test_a_backend_without_a_book_is_not_a_failure(measured, fake):
    fake["torch"].book_seconds = {}
    record = measured(("torch",), rounds=1)
    assert [worker["style"] for worker in record["workers"]] == ["alexnet_mf"]
    assert record["failures"] == []


# Failures


def failures(record: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [(entry["backend"], entry["style"], entry["phase"], entry["reason"]) for entry in record["failures"]]


@pytest.mark.parametrize("part, phases, style", [("build", ["start"], "book"), ("ceilings", CEILINGS, "alexnet_mf")])
def test_a_failure_is_recorded_and_the_others_continue(measured, fake, find, part, phases, style):
    def fail(*arguments: Any) -> Any:
        raise RuntimeError("no such luck")
    setattr(fake["torch"], part, fail)
    record = measured(rounds=2)
    assert failures(record) == [("torch", "alexnet_mf", phase, "no such luck") for phase in phases]
    assert rounds_of(find(record, "mxnet", "step")) == rounds_of(find(record, "torch", "step", style)) == [0, 1]
    assert record["complete"]


@pytest.fixture
def bench_with(failing):
    def make(fails: Any, error: BaseException) -> tuple[Bench, list[Any]]:
        connect, workers = failing(fails, error)
        return Bench(Plan(("torch", "mxnet"), batch_sizes=(4,), book=False, rounds=3), connect=connect), workers
    return make


@pytest.mark.parametrize("do, phase, at, error, kept", [
    ("sample", "step", 3, WorkerGone("python ended with exit code -9"), {"step": [0, 1]}),
    ("prepare", "input", 1, WorkerGone("python ended with exit code -6"), {"forward": []}),
    ("sample", "input", 1, WorkerFailed("it went wrong"), {"input": [], "step": [0, 1, 2]})])
def test_a_failing_worker_keeps_its_samples_and_the_others_continue(bench_with, find, do, phase, at, error, kept):
    """A worker that is gone gets no more commands. A failed phase is not tried again."""
    number = itertools.count(1)
    bench, workers = bench_with(lambda command: (command["do"], command.get("phase")) == (do, phase)
                             and next(number) == at, error)
    record = plain(bench.run())
    assert failures(record) == [("torch", "alexnet_mf", phase, str(error))]
    assert {name: rounds_of(find(record, "torch", name)) for name in kept} == kept
    assert rounds_of(find(record, "mxnet", phase)) == [0, 1, 2]
    assert all(worker.inner.closed for worker in workers)


def test_a_run_without_measurements_is_an_error(measured, fake):
    for backend in fake.values():
        backend.precisions = lambda device: ["float64"]
        backend.book_seconds = {}
    with pytest.raises(BenchError, match=r"nothing was measured: torch: no precision float32 on cpu.*; mxnet: no prec"
                       ) as refused:
        measured(batch_sizes=(1, 2))
    assert str(refused.value).count("torch: ") == 1, "each reason once, not once per batch size"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stopped_run_keeps_its_samples(bench_with, stop):
    number = itertools.count(1)
    bench, workers = bench_with(lambda command: command["do"] == "sample" and next(number) == 12, stop())
    with pytest.raises(stop):
        bench.run()
    assert all(worker.inner.closed for worker in workers)
    assert not bench.record.complete
    assert sum(len(result.samples) for result in bench.record.results) > 12
    assert bench.record.conditions.seconds > 0


@pytest.mark.parametrize("program", ["exit", "sleep 0.3; exit"], ids=["at once", "early"])
def test_a_sample_fails_if_its_busy_processes_end(monkeypatch, tmp_path, program):
    """The busy processes end at once, or before the sample."""
    monkeypatch.setattr(sys, "executable", str(script(tmp_path / "python", "echo busy" if "sleep" in program else ":",
                                                      program)))
    with pytest.raises(BenchError, match="cannot keep 2 processes busy beside the step"), busy_processes(2):
        time.sleep(1.0)


@pytest.mark.skipif(os.name != "posix", reason="needs the CPU times of ended processes")
def test_busy_processes_are_busy_and_end():
    before = os.times().children_user
    with busy_processes(2):
        time.sleep(1)
    assert os.times().children_user - before > 0.5, "low, because other processes may use the cores"


# From Python


def test_bench_records_its_call(fake, local, monkeypatch):
    monkeypatch.setattr(Bench.__init__, "__defaults__", (None, (), lambda line: None, local, lambda record: None, None))
    saved = []
    plan = Plan(("torch",), batch_sizes=(4,), phases=("step",), rounds=2)
    record = runs.bench(plan, save=lambda record: saved.append(
        (record.complete, len(record.results[0].samples), record.conditions.seconds > 0)))
    assert saved == [(False, 1, True), (False, 2, True), (True, 2, True)], "after each round, and at the end"
    assert record.conditions.command == [
        "alexnet_mf.api.bench(Plan(backends=('torch',), batch_sizes=(4,), phases=('step',), rounds=2))"]
    assert runs.bench(record.plan, command=["a", "b"]).conditions.command == ["a", "b"]


@pytest.mark.parametrize("plan, message", [
    ("torch", "`plan` must be of type Plan, not 'torch'"),
    (Plan(("numpy",), net="lenet6"), "unknown network 'lenet6'"),
    (Plan(("numpy",), ablate=("turbo",)), "`ablate` must be one of allocator, .* not 'turbo'")], ids=str)
def test_a_wrong_plan_is_refused_before_any_work(monkeypatch, plan, message):
    monkeypatch.setattr(runs, "Bench", None)
    with pytest.raises(AlexnetMfError, match=message):
        runs.bench(plan)


def test_without_a_plan_all_frameworks_are_measured(monkeypatch):
    """The reference implementation is measured only if named: its speed does not matter."""
    monkeypatch.setattr(backends.registry, "is_installed", lambda name: name in ("numpy", "mxnet"))
    plans: list[Plan] = []
    with monkeypatch.context() as patched:
        patched.setattr(runs.Bench, "run", lambda bench: plans.append(bench.plan))
        runs.bench(pythons={"torch": "/bin/sh"})
        runs.bench(Plan(("numpy",)))
    assert [plan.backends for plan in plans] == [("torch", "mxnet"), ("numpy",)]
    monkeypatch.setattr(backends.registry, "is_installed", lambda name: name == "numpy")
    with pytest.raises(BackendUnavailable, match=r"none of torch, tensorflow and mxnet is installed; .* .`pythons`"):
        runs.bench()
