"""Recognize the format of a weights file by its content."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import BinaryIO

from alexnet_mf import files
from alexnet_mf.errors import AlexnetMfError, ParametersError
from alexnet_mf.weights.formats import caffe

CANONICAL, TORCH, KERAS, GLUON, NPZ, ONNX, CAFFE = "safetensors", "torch", "keras", "gluon", "npz", "onnx", "caffe"
READABLE = (CANONICAL, TORCH, KERAS, GLUON, NPZ, ONNX, CAFFE)

ZIP = b"PK\x03\x04"
TORCH_BEFORE_1_6 = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""Beginning of a `torch.save` file until 1.6, after the pickle's protocol: a magic number, 0x1950a86a20f9469cfc6c."""
BEGINNINGS = {b"\x89HDF\r\n\x1a\n": KERAS, (0x112).to_bytes(8, "little"): GLUON,
              b"\x80\x02" + TORCH_BEFORE_1_6: TORCH, b"\x80\x03" + TORCH_BEFORE_1_6: TORCH}
"""Formats by the first bytes of their files."""
NPY, PICKLES = b"\x93NUMPY", tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
"""First bytes of `.npy` files, and of pickles."""
UNPICKLE = ("np.savez('weights.npz', **{f'{layer}.{part}': value for layer, values in np.load(FILE, allow_pickle=True, "
            "encoding='latin1').item().items() for part, value in (values.items() if isinstance(values, dict) else "
            "zip(('weight', 'bias'), values))})")
"""Conversion of a pickled dictionary of layers, as `bvlc_alexnet.npy`, with NumPy alone."""
OTHERS = {b"version https://git-lfs": "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
          **dict.fromkeys((b"<!DOCTYPE", b"<!doctype", b"<html", b"<?xml"), "is a web page; download the file again"),
          b"\x1f\x8b": "is compressed with gzip; unpack it",
          b"BZh": "is compressed with bzip2; unpack it", b"\xfd7zXZ": "is compressed with xz; unpack it"}
"""Descriptions of other files with the remedy, by their first bytes."""


def format_of_content(path: Path) -> str:
    """Return the format of a file, by its first bytes or the names in its archive.

    Raises:
        ParametersError: if the format is not recognized, or the file cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a file")
        with path.open("rb") as file:
            name = _format_of(file, path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        if isinstance(error, AlexnetMfError):
            raise
        raise unreadable(path, error) from error
    if name is None:
        raise ParametersError(f"{path}: unrecognized weights format; supported: {', '.join(READABLE)}; if it has one "
                              "of these, use `convert` with `source_format` to name it")
    return name


def _format_of(file: BinaryIO, path: Path) -> str | None:
    start = file.read(32)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if start.startswith(ZIP):
        with files.open_zip(file) as archive:
            return _format_of_archive(archive.namelist())
    if by_start := next((name for first, name in BEGINNINGS.items() if start.startswith(first)), None):
        return by_start
    if int.from_bytes(start[:8], "little") <= size and start[8:9] == b"{":
        return CANONICAL
    if size == 0:
        raise ParametersError(f"{path}: is empty; use another copy")
    if start.startswith(NPY) and b"|O'" not in file.read(200):
        raise ParametersError(f"{path}: is a single array; write all arrays of a network to an .npz file with np.savez")
    if start.startswith((NPY, *PICKLES)):
        raise ParametersError(f"{path}: is a pickle, which could run any program, so it is not read; " + (
            f"if you trust it, write an .npz file: {UNPICKLE}" if start.startswith(NPY) else
            "write its arrays to an .npz file with np.savez"))
    for first, remedy in OTHERS.items():
        if start.lstrip().startswith(first):
            raise ParametersError(f"{path}: {remedy}")
    by_ending = next((name for name in (ONNX, CANONICAL) if path.name.endswith(f".{name}")), None)
    return by_ending or (CAFFE if path.name.endswith(".caffemodel") or caffe.is_net(file) else None)


def _format_of_archive(names: list[str]) -> str | None:
    if "model.weights.h5" in names:
        return KERAS
    if any(name.endswith("/data.pkl") for name in names):
        return TORCH
    return NPZ if names and all(name.endswith(".npy") for name in names) else None


def unreadable(path: Path, error: Exception) -> ParametersError:
    """Return the error for a file that cannot be read, or whose archive is damaged."""
    if isinstance(error, zipfile.BadZipFile):
        return ParametersError(f"{path}: is damaged or ends too early ({error}); use another copy")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ParametersError(f"{path}: cannot be read ({reason}); name a weights file or a run folder")
