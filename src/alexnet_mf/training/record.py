"""run.json: what a run is, and its state, guarded by a checksum."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from alexnet_mf import files
from alexnet_mf.errors import RunError
from alexnet_mf.instruments import records
from alexnet_mf.training import metrics
from alexnet_mf.training.lock import is_in_use
from alexnet_mf.training.loop import Result

RECORD, CHECKPOINTS = "run.json", "checkpoint"
FORMAT = 1
MOST_BYTES = 4_000_000
NOT_THE_RUN = ("format", "state", "reason", "closing", "resumed", "sha256")
"""Keys that describe the run's state, not what it is."""


Whole = Annotated[int, Meta(ge=0, le=2**53)]
"""A count. JSON's readers in other languages know no larger whole numbers."""
Number = Annotated[float, Meta(ge=-1e300, le=1e300)]


class Session(Struct, kw_only=True):
    """What computes a run, from some step on."""

    backend: str
    versions: dict[str, str]
    settings: dict[str, Any]
    device: str
    precision: str
    speed: dict[str, bool]
    """Speed settings that were switched on or off; the backend's table decided the others."""


class NamedNetwork(Struct):
    """The part of a network that is read before `spec.from_dict` checks the rest."""

    name: str


class RecipeFields(Struct):
    """The part of a recipe that is read before `Recipe.from_dict` checks the rest."""

    epochs: Whole
    sgd: dict[str, Any]


class StartingWeights(Struct):
    """The file that a run began with."""

    file: str
    sha256: str


class Run(Session, kw_only=True):
    """What a run is, and the session that began it."""

    network: NamedNetwork
    spec_sha256: str
    seed: Annotated[int, Meta(ge=0)]
    recipe: RecipeFields
    data: str
    """Where the images came from, in words."""
    data_name: Literal["fashion-mnist", "synthetic"]
    data_sha256: str
    weights: StartingWeights | None
    """None if the weights were drawn from the seed."""


class Closing(Struct, kw_only=True):
    """The last numbers of a run."""

    images_per_second: Number | None
    epochs: Whole | UnsetType = UNSET


class RunRecord(Run, kw_only=True):
    """run.json. A record may hold more than these fields."""

    format: Literal[1]
    state: Literal["running", "finished", "stopped", "failed"]
    reason: str | None
    closing: Closing | None
    resumed: list[Session]
    sha256: str
    """The digest of all other fields."""


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of run.json."""
    return records.json_schema(RunRecord)


def is_run(folder: Path) -> bool:
    """Return True if there is a run here, in whatever state."""
    return any((folder / name).exists() for name in (RECORD, CHECKPOINTS))


def read(folder: Path) -> dict[str, Any]:
    """Return the content of run.json.

    Raises:
        RunError: if it is missing or damaged.
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
    try:
        records.parse(record, RunRecord)
    except ValueError as error:
        raise RunError(f"{path}: is damaged: {error}") from error
    return dict(record)


def is_good(folder: Path) -> bool:
    """Return True if `read` can read it."""
    try:
        read(folder)
    except RunError:
        return False
    return True


def write(folder: Path, record: dict[str, Any]) -> None:
    """Add format and checksum to a record, and write it.

    Raises:
        OSError: if it cannot be written.
    """
    record["format"] = FORMAT
    record["sha256"] = checksum(record)
    files.write(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def closing(result: Result) -> dict[str, Any]:
    """Return the closing numbers, as JSON values."""
    rate = result.images_per_second
    numbers = {"steps": len(result.losses), "epochs": len(result.epochs), "images_timed": result.images,
               "seconds": result.seconds, "images_per_second": rate if math.isfinite(rate) else None}
    return numbers | (dataclasses.asdict(result.epochs[-1]) if result.epochs else {})


def identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the run is, and how it began."""
    return {key: value for key, value in record.items() if key not in NOT_THE_RUN}


def checksum(record: Mapping[str, Any]) -> str:
    """Return the digest of all other fields."""
    fields = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def last_session(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what computed the run last: backend, versions, device, precision."""
    sessions: list[Mapping[str, Any]] = [record, *record["resumed"]]
    return sessions[-1]


def summary(folder: Path) -> dict[str, Any]:
    """Return the state and the closing numbers of a run, as JSON values; None for what is unknown.

    The state is running, finished, stopped (by Ctrl-C or SIGTERM), failed (by an error), interrupted (the process
    ended without writing its state) or damaged.
    """
    result: dict[str, Any] = dict.fromkeys(("backend", "network", "state", "epoch", "epochs", "loss", "train_accuracy",
                                            "test_accuracy", "images_per_second"))
    result = {"run": str(folder), **result}
    try:
        record = read(folder)
    except RunError:
        return result | {"state": "damaged"}
    state = record["state"]
    if is_in_use(folder):
        state = "running"
    elif state == "running":
        state = "interrupted"
    names = dict.fromkeys(session["backend"] for session in [record, *record["resumed"]])
    result |= {"backend": " + ".join(names), "network": record["network"]["name"], "state": state, "epoch": 0,
               "epochs": record["recipe"]["epochs"]}
    try:
        epochs = metrics.epochs(metrics.read(folder))
    except RunError:
        epochs = []
    if epochs:
        result |= {key: value for key, value in dataclasses.asdict(epochs[-1]).items() if key in result}
    if record["closing"]:
        result["images_per_second"] = record["closing"]["images_per_second"]
    return result
