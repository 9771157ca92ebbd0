"""Backends for a caller who may switch speed settings, in a process that may have loaded them before.

The command line has a process of its own, and does not need this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from alexnet_mf import backends
from alexnet_mf.backends.contract import Backend
from alexnet_mf.backends.execution import LEFT_OUT, SPEED_SETTINGS, Execution, left_out
from alexnet_mf.errors import BackendUnavailable

_settled: dict[str, frozenset[str]] = {}
"""By backend: what was left out when it was imported, of what can be left out only then."""


def load(name: str, precision: str | None = None, speed: Mapping[str, bool] | None = None) -> tuple[Backend, Execution]:
    """Import a backend, and say how it is to compute.

    Args:
        speed: by the names in `SPEED_SETTINGS`, those that are switched on or left out; the others are as the backend's
            table has them.

    Raises:
        BackendUnavailable: as `backends.load`; for an unknown setting; and for one that is settled when the framework
            is imported, where it was settled otherwise.
    """
    speed = speed or {}
    for setting in speed:
        if setting not in SPEED_SETTINGS:
            raise BackendUnavailable(f"unknown speed setting {setting!r}; known: {', '.join(SPEED_SETTINGS)}")
    without = frozenset(setting for setting, on in speed.items() if not on)
    backend = _load(name, without)
    for setting in backends.BACKENDS[name].at_import:
        if setting in speed and speed[setting] is (setting in _settled[name]):
            raise BackendUnavailable(f"backend {name}: {setting} is settled when it is imported, and this process has "
                                     f"imported it {'without' if speed[setting] else 'with'}: take a new process")
    return backend, Execution(precision, without | _settled[name],
                              frozenset(setting for setting, on in speed.items() if on))


def _load(name: str, without: frozenset[str]) -> Backend:
    imported = name in backends.BACKENDS and backends.BACKENDS[name].module in sys.modules
    with _leaving_out(frozenset() if imported else without):
        backend = backends.load(name)
        _settled.setdefault(name, left_out() & frozenset(backends.BACKENDS[name].at_import))
    return backend


@contextmanager
def _leaving_out(settings: frozenset[str]) -> Iterator[None]:
    before = os.environ.get(LEFT_OUT)
    os.environ[LEFT_OUT] = ",".join(sorted(left_out() | settings))
    try:
        yield
    finally:
        del os.environ[LEFT_OUT]
        if before is not None:
            os.environ[LEFT_OUT] = before
