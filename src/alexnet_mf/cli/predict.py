"""`predict`: classify pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_mf import api
from alexnet_mf.api import PredictionReport
from alexnet_mf.cli import arguments, output
from alexnet_mf.errors import one_line
from alexnet_mf.plots import Picture
from alexnet_mf.predict import Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add = parser.add_argument
    arguments.add_weights(parser)
    add("images", type=Path, nargs="+", metavar="IMAGE",
        help="picture (JPEG, PNG, WebP, BMP, GIF or TIFF), gray or in color, of any size; a folder of them; or an idx "
             "file, "
             ".gz or unpacked")
    add("--invert", action="store_true",
        help="invert pictures that are dark on light, since Fashion-MNIST is light on dark (default: leave them)")
    add("--top", type=arguments.at_least_one, default=3, metavar="N",
        help="number of classes for each picture (default: 3)")
    add("--limit", type=arguments.at_least_one, metavar="N",
        help="only the first N pictures of each folder and idx file (default: all)")
    add("--classes", type=Path, metavar="FILE",
        help="file with the class names, one per line (default: those of the weights, else Fashion-MNIST's if there "
             "are ten and the input is gray, else numbers)")
    add("--mean", type=arguments.numbers, metavar="R,G,B",
        help="mean of each channel, scaled to [0, 1], to subtract; needs --std (default: as the weights state)")
    add("--std", type=arguments.numbers, metavar="R,G,B",
        help="standard deviation of each channel to divide by (default: as the weights state)")
    add("--no-normalize", dest="normalize", action="store_false",
        help="only scale pictures to [0, 1] (default: as the weights state)")
    add("--resize", type=arguments.size, metavar="N|HxW",
        help="resize the shorter side to N pixels, or the whole picture to HxW (default: as the weights state, else "
             "the input's size)")
    add("--crop", type=arguments.size, metavar="N|HxW",
        help="crop the center to NxN or HxW pixels after resizing (default: as the weights state, else the input's "
             "size)")
    add("--color", choices=["rgb", "bgr"],
        help="order of the channels; Caffe's networks take bgr (default: as the weights state, else rgb)")
    add("--plot", metavar="FILE", help="draw a contact sheet as PNG: the pictures as the network sees them, with "
        "their classes; needs matplotlib")
    arguments.add_json(parser)
    add("--quiet", action="store_true", help="print only the table")


def run(options: argparse.Namespace) -> int:
    """Predict, and return the exit code."""
    picture = Picture(options.plot, "alexnet_mf.plots.drawing") if options.plot else None
    quiet = options.quiet or options.json == "-"
    report = api.predict(options.source, options.images, net=options.net, which=options.which, backend=options.backend,
                         device=options.device, execution=arguments.execution(options), top=options.top,
                         limit=options.limit, invert=options.invert, mean=options.mean, std=options.std,
                         normalize=options.normalize, resize=options.resize, crop=options.crop, color=options.color,
                         progress=not quiet,
                         classes=arguments.read_names(options.classes) if options.classes else None)
    if not quiet:
        output.say(one_line(report.used.title()))
        output.say(f"preprocessing: {describe(report)}")
    if report.predictions and options.json != "-":
        show(report.predictions, report.classes)
    if options.json:
        output.write_json(options.json, as_json(report))
    if picture and report.predictions:
        drawing = picture.module
        picture.save(drawing.png(drawing.contact_sheet(report.predictions, report.classes)))
        if len(report.predictions) > drawing.MOST_ON_SHEET:
            output.notice(f"{options.plot}: first {drawing.MOST_ON_SHEET} of {len(report.predictions):,} pictures")
    elif picture:
        output.notice(f"{options.plot}: not written: no picture could be read")
    return 1 if report.unreadable else 0


def show(predictions: list[Prediction], names: Sequence[str]) -> None:
    """Print a row for each picture."""
    rows = [[one_line(answer.name), names[answer.labels[0]], f"{answer.probabilities[0]:.3f}",
             ", ".join(f"{names[label]} {probability:.3f}"
                       for label, probability in list(zip(answer.labels, answer.probabilities))[1:])]
            for answer in predictions]
    columns = 4 if any(row[3] for row in rows) else 3
    output.table(["picture", "class", "probability", "then"][:columns], [row[:columns] for row in rows], right=[2])


def describe(report: PredictionReport) -> str:
    """Return the preprocessing in one line."""
    return report.preprocessing.describe(report.used.weights.network.input[1:])


def as_json(report: PredictionReport) -> dict[str, Any]:
    """Return the predictions as JSON values."""
    images = [{"image": answer.name,
               "top": [{"label": label, "class": report.classes[label], "probability": probability}
                       for label, probability in zip(answer.labels, answer.probabilities)]}
              for answer in report.predictions]
    return {**report.used.as_dict(), "preprocessing": describe(report), "images": images,
            "unreadable": [{"image": fault.name, "reason": fault.reason} for fault in report.unreadable]}
