"""A sweep whose trainings are played."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from played import DATA, Trainings

from alexnet_mf.instruments import machine
from alexnet_mf.spec import zoo
from alexnet_mf.sweep.plan import Plan
from alexnet_mf.sweep.record import Record
from alexnet_mf.sweep.run import Sweep, begin


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    conditions = machine.conditions(["alexnet-mf", "sweep"])
    monkeypatch.setattr(machine, "conditions", lambda command: {**conditions, "command": list(command)})
    return Trainings()


@pytest.fixture
def sweep(played: Trainings) -> Callable[..., Sweep]:
    """A sweep of a plan, or one that goes on with a record."""
    def make(record: Record | None = None, **plan: Any) -> Sweep:
        if record is None:
            made = Plan("numpy", **{"nets": ("lenet5", "lenet5-relu"), "epochs": 2, **plan})
            record = begin(made, {net: zoo.get_network(net) for net in made.nets}, DATA)
        return Sweep(record, ["alexnet-mf", "sweep"], connect=played.connect)
    return make
