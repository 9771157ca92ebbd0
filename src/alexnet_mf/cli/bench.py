"""`bench`: measure the speed of backends, or report on earlier measurements."""

from __future__ import annotations

import argparse
from pathlib import Path

from msgspec import UNSET

from alexnet_mf import api, files
from alexnet_mf.bench.plan import PHASES, PRECISIONS, Plan
from alexnet_mf.bench.record import Record, json_schema
from alexnet_mf.cli import arguments, output
from alexnet_mf.cli.flags import add_schema, with_flags
from alexnet_mf.errors import BenchError
from alexnet_mf.instruments.records import plain
from alexnet_mf.plots import Picture

DEFAULTS = Plan()
REPORT_FLAGS = ("report", "markdown", "plot")
"""Flags that can be combined with --report."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add = parser.add_argument
    add("--backends", type=arguments.backend_list, default=(), metavar="NAMES",
        help="comma-separated backends (default: those of torch, tensorflow and mxnet that are installed here or named "
             "by --python)")
    arguments.add_network(parser, arguments.OWN_TAB)
    add("--batch-size", type=arguments.counts, default=DEFAULTS.batch_sizes, metavar="N,...",
        help=f"batch sizes in images, comma-separated (default: {DEFAULTS.batch_sizes[0]})")
    add("--precision", type=arguments.words, default=DEFAULTS.precisions, metavar="NAMES",
        help=f"precisions, comma-separated: {', '.join(PRECISIONS)}; not every backend and device has all (default: "
             "float32 without TF32; in numpy float64)")
    add("--phases", type=arguments.words, default=DEFAULTS.phases, metavar="NAMES",
        help=f"comma-separated: {'; '.join(f'{name} ({what})' for name, what in PHASES.items())} (default: all)")
    add("--rounds", type=arguments.at_least_one, default=DEFAULTS.rounds, metavar="N",
        help=f"samples of each phase; a confidence interval needs 6 (default: {DEFAULTS.rounds})")
    add("--sample-seconds", type=arguments.positive, default=DEFAULTS.sample_seconds, metavar="S",
        help="shortest length of a sample, in seconds; short calls are repeated "
             f"(default: {DEFAULTS.sample_seconds})")
    add("--epoch-batches", type=arguments.at_least_one, default=DEFAULTS.epoch_batches, metavar="N",
        help=f"batches in the phase epoch; the first is not timed (default: {DEFAULTS.epoch_batches})")
    add("--beside", type=arguments.at_least_one, default=DEFAULTS.beside, metavar="N",
        help="also measure a training step while N other processes keep the CPU busy (default: none)")
    add("--seed", type=arguments.seed, default=DEFAULTS.seed,
        help=f"seed of weights, images, dropout and the order of the samples (default: {DEFAULTS.seed})")
    add("--data", metavar="PATH",
        help="images of your own, as for `train --data`; the network gets their classes and channels, and `input` "
             "reads a "
             "batch from memory or disk if the set streams (default: drawn images)")
    arguments.add_data_options(parser)
    add("--no-book", action="store_true", help="do not measure the book's own code")
    arguments.add_settings(parser)
    add("--ablate", type=arguments.words, default=(), metavar="NAMES",
        help="speed settings, comma-separated: also measure each backend without each of them, to show what it "
             "gains (default: none)")
    add("--try", type=arguments.words, default=(), dest="tried", metavar="NAMES",
        help="speed settings that are off by default, comma-separated: also measure each backend with each of them; "
             "compile+fused tries two together (default: none)")
    arguments.add_interpreters(parser)
    add("--report", nargs="+", type=Path, metavar="FILE",
        help="measure nothing; report on the JSON files of earlier runs, on any machine (default: measure)")
    add("--markdown", metavar="FILE",
        help="write the report as Markdown to a file; - prints the Markdown and nothing else (default: none)")
    add("--plot", type=Path, metavar="FILE", help="draw the report as PNG; needs matplotlib")
    arguments.add_json(parser)
    add_schema(parser, json_schema)


def run(options: argparse.Namespace) -> int:
    """Measure or read records, and report; return the exit code, 1 if a measurement failed."""
    if options.json == "-" and options.markdown == "-":
        raise BenchError("--json - and --markdown - cannot share standard output; name a file for one of them")
    unused = [flag for flag in arguments.flags_on_line(add_arguments, options.command[2:]) if flag not in REPORT_FLAGS]
    if options.report and unused:
        raise BenchError(f"--report measures nothing; leave out `{unused[0]}`")
    picture = Picture(options.plot, "alexnet_mf.bench.plot") if options.plot else None
    report = api.bench_report(options.report or [measure(options)])
    if picture:
        picture.save(picture.module.png(report.rows))
    if options.markdown == "-":
        output.say(report.markdown().rstrip("\n"))
    elif options.markdown:
        files.write_result(options.markdown, report.markdown().encode())
    if "-" in (options.json, options.markdown):
        for failure in report.failures:
            output.notice(with_flags(failure, options))
    else:
        for table in report.tables:
            output.table(table.columns, table.rows, right=table.right, title=table.title)
            output.say()
        for line in [*report.conclusions, "", *report.conditions]:
            output.say(with_flags(line, options))
    return 1 if report.failures else 0


def measure(options: argparse.Namespace) -> Record:
    """Run the benchmark. Write the JSON file, if there is one, after each round."""
    latest: list[Record] = []

    def save(record: Record) -> None:
        latest[:] = [record]
        if options.json and options.json != "-":
            output.write_json(options.json, plain(record))

    try:
        return api.bench(plan(options), pythons=arguments.interpreters(options.python), save=save,
                         command=options.command, report_progress=output.show_progress)
    except BaseException:
        if latest and options.json and options.json != "-":
            output.notice(f"{options.json} has the samples so far; to show them: bench --report {options.json}")
        raise
    finally:
        if options.json == "-" and latest:
            output.write_json("-", plain(latest[0]))


def plan(options: argparse.Namespace) -> Plan:
    """Return the plan that the flags describe."""
    return Plan(tuple(options.backends), options.net, options.device, options.batch_size, options.precision,
                options.phases, options.rounds, not options.no_book, arguments.speed(options), options.ablate,
                options.tried, options.sample_seconds, options.epoch_batches, options.beside, options.seed,
                arguments.data_source(options) or UNSET)
