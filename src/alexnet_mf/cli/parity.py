"""`parity`: compare backends on the same inputs; `parity trace` and `parity compare`, its two halves."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_mf import api, backends
from alexnet_mf.cli import arguments, output
from alexnet_mf.cli.flags import add_schema
from alexnet_mf.errors import AlexnetMfError
from alexnet_mf.instruments.records import plain
from alexnet_mf.instruments.units import listed
from alexnet_mf.parity.record import Record, Several, json_schema, make_record
from alexnet_mf.parity.tolerances import TIERS
from alexnet_mf.spec import zoo
from alexnet_mf.spec.toml import find_network

if TYPE_CHECKING:
    from alexnet_mf.parity.ladder import Rung
    from alexnet_mf.parity.run import Report

ALL = "all"
"""Word for all built-in networks that are the same in every backend."""

IN_BRIEF = ("layer outputs", "logits and loss", "gradients", "SGD steps")
"""The rungs in the table of several networks."""

LEGEND = """Each cell compares a backend with the float64 reference (numpy): relative error / tolerance of the value
closest to its tolerance, or "equal". A RED cell shows the first value above its tolerance, and its place."""

DROPOUT = "In dropout, the error of a share is absolute: the dropped share minus the layer's rate."

NEAR_TIES = """Near ties are values so close that rounding decides which of them max pooling or ReLU passes.
The reference repeats the computation with the backend's decisions."""

TIER_HELP = f"precision that sets the tolerances: {', '.join(TIERS)} (default: float32)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the whole ladder, and the two halves as verbs of their own."""
    halves = parser.add_subparsers(dest="half", metavar="{trace,compare}", parser_class=type(parser))
    trace = halves.add_parser("trace", help="write what one backend computes",
                              description="Write what one backend computes.")
    add_plan(trace)
    trace.add_argument("--backend", required=True, choices=list(backends.BACKENDS), help="the backend to ask")
    trace.add_argument("--out", required=True, type=Path, metavar="FILE",
                       help="the trace, safetensors with a JSON header")
    trace.add_argument("--continue-from", type=Path, metavar="TRACE",
                       help="continue training from the last weights in another backend's trace "
                            "(default: from its own)")
    trace.set_defaults(run=run_trace)
    compare = halves.add_parser("compare", help="compare traces from any machine",
                                description="Compare traces from any environment or machine with the reference.")
    compare.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="files of `parity trace`; the reference "
                         "(numpy) is computed if its trace is missing")
    compare.add_argument("--tier", choices=list(TIERS), default="float32", help=TIER_HELP)
    arguments.add_json(compare)
    compare.set_defaults(run=run_compare)
    parser.add_argument("--backends", type=arguments.backend_list, metavar="NAMES",
                        help="comma-separated backends (default: all that are installed here or named by --python)")
    add_plan(parser, f"; several, comma-separated, or {ALL}, give a short table")
    arguments.add_interpreters(parser)
    parser.add_argument("--keep", type=Path, metavar="FOLDER",
                        help="keep the traces in this folder (default: they are deleted)")
    parser.add_argument("--tier", choices=list(TIERS),
                        help="precision that sets the tolerances (default: that of --precision)")
    arguments.add_json(parser)
    add_schema(parser, json_schema)


def add_plan(parser: argparse.ArgumentParser, several: str = "") -> None:
    """Add --net, --device, the flags of `add_execution` and `add_source`, --batch-size, --steps and --images.

    Args:
        several: help on more than one network.
    """
    arguments.add_network(parser, arguments.OWN_TAB + several)
    arguments.add_execution(parser)
    arguments.add_source(parser)
    for flag, default, what in (("--batch-size", 4, "images in the forward and backward pass, and in each SGD step"),
                                ("--steps", 6, "SGD steps to compare"),
                                ("--images", 64, "test images to classify; at least batch size x (steps + 3)")):
        parser.add_argument(flag, type=arguments.at_least_one, default=default, metavar="N",
                            help=f"{what} (default: {default})")


def run(options: argparse.Namespace) -> int:
    """Compare backends on one network or several; return the exit code, 1 if parity does not hold."""
    nets = net_names(options.net)
    if len(nets) == 1:
        return show(climb(nets[0], options, options.keep), options)
    records: dict[str, Record] = {}  # a report itself keeps gigabytes of traces
    rows: list[list[str]] = []
    try:
        for number, net in enumerate(nets, 1):
            report = climb(net, options, options.keep and options.keep / f"{number}-{Path(net).stem}")
            if options.json != "-":
                output.say(f"{net}: {verdict(report)}")
                say_diagnoses(report)
            records[net] = make_record(report)
            rows += brief_rows(net, report)
    except BaseException:  # Ctrl-C too: it may have taken an hour
        if records:
            show_several(records, rows, options)
        raise
    return show_several(records, rows, options)


def brief_rows(net: str, report: Report) -> list[list[str]]:
    """Return for each backend the number of rungs passed, and the cells of `IN_BRIEF`."""
    rows = [["", name, f"{sum(rung.holds for rung in rungs)} of {len(rungs)}",
             *(cell(rung) for rung in rungs if rung.name in IN_BRIEF)] for name, rungs in report.rungs.items()]
    rows[0][0] = net
    return rows


def net_names(text: str) -> list[str]:
    """Parse --net: comma-separated networks, or `ALL` for every network that is the same in all backends.

    Raises:
        SpecError: if one cannot be found or read.
    """
    if text == ALL:
        return [name for name in zoo.NETWORKS if not name.startswith(zoo.TAB)]
    names = [text] if Path(text).is_file() else list(dict.fromkeys(text.split(",")))
    for name in names:
        find_network(name, "torch")
    return names


def climb(net: str, options: argparse.Namespace, keep: Path | None) -> Report:
    """Compare all backends on one network."""
    def show_progress(line: str) -> None:
        if options.json != "-" and sys.stdout.isatty():
            output.notice(f"{line} ...")

    return api.parity(net, options.backends, seed=options.seed, data=arguments.data_source(options) or "auto",
                      images=options.images, batch_size=options.batch_size, steps=options.steps, device=options.device,
                      execution=arguments.execution(options), tier=options.tier, keep=keep,
                      pythons=arguments.interpreters(options.python), command=options.command,
                      report_progress=show_progress)


def check_flags_follow(options: argparse.Namespace) -> None:
    """Check that no flag stands before `trace` or `compare`, whose own defaults would replace it.

    Raises:
        AlexnetMfError: if one does.
    """
    if options.command[1:3] != ["parity", options.half]:
        raise AlexnetMfError(f"flags before {options.half} do not apply to it; write them after it: parity "
                             f"{options.half} ...")


def run_trace(options: argparse.Namespace) -> int:
    """Write what one backend computes; return the exit code."""
    check_flags_follow(options)
    trace = api.parity_trace(
        options.out, options.backend, options.net, seed=options.seed,
        data=arguments.data_source(options) or "auto", images=options.images, batch_size=options.batch_size,
        steps=options.steps, device=options.device, execution=arguments.execution(options),
        continue_from=options.continue_from)
    case = trace.case()
    output.say(f"{options.out}: {options.backend} on {trace.meta['device']}, {case.origin}, seed {case.seed}")
    return 0


def run_compare(options: argparse.Namespace) -> int:
    """Compare traces from anywhere; return the exit code, 1 if parity does not hold."""
    check_flags_follow(options)
    return show(api.parity_compare(options.traces, options.tier, command=options.command), options)


def show(report: Report, options: argparse.Namespace) -> int:
    """Print rungs by backend, pairs, diagnoses and the verdict; return the exit code."""
    if options.json != "-":
        names = list(report.rungs)
        rows = [[str(rungs[0].number), rungs[0].name, *(cell(rung) for rung in rungs)]
                for rungs in zip(*report.rungs.values())]
        case = report.reference.case
        output.table(["", "rung", *names], rows, right=[0],
                     title=f"{case.network.name}, {case.origin}, seed {case.seed}")
        output.say(LEGEND)
        output.say(DROPOUT)
        output.say()
        say_notes(report)
        if report.pairs:
            output.table(["pair", "pixels", "outputs", "gradients"], [
                [f"{p.first} - {p.second}", "equal" if p.pixels_equal else "differ", f"{p.output:.1e} ({p.layer})",
                 f"{p.gradient:.1e} ({p.parameter})"] for p in report.pairs],
                title="Largest relative difference (L2) between two backends, near ties included, and its place")
            output.say()
        say_diagnoses(report)
        output.say(verdict(report))
    if options.json:
        output.write_json(options.json, plain(make_record(report)))
    return 0 if report.holds else 1


def show_several(records: dict[str, Record], rows: list[list[str]], options: argparse.Namespace) -> int:
    """Print one table and one verdict; return the exit code."""
    red = [net for net, record in records.items() if not record.holds]
    if options.json != "-":
        output.say()
        output.table(["network", "backend", "rungs passed", *IN_BRIEF], rows, title=f"seed {options.seed}")
        output.say(LEGEND)
        output.say()
        output.say(f"parity does not hold in {', '.join(red)}" if red else f"parity holds in {', '.join(records)}")
    if options.json:
        output.write_json(options.json, plain(Several(holds=not red, networks=records)))
    return 1 if red else 0


def say_diagnoses(report: Report) -> None:
    """Print the diagnosis of each backend."""
    for name, sentences in report.diagnoses.items():
        for sentence in sentences:
            output.say(f"{name}: {sentence}")


def cell(rung: Rung) -> str:
    """Return the measurement closest to its tolerance, `4.1e-07 / 2e-06`, or the first failed one, `RED 5.0e-02 / 2e-06
    conv1`."""
    shown = rung.worst if rung.holds else rung.failures[0]
    if shown.tolerance == 0:
        return "equal" if rung.holds else f"RED {shown.where}"
    figures = f"{shown.error:.1e} / {shown.tolerance:.0e}"
    return figures if rung.holds else f"RED {figures} {shown.where}"


def say_notes(report: Report) -> None:
    """Print the notes of the rungs, each once with its backends."""
    backends_by_note: dict[str, list[str]] = {}
    for name, rungs in report.rungs.items():
        for rung in rungs:
            if rung.note:
                backends_by_note.setdefault(f"{rung.name}: {rung.note}", []).append(name)
    for note, names in backends_by_note.items():
        output.say(f"{note} ({', '.join(names)})")
    if any("near tie" in note for note in backends_by_note):
        output.say(NEAR_TIES)
    output.say()


def verdict(report: Report) -> str:
    """Return the verdict in one line."""
    if report.holds:
        who = listed([name for name in report.rungs if name != "numpy"] or ["numpy"])
        return f"parity holds: same function, same training steps as the float64 reference in {who}"
    red = [f"{name} fails at rung {next(rung.name for rung in rungs if not rung.holds)!r}"
           for name, rungs in report.rungs.items() if not all(rung.holds for rung in rungs)]
    return f"parity does not hold: {'; '.join(red)}"
