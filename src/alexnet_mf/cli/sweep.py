"""`sweep`: trainings side by side, by network, batch size, augmentation and seed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_mf import backends, files
from alexnet_mf.cli import output
from alexnet_mf.cli.arguments import (
    add_data,
    add_execution,
    add_json,
    at_least_one,
    augment,
    comma_separated,
    counts,
    execution,
    given_flags,
    seeds,
    words,
)
from alexnet_mf.cli.flags import add_schema
from alexnet_mf.data import augmentation
from alexnet_mf.errors import SweepError
from alexnet_mf.instruments.progress import Display, DownloadDisplay
from alexnet_mf.instruments.records import plain, to_json
from alexnet_mf.instruments.units import duration
from alexnet_mf.models import default_backend
from alexnet_mf.plots import Picture
from alexnet_mf.sweep.plan import Plan, Training
from alexnet_mf.sweep.record import Entry, Record, json_schema, load
from alexnet_mf.sweep.report import Report, augment_text, report
from alexnet_mf.sweep.run import Progress, sweep
from alexnet_mf.training.recipe import BOOK

OWN = "own"
"""In place of a learning rate: the network's own."""
FREE = ("resume", "json", "plot", "data_dir")
"""Options that do not decide what is trained."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    add = parser.add_argument
    add("--backend", choices=list(backends.BACKENDS), help="framework (default: the first installed)")
    add("--net", type=words, default=("alexnet",), metavar="NAME,...",
        help="networks, comma-separated: names or files (default: alexnet)")
    add("--seeds", type=seeds, default=(0,), metavar="N,...",
        help="of initial weights, order of images, dropout and augmentation, comma-separated (default: 0)")
    add("--batch-size", type=counts, default=(BOOK.batch_size,), metavar="N,...",
        help=f"images a step, comma-separated (default: {BOOK.batch_size})")
    add("--augment", type=augment, action="append", metavar="KINDS",
        help=f"train with these, comma-separated: {', '.join(augmentation.KINDS)}, or {augmentation.NONE}; repeatable, "
             f"to compare: --augment none --augment flip,crop (default: {augmentation.NONE})")
    add("--epochs", type=at_least_one, default=BOOK.epochs, metavar="N",
        help=f"passes over the training images, the same for all (default: {BOOK.epochs})")
    add("--lr", type=rates, action="append", metavar="RATE,...|NET=RATE,...",
        help="learning rate of SGD; of several, comma-separated, each setup takes the one that is best on the images "
             f"that --held-out holds out. Repeatable: for one of the networks with NET=, of which {OWN} is its own "
             "(default: each network's own, by the book where that has one)")
    add("--momentum", type=float, default=0.0,
        help="momentum of SGD, 0 up to but not including 1, the same for all; rates are the network's own without it: "
             "name or choose others with --lr (default: 0)")
    add("--held-out", type=at_least_one, default=0, metavar="N",
        help="to choose among several --lr: train without the last N training images, and test on those; the trainings "
             "that count see them (default: none)")
    add("--lr-epochs", type=at_least_one, default=0, metavar="N",
        help="epochs of the trainings that try an --lr (default: --epochs)")
    add("--limit-train", type=at_least_one, metavar="N", help="the first N training images only (default: all)")
    add("--limit-test", type=at_least_one, metavar="N", help="the first N test images only (default: all)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto, a GPU where there is one)")
    add_execution(parser)
    add_data(parser)
    add("--resume", type=Path, metavar="FILE",
        help="go on with a sweep from its JSON file, which grows, and try again what was ended or did not "
             "fit; what is in it decides all else (default: a new one)")
    add_json(parser)
    add_schema(parser, json_schema)
    add("--plot", type=Path, metavar="FILE",
        help="draw accuracy by epoch, or by batch size with throughput and memory, as PNG; takes matplotlib")


def rates(text: str) -> tuple[str, tuple[float, ...]]:
    """Comma-separated learning rates from the command line, and whose they are: a network's, or "", all others'."""
    net, _, given = text.rpartition("=")
    if given == OWN:
        return net, ()
    try:
        return net, comma_separated(float)(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be numbers, comma-separated, or {OWN}, not {given!r}") from error


def rates_by_network(given: Sequence[tuple[str, tuple[float, ...]]]) -> dict[str, tuple[float, ...]]:
    """All --lr, by network; "" is all others.

    Raises:
        SweepError: where two are for the same.
    """
    found = dict(given)
    if len(found) < len(given):
        net = next(net for i, (net, _) in enumerate(given) if net in dict(given[:i]))
        raise SweepError(f"--lr is there twice for {net or 'all networks'}: name its learning rates once, "
                         f"comma-separated; for one network of several: --lr NET=RATE,...")
    return found


def run(options: argparse.Namespace) -> int:
    """Carry it out; the exit code."""
    drawing = Picture(options.plot, "alexnet_mf.sweep.plot") if options.plot else None
    if options.json and not options.resume:
        check_new(Path(options.json))
    plan: Plan | Record = resumed(options) if options.resume else begun(options)
    destination = options.json or (str(options.resume) if options.resume else None)
    latest: list[Record] = []

    def save(record: Record) -> None:
        latest[:] = [record]
        if destination and destination != "-":
            write(Path(destination), to_json(record))

    display = SweepDisplay(options.json == "-", error=True)
    try:
        with display:
            record = sweep(plan, data_name=options.data, data_dir=options.data_dir,
                           command=["alexnet-mf", *options.words], notify=output.notice,
                           report_progress=display.progress,
                           download=DownloadDisplay("Fashion-MNIST", options.json == "-"), save=save)
    except BaseException:  # Ctrl-C too: what is finished is kept, and shown
        if latest and latest[0].trainings:
            tell(latest[0], options, drawing)
            if destination and destination != "-":
                output.notice(f"resume with: alexnet-mf sweep --resume {destination}")
        raise
    return tell(record, options, drawing)


def begun(options: argparse.Namespace) -> Plan:
    """What was asked for, checked."""
    name = options.backend or default_backend()
    how = execution(options)
    augments = tuple(dict.fromkeys(options.augment or [()]))
    by_network = rates_by_network(options.lr or [])
    for_all = by_network.pop("", ())
    return Plan(name, options.net, options.seeds, options.batch_size, augments, options.epochs, for_all, by_network,
                options.held_out, options.lr_epochs, options.limit_train, options.limit_test, options.device,
                how.precision, tuple(sorted(how.without)), tuple(sorted(how.also)), options.momentum)


def resumed(options: argparse.Namespace) -> Record:
    """The record of a sweep to resume.

    Raises:
        SweepError: if it cannot be read, or a flag contradicts it.
    """
    for name in given_flags(add_arguments, options.words[1:]):
        if name not in FREE:
            raise SweepError(f"--resume takes all that decides the trainings from {options.resume}: leave out "
                             f"--{name.replace('_', '-')}, or start a new sweep")
    record = load(options.resume)
    files.check_writable(options.resume)
    return record


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    try:
        files.write(path, content)
    except OSError as error:
        raise SweepError(f"{path}: cannot be written ({error.strerror}); name another file") from error


def check_new(path: Path) -> None:
    """Refuse to overwrite a sweep: it may have taken hours.

    Raises:
        SweepError: if the file holds one.
    """
    try:
        record = load(path) if path.is_file() else None
    except SweepError:
        return
    if record and record.trainings:
        raise SweepError(f"{path}: holds a sweep of {len(record.trainings)} trainings; resume it (--resume {path}), "
                         f"or name another file")


class SweepDisplay(Display):
    """A line for each training that is over, and how far the one is that is not."""

    def progress(self, training: Training, number: int, count: int, now: Progress) -> None:
        """Show that a training starts, continues or ends."""
        if self.quiet:
            return
        label = f"training {number}/{count}"
        what = f"{training.net}, {augment_text(training.augment)}, batch {training.batch_size}, lr " \
               f"{training.learning_rate:g}, seed {training.seed}{' (held out)' if training.held_out else ''}"
        if isinstance(now, Entry):
            outcome = now.failed or f"accuracy {now.accuracy:.3f}"
            self.line(f"{label}: {what}: {outcome} in {duration(now.whole_seconds)}")
        elif now:
            rate, left = now["images_per_second"], now["seconds_left"]
            figures = [what, f"epoch {now['epoch']}/{now['epochs']}", f"loss {now['loss']:.3f}"]
            figures += [f"{rate:.1f} images/s", f"{duration(left)} left"] if rate and left is not None else []
            self.show(label, now["done"], 1, figures)


def tell(record: Record, options: argparse.Namespace, drawing: Any) -> int:
    """Print tables, remarks and conditions; 1 where a training that counts failed."""
    found = report(record)
    if drawing and not found.outcomes:
        output.notice(f"{options.plot}: not drawn: no training that counts went well")
    elif drawing:
        drawing.save(drawing.module.png(found.outcomes))
    if options.json == "-":
        output.write_json("-", plain(record))
    else:
        show(found)
    return 1 if found.failed else 0


def show(found: Report) -> None:
    """All of it on standard output."""
    for table in found.tables:
        output.table(table.columns, table.rows, right=table.right, title=table.title)
        output.say()
    for line in [*found.remarks, *([""] if found.remarks else []), *found.conditions]:
        output.say(line)
