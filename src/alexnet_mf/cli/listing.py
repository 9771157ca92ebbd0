"""`list`: what there is to choose from."""

from __future__ import annotations

import argparse
from typing import Any

from alexnet_mf import arithmetic, backends, spec, specfile
from alexnet_mf.cli import output
from alexnet_mf.cli.arguments import add_json
from alexnet_mf.errors import AlexnetMfError, BackendUnavailable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["backends", "networks"], help="what to list")
    parser.add_argument("name", nargs="?", help="one network only, by name or from a file (default: all)")
    parser.add_argument("--toml", action="store_true",
                        help="write that network out as TOML, to start a file of your own from: --net FILE.toml")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    if options.what == "backends" and (options.name or options.toml):
        raise AlexnetMfError("list backends takes no name and no --toml")
    if options.toml:
        if not options.name or options.json:
            raise AlexnetMfError(f"--toml takes the name of one network ({', '.join(spec.NETWORKS)}), and no --json")
        output.say(specfile.dump(specfile.find_network(options.name)).rstrip())
        return 0
    entries = list_backends() if options.what == "backends" else list_networks(options.name)
    if options.json != "-":
        columns = list(entries[0])
        numbers = [i for i, column in enumerate(columns) if isinstance(entries[0][column], int)]
        output.table([column.replace("_", " ") for column in columns],
                     [[text(entry[column]) for column in columns] for entry in entries], right=numbers)
    if options.json:
        output.write_json(options.json, entries)
    return 0


def text(value: Any) -> str:
    """A cell."""
    return f"{value:,}" if isinstance(value, int) else ", ".join(value) if isinstance(value, list) else str(value)


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
    for name in [only] if only else spec.NETWORKS:
        network = specfile.find_network(name)
        entries.append({"network": network.name, "input": output.shape_text(network.input),
                        "parameters": sum(arithmetic.parameter_counts(network).values()),
                        "multiply_accumulates": sum(arithmetic.macs(network).values()), "source": network.source})
    return entries
