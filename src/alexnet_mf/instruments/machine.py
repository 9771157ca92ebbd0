"""Conditions of a run: machine, system, revision. Nothing here fails: unreadable values are None or missing."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

import alexnet_mf
from alexnet_mf.instruments.records import Amount, Count, Part
from alexnet_mf.instruments.units import bytes_text

GPU_FIELDS = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit",
              "persistence_mode", "temperature.gpu")
VARIABLES = re.compile(
    r"(OMP|GOMP|KMP|MKL|OPENBLAS|DNNL|ONEDNN|MXNET|CUDNN|CUBLAS|MALLOC)_\w+|TF_(ENABLE_ONEDNN_OPTS|XLA_FLAGS|NUM_\w+|"
    r"FORCE_\w+|GPU_\w+|CUDNN_\w+)|XLA_FLAGS|PYTORCH_\w*ALLOC_CONF|NVIDIA_TF32_OVERRIDE|CUDA_VISIBLE_DEVICES|"
    r"CUDA_DEVICE_MAX_CONNECTIONS|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE|TORCHINDUCTOR_\w+|GLIBC_TUNABLES|LD_PRELOAD")
"""Environment variables that affect the speed of a framework."""


Load = Annotated[list[Amount], Meta(min_length=3)]


class Conditions(Part):
    """Conditions of a run. Unreadable values are None."""

    time: Annotated[str, Meta(description="start, UTC, ISO 8601")]
    command: list[str]
    alexnet_mf: str
    git_revision: str | None
    python: str
    platform: str
    cpu: str
    logical_cores: int | None
    physical_cores: int | None
    usable_cores: int | None
    cpu_megahertz: float | None
    memory_bytes: Count | None
    load_before: Load | None
    gpus: Annotated[list[dict[str, str]], Meta(description="as nvidia-smi reports them")]
    environment: Annotated[dict[str, str], Meta(description="variables that frameworks read")]

    def machine_lines(self) -> list[str]:
        """Return a line on the machine, and one for each GPU."""
        memory = f", {bytes_text(self.memory_bytes)}" if self.memory_bytes else ""
        return [f"{self.cpu}, {self.physical_cores or '?'} cores, {self.usable_cores} usable threads{memory}; "
                f"{self.platform}; Python {self.python}",
                *(", ".join(value if key == "name" else f"{key} {value}" for key, value in gpu.items())
                  for gpu in self.gpus)]


class WholeConditions(Conditions):
    """Conditions of a run that has finished or was stopped."""

    load_after: Load | None = None
    seconds: Annotated[float, Meta(ge=0, description="length of the whole run")] = 0.0

    def run_lines(self) -> list[str]:
        """Return a line on time, load and revision, and one with the command, if it is known."""
        load = " and ".join("?" if value is None else f"{value[0]:.1f}"
                            for value in (self.load_before, self.load_after))
        return [f"{self.time}, load {load}, revision {self.git_revision or 'unknown'}",
                *([" ".join(self.command)] if self.command else [])]


def conditions(command: Sequence[str]) -> dict[str, Any]:
    """Return the fields of `Conditions` at this moment.

    Args:
        command: the words that started the program.
    """
    model, logical, physical, megahertz = cpu()
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": list(command), "alexnet_mf": alexnet_mf.__version__, "git_revision": revision(),
        "python": platform.python_version(), "platform": platform.platform(), "cpu": model, "logical_cores": logical,
        "physical_cores": physical, "usable_cores": usable_cores(), "cpu_megahertz": megahertz,
        "memory_bytes": memory_bytes(), "load_before": load(), "gpus": gpus(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)},
    }


def cpu() -> tuple[str, int | None, int | None, float | None]:
    """Return the model, logical cores, physical cores, and the mean of their clocks in MHz at this moment."""
    logical = os.cpu_count()
    text = _read("/proc/cpuinfo")
    fields = [dict(re.findall(r"^([^\t\n]+?)\s*:[ \t]*(.*)$", block, re.M)) for block in text.split("\n\n") if block]
    cores = {(entry.get("physical id"), entry["core id"]) for entry in fields if "core id" in entry}
    clocks = [float(entry["cpu MHz"]) for entry in fields if "cpu MHz" in entry]
    model = next((entry["model name"] for entry in fields if "model name" in entry), "")
    if not model and sys.platform == "darwin":
        model = _output(["sysctl", "-n", "machdep.cpu.brand_string"])
    return (model or platform.processor() or platform.machine(), logical, len(cores) or None,
            sum(clocks) / len(clocks) if clocks else None)


def usable_cores() -> int | None:
    """Return how many logical cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def memory_bytes() -> int | None:
    """Return the size of the machine's memory."""
    return _size("/proc/meminfo", "MemTotal")


def peak_memory() -> int | None:
    """Return the largest memory of this process so far in bytes, or None if the system does not report it."""
    if peak := _size("/proc/self/status", "VmHWM"):  # not ru_maxrss, which a child inherits from its parent
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def load() -> list[float] | None:
    """Return the mean number of runnable processes over the last 1, 5 and 15 minutes."""
    try:
        return list(os.getloadavg())
    except (AttributeError, OSError):
        return None


def gpus() -> list[dict[str, str]]:
    """Return the model, driver, memory and clocks of each GPU, as nvidia-smi reports them."""
    if not shutil.which("nvidia-smi"):
        return []
    lines = _output(["nvidia-smi", f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader"]).splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    return [dict(zip(GPU_FIELDS, row)) for row in rows if len(row) == len(GPU_FIELDS)]


def revision() -> str | None:
    """Return the commit of this source, with `+changes` if some are uncommitted; None outside its own repository."""
    package = Path(alexnet_mf.__file__).parent
    git = ["git", "-C", str(package)]
    if not _output([*git, "ls-files", "--", "__init__.py"]):  # another repository, with an installed copy inside
        return None
    commit = _output([*git, "rev-parse", "HEAD"])
    return f"{commit}{'+changes' if _output([*git, 'status', '--porcelain', '--', '.']) else ''}" if commit else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _size(path: str, name: str) -> int | None:
    """Return a size that Linux states in kB, in bytes."""
    line = re.search(rf"^{name}:\s+(\d+) kB", _read(path), re.M)
    return int(line[1]) * 1024 if line else None


def _output(command: Sequence[str]) -> str:
    """Return what a program prints, or nothing if it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
