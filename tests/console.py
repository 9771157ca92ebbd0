"""Commands that run in this process, for the tests of several verbs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from alexnet_mf import cli


@dataclasses.dataclass
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Outcome:
    """Run a command, and return its outcome without earlier output."""
    capsys.readouterr()
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:  # argparse
        code = stop.code
    return Outcome(code, *capsys.readouterr())


def assert_one_line(outcome: Outcome, *fragments: str, code: int = 2, out: str | None = None) -> None:
    """Assert the exit code and exactly one line with these fragments on standard error; and the standard output, if
    `out` is not None."""
    assert outcome.code == code, outcome.err
    assert out in (None, outcome.out)
    assert outcome.err.count("\n") == 1 and outcome.err.endswith("\n"), outcome.err
    assert outcome.err.startswith("alexnet-mf")
    for fragment in fragments:
        assert fragment in outcome.err, outcome.err


def must_not_start(*arguments: Any, **options: Any) -> Any:
    """Fail the test: the substitute for a function that must not be called."""
    raise AssertionError("the work has begun")


def script(path: Path, *lines: str) -> Path:
    """Write a shell script that stands for a Python interpreter, and return its path."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    path.chmod(0o755)
    return path
