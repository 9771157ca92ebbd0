"""Flags that mean the same in every verb."""

from __future__ import annotations

import argparse
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_mf import backends
from alexnet_mf.backends.execution import LEFT_OUT, PRECISIONS, SPEED_SETTINGS, Execution, left_out
from alexnet_mf.cli import output
from alexnet_mf.data import DATASETS, augmentation
from alexnet_mf.errors import AlexnetMfError, BackendUnavailable
from alexnet_mf.spec import zoo


def first_installed() -> str:
    """The backend for those who name none, who are told.

    Raises:
        BackendUnavailable: where no framework is installed; says how to get one.
    """
    name = backends.default()
    output.notice(f"taking --backend {name}, the first installed of {', '.join(backends.FRAMEWORKS)}")
    return name


def add_network(parser: argparse.ArgumentParser, several: str = "") -> None:
    """--net and --device.

    Args:
        several: what the help says of more than one network, for a verb that takes them.
    """
    parser.add_argument("--net", default="alexnet",
                        help=f"network: {', '.join(zoo.NETWORKS)}; or a file of your own that ends in .toml"
                             f"{several} (default: alexnet)")
    parser.add_argument("--device", default="auto",
                        help="auto, cpu, cuda or cuda:N (default: auto, a GPU where there is one)")


def add_execution(parser: argparse.ArgumentParser) -> None:
    """--precision, and two flags for each speed setting: with it, without it."""
    parser.add_argument("--precision", choices=PRECISIONS,
                        help="of the factors in convolutions and matrix products; weights stay float32, and float32 is "
                             "IEEE's, without TF32 (default: float32; in numpy float64)")
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Two flags for each speed setting: with it, without it."""
    for name in SPEED_SETTINGS:
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=None,
                            help=f"with or without the speed setting {name} (default: as the backend's table has it "
                                 f"for the device: backends/NAME/speed.py)")


def switched(options: argparse.Namespace, on: bool) -> list[str]:
    """The speed settings that were asked for, or asked to be left out."""
    return [name for name in SPEED_SETTINGS if getattr(options, name) is on]


def execution(options: argparse.Namespace) -> Execution:
    """What those flags say. To be asked before a backend is loaded: some settings are decided then."""
    without = switched(options, False)
    if without:
        os.environ[LEFT_OUT] = ",".join(sorted({*left_out(), *without}))
    return Execution(options.precision, frozenset(without), frozenset(switched(options, True)))


def add_source(parser: argparse.ArgumentParser) -> None:
    """--data, --data-dir and --seed."""
    add_data(parser)
    parser.add_argument("--seed", type=seed, default=0,
                        help="of initial weights, order of images and dropout (default: 0)")


def add_data(parser: argparse.ArgumentParser) -> None:
    """--data and --data-dir."""
    parser.add_argument("--data", choices=list(DATASETS), default="auto",
                        help="auto takes Fashion-MNIST where it can, else the synthetic set (default: auto)")
    parser.add_argument("--data-dir", type=Path, metavar="FOLDER",
                        help="folder with the four Fashion-MNIST files, .gz or unpacked (default: "
                             "$ALEXNET_MF_DATA_DIR, else the user's cache, downloaded if need be)")


def add_augment(parser: argparse.ArgumentParser) -> None:
    """--augment, for one training."""
    parser.add_argument("--augment", type=augment, metavar="KINDS",
                        help=f"change the training images at random, comma-separated: {', '.join(augmentation.KINDS)}; "
                             f"or {augmentation.NONE} (default: {augmentation.NONE}, as in the chapter's code)")


def augment(text: str) -> tuple[str, ...]:
    """Kinds of augmentation from the command line."""
    if text == augmentation.NONE:
        return ()
    try:
        return augmentation.check(word.strip() for word in text.split(","))
    except AlexnetMfError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", metavar="FILE",
                        help="write the result as JSON (- for standard output, and nothing else)")


def add_interpreters(parser: argparse.ArgumentParser) -> None:
    """--python; `interpreters` reads it."""
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH",
                        help="the interpreter of a backend that lives in another environment (repeatable)")


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


def interpreters(texts: list[str]) -> dict[str, str]:
    """NAME=PATH pairs."""
    pairs = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or name not in backends.BACKENDS or not path:
            raise AlexnetMfError(f"--python takes NAME=PATH with a backend's name ({', '.join(backends.BACKENDS)}), "
                                 f"not {text!r}")
        pairs[name] = path
    return pairs


def check_interpreters(names: Sequence[str], pythons: Mapping[str, str]) -> None:
    """Make sure that each backend of a run has an interpreter: the one named for it, or this one.

    Raises:
        BackendUnavailable: where one cannot be run, or none has the backend.
        AlexnetMfError: where one is named for a backend that takes no part.
    """
    for name, path in pythons.items():
        if shutil.which(path) is None:
            raise BackendUnavailable(f"backend {name}: {path} cannot be run (no such program); see --python")
        if name not in names:
            raise AlexnetMfError(f"--python {name}=... is for a backend that takes no part; add it to --backends")
    for name in names:
        if name not in pythons and not backends.is_installed(name):
            raise BackendUnavailable(f"backend {name}: not installed here; {backends.BACKENDS[name].install}, or name "
                                     f"an interpreter that has it: --python {name}=PATH")


def given_flags(add_arguments: Callable[[argparse.ArgumentParser], None], words: list[str]) -> dict[str, Any]:
    """A verb's flags that were named, be it with their default."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser)
    missing = object()
    parser.set_defaults(**dict.fromkeys(vars(parser.parse_args([])), missing))
    return {name: value for name, value in vars(parser.parse_args(words)).items() if value not in (missing, None)}
