"""`list`: what there is to choose from."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet_mf import backends
from alexnet_mf.cli import output
from alexnet_mf.cli.arguments import add_json
from alexnet_mf.errors import AlexnetMfError, BackendUnavailable
from alexnet_mf.spec import arithmetic, toml, zoo
from alexnet_mf.training.folder import RUNS, is_run
from alexnet_mf.training.listing import summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.add_argument("what", choices=list(LISTS), help="what to list")
    parser.add_argument("name", nargs="?", help="one network only, by name or from a file (default: all)")
    parser.add_argument("--toml", action="store_true",
                        help="write that network out as TOML, to start a file of your own from: --net FILE.toml")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="FOLDER",
                        help="where the run folders are (default: runs)")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Carry it out; the exit code."""
    if options.what != "networks" and (options.name or options.toml):
        raise AlexnetMfError(f"list {options.what} takes no name and no --toml")
    if options.toml:
        if not options.name or options.json:
            raise AlexnetMfError(f"--toml takes the name of one network ({', '.join(zoo.NETWORKS)}), and no "
                                 f"--json")
        output.say(toml.dump(toml.find_network(options.name)).rstrip())
        return 0
    entries = LISTS[options.what](options)
    if not entries and options.json != "-":
        output.say(f"no runs in {options.runs}")
    elif options.json != "-":
        columns = list(entries[0])
        numbers = [i for i, column in enumerate(columns)
                   if any(isinstance(entry[column], (int, float)) for entry in entries)]
        output.table([column.replace("_", " ") for column in columns],
                     [[text(entry[column]) for column in columns] for entry in entries], right=numbers)
    if options.json:
        output.write_json(options.json, entries)
    return 0


def text(value: Any) -> str:
    """A cell."""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)


def list_backends() -> list[dict[str, Any]]:
    """Each backend: installed or not, its version and devices, and the line that installs it."""
    entries = []
    for name, entry in backends.BACKENDS.items():
        state, devices = "not installed", []
        if backends.is_installed(name):
            try:
                devices = [f"{device.name} ({device.description})" if device.description else device.name
                           for device in backends.load(name).devices()]
                state = "installed"
            except BackendUnavailable as error:
                state = f"broken: {error}"
        entries.append({"backend": name, "state": state, "version": backends.framework_version(name),
                        "devices": devices, "install": entry.install})
    return entries


def list_networks(only: str | None = None) -> list[dict[str, Any]]:
    """Each network, or one: its input, parameters, multiply-accumulates an image, and source."""
    entries = []
    for name in [only] if only else zoo.NETWORKS:
        network = toml.find_network(name)
        entries.append({"network": network.name, "input": output.shape_text(network.input),
                        "parameters": sum(arithmetic.parameter_counts(network).values()),
                        "multiply_accumulates": sum(arithmetic.macs(network).values()), "source": network.source})
    return entries


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """Each run in a folder: its state and closing numbers.

    Raises:
        AlexnetMfError: where the folder cannot be read.
    """
    try:
        names = sorted(path for path in folder.iterdir() if is_run(path)) if folder.exists() else []
    except OSError as error:
        raise AlexnetMfError(f"{folder}: cannot be read ({error.strerror}); name another folder") from error
    return [summary(path) for path in names]


LISTS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "backends": lambda options: list_backends(),
    "networks": lambda options: list_networks(options.name),
    "runs": lambda options: list_runs(options.runs),
}
