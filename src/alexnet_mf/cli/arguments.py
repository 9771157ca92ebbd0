"""Flags that several verbs share."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from alexnet_mf import backends, files
from alexnet_mf.backends.execution import PRECISIONS, SPEED_SETTINGS, Execution
from alexnet_mf.conversion import RUN_WEIGHTS
from alexnet_mf.data import DATASETS, DataSource, augmentation
from alexnet_mf.errors import AlexnetMfError, DataError, one_line
from alexnet_mf.spec import zoo
from alexnet_mf.training.record import is_run
from alexnet_mf.training.run import read_record

T = TypeVar("T")

LARGEST_CLASSES_FILE = 1_000_000

OWN_TAB = "; or alexnet-tab, each backend's own tab"
"""Help on --net for verbs that take the word `alexnet-tab`."""


def add_network(parser: argparse.ArgumentParser, several: str = "", default: str | None = "alexnet",
                meaning: str = "alexnet") -> None:
    """Add --net and --device.

    Args:
        several: help on more than one network, for a verb that takes them.
        meaning: the default in words.
    """
    parser.add_argument("--net", default=default,
                        help=f"network: {', '.join(zoo.NETWORKS)}; or a file of your own that ends in .toml"
                             f"{several} (default: {meaning})")
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", default="auto",
                        help="auto, cpu, cuda, cuda:N or mps (default: auto, a GPU if there is one)")


def add_which(parser: argparse.ArgumentParser) -> None:
    """Add --which, for a run folder."""
    parser.add_argument("--which", choices=list(RUN_WEIGHTS), default="last",
                        help="weights to take from a run folder: last, or best: highest test accuracy (optimistic: "
                             "chosen on the test set) (default: last)")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add RUN|WEIGHTS, --which, --net, --backend, --device, --precision and the speed settings."""
    add = parser.add_argument
    add("source", type=Path, metavar="RUN|WEIGHTS",
        help="run folder, or weights file of any format that `convert` reads")
    add_which(parser)
    add("--net", help="network, by name or from a file that ends in .toml (default: the network that the weights file "
        "names or describes)")
    add("--backend", choices=list(backends.BACKENDS),
        help="framework (default: the run's or the file's own, else the first installed of "
             f"{', '.join(backends.FRAMEWORKS)})")
    add_device(parser)
    add_execution(parser)


def add_execution(parser: argparse.ArgumentParser) -> None:
    """Add --precision, and two flags for each speed setting: --NAME and --no-NAME."""
    parser.add_argument("--precision", choices=PRECISIONS,
                        help="precision of convolutions and matrix products; weights stay float32 (default: float32 "
                             "without TF32; in numpy float64)")
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add two flags for each speed setting: --NAME and --no-NAME."""
    group = parser.add_argument_group("speed settings", "on or off by default as measured for the backend and the "
                                      "device, see backends/BACKEND/speed.py")
    for name, effect in SPEED_SETTINGS.items():
        group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=None, help=effect)


def speed(options: argparse.Namespace) -> dict[str, bool]:
    """Return the speed settings that are switched on or off."""
    return {name: getattr(options, name) for name in SPEED_SETTINGS if getattr(options, name) is not None}


def execution(options: argparse.Namespace) -> Execution:
    """Return the precision and the speed settings that the flags set."""
    return Execution(options.precision, speed(options))


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add --data, --data-dir and --seed."""
    add_data(parser)
    parser.add_argument("--seed", type=seed, default=0,
                        help="seed of initial weights, order of images and dropout (default: 0)")


def add_data(parser: argparse.ArgumentParser, default: str | None = "auto", meaning: str = "auto") -> None:
    """Add --data and the flags of `add_data_options`; `data_source` reads them.

    Args:
        meaning: the default in words.
    """
    add = parser.add_argument
    add("--data", default=default, metavar="NAME|PATH",
        help=f"{', '.join(DATASETS)}, or images of your own: a folder with train/CLASS/ and test/CLASS/ of pictures, a "
             "folder of idx files, or CIFAR's binary files. auto is Fashion-MNIST if available, else the synthetic set "
             f"(default: {meaning})")
    add_data_options(parser)


def add_data_options(parser: argparse.ArgumentParser, prepares: bool = True) -> None:
    """Add the flags that say how a dataset is read, and how its pictures are prepared unless the verb does not."""
    add = parser.add_argument
    add("--data-dir", type=Path, metavar="FOLDER",
        help="folder with the four Fashion-MNIST files, .gz or unpacked (default: $ALEXNET_MF_DATA_DIR, else a "
             "download into the user's cache)")
    add("--test", type=tested_share, dest="test_share", metavar="SHARE",
        help="share of the pictures to test on, such as 0.2, or 1 for all, if the folder has no test pictures "
             "(default: it must have some)")
    if not prepares:
        return
    add("--skip-damaged", action="store_true",
        help="leave out pictures that cannot be decoded (default: stop and name them)")
    add("--store", type=folder, metavar="FOLDER", help="folder of prepared pictures (default: one in the user's cache)")
    add("--no-store", dest="store", action="store_false", default=None,
        help="decode pictures whenever they are used, and keep no prepared ones on disk")


def add_classes(parser: argparse.ArgumentParser) -> None:
    """Add --classes for a dataset."""
    parser.add_argument("--classes", type=Path, metavar="FILE",
                        help="file with other names of the classes, one per line, in their order (default: the data's "
                             "own)")


def data_source(options: argparse.Namespace, run: Path | None = None) -> DataSource | None:
    """Return the source of images that the flags name; None if there are none.

    Args:
        run: run folder, whose own source the flags change.
    """
    classes = getattr(options, "classes", None)
    fields = {"name": options.data, "data_dir": options.data_dir and str(options.data_dir),
             "test_share": options.test_share, "classes": read_names(classes) if classes else None,
             "skip_damaged": getattr(options, "skip_damaged", False) or None,
             "store": str(store) if (store := getattr(options, "store", None)) else store}
    changes: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if not changes:
        return None
    own = read_record(run)[0].source if run and is_run(run) else DataSource()
    return dataclasses.replace(own, **changes)


def read_names(path: Path) -> tuple[str, ...]:
    """Read the names of classes from a file, one per line.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        lines = files.read_text(path, LARGEST_CLASSES_FILE).split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return tuple(one_line(line.strip()) for line in lines if line.strip())


def folder(text: str) -> Path:
    """Parse the path of a folder; an empty one is most often a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("must name a folder, not be empty")
    return Path(text)


def tested_share(text: str) -> float:
    """Parse a share, which may be all."""
    return 1 if text.strip() in ("1", "1.0") else share(text)


def share(text: str) -> float:
    """Parse a share."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be a share between 0 and 1, such as 0.2, not {text!r}")
    return value


def add_augment(parser: argparse.ArgumentParser) -> None:
    """Add --augment, for one training."""
    parser.add_argument("--augment", type=augment, metavar="NAMES",
                        help=f"random changes of training images, comma-separated: {', '.join(augmentation.KINDS)}; "
                             f"or {augmentation.NONE} (default: flip,crop for pictures that are larger than the "
                             f"network's input; else {augmentation.NONE}, as in the chapter's code)")


def augment(text: str) -> tuple[str, ...]:
    """Parse the names of augmentations."""
    kinds = [word.strip() for word in text.split(",")]
    if kinds == [augmentation.NONE]:
        return ()
    if augmentation.NONE in kinds:
        raise argparse.ArgumentTypeError(f"{augmentation.NONE} cannot be combined with others, as in {text!r}")
    try:
        return augmentation.check(kinds)
    except AlexnetMfError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", metavar="FILE",
                        help="write the result as JSON to a file; - prints the JSON and nothing else")


def add_interpreters(parser: argparse.ArgumentParser) -> None:
    """Add --python; `interpreters` parses it."""
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH",
                        help="Python interpreter of a backend in another environment (repeatable)")


def whole_number(least: int) -> Callable[[str], int]:
    """Return a parser of whole numbers of at least `least`."""
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
        return int(text)
    return parse


def positive(text: str) -> float:
    """Parse a length of time."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def numbers(text: str) -> tuple[float, ...]:
    """Parse comma-separated numbers."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers, comma-separated, not {text!r}") from None


def size(text: str) -> int | tuple[int, int]:
    """Parse N or HxW, in pixels."""
    match text.split("x"):
        case [side]:
            return at_least_one(side)
        case [height, width]:
            return at_least_one(height), at_least_one(width)
    raise argparse.ArgumentTypeError(f"must be N or HxW in pixels, not {text!r}")


def backend(text: str) -> str:
    """Parse the name of a backend."""
    if text not in backends.BACKENDS:
        raise argparse.ArgumentTypeError(f"unknown backend {text!r}; known: {', '.join(backends.BACKENDS)}")
    return text


def comma_separated(parse: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Return a parser of comma-separated values. Duplicates count once."""
    return lambda text: tuple(dict.fromkeys(parse(word.strip()) for word in text.split(",")))


seed = whole_number(0)
at_least_one = whole_number(1)
words = comma_separated(str)
counts = comma_separated(at_least_one)
seeds = comma_separated(seed)
backend_list = comma_separated(backend)


def interpreters(texts: list[str]) -> dict[str, str]:
    """Parse NAME=PATH pairs."""
    pairs = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or name not in backends.BACKENDS or not path:
            raise AlexnetMfError(f"--python takes NAME=PATH with a backend's name ({', '.join(backends.BACKENDS)}), "
                                 f"not {text!r}")
        pairs[name] = path
    return pairs


def flags_on_line(add_arguments: Callable[[argparse.ArgumentParser], None], words: list[str]) -> dict[str, Any]:
    """Return the flags on the command line with their values, even if a value is the default."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser)
    parser.set_defaults(**dict.fromkeys(vars(parser.parse_args([]))))
    return {name: value for name, value in vars(parser.parse_args(words)).items() if value is not None}
