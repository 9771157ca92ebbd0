"""TensorBoard events, written by tensorboardX, which needs no framework. It is imported on demand."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

from alexnet_mf.errors import RunError
from alexnet_mf.training.loop import Epoch, Progress

FOLDER = "tensorboard"


def is_installed() -> bool:
    """Return True if tensorboardX is installed."""
    try:
        return importlib.util.find_spec("tensorboardX") is not None
    except ValueError:  # its entry in sys.modules is None
        return False


def check_installed() -> None:
    """Check, before the work, that events can be written.

    Raises:
        RunError: if tensorboardX is missing; names the install command.
    """
    if not is_installed():
        raise RunError("`tensorboard` needs tensorboardX; pip install tensorboardX, or install alexnet_mf[tensorboard]")


class Events:
    """Loss and accuracy by step, in a folder that TensorBoard reads."""

    def __init__(self, run: Path, step: int):
        """
        Args:
            step: steps taken so far. TensorBoard drops events of later steps, written before an interruption.

        Raises:
            OSError: if the folder cannot be written; all methods raise it too.
        """
        # Not SummaryWriter: it writes in a thread, and once the disk is full, closing waits for that thread forever.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        (run / FOLDER).mkdir(exist_ok=True)
        self._step = step
        self._writer: Any = EventsWriter(str(run / FOLDER / "events"), f".{step}")
        self._writer.write_event(Event(wall_time=time.time(), step=step + 1,
                                       session_log=SessionLog(status=SessionLog.START)))

    def progress(self, now: Progress) -> None:
        """Add the means over the epoch so far."""
        self._step = (now.epoch - 1) * now.steps + now.step
        self._add({"loss/train": now.loss, "accuracy/train": now.train_accuracy,
                   "images_per_second": now.images_per_second})

    def epoch(self, done: Epoch) -> None:
        """Add the test figures, and write everything to the disk."""
        self._add({"loss/test": done.test_loss, "accuracy/test": done.test_accuracy})
        self._writer.flush()

    def close(self) -> None:
        """Write everything to the disk."""
        self._writer.close()

    def _add(self, values: dict[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in values.items():
            if value == value:  # a rate is not a number until the second step
                self._writer.write_event(Event(wall_time=time.time(), step=self._step, summary=scalar(name, value)))
