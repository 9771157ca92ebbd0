"""Canonical parameters to native ones and back. The reference's layout is the canonical one: only the dtype differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from alexnet_mf.backends.numpy.layers import Array
from alexnet_mf.weights.parameters import Parameters


def load(parameters: Mapping[str, NDArray[np.float32]], dtype: DTypeLike) -> dict[str, Array]:
    """Return a copy in the dtype of the computation; float64 holds every float32 exactly."""
    return {name: value.astype(dtype, order="C") for name, value in parameters.items()}


def export(parameters: Mapping[str, NDArray[Any]]) -> Parameters:
    """Return a copy in float32."""
    return {name: value.astype(np.float32) for name, value in parameters.items()}
