"""The C library's memory allocator, told to keep large blocks."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""From glibc's malloc.h."""


def keep_large_blocks() -> bool:
    """Let this process keep the large blocks that it frees, for the next step of the training.

    glibc hands a block of more than 32 MB back to the kernel as soon as it is freed, and the next one is fresh memory,
    which costs a page fault every 4 kB. The setting is the process's, and stays.

    Returns:
        Whether there is a glibc here that took it.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, -1)])
