"""Processes that compute all the time, to measure beside them: `python -m alexnet_mf.bench.load` is one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from alexnet_mf.instruments.process import die_with_parent


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep this many processes busy, each with one thread."""
    processes = [subprocess.Popen([sys.executable, "-m", "alexnet_mf.bench.load"], stdout=subprocess.PIPE)
                 for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout
            process.stdout.readline()  # it is busy from here on
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def compute() -> None:
    """Compute until the end of this process."""
    while True:
        pass


if __name__ == "__main__":
    die_with_parent()
    os.write(1, b"busy\n")
    compute()
