"""`evaluate`: loss, accuracy, confusion matrix and mistakes on the test images."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet_mf import api
from alexnet_mf.cli import arguments, output
from alexnet_mf.errors import one_line
from alexnet_mf.evaluation import Evaluation
from alexnet_mf.plots import Picture

MOST_MISTAKES = 5
"""Number of mistakes in the table; the JSON has more."""
MOST_CLASSES = 20
"""Largest number of classes for which the confusion matrix is a table."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add = parser.add_argument
    arguments.add_weights(parser)
    arguments.add_data(parser, default=None, meaning="the run's, else auto")
    arguments.add_classes(parser)
    add("--limit-test", type=arguments.at_least_one, dest="test_images", metavar="N",
        help="only N test images, chosen at random but the same each time (default: all)")
    add("--ten-crop", action="store_true",
        help="average the probabilities of four corners, the center and their mirror images, as in the paper "
             "(default: the "
             "center alone)")
    add("--plot", metavar="FILE", help="draw the confusion matrix and confident mistakes as PNG; needs matplotlib")
    arguments.add_json(parser)
    add("--quiet", action="store_true", help="print only the closing line")


def run(options: argparse.Namespace) -> int:
    """Evaluate, and return the exit code."""
    picture = Picture(options.plot, "alexnet_mf.plots.drawing") if options.plot else None
    quiet = options.quiet or options.json == "-"
    report = api.evaluate(options.source, net=options.net, which=options.which, backend=options.backend,
                          device=options.device, execution=arguments.execution(options),
                          data=arguments.data_source(options, None if options.data else options.source),
                          test_images=options.test_images, ten_crop=options.ten_crop, progress=not quiet)
    figures = report.evaluation
    if not quiet:
        output.say(one_line(report.used.title()))
        output.say(f"{report.origin}: {len(report.test):,} test images")
        show(figures, report.classes)
    if options.json:
        output.write_json(options.json, {**report.used.as_dict(), "data": report.origin,
                                         **as_json(figures, report.classes),
                                         "images_per_second": report.images_per_second})
    if picture:
        drawing = picture.module
        picture.save(drawing.png(drawing.evaluation(figures, report.test.images, report.classes)))
    if options.json != "-":
        top = "" if figures.top5_accuracy is None else f", top-5 acc {figures.top5_accuracy:.3f}"
        output.say(f"test loss {figures.loss:.3f}, test acc {figures.accuracy:.3f}{top} on {figures.images:,} images, "
                   f"{report.images_per_second:.1f} images/s on {report.used.loaded.model.device}")
    return 0


def show(figures: Evaluation, names: Sequence[str]) -> None:
    """Print a row for each class, then the confusion matrix."""
    rows = []
    for label, name in enumerate(names):
        row, images = figures.confusion[label], figures.class_images[label]
        if images or len(names) <= MOST_CLASSES:
            others = [other for other in np.argsort(-row, kind="stable") if other != label and row[other]][:2]
            rows.append([name, f"{images:,}", f"{row[label]:,}", f"{row[label] / images:.3f}" if images else "",
                         ", ".join(f"{names[other]} {row[other]:,}" for other in others)])
    output.table(["class", "images", "correct", "accuracy", "most often mistaken for"], rows, right=[1, 2, 3])
    if len(names) <= MOST_CLASSES:
        show_matrix(figures, names)
    output.say()
    if wrong := [mistake for mistake in figures.mistakes if mistake.name][:MOST_MISTAKES]:
        output.table(["most confident mistakes", "class", "predicted", "probability"], [
            [one_line(str(mistake.name)), names[mistake.label], names[mistake.predicted], f"{mistake.probability:.3f}"]
            for mistake in wrong], right=[3])
        output.say()


def show_matrix(figures: Evaluation, names: Sequence[str]) -> None:
    """Print the confusion matrix if it fits."""
    columns = ["class", *map(str, range(len(names)))]
    rows = [[f"{label} {name}", *(f"{count or '.'}" for count in figures.confusion[label])]
            for label, name in enumerate(names)]
    width = sum(max(len(row[i]) for row in [columns, *rows]) + 1 for i in range(len(columns)))
    output.say()
    if width > output.console().width:
        output.say(f"(the confusion matrix is {width} columns wide; write it with --json or --plot)")
        return
    output.table(columns, rows, right=range(1, len(columns)), title="true class (row) and predicted class (column)",
                 dense=True)


def as_json(figures: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """Return the evaluation as JSON values. The confusion matrix has a row for each true class, and a column for each
    predicted one."""
    classes = [{"class": name, "images": int(images), "correct": int(correct),
                "accuracy": correct / images if images else None}
               for name, images, correct in zip(names, figures.class_images.tolist(),
                                                np.diag(figures.confusion).tolist())]
    return {"images": figures.images, "loss": figures.loss, "accuracy": figures.accuracy,
            "top5_accuracy": figures.top5_accuracy, "classes": classes,
            "confusion": figures.confusion.tolist(),
            "mistakes": [dataclasses.asdict(mistake) for mistake in figures.mistakes]}
