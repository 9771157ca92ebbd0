"""A simulated device with its clock, a backend on that device, and records of its measurements."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alexnet_mf import backends, data, spec
from alexnet_mf.backends.capabilities import Ceiling, Measurable, MeasurableModel
from alexnet_mf.backends.contract import Backend, Device, Model, find_precision
from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.bench.plan import Plan
from alexnet_mf.bench.run import Bench
from alexnet_mf.bench.worker import Worker
from alexnet_mf.instruments.process import WorkerFailed, WorkerGone
from alexnet_mf.instruments.records import plain
from alexnet_mf.spec import zoo
from alexnet_mf.training import loop


@dataclass
class FakeDevice:
    """Asynchronous device; time passes only while the host works or waits. Times are exact: binary fractions."""

    now: float = 1024.0
    free: float = 1024.0
    """Time at which the device finishes all queued work."""
    launch: float = 0.0
    """Seconds that the host needs to queue work on the device."""

    def clock(self) -> float:
        return self.now

    def queue(self, seconds: float) -> None:
        self.now += self.launch
        self.free = max(self.now, self.free) + seconds

    def wait(self) -> None:
        self.now = max(self.now, self.free)


@dataclass
class FakeBackend(Backend, Measurable):
    """Backend with a fixed device time for each phase, in `seconds`."""

    name: str = "numpy"
    clock: FakeDevice = field(default_factory=FakeDevice)
    seconds: dict[str, float] = field(default_factory=lambda: {
        "input": 0.25, "forward": 1.0, "forward_backward": 2.0, "optimizer": 0.5, "step": 4.0,
        "matrix product": 1.0, "copy": 0.5})
    book_seconds: dict[str, float] = field(default_factory=lambda: {"forward": 2.0, "step": 8.0})
    model: type = Model
    allocated: int | None = None
    """Peak bytes that the allocator reports for a training step."""
    sgd: Any = None
    """SGD settings of the last phases."""
    waits: bool = True

    def versions(self) -> dict[str, str]:
        return {"fake": "1.0"}

    def devices(self) -> list[Device]:
        return [Device("cpu", "a simulated device")]

    def settings(self) -> dict[str, Any]:
        return {"threads": 1}

    def precisions(self, device: str) -> list[str]:
        return ["float32", "bfloat16"]

    def build(self, network, parameters, device="cpu", execution=AS_IT_COMES) -> Any:
        find_precision(self, device, execution.precision)
        return FakeModel(network, self)

    def ceilings(self, device: str, execution: Execution) -> dict[str, Ceiling]:
        return {"matrix product": Ceiling(self.work("matrix product"), 2.0**40),
                "copy": Ceiling(self.work("copy"), 2.0**30)}

    def book(self, device: str, batch_size: int) -> dict[str, Callable[[], None]]:
        return {name: lambda name=name: self.clock.queue(self.book_seconds[name]) for name in self.book_seconds}

    def synchronize(self, device: str) -> None:
        if self.waits:
            self.clock.wait()

    def peak_memory(self, device: str) -> int | None:
        return None

    def work(self, name: str) -> Callable[..., None]:
        return lambda *number: self.clock.queue(self.seconds[name])


class FakeModel(MeasurableModel[Any]):
    """Model with the methods that a worker calls."""

    def __init__(self, network: spec.Network, backend: FakeBackend) -> None:
        self.network, self.backend, self.device = network, backend, "cpu"

    def place(self, inputs, labels) -> Any:
        return inputs

    def phases(self, data, indices, sgd, seed) -> dict[str, Callable[[int], None]]:
        self.backend.sgd = sgd
        return {name: self.backend.work(name) for name in ("input", "forward", "forward_backward", "optimizer", "step")}

    def step_memory(self, data, indices, sgd, seed) -> int | None:
        return self.backend.allocated

    def logits(self, data, batch_size) -> np.ndarray:
        self.backend.clock.queue(self.backend.seconds["forward"])
        self.backend.clock.wait()
        return np.zeros((len(data), 10))

    def synchronize(self) -> None:
        self.backend.synchronize("cpu")


class Local:
    """Worker in this process instead of a `WorkerProcess`; commands and answers pass through JSON too."""

    def __init__(self, clock: Callable[[], float], commands: list[tuple[Any, dict[str, Any]]]) -> None:
        self.worker, self.commands, self.closed = Worker(clock), commands, False

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert not self.closed
        self.commands.append((self.worker, command))
        try:
            answer: dict[str, Any] = json.loads(json.dumps(self.worker.handle(json.loads(json.dumps(command)))))
        except Exception as error:
            raise WorkerFailed(str(error)) from error
        return answer

    def close(self) -> None:
        self.closed = True


class Failing:
    """Worker that fails at certain commands."""

    def __init__(self, inner: Local, fails: Callable[[dict[str, Any]], bool], error: BaseException) -> None:
        self.inner, self.fails, self.error, self.failures = inner, fails, error, 0

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert not (self.failures and isinstance(self.error, WorkerGone)), "a worker that is gone gets no more commands"
        if self.fails(command):
            self.failures += 1
            raise self.error
        return self.inner.ask(command)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, device: FakeDevice, small: spec.Network) -> dict[str, FakeBackend]:
    """Fake backends on one device, by name. The training loop takes as long as their steps."""
    fakes = {name: FakeBackend(name, device) for name in backends.BACKENDS}
    monkeypatch.setattr(backends, "load", lambda name: fakes[name])
    monkeypatch.setattr(zoo, "NETWORKS", dict.fromkeys(zoo.NETWORKS, small))

    def train(model, train, test, recipe, seed) -> Any:
        steps = len(train) // recipe.batch_size
        for _ in range(steps):
            model.backend.clock.queue(model.backend.seconds["step"])
        model.synchronize()
        return SimpleNamespace(seconds=(steps - 1) * model.backend.seconds["step"],
                               images=(steps - 1) * recipe.batch_size)

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(data.synthetic, "draw", functools.cache(data.synthetic.draw))
    return fakes


@pytest.fixture
def local(device: FakeDevice):
    """Return a function that starts a worker in this process."""
    return lambda python, speed: Local(device.clock, [])


@pytest.fixture
def failing(fake, local):
    """Return a function that makes `connect`, with a failing first worker, and the list of its workers."""
    def make(fails: Callable[[dict[str, Any]], bool], error: BaseException) -> tuple[Callable[..., Failing],
                                                                                     list[Failing]]:
        workers: list[Failing] = []

        def connect(python: str, speed: Mapping[str, bool]) -> Failing:
            workers.append(Failing(local(python, speed), (lambda command: False) if workers else fails, error))
            return workers[-1]
        return connect, workers
    return make


@pytest.fixture
def measured(fake: dict[str, FakeBackend], device: FakeDevice):
    """Run a plan on the fake backends and return its record as JSON values; `commands` lists the workers' commands."""
    commands: list[tuple[Any, dict[str, Any]]] = []

    def run(backend_names: tuple[str, ...] = ("torch", "mxnet"), **options: Any) -> dict[str, Any]:
        bench = Bench(Plan(backend_names, **{"batch_sizes": (4,), **options}), command=["alexnet-mf", "bench"],
                      connect=lambda python, speed: Local(device.clock, commands))
        return plain(bench.run())

    run.commands = commands  # type: ignore[attr-defined]
    return run


@pytest.fixture
def find():
    """Return a function that looks up the result of a contestant's phase in a record."""
    def result(record: dict[str, Any], backend: str, phase: str, style: str = "alexnet_mf",
               batch_size: int = 4) -> dict[str, Any]:
        ids = [worker["id"] for worker in record["workers"]
               if (worker["backend"], worker["style"], worker["batch_size"]) == (backend, style, batch_size)]
        match: dict[str, Any] = next(entry for entry in record["results"]
                                     if entry["worker"] in ids and entry["phase"] == phase)
        return match
    return result
