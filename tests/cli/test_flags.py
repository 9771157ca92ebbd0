"""Messages: the library names arguments, the command line its flags."""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path

import pytest

import alexnet_mf
from alexnet_mf.cli.flags import with_flags

SOURCE = Path(alexnet_mf.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z]")
ROOMS = ("analysis", "bench", "instruments", "parity", "plots", "sweep")


@pytest.mark.parametrize("message, shown", [
    ("a smaller `batch_size` or `steps`", "a smaller --batch-size or --steps"),
    ("another interpreter (`pythons`)", "another interpreter (--python NAME=PATH)"),
    ("needs none (`measure=False`)", "needs none (--no-measure)"),
    ("see `list runs` and `seed`", "see `list runs` and `seed`"),
])
def test_arguments_become_flags_where_the_verb_has_them(message, shown):
    options = argparse.Namespace(batch_size=1, steps=2, python=[], measure=True)
    assert with_flags(message, options) == shown


@pytest.mark.parametrize("room", ROOMS)
def test_the_library_names_no_flag(room):
    """But those of the programs that it starts."""
    for path in sorted((SOURCE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and FLAG.search(node.value):
                assert node.value.startswith(("--query-gpu=", "--format=csv", "--porcelain")), (path, node.value)
