"""Messages: the library names arguments, the command line its flags."""

from __future__ import annotations

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


@pytest.mark.parametrize("verb, message, shown", [
    ("parity", "a smaller `batch_size` or `steps`", "a smaller --batch-size or --steps"),
    ("bench", "another interpreter (`pythons`)", "another interpreter (--python NAME=PATH)"),
    ("analyze", "needs none (`measure=False`)", "needs none (--no-measure)"),
    ("shapes", "see `list runs` and `seed`", "see `list runs` and `seed`"),
    ("train", "`train_images=4` would", "--limit-train 4 would"),
    ("train", "use `weights='a b/w'`", "use --weights 'a b/w'"),
    ("train", "resume with `alexnet_mf.resume(\"it's\")`", "resume with alexnet-mf train --resume 'it'\"'\"'s'"),
    ("train", "leave out `compile=True`", "leave out --compile"), ("train", "use `learning_rate`", "use --lr"),
    ("train", "`nothing` and `a.b`", "`nothing` and `a.b`"),
    ("train", "see `alexnet_mf.list_runs()`", "see `list runs`"),
    ("train", "resume with `alexnet_mf.resume('a b')`", "resume with alexnet-mf train --resume 'a b'"),
    ("train", "`plot_filters` draws", "`plot filters` draws")])
def test_arguments_and_calls_become_words_of_the_command_line(verb, message, shown):
    """Flags only where the verb has them."""
    options = cli.parser().parse_args([verb, "--backend", "numpy"] if verb == "shapes" else [verb])
    assert with_flags(message, options) == shown


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
