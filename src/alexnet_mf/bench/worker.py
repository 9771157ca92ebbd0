"""The benchmark's worker process, which measures one contestant: `python -m alexnet_mf.bench.worker`."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import backends, datasets, spec
from alexnet_mf.backends.capabilities import Ceiling, measurable, measurable_model
from alexnet_mf.backends.contract import Sgd, find_device
from alexnet_mf.backends.execution import Execution
from alexnet_mf.bench import timing
from alexnet_mf.bench.plan import BESIDE, CEILINGS, OURS, work
from alexnet_mf.bench.timing import Timer
from alexnet_mf.data import FASHION_CLASSES, Dataset, DataSource, LabeledImages, epoch_order, synthetic
from alexnet_mf.data.batches import read_batch
from alexnet_mf.data.preprocessing import upsampling_factor
from alexnet_mf.instruments.energy import LEAST_SECONDS, EnergyMeter
from alexnet_mf.instruments.machine import peak_memory
from alexnet_mf.instruments.process import serve_forever
from alexnet_mf.instruments.records import parse, plain
from alexnet_mf.instruments.statistics import median
from alexnet_mf.training import loop
from alexnet_mf.training.feed import is_resident
from alexnet_mf.training.recipe import PAPERS_AUGMENTATION, Recipe
from alexnet_mf.weights import parameters

FASHION_SHAPE = (28, 28)
LEARNING_RATE = 2.0**-20
"""Small enough that the weights hardly move, and every step computes on numbers like those of the first."""


class Worker:
    """Handler of commands; `handle` takes a command and returns the answer."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.backend: Any = None
        self.model: Any = None
        """The model in our style; the book's style has none."""
        self.read_back: Callable[[], object] = lambda: None
        self.step_memory: Callable[[], int | None] = lambda: None
        self.kernels: dict[str, list[str]] = {}
        self.timers: dict[str, Timer] = {}
        self.calls: dict[str, int] = {}
        """Number of calls in a sample, by phase."""
        self.image_bytes = 0  # the book's style has no images of ours

    def handle(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out `start`, `memory`, `prepare`, `sample` or `finish`."""
        does: dict[str, Callable[..., dict[str, Any]]] = {
            "start": self.start, "memory": self.memory, "prepare": self.prepare, "sample": self.sample,
            "finish": self.finish}
        arguments = dict(command)
        return does[arguments.pop("do")](**arguments)

    def start(self, backend: str, style: str, network: dict[str, Any], device: str, precision: str,
              speed: dict[str, bool], batch_size: int, epoch_batches: int, sample_seconds: float, seed: int,
              momentum: float = 0.0, data: dict[str, Any] | None = None) -> dict[str, Any]:
        """Import the framework and build the model; return the phases that can be measured, and the conditions."""
        began = self.clock()
        self.backend = backends.load(backend)
        imported = self.clock()
        self.imported_bytes = peak_memory()
        self.sgd = Sgd(LEARNING_RATE, momentum)
        self.device = find_device(self.backend, device)
        self.network = spec.from_dict(network)
        self.batch_size, self.sample_seconds, self.seed = batch_size, sample_seconds, seed
        self.precision, self.execution = precision, Execution(precision, speed)
        if style == OURS:
            self._build(epoch_batches * batch_size, parse(data, DataSource) if data else None)
            phases = [*self.timers, "epoch", *CEILINGS]
        else:
            self._time({name: _ignoring_number(call)
                        for name, call in measurable(self.backend).book(self.device, batch_size).items()})
            phases = list(self.timers)
        described = {entry.name: entry.description for entry in self.backend.devices()}
        model = described.get(self.device, "")
        self.meter = EnergyMeter(self.device, model)
        return {"phases": phases, "device": self.device, "description": model, "versions": self.backend.versions(),
                "settings": self.backend.settings(), "python": platform.python_version(),
                "import_seconds": imported - began, "build_seconds": self.clock() - imported}

    def _build(self, images: int, source: DataSource | None) -> None:
        """Build the model, and place the images of one epoch on its device, or those of one batch if they stream."""
        self.model = self.backend.build(self.network, parameters.initialize(self.network, self.seed), self.device,
                                        self.execution)
        self.data = prepared(self.network, source, images) if source else inputs(self.network, self.seed, images)
        train = self.data.train
        self.image_bytes = train.images[0].nbytes
        rows = epoch_order(len(train), self.seed, 0)[:self.batch_size]
        streams = not is_resident(self.model, train)

        def read(some: NDArray[np.int64]) -> Any:
            return self.model.place(read_batch(train.images, some, self.network), train.labels[some])

        batch = read(rows)
        self.read_back = lambda: self.model.logits(batch, self.batch_size)
        measured = measurable_model(self.model)
        placed, used = (batch, np.arange(len(rows))) if streams else (
            self.model.place(train.images[:], train.labels), rows)
        self.step_memory = lambda: measured.step_memory(placed, used, self.sgd, self.seed)
        self.kernels = measured.kernels()
        phases = measured.phases(placed, used, self.sgd, self.seed)
        if streams:
            on_device = phases["input"]
            phases["input"] = lambda number: (read(rows), on_device(number))
        self._time(phases)

    def _time(self, calls: dict[str, Callable[[int], None]]) -> None:
        wait = self.model.synchronize if self.model else lambda: measurable(self.backend).synchronize(self.device)
        self.timers |= {name: Timer(call, wait, self.clock) for name, call in calls.items()}
        if "step" in self.timers:
            self.timers[BESIDE] = self.timers["step"]

    def prepare(self, phase: str) -> dict[str, Any]:
        """Warm a phase up; return its work, its first call and its warm-up."""
        if phase == "epoch":
            seconds, images = self._epoch()
            warmed = timing.WarmUp(seconds, 1, [], True)  # its steps are warm already
            does = plain(work(phase, self.network, self.precision, self.image_bytes, images))
        elif phase in CEILINGS:  # built this late: until now the process's peak memory is that of the network alone
            ceiling: Ceiling = measurable(self.backend).ceilings(self.device, self.execution)[phase]
            self._time({phase: _ignoring_number(ceiling.call)})
            warmed = timing.warm_up(self.timers[phase], self.sample_seconds)
            timing.check_synchronized(self.timers[phase], warmed.calls)
            flops, moved = (0.0, ceiling.amount) if phase == "copy" else (ceiling.amount, 0.0)
            does = {"images": 0, "flops": flops, "bytes": moved}
        else:
            warmed = timing.warm_up(self.timers[phase], self.sample_seconds)
            timing.check_synchronized(self.timers[phase], warmed.calls, self.read_back)
            does = plain(work(phase, self.network, self.precision, self.image_bytes, self.batch_size))
        self.calls[phase] = warmed.calls
        return {"work": does, "first_call_seconds": warmed.first_call_seconds, "calls_per_sample": warmed.calls,
                "warm_up_seconds": warmed.seconds, "steady": warmed.steady,
                "expected_seconds": median(warmed.seconds or [warmed.first_call_seconds]),
                "peak_memory_bytes": peak_memory(),
                "peak_device_memory_bytes": measurable(self.backend).peak_memory(self.device)}

    def memory(self) -> dict[str, Any]:
        """Return the process's memory with the framework alone, the allocator's memory of training steps, and the
        kernels that determine it."""
        return {"imported_bytes": self.imported_bytes, "step_bytes": self.step_memory(), "kernels": self.kernels}

    def sample(self, phase: str) -> dict[str, Any]:
        """Return the times of one sample."""
        calls = self.calls[phase]
        if calls > 1:
            self.timers[phase]()  # fills the caches again after other processes
        busy, energy = time.process_time(), self.meter.joules()
        seconds = self._epoch()[0] if phase == "epoch" else self.timers[phase](calls)
        after = self.meter.joules()
        joules = None if energy is None or after is None or seconds < LEAST_SECONDS else after - energy
        return {"seconds": seconds, "calls": calls, "cpu_seconds": time.process_time() - busy, "joules": joules}

    def _epoch(self) -> tuple[float, int]:
        """Return the seconds and images that the loop of one training counts: all but the first step."""
        preprocessing = self.data.preprocessing
        recipe = Recipe("bench", epochs=1, batch_size=self.batch_size, sgd=Sgd(LEARNING_RATE),
                        augment=PAPERS_AUGMENTATION if preprocessing and preprocessing.patch else ())
        result = loop.train(self.model, self.data.train, self.data.test, recipe, self.seed)
        return result.seconds, result.images

    def finish(self) -> dict[str, Any]:
        """Return settings and memory after the last sample."""
        return {"settings": self.backend.settings(), "peak_memory_bytes": peak_memory(),
                "peak_device_memory_bytes": measurable(self.backend).peak_memory(self.device)}


def prepared(network: spec.Network, source: DataSource, images: int) -> Dataset:
    """Return this many training images of a source, evenly spaced; the first of them tests.

    Raises:
        DataError: if there are fewer.
    """
    opened = datasets.open_source(source, quiet=True)
    whole = datasets.prepare(opened, datasets.choose(opened, network), source, quiet=True, parts=("train",))
    whole.check_limits(train_images=images)
    train = whole.train.some(images)
    return replace(whole, train=train, test=train.first(1))


def inputs(network: spec.Network, seed: int, images: int) -> Dataset:
    """Return the synthetic dataset, or random numbers if the network does not take its gray images or classes.

    The amount of computation is the same."""
    if network.input[0] == 1 and upsampling_factor(FASHION_SHAPE, network) and network.classes >= len(FASHION_CLASSES):
        return synthetic.draw(seed, train=images, test=1)
    drawn = np.random.default_rng(seed).random((images, *network.input), np.float32)
    some = LabeledImages(drawn, np.arange(images) % network.classes)
    return Dataset("random", some, some.first(1), (), f"random numbers drawn with seed {seed}")


def _ignoring_number(call: Callable[[], None]) -> Callable[[int], None]:
    return lambda number: call()


if __name__ == "__main__":
    serve_forever(lambda send_progress: Worker().handle)
