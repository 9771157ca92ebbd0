"""Record files: typed JSON. The type validates what is read, and yields the JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from alexnet_mf import files
from alexnet_mf.errors import AlexnetMfError

Count = Annotated[int, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
"""Seconds, bytes, FLOP, images."""
Whole = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A count. JSON readers in other languages may round larger integers."""
Number = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
"""Any number that can be drawn."""
MOST_LETTERS = 80
"""Longest quotation in an error message, in characters."""

T = TypeVar("T")


class Part(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of records and their parts."""


def load(path: Path, of: type[T], verb: str, version: int, error: type[AlexnetMfError],
         is_record: Callable[[dict[str, Any]], bool], remedy: str = "") -> T:
    """Read a record from a file.

    Args:
        of: type of the record.
        verb: verb that writes such records, for messages.
        version: the format that this program reads.
        error: error to raise.
        is_record: returns True if a JSON object is such a record, damaged or not.
        remedy: end of the message on a damaged file, such as "; repeat the command".

    Raises:
        AlexnetMfError: of the type `error`, if the file cannot be read, is not such a record, has another format, or is
            damaged; names the file and the field.
    """
    try:
        value = files.parse_json(files.read(path, files.MOST_JSON))
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror})") from fault
    except ValueError as fault:
        raise error(f"{path}: not a record of {verb} (not JSON: {cut(str(fault))}){remedy}") from fault
    if not isinstance(value, dict) or not is_record(value):
        raise error(f"{path}: not a record of {verb}{remedy}")
    if value.get("format") != version:
        raise error(f"{path}: its format is {cut(repr(value.get('format')))}, this version reads {version}; read it "
                    f"with the alexnet_mf that wrote it, or run {verb} again")
    try:
        return parse(value, of)
    except ValueError as fault:
        raise error(f"{path}: damaged: {fault}{remedy}") from fault


def parse(value: Any, of: type[T]) -> T:
    """Return the record that a JSON value describes.

    Raises:
        ValueError: if the value does not fit the type, or lacks a field; names the field.
    """
    try:
        record = msgspec.convert(value, of)
    except (msgspec.ValidationError, AlexnetMfError, OverflowError) as fault:
        what, _, place = str(fault).partition(" - at `$")
        raise ValueError(f"{place.strip('.`') or 'the record'}: {cut(what)}") from fault
    missing = _missing(value, plain(record))
    if missing:
        raise ValueError(f"{missing.strip('.')}: missing")
    return record


def _missing(value: Any, whole: Any, place: str = "") -> str | None:
    """Return the place of the first field that `value` lacks and the defaults supplied."""
    if isinstance(whole, dict):
        for name, item in whole.items():
            if name not in value:
                return f"{place}.{name}"
            if missing := _missing(value[name], item, f"{place}.{name}"):
                return missing
    elif isinstance(whole, list):
        for number, item in enumerate(whole):
            if missing := _missing(value[number], item, f"{place}[{number}]"):
                return missing
    return None


def plain(record: Any) -> Any:
    """Return the record as JSON values: dicts, lists, numbers and strings."""
    return json.loads(json.dumps(msgspec.to_builtins(record)))  # lists for tuples


def to_json(record: Any) -> bytes:
    """Return the content of a record file."""
    return (json.dumps(plain(record), indent=2) + "\n").encode()


def json_schema(*of: type) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record that has one of these types."""
    schemas, parts = msgspec.json.schema_components(of, ref_template="#/$defs/{name}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": list(schemas), "$defs": parts}


def cut(text: str) -> str:
    """Return the beginning of a text that may be long."""
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."
