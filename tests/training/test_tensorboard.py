"""TensorBoard events, read back record by record."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from alexnet_mf.errors import RunError
from alexnet_mf.training import tensorboard
from alexnet_mf.training.loop import Epoch, Progress


def read_events(folder: Path) -> list:
    """Return a folder's events by file name. A record is its length, a checksum, the event and a checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    read = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            read.append(event_pb2.Event.FromString(content[12:12 + length]))
            content = content[16 + length:]
    return read


def read_scalars(folder: Path) -> list[tuple[int, str, float]]:
    return [(event.step, value.tag, value.simple_value)
            for event in read_events(folder) for value in event.summary.value]


def test_readings_and_epochs_are_events_by_step(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = tensorboard.Events(tmp_path, 0)
    writer.progress(Progress(1, 2, 1, 5, 2.0, 0.25, float("nan"), float("nan")))
    writer.progress(Progress(2, 2, 3, 5, 1.0, 0.5, 8.0, 1.0))
    writer.progress(Progress(2, 2, 5, 5, 0.5, 0.75, 8.0, 0.0))
    writer.epoch(Epoch(2, 0.5, 0.75, 0.75, 0.625))
    writer.close()
    assert read_scalars(tmp_path / "tensorboard") == [
        (1, "loss/train", 2.0), (1, "accuracy/train", 0.25), (8, "loss/train", 1.0), (8, "accuracy/train", 0.5),
        (8, "images_per_second", 8.0), (10, "loss/train", 0.5), (10, "accuracy/train", 0.75),
        (10, "images_per_second", 8.0), (10, "loss/test", 0.75), (10, "accuracy/test", 0.625)]


def test_a_resumed_run_hides_events_after_its_checkpoint(tmp_path):
    """TensorBoard hides an earlier file's events from the resumed step on. No file is overwritten."""
    pytest.importorskip("tensorboardX")
    for step in (0, 7):
        writer = tensorboard.Events(tmp_path, step)
        writer.epoch(Epoch(1, 1.0, 0.5, 0.75, 0.625))  # the interruption came after the epoch's last step
        writer.close()
    starts = [event for event in read_events(tmp_path / "tensorboard") if event.HasField("session_log")]
    assert [(event.step, event.session_log.status) for event in starts] == [(1, 1), (8, 1)]
    assert [step for step, _, _ in read_scalars(tmp_path / "tensorboard")] == [0, 0, 7, 7]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_a_missing_tensorboardx_is_reported_with_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(RunError, match="pip install tensorboardX"):
        tensorboard.check_installed()
