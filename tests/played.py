"""Trainings of a sweep that are played, for the tests of several folders."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from alexnet_mf.sweep.record import Data

DATA = Data(name="synthetic", origin="drawn for a test", sha256="0" * 64)
BEST_RATE = 0.1


class Trainings:
    """Plays the workers: the accuracy is by learning rate, seed and epoch; `fails` plays what goes wrong."""

    def __init__(self, images: str = DATA.sha256) -> None:
        self.images = images
        self.commands: list[dict[str, Any]] = []
        self.closed = 0
        self.fails: Callable[[dict[str, Any]], dict[str, Any] | BaseException | None] = lambda command: None

    def connect(self, without: tuple[str, ...], tell: Any) -> Trainings:
        self.tell = tell
        return self

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        self.commands.append(copy.deepcopy(command))
        failure = self.fails(command)
        if isinstance(failure, BaseException):
            raise failure
        if failure:
            return failure
        self.tell({"epoch": 1, "epochs": 2, "loss": 1.5, "images_per_second": 1000.0, "seconds_left": 3.0, "done": 0.4})
        recipe, seed = command["recipe"], command["seed"]
        top = 0.9 - abs(recipe["sgd"]["learning_rate"] - BEST_RATE) / 2 - 0.01 * seed
        epochs = [{"epoch": number, "loss": 1 / number, "train_accuracy": top - 0.02, "test_loss": 1.0,
                   "test_accuracy": top - 0.1 / number} for number in range(1, recipe["epochs"] + 1)]
        return {"versions": {"numpy": "1"}, "settings": {}, "device": "cpu", "description": "",
                "precision": "float64", "data_sha256": self.images, "epochs": epochs, "images_timed": 100,
                "seconds": 1.0, "images_per_second": 50.0 * recipe["batch_size"] - seed,
                "peak_memory_bytes": 10**6 * recipe["batch_size"], "peak_device_memory_bytes": None}

    def close(self) -> None:
        self.closed += 1
