"""Docstrings begin with an imperative sentence or a noun phrase."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import alexnet_mf

SOURCE = Path(alexnet_mf.__file__).parent
CLEAN = ("errors.py", "files.py", "models.py", "predict.py", "shapes.py", "spec/*.py", "weights/*.py", "data/**/*.py",
         "bench/*.py", "instruments/*.py", "backends/execution.py",
         "analysis/*.py", "backends/[!e]*.py", "backends/mxnet/[!f]*.py", "backends/tensorflow/[!f]*.py",
         "backends/torch/[!f]*.py", "sweep/*.py", "training/*.py", "cli/sweep.py", "cli/train.py", "cli/listing.py",
         "cli/signals.py", "cli/bench.py", "cli/parity.py", "parity/case.py", "parity/record.py", "parity/run.py",
         "parity/trace.py", "parity/worker.py")
"""Modules that follow the rule so far; all others are to be added."""
CLAUSE = re.compile(r"(As|How|Of|That|Those|What|Where|Whether|Who)\b")


@pytest.mark.parametrize("pattern", CLEAN)
def test_docstrings_do_not_begin_with_a_clause(pattern: str) -> None:
    paths = list(SOURCE.glob(pattern))
    assert paths
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                assert not CLAUSE.match(str(node.value.value)), f"{path}:{node.lineno}"
