"""Precision and speed settings of a backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from alexnet_mf.errors import BackendUnavailable

LEFT_OUT = "ALEXNET_MF_WITHOUT"
"""Environment variable that `left_out` reads."""

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
SPEED_SETTINGS = {
    "allocator": "keep large memory blocks for the next step (CPU)",
    "autotune": "cuDNN times its algorithms and takes the fastest (PyTorch on a GPU)",
    "compile": "torch.compile, tf.function, or hybridize in MXNet",
    "fold": "compute a first convolution of few channels as one of many (PyTorch)",
    "fused": "the SGD update in one pass (PyTorch)",
    "graph": "the training step as one CUDA graph (PyTorch on a GPU)",
    "layout": "channels_last memory (PyTorch)",
    "pool": "bias, ReLU and max pooling in one kernel (PyTorch on a GPU)",
    "spin": "idle threads sleep earlier (PyTorch)",
    "threads": "one thread per core (MXNet)"}
"""Speed settings in the tables of all backends, and the effect of each."""


@dataclass(frozen=True)
class Setting:
    """An entry of a backend's table (`backends/NAME/speed.py`)."""

    on: bool
    """The default."""
    reason: str
    """Purpose of the setting, and its measured gain."""


@dataclass(frozen=True)
class Execution:
    """Precision and speed settings of a backend: the same value on the command line, in Python and in records.

    `Execution("bfloat16", {"compile": False})` computes in bfloat16, without `compile`.
    """

    precision: str | None = None
    """Precision of the factors in convolutions and matrix products: float32 (IEEE's, without TF32), tf32, bfloat16, or
    float16 where a framework has no bfloat16. None is the backend's own: float32, and the reference's float64."""
    speed: Mapping[str, bool] = field(default_factory=dict)
    """Speed settings to switch on or off, by name. The backend's table decides the others. `spin` and `threads`
    are fixed when the framework is imported, and `allocator`, once on, stays on in the process."""

    def settings(self, backend: str, table: Mapping[str, Mapping[str, Setting]], device: str) -> frozenset[str]:
        """Return the names of the settings that are on.

        Args:
            table: the settings by name, for each kind of device (`cpu`, `cuda`).

        Raises:
            BackendUnavailable: if a setting in `speed` is not in the table; lists those that are.
        """
        allowed = table[device.partition(":")[0]]
        for name in sorted(set(self.speed) - set(allowed)):
            raise BackendUnavailable(f"backend {backend}: no setting {name!r} on {device}; "
                                     f"available: {', '.join(allowed) or 'none'}")
        return frozenset(name for name, setting in allowed.items() if self.speed.get(name, setting.on))


AS_IT_COMES = Execution()
"""The backend's own precision, with the default settings of its table."""


def switched_off(speed: Mapping[str, bool]) -> list[str]:
    """Return the names of the settings that are switched off."""
    return sorted(name for name, on in speed.items() if not on)


def left_out() -> frozenset[str]:
    """Return the settings, fixed at a framework's import (such as `threads`), that this process leaves out:
    comma-separated names in $ALEXNET_MF_WITHOUT, or `all`."""
    return frozenset(name for name in os.environ.get(LEFT_OUT, "").split(",") if name)
