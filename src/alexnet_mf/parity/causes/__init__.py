"""The usual causes of a difference, each as the result that it would give, and whether it is the one that was given.

A cause is never guessed. Each one is computed with the reference's functions from the backend's own input to the layer,
and named only if the result is what the backend gave, to well below the difference that it explains. Where several
causes give the same numbers, all are named. `inputs` has those of parameters and pixels, `forward` those of layers,
with `weighted` for convolutions and fully connected ones, `training` those of loss, gradients and SGD.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.parity.tolerances import relative_l2

Array: TypeAlias = NDArray[Any]
Cause: TypeAlias = tuple[str, Array]
"""A cause in words, and what the layer would give if it were so."""

REPRODUCES = 1e-4
"""A cause reproduces a result within this relative L2 error; also within a hundredth of the error that it explains."""
ROUNDING = 2e-6
"""Relative L2 error that float32 costs. The hundredth need not be less than this; then a tenth counts."""

FLATTENED = {"height, width, channel": (0, 2, 3, 1), "channel, width, height": (0, 1, 3, 2),
             "width, height, channel": (0, 3, 2, 1)}
"""The other orders in which images are flattened, and the axes that they take."""


def verdict(where: str, reproduced: str | None) -> str:
    """A sentence."""
    return f"{where}: {reproduced}" if reproduced else f"{where}: none of the usual causes reproduces it"


def reproduce(result: Array, reference: Array, causes: Iterator[Cause]) -> str | None:
    """The causes that give `result`, which differs from `reference`."""
    difference = relative_l2(result, reference)
    bound = max(min(REPRODUCES, difference / 100), min(ROUNDING, difference / 10))
    with np.errstate(all="ignore"):
        found = [cause for cause, candidate in causes if relative_l2(candidate, result) <= bound]
    return " or ".join(found) or None


def first_of(names: list[str], count: int = 4) -> str:
    """Some of them, in words."""
    return ", ".join(names[:count]) + (" ..." if len(names) > count else "")
