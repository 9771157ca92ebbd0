"""`sweep`: train several networks, batch sizes, augmentations and seeds, and compare them."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
from pathlib import Path
from typing import Any

from alexnet_mf import api, backends
from alexnet_mf.cli import arguments, output, signals
from alexnet_mf.cli.flags import add_schema, with_flags
from alexnet_mf.data import augmentation
from alexnet_mf.errors import SweepError
from alexnet_mf.instruments.progress import Display
from alexnet_mf.instruments.records import plain
from alexnet_mf.instruments.units import duration
from alexnet_mf.models import default_backend
from alexnet_mf.plots import Picture
from alexnet_mf.sweep.plan import Plan, Training, augment_text
from alexnet_mf.sweep.record import NAME, Entry, Record, json_schema
from alexnet_mf.sweep.report import report
from alexnet_mf.sweep.run import Progress
from alexnet_mf.training.recipe import BOOK

OWN = "own"
"""Value of --lr that stands for a network's own learning rate."""
FREE = ("resume", "json", "plot", "data", "data_dir", "no_weights")
"""Flags that can be combined with --resume."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add = parser.add_argument
    add("--backend", choices=list(backends.BACKENDS), help="framework (default: the first installed)")
    add("--net", type=arguments.words, default=("alexnet",), metavar="NAME,...",
        help="networks, comma-separated: names or files (default: alexnet)")
    add("--seeds", type=arguments.seeds, default=(0,), metavar="N,...",
        help="seeds of initial weights, order of images, dropout and augmentation, comma-separated (default: 0)")
    add("--batch-size", type=arguments.counts, default=(BOOK.batch_size,), metavar="N,...",
        help=f"images per step, comma-separated (default: {BOOK.batch_size})")
    add("--augment", type=arguments.augment, action="append", metavar="NAMES",
        help=f"augmentations, comma-separated: {', '.join(augmentation.KINDS)}, or {augmentation.NONE}; repeat to "
             f"compare, as in --augment none --augment flip,crop (default: {augmentation.NONE})")
    add("--epochs", type=arguments.at_least_one, default=BOOK.epochs, metavar="N",
        help=f"passes over the training images in each training (default: {BOOK.epochs})")
    add("--lr", type=rates, action="append", metavar="RATE,...|NET=RATE,...",
        help="learning rate of SGD, or several, comma-separated, of which each setup uses the best (needs --held-out). "
             f"Repeatable: NET=RATE,... sets the rates of one network, NET={OWN} its own rate (default: each "
             "network's own rate, else the book's)")
    add("--momentum", type=float, default=0.0,
        help="momentum of SGD in each training, at least 0 and less than 1. The networks' own learning rates are for "
             "0; for any other momentum set --lr (default: 0)")
    add("--held-out", type=arguments.at_least_one, default=0, metavar="N",
        help="number of training images, chosen at random with the classes in equal shares, to compare several --lr "
             "on; "
             "the final trainings train on all images (default: none)")
    add("--lr-epochs", type=arguments.at_least_one, default=0, metavar="N",
        help="epochs of the trainings that compare several --lr (default: --epochs)")
    add("--limit-train", type=arguments.at_least_one, metavar="N",
        help="only N training images, chosen at random by the seed (default: all)")
    add("--limit-test", type=arguments.at_least_one, metavar="N",
        help="only N test images, the same for every seed (default: all)")
    arguments.add_device(parser)
    arguments.add_execution(parser)
    arguments.add_data(parser)
    add("--out", type=Path, metavar="FOLDER",
        help="folder of the sweep: new, empty, or with runs; finished runs of the sweep are not trained again "
             "(default: sweeps/DATE-TIME-BACKEND-NET)")
    add("--resume", type=Path, metavar="FOLDER|FILE",
        help="resume the sweep in this folder, or of this record (--json): train what is missing, resume stopped runs, "
             "and retry trainings that were killed or did not fit (default: a new sweep)")
    add("--no-weights", action="store_true",
        help="remove the weights of finished runs, with --resume also of earlier ones (default: keep them)")
    arguments.add_json(parser)
    add_schema(parser, json_schema)
    add("--plot", type=Path, metavar="FILE",
        help="draw accuracy by epoch, or by batch size with throughput and memory, as PNG; needs matplotlib")


def rates(text: str) -> tuple[str, tuple[float, ...]]:
    """Parse comma-separated learning rates; return their network, or "" for all others, and the rates."""
    net, _, numbers = text.rpartition("=")
    if numbers == OWN:
        return net, ()
    try:
        return net, arguments.comma_separated(float)(numbers)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be numbers, comma-separated, or {OWN}, not {numbers!r}") from error


def run(options: argparse.Namespace) -> int:
    """Train, print the report, and return the exit code: 129 after SIGHUP."""
    try:
        with signals.hang_up_raises():
            return train(options)
    except signals.HungUp:
        output.notice("alexnet-mf: stopped by SIGHUP")
        return 128 + signal.SIGHUP


def train(options: argparse.Namespace) -> int:
    """Train, print the report, and return the exit code."""
    drawing = Picture(options.plot, "alexnet_mf.sweep.plot") if options.plot else None
    what = read_resumed_sweep(options) if options.resume else read_new_sweep(options)
    destination = options.json or (str(options.resume) if options.resume and options.resume.is_file() else None)
    latest: list[Record] = []

    def save(record: Record) -> None:
        latest[:] = [record]
        if destination not in (None, "-") and record.trainings:
            output.write_json(destination, plain(record))

    display = SweepDisplay(options.json == "-", error=True)
    try:
        with display:
            record = api.sweep(**what, keep_weights=not options.no_weights,
                               command=options.command, report_progress=display.progress, save=save,
                               quiet=display.quiet)
    except BaseException:  # Ctrl-C too: show the finished trainings
        if latest and latest[0].trainings:
            show(latest[0], options, drawing)
        if latest and ((folder := Path(latest[0].folder)) / NAME).is_file():
            output.notice(f"resume with: alexnet-mf sweep --resume {shlex.quote(os.path.relpath(folder))}")
        raise
    return show(record, options, drawing)


def read_new_sweep(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of a new sweep.

    Raises:
        SweepError: if two --lr flags name the same network.
    """
    by_network: dict[str, tuple[float, ...]] = {}
    for net, values in options.lr or []:
        if net in by_network:
            raise SweepError(f"--lr is repeated for {net or 'all networks'}; name the learning rates once, "
                             f"comma-separated, or use --lr NET=RATE,... for one network")
        by_network[net] = values
    how = arguments.execution(options)
    plan = Plan(options.backend or default_backend(), options.net, options.seeds, options.batch_size,
                tuple(dict.fromkeys(options.augment or [()])), options.epochs, by_network.pop("", ()), by_network,
                options.held_out, options.lr_epochs, options.limit_train, options.limit_test, options.device,
                how.precision, dict(how.speed), options.momentum)
    return {"plan": plan, "out": options.out, "data": arguments.data_source(options)}


def read_resumed_sweep(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that resume a sweep.

    Raises:
        SweepError: if a flag cannot be combined with --resume.
    """
    flags = arguments.flags_on_line(add_arguments, options.command[2:])
    for name in flags:
        if name not in FREE:
            raise SweepError(f"{options.resume}: a resumed sweep has its own plan; leave out --"
                             f"{name.replace('_', '-')}, or start a new sweep")
    return {"resume": options.resume, "data": flags.get("data"), "data_dir": options.data_dir}


class SweepDisplay(Display):
    """Display with a line for each finished training and the progress of the current one."""

    def progress(self, training: Training, number: int, count: int, now: Progress) -> None:
        """Show that a training starts, continues or ends."""
        if self.quiet:
            return
        label = f"training {number}/{count}"
        what = (f"{training.net}{f', {augment_text(training.augment)}' if training.augment else ''}, batch "
                f"{training.batch_size}, lr {training.learning_rate:g}, seed {training.seed}")
        if isinstance(now, Entry):
            images = "held-out" if training.held_out else "test"
            outcome = now.failed or f"{images} accuracy {now.accuracy:.3f}"
            took = "" if now.whole_seconds is None else f" in {duration(now.whole_seconds)}"
            self.line(f"{label}: {what}: {outcome}{took}")
        elif now:
            rate, left = now["images_per_second"], now["seconds_left"]
            figures = [what, f"epoch {now['epoch']}/{now['epochs']}", f"loss {now['loss']:.3f}"]
            figures += [f"{rate:.1f} images/s", f"{duration(left)} left"] if rate and left is not None else []
            self.show(label, now["done"], 1, figures)


def show(record: Record, options: argparse.Namespace, drawing: Any) -> int:
    """Print tables, remarks and conditions. Return 1 if a final training failed."""
    content = report(record)
    if drawing and not content.outcomes:
        output.notice(f"{options.plot}: not drawn: no final training succeeded")
    elif drawing:
        drawing.save(drawing.module.png(content.outcomes))
    if options.json == "-":
        output.write_json("-", plain(record))
    else:
        for table in content.tables:
            output.table(table.columns, table.rows, right=table.right, title=table.title)
            output.say()
        for line in [*content.remarks, *([""] if content.remarks else []), *content.conditions]:
            output.say(with_flags(line, options))
    return 1 if content.failed else 0
