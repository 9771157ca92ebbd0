"""Write tables, lines and files: formatted on a terminal, as plain lines in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alexnet_mf import files
from alexnet_mf.backends.contract import NativeLayer


def console() -> Console:
    """Return a console on standard output; in a pipe it is so wide that no line wraps."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 200)


def say(line: str = "") -> None:
    """Write one line on standard output."""
    print(line, flush=True)


def notice(line: str) -> None:
    """Write one line on standard error, for news that the user did not ask for."""
    print(line, file=sys.stderr, flush=True)


def show_progress(line: str) -> None:
    """Write a line of progress on standard error, if that is a terminal."""
    if sys.stderr.isatty():
        notice(line)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = (), title: str = "",
          dense: bool = False) -> None:
    """Print columns of text. Those in `right` are right-aligned; a dense table has one space between columns."""
    if not sys.stdout.isatty():
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        if title:
            say(title)
        for row in [columns, *rows]:
            say("  ".join(cell.rjust(width) if i in right else cell.ljust(width)
                          for i, (cell, width) in enumerate(zip(row, widths))).rstrip())
        return
    drawn = Table(box=None if dense else SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold",
                  padding=(0, 1, 0, 0) if dense else (0, 1))
    for i, column in enumerate(columns):
        drawn.add_column(column, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(escape, row))
    console().print(drawn)


def shape_text(shape: Sequence[int]) -> str:
    """Return 1x96x54x54."""
    return "x".join(map(str, shape))


def count_text(count: int) -> str:
    """Return 46,764,746; nothing for 0."""
    return f"{count:,}" if count else ""


def layer_table(rows: list[NativeLayer], title: str) -> None:
    """Print the book's layer table: every layer's output shape, with its native class and parameters."""
    body = [[row.name, row.native, shape_text(row.shape), count_text(row.parameters)] for row in rows]
    body.append(["total", "", "", f"{sum(row.parameters for row in rows):,}"])
    table(["layer", "native", "output shape", "parameters"], body, right=[3], title=title)


def write_json(destination: str, value: Any) -> None:
    """Write JSON to a file, whole or not at all; `-` is standard output.

    Raises:
        AlexnetMfError: if the file cannot be written.
    """
    text = json.dumps(value, indent=2)
    if destination == "-":
        say(text)
    else:
        files.write_result(destination, f"{text}\n".encode())
