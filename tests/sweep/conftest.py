"""Sweeps with simulated trainings."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simulated_trainings import DATA, Trainings

from alexnet_mf import data, spec
from alexnet_mf.conversion import RUN_WEIGHTS
from alexnet_mf.instruments import machine
from alexnet_mf.spec import zoo
from alexnet_mf.sweep import run
from alexnet_mf.sweep.plan import Plan
from alexnet_mf.sweep.record import Record
from alexnet_mf.sweep.run import Sweep, begin
from alexnet_mf.weights import parameters


class TrainingsWithWeights(Trainings):
    """Simulated trainings that write readable weights files."""

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        answer = super().ask(command)
        if "peak_memory_bytes" in answer:
            content = weights_bytes(json.dumps(command["network"]), command["seed"])
            for name in RUN_WEIGHTS.values():
                (Path(command["folder"]) / name).write_bytes(content)
        return answer


@functools.cache
def weights_bytes(network: str, seed: int) -> bytes:
    return parameters.to_bytes(parameters.initialize(spec.from_dict(json.loads(network)), seed), {})


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    conditions = machine.conditions(["alexnet-mf", "sweep"])
    monkeypatch.setattr(machine, "conditions", lambda command: {**conditions, "command": list(command)})
    return TrainingsWithWeights()


@pytest.fixture
def small_sweeps(monkeypatch: pytest.MonkeyPatch, simulated: Trainings, tmp_path: Path) -> None:
    """Run the verb `sweep` and its function in an empty folder, with simulated trainings and few images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "Sweep", functools.partial(Sweep, connect=simulated.connect))
    monkeypatch.setattr(data.synthetic, "draw", lambda seed, draw=data.synthetic.draw: draw(seed, train=20, test=10))
    monkeypatch.setattr(data.Dataset, "digest", lambda self: DATA.sha256)


@pytest.fixture
def sweep(simulated: Trainings, tmp_path: Path) -> Callable[..., Sweep]:
    """Return a function that makes a sweep: of a plan in a new folder, or resuming a record."""
    numbers = itertools.count()

    def make(record: Record | None = None, **plan: Any) -> Sweep:
        if record is None:
            new_plan = Plan("numpy", **{"nets": ("lenet5", "lenet5-relu"), "epochs": 2, **plan})
            folder = tmp_path / f"sweep{next(numbers)}"
            folder.mkdir()
            record = begin(new_plan, {net: zoo.get_network(net) for net in new_plan.nets}, DATA, folder)
        return Sweep(record, Path(record.folder), ["alexnet-mf", "sweep"], connect=simulated.connect)
    return make
