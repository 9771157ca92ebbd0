"""Conditions of a run: machine, environment and revision."""

from __future__ import annotations

import json

import numpy as np

from alexnet_mf.instruments import machine


def test_conditions_of_this_machine_are_recorded():
    conditions = machine.conditions(["a", "b"])
    assert conditions["command"] == ["a", "b"]
    assert conditions["cpu"] and conditions["logical_cores"] >= (conditions["physical_cores"] or 1) >= 1
    assert json.loads(json.dumps(conditions)) == conditions


def test_cores_and_clocks_are_counted(monkeypatch):
    """The machine has one socket with two cores of two threads."""
    text = "".join(f"processor\t: {i}\nmodel name\t: A CPU @ 2 GHz\ncpu MHz\t\t: {1000 + i}.000\nphysical id\t: 0\n"
                   f"core id\t\t: {i // 2}\n\n" for i in range(4))
    monkeypatch.setattr(machine, "_read", lambda path: text)
    model, _, physical, megahertz = machine.cpu()
    assert (model, physical, megahertz) == ("A CPU @ 2 GHz", 2, 1001.5)


def test_gpus_are_read_from_nvidia_smi(monkeypatch):
    line = "NVIDIA H100, 550.1, 81559 MiB, 1980 MHz, 1980 MHz, 2619 MHz, 700.00 W, Enabled, 31"
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/bin/true")
    monkeypatch.setattr(machine, "_output", lambda command: f"{line}\n{line}\nsome warning\n")
    gpus = machine.gpus()
    assert len(gpus) == 2
    assert (gpus[0]["name"], gpus[0]["driver_version"], gpus[0]["clocks.sm"]) == ("NVIDIA H100", "550.1", "1980 MHz")


def test_only_variables_that_affect_speed_are_recorded(monkeypatch):
    for name in ("OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.setenv(name, "1")
    for name in ("TF_CLI_CONFIG_FILE", "API_TOKEN", "MY_OMP_SECRET"):
        monkeypatch.setenv(name, "secret")
    environment = machine.conditions([])["environment"]
    assert {"OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"} <= environment.keys()
    assert "secret" not in environment.values()


def test_a_program_that_is_missing_or_fails_has_no_output():
    assert machine._output(["/nowhere/program"]) == ""
    assert machine._output(["false"]) == ""


def test_the_revision_is_none_outside_its_own_repository(monkeypatch, tmp_path):
    """An installed copy may lie in another repository."""
    monkeypatch.setattr(machine.alexnet_mf, "__file__", str(tmp_path / "__init__.py"))
    assert machine.revision() is None


def test_peak_memory_grows_and_does_not_shrink():
    before = machine.peak_memory()
    block = np.ones(2**26, np.uint8)
    during = machine.peak_memory()
    del block
    assert before is not None and during >= before
    assert machine.peak_memory() >= during - 2**20  # Linux counts pages in batches
