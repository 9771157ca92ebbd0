"""The record of a sweep: conditions, plan, and every training with its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from alexnet_mf import spec
from alexnet_mf.data import DataSource
from alexnet_mf.errors import AlexnetMfError, SweepError
from alexnet_mf.instruments import records
from alexnet_mf.instruments.machine import WholeConditions
from alexnet_mf.instruments.records import AtLeastOne, Count, Part
from alexnet_mf.sweep.plan import Plan, Training
from alexnet_mf.training.record import how_to_resume, is_run
from alexnet_mf.training.run import TrainedRun

NAME = "sweep.json"
"""Name of the record in the sweep's folder."""
FORMAT: Literal[4] = 4
Failure = Literal["does not fit", "diverged", "ended"]
PASSING: tuple[Failure, ...] = ("ended", "does not fit")
"""Failures that may not recur: a process that was killed, and memory that other programs used."""
Share = Annotated[float, Meta(ge=0, le=1)]


class Data(Part):
    """The dataset."""

    source: DataSource
    """The source as a resumed sweep opens it again."""
    origin: str
    sha256: str


class Epoch(Part):
    """Means over an epoch of training, and the evaluation after it: on the test images, or on those held out."""

    epoch: AtLeastOne
    loss: float
    train_accuracy: Share
    test_loss: float
    test_accuracy: Share


class Result(Part):
    """The figures of a finished training."""

    versions: dict[str, str]
    settings: dict[str, Any]
    device: str
    precision: str
    epochs: Annotated[list[Epoch], Meta(min_length=1)]
    images_timed: Count
    seconds: Annotated[float, Meta(ge=0, description="of the training loop: input included, device synchronized, "
                                                     "evaluation and the first step left out")]
    images_per_second: float | None
    peak_memory_bytes: Annotated[int, Meta(ge=0, description="of the process that finished the run, data and framework "
                                                             "included; null if unknown")] | None
    peak_device_memory_bytes: Annotated[int, Meta(ge=0, description="of a GPU, as its framework counts")] | None

    @staticmethod
    def of(run: TrainedRun, peaks: Mapping[str, int | None]) -> Result:
        """Return the result of a finished run.

        Args:
            peaks: the two memory peaks, or {} if they are unknown.

        Raises:
            ValueError: if the run's record has no closing numbers.
        """
        values = records.plain(run.session) | records.plain(getattr(run.record, "closing", None) or {}) | {
            "epochs": [asdict(epoch) for epoch in run.epochs], **peaks}
        return records.parse({name: values.get(name) for name in Result.__struct_fields__}, Result)


class Entry(Part):
    """A training that has ended: finished, if there is a result, or failed."""

    training: Training
    run: Annotated[str, Meta(description="name of its run folder; a training that failed at once leaves none")]
    session: Annotated[int, Meta(ge=0, description="which of the sessions")]
    whole_seconds: Annotated[float, Meta(ge=0, description="of the process, start and evaluation included; null if "
                                                           "the run was resumed or was finished before")] | None
    result: Result | None = None
    keeps_weights: Annotated[bool, Meta(description="false if the sweep removed the weights of the run")] = True
    failed: Failure | None = None
    reason: str = ""

    @property
    def accuracy(self) -> float:
        """Return the last accuracy of a finished training: on the test images, or on those held out."""
        assert self.result
        return self.result.epochs[-1].test_accuracy


class Record(Part):
    """One sweep."""

    format: Literal[4]
    kind: Literal["sweep"]
    folder: Annotated[str, Meta(description="the run folders are in it")]
    plan: Plan
    data: Data
    sessions: Annotated[list[WholeConditions], Meta(description="one for each start of the program")]
    networks: Annotated[dict[str, dict[str, Any]], Meta(description="each spec that is trained, by its name in the "
                                                                    "plan")]
    trainings: list[Entry]
    complete: bool


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record."""
    return records.json_schema(Record)


def load(path: Path) -> Record:
    """Read a record from a file, or from a sweep's folder.

    Raises:
        SweepError: if it cannot be read, is not a record, has another format, or is damaged; names file and field, and
            for a sweep's own record the remedy.
    """
    if is_run(path) and not (path / NAME).exists():
        raise SweepError(f"{path}: is a run, not a sweep; resume it with {how_to_resume(path)}")
    path = path / NAME if path.is_dir() else path
    remedy = f"; remove it and repeat the first command with `out={str(path.parent)!r}`" if path.name == NAME else ""
    record = records.load(path, Record, "sweep", FORMAT, SweepError, lambda value: value.get("kind") == "sweep", remedy)

    def damaged(reason: str) -> SweepError:
        return SweepError(f"{path}: damaged: {reason}{remedy}")

    plan = record.plan
    try:
        for fields in record.networks.values():
            spec.from_dict(fields)
    except AlexnetMfError as error:
        raise damaged(f"networks: {error}") from error
    for number, entry in enumerate(record.trainings):
        epochs = plan.choosing_epochs or plan.epochs if entry.training.held_out else plan.epochs
        if (entry.result is None) is (entry.failed is None):
            raise damaged(f"trainings[{number}]: needs either result or failed")
        if entry.training.epochs != epochs or (entry.result and len(entry.result.epochs) != epochs):
            raise damaged(f"trainings[{number}] does not have the {epochs} epochs of the plan")
    missing = [net for net in plan.nets if net not in record.networks]
    if missing:
        raise damaged(f"it lacks the network {missing[0]}")
    return record


def forget_failures(record: Record) -> None:
    """Remove failed trainings that may succeed another time, so that they are retried.

    A learning rate that failed stays if another was chosen without it: the final trainings remain comparable.
    """
    settled = {entry.training.setup for entry in record.trainings
               if not entry.training.held_out and entry.failed not in PASSING}
    kept = [entry for entry in record.trainings if entry.failed not in PASSING
            or (entry.training.held_out and entry.training.setup in settled)]
    if len(kept) < len(record.trainings):
        record.trainings, record.complete = kept, False
