"""Benchmark workers: their timings on a simulated device, and their protocol in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from alexnet_mf import spec
from alexnet_mf.backends import execution
from alexnet_mf.bench.plan import BESIDE, CEILINGS, PHASES
from alexnet_mf.bench.worker import Worker
from alexnet_mf.instruments.process import PREFIX

START = {"do": "start", "backend": "torch", "style": "alexnet_mf", "device": "auto", "precision": "float32",
         "speed": {}, "batch_size": 4, "epoch_batches": 3, "sample_seconds": 0.2, "seed": 0}
PER_CALL = {"input": 0.25, "forward": 1.0, "forward_backward": 2.0, "optimizer": 0.5, "step": 4.0, "beside": 4.0,
            "matrix product": 1.0, "copy": 0.5, "epoch": 2 * 4.0}


@pytest.fixture
def worker(fake, device) -> Worker:
    return Worker(device.clock)


def start(worker: Worker, small: spec.Network, **changes: Any) -> dict[str, Any]:
    return worker.handle({**START, "network": spec.as_dict(small), **changes})


def measure_calls(worker: Worker, phases: list[str]) -> dict[str, float]:
    seconds = {}
    for phase in phases:
        worker.handle({"do": "prepare", "phase": phase})
        sample = worker.handle({"do": "sample", "phase": phase})
        seconds[phase] = sample["seconds"] / sample["calls"]
    return seconds


def test_every_phase_is_timed(worker, small):
    answer = start(worker, small)
    assert sorted(answer["phases"]) == sorted([*PHASES, BESIDE, *CEILINGS])
    assert measure_calls(worker, answer["phases"]) == PER_CALL


@pytest.mark.parametrize("slow", ["input", "forward", "forward_backward", "optimizer", "step"])
def test_an_injected_sleep_is_seen_in_the_right_phase(worker, small, fake, slow):
    """The sleep shows in no other phase, except that an epoch consists of steps."""
    phases = start(worker, small)["phases"]
    fake["torch"].seconds[slow] += 16.0
    changed = {slow: PER_CALL[slow] + 16.0} | ({"epoch": 2 * 20.0, "beside": 20.0} if slow == "step" else {})
    assert measure_calls(worker, phases) == PER_CALL | changed


@pytest.mark.parametrize("seconds, joules", [(0.25, None), (4.0, 30.0)])
def test_only_long_samples_have_an_energy(worker, small, fake, seconds, joules):
    fake["torch"].seconds["forward"] = seconds
    start(worker, small, sample_seconds=seconds)
    worker.handle({"do": "prepare", "phase": "forward"})
    worker.meter = SimpleNamespace(joules=iter([100.0, 130.0]).__next__)
    assert worker.handle({"do": "sample", "phase": "forward"})["joules"] == joules


@pytest.mark.parametrize("phase", ["step", "copy"])
def test_a_backend_that_does_not_wait_is_refused(worker, small, fake, phase):
    start(worker, small)
    fake["torch"].waits = False
    with pytest.raises(Exception, match="the timer does not wait for the device"):
        worker.handle({"do": "prepare", "phase": phase})


def test_the_work_of_phases_and_ceilings_is_counted(worker, small):
    start(worker, small)
    work_of = {phase: worker.handle({"do": "prepare", "phase": phase})["work"] for phase in (*PHASES, *CEILINGS)}
    assert {phase: work_of[phase]["images"] for phase in work_of} == {
        **dict.fromkeys(PHASES, 4), "epoch": 2 * 4, "matrix product": 0, "copy": 0}
    assert work_of["epoch"]["flops"] == 2 * work_of["step"]["flops"] == 2 * work_of["forward_backward"]["flops"]
    assert work_of["matrix product"] == {"images": 0, "flops": 2.0**40, "bytes": 0}
    assert work_of["copy"] == {"images": 0, "flops": 0, "bytes": 2.0**30}


def test_the_books_style_has_its_two_phases_and_no_ceilings(worker, small):
    answer = start(worker, small, style="book", precision="as shipped", speed={"all": False})
    assert answer["phases"] == ["forward", "step", "beside"]
    assert measure_calls(worker, answer["phases"]) == {"forward": 2.0, "step": 8.0, "beside": 8.0}


# In a process of its own

NOISY = """
import os, runpy, sys
print("what a Python prints when it starts", flush=True)
from alexnet_mf import backends
load = backends.load
def noisy(name):
    print("from Python")
    os.system("echo from a program")
    os.write(1, b"from C\\n")
    return load(name)
backends.load = noisy
sys.argv = ["worker"]
runpy.run_module("alexnet_mf.bench.worker", run_name="__main__")
"""


def test_output_of_frameworks_does_not_mix_with_answers(small):
    commands = [{**START, "backend": "numpy", "precision": "float64", "network": spec.as_dict(small)},
                {"do": "prepare", "phase": "optimizer"}]
    done = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True, timeout=300,
                          input="".join(json.dumps(command) + "\n" for command in commands))
    first, *answers = done.stdout.splitlines()
    assert first == "what a Python prints when it starts"  # printed before the worker starts; the parent skips it
    assert len(answers) == len(commands) and all(line.startswith(PREFIX) for line in answers)
    assert "error" not in json.loads(answers[1][len(PREFIX):])
    assert {"from Python", "from a program", "from C"} <= set(done.stderr.splitlines())
    assert done.returncode == 0


def test_a_process_reads_its_left_out_settings_from_the_environment(monkeypatch):
    monkeypatch.delenv(execution.LEFT_OUT, raising=False)
    assert execution.left_out() == frozenset()
    monkeypatch.setenv(execution.LEFT_OUT, "compile,threads")
    assert execution.left_out() == {"compile", "threads"}
