"""The text: first words of docstrings, words of messages and pages, spelling, names of variables.

A net for patterns that a program can see. A sentence that passes may still be hard to read.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("src", "tests", "benchmarks", "docs") for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [path for path in sorted(ROOT.rglob("*.md")) if not {".tox", ".venv", "node_modules"} & {*path.parts}]

FIRST_WORDS = re.compile(r"(And|As|But|Either|How|If|It|Its|Of|Or|So|That|Their|They|Those|What|Whatever|When|Where"
                         r"|Whether|Which|Who|Whose)\b")
"""Words that begin a clause. A docstring begins with an imperative sentence or a noun phrase."""
VAGUE = re.compile(r"\b(told|said|anew|mend(ed|ing|s)?|(go|goes|going|gone|went) on|of (no )?use|take[ns]? over)\b",
                   re.I)
"""Words for which the field has others: report, again, repair, resume, useless, replace."""
BRITISH = re.compile(r"\b(?!bias_initialisation)\w*(colour|grey|behaviour|neighbour|favour|centre[ds]?\b"
                     r"|(normal|initial|synchron|optim|recogn|organ|general|serial)is(e|ed|es|er|ing|ation)\b)\w*",
                     re.I)
"""British spelling, except a key of the TOML files that exist."""
NAMES = {"found", "given", "held", "known", "said", "told"}
"""Participles as variables: a variable is the noun of its content."""


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in SOURCES:
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the strings that stand alone: docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield docstrings, messages and comments with their lines. A string without a space is a key, not a text."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, without_code(node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], without_code(token.string)


def without_code(text: str) -> str:
    """Return a text without code blocks and code in backticks."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)


def test_docstrings_begin_with_an_imperative_sentence_or_a_noun_phrase() -> None:
    clauses = [f"{path.relative_to(ROOT)}:{node.lineno}: {node.value.strip()[:60]}" for path, tree in trees()
               for node in docstrings(tree) if FIRST_WORDS.match(node.value.strip())]
    assert not clauses, "\n".join(clauses)


def test_variables_are_nouns() -> None:
    wrong = [f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for path, tree in trees() for node in ast.walk(tree)
             for name in [getattr(node, "id", None) if isinstance(getattr(node, "ctx", None), ast.Store)
                          else node.arg if isinstance(node, ast.arg) else None] if name in NAMES]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("pattern", [VAGUE, BRITISH], ids=["vague words", "British spelling"])
def test_texts_keep_to_the_vocabulary(pattern: re.Pattern[str]) -> None:
    wrong = [f"{path.relative_to(ROOT)}:{line}: {match[0]}" for path in SOURCES if path != Path(__file__)
             for line, text in texts(path) for match in [pattern.search(text)] if match]
    wrong += [f"{path.relative_to(ROOT)}: {match[0]}" for path in PAGES
              for match in pattern.finditer(without_code(path.read_text(encoding="utf-8")))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("pattern", "wrong", "right"), [
    (FIRST_WORDS, "What a command left.", "Outcome of a command."),
    (VAGUE, "a run goes on from its checkpoint", "a run resumes from its checkpoint"),
    (BRITISH, "Normalised grey levels", "Normalized gray levels")],
    ids=["first words", "vague words", "British spelling"])
def test_the_patterns_match_what_they_are_for(pattern: re.Pattern[str], wrong: str, right: str) -> None:
    assert pattern.search(wrong) and not pattern.search(right)
