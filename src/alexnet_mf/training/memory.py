"""Check that a batch fits in memory, before the operating system ends the program; name a size that does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_mf.backends.contract import Model, Sgd
from alexnet_mf.errors import OutOfMemory
from alexnet_mf.spec import Network, arithmetic

SAFE = 0.75
"""Share of the free memory that a suggested batch may take: frameworks took 0.9 to 1.35 times the estimate."""


def free_bytes() -> int | None:
    """Return the free memory of this machine or container, in bytes; None if the system does not report it."""
    limits = []
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdecimal() and used.isdecimal():
        limits.append(int(limit) - int(used))
    return max(0, min(limits)) if limits else None


def check_fits(network: Network, batch_size: int, item_bytes: int) -> None:
    """Check by arithmetic that a training step on the CPU fits in the free memory.

    A GPU's framework reports a lack of memory. On a CPU, Linux grants more than there is, and then kills the process.

    Raises:
        OutOfMemory: if it does not fit; names both sizes, and a batch size that fits.
    """
    free = free_bytes()
    taken, fixed, one = (item_bytes * arithmetic.training_values(network, size) for size in (batch_size, 0, 1))
    if free is not None and taken > free:
        most = int((SAFE * free - fixed) / (one - fixed))
        size = 1 << most.bit_length() - 1 if most > 0 else 0  # a power of two
        raise OutOfMemory(f"a batch of {batch_size} does not fit: a training step takes about {_gigabytes(taken)}, and "
                          f"{_gigabytes(free)} is free; {_remedy(size)}")


def does_not_fit(model: Model[Any], place: Callable[[int], Any], batch_size: int) -> OutOfMemory:
    """Return the error for a batch that ran out of memory. Halves the batch until a step fits.

    Args:
        place: returns at least this number of images on the device.

    Call it after the step's own error is gone: that error keeps tensors alive. The model cannot be used afterwards.
    """
    size = batch_size // 2
    while size and not _fits(model, place, size):
        size //= 2
    return OutOfMemory(f"a batch of {batch_size} does not fit in the memory of {model.device}; {_remedy(size)}")


def _fits(model: Model[Any], place: Callable[[int], Any], batch_size: int) -> bool:
    try:
        trainer = model.trainer(Sgd(0.0), 0)
        trainer.step(place(batch_size), np.arange(batch_size), 0)
        trainer.read()
    except Exception as error:
        if not model.out_of_memory(error):
            raise
        return False
    return True


def _remedy(batch_size: int) -> str:
    return f"use `batch_size={batch_size}`" if batch_size else "not even a single image fits"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
