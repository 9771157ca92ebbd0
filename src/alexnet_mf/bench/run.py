"""Several workers, one of them busy at a time, their samples interleaved.

A machine is not equally fast all day. So nobody's samples are taken in one go: in each round, each worker gives one
sample of each phase, phase by phase, so that the samples that will be compared lie seconds apart. The order is drawn
anew for every other round, and the round between runs it backwards: who is first in one is last in the next.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from alexnet_mf import spec
from alexnet_mf.bench.plan import BOOK, CEILINGS, PHASES, Contestant, Plan
from alexnet_mf.bench.record import FORMAT
from alexnet_mf.bench.worker import PROTOCOL
from alexnet_mf.errors import BenchError
from alexnet_mf.instruments import machine
from alexnet_mf.instruments.process import Link, WorkerFailed, WorkerGone
from alexnet_mf.spec import zoo
from alexnet_mf.spec.toml import find_network


class Channel(Protocol):
    """What `Link` does."""

    def ask(self, command: dict[str, Any]) -> dict[str, Any]: ...
    def close(self) -> None: ...


@dataclass
class Runner:
    """A contestant with its process."""

    contestant: Contestant
    network: spec.Network
    channel: Channel
    entry: dict[str, Any]
    """Its part of the record."""
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By phase; also parts of the record."""
    alive: bool = True


class Bench:
    """One run; `record` holds what has been measured so far, at any time, also after Ctrl-C."""

    def __init__(self, plan: Plan, pythons: Mapping[str, str] | None = None, command: Sequence[str] = (),
                 tell: Callable[[str], None] = lambda line: None,
                 connect: Callable[[str, tuple[str, ...]], Channel] = Link) -> None:
        """
        Args:
            pythons: the interpreter to use for a backend, by name, where it is not this one.
            command: the words that started the program, for the record.
            tell: takes a line on what goes on.
            connect: starts a worker: interpreter, and the settings that it leaves out from the start.
        """
        self.plan = plan
        self.pythons = pythons or {}
        self.tell = tell
        self.connect = connect
        self._began = time.monotonic()
        self._runners: list[Runner] = []
        self.record: dict[str, Any] = {
            "format": FORMAT, "conditions": machine.conditions(command), "plan": asdict(plan), "networks": {},
            "workers": [], "results": [], "failures": [], "complete": False}

    def run(self) -> dict[str, Any]:
        """Measure everything; workers end with it, however it ends.

        Raises:
            BenchError: where nothing at all could be measured; says why.
        """
        try:
            for batch_size in self.plan.batch_sizes:
                self._group(batch_size)
        finally:
            self._close()
            self.record["conditions"]["load_after"] = machine.load()
            self.record["conditions"]["seconds"] = time.monotonic() - self._began
        if not self.measured:
            failures = "; ".join(f"{entry['backend']}: {entry['reason']}" for entry in self.record["failures"])
            raise BenchError(f"nothing was measured: {failures or 'the book has no code for these phases'}")
        self.record["complete"] = True
        return self.record

    @property
    def measured(self) -> bool:
        """Whether there is any sample."""
        return any(result["samples"] for result in self.record["results"])

    def _group(self, batch_size: int) -> None:
        """All contestants at one batch size, alive together."""
        for contestant in self.plan.contestants(batch_size):
            self._start(contestant)
        for runner in self._runners:
            self._prepare(runner)
        tasks = [(phase, runner) for phase in (*PHASES, *CEILINGS) for runner in self._runners
                 if runner.alive and phase in runner.results]
        expected = sum(runner.results[phase]["expected_seconds"] for phase, runner in tasks)
        draw = random.Random(f"{self.plan.seed}/{batch_size}")
        for number in range(self.plan.rounds):
            left = (self.plan.rounds - number) * expected
            self.tell(f"batch {batch_size}, round {number + 1}/{self.plan.rounds}, about {left:.0f} s left")
            tasks = order(tasks, number, draw)
            for phase, runner in tasks:
                self._sample(phase, runner, number)
        for runner in self._runners:
            if runner.alive:
                self._attempt(runner, "finish", {"do": "finish"}, runner.entry.update)
        self._close()

    def _start(self, contestant: Contestant) -> None:
        self.tell(f"starting {contestant.label}, batch {contestant.batch_size}")
        network = find_network(zoo.TAB if contestant.style == BOOK else self.plan.net, contestant.backend)
        entry = {**as_json(contestant), "id": len(self.record["workers"]), "spec_sha256": spec.fingerprint(network)}
        plan = self.plan
        try:
            channel = self.connect(self.pythons.get(contestant.backend, sys.executable), contestant.without)
        except WorkerGone as error:
            self._fail(contestant, "start", str(error))
            return
        runner = Runner(contestant, network, channel, entry)
        self._runners.append(runner)

        def started(answer: dict[str, Any]) -> None:
            if answer.pop("protocol", None) != PROTOCOL:
                runner.alive = False
                self._fail(contestant, "start", "another version of alexnet_mf lives there; install this one")
                return
            runner.entry |= {key: value for key, value in answer.items() if key != "phases"}
            wanted = [*self.plan.phases, *CEILINGS]
            for phase in answer["phases"]:
                if phase in wanted:
                    runner.results[phase] = {}
            if runner.results:
                self.record["workers"].append(runner.entry)
                self.record["networks"][entry["spec_sha256"]] = spec.as_dict(network)

        self._attempt(runner, "start", {
            "do": "start", **as_json(contestant), "network": spec.as_dict(network), "device": plan.device,
            "epoch_batches": plan.epoch_batches, "sample_seconds": plan.sample_seconds, "seed": plan.seed}, started)
        if not runner.results:  # it failed, or the book has no such code
            runner.alive = False
            channel.close()

    def _prepare(self, runner: Runner) -> None:
        for phase in [phase for phase in (*PHASES, *CEILINGS) if phase in runner.results]:
            if not runner.alive:
                return
            self.tell(f"warming up {runner.contestant.label}, batch {runner.contestant.batch_size}: {phase}")

            def prepared(answer: dict[str, Any], phase: str = phase) -> None:
                result = runner.results[phase]
                result |= {"worker": runner.entry["id"], "phase": phase, **answer, "samples": []}
                self.record["results"].append(result)

            if not self._attempt(runner, phase, {"do": "prepare", "phase": phase}, prepared):
                runner.results.pop(phase, None)

    def _sample(self, phase: str, runner: Runner, number: int) -> None:
        if not runner.alive or phase not in runner.results:
            return
        at = time.monotonic() - self._began

        def sampled(answer: dict[str, Any]) -> None:
            runner.results[phase]["samples"].append({"round": number, "at": at, **answer})

        if not self._attempt(runner, phase, {"do": "sample", "phase": phase}, sampled):
            runner.results.pop(phase, None)  # it may fail again and again: told once is enough

    def _attempt(self, runner: Runner, what: str, command: dict[str, Any],
                 then: Callable[[dict[str, Any]], None]) -> bool:
        """Ask a worker; note it down where it fails, and go on with the others."""
        try:
            answer = runner.channel.ask(command)
        except WorkerFailed as error:
            gone = isinstance(error, WorkerGone)
            runner.alive = runner.alive and not gone
            hint = (f"; it needs alexnet_mf and {runner.contestant.backend}, or name another interpreter: "
                    f"--python {runner.contestant.backend}=PATH" if gone and what == "start" else "")
            self._fail(runner.contestant, what, f"{error}{hint}")
            return False
        then(answer)
        return True

    def _fail(self, contestant: Contestant, what: str, why: str) -> None:
        said = why.removeprefix(f"backend {contestant.backend}: ")
        self.record["failures"].append({**as_json(contestant), "phase": what, "reason": said})
        self.tell(f"{contestant.label}, {what}: {said}")

    def _close(self) -> None:
        for runner in self._runners:
            runner.channel.close()
        self._runners = []


def as_json(contestant: Contestant) -> dict[str, Any]:
    """Its part of a worker's and a failure's entry in the record."""
    return {**asdict(contestant), "without": list(contestant.without), "also": list(contestant.also)}


Task = tuple[str, Runner]


def order(tasks: list[Task], number: int, draw: random.Random) -> list[Task]:
    """The tasks of one round, phase by phase: drawn in even rounds, the one before reversed in odd ones."""
    if number % 2:
        return tasks[::-1]
    phases = list(dict.fromkeys(phase for phase, _ in tasks))
    draw.shuffle(phases)
    ordered = []
    for phase in phases:
        several = [task for task in tasks if task[0] == phase]
        draw.shuffle(several)
        ordered += several
    return ordered


def bench(plan: Plan, pythons: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run the benchmark and return its record, as `bench --json` writes it."""
    return Bench(plan, pythons).run()
