"""Run folders: the files that a training writes, from which it can be resumed after any interruption.

`run.json` describes the run and its state; `metrics.jsonl` grows by a line with each reading and epoch;
`weights.safetensors` holds the last weights and `weights-best.safetensors` those of the best test accuracy, both
canonical; `curves.png` is redrawn after an epoch; `checkpoint/` holds what the run needs to resume.

A thread writes weights and checkpoints from a copy while the training continues.
"""

from __future__ import annotations

import importlib
import shutil
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from alexnet_mf import files
from alexnet_mf.errors import Notice, ParametersError, RunError
from alexnet_mf.training import checkpoint as checkpoints
from alexnet_mf.training import metrics, record, tensorboard
from alexnet_mf.training.checkpoint import Checkpoint
from alexnet_mf.training.lock import LOCK, is_in_use, lock
from alexnet_mf.training.loop import Epoch, Progress, Result, Snapshot
from alexnet_mf.training.new_folder import check_new, make_folders, remove_folders
from alexnet_mf.training.record import (
    CHECKPOINTS,
    RECORD,
    ResumedSession,
    Run,
    RunRecord,
    Session,
    State,
    fields,
    how_to_resume,
    is_run,
)
from alexnet_mf.training.tensorboard import Events
from alexnet_mf.training.weight_files import WEIGHTS, WeightFiles
from alexnet_mf.weights import parameters
from alexnet_mf.weights.parameters import Parameters

CURVES = "curves.png"
DRAWING_SECONDS = 10.0
"""Shortest time between two drawings of the curves: a drawing takes as long as many steps on a GPU."""


def _close(file: files.GrowingFile | Events) -> None:
    """Close a file. Its lines are on the disk, or an error has reported their loss."""
    with suppress(OSError):
        file.close()


class RunFolder:
    """A run folder that belongs to this process until `close`.

    Methods raise RunError if a file cannot be read or written. The error names the file and the last good checkpoint.
    If a checkpoint in the background cannot be written, the next `save`, `stop` or `finish` raises the error.
    """

    def __init__(self, path: Path):
        self.path = path
        self.record: RunRecord
        self.session: Session
        """The session that computes the run now."""
        self.checkpoint: Checkpoint | None = None
        """The checkpoint to resume from."""
        self.notices: list[str] = []
        """Lines that the user should see."""
        self._closing = ExitStack()
        self._made: list[Path] = []
        """Folders that `create` made, the outermost first."""
        self.is_new = False
        self.has_begun = False
        """True from the first step on, even before its metrics are read."""
        self._has_damaged_record = False
        self._log: files.GrowingFile | None = None
        self._good: list[Path] = []
        """Paths of the checkpoints, the latest last. The latest is intact; later saves remove the others."""
        self._faults: dict[Path, str] = {}
        """Damaged checkpoints after the latest intact one, and the fault of each."""
        self._thread = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None
        """The checkpoint that is being written."""
        self._drawn = 0.0
        """Time of the last drawing."""
        self._events: Events | None = None
        self._curves: Any = None
        try:
            self._curves = importlib.import_module("alexnet_mf.plots.curves")
        except Exception as error:  # whatever a broken installation raises: no picture is worth a training
            self.notices.append(f"no {CURVES}: matplotlib cannot be imported ({error}); pip install matplotlib")
        self._closing.callback(lock(path).release)  # the last call that can fail: no lock is left behind

    @classmethod
    def create(cls, path: Path, run: Run) -> RunFolder:
        """Begin a run in a new or empty folder.

        Raises:
            RunError: if the folder cannot be created, or is not empty.
        """
        check_new(path)
        made = make_folders(path / CHECKPOINTS)
        try:
            folder = cls(path)
            try:
                check_new(path)  # again, now that no other process can begin a run here
            except BaseException:
                folder.close()
                raise
        except BaseException:
            if not is_in_use(path):
                with suppress(OSError):
                    (path / LOCK).unlink(missing_ok=True)
            remove_folders(made)
            raise
        folder._made, folder.is_new = made, True
        try:
            folder.record, folder.session = RunRecord(**fields(run, Run)), Session(**fields(run, Session))
            folder.write_record("running")
            with folder._writing(metrics.NAME):
                folder._open_log(files.GrowingFile(path / metrics.NAME))
        except BaseException:
            folder.discard()
            raise
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run to resume it: lock it, read it, and find its latest good checkpoint. Nothing is written yet.

        Raises:
            RunError: if there is no run, it is in use, has nothing to resume from, or has another run's checkpoint.
        """
        if not is_run(path):
            raise record.no_run(path)
        folder = cls(path)
        try:
            latest = checkpoints.latest(path / CHECKPOINTS)
            if latest:
                file, folder.checkpoint, folder._faults = latest
                older = [old for old in checkpoints.paths(path / CHECKPOINTS) if checkpoints.step_of(old) <
                         checkpoints.step_of(file)]
                folder._good = [*reversed(older), file]
            try:
                folder.record = record.read(path)
            except RunError as fault:
                if folder.checkpoint is None:
                    raise RunError(f"{fault}, and there is no checkpoint; start a new training") from fault
                folder.record = RunRecord(**fields(folder.checkpoint.run, Run))
                folder.notices.append(f"{fault}; rewritten from the checkpoint")
                folder._has_damaged_record = True
            if latest:
                latest[1].check_belongs(latest[0], folder.record)
        except BaseException:
            folder.close()
            raise
        return folder

    def resume(self, session: Session) -> Snapshot | None:
        """Prepare the folder for the steps after the checkpoint. Damaged files are kept under another name.

        A finished run is repaired, and gets no new session.

        Args:
            session: the session that continues the run.

        Returns:
            The snapshot to start from, or None to start from the first step.
        """
        self.session = self.last_session if self.is_finished else session
        snapshot = None
        if self.checkpoint:
            snapshot, notices = self.checkpoint.resumed_in(session)
            self.notices += [] if self.is_finished else notices
        else:
            self._check_nothing_is_lost()
            self.notices.append(f"{self.path}: ended before its first checkpoint; starting from the first step")
        with self._writing(RECORD):
            for place in (self.path, self.path / CHECKPOINTS):
                place.mkdir(exist_ok=True)
                files.remove_partial(place)
            if self._has_damaged_record:
                files.put_aside(self.path / RECORD)
        self._put_aside_checkpoints()
        with self._writing(metrics.NAME):
            if self.checkpoint:
                log, notices = metrics.reopen(self.path, *self.checkpoint.metrics,
                                              self.checkpoint.snapshot.position.epochs)
                self.notices += notices
            else:
                log = files.GrowingFile(self.path / metrics.NAME)
            self._open_log(log)
        if snapshot:
            with self._writing(WEIGHTS):
                self.notices += self._weights.repair(snapshot)
        if self.is_finished:
            return snapshot
        step = snapshot.position.number if snapshot else 0
        self.record.resumed.append(ResumedSession(**fields(session, Session), step=step))
        self.write_record("running")
        return snapshot

    def _check_nothing_is_lost(self) -> None:
        """Check that a run without a checkpoint never had one, by the steps in its record, metrics and weights."""
        try:
            epochs = len(metrics.epochs(metrics.read(self.path)))
        except RunError:
            epochs = 0
        try:
            saved = parameters.read_header(self.path / WEIGHTS).metadata.get("epoch", 0)
        except ParametersError:
            saved = 0
        steps = self.record.closing.steps if self.record.closing else 0
        # A failed first checkpoint is reported only after the second epoch, before that epoch's weights are written.
        if steps or epochs > 2 or saved > 1:
            raise RunError(f"{self.path / CHECKPOINTS}: no checkpoint (a sweep removes those of finished runs); "
                           f"start a new run with `weights={str(self.path)!r}`")

    def write_events(self, step: int) -> None:
        """Also write TensorBoard events, from this step on.

        Raises:
            RunError: if the folder cannot be written.
        """
        with self._writing(tensorboard.FOLDER):
            self._events = Events(self.path, step)
        self._closing.callback(_close, self._events)

    def progress(self, now: Progress) -> None:
        """Write the line and the events of a reading."""
        assert self._log is not None
        with self._writing(metrics.NAME):
            self._log.write(metrics.step_line(now))
        if self._events:
            with self._writing(tensorboard.FOLDER):
                self._events.progress(now)

    def epoch(self, done: Epoch) -> None:
        """Write the line and the events of a finished epoch, and redraw curves that are some seconds old."""
        assert self._log is not None
        with self._writing(metrics.NAME):
            self._log.write(metrics.epoch_line(done))
        if self._events:
            with self._writing(tensorboard.FOLDER):
                self._events.epoch(done)
        if time.monotonic() - self._drawn > DRAWING_SECONDS:
            self._draw()

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint in the background, and before it the weights if an epoch ends here. Then remove the
        checkpoints that it replaces; they stay if it cannot be written."""
        self._finish_saving()
        assert self._log is not None
        checkpoint = Checkpoint(snapshot, Run(**fields(self.record, Run)), self.session,
                                (self._log.size, self._log.checksum()))
        self._saving = self._thread.submit(self._save, checkpoint)

    def _finish_saving(self) -> None:
        """Wait for the checkpoint that is being written, and raise its error."""
        saving, self._saving = self._saving, None
        if saving:
            saving.result()

    def _save(self, checkpoint: Checkpoint) -> None:
        assert self._log is not None
        snapshot, position = checkpoint.snapshot, checkpoint.snapshot.position
        if position.closed_epoch:
            with self._writing(WEIGHTS):
                self._weights.save(snapshot.weights(), position.number, position.closed_epoch)
        with self._writing(metrics.NAME):
            self._log.sync()  # the lines that the checkpoint counts
        with self._writing(CHECKPOINTS):
            path = checkpoints.save(self.path / CHECKPOINTS, checkpoint)
            self._good = [*(old for old in self._good if old != path), path]
            while len(self._good) > checkpoints.KEPT:
                self._good.pop(0).unlink(missing_ok=True)
            for old in checkpoints.superseded(self.path / CHECKPOINTS, position.number):
                old.unlink(missing_ok=True)
        with self._writing(WEIGHTS):
            self._weights.keep_best()

    def stop(self, weights: Parameters, result: Result) -> None:
        """Record that the run was stopped, and can be resumed."""
        self._finish_saving()
        if result.losses:
            with self._writing(WEIGHTS):
                self._weights.save(weights, len(result.losses))
            self._draw()
        self.write_record("stopped", result)

    def finish(self, result: Result) -> None:
        """Record that the run is finished. Its last checkpoint stays: with more epochs the run can be resumed."""
        self._finish_saving()
        self._draw()
        self.write_record("finished", result)
        with self._writing(CHECKPOINTS):
            for path in self._good[:-1]:
                path.unlink(missing_ok=True)

    def fail(self, reason: str) -> None:
        """Record that an error ended the run. The checkpoints stay. An error in writing the record is ignored."""
        with suppress(RunError):
            self.write_record("failed", reason=reason)

    def discard(self) -> None:
        """Remove everything that `create` made. For a run that took no step."""
        self.close()
        with suppress(OSError):
            for name in (RECORD, metrics.NAME, LOCK):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / tensorboard.FOLDER, ignore_errors=True)
            remove_folders(self._made)

    def write_record(self, state: State, result: Result | None = None, reason: str | None = None) -> None:
        """Write run.json."""
        if self._log is not None and state != "failed":
            with self._writing(metrics.NAME):
                self._log.sync()
        self.record.state, self.record.reason = state, reason
        self.record.closing = record.closing(result) if result else None
        with self._writing(RECORD):
            record.write(self.path, self.record)

    def close(self) -> None:
        """Release the folder to other processes, once the checkpoint in the background is written.

        If it cannot be written, a notice reports that: another error has ended the training already.
        """
        try:
            self._thread.shutdown()
        finally:
            self._closing.close()
        saving, self._saving = self._saving, None
        if saving and isinstance(error := saving.exception(), Exception):
            warnings.warn(str(error) or repr(error), Notice, stacklevel=2)

    @property
    def last_checkpoint(self) -> Path | None:
        """Return the path of the latest intact checkpoint."""
        return self._good[-1] if self._good else None

    @property
    def is_finished(self) -> bool:
        """Return True if nothing is left to train after the checkpoint."""
        epochs = self.checkpoint.snapshot.position.epochs if self.checkpoint else []
        return len(epochs) >= self.record.recipe.epochs

    @property
    def has_steps(self) -> bool:
        """Return True if a reading or an epoch has been written."""
        return self._log is not None and self._log.size > 0

    @property
    def last_session(self) -> Session:
        """Return the session that the run is resumed from."""
        return self.checkpoint.session if self.checkpoint else self.record

    @cached_property
    def _weights(self) -> WeightFiles:
        return WeightFiles(self.path, self.record)

    def _open_log(self, log: files.GrowingFile) -> None:
        self._log = log
        self._closing.callback(_close, log)

    def _put_aside_checkpoints(self) -> None:
        """Rename damaged checkpoints; `save` removes them once there is a checkpoint as late."""
        for path, fault in self._faults.items():
            with self._writing(CHECKPOINTS):
                aside = files.put_aside(path)
            assert self.last_checkpoint is not None
            self.notices.append(f"{self.path / CHECKPOINTS}: {fault}; resuming from the earlier "
                                f"{self.last_checkpoint.name}" + (f"; the damaged file is now {aside.name}"
                                                                  if aside else ""))

    def _draw(self) -> None:
        if self._curves:
            picture = self._curves.png({self.path.name: metrics.read(self.path)})
            with self._writing(CURVES):
                files.write(self.path / CURVES, picture)
        self._drawn = time.monotonic()

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            last = self.last_checkpoint
            left = (f"the last good checkpoint is {last.name}; fix this, then resume with {how_to_resume(self.path)}"
                    if last else "there is no checkpoint yet")
            raise RunError(f"{self.path / what}: cannot be written ({error.strerror}); {left}") from error
