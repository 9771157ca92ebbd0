"""Run a sweep: one worker process after the other, each training in its own run folder."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alexnet_mf import backends, datasets, files, spec
from alexnet_mf.checks import check_path, check_type
from alexnet_mf.conversion import RUN_WEIGHTS
from alexnet_mf.data import DataSource
from alexnet_mf.errors import BackendUnavailable, Notice, RunError, SweepError
from alexnet_mf.instruments import machine
from alexnet_mf.instruments.machine import WholeConditions
from alexnet_mf.instruments.process import Channel, WorkerFailed, WorkerGone, WorkerProcess
from alexnet_mf.instruments.records import plain, to_json
from alexnet_mf.spec import Network
from alexnet_mf.spec.toml import find_network
from alexnet_mf.sweep.folder import check_new, foreign, forget_gone_runs, owned
from alexnet_mf.sweep.plan import Plan, Setup, Training
from alexnet_mf.sweep.record import FORMAT, NAME, Data, Entry, Record, Result, forget_failures, load
from alexnet_mf.training import checkpoint as checkpoints
from alexnet_mf.training.new_folder import new_folder
from alexnet_mf.training.record import CHECKPOINTS, RunRecord, is_run
from alexnet_mf.training.run import TrainedRun, load_run, recorded_source

Progress = dict[str, Any] | Entry | None
SWEEPS = Path("sweeps")
"""Folder that contains the sweeps."""


def connect(report_progress: Callable[[dict[str, Any]], None]) -> Channel:
    """Start a worker with this interpreter."""
    return WorkerProcess(sys.executable, "alexnet_mf.sweep.worker", report_progress=report_progress)


@dataclass(eq=False)
class Sweep:
    """One sweep. `record` always holds all trainings so far, also after Ctrl-C."""

    record: Record
    """A new record from `begin`, or one to resume."""
    folder: Path
    """Folder of the record and the run folders."""
    command: Sequence[str] = ()
    """Words that started the program, for the record."""
    report_progress: Callable[[Training, int, int, Progress], None] = lambda *progress: None
    """Receives a training, its number, the number of all, and its progress: None at the start, then the worker's
    reports, and the entry of the record at the end."""
    save: Callable[[Record], None] = lambda record: None
    """Receives the record after each change."""
    source: DataSource | None = None
    """Another place of the same images; None for the record's own."""
    keep_weights: bool = True
    """Leave the weights in the run folders."""
    connect: Callable[[Callable[[dict[str, Any]], None]], Channel] = connect
    """Starts a worker; receives the callback for its progress."""

    def __post_init__(self) -> None:
        plan = self.plan = self.record.plan
        self.networks = {net: spec.from_dict(fields) for net, fields in self.record.networks.items()}
        self._began = time.monotonic()
        self._session = WholeConditions(**machine.conditions(self.command))
        self._asked = {"backend": plan.backend, "device": plan.device, "precision": plan.precision, "speed": plan.speed}
        self._execution: dict[str, Any] | None = None

    def run(self) -> Record:
        """Train whatever is missing.

        Raises:
            SweepError: if a training cannot start, a run folder belongs to another plan, or the record cannot be
                written.
        """
        if self._left():
            self.record.sessions.append(self._session)
        without = [entry for entry in self.record.trainings if entry.result and not self.keep_weights]
        for entry in without:
            entry.keeps_weights = False
        self._write()
        for entry in without:  # only once the record says so
            self._tidy(self.folder / entry.run)
        try:
            while left := self._left():
                self._train(left[0])
        except BaseException as error:
            try:
                self._close()
            except Exception as problem:  # a full disk must not hide Ctrl-C
                if str(problem) != str(error):
                    warnings.warn(str(problem), Notice, stacklevel=2)
            raise
        self._close()
        return self.record

    def _close(self) -> None:
        """Complete the session, and write the record."""
        self._session.load_after = machine.load()
        self.record.complete = not self._left()
        self._write()

    def _left(self) -> list[Training]:
        """Return the missing trainings. Final trainings come once their learning rate is known."""
        tried = {entry.training for entry in self.record.trainings}
        choices = [training for training in self.plan.choices() if training not in tried]
        if choices:
            return choices
        rates = {**chosen(self.record), **self.plan.rates(self.networks)}
        return [training for training in self.plan.trainings(rates) if training not in tried]

    def _train(self, training: Training) -> None:
        """Carry out a training, unless its run is finished already, and add its entry to the record."""
        plan = self.plan
        done, count = len(self.record.trainings), len(plan.choices()) + len(plan.setups()) * len(plan.seeds)
        report = partial(self.report_progress, training, done + 1, count)
        report(None)
        folder = self.folder / plan.run_name(training)
        run = self._find_run(folder, training)
        is_new = run is None
        if run is not None:
            self._check_execution(folder, run)
        began = time.monotonic()
        answer: dict[str, Any] = {}
        if run is None or run.state != "finished":
            answer = self._ask({
                "do": "train", "folder": str(folder), "network": self.record.networks[training.net], **self._asked,
                "recipe": plain(plan.recipe(training)), "seed": training.seed,
                "data": plain(self.source or self.record.data.source), "command": self._session.command}, report)
            run = self._find_run(folder, training)
        entry = Entry(training=training, run=folder.name, session=len(self.record.sessions) - 1,
                      whole_seconds=time.monotonic() - began if is_new else None, keeps_weights=self.keep_weights)
        if "failed" in answer or run is None:
            entry.failed, entry.reason = answer["failed"], answer["reason"]
        else:
            try:
                entry.result = Result.of(run, answer)
            except ValueError as error:
                raise SweepError(f"{folder}: run.json is damaged ({error}); move the folder away") from error
            self._tidy(folder)
        self.record.trainings.append(entry)
        self._write()
        report(entry)

    def _ask(self, command: dict[str, Any],
             report: Callable[[dict[str, Any]], None] = lambda progress: None) -> dict[str, Any]:
        """Return the answer of a new process to a command."""
        channel = self.connect(report)
        try:
            return channel.ask(command)
        except WorkerGone as error:
            return {"failed": "ended", "reason": str(error)}
        except WorkerFailed as error:
            raise SweepError(str(error)) from error  # the next one would fail too: no device, no framework, no data
        except BaseException:  # Ctrl-C, SIGTERM
            warnings.warn("finishing this step and saving; a second Ctrl-C stops at once", Notice, stacklevel=2)
            channel.interrupt()
            raise
        finally:
            channel.close()

    def _find_run(self, folder: Path, training: Training) -> TrainedRun | None:
        """Return a training's run, or None if there is none.

        Raises:
            SweepError: if the run is damaged, or belongs to another training.
        """
        if not is_run(folder):
            return None
        try:
            run = load_run(folder)
        except RunError as error:
            raise SweepError(f"{error}; move {folder} away to train it again") from error
        if run.record.weights is not None:
            raise foreign(folder, f"starting weights ({run.record.weights.file})")
        for what, value, expected in (
                ("network", run.record.spec_sha256, spec.fingerprint(self.networks[training.net])),
                ("recipe", run.recipe, self.plan.recipe(training)), ("seed", run.seed, training.seed),
                ("dataset", run.record.data_sha256, self.record.data.sha256)):
            if value != expected:
                raise foreign(folder, f"another {what}")
        return run

    def _check_execution(self, folder: Path, run: TrainedRun) -> None:
        """Check that an earlier run has the backend, device, precision and speed settings of the plan.

        Raises:
            SweepError: if not; names the difference.
        """
        record = run.record  # a checkpoint's record has only the first session and the last
        sessions = record.sessions if isinstance(record, RunRecord) else [record, run.session]
        for session in sessions:
            if session.backend != self.plan.backend:
                raise foreign(folder, f"backend {session.backend}, expected {self.plan.backend}")
        if self._execution is None:  # the framework resolves `auto` and the default precision
            self._execution = self._ask({"do": "resolve", **self._asked})
        wanted = self._execution
        if "failed" in wanted:
            raise SweepError(wanted["reason"])
        for session in sessions:
            for what, value, expected in (
                    ("speed settings", _speed_text(session.speed), _speed_text(wanted["speed"])),
                    ("precision", session.precision, wanted["precision"]),
                    ("device", *(device.partition(":")[0] for device in (session.device, wanted["device"])))):
                if value != expected:
                    raise foreign(folder, f"{what} {value}, expected {expected}")

    def _tidy(self, folder: Path) -> None:
        """Remove the files that a finished run does not need."""
        weights = [] if self.keep_weights else [folder / name for name in RUN_WEIGHTS.values()]
        for path in [*checkpoints.paths(folder / CHECKPOINTS), *weights]:
            path.unlink(missing_ok=True)

    def _write(self) -> None:
        self._session.seconds = time.monotonic() - self._began
        try:
            files.write(self.folder / NAME, to_json(self.record))
        except OSError as error:
            raise SweepError(f"{self.folder / NAME}: cannot be written ({error.strerror})") from error
        self.save(self.record)


def sweep(plan: Plan | None = None, *, resume: Path | str | None = None, out: Path | str | None = None,
          data: DataSource | Path | str | None = None, data_dir: Path | str | None = None, keep_weights: bool = True,
          command: Sequence[str] = (),
          report_progress: Callable[[Training, int, int, Progress], None] = lambda *progress: None,
          save: Callable[[Record], None] = lambda record: None, quiet: bool = False) -> Record:
    """Train every network of a plan with every augmentation, batch size and seed, each in its own process.

    A sweep is a folder with its record, sweep.json, and the run folders. A finished run keeps its weights, but no
    checkpoint.

    Args:
        plan: what to train.
        resume: in place of `plan`, the folder or the record of a sweep to resume. Missing trainings are carried out,
            stopped ones resumed, and those that were killed, did not fit or lost their run folder are retried.
        out: folder of a new sweep; without it sweeps/DATE-TIME-BACKEND-NET. It is new, empty, or has only runs. Its
            finished runs of the plan are not trained again.
        data, data_dir: as for `train`, without them `auto`; a resumed sweep has its own dataset, which may have moved.
        keep_weights: leave the weights in the run folders; False removes those of a resumed sweep's finished runs too.
        command: words for the record; the call of this function without them.
        report_progress: see `Sweep`.
        save: receives the record after each change.
        quiet: show no download, and give no notice of the folder or that nothing is left to train.

    An interrupt (Ctrl-C, or a notebook's stop button) ends the step and saves the run; a second one stops at once.

    Raises:
        SweepError: if the images differ from those that the sweep started with, or a training cannot start. A sweep
            that could not start leaves no new folder, and no record in an existing one.
        AlexnetMfError: if anything else cannot be done as asked.
    """
    if resume is None:
        plan, source = check_type("plan", plan, Plan), datasets.source_of("auto" if data is None else data, data_dir)
        record, folder = _new_record(plan, out, source, quiet)
        call = repr(plan)
    elif plan is not None or out is not None:
        raise SweepError("a resumed sweep has its own plan and folder; leave out `plan` and `out`")
    else:
        path = check_path("resume", resume)
        record, folder, is_done = _resumed_record(path, data, data_dir, keep_weights, quiet)
        if is_done:
            return record
        call = f"resume={str(resume)!r}"
    call += "" if keep_weights else ", keep_weights=False"
    with owned(folder, None if plan is None else record):
        if resume is not None:
            with warnings.catch_warnings():  # again, now that nobody else can change it
                warnings.simplefilter("ignore", Notice)
                record = _resumed_record(folder, data, data_dir, keep_weights, quiet)[0]
            source = _source(record, data, data_dir)
        elif out is None and not quiet:
            warnings.warn(f"sweep folder: {folder}", Notice, stacklevel=2)
        try:
            return Sweep(record, folder, command or [f"alexnet_mf.api.sweep({call})"], report_progress, save,
                         source, keep_weights).run()
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(f"{folder}: stopped; resume with `alexnet_mf.api.sweep(resume={str(folder)!r})`"
                                    ) from interrupt


def _source(record: Record, data: DataSource | Path | str | None, data_dir: Path | str | None) -> DataSource:
    """Return the source of a sweep's images, which may have moved."""
    return datasets.moved(record.data.source, data, data_dir)


def _resumed_record(path: Path, data: DataSource | Path | str | None, data_dir: Path | str | None, keep_weights: bool,
                    quiet: bool) -> tuple[Record, Path, bool]:
    """Return the record to resume, its folder, and True if nothing is left to do."""
    record = load(path)
    folder = path if path.is_dir() else Path(record.folder)
    if has_folder := os.path.isfile(folder / NAME):
        record = load(folder)  # a copy of the record may be older
    forget_failures(record)
    if has_folder:
        forget_gone_runs(record, folder, keep_weights)
    removable = [] if keep_weights else [entry for entry in record.trainings if entry.result and entry.keeps_weights]
    if record.complete and not removable:
        if not quiet:
            warnings.warn(f"{path}: complete, nothing left to train", Notice, stacklevel=3)
        return record, folder, True
    if not has_folder:
        raise SweepError(f"{path}: its folder {folder} has no sweep; name the folder with `resume`")
    if not record.complete and _digest(_source(record, data, data_dir), record.networks, quiet) != record.data.sha256:
        raise SweepError(f"the images differ from those of the sweep ({record.data.origin}); name their folder with "
                         f"`{'data_dir' if record.data.source.is_built_in else 'data'}`")
    record.folder = str(folder.resolve())
    return record, folder, False


def _digest(source: DataSource, networks: Mapping[str, Any], quiet: bool) -> str:
    """Return the digest of a sweep's images."""
    opened = datasets.open_source(source, quiet)
    network = spec.from_dict(next(iter(networks.values())))
    return datasets.prepare(opened, datasets.choose(opened, network), source, quiet).digest()


def _new_record(plan: Plan, out: Path | str | None, source: DataSource, quiet: bool) -> tuple[Record, Path]:
    """Return the empty record of a plan that can be trained, and its folder."""
    networks = {net: find_network(net) for net in plan.nets}
    if not backends.is_installed(plan.backend):
        raise BackendUnavailable(f"backend {plan.backend}: not installed here; "
                                 f"{backends.BACKENDS[plan.backend].install}")
    net = Path(plan.nets[0]).stem if len(plan.nets) == 1 else f"{len(plan.nets)}-networks"
    folder = check_path("out", out) if out is not None else new_folder(SWEEPS, plan.backend, net)
    check_new(folder)
    opened = datasets.open_source(source, quiet)
    networks = {net: datasets.adapted(network, opened) for net, network in networks.items()}
    for network in networks.values():
        images = datasets.prepare(opened, datasets.choose(opened, network), source, quiet)
    images.hold_out(plan.held_out).check_limits(train_images=plan.train_images)
    images.check_limits(test_images=plan.test_images)
    data = Data(source=recorded_source(source, images), origin=images.origin, sha256=images.digest())
    return begin(plan, networks, data, folder), folder


def _speed_text(speed: Mapping[str, bool]) -> str:
    """Return speed settings as text: compile=True,threads=False."""
    return ",".join(f"{name}={on}" for name, on in sorted(speed.items())) or "none"


def begin(plan: Plan, networks: Mapping[str, Network], data: Data, folder: Path) -> Record:
    """Return a new record, without trainings.

    Args:
        networks: networks by their names in the plan.
        folder: folder that contains the run folders.
    """
    return Record(format=FORMAT, kind="sweep", folder=str(folder.resolve()), plan=plan, data=data, sessions=[],
                  trainings=[], complete=False,
                  networks={net: spec.as_dict(network) for net, network in networks.items()})


def chosen(record: Record) -> dict[Setup, float]:
    """Return the learning rate with the best held-out accuracy for each setup that has one; the smaller of two equally
    good ones."""
    best: dict[Setup, tuple[float, float]] = {}
    for entry in record.trainings:
        training = entry.training
        if not training.held_out or entry.failed:
            continue
        rank = (entry.accuracy, -training.learning_rate)
        best[training.setup] = max(rank, best.get(training.setup, rank))
    return {setup: -negative for setup, (_, negative) in best.items()}
