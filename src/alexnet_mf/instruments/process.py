"""Worker processes: the parent's end (`WorkerProcess`) and the worker's end (`serve`).

The parent sends commands on the worker's standard input and receives answers, each one line of JSON. Messages with a
`progress` key go to the callback; the wait for the answer continues. Frameworks print what they like, even from C, so
answers do not go through standard output: the worker copies its descriptor first, and from then on whatever is printed
goes to standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import IO, Any, Protocol

from alexnet_mf.errors import AlexnetMfError, Notice

PREFIX = "alexnet_mf.worker "
"""Beginning of every answer; lines that Python prints before the worker starts lack it."""
PROTOCOL = 4
"""Version of commands and answers. Both ends must have the same."""
ANSWER_SECONDS = 1800.0
"""Longest wait for an answer or for the next progress: compiling and ten slow epochs take less."""
POLL_SECONDS = 1.0
END_SECONDS = 5.0
INTERRUPT_SECONDS = 60.0
"""Longest wait for an interrupted worker: a training step on a CPU and a checkpoint take less."""
CAN_PAUSE = sys.platform == "linux"  # where a paused process still ends with its parent

Handle = Callable[[dict[str, Any]], dict[str, Any]]
"""Function that carries out one command and returns the answer."""


class WorkerFailed(AlexnetMfError):
    """A worker answered with an error. It can take further commands."""


class WorkerGone(WorkerFailed):
    """A worker process ended, or does not answer."""


class Channel(Protocol):
    """The part of `WorkerProcess` that callers use."""

    def ask(self, command: dict[str, Any]) -> dict[str, Any]: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class WorkerProcess:
    """A worker process. It is paused between an answer and the next command, so that none of its threads spins."""

    def __init__(self, python: str, module: str, environment: Mapping[str, str] | None = None,
                 report_progress: Callable[[Any], None] = lambda progress: None,
                 answer_seconds: float = ANSWER_SECONDS) -> None:
        """Start the process.

        Args:
            python: interpreter.
            module: module that calls `serve_forever`.
            environment: variables to set beside the parent's own.
            report_progress: takes the progress that the worker sends.
            answer_seconds: longest wait for an answer.

        Raises:
            WorkerGone: if the interpreter cannot be run.
        """
        self.python = python
        self.report_progress = report_progress
        self._answer_seconds = answer_seconds
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._errors = tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen(
                [python, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                env={**os.environ, **(environment or {})}, start_new_session=True)  # Ctrl-C is for the parent alone
        except OSError as error:
            self._errors.close()
            raise WorkerGone(f"{python} cannot be run ({error.strerror})") from error
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command and wait for its answer. The worker's notices become this process's.

        Raises:
            WorkerFailed: with the worker's own message.
            WorkerGone: with the last line that the worker wrote.
        """
        assert self.process.stdin
        if CAN_PAUSE:
            self._signal(signal.SIGCONT)
        try:
            self.process.stdin.write((json.dumps(command) + "\n").encode())
            self.process.stdin.flush()
        except OSError:  # a broken pipe; on Windows an invalid argument
            raise self._gone() from None
        while "progress" in (answer := self._receive()):
            self.report_progress(answer["progress"])
        if CAN_PAUSE:
            self._signal(signal.SIGSTOP)
        if answer.pop("protocol", None) != PROTOCOL:
            raise WorkerFailed(f"{self.python} has another version of alexnet_mf; install this version there")
        for notice in answer.pop("notices", ()):
            warnings.warn(notice, Notice, stacklevel=2)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def _read(self) -> None:
        """Queue the answers until the worker closes its output; then None."""
        assert self.process.stdout
        try:
            for line in self.process.stdout:
                if line.startswith(PREFIX.encode()) and line.endswith(b"\n"):  # else it ended within its answer
                    self._answers.put(json.loads(line[len(PREFIX):]))
        finally:
            self._answers.put(None)

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._answer_seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                answer = self._answers.get(timeout=min(left, POLL_SECONDS))  # Windows sees Ctrl-C between two waits
            except queue.Empty:
                continue
            if answer is None:
                raise self._gone()
            return answer
        self.close()
        raise WorkerGone(f"the worker did not answer within {self._answer_seconds:g} s")

    def _gone(self) -> WorkerGone:
        """Describe how the process ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # it closed its output but still runs; `close` ends it
            self.process.wait(END_SECONDS)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        code = self.process.returncode
        killed = "; probably killed for lack of memory: use a smaller batch" if os.name == "posix" and \
            code == -signal.SIGKILL else ""
        return WorkerGone(f"{self.python} ended with exit code {code} ({lines[-1] if lines else 'no message'}{killed})")

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended
            os.killpg(self.process.pid, number)

    def interrupt(self, seconds: float = INTERRUPT_SECONDS) -> None:
        """Send the worker a Ctrl-C, and wait while it saves its work and ends."""
        if os.name == "posix":
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)

    def close(self) -> None:
        """End the process and its children at once."""
        if self._errors.closed:
            return
        if os.name == "posix":
            self._signal(signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()
        self._reader.join(END_SECONDS)
        for stream in (self.process.stdin, self._errors, *([] if self._reader.is_alive() else [self.process.stdout])):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


# The worker's end


def serve_forever(make: Callable[[Callable[[Any], None]], Handle]) -> None:
    """Answer the parent's commands until there are no more.

    Args:
        make: takes a function that sends progress to the parent; returns the function that handles the commands.
    """
    commands, answers = open_channel()
    serve(commands, answers, make(lambda progress: send(answers, {"progress": progress})))


def serve(commands: IO[str], answers: IO[str], handle: Handle) -> None:
    """Answer commands until there are no more. After an error, the next command may succeed."""
    for line in commands:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", Notice)
            try:
                answer = handle(json.loads(line))
            except Exception as error:  # whatever a framework raises: the parent reports it, and other workers continue
                answer = {"error": one_line(error)}
        notices = [str(one.message) for one in caught if issubclass(one.category, Notice)]
        send(answers, {"protocol": PROTOCOL, **({"notices": notices} if notices else {}), **answer})


def send(answers: IO[str], answer: dict[str, Any]) -> None:
    """Write one message to the parent."""
    answers.write(PREFIX + json.dumps(answer) + "\n")
    answers.flush()


def open_channel() -> tuple[IO[str], IO[str]]:
    """Return the streams of commands and answers, for this process alone: its children and prints cannot use them."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    commands = os.fdopen(os.dup(0), "r", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    return commands, answers


def die_with_parent() -> None:
    """Ask Linux to end this process whenever its parent ends. On other systems it ends with its standard input, unless
    it is busy."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)


def one_line(error: BaseException) -> str:
    """Return an error's message as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, (AlexnetMfError, NotImplementedError)) and lines:
        return lines[0]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
