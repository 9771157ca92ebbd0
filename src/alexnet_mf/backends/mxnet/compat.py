"""What MXNet 1.9.1, the last release (2023), needs from a current Python environment. Called before its import."""

from __future__ import annotations

import os

import numpy as np


def prepare() -> None:
    """Mend the environment for `import mxnet`."""
    # It reads numpy.bool, at import and later on; NumPy 1.24 removed it.
    if "bool" not in vars(np):
        np.bool = bool  # type: ignore[attr-defined]
    os.environ.setdefault("MXNET_OMP_MAX_THREADS", str(os.cpu_count() or 1))
