"""The threads of PyTorch's OpenMP library on a CPU: how long they spin before they sleep. Imports no PyTorch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from alexnet_mf.backends.execution import left_out

SPIN_COUNT = "GOMP_SPINCOUNT"
SPINS = 10_000
"""About 0.1 ms. The library's own 300,000 are some milliseconds; 1,000 cost small networks a third of their speed."""
USERS = (SPIN_COUNT, "OMP_WAIT_POLICY")
"""Environment variables by which a user decides; they are kept."""

_spins = "as it comes"


@contextmanager
def brief_spin() -> Iterator[None]:
    """Let the OpenMP library that PyTorch loads in this context spin briefly at a barrier.

    Beside other programs its threads otherwise spin away the time in which the thread that all wait for could run. The
    library (libgomp, in the wheels for Linux) reads the variable once, when it is loaded. It is removed afterwards:
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
