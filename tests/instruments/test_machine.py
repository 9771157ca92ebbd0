"""The circumstances of a run."""

from __future__ import annotations

import json

import numpy as np

from alexnet_mf.instruments import machine


def test_conditions_of_this_machine():
    found = machine.conditions(["a", "b"])
    assert found["command"] == ["a", "b"]
    assert found["cpu"] and found["logical_cores"] >= (found["physical_cores"] or 1) >= 1
    assert json.loads(json.dumps(found)) == found


def test_cores_and_clocks_are_counted(monkeypatch):
    """Two threads a core, two cores, one socket."""
    text = "".join(f"processor\t: {i}\nmodel name\t: A CPU @ 2 GHz\ncpu MHz\t\t: {1000 + i}.000\nphysical id\t: 0\n"
                   f"core id\t\t: {i // 2}\n\n" for i in range(4))
    monkeypatch.setattr(machine, "_read", lambda path: text)
    model, _, physical, megahertz = machine.cpu()
    assert (model, physical, megahertz) == ("A CPU @ 2 GHz", 2, 1001.5)


def test_gpus_are_what_nvidia_smi_tells(monkeypatch):
    line = "NVIDIA H100, 550.1, 81559 MiB, 1980 MHz, 1980 MHz, 2619 MHz, 700.00 W, Enabled, 31"
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/bin/true")
    monkeypatch.setattr(machine, "_output", lambda command: f"{line}\n{line}\nsome warning\n")
    found = machine.gpus()
    assert len(found) == 2
    assert (found[0]["name"], found[0]["driver_version"], found[0]["clocks.sm"]) == ("NVIDIA H100", "550.1", "1980 MHz")


def test_only_variables_that_decide_speed_are_kept(monkeypatch):
    for name in ("OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.setenv(name, "1")
    for name in ("TF_CLI_CONFIG_FILE", "API_TOKEN", "MY_OMP_SECRET"):
        monkeypatch.setenv(name, "secret")
    found = machine.conditions([])["environment"]
    assert {"OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"} <= found.keys()
    assert "secret" not in found.values()


def test_a_program_that_is_missing_or_fails_tells_nothing():
    assert machine._output(["/nowhere/program"]) == ""
    assert machine._output(["false"]) == ""


def test_the_revision_is_none_outside_its_own_repository(monkeypatch, tmp_path):
    """An installed copy may lie in somebody else's."""
    monkeypatch.setattr(machine.alexnet_mf, "__file__", str(tmp_path / "__init__.py"))
    assert machine.revision() is None


def test_peak_memory_grows_and_does_not_shrink():
    before = machine.peak_memory()
    block = np.ones(2**26, np.uint8)
    during = machine.peak_memory()
    del block
    assert before is not None and during >= before
    assert machine.peak_memory() >= during - 2**20  # Linux counts pages in lots
