"""NumPy's weights file: `.npz`, under canonical names."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network
from alexnet_mf.weights.parameters import Parameters


def encode(file_format: str, network: Network, parameters: Parameters) -> bytes:
    """Return the file that `np.savez` writes."""
    file = io.BytesIO()
    np.savez(file, **parameters)
    return file.getvalue()


def decode(content: bytes, network: Network) -> dict[str, NDArray[Any]]:
    """Return the arrays; nothing is unpickled.

    Raises:
        ParametersError: if it is no such file.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except Exception as error:  # of a file from outside: whatever NumPy, zipfile and tokenize raise
        raise ParametersError(f"cannot be read as .npz ({' '.join(str(error).split())}); write it with np.savez") \
            from error
    for name, value in found.items():
        if not isinstance(value, np.ndarray):  # NumPy gives the bytes of what does not begin like an array
            raise ParametersError(f"cannot be read as .npz ({name[:80]!r} is no array); write it with np.savez")
    return found
