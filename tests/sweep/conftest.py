"""A sweep whose trainings are played."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from played import DATA, Trainings

from alexnet_mf import networks
from alexnet_mf.bench import conditions
from alexnet_mf.sweep.plan import Plan
from alexnet_mf.sweep.run import Sweep, begin


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    machine = conditions.conditions(["alexnet-mf", "sweep"])
    monkeypatch.setattr(conditions, "conditions", lambda command: {**machine, "command": list(command)})
    return Trainings()


@pytest.fixture
def sweep(played: Trainings) -> Callable[..., Sweep]:
    """A sweep of a plan, or one that goes on with a record."""
    def make(record: dict[str, Any] | None = None, **plan: Any) -> Sweep:
        if record is None:
            made = Plan("numpy", **{"nets": ("lenet5", "lenet5-relu"), "epochs": 2, **plan})
            record = begin(made, {net: networks.get_network(net) for net in made.nets}, DATA)
        return Sweep(record, ["alexnet-mf", "sweep"], connect=played.connect)
    return make
