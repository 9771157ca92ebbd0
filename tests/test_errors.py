"""A message is one line, whatever it quotes."""

from __future__ import annotations

import pytest

from alexnet_mf import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_stays_as_it_is_but_in_one_line(kind):
    assert str(kind("conv1: größer als 3; take less")) == "conv1: größer als 3; take less"
    assert str(kind("a\nb\x1b[2J\ud800")) == "a\\nb\\x1b[2J\\ud800"
    assert str(kind("x" * 10**6)) == "x" * errors.LONGEST + "..."
