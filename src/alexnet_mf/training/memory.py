"""Batches that do not fit: told before the operating system ends the program, with a size that would fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from alexnet_mf.backends.contract import Model, Sgd
from alexnet_mf.errors import OutOfMemory
from alexnet_mf.spec import Network, arithmetic

SAFE = 0.75
"""The share of the free memory that a suggested batch may take: frameworks took 0.9 to 1.35 times the estimate."""


def free_bytes() -> int | None:
    """What this process may still take of its machine's memory, or container's; None where the system does not tell."""
    found = []
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdecimal() and used.isdecimal():
        found.append(int(limit) - int(used))
    return max(0, min(found)) if found else None


def check_fits(model: Model[Any], batch_size: int) -> None:
    """Make sure that a training step on the CPU can have the memory that it takes by arithmetic.

    A GPU's framework says so itself; on a CPU Linux lends more than there is, and then ends whoever uses it.

    Raises:
        OutOfMemory: names both sizes, and a batch that would fit.
    """
    if model.device == "cpu":
        check_fits_machine(model.network, batch_size, model.item_bytes)


def check_fits_machine(network: Network, batch_size: int, item_bytes: int) -> None:
    """The same, before there is a model.

    Raises:
        OutOfMemory: likewise.
    """
    free, taken = free_bytes(), training_bytes(network, batch_size, item_bytes)
    if free is not None and taken > free:
        fixed, one = (training_bytes(network, size, item_bytes) for size in (0, 1))
        most = int((SAFE * free - fixed) / (one - fixed))
        raise OutOfMemory(f"a batch of {batch_size} does not fit: a training step takes about {_gigabytes(taken)}, and "
                          f"{_gigabytes(free)} of memory are free; {_remedy(_power_of_two(most))}")


def training_bytes(network: Network, batch_size: int, item_bytes: int) -> int:
    """What a training step takes, beside what the framework itself does."""
    return item_bytes * arithmetic.training_values(network, batch_size)


def does_not_fit(model: Model[Any], placed: Any, batch_size: int) -> OutOfMemory:
    """The error for a batch whose step ran out of memory; halves it until a step is through.

    To be called when the step's own error, which keeps its tensors alive, is gone. The model is spent.
    """
    size = batch_size // 2
    while size and not _fits(model, placed, size):
        size //= 2
    return OutOfMemory(f"a batch of {batch_size} does not fit in the memory of {model.device}; {_remedy(size)}")


def _fits(model: Model[Any], placed: Any, batch_size: int) -> bool:
    try:
        trainer = model.trainer(Sgd(0.0), 0)
        trainer.step(placed, np.arange(batch_size), 0)
        trainer.read()
    except Exception as error:
        if not model.out_of_memory(error):
            raise
        return False
    return True


def _power_of_two(most: int) -> int:
    return 1 << most.bit_length() - 1 if most > 0 else 0


def _remedy(batch_size: int) -> str:
    return f"`batch_size={batch_size}` would" if batch_size else "not even a single image would"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
