"""Run folders: what a training leaves behind, and how it goes on after an end that nobody planned.

`run.json` says what the run is and how it stands; `metrics.jsonl` grows by a line with each reading and epoch;
`weights.safetensors` are the last weights and `weights-best.safetensors` those of the best test accuracy, both
canonical; `curves.png` is redrawn after each epoch; `checkpoint/` holds what the run needs to go on.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib
import json
import math
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_mf import files, parameters, schemas, spec
from alexnet_mf.backends.base import TrainerState
from alexnet_mf.errors import ParametersError, RunError
from alexnet_mf.parameters import Parameters
from alexnet_mf.training import board, checkpoint, metrics
from alexnet_mf.training.board import Board
from alexnet_mf.training.checkpoint import Checkpoint
from alexnet_mf.training.loop import Epoch, Progress, Result, Snapshot

try:
    import fcntl
except ImportError:  # not on Windows: nothing guards a run there
    fcntl = None  # type: ignore[assignment]

RUNS = Path("runs")
"""Where run folders are made."""

FORMAT = 1
RECORD, WEIGHTS, BEST, CURVES, CHECKPOINTS, LOCK = ("run.json", "weights.safetensors", "weights-best.safetensors",
                                                    "curves.png", "checkpoint", ".lock")
MOST_RECORD_BYTES = 4_000_000
LOCK_SECONDS = 1.0
"""How long to wait for a lock: `list runs` takes it for a moment."""
NOT_THE_RUN = ("format", "state", "reason", "closing", "resumed", "sha256")
"""Keys of run.json that tell how the run stands, not what it is."""


class Run:
    """A run folder that belongs to this process until `close`."""

    def __init__(self, folder: Path, record: dict[str, Any], session: dict[str, Any], lock: int | None):
        self.folder = folder
        self.record = record
        self.session = session
        self.found: Checkpoint | None = None
        """Where to go on."""
        self.notices: list[str] = []
        """What the user should know, each a line."""
        self._lock = lock
        self._log: files.GrowingFile | None = None
        self._good: list[Path] = []
        """Checkpoints: the last is known to be whole, and those before it may go when there are others after it."""
        self._best: float | None = None
        self._board: Board | None = None
        self._curves: Any = None
        try:
            self._curves = importlib.import_module("alexnet_mf.training.curves")
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
            RunError: where there is no run, it is in use, or it has nothing to go on from; says what is wrong.
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
                run.notices += [f"{folder / CHECKPOINTS}: {fault}; going on from the one before, {path.name}"
                                for fault in faults]
            try:
                run.record = read_record(folder)
            except RunError as fault:
                if run.found is None:
                    raise RunError(f"{fault}, and there is no checkpoint: start the training anew") from fault
                run.record = {**run.found.run, "resumed": []}
                run.notices.append(f"{fault}; writing it anew from the checkpoint")
        return run

    def go_on(self, session: dict[str, Any]) -> Snapshot | None:
        """Make the folder ready to be written from where the run stands; what is no good is put aside, not lost.

        Args:
            session: what computes the run from here on, as for `create`.

        Returns:
            what to start from; None for the very beginning.

        Raises:
            RunError: where something cannot be read or written.
        """
        self.session = session
        snapshot = self._carried()
        with self._writing(RECORD):
            for place in (self.folder, self.folder / CHECKPOINTS):
                place.mkdir(exist_ok=True)
                files.remove_partial(place)
            if not _is_good_record(self.folder):
                _put_aside(self.folder / RECORD)
        with self._writing(metrics.NAME):
            self._log = self._open_log()
        if snapshot:
            self._check_weights(snapshot)
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
        self._save_weights(weights, step, done)
        self._draw()

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, and remove those that it makes superfluous once it is whole.

        Raises:
            RunError: where it cannot be written: those before it stay; names the last one.
        """
        assert self._log is not None
        with self._writing(CHECKPOINTS):
            log = (self._log.size, self._log.sync())
            path = checkpoint.save(self.folder / CHECKPOINTS,
                                   Checkpoint(snapshot, self.identity, self.session, log))
            self._good = [*(old for old in self._good if old != path), path]
            while len(self._good) > checkpoint.KEPT:
                self._good.pop(0).unlink(missing_ok=True)

    def stop(self, weights: Parameters, result: Result) -> None:
        """The run was stopped, and is to go on another day.

        Raises:
            RunError: where something cannot be written.
        """
        if result.losses:
            self._save_weights(weights, len(result.losses), None)
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
        closing = None
        if result:
            rate = result.images_per_second
            closing = {"steps": len(result.losses), "epochs": len(result.epochs), "images_timed": result.images,
                       "seconds": result.seconds, "images_per_second": rate if math.isfinite(rate) else None}
            if result.epochs:
                closing |= dataclasses.asdict(result.epochs[-1])
        self.record |= {"format": FORMAT, "state": state, "reason": reason, "closing": closing}
        self.record["sha256"] = _record_checksum(self.record)
        with self._writing(RECORD):
            files.write(self.folder / RECORD, (json.dumps(self.record, indent=2) + "\n").encode())

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
                os.close(self._lock)
                self._lock = None

    @property
    def identity(self) -> dict[str, Any]:
        """What the run is, and how it began."""
        return {key: value for key, value in self.record.items() if key not in NOT_THE_RUN}

    @property
    def last_checkpoint(self) -> Path | None:
        """The latest that is known to be whole."""
        return self._good[-1] if self._good else None

    def how_to_resume(self) -> str:
        """The command that goes on."""
        return f"alexnet-mf train --resume {shlex.quote(str(self.folder))}"

    def _carried(self) -> Snapshot | None:
        """What this session's backend can take of the checkpoint; notices say what differs, and what is lost."""
        if self.found is None:
            self.notices.append(f"{self.folder}: was ended before its first checkpoint; beginning at the first step")
            return None
        before, now, snapshot = self.found.session, self.session, self.found.snapshot
        if before["backend"] == now["backend"]:
            for what in ("versions", "settings", "device", "precision", "without", "also"):
                if before.get(what) != now.get(what):
                    self.notices.append(f"{what} differ from the checkpoint's ({_difference(before, now, what)}): the "
                                        "numbers may differ from those of an uninterrupted run")
            return snapshot
        lost = [f"the dropout masks are {now['backend']}'s own"]
        if snapshot.state.velocity:
            lost.insert(0, f"the momentum starts from zero (in {before['backend']} it is {snapshot.state.rule})")
        if any(value.dtype != np.float32 for value in snapshot.state.parameters.values()):
            lost.append("the weights are rounded to float32")
        self.notices.append(f"begun in {before['backend']}, going on in {now['backend']}: weights, position and order "
                            f"of the images are carried over; not carried: {'; '.join(lost)}")
        weights = {name: value.astype(np.float32) for name, value in snapshot.state.parameters.items()}
        return Snapshot(snapshot.position, TrainerState(weights, {}, snapshot.state.rule))

    def _open_log(self) -> files.GrowingFile:
        """metrics.jsonl as it was at the checkpoint; where that is lost, its epochs, from the checkpoint."""
        path = self.folder / metrics.NAME
        size, digest = self.found.metrics if self.found else (0, hashlib.sha256().hexdigest())
        there = files.start(path, size) if path.exists() else b""
        if hashlib.sha256(there).hexdigest() == digest and len(there) == size:
            return files.GrowingFile(path, keep=size)
        assert self.found is not None
        self.notices.append(f"{path}: is {'damaged' if path.exists() else 'missing'}; its epochs are written anew from "
                            "the checkpoint, its steps are lost")
        _put_aside(path)
        lines = b"".join(map(metrics.epoch_line, self.found.snapshot.position.epochs))
        files.write(path, lines)
        return files.GrowingFile(path, keep=len(lines))

    def _check_weights(self, snapshot: Snapshot) -> None:
        """Write the last weights anew where they are damaged; the best that are damaged are the best no more."""
        position, network = snapshot.position, self.network
        try:
            if position.epochs or (self.folder / WEIGHTS).exists():
                parameters.load(self.folder / WEIGHTS, network)
        except ParametersError as fault:
            self.notices.append(f"{_first_clause(fault)}; written anew from the checkpoint")
            weights = {name: value.astype(np.float32) for name, value in snapshot.state.parameters.items()}
            self._save_weights(weights, position.number, None)
        if not position.epochs:
            return
        try:
            _, header = parameters.load_with_metadata(self.folder / BEST, network)
            if "test_accuracy" not in header:
                raise ParametersError(f"{self.folder / BEST}: is damaged: it does not say whose weights it holds")
            self._best = header["test_accuracy"]
        except ParametersError as fault:
            self.notices.append(f"{_first_clause(fault)}; the best of the epochs to come will take its place")

    @property
    def network(self) -> spec.Network:
        """The network of the run."""
        return spec.from_dict(self.record["network"])

    def _save_weights(self, weights: Parameters, step: int, done: Epoch | None) -> None:
        header: dict[str, Any] = {"network": self.record["network"], "seed": self.record["seed"], "step": step}
        if done:
            header |= dataclasses.asdict(done)
        with self._writing(WEIGHTS):
            files.write(self.folder / WEIGHTS, parameters.to_bytes(weights, header))
            if done and (self._best is None or done.test_accuracy > self._best):
                files.link(self.folder / WEIGHTS, self.folder / BEST)
                self._best = done.test_accuracy

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


def check_new(folder: Path) -> None:
    """Make sure that a run can begin here.

    Raises:
        RunError: where something is there already.
    """
    try:
        there = [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.exists() else []
    except OSError as error:
        raise RunError(f"{folder}: cannot be read as a folder ({error.strerror}); name another with --out") from error
    if RECORD in there:
        raise RunError(f"{folder}: holds a run; go on with it (--resume {folder}), or name another folder with --out")
    if there and there != [CHECKPOINTS]:
        raise RunError(f"{folder}: is not empty; name another folder with --out")


def is_run(folder: Path) -> bool:
    """Whether there is a run here, in whatever state."""
    return any((folder / name).exists() for name in (RECORD, CHECKPOINTS))


def new_folder(parent: Path, backend: str, net: str) -> Path:
    """`parent`/DATE-TIME-backend-net, or with a number behind it where that is taken. It is not made yet."""
    name = f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}-{backend}-{net}"
    folder, number = parent / name, 2
    while folder.exists():
        folder, number = parent / f"{name}-{number}", number + 1
    return folder


def lock(folder: Path, seconds: float = LOCK_SECONDS) -> int | None:
    """Take the folder for this process: a descriptor that holds the lock until it is closed, or the process ends.

    Raises:
        RunError: where another process has it, which is named, or the file system has no locks.
    """
    if fcntl is None:
        return None
    path = folder / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise RunError(f"{folder}: is in use{f' by process {owner}' if owner else ''}; wait for it, or take "
                           "another folder") from error
        except OSError as error:
            os.close(descriptor)
            raise RunError(f"{path}: cannot be locked ({error.strerror}); take a folder on another disk") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def is_in_use(folder: Path) -> bool:
    """Whether a process has the folder now."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def read_record(folder: Path) -> dict[str, Any]:
    """What run.json says.

    Raises:
        RunError: where it is missing, or its checksum does not fit.
    """
    path = folder / RECORD
    try:
        record = files.parse_json(files.read(path, MOST_RECORD_BYTES))
        good = record["format"] == FORMAT and record["sha256"] == _record_checksum(record)
    except FileNotFoundError as error:
        raise RunError(f"{path}: is missing") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunError(f"{path}: is damaged") from error
    if not good:
        raise RunError(f"{path}: is damaged or of another version: its checksum does not fit")
    wrong = schemas.problem(record, schemas.read("alexnet_mf.training", "record"))
    if wrong:
        raise RunError(f"{path}: is damaged: {wrong}")
    return dict(record)


def summary(folder: Path) -> dict[str, Any]:
    """How a run stands, as JSON values: state, closing numbers, None for what is not known.

    The state is running, finished, stopped (by Ctrl-C or SIGTERM), failed (by an error), interrupted (the process has
    gone without a word) or damaged.
    """
    result: dict[str, Any] = dict.fromkeys(("backend", "network", "state", "epoch", "epochs", "loss", "train_accuracy",
                                            "test_accuracy", "images_per_second"))
    result = {"run": str(folder), **result}
    try:
        record = read_record(folder)
    except RunError:
        return result | {"state": "damaged"}
    sessions = [record, *record["resumed"]]
    state = record["state"]
    if is_in_use(folder):
        state = "running"
    elif state == "running":
        state = "interrupted"
    result |= {"backend": " + ".join(dict.fromkeys(session["backend"] for session in sessions)),
               "network": record["network"]["name"], "state": state, "epoch": 0, "epochs": record["recipe"]["epochs"]}
    try:
        done = metrics.epochs(metrics.read(folder))
    except RunError:
        done = []
    if done:
        result |= {key: value for key, value in dataclasses.asdict(done[-1]).items() if key in result}
    if record["closing"]:
        result["images_per_second"] = record["closing"]["images_per_second"]
    return result


def _put_aside(path: Path) -> None:
    """Rename a damaged file, should there be one, to a name that is free."""
    aside, number = path.with_name(f"{path.name}.damaged"), 2
    while aside.exists():
        aside, number = path.with_name(f"{path.name}.damaged-{number}"), number + 1
    if path.exists():
        os.replace(path, aside)


def _is_good_record(folder: Path) -> bool:
    try:
        read_record(folder)
    except RunError:
        return False
    return True


def _record_checksum(record: Mapping[str, Any]) -> str:
    fields = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], what: str) -> str:
    """`torch 2.14 then, 2.15 now`."""
    if not isinstance(before.get(what), dict) or not isinstance(now.get(what), dict):
        return f"{before.get(what)} then, {now.get(what)} now"
    old, new = before[what], now[what]
    return "; ".join(f"{key} {old.get(key)} then, {new.get(key)} now" for key in {**old, **new}
                     if old.get(key) != new.get(key))


def _first_clause(fault: Exception) -> str:
    return str(fault).partition(";")[0]
