"""Import TensorFlow without the dozen log lines that it prints on a CPU."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextmanager
def quiet_import() -> Iterator[None]:
    """Capture standard error, and show it only if the import fails.

    TensorFlow prints the first lines before it reads its log level, so the level alone does not silence them. This
    function sets TF_CPP_MIN_LOG_LEVEL to 3, also for processes started later. A user who sets it, to 0 for example,
    sees everything.
    """
    if os.environ.setdefault(LEVEL, "3") != "3":
        yield
        return
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(standard_error, 2)
            os.close(standard_error)
            if failed:
                captured.seek(0)
                sys.stderr.write(captured.read().decode(errors="replace"))
