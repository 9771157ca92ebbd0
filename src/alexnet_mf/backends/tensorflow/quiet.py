"""TensorFlow greets every user of a CPU with a dozen log lines; here they are kept back unless something goes wrong."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextmanager
def quiet_import() -> Iterator[None]:
    """Hold back what is written to standard error, and show it only if the import fails.

    The first lines come from before TensorFlow reads its log level, so that setting alone does not silence them. A user
    who sets TF_CPP_MIN_LOG_LEVEL, to 0 say, sees everything; 3 is what this sets, and what processes started from here
    inherit.
    """
    if os.environ.setdefault(LEVEL, "3") != "3":
        yield
        return
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(standard_error, 2)
            os.close(standard_error)
            if failed:
                held.seek(0)
                sys.stderr.write(held.read().decode(errors="replace"))
