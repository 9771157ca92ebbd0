"""`list`: backends, networks and runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet_mf import api, conversion
from alexnet_mf.cli import arguments, output
from alexnet_mf.errors import AlexnetMfError
from alexnet_mf.spec import toml, zoo
from alexnet_mf.training.new_folder import RUNS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("what", choices=list(LISTS), metavar=f"{{{','.join(LISTS)}}}", help="subject of the list")
    parser.add_argument("name", nargs="?", metavar="NAME",
                        help="list only this network: a name, a .toml file, or a weights file that describes it "
                             "(default: all)")
    parser.add_argument("--toml", action="store_true",
                        help="print the network as TOML, as a start for a file of your own (--net FILE.toml)")
    parser.add_argument("--runs", type=Path, metavar="FOLDER",
                        help="folder that contains the run folders (default: runs)")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """List, and return the exit code."""
    if options.what != "networks" and (options.name or options.toml):
        raise AlexnetMfError(f"list {options.what} takes no name and no --toml; leave them out")
    if options.what != "runs" and options.runs:
        raise AlexnetMfError(f"list {options.what} takes no --runs; leave it out")
    options.runs = options.runs or RUNS
    if options.toml:
        if not options.name or options.json:
            raise AlexnetMfError(f"--toml takes the name of one network ({', '.join(zoo.NETWORKS)}), and no --json")
        output.say(toml.dump(conversion.find_described(options.name)).rstrip())
        return 0
    entries = LISTS[options.what](options)
    if not entries and options.json != "-":
        output.say(f"no runs in {options.runs}")
    elif options.json != "-":
        columns = [column for column in entries[0] if column != PROBLEM]
        numbers = [i for i, column in enumerate(columns)
                   if any(isinstance(entry[column], (int, float)) for entry in entries)]
        output.table([column.replace("_", " ") for column in columns],
                     [[text(entry[column]) for column in columns] for entry in entries], right=numbers)
        for entry in entries:
            if entry.get(PROBLEM):
                output.notice(entry[PROBLEM])
    if options.json:
        output.write_json(options.json, entries)
    return 0


def text(value: Any) -> str:
    """Return the text of a cell."""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)


PROBLEM = "problem"
"""Key whose value is a line below the table, not a column."""
LISTS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "backends": lambda options: api.list_backends(),
    "networks": lambda options: api.list_networks(options.name),
    "runs": lambda options: api.list_runs(options.runs),
}
