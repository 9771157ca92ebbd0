"""The memory of this process: the blocks that its allocator keeps, and the garbage of finished trainings."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""From glibc's malloc.h."""
LARGE_BYTES = 2**23
"""Size of the parameters above which a backend collects garbage before it builds the network."""


def keep_large_blocks() -> None:
    """Let this process keep large blocks that it frees, for the next training step, if it uses glibc.

    glibc returns a block of more than 32 MB to the kernel as soon as it is freed. The next one is fresh memory, which
    costs a page fault every 4 kB. The setting holds for the rest of the process.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # musl has none
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, -1)


def collect_garbage(parameters: Mapping[str, NDArray[np.float32]]) -> None:
    """Free earlier models before a large one is built.

    The objects of a model refer to each other (in PyTorch on Python 3.13), so only Python's collector frees them. It
    counts objects, not bytes. A collection takes about 0.3 s, too long for a small network.
    """
    if sum(value.nbytes for value in parameters.values()) > LARGE_BYTES:
        gc.collect()
