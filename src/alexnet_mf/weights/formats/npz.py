"""NumPy's `.npz` files of weights. They need no framework."""

from __future__ import annotations

import functools
import io
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.errors import ParametersError
from alexnet_mf.weights.parameters import Parameters
from alexnet_mf.weights.stored import StoredTensor, StoredWeights

NAME = ".npy"


def encode(parameters: Parameters) -> bytes:
    """Return the file that `np.savez` writes."""
    file = io.BytesIO()
    np.savez(file, **parameters)
    return file.getvalue()


def read(file: BinaryIO, path: Path) -> StoredWeights:
    """Return the arrays in a file. Nothing is unpickled, and an array is read after its shape has been checked.

    Raises:
        ParametersError: if it is not a `.npz` file of arrays; the message follows the file's name.
    """
    try:
        archive = files.open_zip(file)
        entries = archive.infolist()
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("two arrays have one name")
        tensors = {entry.filename.removesuffix(NAME): _tensor(archive, entry) for entry in entries}
    except ParametersError:
        raise
    except Exception as error:  # whatever NumPy, zipfile and tokenize raise for a file from outside
        raise _unreadable(error) from error
    return StoredWeights(tensors, layout=None)


def _tensor(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> StoredTensor:
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)  # type: ignore[no-untyped-call]
        if version != (1, 0):  # later versions have headers of any size
            raise ParametersError(f"{entry.filename[:80]!r} has version {version} of NumPy's format; write it with "
                                  "np.savez and plain names")
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)  # type: ignore[no-untyped-call]
    if dtype.hasobject:
        raise ParametersError(f"cannot be read as .npz ({entry.filename[:80]!r} has Python objects); save each array "
                              "under a name of its own with np.savez")
    return StoredTensor(dtype.name, shape, functools.partial(_load, archive, entry))


def _load(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    try:
        with archive.open(entry) as member:
            value: NDArray[Any] = np.lib.format.read_array(  # type: ignore[no-untyped-call]
                member, allow_pickle=False)
        return value.astype(value.dtype.newbyteorder("="), copy=False)
    except Exception as error:  # as above
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> ParametersError:
    return ParametersError(f"cannot be read as .npz ({' '.join(str(error).split())}); write it with np.savez")
