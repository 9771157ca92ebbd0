"""Trainings, one process after the other, and what is kept of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from alexnet_mf import spec
from alexnet_mf.backends.execution import LEFT_OUT
from alexnet_mf.errors import SweepError
from alexnet_mf.instruments import machine
from alexnet_mf.instruments.process import Channel, WorkerFailed, WorkerGone, WorkerProcess
from alexnet_mf.spec import Network
from alexnet_mf.sweep.plan import Plan, Setup, Training
from alexnet_mf.sweep.record import FORMAT, accuracy

Tell = Callable[[dict[str, Any]], None]


def connect(without: tuple[str, ...], tell: Tell) -> Channel:
    """A worker in a process of its own, with this interpreter."""
    return WorkerProcess(sys.executable, "alexnet_mf.sweep.worker", {LEFT_OUT: ",".join(without)}, tell)


class Sweep:
    """One sweep; `record` holds what has been trained so far, at any time, also after Ctrl-C."""

    def __init__(self, record: dict[str, Any], command: Sequence[str] = (),
                 tell: Callable[[Training, int, int, dict[str, Any]], None] = lambda *progress: None,
                 save: Callable[[dict[str, Any]], None] = lambda record: None, data_dir: str | None = None,
                 connect: Callable[[tuple[str, ...], Tell], Channel] = connect) -> None:
        """
        Args:
            record: a new one from `begin`, or one to go on with.
            command: the words that started the program, for the record.
            tell: takes a training, its number, how many there are, and how it stands: nothing at its beginning, then
                what its worker tells, and at its end its entry in the record.
            save: takes the record whenever there is more in it.
            data_dir: where the data set is, should that have been said.
            connect: starts a worker: settings that it leaves out from the start, and who is told of its progress.
        """
        self.record = record
        self.plan = Plan.from_json(record["plan"])
        self.networks: dict[str, Network] = {net: spec.from_dict(fields) for net, fields in record["networks"].items()}
        self.tell = tell
        self.save = save
        self.data_dir = data_dir
        self.connect = connect
        self._began = time.monotonic()
        self._session = {**machine.conditions(command), "load_after": None, "seconds": 0.0}

    def run(self) -> dict[str, Any]:
        """Train what has not been trained yet.

        Raises:
            SweepError: where a training could not even begin; says why.
        """
        if self._left():
            self.record["sessions"].append(self._session)
        try:
            while left := self._left():
                self._train(left[0])
        finally:
            self._session |= {"load_after": machine.load(), "seconds": time.monotonic() - self._began}
            self.record["complete"] = not self._left()
            self.save(self.record)
        return self.record

    def _left(self) -> list[Training]:
        """The trainings that are still to be done; those that count come when their learning rate is known."""
        tried = {Training.from_json(entry) for entry in self.record["trainings"]}
        choices = [training for training in self.plan.choices() if training not in tried]
        if choices:
            return choices
        return [training for training in self.plan.trainings(self._rates()) if training not in tried]

    def _rates(self) -> dict[Setup, float]:
        return {**chosen(self.record), **self.plan.rates(self.networks)}

    def _train(self, training: Training) -> None:
        """One training in a process of its own, and its entry in the record."""
        done, count = len(self.record["trainings"]), len(self.plan.choices()) + len(self.plan.setups()) * len(
            self.plan.seeds)
        self.tell(training, done + 1, count, {})
        began = time.monotonic()
        plan, entry = self.plan, {**asdict(training), "augment": list(training.augment),
                                  "session": len(self.record["sessions"]) - 1}
        channel = self.connect(plan.without, lambda progress: self.tell(training, done + 1, count, progress))
        try:
            answer = channel.ask({
                "do": "train", "backend": plan.backend, "network": self.record["networks"][training.net],
                "device": plan.device, "precision": plan.precision, "without": list(plan.without),
                "also": list(plan.also), "recipe": asdict(plan.recipe(training)), "seed": training.seed,
                "data_name": self.record["data"]["name"], "data_dir": self.data_dir, "held_out": training.held_out})
        except WorkerGone as error:
            answer = {"failed": "ended", "reason": str(error)}
        except WorkerFailed as error:
            raise SweepError(str(error)) from error  # the next would fail alike: no device, no framework, no data
        finally:
            channel.close()
        digest = answer.pop("data_sha256", self.record["data"]["sha256"])
        if digest != self.record["data"]["sha256"]:
            raise SweepError(f"these are not the images that the sweep was begun with "
                             f"({self.record['data']['origin']}); name their folder with --data-dir")
        entry |= {"whole_seconds": time.monotonic() - began, **answer}
        self.record["trainings"].append(entry)
        self._session["seconds"] = time.monotonic() - self._began
        self.save(self.record)
        self.tell(training, done + 1, count, entry)


def begin(plan: Plan, networks: Mapping[str, Network], data: Mapping[str, str]) -> dict[str, Any]:
    """A record with nothing trained yet.

    Args:
        networks: by the names in the plan.
        data: name, origin and sha256 of the data set.
    """
    return {"format": FORMAT, "kind": "sweep", "plan": plan.as_json(), "data": dict(data), "sessions": [],
            "networks": {net: spec.as_dict(network) for net, network in networks.items()}, "trainings": [],
            "complete": False}


def chosen(record: Mapping[str, Any]) -> dict[Setup, float]:
    """The learning rate with the best accuracy on the images held out, of each setup that has one; the smaller of two
    that are equally good."""
    best: dict[Setup, tuple[float, float]] = {}
    for entry in record["trainings"]:
        if not entry["held_out"] or "failed" in entry:
            continue
        training = Training.from_json(entry)
        found = (accuracy(entry), -training.learning_rate)
        if training.setup not in best or found > best[training.setup]:
            best[training.setup] = found
    return {setup: -negative for setup, (_, negative) in best.items()}
