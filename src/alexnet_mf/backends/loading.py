"""Load a backend with a given execution, in a process that may have imported its framework before."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from alexnet_mf import backends
from alexnet_mf.backends.contract import Backend
from alexnet_mf.backends.execution import AS_IT_COMES, LEFT_OUT, SPEED_SETTINGS, Execution, left_out, switched_off
from alexnet_mf.errors import BackendUnavailable

_fixed: dict[str, frozenset[str]] = {}
"""Settings that were left out at the import of each backend's framework, by backend."""


def load(name: str, execution: Execution = AS_IT_COMES) -> tuple[Backend, Execution]:
    """Import a backend, and return it with the execution that it will have in this process.

    Raises:
        BackendUnavailable: as `backends.load`; if a speed setting is unknown; or if one was fixed to another value when
            the framework was imported.
    """
    speed = execution.speed
    for setting in speed:
        if setting not in SPEED_SETTINGS:
            raise BackendUnavailable(f"unknown speed setting {setting!r}; known: {', '.join(SPEED_SETTINGS)}")
    imported = name in backends.BACKENDS and backends.BACKENDS[name].module in sys.modules
    with _leaving_out([] if imported else switched_off(speed)):
        backend = backends.load(name)
        fixed = _fixed.setdefault(name, left_out() & frozenset(backends.BACKENDS[name].at_import))
    for setting in backends.BACKENDS[name].at_import:
        if setting in speed and speed[setting] is (setting in fixed):
            raise BackendUnavailable(f"backend {name}: `{setting}` is fixed at import, and this process imported "
                                     f"{name} {'without' if speed[setting] else 'with'} it; start a new process")
    return backend, Execution(execution.precision, {**speed, **dict.fromkeys(fixed, False)})


@contextmanager
def _leaving_out(settings: list[str]) -> Iterator[None]:
    before = os.environ.get(LEFT_OUT)
    os.environ[LEFT_OUT] = ",".join(sorted(left_out() | set(settings)))
    try:
        yield
    finally:
        del os.environ[LEFT_OUT]
        if before is not None:
            os.environ[LEFT_OUT] = before
