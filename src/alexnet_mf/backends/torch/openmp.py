"""Spinning of the threads of PyTorch's OpenMP library on a CPU before they sleep. Does not import PyTorch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from alexnet_mf.backends.execution import left_out

SPIN_COUNT = "GOMP_SPINCOUNT"
SPINS = 10_000
"""About 0.1 ms. The library's default of 300,000 is some milliseconds; 1,000 slows small networks by a third."""
USERS = (SPIN_COUNT, "OMP_WAIT_POLICY")
"""Environment variables with which a user decides; they take precedence."""

_spins = "as it comes"


@contextmanager
def brief_spin() -> Iterator[None]:
    """Let the OpenMP library that PyTorch loads in this context spin briefly at a barrier.

    Long spinning beside other programs takes the processor from the very thread that the others wait for. The library
    (libgomp, in the wheels for Linux) reads the variable once, when it is loaded. The variable is removed afterwards:
    worker processes decide for themselves.
    """
    global _spins
    own = [name for name in USERS if name in os.environ]
    sets = not own and sys.platform == "linux" and "torch" not in sys.modules and not left_out() & {"all", "spin"}
    if own:
        _spins = ", ".join(f"{name}={os.environ[name]}" for name in own)
    elif sets:
        _spins = str(SPINS)
        os.environ[SPIN_COUNT] = _spins
    try:
        yield
    finally:
        if sets:
            del os.environ[SPIN_COUNT]


def spins() -> str:
    """Return how often a thread spins at a barrier: a number, a user's own variable, or `as it comes`."""
    return _spins
