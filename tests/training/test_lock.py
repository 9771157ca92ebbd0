"""A run folder has one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from alexnet_mf.errors import RunError
from alexnet_mf.training import lock as locks
from alexnet_mf.training.lock import is_in_use, lock

HOLDER = """
import sys
from pathlib import Path
from alexnet_mf.training.lock import lock
held = lock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.readline()
held.release()
print("released", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_the_first_is_named(holder, tmp_path):
    assert is_in_use(tmp_path)
    for _ in range(2):  # an attempt does not erase who has it
        with pytest.raises(RunError, match=f"is in use by process {holder.pid}; wait for it, or take another folder"):
            lock(tmp_path, seconds=0.1)
    assert is_in_use(tmp_path)


def test_a_released_folder_can_be_taken(holder, tmp_path):
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "released\n"
    assert not is_in_use(tmp_path)
    held = lock(tmp_path)
    assert is_in_use(tmp_path)
    held.release()
    assert [path.name for path in tmp_path.iterdir()] in ([locks.LOCK], []), "the owner's number is gone"


@pytest.mark.skipif(os.name != "posix", reason="takes SIGKILL")
def test_the_folder_of_a_process_that_was_killed_can_be_taken(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_in_use(tmp_path)
    lock(tmp_path).release()


def test_a_folder_without_a_lock_is_not_in_use_and_stays_as_it_is(tmp_path):
    assert not is_in_use(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_locked_is_told(tmp_path):
    (tmp_path / locks.LOCK).mkdir()
    with pytest.raises(RunError, match=r"\.lock: cannot be locked \(.*\); take another folder"):
        lock(tmp_path, seconds=0.1)
    assert not is_in_use(tmp_path)
