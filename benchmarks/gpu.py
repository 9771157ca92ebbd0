"""Measure one backend on a GPU: parity first, then speed, then the chapter's exercises, within a time budget.

    python benchmarks/gpu.py --out results --budget 480
    python benchmarks/gpu.py --out results --device cpu --quick     # rehearsal without a GPU: a minute

A part that fails or takes too long does not affect the others. Each part renews `results.tar.gz` in the folder of
`--out`. Repeating the command continues with the parts that have not ended. The exit code is 0 if every part succeeded,
else 1. Fashion-MNIST is read from $ALEXNET_MF_DATA_DIR, or downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = (sys.executable, "-m", "alexnet_mf")
NETWORKS = {"alexnet-slim": 45, "alexnet-2012": 115, "alexnet-owt": 115, "alexnet-caffe": 115, "caffenet": 115,
            "alexnet-tab-torch": 110, "alexnet-tab-tensorflow": 110, "alexnet-tab-mxnet": 110, "alexnet-28": 30,
            "lenet5": 30, "lenet5-relu": 30, "lenet5-bn": 30, "alexnet-cifar": 30}
"""Networks beside alexnet, with the seconds that each ladder takes while others run beside it."""
GRACE = 5
"""Seconds between the signals that ask a part to stop and that kill it."""


@dataclass(frozen=True)
class Part:
    """One command."""

    name: str
    command: tuple[str, ...]
    seconds: float
    """Estimated seconds on an H200, for planning the budget. `limit` stops the part after about three times as long."""
    alone: bool = True
    """True if it measures time, so that nothing may run beside it."""
    after: tuple[str, ...] = ()
    """Parts that must have ended with exit code 0 or 1."""
    output: Path | None = None
    """File that a later part reads. If the file is missing, the part runs again."""
    run: Path | None = None
    """Run folder that the part makes. Remains of an earlier, unfinished call are removed."""

    @property
    def limit(self) -> float:
        return 3 * self.seconds + 20


@dataclass
class Running:
    """Process of a part, and leader of its process group."""

    part: Part
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def stop(self) -> None:
        """Stop the process and its children. They may save first."""
        for number, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(wait)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass
        self.process.wait()


class Runner:
    """Runner of parts in order and within a budget of seconds, with logs, states and archive in a folder."""

    def __init__(self, folder: Path, budget: float, workers: int) -> None:
        self.records = folder / "r"
        self.archive = folder / "results.tar.gz"
        self.workers = workers
        self.end = time.monotonic() + budget
        self.records.mkdir(parents=True, exist_ok=True)
        self.state_file = self.records / "state.json"
        self.states: dict[str, dict[str, object]] = {}
        if self.state_file.exists():
            self.states = json.loads(self.state_file.read_text())

    def has_ended(self, part: Part) -> bool:
        """Return True if the part ran to its end: its checks passed (exit code 0) or failed (1)."""
        state = self.states.get(part.name, {})
        ended = state.get("exit_code") in (0, 1) and state.get("command") == " ".join(part.command)
        return ended and (part.output is None or part.output.exists())

    def run(self, parts: Sequence[Part]) -> bool:
        """Run the parts that have not ended. Return True if all ended with exit code 0."""
        waiting = [part for part in parts if not self.has_ended(part)]
        names = {part.name: part for part in parts}
        running: list[Running] = []
        try:
            while waiting or running:
                for each in running[:]:
                    if each.process.poll() is not None or each.seconds > each.part.limit or time.monotonic() > self.end:
                        running.remove(each)
                        self._finish(each)
                if not self._start_next(waiting, running, names):
                    time.sleep(0.1)
        finally:
            for each in running:
                self._finish(each)
        return all(self.states.get(part.name, {}).get("exit_code") == 0 for part in parts)

    def _start_next(self, waiting: list[Part], running: list[Running], names: dict[str, Part]) -> bool:
        """Start or refuse the first part that is ready. Return True if there was one."""
        for part in waiting:
            if any(names[name] in waiting or name in (each.part.name for each in running) for name in part.after):
                continue
            if (part.alone and running) or any(each.part.alone for each in running) or len(running) >= self.workers:
                return False  # no part overtakes a more valuable one
            waiting.remove(part)
            missing = [name for name in part.after if not self.has_ended(names[name])]
            left = self.end - time.monotonic()
            if missing:
                self._record(part, f"left out: {', '.join(missing)} did not end")
            elif part.seconds > left:
                self._record(part, f"left out: takes {part.seconds:.0f} s, {max(0.0, left):.0f} s left")
            else:
                try:
                    running.append(self._start(part))
                except OSError as error:
                    self._record(part, f"cannot start: {error}")
            return True
        return False

    def _start(self, part: Part) -> Running:
        threads = {} if part.alone else {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
        environment = {**threads, **os.environ, "PYTHONUNBUFFERED": "1"}
        print(f"{part.name}: {' '.join(part.command)}", flush=True)
        if part.run:
            shutil.rmtree(part.run, ignore_errors=True)
        with (self.records / f"{part.name}.txt").open("wb") as log:
            log.write(f"$ {' '.join(part.command)}\n".encode())
            log.flush()
            return Running(part, subprocess.Popen(part.command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                                                  stdout=log, stderr=subprocess.STDOUT, start_new_session=True))

    def _finish(self, running: Running) -> None:
        seconds, is_over = running.seconds, running.process.poll() is not None
        if not is_over:
            running.stop()
        code = running.process.returncode
        text = f"exit code {code} after {seconds:.0f} s" if is_over else f"stopped after {seconds:.0f} s"
        self._record(running.part, text, code if is_over else None, seconds)

    def _record(self, part: Part, text: str, code: int | None = None, seconds: float = 0.0) -> None:
        """Save the state of a part, and renew the archive."""
        print(f"{part.name}: {text}", flush=True)
        self.states[part.name] = {"exit_code": code, "seconds": round(seconds, 1), "text": text,
                                  "command": " ".join(part.command)}
        unfinished = self.state_file.with_suffix(".new")
        unfinished.write_text(json.dumps(self.states, indent=1))
        unfinished.replace(self.state_file)
        unfinished = self.archive.with_suffix(".new")
        with tarfile.open(unfinished, "w:gz") as archive:
            archive.add(self.records, "r")
        unfinished.replace(self.archive)

    def summary(self, parts: Sequence[Part]) -> str:
        """Return a line for each part: its state, and the last line of its log."""
        lines = []
        for part in parts:
            log = self.records / f"{part.name}.txt"
            last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
            state = self.states.get(part.name, {}).get("text", "not started")
            lines.append(f"{part.name:28} {state:32} {last[0][:120] if last and not last[0].startswith('$') else ''}")
        return "\n".join(line.rstrip() for line in lines)


def parts(folder: Path, backend: str, device: str, quick: bool) -> list[Part]:
    """Return the parts, most valuable first."""
    make = quick_parts if quick else full_parts
    return list(make(folder, backend, device))


def ladders(folder: Path, backend: str, device: str, net: str, variants: Mapping[str, float],
            networks: Mapping[str, float], few: tuple[str, ...] = ()) -> Iterator[Part]:
    """Yield the parity ladders; one trace of the reference serves all variants of the main network.

    Args:
        variants: precisions with settings, as in `float32+compile`, with the seconds that a trace takes.
        networks: other networks, with the seconds that a ladder takes.
    """
    records, reference = folder / "r", folder / "reference.safetensors"
    trace = (*PACKAGE, "parity", "trace", "--net", net, "--data", "fashion-mnist", *few)
    yield Part("reference", (*trace, "--backend", "numpy", "--out", str(reference)), 40, alone=False, output=reference)
    for other, seconds in networks.items():
        yield Part(f"parity-{other}-float32", (
            *PACKAGE, "parity", "--net", other, "--backends", backend, "--device", device, "--data", "auto", *few,
            "--json", str(records / f"parity-{other}-float32.json")), seconds, alone=False)
    for variant, seconds in variants.items():
        precision, *settings = variant.split("+")
        mine = folder / f"{variant}.safetensors"
        yield Part(f"trace-{variant}", (
            *trace, "--backend", backend, "--device", device, "--precision", precision,
            *(f"--{name}" for name in settings), "--out", str(mine)), seconds, alone=False, output=mine)
        yield Part(f"parity-{net}-{variant}", (
            *PACKAGE, "parity", "compare", str(reference), str(mine), "--tier", precision,
            "--json", str(records / f"parity-{net}-{variant}.json")), 15, alone=False,
            after=("reference", f"trace-{variant}"))


def full_parts(folder: Path, backend: str, device: str) -> Iterator[Part]:
    """Yield the parts for a GPU: parity, speed, exercises."""
    records = folder / "r"
    fast = "float16" if backend == "mxnet" else "bfloat16"
    precisions = ["float32", "float16"] if backend == "mxnet" else ["float32", "tf32", "bfloat16"]
    variants = dict.fromkeys(precisions, 30) | ({"float32+compile": 80} if backend == "torch" else {})
    yield Part("backends", (*PACKAGE, "list", "backends"), 10)
    if backend == "torch":
        yield Part("tests", (
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--backends", "torch,numpy",
            "tests/backends/test_torch_cuda.py", "tests/backends/test_pooling.py"), 30, alone=False)
    yield from ladders(folder, backend, device, "alexnet", variants, NETWORKS)

    def train(name: str, seconds: float, *flags: str, alone: bool = True) -> Part:
        out = folder / "runs" / name
        return Part(name, (*PACKAGE, "train", "--backend", backend, "--device", device, "--data", "fashion-mnist",
                           "--recipe", "book", *flags, "--out", str(out), "--json", str(records / f"{name}.json")),
                    seconds, alone, run=out)

    def bench(name: str, seconds: float, *flags: str) -> Part:
        return Part(name, (*PACKAGE, "bench", "--backends", backend, "--device", device, *flags,
                           "--json", str(records / f"{name}.json")), seconds)

    steps = ("--batch-size", "128,512", "--phases", "step,forward", "--rounds", "6")
    yield bench("bench", 90, "--precision", fast, *steps)
    yield train("train-book", 30, "--precision", fast)
    if backend == "torch":
        everything = "graph+layout+fused+fold+pool"

        def settings(name: str, seconds: int, *flags: str) -> Part:
            command = (sys.executable, "benchmarks/torch_settings.py", "--device", "cuda:0", "--sample-seconds", "0.15")
            return Part(name, (*command, *flags, "--json", str(records / f"{name}.json")), seconds)

        yield settings("settings-tf32", 30, "--precisions", "tf32", "--batch-sizes", "128,512", "--settings",
                       f"{everything},{everything}+autotune")
        yield settings("settings", 45, "--batch-sizes", "128,512,1024,2048,16,32,64,256", "--settings", everything)
        yield settings("settings-compile", 60, "--batch-sizes", "512,1024", "--settings", f"{everything}+compile")
        yield Part("book-loop", (sys.executable, "benchmarks/book_loop.py", "--device", device), 25)
        for size in (128, 512):
            yield Part(f"profile-{size}", (
                sys.executable, "benchmarks/profile_torch.py", "--device", device, "--precision", fast, "--batch-size",
                str(size), "--out", str(records / f"profile-{size}.txt")), 15)
    if "tf32" in precisions:
        yield train("train-book-tf32", 40, "--precision", "tf32")
    yield train("train-float32", 30, "--epochs", "1")
    for size in (128, 512):
        yield Part(f"analysis-{size}", (
            *PACKAGE, "analyze", "--backend", backend, "--device", device, "--recipe", "book", "--rounds", "6",
            "--batch-size", str(size), "--json", str(records / f"analysis-{size}.json")), 40)
    yield bench("bench-energy", 60, "--precision", fast, "--batch-size", "512", "--phases", "step,forward", "--rounds",
                "6", "--sample-seconds", "2", "--no-book")
    yield bench("bench-float32", 150, "--precision", ",".join(precisions[:2]), *steps)
    for seed in range(3):
        for net, seconds, flags in (("alexnet", 140, ()), ("alexnet-slim", 100, ()), ("lenet5", 35, ()),
                                    ("lenet5-relu", 35, ("--lr", "0.3"))):
            yield train(f"exercise-{net}-seed{seed}", seconds, "--net", net, "--epochs", "20", "--seed", str(seed),
                        "--precision", fast, *flags, alone=False)
    for size in (16, 32, 64, 256, 512, 1024, 2048):
        yield train(f"exercise-batch-{size}", 30 + 1500 / size, "--batch-size", str(size), "--precision", fast)


def quick_parts(folder: Path, backend: str, device: str) -> Iterator[Part]:
    """Yield short parts on the smallest network, to try the script."""
    records, small = folder / "r", ("--net", "lenet5", "--device", device, "--batch-size", "8")
    samples = ("--rounds", "2", "--sample-seconds", "0.01")
    yield Part("backends", (*PACKAGE, "list", "backends"), 10)
    yield from ladders(folder, backend, device, "lenet5", {"float32": 20}, {"lenet5-relu": 20},
                       ("--steps", "1", "--batch-size", "2", "--images", "16"))
    yield Part("bench", (*PACKAGE, "bench", "--backends", backend, *small, "--phases", "step,forward", *samples,
                         "--json", str(records / "bench.json")), 20)
    if backend == "torch":
        yield Part("settings", (
            sys.executable, "benchmarks/torch_settings.py", "--net", "lenet5", "--device", device, "--batch-sizes", "8",
            "--precisions", "float32", "--settings", ",fused", "--sample-seconds", "0.01",
            "--json", str(records / "settings.json")), 10)
        yield Part("book-loop", (sys.executable, "benchmarks/book_loop.py", "--device", device, "--images", "8",
                                 "--batch-size", "4"), 20)
        yield Part("profile", (sys.executable, "benchmarks/profile_torch.py", *small, "--steps", "2",
                               "--out", str(records / "profile.txt")), 10)
    yield Part("analysis", (*PACKAGE, "analyze", "--backend", backend, *small, "--recipe", "book", *samples,
                            "--json", str(records / "analysis.json")), 20)
    yield Part("train", (
        *PACKAGE, "train", "--backend", backend, *small, "--data", "fashion-mnist", "--recipe", "book", "--epochs", "1",
        "--limit-train", "256", "--limit-test", "64", "--out", str(folder / "runs" / "train"),
        "--json", str(records / "train.json")), 20, run=folder / "runs" / "train")


def main() -> int:
    """Run the parts that have not ended, and print the state of all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results"),
                        help="folder for records, logs and the archive (default: results)")
    parser.add_argument("--budget", type=float, default=480, help="seconds for all parts (default: 480)")
    parser.add_argument("--backend", default="torch", choices=["torch", "tensorflow", "mxnet"], help="default: torch")
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--quick", action="store_true", help="run short parts on the smallest network")
    parser.add_argument("--list", action="store_true", help="list the parts with their estimates and exit")
    options = parser.parse_args()
    folder = options.out.absolute()
    listed = parts(folder, options.backend, options.device, options.quick)
    if options.list:
        width = max(len(part.name) for part in listed)
        print(f"{'part':{width}}  estimate")
        for part in listed:
            print(f"{part.name:{width}}  {part.seconds:6.0f} s{'' if part.alone else '  runs beside other parts'}")
        print(f"{'all, one after another':{width}}  {sum(part.seconds for part in listed):6.0f} s")
        return 0
    runner = Runner(folder, options.budget, max(2, (os.cpu_count() or 2) // 2))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        holds = runner.run(listed)
    except KeyboardInterrupt:
        return 130
    finally:
        print(f"\n{runner.summary(listed)}\narchive: {runner.archive}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
