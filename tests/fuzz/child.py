"""Process that reads the fuzz test's files, so that a crash, a hang or excessive memory does not end the test.

The process reads lines of JSON, [reader, folder], and answers each with one line: "read"; "refused", after an error of
the package's own; or what went wrong. It limits its address space to the size at the start plus `BOUND`. Arguments name
backends to load before that.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from alexnet_mf import backends, cli, conversion, data
from alexnet_mf.bench.report import bench_report
from alexnet_mf.cli import arguments
from alexnet_mf.data import image_files
from alexnet_mf.data.sources import idx
from alexnet_mf.errors import AlexnetMfError
from alexnet_mf.parity import trace
from alexnet_mf.plots import curves
from alexnet_mf.spec import arithmetic, toml
from alexnet_mf.spec.preprocessing import FASHION_MNIST, IMAGENET
from alexnet_mf.sweep import plot as sweep_plot
from alexnet_mf.sweep import record as sweep_record
from alexnet_mf.sweep import run as sweep_run
from alexnet_mf.sweep.report import report as sweep_report
from alexnet_mf.training import metrics, record, run
from alexnet_mf.training.folder import RunFolder
from alexnet_mf.weights import parameters
from alexnet_mf.weights.formats import torch as torch_file

BOUND = 700_000_000
"""Memory for reading a file, in bytes. The largest picture takes 400 million, an idx file no more than its size."""


def read_toml(folder: Path) -> None:
    network = toml.load(folder / "net.toml")
    parameters.shapes(network)
    arithmetic.input_shapes(network)
    toml.dump(network)


def read_run(folder: Path) -> None:
    record.summary(folder)
    assert record.read(folder).sessions


def command(*words: str, codes: tuple[int, ...] = (0, 2)) -> None:
    """Run a command; raise the package's own error for exit code 2."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        code = cli.main(list(words))
    if code not in codes:
        raise AssertionError(f"exit code {code}: {errors.getvalue()}")
    if code == 2:
        raise AlexnetMfError(errors.getvalue().splitlines()[-1])


class Ready(BaseException):
    """The run is ready for its next step."""


def end_here(training: run.Training, *rest: object) -> None:
    training.folder.close()
    raise Ready


def resume(folder: Path) -> None:
    """Resume a run up to its first step."""
    with contextlib.suppress(Ready):
        command("train", "--resume", str(folder), "--quiet")


def compare(folder: Path) -> None:
    """Compare a damaged trace; a rung may be red."""
    command("parity", "compare", str(folder / "trace.safetensors"), codes=(0, 1, 2))


def read_metrics(folder: Path) -> None:
    entries = metrics.read(folder)
    metrics.epochs(entries)
    record.summary(folder)


def read_sweep(folder: Path) -> None:
    """Read the record and resume it, up to the first missing training."""
    sweep_report(sweep_record.load(folder / "sweep.json"))
    command("sweep", "--resume", str(folder / "sweep.json"), codes=(0, 1, 2))


def draw_sweep(folder: Path) -> None:
    outcomes = sweep_report(sweep_record.load(folder / "sweep.json")).outcomes
    if outcomes:
        sweep_plot.png(outcomes)


def no_training(report: object) -> None:
    raise AlexnetMfError("the record can be resumed up to here")


def read_native(weights_format: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        with contextlib.suppress(AlexnetMfError):
            conversion.format_of_content(folder / "w")
        conversion.read(folder / "w", str(folder / "net.toml"), source_format=weights_format)
    return read


def read_torch_file(folder: Path) -> None:
    """Read a file and its tensors; a network would refuse those that are too large."""
    path = folder / "w.pt"
    with path.open("rb") as file:
        for tensor in torch_file.read(file, path).tensors.values():
            if math.prod(tensor.shape) < 1000:
                np.array(tensor.load())


def read_picture(folder: Path) -> None:
    for preprocessing in (FASHION_MNIST, IMAGENET):
        image_files.read(folder / "picture", preprocessing)


READERS: dict[str, Callable[[Path], object]] = {
    "idx images": lambda folder: idx.read_images(folder / "idx"),
    "idx labels": lambda folder: idx.read_labels(folder / "idx"),
    "weights": lambda folder: conversion.read(folder / "w.safetensors"),
    "trace": lambda folder: trace.load(folder / "trace.safetensors"),
    "compare": compare, "checkpoint": lambda folder: RunFolder.open(folder).close(),
    "run": read_run, "resume": resume, "metrics": read_metrics,
    "curves": lambda folder: curves.png({"run": metrics.read(folder)}), "toml": read_toml,
    "bench": lambda folder: bench_report([folder / "bench.json"]).markdown(), "picture": read_picture,
    "torch archive": read_torch_file, "torch stream": read_torch_file,
    "sweep": read_sweep, "sweep plot": draw_sweep,
    **{name: read_native(name) for name in conversion.READABLE},
    "names": lambda folder: arguments.read_names(folder / "names")}


def answer(reader: str, folder: str) -> str:
    try:
        READERS[reader](Path(folder))
        return "read"
    except AlexnetMfError as error:
        if "\n" in str(error) or len(str(error)) > 20_000:
            return f"an error of {len(str(error))} characters, or of several lines: {str(error)[:500]}"
        return "refused"
    except BaseException:
        return traceback.format_exc()


def main() -> None:
    for name in sys.argv[1:]:
        backends.load(name)
    sweep_run.Sweep = functools.partial(sweep_run.Sweep, connect=no_training)
    run._carry_out = end_here
    data.synthetic.draw = functools.cache(functools.partial(data.synthetic.draw, train=40, test=10))
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmSize:"):
            most = int(line.split()[1]) * 1024 + BOUND
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
