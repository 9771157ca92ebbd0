"""Usual causes of a difference, each with the result that it would give.

A cause is never guessed. The reference's functions compute its result from the backend's own input to the layer. It is
named only if this result is far closer to the backend's than the difference that it explains. If several causes give
the same numbers, all are named. `inputs` has the causes for parameters and pixels, `forward` for layers, `weighted` for
convolutions and fully connected layers, and `training` for loss, gradients and SGD.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.parity.tolerances import relative_l2

Array: TypeAlias = NDArray[Any]
Cause: TypeAlias = tuple[str, Array]
"""A cause in words, and the result that it would give."""

REPRODUCES = 1e-4
"""Largest relative L2 error of a cause that reproduces a result; also limited to a hundredth of the explained error."""
ROUNDING = 2e-6
"""Relative L2 error of float32. The limit is never below the smaller of this and a tenth of the explained error."""

FLATTENED = {"height, width, channel": (0, 2, 3, 1), "channel, width, height": (0, 1, 3, 2),
             "width, height, channel": (0, 3, 2, 1)}
"""Other orders of flattening images, with the axes of their transposition."""


def verdict(where: str, reproduced: str | None) -> str:
    """Return a sentence with the causes that reproduce a result."""
    return f"{where}: {reproduced}" if reproduced else f"{where}: none of the usual causes reproduces it"


def reproduce(result: Array, reference: Array, causes: Iterator[Cause]) -> str | None:
    """Return the causes that give `result`, which differs from `reference`; None if none does."""
    difference = relative_l2(result, reference)
    bound = max(min(REPRODUCES, difference / 100), min(ROUNDING, difference / 10))
    with np.errstate(all="ignore"):
        matches = [cause for cause, candidate in causes if relative_l2(candidate, result) <= bound]
    return " or ".join(matches) or None


def first_of(names: list[str], count: int = 4) -> str:
    """Return the first names in words."""
    return ", ".join(names[:count]) + (" ..." if len(names) > count else "")
