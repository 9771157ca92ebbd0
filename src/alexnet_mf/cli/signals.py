"""Handle Ctrl-C, SIGTERM and a closed terminal: the first signal ends a training after its step, the second at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
if sys.platform != "win32":
    NAMES[signal.SIGHUP] = "SIGHUP"
SHOW_CURSOR = "\x1b[?25h"


class Stop:
    """Context in which a call returns True after the first of these signals; the second ends the process.

    Python runs a signal's handler between two of its own instructions, and a training step is one long call into a
    framework. So a thread does the work: the interpreter writes each signal's number into a pipe at once.
    """

    def __init__(self, on_first: Callable[[str], None]):
        """
        Args:
            on_first: receives the signal's name, in another thread.
        """
        self.signal: int | None = None
        self._on_first = on_first

    def __call__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> Stop:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous = {number: signal.getsignal(number) for number in NAMES}
        self._previous_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number, handler in self._previous.items():
            if handler is not signal.SIG_IGN:  # a background process, or one under nohup, ignores Ctrl-C
                signal.signal(number, lambda *_: None)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_writer)
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def _watch(self) -> None:
        while number := os.read(self._reader, 1):
            if number[0] not in NAMES:
                continue
            if self.signal is not None:
                if sys.stdout.isatty():
                    os.write(1, SHOW_CURSOR.encode())
                os._exit(128 + number[0])  # no cleanup: files are whole, and locks end with the process
            self.signal = number[0]
            self._on_first(NAMES[signal.Signals(self.signal)])


class HungUp(BaseException):
    """The process received SIGHUP."""


@contextmanager
def hang_up_raises() -> Iterator[None]:
    """Raise HungUp in this context when the terminal closes, unless the process ignores SIGHUP, as under nohup.

    A second SIGHUP is ignored: a shell and the system often send one each. Output to the closed terminal is discarded,
    so that it raises no error.
    """
    def raise_hung_up(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        for descriptor in (1, 2):
            try:
                os.write(descriptor, b"")
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        raise HungUp

    if sys.platform == "win32" or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        yield
        return
    previous = signal.signal(signal.SIGHUP, raise_hung_up)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, previous)
