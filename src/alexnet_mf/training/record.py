"""run.json: what a run is, and how it stands, guarded by a checksum."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_mf import files, schemas
from alexnet_mf.errors import RunError
from alexnet_mf.training.folder import RECORD
from alexnet_mf.training.loop import Result

FORMAT = 1
MOST_BYTES = 4_000_000
NOT_THE_RUN = ("format", "state", "reason", "closing", "resumed", "sha256")
"""Keys that tell how the run stands, not what it is."""


def read(folder: Path) -> dict[str, Any]:
    """What run.json says.

    Raises:
        RunError: where it is missing, or its checksum does not fit.
    """
    path = folder / RECORD
    try:
        record = files.parse_json(files.read(path, MOST_BYTES))
        good = record["format"] == FORMAT and record["sha256"] == checksum(record)
    except FileNotFoundError as error:
        raise RunError(f"{path}: is missing") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunError(f"{path}: is damaged") from error
    if not good:
        raise RunError(f"{path}: is damaged or of another version: its checksum does not fit")
    wrong = schemas.problem(record, schemas.read("alexnet_mf.training", "record"))
    if wrong:
        raise RunError(f"{path}: is damaged: {wrong}")
    return dict(record)


def is_good(folder: Path) -> bool:
    """Whether `read` can read it."""
    try:
        read(folder)
    except RunError:
        return False
    return True


def write(folder: Path, record: dict[str, Any]) -> None:
    """Put format and checksum into it, and write it.

    Raises:
        OSError: where it cannot be written.
    """
    record["format"] = FORMAT
    record["sha256"] = checksum(record)
    files.write(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def closing(result: Result) -> dict[str, Any]:
    """The closing numbers, as JSON values."""
    rate = result.images_per_second
    numbers = {"steps": len(result.losses), "epochs": len(result.epochs), "images_timed": result.images,
               "seconds": result.seconds, "images_per_second": rate if math.isfinite(rate) else None}
    return numbers | (dataclasses.asdict(result.epochs[-1]) if result.epochs else {})


def identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the run is, and how it began."""
    return {key: value for key, value in record.items() if key not in NOT_THE_RUN}


def checksum(record: Mapping[str, Any]) -> str:
    """Of all else that is in it."""
    fields = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
