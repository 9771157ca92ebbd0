"""The page that shows the three networks as their own frameworks print them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "side_by_side.py"))


@pytest.mark.parametrize("backend_name", ["torch", "tensorflow", "mxnet"], indirect=True)
def test_the_page_is_current(backend_name):
    """Each framework's part alone, so that one framework suffices; and around the parts what the script writes."""
    page = SCRIPT["PAGE"].read_text(encoding="utf-8")
    assert SCRIPT["cell"](SCRIPT["printed"](backend_name)) in page
    head, _, tail = SCRIPT["TEXT"].partition("{table}")
    assert page.startswith(head) and page.endswith(tail)
