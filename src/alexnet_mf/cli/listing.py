"""`list`: what there is to choose from."""

from __future__ import annotations

import argparse
from typing import Any

from alexnet_mf import arithmetic, backends, spec
from alexnet_mf.cli import output
from alexnet_mf.cli.arguments import add_json
from alexnet_mf.errors import BackendUnavailable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["backends", "networks"], help="what to list")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    entries = list_backends() if options.what == "backends" else list_networks()
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


def list_networks() -> list[dict[str, Any]]:
    """Each network: its input, parameters, multiply-accumulates an image, and source."""
    entries = []
    for name in spec.NETWORKS:
        network = spec.get_network(name)
        entries.append({"network": name, "input": output.shape_text(network.input),
                        "parameters": sum(arithmetic.parameter_counts(network).values()),
                        "multiply_accumulates": sum(arithmetic.macs(network).values()), "source": network.source})
    return entries
