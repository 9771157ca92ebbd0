"""The registry: one string names a backend everywhere (folder, extra, tox environment, argument)."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alexnet_mf.errors import BackendUnavailable

if TYPE_CHECKING:
    from alexnet_mf.backends.contract import Backend


@dataclass(frozen=True)
class Entry:
    """A backend's module, and the command that installs its framework."""

    module: str
    framework: str
    """Import name of the framework."""
    install: str
    precision: str = "float32"
    """Default precision."""
    at_import: tuple[str, ...] = ()
    """Speed settings that take effect only when the framework is imported."""


def _install_mxnet() -> str:
    if sys.version_info >= (3, 13):
        return "MXNet 1.9.1 needs numpy<2, which has no build for this Python: use Python 3.10, 3.11 or 3.12"
    setuptools = " 'setuptools>=69.5.1'" if sys.version_info >= (3, 12) else ""  # brings distutils back
    return f"pip install 'mxnet==1.9.1' 'numpy<2'{setuptools}"


BACKENDS = {
    "torch": Entry("alexnet_mf.backends.torch", "torch", "pip install torch torchvision", at_import=("spin",)),
    "tensorflow": Entry("alexnet_mf.backends.tensorflow", "tensorflow", "pip install tensorflow"),
    "mxnet": Entry("alexnet_mf.backends.mxnet", "mxnet", _install_mxnet(), at_import=("threads",)),
    "numpy": Entry("alexnet_mf.backends.numpy", "numpy", "pip install numpy", "float64"),
}

FRAMEWORKS = tuple(name for name in BACKENDS if name != "numpy")
"""Backends fast enough for training: all but the NumPy reference."""


def is_installed(name: str) -> bool:
    """Return True if the backend's framework is installed; the framework is not imported."""
    return importlib.util.find_spec(_entry(name).framework) is not None


def installed() -> list[str]:
    """Return the backends whose framework is installed, in the registry's order."""
    return [name for name in BACKENDS if is_installed(name)]


def default() -> str:
    """Return the default backend: the first framework that is installed.

    Raises:
        BackendUnavailable: if none is installed; the message names a remedy.
    """
    for name in FRAMEWORKS:
        if is_installed(name):
            return name
    raise BackendUnavailable("none of torch, tensorflow and mxnet is installed; "
                             f"{BACKENDS['torch'].install} (see `list_backends`), or use `backend='numpy'`, which is "
                             "slow but needs no framework")


def framework_version(name: str) -> str:
    """Return the framework's version from its package metadata, without importing it; empty if unknown."""
    framework = _entry(name).framework
    try:
        return importlib.metadata.version(framework)  # Python 3.10 does not find torch and numpy in the other way
    except importlib.metadata.PackageNotFoundError:
        for distribution in importlib.metadata.packages_distributions().get(framework, []):  # mxnet-cu112
            return importlib.metadata.version(distribution)
    return ""


def load(name: str) -> Backend:
    """Import a backend and its framework.

    Raises:
        BackendUnavailable: if the name is unknown, the framework is missing, or its import fails.
    """
    entry = _entry(name)
    if not is_installed(name):
        raise BackendUnavailable(f"backend {name}: {entry.framework} is not installed; {entry.install}")
    try:
        return importlib.import_module(entry.module).BACKEND
    except BackendUnavailable:
        raise
    except Exception as error:  # whatever a broken installation raises: OSError, ValueError (another NumPy's ABI), ...
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise BackendUnavailable(
            f"backend {name}: {entry.framework} is installed but its import failed ({reason}); {entry.install}"
        ) from error


def _entry(name: str) -> Entry:
    if name not in BACKENDS:
        raise BackendUnavailable(f"unknown backend {name!r}; known: {', '.join(BACKENDS)}")
    return BACKENDS[name]
