"""The trainings of a sweep, one process after the other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alexnet_mf import data, spec
from alexnet_mf.backends.execution import LEFT_OUT
from alexnet_mf.errors import SweepError
from alexnet_mf.evaluation import check_takes_grey_images
from alexnet_mf.instruments import machine
from alexnet_mf.instruments.machine import WholeConditions
from alexnet_mf.instruments.process import Channel, WorkerFailed, WorkerGone, WorkerProcess
from alexnet_mf.instruments.records import parse
from alexnet_mf.spec import Network
from alexnet_mf.spec.toml import find_network
from alexnet_mf.sweep.plan import Plan, Setup, Training
from alexnet_mf.sweep.record import FORMAT, Data, Entry, Record, Result, forget_failures

Progress = dict[str, Any] | Entry | None


def connect(without: tuple[str, ...], report_progress: Callable[[dict[str, Any]], None]) -> Channel:
    """Start a worker with this interpreter."""
    return WorkerProcess(sys.executable, "alexnet_mf.sweep.worker", {LEFT_OUT: ",".join(without)},
                         report_progress)


class Sweep:
    """One sweep; `record` holds what has been trained so far, at any time, also after Ctrl-C."""

    def __init__(self, record: Record, command: Sequence[str] = (),
                 report_progress: Callable[[Training, int, int, Progress], None] = lambda *progress: None,
                 save: Callable[[Record], None] = lambda record: None, data_dir: str | None = None,
                 connect: Callable[[tuple[str, ...], Callable[[dict[str, Any]], None]], Channel] = connect) -> None:
        """
        Args:
            record: a new one from `begin`, or one to resume.
            command: the words that started the program, for the record.
            report_progress: takes a training, its number, how many there are, and how it stands: None at its start,
                then its worker's progress, and at its end its entry in the record.
            save: takes the record whenever there is more in it.
            data_dir: folder of the dataset, if it was named.
            connect: starts a worker; takes the settings that it leaves out, and what takes its progress.
        """
        self.record = record
        self.plan = record.plan
        self.networks: dict[str, Network] = {net: spec.from_dict(fields) for net, fields in record.networks.items()}
        self.report_progress = report_progress
        self.save = save
        self.data_dir = data_dir
        self.connect = connect
        self._began = time.monotonic()
        self._session = WholeConditions(**machine.conditions(command))

    def run(self) -> Record:
        """Train what has not been trained yet.

        Raises:
            SweepError: if a training could not start; says why.
        """
        if self._left():
            self.record.sessions.append(self._session)
        try:
            while left := self._left():
                self._train(left[0])
        finally:
            self._session.load_after = machine.load()
            self._session.seconds = time.monotonic() - self._began
            self.record.complete = not self._left()
            self.save(self.record)
        return self.record

    def _left(self) -> list[Training]:
        """Return the trainings still to be done. Those that count come once their learning rate is known."""
        tried = {entry.training for entry in self.record.trainings}
        choices = [training for training in self.plan.choices() if training not in tried]
        if choices:
            return choices
        return [training for training in self.plan.trainings(self._rates()) if training not in tried]

    def _rates(self) -> dict[Setup, float]:
        return {**chosen(self.record), **self.plan.rates(self.networks)}

    def _train(self, training: Training) -> None:
        """Train once in a process of its own, and add the entry to the record."""
        done, count = len(self.record.trainings), len(self.plan.choices()) + len(self.plan.setups()) * len(
            self.plan.seeds)
        self.report_progress(training, done + 1, count, None)
        began = time.monotonic()
        plan = self.plan
        channel = self.connect(plan.without, lambda progress: self.report_progress(training, done + 1, count, progress))
        try:
            answer = channel.ask({
                "do": "train", "backend": plan.backend, "network": self.record.networks[training.net],
                "device": plan.device, "precision": plan.precision, "without": list(plan.without),
                "also": list(plan.also), "recipe": asdict(plan.recipe(training)), "seed": training.seed,
                "data_name": self.record.data.name, "data_dir": self.data_dir, "held_out": training.held_out})
        except WorkerGone as error:
            answer = {"failed": "ended", "reason": str(error)}
        except WorkerFailed as error:
            raise SweepError(str(error)) from error  # the next would fail alike: no device, no framework, no data
        finally:
            channel.close()
        entry = Entry(training=training, session=len(self.record.sessions) - 1,
                      whole_seconds=time.monotonic() - began)
        if "failed" in answer:
            entry.failed, entry.reason = answer["failed"], answer["reason"]
        else:
            check_images(answer.pop("data_sha256"), self.record)
            entry.result = parse(answer, Result)
        self.record.trainings.append(entry)
        self._session.seconds = time.monotonic() - self._began
        self.save(self.record)
        self.report_progress(training, done + 1, count, entry)


def sweep(plan: Plan | Record, *, data_name: data.DatasetName = "auto", data_dir: Path | None = None,
          command: Sequence[str] = (), notify: Callable[[str], None] = lambda line: None,
          report_progress: Callable[[Training, int, int, Progress], None] = lambda *progress: None,
          download: data.Progress | None = None,
          save: Callable[[Record], None] = lambda record: None) -> Record:
    """Train every network of a plan with every augmentation, batch size and seed, each in a process of its own.

    Args:
        plan: what to train, or the record of a sweep to resume: it trains what is missing, and tries again what was
            ended or did not fit.
        data_name: dataset of a new sweep.
        data_dir: folder of the Fashion-MNIST files.
        command: words for the record; the call of this function without them.
        notify: takes a line that the user should know.
        report_progress: see `Sweep`.
        download: shows the progress of a download; see `alexnet_mf.data.load`.
        save: takes the record whenever there is more in it.

    Raises:
        SweepError: if the images are not those that the sweep started with, or a training could not start.
        AlexnetMfError: if something else cannot be done as asked.
    """
    record = plan if isinstance(plan, Record) else None
    if record:
        forget_failures(record)
    networks = {net: find_network(net) for net in plan.nets} if isinstance(plan, Plan) else {}
    for network in networks.values():
        check_takes_grey_images(network)
    if record is None or not record.complete:  # before any process asks for them
        images, notice = data.load(record.data.name if record else data_name, data_dir, progress=download)
        if notice:
            notify(notice)
        if record:
            check_images(images.digest(), record)
        else:
            assert isinstance(plan, Plan)
            record = begin(plan, networks, parse({"name": images.name, "origin": images.origin,
                                                  "sha256": images.digest()}, Data))
    call = "resume" if isinstance(plan, Record) else repr(plan)
    return Sweep(record, command or [f"alexnet_mf.sweep({call})"], report_progress, save,
                 str(data_dir) if data_dir else None).run()


def check_images(digest: str, record: Record) -> None:
    """Make sure that these are the images that a sweep started with.

    Raises:
        SweepError: if not.
    """
    if digest != record.data.sha256:
        raise SweepError(f"these are not the images that the sweep started with ({record.data.origin}); name their "
                         f"folder (`data_dir`)")


def begin(plan: Plan, networks: Mapping[str, Network], data: Data) -> Record:
    """Return a record with nothing trained yet.

    Args:
        networks: by the names in the plan.
    """
    return Record(format=FORMAT, kind="sweep", plan=plan, data=data, sessions=[], trainings=[], complete=False,
                  networks={net: spec.as_dict(network) for net, network in networks.items()})


def chosen(record: Record) -> dict[Setup, float]:
    """The learning rate with the best accuracy on the images held out, of each setup that has one; the smaller of two
    that are equally good."""
    best: dict[Setup, tuple[float, float]] = {}
    for entry in record.trainings:
        training = entry.training
        if not training.held_out or entry.failed:
            continue
        found = (entry.accuracy, -training.learning_rate)
        if training.setup not in best or found > best[training.setup]:
            best[training.setup] = found
    return {setup: -negative for setup, (_, negative) in best.items()}
