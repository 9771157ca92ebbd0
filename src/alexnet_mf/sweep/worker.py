"""A sweep's worker process, which trains once: `python -m alexnet_mf.sweep.worker`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alexnet_mf import backends, data, spec
from alexnet_mf.backends.capabilities import Measurable
from alexnet_mf.backends.contract import Backend, Sgd, find_device, find_precision
from alexnet_mf.backends.execution import Execution, speed_settings
from alexnet_mf.data import Dataset, LabelledImages
from alexnet_mf.errors import DataError, OutOfMemory, SweepError, TrainingDiverged
from alexnet_mf.instruments.machine import peak_memory
from alexnet_mf.instruments.process import serve_forever
from alexnet_mf.training import loop
from alexnet_mf.training.recipe import Recipe
from alexnet_mf.weights import parameters

TELL_SECONDS = 2.0
"""Between two words on progress."""


class Worker:
    """Answers the command `train`."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        """
        Args:
            tell: takes the progress, as JSON values.
        """
        self.tell = tell
        self._told = time.monotonic()

    def handle(self, command: dict[str, Any]) -> dict[str, Any]:
        """Train; the answer is what there is to know of it, or why it failed (`failed`, `reason`).

        Raises:
            SweepError: for another command.
        """
        arguments = dict(command)
        if arguments.pop("do") != "train":
            raise SweepError(f"the worker of a sweep trains, and knows no {command['do']!r}")
        try:
            return self.train(**arguments)
        except OutOfMemory as error:
            return {"failed": "does not fit", "reason": str(error)}
        except TrainingDiverged as error:
            return {"failed": "diverged", "reason": str(error)}

    def train(self, backend: str, network: dict[str, Any], device: str, precision: str | None, without: list[str],
              also: list[str], recipe: dict[str, Any], seed: int, data_name: data.DatasetName, data_dir: str | None,
              held_out: int) -> dict[str, Any]:
        """One training, as `train` would do it."""
        loaded = backends.load(backend)
        device = find_device(loaded, device)
        images = data.load(data_name, Path(data_dir) if data_dir else None)[0]
        training_set, test_set = split(images, held_out)
        steps = Recipe(**{**recipe, "sgd": Sgd(**recipe["sgd"])})
        built = self._build(loaded, spec.from_dict(network), seed, device,
                            Execution(precision, speed_settings(without, also)))
        result = loop.train(built, training_set, test_set, steps, seed, self._progress)
        rate = result.images_per_second
        described = {entry.name: entry.description for entry in loaded.devices()}
        return {"versions": loaded.versions(), "settings": loaded.settings(), "device": device,
                "description": described.get(device, ""), "precision": find_precision(loaded, device, precision),
                "data_sha256": images.digest(), "epochs": [asdict(epoch) for epoch in result.epochs],
                "images_timed": result.images, "seconds": result.seconds,
                "images_per_second": rate if math.isfinite(rate) else None, "peak_memory_bytes": peak_memory(),
                "peak_device_memory_bytes": loaded.peak_memory(device) if isinstance(loaded, Measurable) else None}

    def _build(self, backend: Backend, network: spec.Network, seed: int, device: str, execution: Execution) -> Any:
        return backend.build(network, parameters.initialise(network, seed), device, execution)

    def _progress(self, now: loop.Progress) -> None:
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._told = time.monotonic()
            rate, left = ((value if math.isfinite(value) else None)
                          for value in (now.images_per_second, now.seconds_left))
            self.tell({"epoch": now.epoch, "epochs": now.epochs, "loss": now.loss, "images_per_second": rate,
                       "seconds_left": left, "done": (now.epoch - 1 + now.step / now.steps) / now.epochs})


def split(images: Dataset, held_out: int) -> tuple[LabelledImages, LabelledImages]:
    """What to train on and what to test on: the last `held_out` training images, or for 0 the test images.

    Raises:
        DataError: where nothing would be left to train on.
    """
    if not held_out:
        return images.train, images.test
    left = len(images.train) - held_out
    if left < 1:
        raise DataError(f"there are {len(images.train)} training images: hold out fewer than that (`held_out`)")
    train = images.train
    return train.first(left), LabelledImages(train.images[left:], train.labels[left:])


if __name__ == "__main__":
    serve_forever(Worker)
