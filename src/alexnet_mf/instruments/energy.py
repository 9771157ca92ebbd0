"""Energy of an NVIDIA GPU, by the counter of its driver's library (NVML)."""

from __future__ import annotations

import os
from typing import Any

LEAST_SECONDS = 2.0
"""Shortest interval that can be measured: the counter advances some ten times a second, and lags behind."""


class EnergyMeter:
    """Meter of the energy that one GPU has used since its driver was loaded."""

    def __init__(self, device: str, model: str) -> None:
        """
        Args:
            device: name of a device; only CUDA devices, such as `cuda:1`, have a counter.
            model: the model that the framework reports. NVML may number GPUs in another order.
        """
        self._handle: Any = None
        if device.startswith("cuda"):
            try:
                import pynvml

                self._nvml = pynvml
                pynvml.nvmlInit()
                handle = _handle(pynvml, int(device.partition(":")[2] or 0))
                name = pynvml.nvmlDeviceGetName(handle)
                if (name if isinstance(name, str) else name.decode()) == model:
                    self._handle = handle
            except Exception:  # no library, no driver, no such GPU: each raises errors of its own
                self._handle = None

    def joules(self) -> float | None:
        """Return the energy so far; None if unknown, as before Volta."""
        if self._handle is None:
            return None
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000
        except self._nvml.NVMLError:
            return None


def _handle(nvml: Any, index: int) -> Any:
    """Return NVML's handle of the GPU with this CUDA index. CUDA numbers the visible GPUs only."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if not visible:
        return nvml.nvmlDeviceGetHandleByIndex(index)
    name = visible[index]
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
