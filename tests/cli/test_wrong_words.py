"""Wrong words on the command line: one line that names them and the remedy, exit code 2, and no work before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from console import Outcome, assert_one_line

from alexnet_mf.bench import run as bench
from alexnet_mf.parity import run as parity

RIGHT = {"analyze": "analyze --no-measure", "bench": "bench --backends numpy", "parity": "parity",
         "trace": "parity trace --backend numpy --out t", "predict": "predict run x.png",
         "report": "bench --report", "measure": "analyze --backend numpy"}
"""Commands that the words of the table are added to; of a flag that comes twice the later counts."""

TABLE = [  # commands; words; fragments of the message, separated by "; "
    ("analyze bench parity trace", "--net lenet", "unknown network 'lenet'; known: alexnet, alexnet-tab"),
    ("analyze", "--net gone.toml", "gone.toml: cannot be read"),
    ("analyze trace", "--backend jax", "jax; torch"),
    ("bench parity", "--backends torch,jax", "jax; torch"),
    ("parity", "--backends=", "''; torch"),
    ("analyze bench parity trace", "--batch-size x", "--batch-size; 'x'"),
    ("analyze bench parity trace", "--batch-size 0", "--batch-size; at least 1"),
    ("bench", "--batch-size 32,x", "--batch-size; 'x'"),
    ("bench", "--batch-size=", "--batch-size; ''"),
    ("measure", "--batch-size 1000000000", "a batch of 1000000000 does not fit; --no-measure"),
    ("bench parity trace", "--seed -1", "--seed; -1"),
    ("parity trace", "--steps 0", "--steps; at least 1"),
    ("parity trace", "--images -1", "--images; -1"),
    ("bench parity", "--python numpy", "--python; NAME=PATH; 'numpy'"),
    ("bench parity", "--python numpy=", "NAME=PATH; 'numpy='"),
    ("bench parity", "--python =/bin/sh", "NAME=PATH; '=/bin/sh'"),
    ("bench parity", "--python jax=/bin/sh", "NAME=PATH; jax; torch, tensorflow, mxnet"),
    ("bench", "--python numpy=/nowhere/python", "/nowhere/python; no such program"),
    ("parity", "--tier half", "half; bfloat16"),
    ("analyze", "--recipe slow", "slow; book; quick"),
    ("bench", "--precision half", "unknown precision 'half'; float32, tf32, bfloat16"),
    ("bench", "--phases forward,backward", "unknown phase 'backward'; forward_backward"),
    ("bench", "--phases=", "unknown phase ''"),
    ("bench", "--rounds 0", "--rounds; at least 1"),
    ("bench", "--epoch-batches 1", "at least 2, not 1"),
    ("bench measure", "--sample-seconds 0", "--sample-seconds; above 0; '0'"),
    ("bench measure", "--sample-seconds inf", "--sample-seconds; 'inf'"),
    ("analyze bench parity", "--json /nowhere/r.json", "/nowhere/r.json; make it"),
    ("bench", "--plot /nowhere/r.png", "/nowhere/r.png; make it"),
    ("bench", "--markdown /nowhere/r.md", "/nowhere/r.md; make it"),
    ("bench", "--json - --markdown -", "cannot share standard output"),
    ("report", "", "--report"),
    ("report", "/nowhere/r.json", "/nowhere/r.json; No such file"),
    ("report", "/dev/null", "/dev/null; cannot be read"),
    ("report", "/dev/null --json -", "--report measures nothing; --json"),
    ("analyze", "--plot r.png", "--plot draws the roofline; leave out --no-measure"),
    ("analyze", "--device nonsense", "--no-measure measures nothing: leave out --device"),
    ("analyze", "--device auto", "--no-measure measures nothing: leave out --device"),
    ("analyze", "--rounds 3", "--no-measure measures nothing: leave out --rounds"),
    ("analyze", "--sample-seconds 1", "--no-measure measures nothing: leave out --sample-seconds"),
    ("measure", "--device tpu", "no device 'tpu' here; cpu"),
    ("predict", "--top 0", "--top; at least 1"),
    ("predict", "--top x", "--top; 'x'"),
    ("predict", "--limit -1", "--limit; -1"),
    ("predict", "--weights w", "--weights"),
]
CASES = [(f"{RIGHT[name]} {words}".strip(), fragments) for names, words, fragments in TABLE for name in names.split()]
CASES += [("parity trace --out t", "--backend"), ("parity trace --backend numpy", "--out"), ("parity compare", "TRACE")]


def must_not_start(*arguments: Any, **options: Any) -> Any:
    raise AssertionError("the work has begun")


@pytest.mark.parametrize(("line", "fragments"), CASES, ids=[line for line, _ in CASES])
def test_wrong_words_are_one_line_with_the_remedy(command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch,
                                                  line: str, fragments: str) -> None:
    monkeypatch.setattr(bench, "Bench", must_not_start)
    monkeypatch.setattr(parity, "trace_in_process", must_not_start)
    predicts_first = line.startswith("analyze --backend")  # its tables take no device
    assert_one_line(command(*line.split()), *fragments.split("; "), out=None if predicts_first else "")
