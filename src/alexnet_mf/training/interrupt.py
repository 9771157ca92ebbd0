"""Ctrl-C during a training: the first stops it after the current step, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any


class Interrupt:
    """Context in which the first Ctrl-C sets `requested`, and the second raises KeyboardInterrupt.

    Outside the main thread, or if the program handles SIGINT itself, the context changes nothing.
    """

    def __init__(self, on_first: Callable[[], None]):
        self.requested = False
        self._on_first = on_first
        self._installed = False

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread() and \
                signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(self, *error: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._on_first()

    def deferred(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Return a callback that treats a KeyboardInterrupt as the first Ctrl-C."""
        def call(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except KeyboardInterrupt:
                self.requested = True
        return call
