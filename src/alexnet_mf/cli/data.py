"""`data`: classes, numbers and sizes of a dataset's images, and pictures that cannot be decoded."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from alexnet_mf import api
from alexnet_mf.cli import arguments, output
from alexnet_mf.data.survey import Survey
from alexnet_mf.errors import one_line
from alexnet_mf.instruments.units import percent_text, scaled
from alexnet_mf.plots import Picture

MOST_CLASSES = 40
"""Largest number of classes that the table shows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add = parser.add_argument
    add("data", metavar="NAME|PATH", help="a built-in dataset, or images of your own, as for `train --data`")
    arguments.add_data_options(parser, prepares=False)
    arguments.add_classes(parser)
    add("--plot", metavar="FILE", help="draw a contact sheet of training images as PNG; needs matplotlib")
    arguments.add_json(parser)
    add("--quiet", action="store_true", help="print only the closing line")


def run(options: argparse.Namespace) -> int:
    """Survey, and return the exit code: 1 if pictures are damaged."""
    picture = Picture(options.plot, "alexnet_mf.plots.drawing") if options.plot else None
    quiet = options.quiet or options.json == "-"
    source = arguments.data_source(options)
    assert source
    facts = api.data(source, progress=not quiet)
    for name, reason in facts.damaged:
        output.notice(one_line(f"{name}: {reason}"))
    if not quiet:
        show(facts)
    if options.json:
        output.write_json(options.json, as_json(facts))
    if picture:
        drawing = picture.module
        picture.save(drawing.png(drawing.samples(facts.samples)))
    if options.json != "-":
        output.say(one_line(summary(facts)))
    return 1 if facts.damaged else 0


def show(facts: Survey) -> None:
    """Print the number of images of each class."""
    rows = [[name, *(f"{counts[label]:,}" for counts in facts.counts.values())]
            for label, name in enumerate(facts.classes[:MOST_CLASSES])]
    if len(facts.classes) > MOST_CLASSES:
        rows.append([f"({len(facts.classes) - MOST_CLASSES:,} more)", *(
            f"{counts[MOST_CLASSES:].sum():,}" for counts in facts.counts.values())])
    rows.append(["all", *(f"{counts.sum():,}" for counts in facts.counts.values())])
    output.table(["class", *facts.counts], rows, right=range(1, 1 + len(facts.counts)))
    output.say()


def summary(facts: Survey) -> str:
    """Return numbers and sizes in one line."""
    parts = [f"{facts.origin}: {facts.images:,} images of {len(facts.classes):,} classes"]
    if len(facts.sizes):
        least, middle, most = ("x".join(map(str, by(facts.sizes, axis=0).astype(int)))
                               for by in (np.min, np.median, np.max))
        parts.append(f"all {least} pixels" if least == most else f"{least} to {most} pixels, half above {middle}")
        share = facts.in_color / len(facts.sizes)
        parts.append("in color" if share == 1 else "gray" if share == 0 else f"{percent_text(share)} in color")
    if facts.file_bytes is not None:
        parts.append(scaled(facts.file_bytes, ["B", "kB", "MB", "GB", "TB"]))
    if facts.damaged:
        parts.append(f"{len(facts.damaged):,} damaged")
    return ", ".join(parts)


def as_json(facts: Survey) -> dict[str, Any]:
    """Return the facts as JSON values."""
    least, middle, most = (by(facts.sizes, axis=0).tolist() if len(facts.sizes) else None
                           for by in (np.min, np.median, np.max))
    return {"data": facts.origin, "images": facts.images, "in_color": facts.in_color, "file_bytes": facts.file_bytes,
            "height_and_width": {"least": least, "median": middle, "most": most},
            "classes": [{"class": name, **{part: int(counts[label]) for part, counts in facts.counts.items()}}
                        for label, name in enumerate(facts.classes)],
            "damaged": [{"image": name, "reason": reason} for name, reason in facts.damaged]}
