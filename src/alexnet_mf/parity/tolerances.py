"""Errors between two arrays, and their tolerances."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COST_FACTOR = 10
"""A tolerance is at least this many times what float32 costs the reference itself on the same batch."""

PIECE = 1 << 15
"""Numbers that are compared at a time."""


@dataclass(frozen=True)
class Floors:
    """The least tolerance of each kind of error, all relative. What was measured stands in the README."""

    output: float
    """Relative L2 error of a layer's output."""
    largest: float
    """Largest difference in a layer's output over its largest value. In the steps a gap up to this is a near tie."""
    loss: float
    gradient: float
    """Relative L2 error of a parameter's gradient, near ties decided as the backend decided them."""
    update: float
    """Relative L2 error of the change of a parameter in the SGD steps, near ties decided as the backend decided them.
    Float32 often costs more, as it rounds weights that are large beside their update."""
    step_loss: float


TIERS = {
    "float32": Floors(output=2e-6, largest=1e-5, loss=5e-6, gradient=1e-5, update=2e-5, step_loss=2e-5),
    # 10 bits of mantissa in the products' factors.
    "tf32": Floors(output=2e-3, largest=1e-2, loss=2e-3, gradient=1e-2, update=1e-2, step_loss=5e-3),
    # 10 bits too, of the layers' outputs as well: 8 times finer than bfloat16. Not yet measured.
    "float16": Floors(output=2.5e-3, largest=1.25e-2, loss=2.5e-3, gradient=1.25e-2, update=2.5e-2, step_loss=6e-3),
    # 7 bits. The steps' tolerance leaves room for TensorFlow on a CPU, whose graph rounds fused layers once (0.13).
    "bfloat16": Floors(output=2e-2, largest=1e-1, loss=2e-2, gradient=1e-1, update=2e-1, step_loss=5e-2),
}


def relative_l2(value: NDArray[Any], reference: NDArray[Any]) -> float:
    """|value - reference| / |reference| in the Euclidean norm; infinite where the shapes differ."""
    if value.shape != reference.shape:
        return math.inf
    squares = [(float(np.dot(a - b, a - b)), float(np.dot(b, b))) for a, b in _pieces(value, reference)]
    return ratio(math.sqrt(sum(d for d, _ in squares)), math.sqrt(sum(r for _, r in squares)))


def relative_largest(value: NDArray[Any], reference: NDArray[Any]) -> float:
    """The largest difference over the largest reference value; infinite where the shapes differ."""
    if value.shape != reference.shape:
        return math.inf
    peaks = [(float(np.abs(a - b).max()), float(np.abs(b).max())) for a, b in _pieces(value, reference)]
    return ratio(*(float(np.max(column, initial=0)) for column in zip(*peaks))) if peaks else 0.0


def _pieces(*arrays: NDArray[Any]) -> Iterator[list[NDArray[np.float64]]]:
    """The same pieces of arrays in float64, small enough for the cache: a copy of fc6 would cost more than its sum."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, PIECE):
        yield [array[start:start + PIECE].astype(np.float64) for array in flat]


def ratio(difference: float, scale: float) -> float:
    """difference / scale; 0 where both are, infinite where only the scale is, or where the difference is no number."""
    if difference == 0:
        return 0.0
    return difference / scale if scale and math.isfinite(difference) else math.inf
