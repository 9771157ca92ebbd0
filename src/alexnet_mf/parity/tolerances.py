"""Errors between two arrays, and their tolerances."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COST_FACTOR = 10
"""Smallest tolerance, as a multiple of the reference's own float32 error on the same batch."""

CHUNK = 1 << 15
"""Number of values that are compared at a time."""


@dataclass(frozen=True)
class Floors:
    """Smallest relative tolerance for each type of error."""

    output: float
    """Relative L2 error of a layer's output."""
    largest: float
    """Largest difference in a layer's output over its largest value. In the steps, a gap up to this is a near tie."""
    loss: float
    gradient: float
    """Relative L2 error of a parameter's gradient, with near ties decided as in the backend."""
    update: float
    """Relative L2 error of a parameter's change in the SGD steps, with near ties decided as in the backend. The
    error of float32 is often larger: it rounds weights that are large beside their update."""
    step_loss: float


TIERS = {
    "float32": Floors(output=2e-6, largest=1e-5, loss=5e-6, gradient=1e-5, update=2e-5, step_loss=2e-5),
    # 10 bits of mantissa in the factors of products.
    "tf32": Floors(output=2e-3, largest=1e-2, loss=2e-3, gradient=1e-2, update=1e-2, step_loss=5e-3),
    # 10 bits in the factors and in the layers' outputs, 8 times finer than bfloat16. Not yet measured.
    "float16": Floors(output=2.5e-3, largest=1.25e-2, loss=2.5e-3, gradient=1.25e-2, update=2.5e-2, step_loss=6e-3),
    # 7 bits. The steps' tolerance leaves room for TensorFlow on a CPU, whose graph rounds fused layers once (0.13).
    "bfloat16": Floors(output=2e-2, largest=1e-1, loss=2e-2, gradient=1e-1, update=2e-1, step_loss=5e-2),
}


def relative_l2(value: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return |value - reference| / |reference| in the Euclidean norm; infinity if the shapes differ."""
    if value.shape != reference.shape:
        return math.inf
    squares = [(float(np.dot(a - b, a - b)), float(np.dot(b, b))) for a, b in _chunks(value, reference)]
    return ratio(math.sqrt(sum(d for d, _ in squares)), math.sqrt(sum(r for _, r in squares)))


def relative_largest(value: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the largest difference over the largest reference value; infinity if the shapes differ."""
    if value.shape != reference.shape:
        return math.inf
    peaks = [(float(np.abs(a - b).max()), float(np.abs(b).max())) for a, b in _chunks(value, reference)]
    return ratio(*(float(np.max(column, initial=0)) for column in zip(*peaks))) if peaks else 0.0


def loss_error(loss: float, reference: float, logits: NDArray[Any]) -> float:
    """Return the error of a loss over the loss or the largest logit: a small loss is a difference of larger numbers."""
    return ratio(abs(loss - reference), max(abs(reference), float(np.abs(logits).max())))


def norm_of_all(arrays: Iterable[NDArray[Any]]) -> float:
    """Return the Euclidean norm of all arrays together."""
    return math.hypot(*(float(np.linalg.norm(array)) for array in arrays))


def _chunks(*arrays: NDArray[Any]) -> Iterator[list[NDArray[np.float64]]]:
    """Yield the arrays in float64 by chunks that fit the cache: a copy of fc6 would cost more than its sum."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, CHUNK):
        yield [array[start:start + CHUNK].astype(np.float64) for array in flat]


def ratio(difference: float, scale: float) -> float:
    """Return difference / scale; 0 if the difference is 0, infinity if the scale is 0 or the difference not finite."""
    if difference == 0:
        return 0.0
    return difference / scale if scale and math.isfinite(difference) else math.inf
