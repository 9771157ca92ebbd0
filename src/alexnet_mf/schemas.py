"""JSON from outside, held against a JSON Schema of the package's own."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

LONGEST = 80
"""Of what is told of a value that does not belong."""


@functools.cache
def read(package: str, part: str | None = None) -> dict[str, Any]:
    """The schema.json of a package, or one of its `$defs`."""
    text = resources.files(package).joinpath("schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded if part is None else {"$ref": f"#/$defs/{part}", "$defs": loaded["$defs"]}


def problem(value: Any, schema: dict[str, Any]) -> str | None:
    """What most of all is wrong with a value, in a phrase; None where the schema allows it."""
    import jsonschema  # takes a while, and only who reads such a file needs it

    error = jsonschema.exceptions.best_match(_validator()(schema).iter_errors(value))
    if error is None:
        return None
    said = error.message if len(error.message) <= LONGEST else f"{error.message[:LONGEST]}..."
    return f"{error.json_path.removeprefix('$').removeprefix('.') or 'the whole'}: {said}"


@functools.cache
def _validator() -> Any:
    """JSON Schema's, but that 1.0 is no integer: Python tells them apart."""
    import jsonschema

    base = jsonschema.Draft202012Validator
    strict = base.TYPE_CHECKER.redefine("integer", lambda checker, value: isinstance(value, int)
                                        and not isinstance(value, bool))
    return jsonschema.validators.extend(base, type_checker=strict)
