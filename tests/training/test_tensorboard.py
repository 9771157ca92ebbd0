"""TensorBoard events, read back record by record."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from alexnet_mf.errors import RunError
from alexnet_mf.training import tensorboard
from alexnet_mf.training.loop import Epoch, Progress


def events(folder: Path) -> list:
    """All of the folder's, by file name; a record is its length, a checksum, the event, a checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(event_pb2.Event.FromString(content[12:12 + length]))
            content = content[16 + length:]
    return found


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    return [(event.step, value.tag, value.simple_value) for event in events(folder) for value in event.summary.value]


def test_readings_and_epochs_are_events_by_step(tmp_path):
    pytest.importorskip("tensorboardX")
    written = tensorboard.Events(tmp_path, 0)
    written.progress(Progress(1, 2, 1, 5, 2.0, 0.25, float("nan"), float("nan")))
    written.progress(Progress(2, 2, 3, 5, 1.0, 0.5, 8.0, 1.0))
    written.progress(Progress(2, 2, 5, 5, 0.5, 0.75, 8.0, 0.0))
    written.epoch(Epoch(2, 0.5, 0.75, 0.75, 0.625))
    written.close()
    assert scalars(tmp_path / "tensorboard") == [
        (1, "loss/train", 2.0), (1, "accuracy/train", 0.25), (8, "loss/train", 1.0), (8, "accuracy/train", 0.5),
        (8, "images_per_second", 8.0), (10, "loss/train", 0.5), (10, "accuracy/train", 0.75),
        (10, "images_per_second", 8.0), (10, "loss/test", 0.75), (10, "accuracy/test", 0.625)]


def test_a_run_that_goes_on_hides_what_came_after_its_checkpoint(tmp_path):
    """TensorBoard leaves out what an earlier file told of steps from this one on; and no file is overwritten."""
    pytest.importorskip("tensorboardX")
    for step in (0, 7):
        written = tensorboard.Events(tmp_path, step)
        written.epoch(Epoch(1, 1.0, 0.5, 0.75, 0.625))  # the interruption came after the epoch's last step
        written.close()
    starts = [event for event in events(tmp_path / "tensorboard") if event.HasField("session_log")]
    assert [(event.step, event.session_log.status) for event in starts] == [(1, 1), (8, 1)]
    assert [step for step, _, _ in scalars(tmp_path / "tensorboard")] == [0, 0, 7, 7]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_without_tensorboardx_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(RunError, match="pip install tensorboardX"):
        tensorboard.check_installed()
