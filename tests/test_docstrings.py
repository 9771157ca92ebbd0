"""Docstrings begin with an imperative sentence or a noun phrase."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import alexnet_mf

SOURCE = Path(alexnet_mf.__file__).parent
CLAUSE = re.compile(r"(As|How|Of|That|Those|What|Where|Whether|Who)\b")


def test_docstrings_do_not_begin_with_a_clause() -> None:
    paths = list(SOURCE.rglob("*.py"))
    assert len(paths) > 100
    nodes = [(path, node) for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    clauses = [f"{path}:{node.lineno}" for path, node in nodes if isinstance(node, ast.Expr)
               and isinstance(node.value, ast.Constant) and CLAUSE.match(str(node.value.value))]
    assert not clauses
