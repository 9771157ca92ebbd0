"""Fixtures for commands. Each test has its own working folder, because `train` creates run folders."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from console import Outcome, call
from run_folders import figures, start, stop_after

from alexnet_mf import backends, data, spec
from alexnet_mf.instruments.machine import conditions
from alexnet_mf.plots import curves
from alexnet_mf.spec import zoo
from alexnet_mf.training import run

CONDITIONS = conditions([])
"""Conditions of this process, read once because reading them takes time."""


@pytest.fixture(autouse=True)
def own_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test, and the processes that it starts, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return a function that runs a command in this process."""
    return functools.partial(call, capsys)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes only the named backends appear installed."""
    def pretend(*names: str) -> None:
        for module in (backends, backends.registry):
            monkeypatch.setattr(module, "is_installed", lambda name: name in names)
    return pretend


@pytest.fixture
def small_alexnet(small, monkeypatch):
    """Give AlexNet's name to a small network, and shrink the synthetic dataset."""
    network = dataclasses.replace(small, name="alexnet")
    monkeypatch.setitem(zoo.NETWORKS, "alexnet", network)
    # The recipe is not adapted: the small network costs next to nothing.
    monkeypatch.setattr("alexnet_mf.training.recipe.for_network", lambda recipe, network, images: recipe)
    draw = data.synthetic.draw
    monkeypatch.setattr(data.synthetic, "draw", lambda seed: draw(seed, train=64, test=32))
    return network


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, small_alexnet: spec.Network) -> None:
    """Replace two slow steps that other tests cover: reading the conditions and drawing the curves."""
    monkeypatch.setattr(run, "conditions", lambda command: {**CONDITIONS, "command": command})
    monkeypatch.setattr(curves, "png", lambda runs: b"\x89PNG of " + json.dumps(runs).encode())


@pytest.fixture
def whole(quick, command, tmp_path) -> dict[str, Any]:
    """Train without interruption, and return the numbers of the run."""
    assert start(command, tmp_path / "whole").code == 0
    return figures(tmp_path / "whole")


@pytest.fixture
def stopped(quick, command, tmp_path) -> Path:
    """Return a run stopped after 7 of 12 steps, with checkpoints after steps 6 and 7."""
    return stop_after(7, command, tmp_path / "stopped")
