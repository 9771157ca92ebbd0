"""The file that remains of a run: conditions, plan, and every raw sample. `schema.json` says what is in it."""

from __future__ import annotations

import functools
import json
from importlib import resources
from pathlib import Path
from typing import Any

from alexnet_mf.errors import BenchError

FORMAT = 1
MARK = "alexnet_mf bench"


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
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path}: not a record of `bench --json` (no JSON)") from error
    if not isinstance(record, dict) or not {"format", "results", "workers"} <= record.keys():
        raise BenchError(f"{path}: not a record of `bench --json`")
    if record["format"] != FORMAT:
        raise BenchError(f"{path}: its format is {record['format']!r}, and this program reads {FORMAT}; "
                         f"read it with the alexnet_mf that wrote it, or measure again")
    wrong = problem(record, schema())
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


TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "number": (int, float),
    "integer": int}
KEYWORDS = {"$schema", "$id", "title", "description", "type", "const", "enum", "properties", "required",
            "additionalProperties", "items", "minItems", "minimum", "exclusiveMinimum", "$defs", "$ref"}


def problem(value: Any, rules: dict[str, Any], where: str = "") -> str | None:
    """The first thing about a value that the rules do not allow, in a phrase; None where they allow it.

    This knows the part of JSON Schema that `schema.json` uses, so that reading a record takes no further package.
    """
    unknown = rules.keys() - KEYWORDS
    if unknown:
        raise ValueError(f"the schema uses {', '.join(sorted(unknown))}, which is not known here")
    if "$ref" in rules:
        return problem(value, schema()["$defs"][rules["$ref"].removeprefix("#/$defs/")], where)
    place = where.lstrip(".") or "the whole"
    if "type" in rules:
        allowed = rules["type"] if isinstance(rules["type"], list) else [rules["type"]]
        if not any(_is(value, name) for name in allowed):
            return f"{place}: {_short(value)} is no {' or '.join(allowed)}"
    if "const" in rules and value != rules["const"]:
        return f"{place}: {_short(value)} instead of {rules['const']!r}"
    if "enum" in rules and value not in rules["enum"]:
        return f"{place}: {_short(value)} is none of {', '.join(map(str, rules['enum']))}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value != value or value in (float("inf"), float("-inf")):
            return f"{place}: {value} is no number in JSON"
        if "minimum" in rules and value < rules["minimum"]:
            return f"{place}: {value} is below {rules['minimum']}"
        if "exclusiveMinimum" in rules and value <= rules["exclusiveMinimum"]:
            return f"{place}: {value} is not above {rules['exclusiveMinimum']}"
    if isinstance(value, dict):
        return _object_problem(value, rules, where, place)
    if isinstance(value, list):
        if len(value) < rules.get("minItems", 0):
            return f"{place}: fewer than {rules['minItems']} entries"
        for i, item in enumerate(value):
            found = problem(item, rules.get("items", {}), f"{where}[{i}]")
            if found:
                return found
    return None


def _object_problem(value: dict[str, Any], rules: dict[str, Any], where: str, place: str) -> str | None:
    for name in rules.get("required", []):
        if name not in value:
            return f"{place}: {name} is missing"
    properties, others = rules.get("properties", {}), rules.get("additionalProperties", True)
    for name, item in value.items():
        if name not in properties and others is False:
            return f"{place}: {name} does not belong there"
        found = problem(item, properties.get(name, others if isinstance(others, dict) else {}), f"{where}.{name}")
        if found:
            return found
    return None


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[name])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
