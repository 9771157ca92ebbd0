"""Commands run in a folder of their own: `train` leaves run folders behind."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from console import Outcome, call

from alexnet_mf import data, networks, spec


@pytest.fixture(autouse=True)
def own_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes that a test starts begin there too."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in this process."""
    return functools.partial(call, capsys)


@pytest.fixture
def small_alexnet(small, monkeypatch):
    """A small network under AlexNet's name, and a small synthetic set."""
    network = dataclasses.replace(small, name="alexnet")
    known = networks.get_network

    def get_network(name: str, backend: str = "torch") -> spec.Network:
        known(name, backend)
        return network

    monkeypatch.setattr(networks, "get_network", get_network)
    # It costs next to nothing.
    monkeypatch.setattr("alexnet_mf.training.job.for_network", lambda recipe, network: recipe)
    draw = data.synthetic.load
    monkeypatch.setattr(data.synthetic, "load", lambda seed: draw(seed, train=64, test=32))
    return network
