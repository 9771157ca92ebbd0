"""What a run that goes on takes from its checkpoint, and what it says of what it cannot take."""

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
from alexnet_mf.training.folder import RECORD
from alexnet_mf.training.loop import Snapshot

DECIDES = ("versions", "settings", "device", "precision", "without", "also")
"""What of a session the bits of a backend's numbers may depend on."""
IS = ("spec_sha256", "seed", "data_sha256")
"""What of a run no session changes: a checkpoint with another value is another run's."""


def carried(found: Checkpoint, now: Mapping[str, Any]) -> tuple[Snapshot, list[str]]:
    """What a session can take of a checkpoint, and lines that say what differs, and what is lost.

    Args:
        now: the session, as `job.describe_session` gives it.
    """
    before, snapshot = found.session, found.snapshot
    if before["backend"] == now["backend"]:
        return snapshot, [f"{what} differ from the checkpoint's ({_difference(before, now, what)}): the numbers may "
                          "differ from those of an uninterrupted run" for what in DECIDES
                          if before.get(what) != now.get(what)]
    lost = [f"the dropout masks are {now['backend']}'s own"]
    if snapshot.state.velocity:
        lost.insert(0, f"the momentum starts from zero (in {before['backend']} it is {snapshot.state.rule})")
    if any(value.dtype != np.float32 for value in snapshot.state.parameters.values()):
        lost.append("the weights are rounded to float32")
    weights = {name: value.astype(np.float32) for name, value in snapshot.state.parameters.items()}
    return Snapshot(snapshot.position, TrainerState(weights, {}, snapshot.state.rule)), [
        f"begun in {before['backend']}, going on in {now['backend']}: weights, position and order of the images are "
        f"carried over; not carried: {'; '.join(lost)}"]


def check_belongs(found: Checkpoint, path: Path, record: Mapping[str, Any]) -> None:
    """Make sure that a checkpoint is one of the run that run.json tells of.

    Args:
        path: where it was found.
        record: what run.json says.

    Raises:
        RunError: where it is another run's; names both, and what differs.
    """
    other = [f"{what} is {found.run[what]} in the one, {record[what]} in the other" for what in IS
             if found.run[what] != record[what]]
    if other:
        raise RunError(f"{path}: is a checkpoint of another run than {path.parents[1] / RECORD} tells of "
                       f"({'; '.join(other)}); move away the one that does not belong there")


def open_log(folder: Path, found: Checkpoint | None) -> tuple[files.GrowingFile, list[str]]:
    """metrics.jsonl as it was at the checkpoint; where that is lost, its epochs, from the checkpoint, and a line of it.

    Raises:
        OSError: where it cannot be read or written.
    """
    path = folder / metrics.NAME
    size, digest = found.metrics if found else (0, hashlib.sha256().hexdigest())
    there = files.start(path, size) if path.exists() else b""
    if hashlib.sha256(there).hexdigest() == digest and len(there) == size:
        return files.GrowingFile(path, keep=size), []
    assert found is not None
    notice = (f"{path}: is {'damaged' if path.exists() else 'missing'}; its epochs are written anew from the "
              "checkpoint, its steps are lost")
    files.put_aside(path)
    lines = b"".join(map(metrics.epoch_line, found.snapshot.position.epochs))
    files.write(path, lines)
    return files.GrowingFile(path, keep=len(lines)), [notice]


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], what: str) -> str:
    """`torch 2.14 then, 2.15 now`."""
    if not isinstance(before.get(what), dict) or not isinstance(now.get(what), dict):
        return f"{before.get(what)} then, {now.get(what)} now"
    old, new = before[what], now[what]
    return "; ".join(f"{key} {old.get(key)} then, {new.get(key)} now" for key in {**old, **new}
                     if old.get(key) != new.get(key))
