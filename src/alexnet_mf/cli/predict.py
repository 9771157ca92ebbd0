"""`predict`: what a network says of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from alexnet_mf import files
from alexnet_mf.cli import opened, output, progress
from alexnet_mf.cli.arguments import add_json, at_least_one
from alexnet_mf.data.pictures import Preparation, Unreadable
from alexnet_mf.errors import DataError
from alexnet_mf.predict import Prediction, class_names, predict, preparation
from alexnet_mf.spec import Network

LARGEST_CLASSES_FILE = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    add = parser.add_argument
    opened.add_weights(parser)
    add("images", type=Path, nargs="+", metavar="IMAGE",
        help="PNG or JPEG file, grey or in colour, of any size; a folder of them; or an idx file, .gz or unpacked")
    add("--invert", action="store_true",
        help="the pictures are dark on light: make them light on dark, as Fashion-MNIST is (default: as they are)")
    add("--top", type=at_least_one, default=3, metavar="N", help="classes to tell of each picture (default: 3)")
    add("--limit", type=at_least_one, metavar="N",
        help="the first N pictures of each folder and idx file only (default: all)")
    add("--classes", type=Path, metavar="FILE",
        help="names of the classes, a line each (default: Fashion-MNIST's where there are ten, else numbers)")
    add("--plot", metavar="FILE", help="contact sheet to write, PNG: the pictures as the network was fed them, with "
        "their classes; takes matplotlib")
    add_json(parser)
    add("--quiet", action="store_true", help="the table only")


def run(options: argparse.Namespace) -> int:
    """Carry it out; the exit code."""
    drawing = output.drawing("alexnet_mf.plots.drawing", "--plot") if options.plot else None
    loaded = opened.load(options)
    network = loaded.model.network
    names = read_names(options.classes, network) if options.classes else class_names(network)
    prepared = preparation(network, options.invert)
    if not options.quiet and options.json != "-":
        output.say(opened.headline(loaded))
        output.say(f"preprocessing: {prepared.describe()}")
    found, failed = collect(loaded.model, prepared, options)
    if found and options.json != "-":
        show(found, names)
    if options.json:
        output.write_json(options.json, report(loaded, prepared, found, failed, names, options))
    if drawing and found:
        output.write_picture(options.plot, drawing.png(drawing.contact_sheet(found, names)))
        if len(found) > drawing.MOST_ON_SHEET:
            output.notice(f"{options.plot}: the first {drawing.MOST_ON_SHEET} of {len(found):,} pictures")
    elif drawing:
        output.notice(f"{options.plot}: is not written, there is nothing to draw")
    return 1 if failed else 0


def collect(model: Any, prepared: Preparation,
            options: argparse.Namespace) -> tuple[list[Prediction], list[Unreadable]]:
    """What can be read, and what cannot, which is told at once."""
    found: list[Prediction] = []
    failed: list[Unreadable] = []
    with progress.ImagesDisplay("predicting", None, options.quiet or options.json == "-") as display:
        for answer in predict(model, options.images, prepared, options.top, options.limit):
            if isinstance(answer, Unreadable):
                failed.append(answer)
                display.warn(output.printable(f"alexnet-mf: {answer.name}: {answer.reason}"))
            else:
                found.append(answer)
                display.done(len(found))
    return found, failed


def show(found: list[Prediction], names: tuple[str, ...]) -> None:
    """A row a picture."""
    rows = [[output.printable(answer.name), names[answer.labels[0]], f"{answer.probabilities[0]:.3f}",
             ", ".join(f"{names[label]} {probability:.3f}"
                       for label, probability in list(zip(answer.labels, answer.probabilities))[1:])]
            for answer in found]
    columns = 4 if any(row[3] for row in rows) else 3
    output.table(["picture", "class", "probability", "then"][:columns], [row[:columns] for row in rows], right=[2])


def read_names(path: Path, network: Network) -> tuple[str, ...]:
    """The names of the classes, from a file.

    Raises:
        DataError: where it cannot be read, or has another number of lines.
    """
    try:
        lines = files.read(path, LARGEST_CLASSES_FILE).decode("utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not a text in UTF-8") from error
    names = tuple(output.printable(line.strip()) for line in lines if line.strip())
    if len(names) != network.classes:
        raise DataError(f"{path}: names {len(names):,} classes, a line each, and {network.name} has "
                        f"{network.classes:,}")
    return names


def report(loaded: opened.Loaded, prepared: Preparation, found: list[Prediction], failed: list[Unreadable],
           names: tuple[str, ...], options: argparse.Namespace) -> dict[str, Any]:
    """The predictions as JSON values."""
    images = [{"image": answer.name, "top": [{"label": label, "class": names[label], "probability": probability}
                                             for label, probability in zip(answer.labels, answer.probabilities)]}
              for answer in found]
    return {**opened.report(loaded, options), "preprocessing": prepared.describe(), "images": images,
            "unreadable": [{"image": fault.name, "reason": fault.reason} for fault in failed]}
