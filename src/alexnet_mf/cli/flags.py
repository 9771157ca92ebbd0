"""Flags in messages, and the flag that prints a JSON Schema."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

ALIASES = {"pythons": "python", "batch_sizes": "batch_size", "precisions": "precision", "nets": "net",
           "learning_rates": "lr", "choosing_epochs": "lr_epochs"}
"""Arguments whose flag has another name."""
VALUES = {"python": " NAME=PATH"}
"""What to show after a flag."""


def with_flags(message: str, options: argparse.Namespace) -> str:
    """Return the message with flags in place of arguments: the library names them in backticks (`batch_size`)."""
    def flag(match: re.Match[str]) -> str:
        name = ALIASES.get(match[1], match[1])
        if match[1] not in options and name not in options:
            return match[0]
        return f"--{'no-' * bool(match[2])}{name.replace('_', '-')}{VALUES.get(name, '')}"
    return re.sub(r"`(\w+)(=False)?`", flag, message)


class PrintSchema(argparse.Action):
    """Prints a JSON Schema and exits."""

    def __init__(self, make: Callable[[], dict[str, Any]], **options: Any):
        super().__init__(nargs=0, **options)
        self.make = make

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: str | Sequence[Any] | None, option_string: str | None = None) -> None:
        print(json.dumps(self.make(), indent=2))
        parser.exit()


def add_schema(parser: argparse.ArgumentParser, make: Callable[[], dict[str, Any]]) -> None:
    """--schema."""
    parser.add_argument("--schema", action=PrintSchema, make=make, dest=argparse.SUPPRESS,
                        help="print the JSON Schema of what --json writes, and do nothing else")
