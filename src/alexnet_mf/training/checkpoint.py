"""Checkpoints: one safetensors file each, complete or absent, with its checksum at the end of the name.

A checkpoint holds the weights under their canonical names, the momentum as `velocity.NAME`, both in canonical layout
and in the dtype of the computation. Its header holds, as JSON, the position, the run, and the session that wrote it.
Seed and position determine the order of the images and the dropout masks. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as parse

from alexnet_mf import files
from alexnet_mf.backends.contract import TrainerState, UpdateRule
from alexnet_mf.errors import RunError
from alexnet_mf.instruments import records
from alexnet_mf.instruments.records import Whole
from alexnet_mf.training.loop import Position, Snapshot
from alexnet_mf.training.record import RECORD, Run, Session
from alexnet_mf.weights import tensor_file
from alexnet_mf.weights.parameters import is_trained

FORMAT: Literal[1] = 1
NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{16})\.safetensors")
ASIDE = re.compile(NAME.pattern + r"\.damaged(-\d+)?")
"""Name of a damaged checkpoint after renaming."""
MOST_HEADER_BYTES = 100_000_000
"""Limit of safetensors: the header holds the losses of all steps."""
MOST_BYTES = 2**36
"""More than the largest network needs."""
KEPT = 2
"""Number of checkpoints to keep: a run can resume from the earlier one if the last is damaged."""
VELOCITY = "velocity."

SESSION_FIELDS = ("versions", "settings", "device", "precision", "speed")
"""Fields of a session that may change the bits of a backend's numbers."""
SPEED_ALONE = ("spins",)
"""Settings that change no bit."""
RUN_FIELDS = ("spec_sha256", "seed", "data_sha256")
"""Fields of a run that no session changes: a checkpoint with another value belongs to another run."""


class Header(Struct):
    """JSON in a checkpoint's header."""

    format: Literal[1]
    position: Position
    run: Run
    session: Session
    velocity: UpdateRule
    """The update rule that the momentum belongs to."""
    metrics: tuple[Whole, str]


class OtherVersion(RunError):
    """An intact checkpoint in a format that this version does not read."""


@dataclass(frozen=True)
class Checkpoint:
    """A snapshot, and the run and session that it belongs to."""

    snapshot: Snapshot
    run: Run
    session: Session
    """The session that computed it."""
    metrics: tuple[int, str]
    """Size of metrics.jsonl at the checkpoint, in bytes, and its SHA-256."""

    def resumed_in(self, session: Session) -> tuple[Snapshot, list[str]]:
        """Return the snapshot that a session starts from, and a notice for each difference or loss."""
        before, state = self.session, self.snapshot.state
        if before.backend == session.backend:
            return self.snapshot, [
                f"{field} differ from the checkpoint's ({_difference(before, session, field)}): the numbers may differ "
                "from those of an uninterrupted run" for field in SESSION_FIELDS
                if _value(before, field) != _value(session, field)]
        lost = [f"dropout masks are {session.backend}'s own"]
        if state.velocity:
            lost.insert(0, "momentum starts from zero")
        if any(value.dtype != np.float32 for value in state.parameters.values()):
            lost.append("weights are rounded to float32")
        rounded = TrainerState(self.snapshot.weights(), {}, state.rule)
        return Snapshot(self.snapshot.position, rounded), [
            f"begun in {before.backend}, resumed in {session.backend}: weights, position and order of the images are "
            f"carried over; {', '.join(lost)}"]

    def check_belongs(self, path: Path, run: Run) -> None:
        """Check that the checkpoint belongs to the run that run.json describes.

        Args:
            path: file of the checkpoint.

        Raises:
            RunError: if it belongs to another run; names both files and the differences.
        """
        differences = [f"{field} is {getattr(self.run, field)}, not {getattr(run, field)}"
                       for field in RUN_FIELDS if getattr(self.run, field) != getattr(run, field)]
        if differences:
            raise RunError(f"{path}: belongs to another run than {path.parents[1] / RECORD} "
                           f"({'; '.join(differences)}); move the wrong file to another folder")


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and return its path. Earlier checkpoints stay.

    Raises:
        OSError: if it cannot be written.
    """
    state, position = checkpoint.snapshot.state, checkpoint.snapshot.position
    tensors = dict(state.parameters) | {f"{VELOCITY}{name}": value for name, value in state.velocity.items()}
    header = Header(FORMAT, position, checkpoint.run, checkpoint.session, state.rule, checkpoint.metrics)
    content = tensor_file.buffers(tensors, {"alexnet_mf": json.dumps(records.plain(header))})
    path = folder / f"step-{position.number:08}-{_checksum(*content)}.safetensors"
    files.write(path, *content)
    return path


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        RunError: if it cannot be read, or is damaged; names the file.
        OtherVersion: if it is intact, but in another version's format.
    """
    try:
        content = files.read(path, MOST_BYTES)
    except OSError as error:
        raise RunError(f"{path.name} cannot be read ({error.strerror})") from error
    name = NAME.fullmatch(path.name)
    if name is None or _checksum(content) != name[2]:
        raise RunError(f"{path.name} is damaged: its checksum does not match")
    try:
        with safe_open(path, framework="numpy") as file:
            fields = files.parse_json(file.metadata()["alexnet_mf"], MOST_HEADER_BYTES)
        tensors = parse(content)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path.name} is not a checkpoint of this program ({error})") from error
    if isinstance(fields, dict) and fields.get("format") != FORMAT:
        raise OtherVersion(f"{path.name} is in format {fields.get('format')}, and this version reads {FORMAT}")
    velocity = {name.removeprefix(VELOCITY): tensors.pop(name) for name in list(tensors) if name.startswith(VELOCITY)}
    _check_tensors(path, tensors, velocity)
    try:
        header = records.parse(fields, Header)
    except ValueError as error:
        raise RunError(f"{path.name} is damaged: {error}") from error
    return Checkpoint(Snapshot(header.position, TrainerState(tensors, velocity, header.velocity)), header.run,
                      header.session, header.metrics)


def _check_tensors(path: Path, weights: dict[str, Any], velocity: dict[str, Any]) -> None:
    """Check the dtypes, and that the momentum, if any, has the trained weights' shapes. The network's builder does the
    rest."""
    for name, value in [*weights.items(), *velocity.items()]:
        if value.dtype not in (np.float32, np.float64):
            raise RunError(f"{path.name} is damaged: {name} is {value.dtype}, not float32 or float64")
    if velocity and {name: value.shape for name, value in velocity.items()} != {
            name: value.shape for name, value in weights.items() if is_trained(name)}:
        raise RunError(f"{path.name} is damaged: momentum and weights differ in shape")


def paths(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the latest first."""
    checkpoints = [path for path in folder.glob("step-*.safetensors") if NAME.fullmatch(path.name)]
    return sorted(checkpoints, key=lambda path: (step_of(path), path.stat().st_mtime_ns), reverse=True)


def step_of(path: Path) -> int:
    """Return the number of steps taken before a checkpoint."""
    name = NAME.fullmatch(path.name)
    assert name is not None
    return int(name[1])


def latest(folder: Path) -> tuple[Path, Checkpoint, dict[Path, str]] | None:
    """Return the latest good checkpoint with its path, and the faults of later ones; None if there is no checkpoint.

    Raises:
        RunError: if all are damaged (names each), or a later one has another version's format.
    """
    faults: dict[Path, str] = {}
    for path in paths(folder):
        try:
            return path, load(path), faults
        except OtherVersion as fault:
            raise RunError(f"{folder}: {fault}: resume with the version that wrote it") from fault
        except RunError as fault:
            faults[path] = str(fault)
    if faults:
        raise RunError(f"{folder}: all checkpoints are damaged: {'; '.join(faults.values())}")
    return None


def superseded(folder: Path, step: int) -> list[Path]:
    """Return the renamed damaged checkpoints of this step or an earlier one."""
    return [path for path in folder.glob("step-*") if (name := ASIDE.fullmatch(path.name)) and int(name[1]) <= step]


def _checksum(*parts: bytes | memoryview) -> str:
    """Return 64 bits of the SHA-256, enough to detect accidental damage."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:16]


def _value(session: Session, field: str) -> Any:
    value = getattr(session, field)
    return {name: entry for name, entry in value.items() if name not in SPEED_ALONE} if field == "settings" else value


def _difference(before: Session, now: Session, field: str) -> str:
    """Return `torch 2.14 then, 2.15 now`."""
    old, new = _value(before, field), _value(now, field)
    if not isinstance(old, dict):
        return f"{old} then, {new} now"
    return "; ".join(f"{name} {old.get(name)} then, {new.get(name)} now" for name in {**old, **new}
                     if old.get(name) != new.get(name))
