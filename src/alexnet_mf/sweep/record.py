"""The file that remains of a sweep: conditions, plan, and every training. `schema.json` says what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_mf import files, schemas, spec
from alexnet_mf.errors import AlexnetMfError, SweepError
from alexnet_mf.sweep.plan import Plan, Training

FORMAT = 1
PASSING = ("ended", "does not fit")
"""Failures that may not come again: a process that was ended from outside, and memory that others had."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a record."""
    return schemas.read("alexnet_mf.sweep")


def load(path: Path) -> dict[str, Any]:
    """A record from a file.

    Raises:
        SweepError: where it cannot be read, is no record, has another format, or is damaged; names file and place.
    """
    try:
        record = files.parse_json(files.read(path, files.MOST_JSON))
    except OSError as error:
        raise SweepError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise SweepError(f"{path}: not a record of `sweep --json` (no JSON)") from error
    if not isinstance(record, dict) or record.get("kind") != "sweep":
        raise SweepError(f"{path}: not a record of `sweep --json`")
    if record.get("format") != FORMAT:
        raise SweepError(f"{path}: its format is {record.get('format')!r}, and this program reads {FORMAT}; read it "
                         f"with the alexnet_mf that wrote it, or train again")
    wrong = schemas.problem(record, schema())
    if wrong:
        raise SweepError(f"{path}: damaged: {wrong}")
    try:
        plan = Plan.from_json(record["plan"])
        for fields in record["networks"].values():
            spec.from_dict(fields)
        for number, entry in enumerate(record["trainings"], 1):
            training = Training.from_json(entry)
            epochs = plan.choosing_epochs or plan.epochs if training.held_out else plan.epochs
            if training.epochs != epochs or ("failed" not in entry and len(entry["epochs_done"]) != epochs):
                raise ValueError(f"training {number} has not the {epochs} epochs of the plan")
    except (AlexnetMfError, TypeError, ValueError, KeyError) as error:
        raise SweepError(f"{path}: damaged: {error}") from error
    missing = [net for net in record["plan"]["nets"] if net not in record["networks"]]
    if missing:
        raise SweepError(f"{path}: damaged: the network {missing[0]} is not in it")
    return record


def forget_failures(record: dict[str, Any]) -> None:
    """Take out the trainings that may go well another time, to be tried again; but not a learning rate that was to be
    tried, where there are trainings at the one that was taken without it: they would not be comparable any more."""
    settled = {Training.from_json(entry).setup for entry in record["trainings"]
               if not entry["held_out"] and entry.get("failed") not in PASSING}
    kept = [entry for entry in record["trainings"] if entry.get("failed") not in PASSING
            or (entry["held_out"] and Training.from_json(entry).setup in settled)]
    if len(kept) < len(record["trainings"]):
        record |= {"trainings": kept, "complete": False}


def accuracy(entry: Mapping[str, Any]) -> float:
    """Of a training that is over: on the test images, or on those that were held out."""
    value: float = entry["epochs_done"][-1]["test_accuracy"]
    return value
