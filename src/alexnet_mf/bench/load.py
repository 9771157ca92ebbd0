"""Busy processes, beside which a step is measured: `python -m alexnet_mf.bench.load` is one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from alexnet_mf.errors import BenchError
from alexnet_mf.instruments.process import die_with_parent

BUSY = b"busy\n"


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep this many processes busy, each with one thread.

    Raises:
        BenchError: if a process cannot be started, or ends early.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            processes.append(subprocess.Popen([sys.executable, "-m", "alexnet_mf.bench.load"], stdout=subprocess.PIPE,
                                              stderr=subprocess.DEVNULL))
        for process in processes:
            assert process.stdout
            if process.stdout.readline() != BUSY:
                raise OSError("one ended at once")
        yield
        if any(process.poll() is not None for process in processes):
            raise OSError("one ended early")
    except OSError as error:
        raise BenchError(f"cannot keep {count} processes busy beside the step ({error}); use fewer with `beside`"
                         ) from error
    finally:
        for process in processes:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    die_with_parent()
    os.write(1, BUSY)
    parent = os.getppid()
    while os.getppid() == parent:
        for _ in range(10**6):
            pass
