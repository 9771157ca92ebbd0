"""One process has a run at a time."""

from __future__ import annotations

import os
import time
from pathlib import Path

from alexnet_mf.errors import RunError

try:
    import fcntl
except ImportError:  # not on Windows: nothing guards a run there
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
LOCK_SECONDS = 1.0
"""How long to wait for a lock: `list runs` takes it for a moment."""


def lock(folder: Path, seconds: float = LOCK_SECONDS) -> int | None:
    """Take the folder for this process: a descriptor that holds the lock until it is closed, or the process ends.

    Raises:
        RunError: where another process has it, which is named, or the file system has no locks.
    """
    if fcntl is None:
        return None
    path = folder / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise RunError(f"{folder}: is in use{f' by process {owner}' if owner else ''}; wait for it, or take "
                           "another folder") from error
        except OSError as error:
            os.close(descriptor)
            raise RunError(f"{path}: cannot be locked ({error.strerror}); take a folder on another disk") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def is_in_use(folder: Path) -> bool:
    """Whether a process has the folder now."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
