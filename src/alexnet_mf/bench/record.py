"""The file that remains of a run: conditions, plan, and every raw sample. `schema.json` says what is in it."""

from __future__ import annotations

import functools
import json
from importlib import resources
from pathlib import Path
from typing import Any

from alexnet_mf.errors import BenchError

FORMAT = 1
LONGEST = 80
"""Of what is told of a value that does not belong."""


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON Schema of a record."""
    text = resources.files("alexnet_mf.bench").joinpath("schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def load(path: Path) -> dict[str, Any]:
    """A record from a file.

    Raises:
        BenchError: where it cannot be read, is no record, has another format, or is damaged; names file and place.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
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


def problem(record: Any, expected: dict[str, Any] | None = None) -> str | None:
    """What most of all is wrong with a record, in a phrase; None where the schema allows it.

    Args:
        expected: the schema, where the record is not one of the benchmark.
    """
    import jsonschema  # takes a while, and only who reads a record needs it

    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(expected or schema()).iter_errors(record))
    if error is None:
        return None
    said = error.message if len(error.message) <= LONGEST else f"{error.message[:LONGEST]}..."
    return f"{error.json_path.removeprefix('$').removeprefix('.') or 'the whole'}: {said}"


def _no_number(text: str) -> Any:
    """NaN and infinities, which Python's reader takes and JSON does not have."""
    raise ValueError(f"{text} is no number in JSON")
