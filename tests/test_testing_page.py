"""`docs/developing/testing.md` names tests that exist, and says which command runs them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "developing" / "testing.md"
ROWS = re.findall(r"`(tests/\S+\.py)::(\w+)` \| (\w+)( \+)? \|", PAGE.read_text(encoding="utf-8"))


def marks(file: str, name: str) -> tuple[str, str]:
    """Return the source of the marks of a whole test, of its function or its module, and of the marks of its cases."""
    module = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    [function] = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name]
    whole = [ast.unparse(node) for node in function.decorator_list if not isinstance(node, ast.Call)]
    whole += [ast.unparse(node.value) for node in module.body
              if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"]
    return " ".join(whole), " ".join(map(ast.unparse, function.decorator_list))


@pytest.mark.parametrize(("file", "name", "command", "more"), ROWS, ids=[name for _, name, _, _ in ROWS])
def test_the_page_names_tests_that_exist(file: str, name: str, command: str, more: str) -> None:
    whole, cases = marks(file, name)
    expected = "slow" if "mark.slow" in whole else "exhaustive" if "mark.exhaustive" in whole else "tox"
    assert command == expected
    assert bool(more) == (expected == "tox" and re.search(r"mark\.(slow|exhaustive)|by_size", cases) is not None)


def test_the_page_has_a_row_for_each_table_line() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|") and "::" in line]
    assert len(lines) == len(ROWS) > 60
    assert len({name for _, name, _, _ in ROWS}) == len(ROWS)
