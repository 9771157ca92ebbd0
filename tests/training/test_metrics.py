"""metrics.jsonl: lines are read as written, an incomplete last line is skipped, a damaged line is named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from alexnet_mf.errors import RunError
from alexnet_mf.training import metrics
from alexnet_mf.training.loop import Epoch, Progress

NOW = Progress(2, 3, 5, 20, 1 / 3, 0.25, 10.0, 4.5)
DONE = Epoch(2, 1 / 3, 0.25, 2 / 3, 0.5)


def write(folder: Path, *lines: bytes) -> None:
    (folder / metrics.NAME).write_bytes(b"".join(lines))


def test_readings_and_epochs_are_read_as_written(tmp_path):
    write(tmp_path, metrics.step_line(NOW), metrics.epoch_line(DONE))
    step, epoch = metrics.read(tmp_path)
    assert step == {"kind": "step", "step": 25, "epoch": 2, "epochs": 1.25, "loss": 1 / 3, "train_accuracy": 0.25,
                    "images_per_second": 10.0}
    assert metrics.epochs([step, epoch]) == [DONE]


def test_an_unknown_rate_is_null():
    """JSON has no NaN."""
    line = metrics.step_line(Progress(1, 1, 1, 2, 1.0, 0.0, math.nan, math.nan))
    assert json.loads(line)["images_per_second"] is None
    assert b"NaN" not in line


def test_an_incomplete_last_line_is_skipped(tmp_path):
    write(tmp_path, metrics.step_line(NOW), metrics.epoch_line(DONE)[:-1])
    assert [entry["kind"] for entry in metrics.read(tmp_path)] == ["step"]


@pytest.mark.parametrize("line", [b"\n", b"{\n", b"\xff\n", b"[]\n", b'{"kind": "step"}\n', b'{"kind": "epoch"}\n',
                                  metrics.step_line(NOW).replace(b"0.25", b'"x"'),
                                  metrics.epoch_line(DONE).replace(b"0.25", b"null"), b"[" * 9_999 + b"\n",
                                  *(metrics.epoch_line(DONE).replace(b"0.25", bad) for bad in (
                                      b"NaN", b"true", b"1e999", b"1" * 400)),
                                  metrics.step_line(NOW)[:-2] + b', "x": "' + b"x" * 10_000 + b'"}\n'])
def test_a_damaged_line_is_named(tmp_path, line):
    write(tmp_path, metrics.step_line(NOW), line, metrics.epoch_line(DONE))
    with pytest.raises(RunError, match=r"metrics\.jsonl: line 2 is damaged"):
        metrics.read(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RunError, match=r"metrics\.jsonl: cannot be read"):
        metrics.read(tmp_path)
