"""A run folder: the names in it, and where one can be made."""

from __future__ import annotations

import datetime
from pathlib import Path

from alexnet_mf.errors import RunError

RUNS = Path("runs")
"""Where run folders are made."""
RECORD, WEIGHTS, BEST, CURVES, CHECKPOINTS = ("run.json", "weights.safetensors", "weights-best.safetensors",
                                              "curves.png", "checkpoint")


def check_new(folder: Path) -> None:
    """Make sure that a run can begin here.

    Raises:
        RunError: where something is there already.
    """
    try:
        there = _names(folder) if folder.exists() else []
        checkpoints = _names(folder / CHECKPOINTS) if CHECKPOINTS in there else []
    except OSError as error:
        raise RunError(f"{folder}: cannot be read as a folder ({error.strerror}); name another with --out") from error
    if RECORD in there or checkpoints:
        raise RunError(f"{folder}: holds a run; go on with it (--resume {folder}), or name another folder with --out")
    if there and there != [CHECKPOINTS]:
        raise RunError(f"{folder}: is not empty; name another folder with --out")


def _names(folder: Path) -> list[str]:
    """What is in it, but for what is hidden."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def is_run(folder: Path) -> bool:
    """Whether there is a run here, in whatever state."""
    return any((folder / name).exists() for name in (RECORD, CHECKPOINTS))


def new_folder(parent: Path, backend: str, net: str) -> Path:
    """`parent`/DATE-TIME-backend-net, or with a number behind it where that is taken. It is not made yet."""
    name = f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}-{backend}-{net}"
    folder, number = parent / name, 2
    while folder.exists():
        folder, number = parent / f"{name}-{number}", number + 1
    return folder
