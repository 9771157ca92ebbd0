"""Simulated trainings of a sweep, for the tests of several folders."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet_mf import spec
from alexnet_mf.data import FASHION_CLASSES, DataSource
from alexnet_mf.instruments import machine
from alexnet_mf.instruments.records import parse
from alexnet_mf.spec.preprocessing import FASHION_MNIST
from alexnet_mf.sweep.record import Data
from alexnet_mf.training import metrics, record
from alexnet_mf.training.loop import Epoch

DATA = Data(source=DataSource("synthetic"), origin="drawn for a test", sha256="0" * 64)
BEST_RATE = 0.1
CONDITIONS = machine.conditions(["alexnet-mf", "sweep"])


class Trainings:
    """Simulated worker processes. The accuracy depends on learning rate, seed and epoch; `fails` adds failures."""

    def __init__(self, images: str = DATA.sha256) -> None:
        self.images = images
        self.commands: list[dict[str, Any]] = []
        self.interrupted = self.closed = 0
        self.fails: Callable[[dict[str, Any]], dict[str, Any] | BaseException | None] = lambda command: None

    def connect(self, tell: Any) -> Trainings:
        self.tell = tell
        return self

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        if command["do"] == "resolve":
            self.closed -= 1  # `close` counts the processes of trainings alone
            return {"device": "cpu", "precision": command["precision"] or "float64", "speed": command["speed"]}
        self.commands.append(copy.deepcopy(command))
        failure = self.fails(command)
        if isinstance(failure, BaseException):
            raise failure
        if failure:
            return failure
        self.tell({"epoch": 1, "epochs": 2, "loss": 1.5, "images_per_second": 1000.0, "seconds_left": 3.0, "done": 0.4})
        leave_run(command, self.images)
        return {"peak_memory_bytes": 10**6 * command["recipe"]["batch_size"], "peak_device_memory_bytes": None}

    def interrupt(self) -> None:
        self.interrupted += 1

    def close(self) -> None:
        self.closed += 1


def leave_run(command: dict[str, Any], images: str = DATA.sha256) -> None:
    folder, recipe, seed = Path(command["folder"]), command["recipe"], command["seed"]
    top = 0.9 - abs(recipe["sgd"]["learning_rate"] - BEST_RATE) / 2 - 0.01 * seed
    (folder / record.CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    (folder / record.CHECKPOINTS / f"step-00000001-{0:016}.safetensors").touch()
    for name in ("weights", "weights-best"):
        (folder / f"{name}.safetensors").touch()
    epochs = [Epoch(number, 1 / number, top - 0.02, 1.0, top - 0.1 / number)
              for number in range(1, recipe["epochs"] + 1)]
    (folder / metrics.NAME).write_bytes(b"".join(map(metrics.epoch_line, epochs)))
    record.write(folder, parse({
        **CONDITIONS, "network": command["network"], "recipe": recipe, "seed": seed, "data": "",
        "spec_sha256": spec.fingerprint(spec.from_dict(command["network"])), "source": {"name": "synthetic"},
        "classes": list(FASHION_CLASSES), "preprocessing": FASHION_MNIST.as_dict(), "data_sha256": images,
        "test_sha256": "", "stores": {}, "weights": None, "backend": command["backend"], "versions": {"numpy": "1"},
        "settings": {}, "device": "cpu", "precision": "float64", "speed": command["speed"], "format": record.FORMAT,
        "state": "finished", "reason": None, "resumed": [], "sha256": "",
        "closing": {"steps": 1, "epochs": len(epochs), "images_timed": 100, "seconds": 1.0,
                    "images_per_second": 50.0 * recipe["batch_size"] - seed, "last_epoch": vars(epochs[-1])}},
        record.RunRecord))
