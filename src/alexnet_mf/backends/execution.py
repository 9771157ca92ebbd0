"""How a backend computes, beside what it computes: precision, and the settings that may make it fast."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from alexnet_mf.errors import BackendUnavailable

LEFT_OUT = "ALEXNET_MF_WITHOUT"
"""The environment variable that `left_out` reads."""

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
SPEED_SETTINGS = ("allocator", "compile", "fold", "fused", "graph", "layout", "threads")
"""The names in the backends' own tables of what may make them fast."""


@dataclass(frozen=True)
class Setting:
    """An entry of a backend's table (`backends/NAME/speed.py`)."""

    on: bool
    """Unless it is asked otherwise."""
    reason: str
    """What it is, and what it gained where that was measured."""


@dataclass(frozen=True)
class Execution:
    """How a backend computes, beside what it computes."""

    precision: str | None = None
    """Of the factors in convolutions and matrix products: float32 (IEEE's, without TF32), tf32, bfloat16, or float16
    where a framework has no bfloat16. Without it the backend's own: float32, and the referee's float64."""
    without: frozenset[str] = frozenset()
    """Settings of the backend's own table that are left out, by name."""
    also: frozenset[str] = frozenset()
    """Settings of that table that are switched on, though they are off by themselves."""

    def settings(self, backend: str, table: Mapping[str, Mapping[str, Setting]], device: str) -> frozenset[str]:
        """What is switched on.

        Args:
            table: for each kind of device (`cpu`, `cuda`) the settings by name.

        Raises:
            BackendUnavailable: where one to be switched is not in the table; lists those that are.
        """
        known = table[device.partition(":")[0]]
        for name in sorted((self.without | self.also) - set(known)):
            raise BackendUnavailable(f"backend {backend}: no setting {name!r} on {device}; "
                                     f"there is {', '.join(known) or 'none'}")
        return frozenset(name for name, setting in known.items() if setting.on) - self.without | self.also


AS_IT_COMES = Execution()
"""In the backend's own precision, with everything that makes it fast."""


def left_out() -> frozenset[str]:
    """Settings that this process leaves out from the start, for those that must be decided before a framework is
    imported (threads): comma-separated names in $ALEXNET_MF_WITHOUT; `all` is every one of them."""
    return frozenset(name for name in os.environ.get(LEFT_OUT, "").split(",") if name)
