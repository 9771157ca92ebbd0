"""Inputs that NumPy prepares alike for all backends: images and the scale of their pixels, seeds, random operands."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.errors import DataError
from alexnet_mf.spec import Network

PIXEL_SCALE = np.float32(1 / 255)
"""Gray levels to [0, 1] by one float32 multiplication: frameworks and compilers divide differently."""


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


def upsampling_factor(image: tuple[int, ...], network: Network) -> int:
    """Return how many times larger the network's input is than a gray image (height, width), in both directions.

    Raises:
        DataError: unless it is 1, 2, 4 or 8: only then are the interpolated pixels exact in float32.
    """
    channels, height, width = network.input
    if channels != 1:
        raise DataError(f"network {network.name} takes {channels}x{height}x{width}, and grey images have one channel; "
                        f"give inputs of the network's own shape")
    factor = height // image[0]
    if (height, width) != (image[0] * factor, image[1] * factor) or factor not in (1, 2, 4, 8):
        raise DataError(f"network {network.name} takes {channels}x{height}x{width}: {image[0]}x{image[1]} grey images "
                        f"can be upsampled exactly by 1, 2, 4 or 8 only; give inputs of the network's own shape")
    return factor


def check_inputs(inputs: NDArray[Any], labels: NDArray[np.int64], network: Network) -> None:
    """Make sure that `Model.place` accepts these images and labels.

    Raises:
        DataError: states the input and what the network takes.
    """
    if inputs.ndim == 3 and inputs.dtype == np.uint8:
        upsampling_factor(inputs.shape[1:], network)
    elif inputs.dtype != np.float32 or inputs.shape[1:] != network.input:
        raise DataError(f"network {network.name} takes float32 inputs (n, {', '.join(map(str, network.input))}) or "
                        f"uint8 images (n, height, width), not {inputs.dtype} {inputs.shape}")
    if labels.shape != inputs.shape[:1]:
        raise DataError(f"{len(inputs)} images need as many labels, not {labels.shape}")
    if labels.size and not 0 <= labels.min() <= labels.max() < network.classes:
        raise DataError(f"labels must lie in 0..{network.classes - 1}, not {labels.min()}..{labels.max()}")
