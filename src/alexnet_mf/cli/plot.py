"""`plot curves`: the curves of runs, laid over each other. `plot filters`: what the first convolution looks for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from alexnet_mf.analysis import filters as first_layer
from alexnet_mf.cli import output
from alexnet_mf.errors import AlexnetMfError
from alexnet_mf.training import metrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True, parser_class=type(parser))
    purpose = "loss and accuracy by epoch, of one run or of several, in greys"
    curves = kinds.add_parser("curves", help=purpose, description=purpose, allow_abbrev=False)
    curves.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder")
    purpose = "the filters of the first convolution as a picture, in grey of one channel, in colour of three"
    filters = kinds.add_parser("filters", help=purpose, description=purpose, allow_abbrev=False)
    filters.add_argument("weights", type=Path, metavar="RUN|WEIGHTS",
                         help="run folder, or safetensors with canonical weights")
    filters.add_argument("--net", help="whose weights they are (default: what the file says)")
    for kind in (curves, filters):
        kind.add_argument("--plot", required=True, metavar="FILE", help="PNG to write")


def run(options: argparse.Namespace) -> int:
    """Carry it out; the exit code."""
    if options.kind == "curves":
        curves(options.runs, Path(options.plot))
    else:
        filters(options.weights, options.net, Path(options.plot))
    return 0


def curves(runs: list[Path], path: Path) -> None:
    """Draw the curves of runs into one PNG file.

    Raises:
        AlexnetMfError: where a run cannot be read, the file cannot be written, or matplotlib is missing.
    """
    for folder in runs:
        if folder.is_file():
            raise AlexnetMfError(f"{folder}: is a file, and curves are of run folders; the filters of weights are "
                                 f"drawn by alexnet-mf plot filters {folder} --plot FILE")
    entries = {name: metrics.read(folder) for name, folder in zip(labels(runs), runs)}
    for name, lines in entries.items():
        if not lines:
            raise AlexnetMfError(f"{name}: there is nothing to draw yet")
    save(path, "alexnet_mf.plots.curves", entries)
    output.say(f"{path}: {len(runs)} run{'s' * (len(runs) > 1)}")


def filters(weights: Path, net: str | None, path: Path) -> None:
    """Draw the first convolution's filters into a PNG file.

    Raises:
        AlexnetMfError: where the weights cannot be read or shown, the file cannot be written, or matplotlib is missing.
    """
    found = first_layer.read(weights, net)
    save(path, "alexnet_mf.plots.filters", found.weights, f"{found.network}, {found.layer}")
    output.say(f"{path}: {len(found.weights)} filters of {found.layer} of {found.network}")


def save(path: Path, module: str, *what: Any) -> None:
    """Have a module that takes matplotlib draw something into a PNG file.

    Raises:
        AlexnetMfError: where the file cannot be written, or matplotlib is missing.
    """
    output.write_picture(str(path), output.drawing(module, "plot").png(*what))


def labels(runs: list[Path]) -> list[str]:
    """The folders' names; their paths where two would be the same."""
    names = [folder.resolve().name for folder in runs]
    return [str(folder) if names.count(name) > 1 else name for name, folder in zip(names, runs)]
