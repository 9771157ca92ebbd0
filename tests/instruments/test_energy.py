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
    def energy(handle: str) -> int:
        return {"0": 1500, "1": 2500, "GPU-b": 2500}[handle]

    library = SimpleNamespace(
        NVMLError=NVMLError, nvmlInit=lambda: None, nvmlDeviceGetHandleByIndex=str, nvmlDeviceGetHandleByUUID=str,
        nvmlDeviceGetName=lambda handle: H200, nvmlDeviceGetTotalEnergyConsumption=energy)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return library


@pytest.mark.parametrize("device, visible, joules", [
    ("cuda", "", 1.5), ("cuda:0", "", 1.5), ("cuda:1", "", 2.5), ("cuda:0", "1", 2.5), ("cuda:1", "1, 0", 1.5),
    ("cuda:0", "GPU-b", 2.5), ("cuda:2", "", None), ("cuda:1", "0", None), ("cpu", "", None), ("mps", "", None)])
def test_it_is_the_energy_of_the_device_that_cuda_shows(nvml, monkeypatch, device, visible, joules):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if device == "cuda:2":
        nvml.nvmlDeviceGetHandleByIndex = lambda index: (_ for _ in ()).throw(NVMLError("invalid"))
    assert EnergyMeter(device, H200).joules() == joules


def test_another_model_is_another_gpu(nvml):
    """CUDA puts the fastest first, NVML goes by the slot."""
    assert EnergyMeter("cuda:0", "NVIDIA H100").joules() is None


def test_a_gpu_without_a_counter(nvml):
    meter = EnergyMeter("cuda:0", H200)

    def unknown(handle: str) -> int:
        raise NVMLError("not supported")

    nvml.nvmlDeviceGetTotalEnergyConsumption = unknown
    assert meter.joules() is None


def test_without_the_library_there_is_no_energy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert EnergyMeter("cuda:0", H200).joules() is None
