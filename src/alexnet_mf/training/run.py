"""Run folders: what a training leaves behind, and how it goes on after an end that nobody planned.

`run.json` says what the run is and how it stands; `metrics.jsonl` grows by a line with each reading and epoch;
`weights.safetensors` are the last weights and `weights-best.safetensors` those of the best test accuracy, both
canonical; `curves.png` is redrawn after each epoch; `checkpoint/` holds what the run needs to go on.
"""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from alexnet_mf import files, spec
from alexnet_mf.errors import RunError
from alexnet_mf.training import board, checkpoint, going_on, metrics, record
from alexnet_mf.training.board import Board
from alexnet_mf.training.checkpoint import Checkpoint
from alexnet_mf.training.folder import CHECKPOINTS, CURVES, RECORD, WEIGHTS, check_new, is_run
from alexnet_mf.training.lock import FolderLock, lock
from alexnet_mf.training.loop import Epoch, Progress, Result, Snapshot
from alexnet_mf.training.weight_files import WeightFiles
from alexnet_mf.weights.parameters import Parameters


class Run:
    """A run folder that belongs to this process until `close`."""

    def __init__(self, folder: Path, told: dict[str, Any], session: dict[str, Any], held: FolderLock | None):
        self.folder = folder
        self.record = told
        self.session = session
        self.found: Checkpoint | None = None
        """Where to go on."""
        self.notices: list[str] = []
        """What the user should know, each a line."""
        self._lock = held
        self._log: files.GrowingFile | None = None
        self._good: list[Path] = []
        """Checkpoints: the last is known to be whole, and those before it may go when there are others after it."""
        self._faults: dict[Path, str] = {}
        """Checkpoints after it that are no good, and what is wrong with each."""
        self._board: Board | None = None
        self._curves: Any = None
        try:
            self._curves = importlib.import_module("alexnet_mf.plots.curves")
        except Exception as error:  # whatever a broken installation raises: no picture is worth a training
            self.notices.append(f"no {CURVES}: matplotlib cannot be imported ({error}); pip install matplotlib")

    @classmethod
    def create(cls, folder: Path, run: Mapping[str, Any], session: dict[str, Any]) -> Run:
        """Begin a run in a new or empty folder.

        Args:
            run: what it is, as JSON values: at least network, recipe, seed and data.
            session: what computes it, as JSON values: at least backend, versions, settings and device.

        Raises:
            RunError: where the folder cannot be made, or holds something.
        """
        check_new(folder)
        try:
            (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be made ({error.strerror}); name another folder with --out") from error
        made = cls(folder, {**session, **run, "resumed": []}, session, lock(folder))
        with made._closed_on_error():
            made.tell("running")
            with made._writing(metrics.NAME):
                made._log = files.GrowingFile(folder / metrics.NAME)
        return made

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Take a run up again: lock it, read it, and find its latest good checkpoint; nothing is written yet.

        Raises:
            RunError: where there is no run, it is in use, or it has nothing to go on from, or another run's; says
                what is wrong.
        """
        if not is_run(folder):
            raise RunError(f"{folder}: there is no run here; `list runs` shows those that there are")
        run = cls(folder, {}, {}, lock(folder))
        with run._closed_on_error():
            found = checkpoint.latest(folder / CHECKPOINTS)
            if found:
                path, run.found, faults = found
                older = [old for old in checkpoint.paths(folder / CHECKPOINTS) if checkpoint.step_of(old) <
                         checkpoint.step_of(path)]
                run._good = [*reversed(older), path]
                run._faults = faults
            try:
                run.record = record.read(folder)
            except RunError as fault:
                if run.found is None:
                    raise RunError(f"{fault}, and there is no checkpoint: start the training anew") from fault
                run.record = {**run.found.run, "resumed": []}
                run.notices.append(f"{fault}; writing it anew from the checkpoint")
            if found:
                going_on.check_belongs(found[1], found[0], run.record)
        return run

    def go_on(self, session: dict[str, Any], over: bool = False) -> Snapshot | None:
        """Make the folder ready to be written from where the run stands; what is no good is put aside, not lost.

        Args:
            session: what computes the run from here on, as for `create`.
            over: nothing is left to be computed; the folder is mended, and no session added.

        Returns:
            what to start from; None for the very beginning.

        Raises:
            RunError: where something cannot be read or written.
        """
        self.session = session
        snapshot = None
        if self.found:
            snapshot, notices = going_on.carried(self.found, session)
            self.notices += [] if over else notices
        else:
            self.notices.append(f"{self.folder}: was ended before its first checkpoint; beginning at the first step")
        with self._writing(RECORD):
            for place in (self.folder, self.folder / CHECKPOINTS):
                place.mkdir(exist_ok=True)
                files.remove_partial(place)
            if not record.is_good(self.folder):
                files.put_aside(self.folder / RECORD)
        self._put_aside_checkpoints()
        with self._writing(metrics.NAME):
            self._log, notices = going_on.open_log(self.folder, self.found)
            self.notices += notices
        if snapshot:
            with self._writing(WEIGHTS):
                self.notices += self._weights.mend(snapshot)
        if over:
            self._draw()
            return snapshot
        step = snapshot.position.number if snapshot else 0
        self.record["resumed"] = [*self.record.get("resumed", []), {**session, "step": step}]
        self.tell("running")
        return snapshot

    def write_events(self, step: int) -> None:
        """Write TensorBoard events too, from this step on.

        Raises:
            RunError: where tensorboardX is missing, or the folder cannot be written.
        """
        board.check_installed()
        with self._writing(board.FOLDER):
            self._board = Board(self.folder, step)

    def progress(self, now: Progress) -> None:
        """Add a reading.

        Raises:
            RunError: where it cannot be written.
        """
        assert self._log is not None
        with self._writing(metrics.NAME):
            self._log.write(metrics.step_line(now))
        if self._board:
            with self._writing(board.FOLDER):
                self._board.progress(now)

    def epoch(self, done: Epoch, weights: Parameters, step: int) -> None:
        """Add an epoch that is over: its line, its weights, and the picture.

        Raises:
            RunError: where something cannot be written.
        """
        assert self._log is not None
        with self._writing(metrics.NAME):
            self._log.write(metrics.epoch_line(done))
        if self._board:
            with self._writing(board.FOLDER):
                self._board.epoch(done, step)
        with self._writing(WEIGHTS):
            self._weights.save(weights, step, done)
        self._draw()

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, and remove those that it makes superfluous once it is whole.

        Raises:
            RunError: where it cannot be written: those before it stay; names the last one.
        """
        assert self._log is not None
        with self._writing(metrics.NAME):
            log = (self._log.size, self._log.sync())
        with self._writing(CHECKPOINTS):
            path = checkpoint.save(self.folder / CHECKPOINTS,
                                   Checkpoint(snapshot, self.identity, self.session, log))
            self._good = [*(old for old in self._good if old != path), path]
            while len(self._good) > checkpoint.KEPT:
                self._good.pop(0).unlink(missing_ok=True)
            for old in checkpoint.superseded(self.folder / CHECKPOINTS, snapshot.position.number):
                old.unlink(missing_ok=True)

    def stop(self, weights: Parameters, result: Result) -> None:
        """The run was stopped, and is to go on another day.

        Raises:
            RunError: where something cannot be written.
        """
        if result.losses:
            with self._writing(WEIGHTS):
                self._weights.save(weights, len(result.losses))
            self._draw()
        self.tell("stopped", result)

    def finish(self, result: Result) -> None:
        """The run is over. Of its checkpoints the last stays: with more epochs it can go on.

        Raises:
            RunError: where something cannot be written.
        """
        self.tell("finished", result)
        with self._writing(CHECKPOINTS):
            for path in self._good[:-1]:
                path.unlink(missing_ok=True)

    def fail(self, reason: str) -> None:
        """The run ended by an error; the checkpoints stay. Where even this cannot be written, that is not told."""
        with suppress(RunError):
            self.tell("failed", reason=reason)

    def tell(self, state: str, result: Result | None = None, reason: str | None = None) -> None:
        """Write run.json.

        Raises:
            RunError: where it cannot be written.
        """
        if self._log is not None and state != "failed":
            with self._writing(metrics.NAME):
                self._log.sync()
        self.record |= {"state": state, "reason": reason, "closing": record.closing(result) if result else None}
        with self._writing(RECORD):
            record.write(self.folder, self.record)

    def close(self) -> None:
        """Leave the folder to others."""
        try:
            if self._board is not None:
                with suppress(OSError):
                    self._board.close()
                self._board = None
            if self._log is not None:
                with suppress(OSError):  # its lines are on the disk, or their loss has been told
                    self._log.close()
                self._log = None
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    @property
    def identity(self) -> dict[str, Any]:
        """What the run is, and how it began."""
        return record.identity(self.record)

    @property
    def last_checkpoint(self) -> Path | None:
        """The latest that is known to be whole."""
        return self._good[-1] if self._good else None

    def how_to_resume(self) -> str:
        """The command that goes on."""
        return f"alexnet-mf train --resume {shlex.quote(str(self.folder))}"

    @property
    def network(self) -> spec.Network:
        """The network of the run."""
        return spec.from_dict(self.record["network"])

    @cached_property
    def _weights(self) -> WeightFiles:
        return WeightFiles(self.folder, self.record["network"], self.record["seed"])

    def _put_aside_checkpoints(self) -> None:
        """Those that are no good get a name that no checkpoint has, until there is another as late."""
        for path, fault in self._faults.items():
            with self._writing(CHECKPOINTS):
                aside = files.put_aside(path)
            assert self.last_checkpoint is not None
            self.notices.append(f"{self.folder / CHECKPOINTS}: {fault}; going on from the one before, "
                                f"{self.last_checkpoint.name}" + (f"; it is {aside.name} until there is another as late"
                                                                  if aside else ""))

    def _draw(self) -> None:
        if self._curves:
            picture = self._curves.png({self.folder.name: metrics.read(self.folder)})
            with self._writing(CURVES):
                files.write(self.folder / CURVES, picture)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            last = self.last_checkpoint
            left = (f"the last good checkpoint is {last.name}: mend that, then go on with: {self.how_to_resume()}"
                    if last else "there is no checkpoint yet")
            raise RunError(f"{self.folder / what}: cannot be written ({error.strerror}); {left}") from error

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise
