"""Commands run in this process, and what they leave; for the tests of several verbs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from alexnet_mf import cli


@dataclasses.dataclass
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def call(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Outcome:
    """The command's exit code and what it printed, and nothing that was printed before."""
    capsys.readouterr()
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:  # argparse
        code = stop.code
    return Outcome(code, *capsys.readouterr())


def assert_one_line(outcome: Outcome, *fragments: str, code: int = 2, out: str | None = None) -> None:
    """An exit code and exactly one line on standard error, with these words; and, if given, what went to standard
    output."""
    assert outcome.code == code, outcome.err
    assert out in (None, outcome.out)
    assert outcome.err.count("\n") == 1 and outcome.err.endswith("\n"), outcome.err
    assert outcome.err.startswith("alexnet-mf")
    for fragment in fragments:
        assert fragment in outcome.err, outcome.err


def must_not_start(*arguments: Any, **options: Any) -> Any:
    """Take the place of a function that must not be called."""
    raise AssertionError("the work has begun")


def script(path: Path, *lines: str) -> Path:
    """Write a program that takes the place of Python."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    path.chmod(0o755)
    return path
