"""The process that reads what the fuzz test makes: a crash, a hang or a hunger for memory is its own.

It takes lines of JSON, [reader, folder], and answers each with a line: "read"; "refused", by an error of the package's
own; or what went wrong. Its address space is limited to what it has at the start and `BOUND`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from alexnet_mf import arithmetic, cli, data, parameters, specfile
from alexnet_mf.bench import record as bench_record
from alexnet_mf.bench.report import markdown, report
from alexnet_mf.cli import predict
from alexnet_mf.cli import train as train_verb
from alexnet_mf.data import idx, pictures
from alexnet_mf.errors import AlexnetMfError
from alexnet_mf.parity import trace
from alexnet_mf.spec import LENET5
from alexnet_mf.training import curves, listing, metrics, record, run
from alexnet_mf.training.opened import backend_of, open_weights

BOUND = 700_000_000
"""Bytes that reading a file may take: the largest picture takes 400 million, an idx file no more than it has."""


def read_toml(folder: Path) -> None:
    network = specfile.load(folder / "net.toml")
    parameters.shapes(network)
    arithmetic.input_shapes(network)
    specfile.dump(network)


def read_weights(folder: Path) -> None:
    open_weights(folder / "w.safetensors")


def read_checkpoint(folder: Path) -> None:
    run.Run.open(folder).close()


def read_run(folder: Path) -> None:
    listing.summary(folder)
    backend_of(folder)
    record.read(folder)


def command(*words: str, codes: tuple[int, ...] = (0, 2)) -> None:
    """A command, which tells an error of the package's own by exit code 2."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
        code = cli.main(list(words))
    if code not in codes:
        raise AssertionError(f"exit code {code}: {told.getvalue()}")
    if code == 2:
        raise AlexnetMfError(told.getvalue().splitlines()[-1])


def resume(folder: Path) -> None:
    """All that comes before the first step."""
    command("train", "--resume", str(folder), "--quiet")


def compare(folder: Path) -> None:
    """The ladder climbs over a trace that is no good: a rung may be red."""
    command("parity", "compare", str(folder / "trace.safetensors"), codes=(0, 1, 2))


def read_metrics(folder: Path) -> None:
    entries = metrics.read(folder)
    metrics.epochs(entries)
    listing.summary(folder)


def draw_metrics(folder: Path) -> None:
    curves.png({"run": metrics.read(folder)})


def read_bench(folder: Path) -> None:
    markdown(report([bench_record.load(folder / "bench.json")]))


def read_picture(folder: Path) -> None:
    for colour in (False, True):
        pictures.read(folder / "picture", pictures.Preparation(28, 28, colour=colour, levels=not colour))


READERS: dict[str, Callable[[Path], object]] = {
    "idx images": lambda folder: idx.read_images(folder / "idx"),
    "idx labels": lambda folder: idx.read_labels(folder / "idx"),
    "weights": read_weights, "trace": lambda folder: trace.load(folder / "trace.safetensors"),
    "compare": compare, "checkpoint": read_checkpoint, "run": read_run, "resume": resume, "metrics": read_metrics,
    "curves": draw_metrics, "toml": read_toml, "bench": read_bench, "picture": read_picture,
    "names": lambda folder: predict.read_names(folder / "names", LENET5)}


def answer(reader: str, folder: str) -> str:
    try:
        READERS[reader](Path(folder))
        return "read"
    except AlexnetMfError as error:
        if "\n" in str(error) or len(str(error)) > 20_000:
            return f"an error of {len(str(error))} letters, or in more than one line: {str(error)[:500]}"
        return "refused"
    except BaseException:
        return traceback.format_exc()


def main() -> None:
    train_verb.carry_out = lambda ready, *rest: ready.run.close() or 0
    data.synthetic.load = functools.cache(functools.partial(data.synthetic.load, train=40, test=10))
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmSize:"):
            most = int(line.split()[1]) * 1024 + BOUND
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
