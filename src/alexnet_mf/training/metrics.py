"""metrics.jsonl: a line of JSON for each reading of the training metrics, and one for each epoch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from alexnet_mf import files
from alexnet_mf.errors import RunError
from alexnet_mf.training.loop import Epoch, Progress

NAME = "metrics.jsonl"
MOST_BYTES = 256_000_000
"""Largest size of the file: twenty days with a line per second."""
MOST_IN_A_LINE = 10_000

LARGEST = 1e300
"""Largest number that can be drawn."""


def step_line(now: Progress) -> bytes:
    """Return the line of a reading: loss and accuracy are means over the epoch so far."""
    rate = now.images_per_second if math.isfinite(now.images_per_second) else None
    return _line({"kind": "step", "step": (now.epoch - 1) * now.steps + now.step, "epoch": now.epoch,
                  "epochs": now.epoch - 1 + now.step / now.steps, "loss": now.loss,
                  "train_accuracy": now.train_accuracy, "images_per_second": rate})


def epoch_line(done: Epoch) -> bytes:
    """Return the line of a finished epoch."""
    return _line({"kind": "epoch", **dataclasses.asdict(done)})


def read(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of a run. An unfinished last line is left out.

    Raises:
        RunError: if the file cannot be read or a line is damaged; names the line.
    """
    path = folder / NAME
    try:
        content = files.read(path, MOST_BYTES)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    lines = content.split(b"\n")[:-1]
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = files.parse_json(line, MOST_IN_A_LINE)
            if entry["kind"] == "step":
                _numbers(entry, "step", "epoch", "epochs", "loss", "train_accuracy")
            else:
                Epoch(**{key: value for key, value in entry.items() if key != "kind"})
                _numbers(entry, *(field.name for field in dataclasses.fields(Epoch)))
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{path}: line {number} is damaged") from error
        entries.append(entry)
    return entries


def epochs(entries: list[dict[str, Any]]) -> list[Epoch]:
    """Return the finished epochs."""
    return [Epoch(**{key: value for key, value in entry.items() if key != "kind"}) for entry in entries
            if entry["kind"] == "epoch"]


def reopen(folder: Path, size: int, sha256: str, done: list[Epoch]) -> tuple[files.GrowingFile, list[str]]:
    """Open the file as it was at a checkpoint. If it is damaged, rewrite its epochs from the checkpoint, and return a
    notice.

    Args:
        size, sha256: size and digest of the file at the checkpoint.
        done: the checkpoint's epochs.

    Raises:
        OSError: if it cannot be read or written.
    """
    path = folder / NAME
    content = files.start(path, size) if path.exists() else b""
    if len(content) == size and hashlib.sha256(content).hexdigest() == sha256:
        return files.GrowingFile(path, keep=size), []
    notice = (f"{path}: is {'damaged' if path.exists() else 'missing'}; its epochs are rewritten from the checkpoint, "
              "its steps are lost")
    files.put_aside(path)
    lines = b"".join(map(epoch_line, done))
    files.write(path, lines)
    return files.GrowingFile(path, keep=len(lines)), [notice]


def _numbers(entry: dict[str, Any], *names: str) -> None:
    for name in names:
        value = entry[name]
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < LARGEST:
            raise TypeError(name)


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"
