"""Random numbers that NumPy draws for all backends: seeds of dropout masks, operands of the ceilings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dropout_seed(seed: int, step: int) -> int:
    """Return the 32-bit seed of one step's dropout masks.

    It is a function of (seed, step), so that a stopped run can resume, and a hash, because MXNet's streams of
    neighboring seeds overlap (s + 1 shifts the mask of s by 127/1024 of the tensor).
    """
    return int(np.random.SeedSequence(seed, spawn_key=(step,)).generate_state(1, np.uint32)[0])


def random_matrices(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return two (size, size) matrices of standard normal numbers, the operands of the matrix product ceiling.

    Constant operands would overstate a GPU's rate, which depends on how many bits flip: an H200's bfloat16 product ran
    at 894 TFLOP/s on zeros and at 788 on random numbers.
    """
    generator = np.random.default_rng(0)
    first, second = (generator.standard_normal((size, size), np.float32) for _ in range(2))
    return first, second


def random_bytes(count: int) -> NDArray[np.uint8]:
    """Return `count` random bytes, the source of the copy ceiling."""
    return np.random.default_rng(0).integers(256, size=count, dtype=np.uint8)
