"""Translate the arguments in messages to flags, and add the flag --schema."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUOTE = "'"
TEXT = r'''\'(?:[^\'\\]|\\.)*\'|"(?:[^"\\]|\\.)*"'''
"""A Python string, as `repr` writes it."""

ALIASES = {"pythons": "python", "batch_sizes": "batch_size", "precisions": "precision", "nets": "net",
           "learning_rate": "lr", "learning_rates": "lr", "choosing_epochs": "lr_epochs", "train_images": "limit_train",
           "test_images": "limit_test", "entry": "entry", "source_format": "from", "destination_format": "to",
           "overwrite": "force", "tried": "try", "test_share": "test"}
"""Arguments whose flag has another name."""
COMMANDS = {"`alexnet_mf.list_runs()`": "`list runs`", "`list_backends`": "`list backends`",
            "`list_weights`": "`weights list`",
            "`parity_trace`": "`parity trace`", "`plot_curves`": "`plot curves`", "`plot_filters`": "`plot filters`",
            "`toml.dump`": "`list networks NAME --toml`"}
"""Commands that correspond to functions of the library."""
PLACEHOLDERS = {"python": " NAME=PATH"}
"""Placeholders of the values that flags take."""


def with_flags(message: str, options: argparse.Namespace) -> str:
    """Return the message with flags for arguments (`batch_size`) and commands for calls, which are in backticks."""
    def flag(match: re.Match[str]) -> str:
        name, value = ALIASES.get(match[1], match[1]), match[2]
        if not {match[1], name} & {*vars(options), *ALIASES}:
            return match[0]
        if value in ("True", "False"):
            return f"--{'no-' * (value == 'False')}{name.replace('_', '-')}"
        return f"--{name.replace('_', '-')}" + (f" {shlex.quote(value.strip(QUOTE))}" if value else
                                                PLACEHOLDERS.get(name, ""))

    message = re.sub(rf"`alexnet_mf\.resume\(({TEXT})\)`", lambda match: resume_command(ast.literal_eval(match[1])),
                     message)
    for function, command in COMMANDS.items():
        message = message.replace(function, command)
    return re.sub(r"`(\w+)(?:=([^`]+))?`", flag, message)


def resume_command(folder: Path | str) -> str:
    """Return the command that resumes a run."""
    return f"alexnet-mf train --resume {shlex.quote(str(folder))}"


def add_schema(parser: argparse.ArgumentParser, make: Callable[[], dict[str, Any]],
               of: str = "the --json output") -> None:
    """Add --schema, which `main` answers with the JSON Schema of a file."""
    parser.add_argument("--schema", action="store_const", const=make,
                        help=f"print the JSON Schema of {of} and exit")
