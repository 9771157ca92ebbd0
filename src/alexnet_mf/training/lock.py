"""One process at a time has a run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from alexnet_mf.errors import RunError

LOCK, OWNER = ".lock", ".lock.owner"
"""What is locked, and the file with the number of the process that has it: Windows reads no locked file."""
LOCK_SECONDS = 1.0
"""How long to wait for a lock: `list runs` takes it for a moment."""


class FolderLock:
    """A folder that this process has until `release`, or until the process ends."""

    def __init__(self, held: BaseFileLock, owner: Path):
        self._held, self._owner = held, owner

    def release(self) -> None:
        """Let other processes have the folder."""
        with contextlib.suppress(OSError):
            self._owner.unlink()
        self._held.release()


def lock(folder: Path, seconds: float = LOCK_SECONDS) -> FolderLock:
    """Take the folder for this process.

    Raises:
        RunError: if another process has the folder (names the process), or the file system has no locks.
    """
    path, owner = folder / LOCK, folder / OWNER
    held = FileLock(path, timeout=seconds, mode=0o666, thread_local=False)
    try:
        held.acquire()
    except Timeout as error:
        try:
            process = owner.read_text(encoding="ascii", errors="replace")[:20].strip()
        except OSError:
            process = ""
        raise RunError(f"{folder}: is in use{f' by process {process}' if process else ''}; wait for it, or take "
                       "another folder") from error
    except (OSError, NotImplementedError) as error:
        raise RunError(f"{path}: cannot be locked ({getattr(error, 'strerror', None) or error}); take another folder, "
                       f"or one on another disk") from error
    try:
        owner.write_text(f"{os.getpid()}\n", encoding="ascii")
    except OSError as error:
        held.release()
        raise RunError(f"{owner}: cannot be written ({error.strerror})") from error
    return FolderLock(held, owner)


def is_in_use(folder: Path) -> bool:
    """Return True if a process has the folder now."""
    path = folder / LOCK
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0, mode=0o666, thread_local=False):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
