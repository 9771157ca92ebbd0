"""`convert`: convert weights between file formats."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from alexnet_mf import api, conversion, spec
from alexnet_mf.cli import arguments, output
from alexnet_mf.spec import zoo
from alexnet_mf.weights.recognition import READABLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    formats = "; ".join(f"{name}: {entry.description}{f' ({endings})' if (endings := ' '.join(entry.suffixes)) else ''}"
                        for name, entry in conversion.FORMATS.items())
    add = parser.add_argument
    add("source", type=Path, metavar="SRC", help="weights file, or a run folder")
    add("destination", type=Path, metavar="DST", help="file to write")
    add("--from", dest="source_format", choices=READABLE, metavar="FORMAT",
        help=f"format of SRC. {formats} (default: by the content)")
    add("--to", dest="destination_format", choices=conversion.WRITABLE, metavar="FORMAT",
        help="format of DST, as for --from (default: by the ending of DST)")
    add("--net", help=f"network: {', '.join(zoo.NETWORKS)}; or a file of your own that ends in .toml "
                      f"(default: the network that SRC names or describes)")
    arguments.add_which(parser)
    add("--entry", metavar="NAME", help="entry of a PyTorch checkpoint that holds the weights, if there are several: "
        "state_dict, checkpoint.model, ... (default: the only one)")
    add("--force", dest="overwrite", action="store_true", help="replace DST if it exists")
    add("--bake-preprocessing", action="store_true",
        help="put scaling, order of the channels and normalization into an ONNX graph, which then takes levels from 0 "
             "to 255 (default: the graph takes preprocessed pixels)")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Convert, and return the exit code."""
    done = api.convert(options.source, options.destination, source_format=options.source_format,
                       destination_format=options.destination_format, net=options.net, which=options.which,
                       entry=options.entry, overwrite=options.overwrite,
                       bake_preprocessing=options.bake_preprocessing)
    if options.json:
        output.write_json(options.json, {**dataclasses.asdict(done), "network": spec.as_dict(done.network)})
    if options.json != "-":
        output.say(f"wrote {options.destination} ({done.destination}) from {options.source} ({done.source}): "
                   f"{done.network.name}, {done.parameters:,} parameters, SHA-256 {done.sha256[:16]}")
    return 0
