"""Checks of arguments: valid values, and the message of one line for each invalid value."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_mf import errors
from alexnet_mf.checks import check_choice, check_integer, check_list, check_number, check_path, check_type
from alexnet_mf.errors import AlexnetMfError


def test_valid_values_are_returned():
    assert type(check_integer("top", np.int64(3))) is int
    assert check_integer("seed", 0, least=0) == 0
    assert (check_number("rate", 0), check_number("rate", np.float32(0.5), 0, 1)) == (0.0, 0.5)
    assert check_type("x", "a", str) == "a"
    assert check_choice("which", "best", ("last", "best")) == "best"
    assert check_list("images", (Path("a"), "b"), (str, Path)) == [Path("a"), "b"]
    assert check_path("path", "A.PNG", ".png") == Path("A.PNG")
    with os.scandir(Path(__file__).parent) as entries:
        entry = next(entries)
    assert check_path("path", entry) == Path(entry.path)


@pytest.mark.parametrize(("check", "value", "options", "message"), [
    (check_integer, 0, {}, "`x` must be at least 1, not 0"),
    (check_integer, -1, {"least": 0}, "`x` must be at least 0, not -1"),
    (check_integer, 1.0, {}, "`x` must be an integer, not 1.0"),
    (check_integer, True, {}, "`x` must be an integer, not True"),
    (check_integer, None, {}, "`x` must be an integer, not None"),
    (check_number, -0.1, {}, "`x` must be a number of at least 0, not -0.1"),
    (check_number, 0, {"above": True}, "`x` must be a number greater than 0, not 0"),
    (check_number, 0, {"high": 1, "above": True}, "`x` must be a number greater than 0 and at most 1, not 0"),
    (check_number, 10**400, {}, f"`x` must be a number of at least 0, not {10**400}"),
    (check_number, Fraction(-10**400, 3), {}, f"`x` must be a number of at least 0, not Fraction(-{10**400}, 3)"),
    (check_number, 2, {"high": 1}, "`x` must be a number from 0 to 1, not 2"),
    (check_number, float("nan"), {}, "`x` must be a number of at least 0, not nan"),
    (check_number, float("inf"), {}, "`x` must be a number of at least 0, not inf"),
    (check_number, "1", {}, "`x` must be a number of at least 0, not '1'"),
    (check_type, "a", {"kind": int}, "`x` must be of type int, not 'a'"),
    (check_choice, "c", {"choices": "ab"}, "`x` must be one of a, b, not 'c'"),
    (check_choice, ["a"], {"choices": "ab"}, "`x` must be one of a, b, not ['a']"),
    (check_list, "ab", {}, "`x` must be a list, not 'ab'"),
    (check_list, 3, {}, "`x` must be a list, not 3"),
    (check_list, [], {}, "`x` must have at least one item"),
    (check_list, ["a", 3], {}, "`x` must not contain 3"),
    (check_path, 3, {}, "`x` must be a path, not 3"),
    (check_path, b"a", {}, "`x` must be a path, not b'a'"),
    (check_path, "", {}, "`x` must be a path, not ''"),
    (check_path, "a.jpg", {"ending": ".png"}, "`x` must end in .png, not 'a.jpg'"),
])
def test_an_invalid_value_is_named_with_the_allowed_ones(check: Any, value: Any, options: Any, message: str):
    with pytest.raises(AlexnetMfError) as caught:
        check("x", value, **options)
    assert str(caught.value) == message


def test_an_integer_too_long_to_print_is_refused():
    for check, value in ((check_number, 10**5000), (check_integer, -10**5000), (check_path, 10**5000)):
        with pytest.raises(AlexnetMfError, match="not an integer too long to show"):
            check("x", value)


@pytest.mark.parametrize("error", [value for value in vars(errors).values() if isinstance(value, type)])
def test_an_error_message_is_one_printable_line(error):
    assert str(error("conv1: größer als 3; take less")) == "conv1: größer als 3; take less"
    assert str(error("a\nb\x1b[2J\ud800")) == "a\\nb\\x1b[2J\\ud800"
    assert str(error("x" * 10**6)) == "x" * errors.LONGEST + "..."
