"""What MXNet 1.9.1, the last release (2023), needs from a current Python environment. Called before its import."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import sys
from pathlib import Path

import numpy as np

from alexnet_mf.backends.execution import left_out
from alexnet_mf.errors import BackendUnavailable

THREADS = "MXNET_OMP_MAX_THREADS"
TF32 = "NVIDIA_TF32_OVERRIDE"
"""At 0, NVIDIA's libraries compute float32 as IEEE has it, in all frameworks of the process. MXNet 1.9.1 asks cuBLAS
for TF32 and has no switch of its own."""

# What libmxnet.so of mxnet-cu112 links to, and the packages that hold it, in the order of their own needs.
CUDA_LIBRARIES = (
    ("nvidia-cuda-runtime-cu11", "libcudart.so.11.0"), ("nvidia-cuda-nvrtc-cu11", "libnvrtc.so.11.2"),
    ("nvidia-cublas-cu11", "libcublas.so.11"), ("nvidia-cufft-cu11", "libcufft.so.10"),
    ("nvidia-curand-cu11", "libcurand.so.10"), ("nvidia-cusolver-cu11", "libcusolver.so.11"),
    ("nvidia-nvtx-cu11", "libnvToolsExt.so.1"), ("nvidia-nccl-cu11", "libnccl.so.2"),
    ("nvidia-cudnn-cu11", "libcudnn.so.8"),
)

NEWEST_CAPABILITY = (8, 9)
"""The wheels hold machine code for compute capabilities 5.0 to 8.6, which 8.9 runs too, and no PTX for later ones."""


def prepare() -> None:
    """Mend the environment for `import mxnet`.

    Raises:
        BackendUnavailable: where this environment cannot hold MXNet; says what to do.
    """
    _mend_numpy()
    _mend_threads()
    _check_distutils()
    if _has("mxnet-cu112"):
        os.environ.setdefault(TF32, "0")
        _load_cuda()


def cuda_capability(index: int) -> tuple[int, int] | None:
    """The compute capability of a GPU, asked of the driver; none where there is no driver or no such GPU."""
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


def _mend_numpy() -> None:
    """NumPy 1.24 removed numpy.bool, which MXNet reads at import and later on: apache/mxnet issue 21165."""
    if int(np.__version__.partition(".")[0]) >= 2:
        raise BackendUnavailable(f"backend mxnet: MXNet 1.9.1 cannot work with NumPy {np.__version__}; "
                                 f"pip install 'numpy<2'")
    if "bool" not in vars(np):
        np.bool = bool  # type: ignore[attr-defined]


def _mend_threads() -> None:
    """MXNet takes half of the processors, and takes the other half from torch; told a number, it does neither."""
    if left_out() & {"all", "threads"}:
        return
    if THREADS not in os.environ and "OMP_NUM_THREADS" not in os.environ:
        os.environ[THREADS] = str(_physical_cores())


def _physical_cores() -> int:
    """The cores that this process may use, threads of the same core counted once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = {path.read_text() for cpu in allowed
                if (path := Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).is_file()}
    return len(siblings) or len(allowed)


def _check_distutils() -> None:
    """MXNet imports distutils, which Python 3.12 removed and setuptools brings back."""
    if sys.version_info >= (3, 12):
        try:
            import distutils  # noqa: F401
        except ImportError as error:
            raise BackendUnavailable("backend mxnet: MXNet 1.9.1 needs distutils, which this Python lacks; "
                                     "pip install 'setuptools>=69.5.1'") from error


def _has(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _load_cuda() -> None:
    """Load the libraries that the GPU build links to from the packages that hold them, where it does not look."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendUnavailable("backend mxnet: mxnet-cu112 needs an NVIDIA driver (libcuda.so.1), and there is none; "
                                 "pip uninstall mxnet-cu112 && pip install mxnet==1.9.1") from error
    for package, library in CUDA_LIBRARIES:
        if not _has(package):
            raise BackendUnavailable(f"backend mxnet: mxnet-cu112 needs {library}; pip install {package}")
        for file in importlib.metadata.files(package) or []:
            if file.name == library:
                ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
