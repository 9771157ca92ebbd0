"""NumPy's `.npz` files of weights, under canonical names. They need no framework."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.errors import ParametersError
from alexnet_mf.weights.parameters import Parameters


def encode(parameters: Parameters) -> bytes:
    """Return the file that `np.savez` writes."""
    file = io.BytesIO()
    np.savez(file, **parameters)
    return file.getvalue()


def decode(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays in a file. Nothing is unpickled.

    Raises:
        ParametersError: if it is not a `.npz` file; the message follows the file's name.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # whatever NumPy, zipfile and tokenize raise for a file from outside
        raise ParametersError(f"cannot be read as .npz ({' '.join(str(error).split())}); write it with np.savez"
                              ) from error
    for name, value in arrays.items():
        if not isinstance(value, np.ndarray):  # NumPy returns the bytes of a member that does not begin like an array
            raise ParametersError(f"cannot be read as .npz ({name[:80]!r} is not an array); write it with np.savez")
    return arrays
