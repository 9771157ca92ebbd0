"""`shapes`: measure and compare the layer tables of one or all backends."""

from __future__ import annotations

import argparse
import dataclasses

from alexnet_mf import api, backends
from alexnet_mf.backends.contract import NativeLayer
from alexnet_mf.cli import arguments, output
from alexnet_mf.shapes import ShapeReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("--backend", required=True, choices=[*backends.BACKENDS, "all"],
                        help="backend to measure; all: every installed one")
    arguments.add_network(parser, arguments.OWN_TAB)
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Compare, and return the exit code."""
    names = backends.installed() if options.backend == "all" else [options.backend]
    report = api.shapes(options.net, names, options.device)
    if options.backend == "all":
        for name, entry in backends.BACKENDS.items():
            if name not in names:
                output.notice(f"{name} is not installed: {entry.install}")
    if options.json != "-":
        if len(names) == 1:
            output.layer_table(report.tables[names[0]], f"{options.net} in {names[0]}")
        else:
            side_by_side(report, options.net)
        verdict(report)
    if options.json:
        output.write_json(options.json, {name: [dataclasses.asdict(row) for row in rows]
                                         for name, rows in report.tables.items()})
    return 1 if report.disagreements else 0


def side_by_side(report: ShapeReport, net: str) -> None:
    """Print a row for each layer: the output shape, the parameters, and each backend's own classes."""
    names = list(report.tables)
    first = report.tables[names[0]]
    by_name = {name: {row.name: row for row in rows} for name, rows in report.tables.items()}

    def cell(row: NativeLayer, mine: NativeLayer | None) -> str:
        if mine is None:
            return "(!)"
        differs = (row.shape, row.parameters) != (mine.shape, mine.parameters)
        return f"{mine.native} {output.shape_text(mine.shape)}, {mine.parameters:,} (!)" if differs else mine.native

    rows = [[row.name, output.shape_text(row.shape), output.count_text(row.parameters),
             *(cell(row, by_name[name].get(row.name)) for name in names)] for row in first]
    rows.append(["total", "", f"{sum(row.parameters for row in first):,}", *("" for name in names)])
    output.table(["layer", "output shape", "parameters", *names], rows, right=[2], title=net)


def verdict(report: ShapeReport) -> None:
    """Print a line for each disagreement, and the verdict."""
    for line in report.disagreements:
        output.say(line)
    *others, last = ["the arithmetic", *report.tables]
    agree = "do not agree" if report.disagreements else "agree"
    output.say(f"\n{', '.join(others)} and {last} {agree} on shapes and parameter counts")
