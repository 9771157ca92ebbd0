"""Messages: the library names arguments, the command line its flags."""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path

import pytest

import alexnet_mf
from alexnet_mf import cli
from alexnet_mf.cli.flags import with_flags

SOURCE = Path(alexnet_mf.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z]")
ROOMS = ("analysis", "api.py", "bench", "conversion.py", "data", "evaluation.py", "instruments", "models.py", "parity",
         "plots", "predict.py", "shapes.py", "sweep", "training")


@pytest.mark.parametrize("message, shown", [
    ("a smaller `batch_size` or `steps`", "a smaller --batch-size or --steps"),
    ("another interpreter (`pythons`)", "another interpreter (--python NAME=PATH)"),
    ("needs none (`measure=False`)", "needs none (--no-measure)"),
    ("see `list runs` and `seed`", "see `list runs` and `seed`"),
])
def test_arguments_become_flags_where_the_verb_has_them(message, shown):
    options = argparse.Namespace(batch_size=1, steps=2, python=[], measure=True)
    assert with_flags(message, options) == shown


@pytest.mark.parametrize("message, shown", [
    ("`train_images=4` would", "--limit-train 4 would"), ("use `weights='a b/w'`", "use --weights 'a b/w'"),
    ("resume with `alexnet_mf.resume(\"it's\")`", "resume with alexnet-mf train --resume 'it'\"'\"'s'"),
    ("leave out `compile=True`", "leave out --compile"), ("use `learning_rate`", "use --lr"),
    ("`nothing` and `a.b`", "`nothing` and `a.b`"), ("see `alexnet_mf.list_runs()`", "see `list runs`"),
    ("resume with `alexnet_mf.resume('a b')`", "resume with alexnet-mf train --resume 'a b'"),
    ("`plot_filters` draws", "`plot filters` draws")])
def test_values_and_calls_become_words_of_the_command_line(message, shown):
    assert with_flags(message, cli.parser().parse_args(["train"])) == shown


def texts(path: Path) -> list[str]:
    """Return the string constants of a module that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings]


def test_the_library_names_no_flag():
    """But those of the programs that it starts."""
    files = [path for path in sorted(SOURCE.rglob("*.py")) if path.parent.name != "cli"]
    assert len(files) > 100
    for path in files:
        for text in texts(path):
            if FLAG.search(text):
                assert text.startswith(("--query-gpu=", "--format=csv", "--porcelain")), (path, text)
