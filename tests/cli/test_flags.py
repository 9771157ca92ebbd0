"""Messages: the library names arguments, and the command line names flags."""

from __future__ import annotations

import pytest

from alexnet_mf import cli
from alexnet_mf.cli.flags import with_flags


@pytest.mark.parametrize("verb, message, expected", [
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
def test_messages_name_flags_and_commands_of_the_command_line(verb, message, expected):
    """An argument becomes a flag only if the verb has that flag."""
    options = cli.parser().parse_args([verb, "--backend", "numpy"] if verb == "shapes" else [verb])
    assert with_flags(message, options) == expected
