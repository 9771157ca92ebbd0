"""The file that remains of a run: conditions, plan, and every raw sample. `schema.json` says what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alexnet_mf import files, schemas
from alexnet_mf.errors import BenchError

FORMAT = 1
MOST_BYTES = files.MOST_JSON
"""Ample: a record has some hundred kilobytes."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a record."""
    return schemas.read("alexnet_mf.bench")


def load(path: Path) -> dict[str, Any]:
    """A record from a file.

    Raises:
        BenchError: where it cannot be read, is no record, has another format, or is damaged; names file and place.
    """
    try:
        record = files.parse_json(files.read(path, MOST_BYTES))
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BenchError(f"{path}: not a record of `bench --json` (no JSON)") from error
    if not isinstance(record, dict) or not {"format", "results", "workers"} <= record.keys():
        raise BenchError(f"{path}: not a record of `bench --json`")
    if record["format"] != FORMAT:
        raise BenchError(f"{path}: its format is {record['format']!r}, and this program reads {FORMAT}; "
                         f"read it with the alexnet_mf that wrote it, or measure again")
    wrong = problem(record)
    if wrong:
        raise BenchError(f"{path}: damaged: {wrong}")
    workers = {worker["id"] for worker in record["workers"]}
    for i, result in enumerate(record["results"]):
        if result["worker"] not in workers:
            raise BenchError(f"{path}: damaged: results[{i}].worker: there is no worker {result['worker']}")
    for worker in record["workers"]:
        if worker["spec_sha256"] not in record["networks"]:
            raise BenchError(f"{path}: damaged: no network has the digest of worker {worker['id']}")
    return record


def problem(record: Any) -> str | None:
    """What most of all is wrong with a record, in a phrase; None where the schema allows it."""
    return schemas.problem(record, schema())
