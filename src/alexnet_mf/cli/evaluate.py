"""`evaluate`: how good a network is on the test images, and where it errs."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_mf.cli import opened, output, progress
from alexnet_mf.cli.arguments import add_json, at_least_one
from alexnet_mf.cli.train import load_data
from alexnet_mf.data import DATASETS, Dataset
from alexnet_mf.errors import RunError
from alexnet_mf.evaluation import Evaluation, evaluate
from alexnet_mf.predict import class_names
from alexnet_mf.training import record as records
from alexnet_mf.training.job import check_takes_grey_images

MOST_CLASSES = 20
"""Of a confusion matrix that is shown as a table."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    add = parser.add_argument
    opened.add_weights(parser)
    add("--data", choices=list(DATASETS),
        help="auto takes Fashion-MNIST where it can, else the synthetic set (default: the run's, else auto)")
    add("--data-dir", type=Path, metavar="FOLDER",
        help="folder with the four Fashion-MNIST files, .gz or unpacked (default: $ALEXNET_MF_DATA_DIR, else the "
             "user's cache, downloaded if need be)")
    add("--limit-test", type=at_least_one, metavar="N", help="the first N test images only (default: all)")
    add("--plot", metavar="FILE", help="confusion matrix and most confident mistakes to draw, PNG; takes matplotlib")
    add_json(parser)
    add("--quiet", action="store_true", help="the closing line only")


def run(options: argparse.Namespace) -> int:
    """Carry it out; the exit code."""
    drawing = output.drawing("alexnet_mf.plots.drawing", "--plot") if options.plot else None
    loaded = opened.load(options)
    network = loaded.model.network
    check_takes_grey_images(network)
    data = run_data(options)
    test = data.test.first(options.limit_test)
    names = data.classes if network.classes == len(data.classes) else class_names(network)
    quiet = options.quiet or options.json == "-"
    if not quiet:
        output.say(opened.headline(loaded))
        output.say(f"{data.origin}: {len(test):,} test images")
    with progress.ImagesDisplay("evaluating", len(test), quiet) as display:
        found = evaluate(loaded.model, test, display.done)
        rate = len(test) / display.seconds
    if not quiet:
        show(found, names)
    if options.json:
        output.write_json(options.json, {**opened.report(loaded, options), "data": data.origin,
                                         **report(found, names), "images_per_second": rate})
    if drawing:
        output.write_picture(options.plot, drawing.png(drawing.evaluation(found, test.images, names)))
    if options.json != "-":
        output.say(f"test loss {found.loss:.3f}, test acc {found.accuracy:.3f} on {found.images:,} images, "
                   f"{rate:.1f} images/s on {loaded.model.device}")
    return 0


def run_data(options: argparse.Namespace) -> Dataset:
    """The data set asked for, else the run's, else what there is; the user is told where a run has not seen it."""
    try:
        record = records.read(options.source)
    except RunError:  # a weights file, or a run whose weights can be read and its record cannot
        record = {}
    data = load_data(options.data or record.get("data_name") or "auto", options)
    if record and data.digest() != record.get("data_sha256"):
        output.notice(f"{options.source}: was trained on {record.get('data')}, and these images are {data.origin}")
    return data


def show(found: Evaluation, names: Sequence[str]) -> None:
    """Class by class, then the confusion matrix."""
    rows = []
    for label, name in enumerate(names):
        row, images = found.confusion[label], found.class_images[label]
        if images or len(names) <= MOST_CLASSES:
            others = [other for other in np.argsort(-row, kind="stable") if other != label and row[other]][:2]
            rows.append([name, f"{images:,}", f"{row[label]:,}", f"{row[label] / images:.3f}" if images else "",
                         ", ".join(f"{names[other]} {row[other]:,}" for other in others)])
    output.table(["class", "images", "correct", "accuracy", "most often taken for"], rows, right=[1, 2, 3])
    if len(names) <= MOST_CLASSES:
        show_matrix(found, names)
    output.say()


def show_matrix(found: Evaluation, names: Sequence[str]) -> None:
    """The confusion matrix, where it fits."""
    columns = ["class", *map(str, range(len(names)))]
    rows = [[f"{label} {name}", *(f"{count or '.'}" for count in found.confusion[label])]
            for label, name in enumerate(names)]
    width = sum(max(len(row[i]) for row in [columns, *rows]) + 1 for i in range(len(columns)))
    output.say()
    if width > output.console().width:
        output.say(f"(the confusion matrix takes {width} columns; --json and --plot write it)")
        return
    output.table(columns, rows, right=range(1, len(columns)), title="class (row) and what it was taken for (column)",
                 dense=True)


def report(found: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """The evaluation as JSON values; the confusion matrix has a row a class, and a column for what it was taken for."""
    classes = [{"class": name, "images": int(images), "correct": int(correct),
                "accuracy": correct / images if images else None}
               for name, images, correct in zip(names, found.class_images.tolist(), np.diag(found.confusion).tolist())]
    return {"images": found.images, "loss": found.loss, "accuracy": found.accuracy, "classes": classes,
            "confusion": found.confusion.tolist(), "mistakes": [dataclasses.asdict(wrong) for wrong in found.mistakes]}
