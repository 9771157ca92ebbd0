"""The layer tables of the backends, measured, and whether they agree with the arithmetic and with each other."""

from __future__ import annotations

from dataclasses import dataclass

from alexnet_mf import backends
from alexnet_mf.backends.contract import NativeLayer
from alexnet_mf.spec import arithmetic
from alexnet_mf.spec.toml import find_network
from alexnet_mf.weights import parameters


@dataclass(frozen=True)
class ShapeReport:
    """Each backend's rows, and a sentence for each disagreement."""

    tables: dict[str, list[NativeLayer]]
    disagreements: list[str]


def shapes(names: list[str], net: str = "alexnet", device: str = "auto") -> ShapeReport:
    """Build the network in each backend, run a batch of one through it, and compare.

    Raises:
        BackendUnavailable: where one of them is not installed.
    """
    tables: dict[str, list[NativeLayer]] = {}
    disagreements = []
    for name in names:
        network = find_network(net, name)
        model = backends.load(name).build(network, parameters.initialise(network, 0), device)
        tables[name] = rows = model.describe()
        expected = [(layer, (1, *shape), arithmetic.parameter_counts(network)[layer])
                    for layer, shape in arithmetic.output_shapes(network).items()]
        measured = [(row.name, row.shape, row.parameters) for row in rows]
        disagreements += compare(name, measured, "the arithmetic", expected)
    first = next(iter(tables), "")
    for name in list(tables)[1:]:
        disagreements += compare(name, [(row.name, row.shape, row.parameters) for row in tables[name]],
                                 first, [(row.name, row.shape, row.parameters) for row in tables[first]])
    return ShapeReport(tables, disagreements)


def compare(name: str, rows: list[tuple[str, tuple[int, ...], int]],
            other: str, other_rows: list[tuple[str, tuple[int, ...], int]]) -> list[str]:
    """A sentence for each layer whose shape or parameter count differs."""
    if [row[0] for row in rows] != [row[0] for row in other_rows]:
        return [f"{name} has the layers {', '.join(row[0] for row in rows)}; "
                f"{other} has {', '.join(row[0] for row in other_rows)}"]
    return [f"{mine[0]}: {name} has {what(mine)}, {other} has {what(theirs)}"
            for mine, theirs in zip(rows, other_rows) if mine != theirs]


def what(row: tuple[str, tuple[int, ...], int]) -> str:
    """A row's shape and parameter count in words."""
    return f"{'x'.join(map(str, row[1]))} and {row[2]:,} parameters"
