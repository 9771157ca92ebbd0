"""Selection of backends and parts, small networks, and a substitute for `os` that fails.

`--backends torch,mxnet` selects backends: a missing one is a failure, and the others are skipped. Without it, the
tests run on every installed backend.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alexnet_mf import backends, files
from alexnet_mf.backends import allocator
from alexnet_mf.backends.contract import Backend
from alexnet_mf.spec import Network, toml
from alexnet_mf.spec.layers import Conv2d, Dense, Dropout, Flatten, MaxPool2d

PARTS = {"backends": ("analysis", "backends", "bench", "training"), "parity": ("parity",), "rest": ()}
"""Parts of the tests, and their folders. `rest` has all other folders."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backends", default="", help="comma-separated backends that must run (default: all installed)")
    parser.addoption("--part", choices=PARTS, help="one part of the tests (default: all)")


def is_in_part(path: Path, part: str) -> bool:
    folder = path.relative_to(Path(__file__).parent).parts[0]
    return part == next((name for name, folders in PARTS.items() if folder in folders), "rest")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore the other parts: `tox` runs each part in fresh processes, because each test leaves some memory in use."""
    part, folder = config.getoption("--part"), Path(__file__).parent
    if part is None or collection_path == folder or not collection_path.is_relative_to(folder):
        return None
    return None if is_in_part(collection_path, part) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the tests of other parts: pytest does not ignore a file that the command line names."""
    part = config.getoption("--part")
    items[:] = [item for item in items if part is None or is_in_part(item.path, part)]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Accept a part without selected tests, unless all parts are without them."""
    config, key = session.config, "alexnet_mf/parts_before_were_empty"
    part, is_empty = config.getoption("--part"), exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
    were_empty = is_empty and (part == "backends" or config.cache.get(key, False))
    if part and is_empty and not (part == "rest" and were_empty):
        session.exitstatus = pytest.ExitCode.OK
    if part not in (None, "rest") and not hasattr(config, "workerinput"):
        config.cache.set(key, were_empty)


def selected_backends(config: pytest.Config) -> list[str]:
    names = [name for name in config.getoption("--backends").split(",") if name]
    unknown = set(names) - set(backends.BACKENDS)
    if unknown:
        raise pytest.UsageError(f"--backends: unknown {', '.join(sorted(unknown))}")
    return names


with contextlib.suppress(ImportError):  # a machine with a GPU may lack it
    from hypothesis import HealthCheck, settings

    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")

# The setting `allocator` makes glibc keep freed memory for the next training step. It applies to the process and cannot
# be undone: the tests of three frameworks in one process would keep gigabytes. Child processes use it as users do.
allocator.keep_large_blocks = lambda: None


@pytest.fixture(scope="session", autouse=True)
def take_signals() -> None:
    """Restore the default handlers: a shell's background jobs ignore SIGINT, those of `nohup` ignore SIGHUP, and the
    processes that the tests start would inherit both."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="module", autouse=True)
def release_memory() -> Iterator[None]:
    """Free the models that Keras keeps, and return free memory to the kernel, after each module."""
    yield
    if keras := sys.modules.get("keras"):
        keras.utils.clear_session()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


@pytest.fixture(params=list(backends.BACKENDS))
def backend_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    require(name, request.config)
    return name


def require(name: str, config: pytest.Config) -> None:
    """Skip the test if the backend is not selected or not installed; fail if `--backends` names a missing one."""
    names = selected_backends(config)
    if names and name not in names:
        pytest.skip(f"{name} is not selected; add it to --backends {','.join(names)}")
    if not backends.is_installed(name):
        if names:
            pytest.fail(f"--backends names {name}, which is not installed: {backends.BACKENDS[name].install}")
        pytest.skip(f"{name} is not installed: {backends.BACKENDS[name].install}")


@pytest.fixture
def requires(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return `require` for a test that needs another backend."""
    return lambda name: require(name, request.config)


@pytest.fixture
def present(request: pytest.FixtureRequest) -> list[str]:
    """Return the installed backends among the selected ones, in the registry's order."""
    names = selected_backends(request.config) or backends.BACKENDS
    return [name for name in backends.installed() if name in names]


@pytest.fixture
def backend(backend_name: str) -> Backend:
    return backends.load(backend_name)


@pytest.fixture
def small() -> Network:
    """Return a network of the most frequent layers on 28x28 images. A step takes well under a second."""
    return Network("small", (1, 28, 28), (
        Conv2d("conv1", channels=8, kernel=5, stride=2, padding=1), MaxPool2d("pool1", kernel=3, stride=2),
        Conv2d("conv2", channels=12, kernel=3, padding=1), MaxPool2d("pool2", kernel=2, stride=2),
        Flatten("flatten"), Dense("fc3", units=32, activation="relu"), Dropout("drop3", rate=0.5),
        Dense("fc4", units=10)))


@pytest.fixture
def small_toml(small: Network, tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(toml.dump(small), encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def own_data_dir(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Hide the user's dataset from all tests, except those marked `real_data`."""
    if "real_data" not in request.keywords:
        monkeypatch.delenv("ALEXNET_MF_DATA_DIR", raising=False)
    elif not os.environ.get("ALEXNET_MF_DATA_DIR"):
        pytest.skip("ALEXNET_MF_DATA_DIR is not set; set it to a folder with Fashion-MNIST")


# Full disks and power cuts


class Crash(BaseException):
    """Simulated end of the process, which no `except Exception` catches."""


class FailingOs:
    """Substitute for `os` that counts the calls that change files, and makes one of them fail. `alexnet_mf.files` uses
    these calls alone for every file of the package, so one backend stands for all."""

    CALLS = ("open", "write", "fsync", "ftruncate", "replace", "link", "close")
    Crash = Crash

    def __init__(self, at: int | None, error: int | None):
        self.at = at
        self.error = error
        self.gone = False
        """True after a crash: other threads cannot change files either."""
        self.calls: list[str] = []
        self.names: list[str] = []
        """File or folder of each call. A temporary file has the name of the file that it replaces."""
        self.threads: list[int] = []
        self._lock = threading.Lock()
        self._open: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.CALLS:
            return real

        def call(*arguments: Any) -> Any:
            on = self._open.get(arguments[0]) if isinstance(arguments[0], int) else str(arguments[-1] if name in (
                "replace", "link") else arguments[0])
            with self._lock:
                number = len(self.calls)
                self.calls.append(name)
                self.threads.append(threading.get_ident())
                self.names.append(re.sub(r"^\.(.*)\.\d+\.partial$", r"\1", os.path.basename(on or "")))
            if self.gone and name != "close":
                raise Crash
            if number != self.at:
                result = real(*arguments)
                if name == "open":
                    self._open[result] = on
                return result
            if name == "write":  # half of it, as on a disk that fills up
                os.write(arguments[0], bytes(arguments[1])[:len(arguments[1]) // 2])
            if self.error is None:
                self.gone = True
                raise Crash
            if name == "close":  # a close that fails closes the file too
                os.close(*arguments)
            raise OSError(self.error, os.strerror(self.error))

        return call


@pytest.fixture
def failing_os(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FailingOs]:
    """Return a function that replaces the `os` that writes all files by a `FailingOs`.

    Args:
        at: number of the call that fails, from 0. Without it, no call fails.
        error: error number of the failure. Without it, the call raises `Crash`.
    """
    def install(at: int | None = None, error: int | None = None) -> FailingOs:
        failing = FailingOs(at, error)
        monkeypatch.setattr(files, "os", failing)
        return failing
    return install


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep prepared pictures out of the user's cache, also in processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
