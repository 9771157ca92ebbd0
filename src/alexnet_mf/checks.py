"""Check the arguments of the API. An error is one line: the argument, the allowed values and the value."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from alexnet_mf.errors import AlexnetMfError

T = TypeVar("T")


def check_integer(argument: str, value: Any, least: int = 1) -> int:
    """Return an integer of at least `least`.

    Raises:
        AlexnetMfError: for any other value.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise AlexnetMfError(f"`{argument}` must be an integer, not {_text(value)}")
    if value < least:
        raise AlexnetMfError(f"`{argument}` must be at least {least}, not {_text(int(value))}")
    return int(value)


def check_number(argument: str, value: Any, low: float = 0, high: float = math.inf, *, above: bool = False) -> float:
    """Return a finite number from `low` to `high`.

    Args:
        above: `low` itself is not allowed.

    Raises:
        AlexnetMfError: for any other value.
    """
    allowed = f"from {low:g} to {high:g}" if high < math.inf and not above else \
        f"{'greater than' if above else 'of at least'} {low:g}" + (f" and at most {high:g}" if high < math.inf else "")
    try:
        number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer or a fraction beyond float's range
        number = math.nan
    if not low <= number <= high or math.isinf(number) or (above and number == low):
        raise AlexnetMfError(f"`{argument}` must be a number {allowed}, not {_text(value)}")
    return number


def check_type(argument: str, value: Any, kind: type[T]) -> T:
    """Return a value of a type.

    Raises:
        AlexnetMfError: for a value of another type.
    """
    if not isinstance(value, kind):
        raise AlexnetMfError(f"`{argument}` must be of type {kind.__name__}, not {_text(value)}")
    return value


def check_choice(argument: str, value: Any, choices: Iterable[str]) -> str:
    """Return a name that is one of the choices.

    Raises:
        AlexnetMfError: for any other value; lists the choices.
    """
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        raise AlexnetMfError(f"`{argument}` must be one of {', '.join(names)}, not {_text(value)}")
    return value


def check_list(argument: str, values: Any, of: type | tuple[type, ...] = str) -> list[Any]:
    """Return the items of a list, tuple or other collection that has at least one.

    Args:
        of: type of the items.

    Raises:
        AlexnetMfError: for a single item, an empty list, or an item of another type.
    """
    if isinstance(values, (str, bytes, Path)) or not isinstance(values, Iterable):
        raise AlexnetMfError(f"`{argument}` must be a list, not {values!r}")
    items = list(values)
    if not items:
        raise AlexnetMfError(f"`{argument}` must have at least one item")
    for item in items:
        if not isinstance(item, of):
            raise AlexnetMfError(f"`{argument}` must not contain {_text(item)}")
    return items


def check_path(argument: str, value: Any, ending: str = "") -> Path:
    """Return a path; ~ is the user's home.

    Args:
        ending: required ending of the name, in upper or lower case.

    Raises:
        AlexnetMfError: if the value is not a path, or has another ending.
    """
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path:
        raise AlexnetMfError(f"`{argument}` must be a path, not {_text(value)}")
    if not path.lower().endswith(ending):
        raise AlexnetMfError(f"`{argument}` must end in {ending}, not {path!r}")
    return Path(path).expanduser()


def _text(value: Any) -> str:
    """Return a value as part of a message."""
    try:
        return repr(value)
    except ValueError:  # Python does not write integers that long
        return "an integer too long to show"
