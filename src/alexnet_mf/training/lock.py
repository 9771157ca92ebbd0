"""Locks of run folders: one process at a time writes a run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from alexnet_mf.errors import RunError

LOCK, OWNER = ".lock", ".lock.owner"
"""The locked file, and the file with the number of the locking process: Windows cannot read a locked file."""
LOCK_SECONDS = 1.0
"""Longest wait for a lock, in seconds: `list runs` takes it for a moment."""


class FolderLock:
    """The lock of a folder, until `release` or the end of the process."""

    def __init__(self, file_lock: BaseFileLock, owner: Path):
        self._file_lock, self._owner = file_lock, owner

    def release(self) -> None:
        """Release the folder to other processes."""
        with contextlib.suppress(OSError):
            self._owner.unlink()
        self._file_lock.release()


def lock(folder: Path, seconds: float = LOCK_SECONDS) -> FolderLock:
    """Lock a folder for this process.

    Raises:
        RunError: if another process has locked it (names the process), or the file system has no locks.
    """
    path, owner = folder / LOCK, folder / OWNER
    file_lock = FileLock(path, timeout=seconds, mode=0o666, thread_local=False)
    try:
        file_lock.acquire()
    except Timeout as error:
        try:
            process = owner.read_text(encoding="ascii", errors="replace")[:20].strip()
        except OSError:
            process = ""
        raise RunError(f"{folder}: is in use{f' by process {process}' if process else ''}; wait for it, or use "
                       "another folder") from error
    except (OSError, NotImplementedError) as error:
        raise RunError(f"{path}: cannot be locked ({getattr(error, 'strerror', None) or error}); use another folder, "
                       f"or one on another disk") from error
    try:
        owner.write_text(f"{os.getpid()}\n", encoding="ascii")
    except OSError as error:
        FolderLock(file_lock, owner).release()
        raise RunError(f"{owner}: cannot be written ({error.strerror})") from error
    return FolderLock(file_lock, owner)


def is_in_use(folder: Path) -> bool:
    """Return True if a process has locked the folder."""
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
