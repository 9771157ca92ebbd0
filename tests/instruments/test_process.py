"""Workers in processes: those that answer, those that die, and those that are no workers at all."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from console import script

from alexnet_mf import spec
from alexnet_mf.errors import Notice
from alexnet_mf.instruments import process as processes
from alexnet_mf.instruments.process import PREFIX, PROTOCOL, WorkerFailed, WorkerGone, WorkerProcess, one_line, serve

ANSWER = f"""read line; echo '{PREFIX}{{"protocol": {PROTOCOL}, "fine": 1}}'"""
BENCH = "alexnet_mf.bench.worker"


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Start a worker, or a program in its place, that ends with the test."""
    with contextlib.ExitStack() as opened:
        def start(*lines: str, **options: Any) -> WorkerProcess:
            python = str(script(tmp_path / "python", *lines)) if lines else sys.executable
            return opened.enter_context(contextlib.closing(WorkerProcess(python, BENCH, **options)))
        yield start


def state(pid: int) -> str:
    """A letter: T is stopped, Z dead."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def until(condition) -> None:
    """Wait for what is bound to come; a minute is for the slowest machine."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_real_worker(connect, small):
    worker = connect()
    answer = worker.ask({"do": "start", "backend": "numpy", "style": "alexnet_mf", "device": "cpu",
                       "precision": "float64", "speed": {}, "batch_size": 2, "epoch_batches": 2,
                       "sample_seconds": 0.001, "seed": 0, "network": spec.as_dict(small)})
    assert answer["device"] == "cpu" and "numpy" in answer["versions"]
    assert worker.ask({"do": "prepare", "phase": "optimizer"})["calls_per_sample"] >= 1
    with pytest.raises(WorkerFailed, match="KeyError: 'nonsense'"):
        worker.ask({"do": "sample", "phase": "nonsense"})
    assert worker.ask({"do": "sample", "phase": "optimizer"})["seconds"] > 0
    assert worker.ask({"do": "finish"})["peak_memory_bytes"] > 1e7
    assert processes.ANSWER_SECONDS >= 600, "compiling for a GPU takes minutes"


def test_progress_is_told_and_is_no_answer(connect):
    told = []
    steps = [f"""echo '{PREFIX}{{"progress": {n}}}'""" for n in (1, 2)]
    worker = connect(*steps, ANSWER, report_progress=told.append)
    assert worker.ask({}) == {"fine": 1}
    assert told == [1, 2]


@pytest.mark.skipif(not processes.CAN_PAUSE, reason="takes Linux")
def test_a_worker_that_is_not_asked_is_stopped(connect):
    worker = connect(ANSWER, ANSWER, "sleep 600")
    assert worker.ask({}) == {"fine": 1}
    until(lambda: state(worker.process.pid) == "T")
    assert worker.ask({}) == {"fine": 1}


@pytest.mark.skipif(not processes.CAN_PAUSE, reason="takes Linux")
def test_a_worker_ends_with_its_parent_however_that_ends(tmp_path):
    """Even if it is stopped, and the parent had no time to say good-bye."""
    program = ("import os, sys, signal\nfrom alexnet_mf.instruments.process import WorkerFailed, WorkerProcess\n"
               "worker = WorkerProcess(sys.executable, 'alexnet_mf.bench.worker')\n"
               "try: worker.ask({'do': 'sample', 'phase': ''})\nexcept WorkerFailed: pass\n"
               f"open({str(tmp_path / 'pid')!r}, 'w').write(str(worker.process.pid))\n"
               "os.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists() or state(pid) == "Z")


def test_a_worker_takes_its_children_with_it(connect, tmp_path):
    worker = connect(f"sleep 600 & echo $! > {shlex.quote(str(tmp_path / 'child'))}", ANSWER, "wait")
    worker.ask({})
    child = int((tmp_path / "child").read_text())
    worker.close()
    until(lambda: not Path(f"/proc/{child}").exists() or state(child) == "Z")
    worker.close()  # once more does no harm


def test_a_worker_has_the_variables_that_it_is_started_with(connect):
    worker = connect(f"""read line; echo '{PREFIX}{{"protocol": {PROTOCOL}, "set": "'"$SOME_NAME"'"}}'""",
                     environment={"SOME_NAME": "all"})
    assert worker.ask({}) == {"set": "all"}


@pytest.mark.parametrize("protocol", ["", '"protocol": 1, '])
def test_a_worker_of_another_version_is_refused(connect, protocol):
    with pytest.raises(WorkerFailed, match="another version of alexnet_mf; install this one there"):
        connect(f"""read line; echo '{PREFIX}{{{protocol}"fine": 1}}'""").ask({})


def test_what_comes_before_an_answer_is_passed_over(connect):
    assert connect("echo hello", "printf '\\377\\n'", "echo '{\"fine\": 2}'", ANSWER).ask({}) == {"fine": 1}


@pytest.mark.parametrize("lines, said", [
    (["echo one >&2", "echo two >&2", "exit 3"], "ended with exit code 3 (two)"),
    (["read line", "exit 4"], "ended with exit code 4 (no message)"),
    (["read line", f"""printf '{PREFIX}{{"prot'""", "exit 5"], "ended with exit code 5 (no message)"),
    (["kill -9 $$"], "ended with exit code -9 (no message; probably killed for its memory: take a smaller"),
    (["read line", "kill -11 $$"], "ended with exit code -11"),
], ids=["at once", "when asked", "within its answer", "killed", "crashed"])
def test_a_worker_that_dies_says_what_it_said_last(connect, lines, said):
    worker = connect(*lines)
    with pytest.raises(WorkerGone) as caught:
        worker.ask({})
    assert said in str(caught.value)


def test_a_worker_that_does_not_answer_is_given_up(connect):
    worker = connect("sleep 600", answer_seconds=0.2)
    with pytest.raises(WorkerGone, match=r"no answer within 0.2 s"):
        worker.ask({})
    assert worker.process.returncode == -signal.SIGKILL


def test_an_interpreter_that_cannot_be_run(tmp_path):
    with pytest.raises(WorkerGone, match="nowhere cannot be run"):
        WorkerProcess(str(tmp_path / "nowhere"), BENCH)


# The worker's end


def test_an_error_is_an_answer_and_the_next_command_may_succeed():
    commands = [{"a": 6, "b": 3}, {"a": 6, "b": 0}, {"a": 6, "b": 2}]
    answers = io.StringIO()
    serve(io.StringIO("".join(json.dumps(command) + "\n" for command in commands)), answers,
          lambda command: {"quotient": command["a"] / command["b"]})
    lines = answers.getvalue().splitlines()
    assert all(line.startswith(PREFIX) for line in lines)
    assert [json.loads(line[len(PREFIX):]) for line in lines] == [
        {"protocol": PROTOCOL, "quotient": 2.0},
        {"protocol": PROTOCOL, "error": "ZeroDivisionError: division by zero"},
        {"protocol": PROTOCOL, "quotient": 3.0}]


def test_the_notices_of_a_worker_become_the_parents(connect):
    def warn(command):
        warnings.warn("slow here", Notice, stacklevel=1)
        warnings.warn("of a framework", UserWarning, stacklevel=1)
        return command

    answers = io.StringIO()
    serve(io.StringIO('{"fine": 1}\n'), answers, warn)
    worker = connect(f"read line; echo {shlex.quote(answers.getvalue().strip())}")
    with pytest.warns(Notice) as caught:
        assert worker.ask({}) == {"fine": 1}
    assert [str(one.message) for one in caught] == ["slow here"]


@pytest.mark.parametrize("error, line", [
    (NotImplementedError("backend torch has no ceilings yet"), "backend torch has no ceilings yet"),
    (RuntimeError("\n CUDA out of memory.\nTried to allocate"), "RuntimeError: CUDA out of memory."),
    (MemoryError(), "MemoryError: no message"),
], ids=lambda value: type(value).__name__)
def test_an_error_becomes_one_line(error, line):
    assert one_line(error) == line
