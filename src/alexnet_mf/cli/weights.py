"""`weights`: list and download published weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from alexnet_mf import api, pretrained
from alexnet_mf.cli import arguments, output
from alexnet_mf.errors import AlexnetMfError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add = parser.add_argument
    add("what", choices=["list", "get"], metavar="{list,get}", help="list the published weights, or download some")
    add("name", nargs="?", choices=list(pretrained.PRETRAINED), metavar="NAME",
        help=f"weights to download: {', '.join(pretrained.PRETRAINED)}")
    add("--out", type=Path, metavar="FILE", help="file to write (default: NAME.safetensors)")
    add("--force", dest="overwrite", action="store_true", help="replace FILE if it exists")
    add("--quiet", action="store_true", help="print only the closing line")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """List or download, and return the exit code."""
    if options.what == "list":
        if options.name or options.out or options.overwrite or options.quiet:
            raise AlexnetMfError("weights list takes no name, --out, --force and --quiet; leave them out")
        entries = api.list_weights()
        if options.json:
            output.write_json(options.json, entries)
        if options.json != "-":
            output.table(["weights", "network", "MB", "top-1 [%]", "top-5 [%]", "source"],
                         [[str(value) for value in entry.values()] for entry in entries], right=[2, 3, 4])
            output.say("accuracies as published: ImageNet's validation images, center crop")
        return 0
    if not options.name:
        raise AlexnetMfError(f"weights get takes a name: {', '.join(pretrained.PRETRAINED)}")
    path = api.get_weights(options.name, options.out, overwrite=options.overwrite,
                           progress=not options.quiet and options.json != "-")
    if options.json:
        output.write_json(options.json, {"weights": options.name, "file": str(path)})
    if options.json != "-":
        output.say(f"wrote {path}")
    return 0
