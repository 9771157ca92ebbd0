"""Interrupted and resumed trainings of a small network in NumPy, and the content of their run folders."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from console import Outcome, assert_one_line
from safetensors.numpy import load_file

from alexnet_mf import spec
from alexnet_mf.cli import train
from alexnet_mf.data import FASHION_CLASSES, DataSource
from alexnet_mf.instruments.machine import conditions
from alexnet_mf.spec.preprocessing import FASHION_MNIST
from alexnet_mf.training import checkpoint
from alexnet_mf.training.recipe import QUICK
from alexnet_mf.training.record import Run
from alexnet_mf.training.weight_files import BEST, WEIGHTS
from alexnet_mf.weights import parameters

# 3 epochs of 4 steps with momentum, a checkpoint after each step; annealed from step 9 on.
SHORT = ["--data", "synthetic", "--limit-train", "30", "--limit-test", "16", "--batch-size", "8", "--epochs", "3",
         "--checkpoint-minutes", "1e-9", "--lr", "0.03"]


def make_run(network: spec.Network, **changes: Any) -> Run:
    """Return the record of a run of this network in torch."""
    session = {**conditions(["alexnet-mf"]), "backend": "torch", "versions": {"torch": "2.15.0"},
               "settings": {"threads": 2}, "device": "cpu", "precision": "float32", "speed": {"layout": True}}
    fields = {**session, "network": spec.as_dict(network), "spec_sha256": "1", "seed": 5, "recipe": QUICK,
              "data": "drawn", "source": DataSource("synthetic"), "classes": list(FASHION_CLASSES),
              "preprocessing": FASHION_MNIST.as_dict(), "data_sha256": "2", "test_sha256": "3", "weights": None}
    return Run(**{**fields, **changes})


def start(command: Any, folder: Path | str, *more: str, backend: str = "numpy") -> Outcome:
    return command("train", "--backend", backend, *SHORT, "--out", str(folder), "--quiet", *more)


def figures(folder: Path) -> dict[str, Any]:
    """Return the numbers of a run: its last checkpoint, its epochs, and the digests of its weights."""
    _, saved, _ = checkpoint.latest(folder / "checkpoint")
    epochs = [line for line in lines(folder) if line["kind"] == "epoch"]
    state = saved.snapshot.state
    return {"losses": saved.snapshot.position.losses, "epochs": epochs,
            "tensors": (parameters.digest(state.parameters), parameters.digest(state.velocity)),
            **{name: tensor_digest(folder / name) for name in (WEIGHTS, BEST)}}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def tensor_digest(path: Path) -> str:
    return parameters.digest(load_file(path))


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return content


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def stop_after(step: int, command: Any, folder: Path, *more: str) -> Path:
    """Train, and simulate Ctrl-C in this step. The training checks for it before step 1, and twice after an epoch."""
    calls = iter(range(step + 2 * ((step - 1) // 4)))

    def interrupted(self: Any) -> bool:
        if next(calls, None) is None:
            self.signal = signal.SIGINT
        return self.signal is not None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.signals.Stop, "__call__", interrupted)
        outcome = start(command, folder, *more)
    assert outcome.code == 130, outcome.err
    assert f"stopped by Ctrl-C after {step} steps; resume with: alexnet-mf train --resume {folder}\n" in outcome.err
    return folder


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a run folder.

    A new run creates the folder and removes it again to check that it can be written: pathlib's glob before Python 3.13
    fails if the folder vanishes while it is read.
    """
    try:
        names = os.listdir(folder / "checkpoint")
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in map(checkpoint.NAME.fullmatch, names) if match)


def resume(command: Any, folder: Path, *more: str) -> Outcome:
    return command("train", "--resume", str(folder), "--quiet", "--checkpoint-minutes", "1e-9", *more)


assert_refused = functools.partial(assert_one_line, out="")


def fail_when_over(method: Any, calls: Any) -> Any:
    def call(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise ZeroDivisionError
        return method(*arguments)
    return call


def flip_bit(path: Path, position: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= 4
    path.write_bytes(damaged)
