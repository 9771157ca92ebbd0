"""`convert`: weights from one program's file to another's."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from alexnet_mf import conversion, spec
from alexnet_mf.cli import output
from alexnet_mf.cli.arguments import add_json
from alexnet_mf.spec import zoo
from alexnet_mf.training.opened import WHICH


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    kinds = "; ".join(f"{name}: {kind.what}{f' ({endings})' if (endings := ' '.join(kind.suffixes)) else ''}"
                      for name, kind in conversion.KINDS.items())
    add = parser.add_argument
    add("source", type=Path, metavar="SRC", help="weights, or a run folder")
    add("destination", type=Path, metavar="DST", help="file to write")
    add("--from", dest="source_kind", choices=conversion.readable(), metavar="KIND",
        help=f"{kinds} (default: told from the content)")
    add("--to", dest="destination_kind", choices=list(conversion.KINDS), metavar="KIND",
        help="one of the same (default: told from the ending)")
    add("--net", help=f"network: {', '.join(zoo.NETWORKS)}; or a file of your own that ends in .toml "
                      f"(default: the one that SRC names, else alexnet)")
    add("--weights", choices=list(WHICH), default="last",
        help="of a run folder, the last weights or those of the best test accuracy (default: last)")
    add("--force", action="store_true", help="replace DST if it is there")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Carry it out; the exit code."""
    output.check_writable(options.destination)
    done = conversion.convert(options.source, options.destination, source_kind=options.source_kind,
                              destination_kind=options.destination_kind, net=options.net,
                              which=options.weights, overwrite=options.force)
    if options.json:
        output.write_json(options.json, {**dataclasses.asdict(done), "network": spec.as_dict(done.network)})
    if options.json != "-":
        output.say(f"{options.destination}: {done.destination}, from {done.source}: {done.network.name}, "
                   f"{done.parameters:,} parameters, sha256 {done.sha256[:16]}")
    return 0
