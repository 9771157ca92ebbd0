"""run.json: the description and the state of a run, with a checksum."""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from alexnet_mf import files, spec
from alexnet_mf.data import DataSource
from alexnet_mf.errors import RunError
from alexnet_mf.instruments import records
from alexnet_mf.instruments.machine import Conditions
from alexnet_mf.instruments.records import Number, Whole
from alexnet_mf.training import metrics
from alexnet_mf.training.lock import is_in_use
from alexnet_mf.training.loop import Epoch, Result
from alexnet_mf.training.recipe import Recipe

RECORD, CHECKPOINTS = "run.json", "checkpoint"
FORMAT: Literal[2] = 2
MOST_BYTES = 4_000_000

State = Literal["running", "finished", "stopped", "failed"]


class Session(Conditions, kw_only=True):
    """Backend and machine that compute a run, from some step on."""

    backend: str
    versions: dict[str, str]
    settings: dict[str, Any]
    device: str
    precision: str
    speed: dict[str, bool]
    """Speed settings that were switched on or off; the backend's table decided the others."""


class ResumedSession(Session, kw_only=True):
    """A session that resumed a run."""

    step: Whole
    """Steps taken before this session."""


class StartingWeights(Struct):
    """The file that a run began with."""

    file: str
    sha256: str


class Run(Session, kw_only=True):
    """A run and the session that began it, as checkpoints hold them too."""

    network: dict[str, Any]
    """The value of `spec.as_dict`."""
    spec_sha256: str
    seed: Annotated[int, Meta(ge=0)]
    recipe: Recipe
    data: str
    """Source of the images, in words."""
    source: DataSource
    """The source as a resumed run opens it again."""
    classes: list[str]
    preprocessing: dict[str, Any]
    """The value of `Preprocessing.as_dict`: from a picture to the network's input."""
    data_sha256: str
    """Digest of the images."""
    test_sha256: str
    """Digest of the test images alone."""
    stores: dict[str, str] = field(default_factory=dict)
    """Folder of each part's prepared pictures, which can name the pictures that have changed."""
    weights: StartingWeights | None
    """None if the weights were drawn from the seed."""

    def __post_init__(self) -> None:
        spec.from_dict(self.network)
        spec.Preprocessing.from_dict(self.preprocessing)

    @property
    def net(self) -> spec.Network:
        """Return the network."""
        return spec.from_dict(self.network)

    @property
    def prepared(self) -> spec.Preprocessing:
        """Return the preprocessing of the pictures."""
        return spec.Preprocessing.from_dict(self.preprocessing)


class Closing(Struct, kw_only=True):
    """The last numbers of a run."""

    steps: Whole
    epochs: Whole
    images_timed: Whole
    seconds: Number
    images_per_second: Number | None
    last_epoch: Epoch | None


class RunRecord(Run, kw_only=True):
    """Content of run.json."""

    format: Literal[2] = FORMAT
    state: State = "running"
    reason: str | None = None
    """The error that ended the run."""
    closing: Closing | None = None
    resumed: list[ResumedSession] = field(default_factory=list)
    sha256: str = ""
    """Digest of all other fields."""

    @property
    def sessions(self) -> list[Session]:
        """Return all sessions, the last at the end."""
        return [self, *self.resumed]


def fields(record: Struct, of: type[Struct]) -> dict[str, Any]:
    """Return the fields of a record that belong to one of its base types."""
    return {name: getattr(record, name) for name in of.__struct_fields__}


def is_run(folder: Path) -> bool:
    """Return True if there is a run here, in whatever state."""
    return any((folder / name).exists() for name in (RECORD, CHECKPOINTS))


def no_run(folder: Path) -> RunError:
    """Return the error for a folder that is not a run. If it contains runs, as a sweep does, name the first."""
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if is_run(path):
                return RunError(f"{folder}: is not a run, but holds runs; name one of them, such as {path}")
    return RunError(f"{folder}: there is no run here; `alexnet_mf.list_runs()` lists the runs")


def how_to_resume(folder: Path) -> str:
    """Return the call that resumes a run."""
    return f"`alexnet_mf.resume({str(folder)!r})`"


def read(folder: Path) -> RunRecord:
    """Return the content of run.json.

    Raises:
        RunError: if it is missing or damaged.
    """
    path = folder / RECORD
    try:
        values = files.parse_json(files.read(path, MOST_BYTES))
        is_whole = values["format"] == FORMAT and values["sha256"] == checksum(values)
    except FileNotFoundError as error:
        raise RunError(f"{path}: is missing") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunError(f"{path}: is damaged") from error
    if not is_whole:
        raise RunError(f"{path}: is damaged or from another version: its checksum does not match")
    try:
        return records.parse(values, RunRecord)
    except ValueError as error:
        raise RunError(f"{path}: is damaged: {error}") from error


def write(folder: Path, record: RunRecord) -> None:
    """Write run.json, with its checksum.

    Raises:
        OSError: if it cannot be written.
    """
    record.sha256 = checksum(records.plain(record))
    files.write(folder / RECORD, records.to_json(record))


def checksum(values: dict[str, Any]) -> str:
    """Return the digest of all values but the digest itself."""
    others = {name: value for name, value in values.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def closing(result: Result) -> Closing:
    """Return the closing numbers of a training."""
    rate = result.images_per_second
    return Closing(steps=len(result.losses), epochs=len(result.epochs), images_timed=result.images,
                   seconds=result.seconds, images_per_second=rate if math.isfinite(rate) else None,
                   last_epoch=result.epochs[-1] if result.epochs else None)


def state_of(folder: Path, record: RunRecord) -> str:
    """Return the state of a run: `running`, `finished`, `stopped` (by a signal), `failed` (by an error), or
    `interrupted` (the process ended without writing its state)."""
    if is_in_use(folder):
        return "running"
    return "interrupted" if record.state == "running" else record.state


def summary(folder: Path) -> dict[str, Any]:
    """Return the state and the closing numbers of a run, as JSON values; None if unknown.

    The state is as for `state_of`, or `damaged`.
    """
    entry: dict[str, Any] = {"run": str(folder), "backend": None, "network": None, "state": "damaged", "epoch": None,
                             "epochs": None, "loss": None, "train_accuracy": None, "test_accuracy": None,
                             "images_per_second": None}
    try:
        record = read(folder)
    except RunError:
        return entry
    entry |= {"backend": " + ".join(dict.fromkeys(session.backend for session in record.sessions)),
              "network": record.net.name, "state": state_of(folder, record), "epoch": 0,
              "epochs": record.recipe.epochs}
    try:
        epochs = metrics.epochs(metrics.read(folder))
    except RunError:
        epochs = []
    last = epochs[-1] if epochs else None
    if record.closing:
        entry["images_per_second"] = record.closing.images_per_second
        if len(epochs) < record.closing.epochs:  # metrics.jsonl has lost lines
            last = record.closing.last_epoch
    if last:
        entry |= {name: value for name, value in vars(last).items() if name in entry}
    return entry
