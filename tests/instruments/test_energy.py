"""The energy counter of a GPU, with NVML played: no GPU is needed, and a real one was read on an H200."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from alexnet_mf.instruments.energy import EnergyMeter

H200 = "NVIDIA H200"


class NVMLError(Exception):
    """An error of NVML."""


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    """NVML with two GPUs, of which the second has used more energy."""
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
def test_it_is_the_energy_of_the_device_that_cuda_shows(nvml, monkeypatch, device, visible, model, joules):
    """CUDA puts the fastest first, NVML goes by the slot: another model is another GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert EnergyMeter(device, model).joules() == joules


def test_a_gpu_without_a_counter(nvml):
    meter = EnergyMeter("cuda:0", H200)

    def unknown(handle: str) -> int:
        raise NVMLError("not supported")

    nvml.nvmlDeviceGetTotalEnergyConsumption = unknown
    assert meter.joules() is None


def test_without_the_library_there_is_no_energy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert EnergyMeter("cuda:0", H200).joules() is None
