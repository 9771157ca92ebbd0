"""The page that shows the three networks as their own frameworks print them."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "docs" / "side_by_side.py"
SCRIPT = runpy.run_path(str(PATH))


@pytest.mark.parametrize("backend_name", ["torch", "tensorflow", "mxnet"], indirect=True)
def test_the_page_is_current(backend_name):
    """Each framework's part alone, so that one framework suffices; and around the parts what the script writes."""
    page = SCRIPT["PAGE"].read_text(encoding="utf-8")
    printing = f"import runpy; print(runpy.run_path({str(PATH)!r})['printed']({backend_name!r}))"
    printed = subprocess.run([sys.executable, "-c", printing], capture_output=True, text=True, check=True)
    assert SCRIPT["cell"](printed.stdout) in page  # TensorFlow would keep the whole network's memory
    head, _, tail = SCRIPT["TEXT"].partition("{table}")
    assert page.startswith(head) and page.endswith(tail)
