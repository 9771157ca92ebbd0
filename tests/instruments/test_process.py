"""Worker processes: their answers, their failures, and programs that are not workers."""

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
    """Return a function that starts a worker, or a script in its place. The process ends with the test."""
    with contextlib.ExitStack() as opened:
        def start(*lines: str, **options: Any) -> WorkerProcess:
            python = str(script(tmp_path / "python", *lines)) if lines else sys.executable
            return opened.enter_context(contextlib.closing(WorkerProcess(python, BENCH, **options)))
        yield start


def state(pid: int) -> str:
    """Return the state of a process as a letter: T is stopped, Z is dead."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def wait_until(condition) -> None:
    """Wait for a condition, at most a minute (for the slowest machine)."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_worker_answers_commands(connect, small):
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


def test_progress_is_reported_and_is_not_an_answer(connect):
    reports = []
    steps = [f"""echo '{PREFIX}{{"progress": {n}}}'""" for n in (1, 2)]
    worker = connect(*steps, ANSWER, report_progress=reports.append)
    assert worker.ask({}) == {"fine": 1}
    assert reports == [1, 2]


@pytest.mark.skipif(not processes.CAN_PAUSE, reason="needs Linux")
def test_an_idle_worker_is_paused(connect):
    worker = connect(ANSWER, ANSWER, "sleep 600")
    assert worker.ask({}) == {"fine": 1}
    wait_until(lambda: state(worker.process.pid) == "T")
    assert worker.ask({}) == {"fine": 1}


@pytest.mark.skipif(not processes.CAN_PAUSE, reason="needs Linux")
def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    """The worker is paused, and the killed parent cannot send a last command."""
    program = ("import os, sys, signal\nfrom alexnet_mf.instruments.process import WorkerFailed, WorkerProcess\n"
               "worker = WorkerProcess(sys.executable, 'alexnet_mf.bench.worker')\n"
               "try: worker.ask({'do': 'sample', 'phase': ''})\nexcept WorkerFailed: pass\n"
               f"open({str(tmp_path / 'pid')!r}, 'w').write(str(worker.process.pid))\n"
               "os.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or state(pid) == "Z")


def test_closing_a_worker_ends_its_children(connect, tmp_path):
    worker = connect(f"sleep 600 & echo $! > {shlex.quote(str(tmp_path / 'child'))}", ANSWER, "wait")
    worker.ask({})
    child = int((tmp_path / "child").read_text())
    worker.close()
    wait_until(lambda: not Path(f"/proc/{child}").exists() or state(child) == "Z")
    worker.close()  # a second call is harmless


def test_a_worker_gets_its_environment_variables(connect):
    worker = connect(f"""read line; echo '{PREFIX}{{"protocol": {PROTOCOL}, "set": "'"$SOME_NAME"'"}}'""",
                     environment={"SOME_NAME": "all"})
    assert worker.ask({}) == {"set": "all"}


@pytest.mark.parametrize("protocol", ["", '"protocol": 1, '])
def test_a_worker_of_another_version_is_refused(connect, protocol):
    with pytest.raises(WorkerFailed, match="another version of alexnet_mf; install this version there"):
        connect(f"""read line; echo '{PREFIX}{{{protocol}"fine": 1}}'""").ask({})


def test_output_before_an_answer_is_skipped(connect):
    assert connect("echo hello", "printf '\\377\\n'", "echo '{\"fine\": 2}'", ANSWER).ask({}) == {"fine": 1}


@pytest.mark.parametrize("lines, message", [
    (["echo one >&2", "echo two >&2", "exit 3"], "ended with exit code 3 (two)"),
    (["read line", "exit 4"], "ended with exit code 4 (no message)"),
    (["read line", f"""printf '{PREFIX}{{"prot'""", "exit 5"], "ended with exit code 5 (no message)"),
    (["kill -9 $$"], "ended with exit code -9 (no message; probably killed for lack of memory: use a smaller"),
    (["read line", "kill -11 $$"], "ended with exit code -11"),
], ids=["at once", "when asked", "within its answer", "killed", "crashed"])
def test_the_last_line_of_a_dead_worker_is_reported(connect, lines, message):
    worker = connect(*lines)
    with pytest.raises(WorkerGone) as caught:
        worker.ask({})
    assert message in str(caught.value)


def test_a_worker_that_does_not_answer_is_killed(connect):
    worker = connect("sleep 600", answer_seconds=0.2)
    with pytest.raises(WorkerGone, match=r"did not answer within 0.2 s"):
        worker.ask({})
    assert worker.process.returncode == -signal.SIGKILL


def test_an_interpreter_that_cannot_be_run_is_reported(tmp_path):
    with pytest.raises(WorkerGone, match="nowhere cannot be run"):
        WorkerProcess(str(tmp_path / "nowhere"), BENCH)


# The worker's side


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


def test_notices_of_a_worker_are_raised_in_its_parent(connect):
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
