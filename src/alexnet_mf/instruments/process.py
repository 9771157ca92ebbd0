"""The parent's end of a worker: a process, commands to it and answers from it.

An answer that has the key `progress` is none: it is told, and the wait for the answer begins anew.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from alexnet_mf.backends.execution import LEFT_OUT
from alexnet_mf.bench.worker import PREFIX
from alexnet_mf.errors import AlexnetMfError

ANSWER_SECONDS = 1800.0
"""An answer that takes longer does not come any more: compiling and ten slow epochs take less."""
END_SECONDS = 5.0
CAN_PAUSE = sys.platform == "linux"  # where a paused process still ends with its parent


class WorkerFailed(AlexnetMfError):
    """A worker answered with an error, and can go on."""


class WorkerGone(WorkerFailed):
    """A worker's process ended, or does not answer."""


class Link:
    """One worker. Between an answer and the next command it is stopped, so that no thread of it spins."""

    def __init__(self, python: str, without: tuple[str, ...], module: str = "alexnet_mf.bench.worker",
                 tell: Callable[[Any], None] = lambda progress: None) -> None:
        """Start the process.

        Args:
            without: settings that it leaves out from the start.
            module: the worker.
            tell: takes what the worker says of its progress.

        Raises:
            WorkerGone: where this interpreter cannot be run.
        """
        self.python = python
        self.tell = tell
        self._buffer = b""
        self._errors = tempfile.TemporaryFile()
        environment = {**os.environ, LEFT_OUT: ",".join(without)}
        try:
            self.process = subprocess.Popen(
                [python, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._errors, env=environment, start_new_session=True)  # Ctrl-C is for the parent alone
        except OSError as error:
            self._errors.close()
            raise WorkerGone(f"{python} cannot be run ({error.strerror}); see --python") from error

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            WorkerFailed: with the worker's own line.
            WorkerGone: with the last line that it wrote.
        """
        assert self.process.stdin
        if CAN_PAUSE:
            self._signal(signal.SIGCONT)
        try:
            self.process.stdin.write((json.dumps(command) + "\n").encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None
        while "progress" in (answer := self._answer(time.monotonic() + ANSWER_SECONDS)):
            self.tell(answer["progress"])
        if CAN_PAUSE:
            self._signal(signal.SIGSTOP)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def _answer(self, deadline: float) -> dict[str, Any]:
        assert self.process.stdout
        source = self.process.stdout.fileno()
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                if line.startswith(PREFIX.encode()):
                    answer: dict[str, Any] = json.loads(line[len(PREFIX):])
                    return answer
                continue
            if not select.select([source], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self.close()
                raise WorkerGone(f"no answer within {ANSWER_SECONDS:g} s")
            piece = os.read(source, 65536)
            if not piece:
                raise self._gone()
            self._buffer += piece

    def _gone(self) -> WorkerGone:
        """What a process that has ended left behind."""
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # it closed its output and lives on; `close` ends it
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        code = self.process.returncode
        killed = "; was it killed for its memory? take a smaller --batch-size" if code == -signal.SIGKILL else ""
        return WorkerGone(f"{self.python} ended with exit code {code} ({said[-1] if said else 'nothing said'}{killed})")

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):  # it has ended
            pass

    def close(self) -> None:
        """End the process and whatever it started; it has nothing to lose."""
        if self._errors.closed:
            return
        self._signal(signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            if stream:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
