"""`plot curves`: the curves of runs, laid over each other."""

from __future__ import annotations

import argparse
from pathlib import Path

from alexnet_mf.cli import output
from alexnet_mf.errors import AlexnetMfError
from alexnet_mf.training import metrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True, parser_class=type(parser))
    purpose = "loss and accuracy by epoch, of one run or of several, in greys"
    curves = kinds.add_parser("curves", help=purpose, description=purpose, allow_abbrev=False)
    curves.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder")
    curves.add_argument("--plot", required=True, metavar="FILE", help="PNG to write")


def run(options: argparse.Namespace) -> int:
    """Carry it out; the exit code."""
    curves(options.runs, Path(options.plot))
    return 0


def curves(runs: list[Path], path: Path) -> None:
    """Draw the curves of runs into one PNG file.

    Raises:
        AlexnetMfError: where a run cannot be read, the file cannot be written, or matplotlib is missing.
    """
    entries = {name: metrics.read(folder) for name, folder in zip(labels(runs), runs)}
    for name, lines in entries.items():
        if not lines:
            raise AlexnetMfError(f"{name}: there is nothing to draw yet")
    drawing = output.drawing("alexnet_mf.training.curves", "plot")
    output.write_picture(str(path), drawing.png(entries))
    output.say(f"{path}: {len(runs)} run{'s' * (len(runs) > 1)}")


def labels(runs: list[Path]) -> list[str]:
    """The folders' names; their paths where two would be the same."""
    names = [folder.resolve().name for folder in runs]
    return [str(folder) if names.count(name) > 1 else name for name, folder in zip(names, runs)]
