"""`plot curves`: the training curves of runs. `plot filters`: the filters of the first convolution."""

from __future__ import annotations

import argparse
from pathlib import Path

from alexnet_mf import api
from alexnet_mf.cli import arguments, output
from alexnet_mf.sweep.record import NAME as SWEEP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    pictures = parser.add_subparsers(dest="picture", metavar="PICTURE", required=True, parser_class=type(parser))
    purpose = "draw loss and accuracy by epoch of one or more runs, in shades of gray"
    curves = pictures.add_parser("curves", help=purpose, description=purpose, allow_abbrev=False)
    curves.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder")
    purpose = "draw the filters of the first convolution: gray for one input channel, color for three"
    filters = pictures.add_parser("filters", help=purpose, description=purpose, allow_abbrev=False)
    filters.add_argument("source", type=Path, metavar="RUN|WEIGHTS",
                         help="run folder, or weights file of any format that `convert` reads")
    arguments.add_which(filters)
    filters.add_argument("--net", help="network (default: the network that the weights file names or describes)")
    for picture in (curves, filters):
        picture.add_argument("--plot", required=True, metavar="FILE", help="PNG file to write; needs matplotlib")


def run(options: argparse.Namespace) -> int:
    """Draw, and return the exit code."""
    if options.picture == "curves":
        runs = [path for path in options.runs if path.name != SWEEP] or options.runs  # SWEEP/* names it beside the runs
        api.plot_curves(runs, options.plot)
        output.say(f"{options.plot}: {len(runs)} run{'s' * (len(runs) > 1)}")
    else:
        first = api.plot_filters(options.source, options.plot, net=options.net, which=options.which)
        output.say(f"{options.plot}: {len(first.weights)} filters of {first.layer} of {first.network}")
    return 0
