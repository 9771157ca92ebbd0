"""The command line: the only place that prints or exits."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import alexnet_mf
from alexnet_mf import files
from alexnet_mf.checks import check_path
from alexnet_mf.cli import (
    analyze,
    bench,
    convert,
    data,
    evaluate,
    listing,
    output,
    parity,
    plot,
    predict,
    shapes,
    sweep,
    train,
    weights,
)
from alexnet_mf.cli.flags import with_flags
from alexnet_mf.errors import AlexnetMfError, Notice

VERBS = {
    "train": (train, "train a network, after printing its layer table (the default verb)"),
    "shapes": (shapes, "measure every layer's output shape in one backend or all"),
    "parity": (parity, "prove that backends compute the same function, or name the layer where they differ"),
    "bench": (bench, "measure the speed of backends, and compare it with the device's limits and the book's code"),
    "analyze": (analyze, "compute the cost of each layer, and measure how near a device comes to its limits"),
    "sweep": (sweep, "train several networks, batch sizes, augmentations and seeds, and compare them"),
    "predict": (predict, "classify pictures with the weights of a run or a file"),
    "evaluate": (evaluate, "evaluate the weights of a run or a file: accuracy, confusion matrix, mistakes"),
    "data": (data, "show what a dataset holds: classes, numbers, sizes, damaged pictures, a contact sheet"),
    "convert": (convert, "convert weights between formats: safetensors, PyTorch, Keras, Gluon, NumPy, ONNX, Caffe"),
    "weights": (weights, "list published ImageNet weights, or download some"),
    "plot": (plot, "draw the curves of runs, or the filters of a first layer"),
    "list": (listing, "list backends, networks or runs"),
}

LONG = ("train", "sweep", "bench")
"""Verbs that lose work, not only a report, if they end early."""


class Terminated(BaseException):
    """The process received SIGTERM."""


class Parser(argparse.ArgumentParser):
    """Reports wrong arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Report an unknown flag with a pointer to the help of the verb, which lists the flags."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs and their flags."""
    top = Parser(prog="alexnet-mf", description=alexnet_mf.__doc__, allow_abbrev=False,
                 epilog="`alexnet-mf` without a verb trains. `alexnet-mf VERB --help` shows the flags of a verb.")
    top.add_argument("--version", action="version", version=f"alexnet-mf {alexnet_mf.__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for name, (module, purpose) in VERBS.items():
        verb = verbs.add_parser(name, help=purpose, description=purpose, allow_abbrev=False)
        module.add_arguments(verb)
        verb.set_defaults(run=module.run)
    return top


def check_not_read(name: str, destination: Path | str, options: argparse.Namespace) -> None:
    """Check that a command does not replace a file that it reads. A resumed sweep may renew its own record.

    Raises:
        AlexnetMfError: if it would; names the flag.
    """
    if not os.path.exists(destination):
        return
    for other, value in vars(options).items():
        paths = value if isinstance(value, list) else [value]
        for path in paths if other not in (name, "command", "resume") else ():
            if isinstance(path, (str, Path)) and os.path.isfile(path) and os.path.samefile(path, destination):
                raise AlexnetMfError(f"{destination}: is read by this command; name another file with `{name}`")


def _with_home(word: str) -> str:
    """Return a word with its ~ replaced by the user's home. A shell leaves it in `--out=~/run`."""
    name, equals, value = word.rpartition("=")
    return f"{name}{equals}{os.path.expanduser(value)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 for success, 1 for a failed check or training, 2 if the command cannot
    run as asked, 130 or 143 after Ctrl-C or SIGTERM."""
    words = [_with_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "train")
    options = parser().parse_args(words)
    options.command = ["alexnet-mf", *words]
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        if make_schema := getattr(options, "schema", None):
            output.write_json("-", make_schema())
            return 0
        for name in ("json", "save_weights", "out", "markdown", "plot"):
            destination = getattr(options, name, None)
            if destination in (None, "-") or (name == "out" and options.verb in ("train", "sweep")):  # a folder
                continue
            check_not_read(name, destination, options)
            if name != "plot":  # `Picture` checks that one
                files.check_writable(check_path(name, destination))
        with shown_notices(options):
            code: int = options.run(options)
        sys.stdout.flush()
        return code
    except AlexnetMfError as error:
        print(f"alexnet-mf: error: {with_flags(str(error), options)}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print("alexnet-mf: error: not enough memory; use a smaller network or batch", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nalexnet-mf: stopped by Ctrl-C", file=sys.stderr)
        return 130
    except Terminated:
        print("alexnet-mf: stopped by SIGTERM", file=sys.stderr)
        return 143
    except BrokenPipeError:  # the reader of the pipe has exited, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if options.verb not in LONG or getattr(options, "schema", None):
            return 0
        print(f"alexnet-mf: error: {options.verb} ended early: the reader of its output has exited"
              + ("; resume it with train --resume RUN (see list runs)" if options.verb == "train" else ""),
              file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        print(f"alexnet-mf: error: {str(error.filename)[:80]}...: {error.strerror}; use a shorter name",
              file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def shown_notices(options: argparse.Namespace) -> Iterator[None]:
    """Write each notice of the library as one line on standard error, once."""
    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, Notice):
            line = with_flags(str(message), options)
            if line not in shown:  # worker processes may repeat each other's
                output.notice(line)
                shown.add(line)
        else:
            before(message, category, *place, **more)

    shown: set[str] = set()
    with warnings.catch_warnings():
        before = warnings.showwarning
        warnings.simplefilter("always", Notice)
        warnings.showwarning = show
        yield


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
