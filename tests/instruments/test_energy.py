"""The energy counter of a GPU, with a simulated NVML. A real counter was read once, on an H200."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from alexnet_mf.instruments.energy import EnergyMeter

H200 = "NVIDIA H200"


class NVMLError(Exception):
    """Error of NVML."""


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Simulate NVML with two GPUs; the second has used more energy."""
    used = {"0": 1500, "1": 2500, "GPU-b": 2500}

    def handle(name: int | str) -> str:
        if str(name) not in used:
            raise NVMLError("invalid")
        return str(name)

    library = SimpleNamespace(
        NVMLError=NVMLError, nvmlInit=lambda: None, nvmlDeviceGetHandleByIndex=handle, nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetName=lambda handle: H200, nvmlDeviceGetTotalEnergyConsumption=used.get)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return library


@pytest.mark.parametrize("device, visible, model, joules", [
    ("cuda", "", H200, 1.5), ("cuda:0", "", H200, 1.5), ("cuda:1", "", H200, 2.5), ("cuda:0", "1", H200, 2.5),
    ("cuda:1", "1, 0", H200, 1.5), ("cuda:0", "GPU-b", H200, 2.5), ("cuda:2", "", H200, None),
    ("cuda:1", "0", H200, None), ("cpu", "", H200, None), ("mps", "", H200, None), ("cuda:0", "", "NVIDIA H100", None)])
def test_the_energy_is_that_of_the_visible_cuda_device(nvml, monkeypatch, device, visible, model, joules):
    """CUDA numbers the fastest GPU first, NVML numbers by slot; a different model means a different GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert EnergyMeter(device, model).joules() == joules


def test_a_gpu_without_a_counter_has_no_energy(nvml):
    meter = EnergyMeter("cuda:0", H200)

    def fail(handle: str) -> int:
        raise NVMLError("not supported")

    nvml.nvmlDeviceGetTotalEnergyConsumption = fail
    assert meter.joules() is None


def test_without_the_library_there_is_no_energy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert EnergyMeter("cuda:0", H200).joules() is None
