"""How a resumed run starts: what its checkpoint carries over, and what must be the same as before."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_mf import files
from alexnet_mf.backends.contract import TrainerState
from alexnet_mf.errors import RunError
from alexnet_mf.training import metrics
from alexnet_mf.training.checkpoint import Checkpoint
from alexnet_mf.training.loop import Snapshot
from alexnet_mf.training.record import RECORD

DECIDES = ("versions", "settings", "device", "precision", "speed")
"""Keys of a session that the bits of a backend's numbers may depend on."""
IS = ("spec_sha256", "seed", "data_sha256")
"""Keys of a run that no session changes: a checkpoint with another value belongs to another run."""


def carry_over(checkpoint: Checkpoint, now: Mapping[str, Any]) -> tuple[Snapshot, list[str]]:
    """Return what a session takes from a checkpoint, and lines that name what differs and what is lost.

    Args:
        now: the session, as `run.describe_session` returns it.
    """
    before, snapshot = checkpoint.session, checkpoint.snapshot
    if before["backend"] == now["backend"]:
        return snapshot, [f"{key} differ from the checkpoint's ({_difference(before, now, key)}): the numbers may "
                          "differ from those of an uninterrupted run" for key in DECIDES
                          if before.get(key) != now.get(key)]
    lost = [f"the dropout masks are {now['backend']}'s own"]
    if snapshot.state.velocity:
        lost.insert(0, f"the momentum starts from zero (in {before['backend']} it is {snapshot.state.rule})")
    if any(value.dtype != np.float32 for value in snapshot.state.parameters.values()):
        lost.append("the weights are rounded to float32")
    weights = {name: value.astype(np.float32) for name, value in snapshot.state.parameters.items()}
    return Snapshot(snapshot.position, TrainerState(weights, {}, snapshot.state.rule)), [
        f"begun in {before['backend']}, resumed in {now['backend']}: weights, position and order of the images are "
        f"carried over; not carried over: {'; '.join(lost)}"]


def check_belongs(checkpoint: Checkpoint, path: Path, record: Mapping[str, Any]) -> None:
    """Check that a checkpoint belongs to the run that run.json describes.

    Args:
        path: file of the checkpoint.
        record: content of run.json.

    Raises:
        RunError: if it is another run's; names both files, and what differs.
    """
    other = [f"{key} is {checkpoint.run[key]} in the one, {record[key]} in the other" for key in IS
             if checkpoint.run[key] != record[key]]
    if other:
        raise RunError(f"{path}: is a checkpoint of another run than {path.parents[1] / RECORD} describes "
                       f"({'; '.join(other)}); move away the one that does not belong there")


def open_log(folder: Path, checkpoint: Checkpoint | None) -> tuple[files.GrowingFile, list[str]]:
    """Open metrics.jsonl as it was at the checkpoint. If it is damaged, its epochs come from the checkpoint, and a line
    says so.

    Raises:
        OSError: if it cannot be read or written.
    """
    path = folder / metrics.NAME
    size, digest = checkpoint.metrics if checkpoint else (0, hashlib.sha256().hexdigest())
    content = files.start(path, size) if path.exists() else b""
    if hashlib.sha256(content).hexdigest() == digest and len(content) == size:
        return files.GrowingFile(path, keep=size), []
    assert checkpoint is not None
    notice = (f"{path}: is {'damaged' if path.exists() else 'missing'}; its epochs are rewritten from the checkpoint, "
              "its steps are lost")
    files.put_aside(path)
    lines = b"".join(map(metrics.epoch_line, checkpoint.snapshot.position.epochs))
    files.write(path, lines)
    return files.GrowingFile(path, keep=len(lines)), [notice]


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], key: str) -> str:
    """Return `torch 2.14 then, 2.15 now`."""
    if not isinstance(before.get(key), dict) or not isinstance(now.get(key), dict):
        return f"{before.get(key)} then, {now.get(key)} now"
    old, new = before[key], now[key]
    return "; ".join(f"{name} {old.get(name)} then, {new.get(name)} now" for name in {**old, **new}
                     if old.get(name) != new.get(name))
