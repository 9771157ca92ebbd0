"""Checks of arguments, for all functions of the API. An error is one line: the argument, its value, what is allowed."""

from __future__ import annotations

import math
import numbers
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
        raise AlexnetMfError(f"`{argument}` must be an integer, not {value!r}")
    if value < least:
        raise AlexnetMfError(f"`{argument}` must be at least {least}, not {value}")
    return int(value)


def check_number(argument: str, value: Any, low: float = 0, high: float = math.inf, *, above: bool = False) -> float:
    """Return a finite number from `low` to `high`.

    Args:
        above: `low` itself is not allowed.

    Raises:
        AlexnetMfError: for any other value.
    """
    allowed = f"from {low:g} to {high:g}" if high < math.inf else \
        f"{'greater than' if above else 'of at least'} {low:g}"
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if not low <= number <= high or math.isinf(number) or (above and number == low):
        raise AlexnetMfError(f"`{argument}` must be a number {allowed}, not {value!r}")
    return number


def check_type(argument: str, value: Any, kind: type[T]) -> T:
    """Return a value of a type.

    Raises:
        AlexnetMfError: for a value of another type.
    """
    if not isinstance(value, kind):
        raise AlexnetMfError(f"`{argument}` must be of type {kind.__name__}, not {value!r}")
    return value


def check_choice(argument: str, value: Any, choices: Iterable[str]) -> str:
    """Return a name that is one of the choices.

    Raises:
        AlexnetMfError: for any other value; lists the choices.
    """
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        raise AlexnetMfError(f"`{argument}` must be one of {', '.join(names)}, not {value!r}")
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
        raise AlexnetMfError(f"`{argument}` must have at least one item, and has none")
    for item in items:
        if not isinstance(item, of):
            raise AlexnetMfError(f"`{argument}` must not contain {item!r}")
    return items


def check_path(argument: str, value: Any, ending: str = "") -> Path:
    """Return a path.

    Args:
        ending: the ending that its name must have, in either case.

    Raises:
        AlexnetMfError: if it is no path, or has another ending.
    """
    if not isinstance(value, (str, Path)) or not str(value):
        raise AlexnetMfError(f"`{argument}` must be a path, not {value!r}")
    if not str(value).lower().endswith(ending):
        raise AlexnetMfError(f"`{argument}` must end in {ending}, not {str(value)!r}")
    return Path(value)
