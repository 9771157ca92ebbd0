"""Measured layer tables of the backends, compared with the arithmetic and with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_mf.backends import registry
from alexnet_mf.backends.contract import NativeLayer
from alexnet_mf.checks import check_choice, check_list, check_type
from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.toml import find_network
from alexnet_mf.weights import parameters


@dataclass(frozen=True)
class ShapeReport:
    """Each backend's layer table, and a sentence for each disagreement."""

    tables: dict[str, list[NativeLayer]]
    disagreements: list[str]


def shapes(net: Network | Path | str = "alexnet", backends: Sequence[str] | None = None,
           device: str = "auto") -> ShapeReport:
    """Build the network in each backend, run a batch of one through it, and compare the layers' output shapes.

    Args:
        net: a network, its name, or a .toml file.
        backends: without them all that are installed.
        device: as for `build`.

    Raises:
        BackendUnavailable: if one of them is not installed, or lacks the device.
        AlexnetMfError: if another argument is wrong.
    """
    names = registry.installed() if backends is None else check_list("backends", backends)
    for name in names:
        check_choice("backends", name, registry.BACKENDS)
    check_type("device", device, str)
    networks = {name: find_network(net, name) for name in names}
    frameworks = {name: registry.load(name) for name in names}
    tables: dict[str, list[NativeLayer]] = {}
    disagreements = []
    for name, network in networks.items():
        # No variable keeps the model, so only one is in memory at a time.
        rows = frameworks[name].build(network, parameters.initialize(network, 0), device).describe()
        tables[name] = rows
        expected = [(layer, (1, *shape), arithmetic.parameter_counts(network)[layer])
                    for layer, shape in arithmetic.output_shapes(network).items()]
        disagreements += compare(name, _cells(rows), "the arithmetic", expected)
    first = next(iter(tables), "")
    for name in list(tables)[1:]:
        disagreements += compare(name, _cells(tables[name]), first, _cells(tables[first]))
    return ShapeReport(tables, disagreements)


def _cells(rows: list[NativeLayer]) -> list[tuple[str, tuple[int, ...], int]]:
    return [(row.name, row.shape, row.parameters) for row in rows]


def compare(name: str, rows: list[tuple[str, tuple[int, ...], int]],
            other: str, other_rows: list[tuple[str, tuple[int, ...], int]]) -> list[str]:
    """Return a sentence for each layer whose shape or parameter count differs."""
    if [row[0] for row in rows] != [row[0] for row in other_rows]:
        return [f"{name} has the layers {', '.join(row[0] for row in rows)}; "
                f"{other} has {', '.join(row[0] for row in other_rows)}"]
    return [f"{mine[0]}: {name} has {_text(mine)}, {other} has {_text(theirs)}"
            for mine, theirs in zip(rows, other_rows) if mine != theirs]


def _text(row: tuple[str, tuple[int, ...], int]) -> str:
    """Return a row's shape and parameter count in words."""
    return f"{'x'.join(map(str, row[1]))} and {row[2]:,} parameters"
