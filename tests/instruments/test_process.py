"""Workers in processes: those that answer, those that die, and those that are no workers at all."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet_mf import spec
from alexnet_mf.backends.execution import LEFT_OUT
from alexnet_mf.bench.worker import PREFIX
from alexnet_mf.instruments import process as links
from alexnet_mf.instruments.process import Link, WorkerFailed, WorkerGone

ANSWER = f"""read line; echo '{PREFIX}{{"fine": 1}}'"""


@pytest.fixture
def script(tmp_path: Path):
    """A program in the place of Python."""
    def write(*lines: str) -> str:
        path = tmp_path / "python"
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
        path.chmod(0o755)
        return str(path)
    return write


@pytest.fixture
def opened() -> Iterator[list[Link]]:
    """Links that end with the test."""
    several: list[Link] = []
    yield several
    for link in several:
        link.close()


@pytest.fixture
def connect(opened):
    def start(python: str, without: tuple[str, ...] = ()) -> Link:
        opened.append(Link(python, without))
        return opened[-1]
    return start


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
    link = connect(sys.executable)
    answer = link.ask({"do": "start", "backend": "numpy", "style": "alexnet_mf", "device": "cpu",
                       "precision": "float64", "without": [], "also": [], "batch_size": 2, "epoch_batches": 2,
                       "sample_seconds": 0.001, "seed": 0, "network": spec.as_dict(small)})
    assert answer["device"] == "cpu" and "numpy" in answer["versions"]
    assert link.ask({"do": "prepare", "phase": "optimizer"})["calls_per_sample"] >= 1
    with pytest.raises(WorkerFailed, match="KeyError: 'nonsense'"):
        link.ask({"do": "sample", "phase": "nonsense"})
    assert link.ask({"do": "sample", "phase": "optimizer"})["seconds"] > 0
    assert link.ask({"do": "finish"})["peak_memory_bytes"] > 1e7


def test_progress_is_told_and_is_no_answer(connect, script):
    told = []
    link = connect(script("read line", *(f"""echo '{PREFIX}{{"progress": {n}}}'""" for n in (1, 2)),
                          f"""echo '{PREFIX}{{"fine": 1}}'"""))
    link.tell = told.append
    assert link.ask({}) == {"fine": 1}
    assert told == [1, 2]


@pytest.mark.skipif(not links.CAN_PAUSE, reason="takes Linux")
def test_a_worker_that_is_not_asked_is_stopped(connect, script):
    link = connect(script(ANSWER, ANSWER, "sleep 600"))
    assert link.ask({}) == {"fine": 1}
    until(lambda: state(link.process.pid) == "T")
    assert link.ask({}) == {"fine": 1}


@pytest.mark.skipif(not links.CAN_PAUSE, reason="takes Linux")
def test_a_worker_ends_with_its_parent_however_that_ends(tmp_path):
    """Even if it is stopped, and the parent had no time to say good-bye."""
    program = ("import os, sys, signal\nfrom alexnet_mf.instruments.process import Link, WorkerFailed\n"
               "link = Link(sys.executable, ())\n"
               "try: link.ask({'do': 'sample', 'phase': ''})\nexcept WorkerFailed: pass\n"
               f"open({str(tmp_path / 'pid')!r}, 'w').write(str(link.process.pid))\n"
               "os.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists() or state(pid) == "Z")


def test_a_worker_takes_its_children_with_it(connect, script, tmp_path):
    link = connect(script(f"sleep 600 & echo $! > {shlex.quote(str(tmp_path / 'child'))}", ANSWER, "wait"))
    link.ask({})
    child = int((tmp_path / "child").read_text())
    link.close()
    until(lambda: not Path(f"/proc/{child}").exists() or state(child) == "Z")
    link.close()  # once more does no harm


def test_a_worker_knows_what_it_leaves_out(connect, script):
    link = connect(script(f"""read line; echo '{PREFIX}{{"left": "'"${LEFT_OUT}"'"}}'"""), ("all",))
    assert link.ask({}) == {"left": "all"}


def test_what_comes_before_an_answer_is_passed_over(connect, script):
    assert connect(script("echo hello", "printf '\\377\\n'", "echo '{\"fine\": 2}'", ANSWER)).ask({}) == {"fine": 1}


@pytest.mark.parametrize("lines, said", [
    (["echo one >&2", "echo two >&2", "exit 3"], "ended with exit code 3 (two)"),
    (["read line", "exit 4"], "ended with exit code 4 (nothing said)"),
    (["kill -9 $$"], "ended with exit code -9 (nothing said; was it killed for its memory? take a smaller"),
    (["read line", "kill -11 $$"], "ended with exit code -11"),
], ids=["at once", "when asked", "killed", "crashed"])
def test_a_worker_that_dies_says_what_it_said_last(connect, script, lines, said):
    link = connect(script(*lines))
    with pytest.raises(WorkerGone) as caught:
        link.ask({})
    assert said in str(caught.value)


def test_a_worker_that_does_not_answer_is_given_up(connect, script, monkeypatch):
    monkeypatch.setattr(links, "ANSWER_SECONDS", 0.2)
    link = connect(script("sleep 600"))
    with pytest.raises(WorkerGone, match=r"no answer within 0.2 s"):
        link.ask({})
    assert link.process.returncode == -signal.SIGKILL


def test_an_interpreter_that_cannot_be_run(tmp_path):
    with pytest.raises(WorkerGone, match=r"cannot be run.*--python"):
        Link(str(tmp_path / "nowhere"), ())
