"""Flags that mean the same in every verb."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from alexnet_mf import backends, spec
from alexnet_mf.backends.base import LEFT_OUT, PRECISIONS, SPEED_SETTINGS, Execution, left_out
from alexnet_mf.data import DATASETS


def add_network(parser: argparse.ArgumentParser) -> None:
    """--net and --device."""
    parser.add_argument("--net", default="alexnet", help=f"network: {', '.join(spec.NETWORKS)} (default: alexnet)")
    parser.add_argument("--device", default="auto",
                        help="auto, cpu, cuda or cuda:N (default: auto, a GPU where there is one)")


def add_execution(parser: argparse.ArgumentParser) -> None:
    """--precision, and a flag for each speed setting that leaves it out."""
    parser.add_argument("--precision", choices=PRECISIONS,
                        help="of the factors in convolutions and matrix products; weights stay float32, and float32 is "
                             "IEEE's, without TF32 (default: float32; in numpy float64)")
    for name in SPEED_SETTINGS:
        parser.add_argument(f"--no-{name.replace('_', '-')}", dest="without", action="append_const", const=name,
                            help=f"without the backend's speed setting {name} (default: with all that it has for the "
                                 f"device: backends/NAME/speed.py)")


def execution(options: argparse.Namespace) -> Execution:
    """What those flags say. To be asked before a backend is loaded: some settings are decided then."""
    if options.without:
        os.environ[LEFT_OUT] = ",".join(sorted({*left_out(), *options.without}))
    return Execution(options.precision, frozenset(options.without or ()))


def execution_flags(options: argparse.Namespace) -> list[str]:
    """The same as words for another process."""
    precision = ["--precision", options.precision] if options.precision else []
    return [*precision, *(f"--no-{name.replace('_', '-')}" for name in options.without or ())]


def add_source(parser: argparse.ArgumentParser) -> None:
    """--data, --data-dir and --seed."""
    parser.add_argument("--data", choices=list(DATASETS), default="auto",
                        help="auto takes Fashion-MNIST where it can, else the synthetic set (default: auto)")
    parser.add_argument("--data-dir", type=Path, metavar="FOLDER",
                        help="folder with the four Fashion-MNIST files, .gz or unpacked (default: "
                             "$ALEXNET_MF_DATA_DIR, else the user's cache, downloaded if need be)")
    parser.add_argument("--seed", type=seed, default=0,
                        help="of initial weights, order of images and dropout (default: 0)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", metavar="FILE",
                        help="write the result as JSON (- for standard output, and nothing else)")


def seed(text: str) -> int:
    """A seed from the command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, not {text!r}")
    return int(text)


def minutes(text: str) -> float:
    """A time from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def at_least_one(text: str) -> int:
    """A count from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


def backend_list(text: str) -> list[str]:
    """Comma-separated backends from the command line."""
    names = text.split(",")
    for name in names:
        if name not in backends.BACKENDS:
            raise argparse.ArgumentTypeError(f"unknown backend {name!r}; known: {', '.join(backends.BACKENDS)}")
    return list(dict.fromkeys(names))
