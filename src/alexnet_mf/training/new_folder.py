"""The folder of a new run: choose its name, check it, create it and remove it."""

from __future__ import annotations

import datetime
from contextlib import suppress
from pathlib import Path

from alexnet_mf.errors import RunError
from alexnet_mf.training.record import CHECKPOINTS, RECORD, how_to_resume

RUNS = Path("runs")
"""Folder that contains the run folders."""


def check_new(folder: Path) -> None:
    """Check that a run can begin here.

    Raises:
        RunError: if the folder is not empty, or cannot be created.
    """
    try:
        names = _names(folder) if folder.exists() else []
        has_checkpoints = CHECKPOINTS in names and bool(_names(folder / CHECKPOINTS))
    except OSError as error:
        raise RunError(f"{folder}: cannot be read as a folder ({error.strerror}); name another folder with `out`"
                       ) from error
    if RECORD in names or has_checkpoints:
        raise RunError(f"{folder}: holds a run; resume it with {how_to_resume(folder)}, or name another folder with "
                       "`out`")
    if names and names != [CHECKPOINTS]:
        raise RunError(f"{folder}: is not empty; name another folder with `out`")
    remove_folders(make_folders(folder / CHECKPOINTS))


def make_folders(path: Path) -> list[Path]:
    """Create a folder and its parents, all or none; return the new ones, the outermost first."""
    made = []
    try:
        for folder in [*reversed(path.parents), path]:
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                made.append(folder)
    except OSError as error:
        remove_folders(made)
        raise RunError(f"{path.parent}: cannot be created ({error.strerror}); name another with `out`") from error
    return made


def remove_folders(made: list[Path]) -> None:
    """Remove those of the folders from `make_folders` that are empty."""
    with suppress(OSError):
        for folder in reversed(made):
            folder.rmdir()


def _names(folder: Path) -> list[str]:
    """Return the names in a folder, without hidden ones."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def new_folder(parent: Path, backend: str, net: str) -> Path:
    """Return `parent`/DATE-TIME-backend-net, with a number appended if that exists. The folder is not made yet."""
    name = f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}-{backend}-{net}"
    folder, number = parent / name, 2
    while folder.exists():
        folder, number = parent / f"{name}-{number}", number + 1
    return folder
