"""Prepare a current Python environment for MXNet 1.9.1, the last release (2023), before its import."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
from pathlib import Path

import numpy as np

from alexnet_mf.backends.execution import left_out
from alexnet_mf.errors import BackendUnavailable

THREADS = "MXNET_OMP_MAX_THREADS"
TF32 = "NVIDIA_TF32_OVERRIDE"
"""Set to 0, it makes NVIDIA's libraries compute IEEE float32, in all frameworks of the process. MXNet 1.9.1 asks cuBLAS
for TF32 and has no switch of its own."""

# The libraries that libmxnet.so of mxnet-cu112 links to, and their packages, in the order of their dependencies.
CUDA_LIBRARIES = (
    ("nvidia-cuda-runtime-cu11", "libcudart.so.11.0"), ("nvidia-cuda-nvrtc-cu11", "libnvrtc.so.11.2"),
    ("nvidia-cublas-cu11", "libcublas.so.11"), ("nvidia-cufft-cu11", "libcufft.so.10"),
    ("nvidia-curand-cu11", "libcurand.so.10"), ("nvidia-cusolver-cu11", "libcusolver.so.11"),
    ("nvidia-nvtx-cu11", "libnvToolsExt.so.1"), ("nvidia-nccl-cu11", "libnccl.so.2"),
    ("nvidia-cudnn-cu11", "libcudnn.so.8"),
)

NEWEST_CAPABILITY = (8, 9)
"""Newest compute capability that the wheels support. They have machine code for 5.0 to 8.6, which 8.9 runs too, and no
PTX for later ones."""


def prepare() -> None:
    """Prepare the environment for `import mxnet`.

    Raises:
        BackendUnavailable: if MXNet cannot work in this environment; names the remedy.
    """
    if int(np.__version__.partition(".")[0]) >= 2:
        raise BackendUnavailable(f"backend mxnet: MXNet 1.9.1 cannot work with NumPy {np.__version__}; "
                                 f"pip install 'numpy<2'")
    if "bool" not in vars(np):  # NumPy 1.24 removed it, and MXNet reads it at import and later: mxnet issue 21165
        np.bool = bool  # type: ignore[attr-defined]
    if not left_out() & {"all", "threads"} and not {THREADS, "OMP_NUM_THREADS"} & os.environ.keys():
        # By default MXNet takes half of the processors and leaves torch only the other half.
        os.environ[THREADS] = str(_physical_cores())
    if importlib.util.find_spec("distutils") is None:  # Python 3.12 removed it, setuptools restores it
        raise BackendUnavailable("backend mxnet: MXNet 1.9.1 needs distutils, which this Python lacks; "
                                 "pip install 'setuptools>=69.5.1'")
    if _has("mxnet-cu112"):
        os.environ.setdefault(TF32, "0")
        _load_cuda()


def cuda_capability(index: int) -> tuple[int, int] | None:
    """Return the compute capability of a GPU, as the driver reports it; None without a driver or such a GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index):
        return None
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
    if any(driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
           for value, attribute in ((major, 75), (minor, 76))):
        return None
    return major.value, minor.value


def _physical_cores() -> int:
    """Return the number of cores that this process may use; threads of one core count once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = {path.read_text() for cpu in allowed
                if (path := Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).is_file()}
    return len(siblings) or len(allowed)


def _has(package: str) -> bool:
    return any(importlib.metadata.Distribution.discover(name=package))


def _load_cuda() -> None:
    """Load the libraries that the GPU build links to from their packages, which it does not search itself."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendUnavailable("backend mxnet: mxnet-cu112 needs an NVIDIA driver (libcuda.so.1), but finds none; "
                                 "pip uninstall mxnet-cu112 && pip install mxnet==1.9.1") from error
    for package, library in CUDA_LIBRARIES:
        if not _has(package):
            raise BackendUnavailable(f"backend mxnet: mxnet-cu112 needs {library}; pip install {package}")
        for file in importlib.metadata.files(package) or []:
            if file.name == library:
                ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
