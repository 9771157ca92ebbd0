"""A sweep's worker process, which trains once: `python -m alexnet_mf.sweep.worker`."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet_mf import spec
from alexnet_mf.backends import loading
from alexnet_mf.backends.capabilities import Measurable
from alexnet_mf.backends.contract import find_device, find_precision
from alexnet_mf.backends.execution import Execution
from alexnet_mf.data import DataSource
from alexnet_mf.errors import OutOfMemory, TrainingDiverged
from alexnet_mf.instruments.machine import peak_memory
from alexnet_mf.instruments.process import serve_forever
from alexnet_mf.instruments.records import parse
from alexnet_mf.models import LoadedModel
from alexnet_mf.training.display import Watcher
from alexnet_mf.training.loop import Progress
from alexnet_mf.training.recipe import Recipe
from alexnet_mf.training.record import is_run
from alexnet_mf.training.run import Training, resume, train

REPORT_SECONDS = 2.0
"""Time between two reports of progress."""


class Worker(Watcher):
    """Handler of the commands `train` and `resolve`, and watcher of the training."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        """
        Args:
            send: receives the progress, as JSON values.
        """
        self.send = send
        self.loaded: LoadedModel | None = None
        self._sent = time.monotonic()

    def handle(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out a command, `train` or `resolve`.

        `train` trains or resumes; the answer holds the peak memory, or the failure with its reason. `resolve` answers
        with the device, precision and speed settings of a training, as run.json records them.
        """
        does: dict[str, Callable[..., dict[str, Any]]] = {"train": self._train, "resolve": self._resolve}
        arguments = dict(command)
        try:
            return does[arguments.pop("do")](**arguments)
        except OutOfMemory as error:
            return {"failed": "does not fit", "reason": str(error)}
        except TrainingDiverged as error:
            return {"failed": "diverged", "reason": str(error)}

    def _train(self, folder: str, network: dict[str, Any], backend: str, device: str, precision: str | None,
               speed: dict[str, bool], recipe: dict[str, Any], seed: int, data: dict[str, Any],
               command: list[str]) -> dict[str, Any]:
        source = parse(data, DataSource)
        if is_run(Path(folder)):
            resume(folder, data=source, progress=self, command=command)
        else:
            train(spec.from_dict(network), backend, recipe=parse(recipe, Recipe), seed=seed, device=device,
                  execution=Execution(precision, speed), data=source, out=folder, progress=self, command=command)
        assert self.loaded
        framework, model = self.loaded.backend, self.loaded.model
        return {"peak_memory_bytes": peak_memory(), "peak_device_memory_bytes":
                framework.peak_memory(model.device) if isinstance(framework, Measurable) else None}

    def _resolve(self, backend: str, device: str, precision: str | None, speed: dict[str, bool]) -> dict[str, Any]:
        framework, execution = loading.load(backend, Execution(precision, speed))
        name = find_device(framework, device)
        return {"device": name, "precision": find_precision(framework, name, precision), "speed": execution.speed}

    def begin(self, training: Training) -> None:
        """Keep the model, to read the memory of its device at the end."""
        self.loaded = training.loaded

    def progress(self, now: Progress) -> None:
        """Report the progress, at most every `REPORT_SECONDS`."""
        if time.monotonic() - self._sent >= REPORT_SECONDS:
            self._sent = time.monotonic()
            rate, left = ((value if math.isfinite(value) else None)
                          for value in (now.images_per_second, now.seconds_left))
            self.send({"epoch": now.epoch, "epochs": now.epochs, "loss": now.loss, "images_per_second": rate,
                       "seconds_left": left, "done": (now.epoch - 1 + now.step / now.steps) / now.epochs})


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with SIGINT ignored
    serve_forever(lambda send: Worker(send).handle)
