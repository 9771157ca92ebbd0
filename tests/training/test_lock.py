"""Locks: one process at a time uses a run folder."""

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
folder_lock = lock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.readline()
folder_lock.release()
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
    for _ in range(2):  # a failed attempt does not erase the owner
        with pytest.raises(RunError, match=f"is in use by process {holder.pid}; wait for it, or use another folder"):
            lock(tmp_path, seconds=0.1)
    assert is_in_use(tmp_path)


def test_a_released_folder_can_be_locked(holder, tmp_path):
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "released\n"
    assert not is_in_use(tmp_path)
    folder_lock = lock(tmp_path)
    assert is_in_use(tmp_path)
    folder_lock.release()
    assert [path.name for path in tmp_path.iterdir()] in ([locks.LOCK], []), "the owner's number is gone"


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_the_folder_of_a_killed_process_can_be_locked(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_in_use(tmp_path)
    lock(tmp_path).release()


def test_a_folder_without_a_lock_is_not_in_use_and_stays_unchanged(tmp_path):
    assert not is_in_use(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_locked_is_refused(tmp_path):
    (tmp_path / locks.LOCK).mkdir()
    with pytest.raises(RunError, match=r"\.lock: cannot be locked \(.*\); use another folder"):
        lock(tmp_path, seconds=0.1)
    assert not is_in_use(tmp_path)
