"""Run a benchmark: several worker processes, one busy at a time, with interleaved samples.

The speed of a machine varies over the day. So each worker gives one sample of each phase in each round, phase by phase,
and samples that are compared lie seconds apart. Every other round draws a new order, and the round after it runs that
order backwards: the first contestant becomes the last.
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from alexnet_mf import backends, datasets, spec
from alexnet_mf.backends.execution import LEFT_OUT, switched_off
from alexnet_mf.backends.interpreters import available, check_interpreters
from alexnet_mf.bench.load import busy_processes
from alexnet_mf.bench.plan import BESIDE, BOOK, BOOKS, Contestant, Phase, Plan, Work
from alexnet_mf.bench.record import FORMAT, Failure, Record, Result, Sample, Worker
from alexnet_mf.checks import check_type
from alexnet_mf.errors import BackendUnavailable, BenchError, Notice
from alexnet_mf.instruments import machine
from alexnet_mf.instruments.machine import WholeConditions
from alexnet_mf.instruments.process import Channel, WorkerFailed, WorkerGone, WorkerProcess
from alexnet_mf.instruments.records import plain
from alexnet_mf.spec import zoo
from alexnet_mf.spec.toml import find_network

MOST_BUSY = 16
"""Largest number of busy processes for each core."""


def connect(python: str, speed: Mapping[str, bool]) -> Channel:
    """Start a worker that leaves out, from the start, the settings that are switched off."""
    return WorkerProcess(python, "alexnet_mf.bench.worker", {LEFT_OUT: ",".join(switched_off(speed))})


@dataclass
class Runner:
    """A contestant with its process."""

    contestant: Contestant
    channel: Channel
    entry: Worker | None = None
    """Entry of the process in the record; None before it starts and after it ends."""
    phases: list[Phase] = field(default_factory=list)
    """Phases that it can still measure."""
    results: dict[Phase, Result] = field(default_factory=dict)
    """Results by phase, which are also in the record."""


@dataclass(eq=False)
class Bench:
    """One run of the benchmark. `record` always holds all samples so far, also after Ctrl-C."""

    plan: Plan
    pythons: Mapping[str, str] = field(default_factory=dict)
    """Interpreters by backend, for backends that do not use this one."""
    command: Sequence[str] = ()
    """Words that started the program, for the record."""
    report_progress: Callable[[str], None] = lambda line: None
    """Takes a line of progress."""
    connect: Callable[[str, Mapping[str, bool]], Channel] = connect
    """Starts a worker; takes its interpreter and speed settings."""
    save: Callable[[Record], None] = lambda record: None
    """Takes the record after each round, and when the run ends or is interrupted, if it holds a sample."""
    opened: datasets.Opened | None = None
    """The images of the plan's source."""

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._runners: list[Runner] = []
        self.record = Record(format=FORMAT, conditions=WholeConditions(**machine.conditions(self.command)),
                             plan=self.plan, networks={}, workers=[], results=[], failures=[], complete=False)

    def run(self) -> Record:
        """Measure everything. The workers end with it, however it ends.

        Raises:
            BenchError: if nothing at all could be measured; says why.
        """
        try:
            for batch_size in self.plan.batch_sizes:
                self._group(batch_size)
            self.record.complete = True
        finally:
            self._close()
            self._save()
        if not self.measured:
            failures = dict.fromkeys(f"{failure.backend}: {failure.reason}" for failure in self.record.failures)
            raise BenchError(
                f"nothing was measured: {'; '.join(failures) or 'the book has no code for these phases'}")
        return self.record

    def _save(self) -> None:
        """Pass the record to `save`, with the present load and time."""
        self.record.conditions.load_after = machine.load()
        self.record.conditions.seconds = time.monotonic() - self._began
        if self.measured:
            self.save(self.record)

    @property
    def measured(self) -> bool:
        """Return True if there is a sample."""
        return any(result.samples for result in self.record.results)

    def _group(self, batch_size: int) -> None:
        """Measure all contestants at one batch size; their processes run side by side."""
        for contestant in self.plan.contestants(batch_size):
            self._start(contestant)
        for runner in self._runners:
            self._prepare(runner)
        tasks = [(phase, runner) for phase in self.plan.measured_phases() for runner in self._runners
                 if runner.entry and phase in runner.phases]
        expected = sum(runner.results[phase].expected_seconds for phase, runner in tasks)
        draw = random.Random(f"{self.plan.seed}/{batch_size}")
        for number in range(self.plan.rounds):
            left = (self.plan.rounds - number) * expected
            self.report_progress(f"batch {batch_size}, round {number + 1}/{self.plan.rounds}, about {left:.0f} s left")
            tasks = order(tasks, number, draw)
            for phase, runner in tasks:
                self._sample(phase, runner, number)
            self._save()
        for runner in self._runners:
            if runner.entry:
                for name, value in (self._ask(runner, "finish", {"do": "finish"}) or {}).items():
                    setattr(runner.entry, name, value)
        self._close()

    def _start(self, contestant: Contestant) -> None:
        self.report_progress(f"starting {contestant.label}, batch {contestant.batch_size}")
        network = find_network(zoo.TAB if contestant.style == BOOK else self.plan.net, contestant.backend)
        if self.opened is not None:
            network = datasets.adapted(network, self.opened)
        plan, fingerprint = self.plan, spec.fingerprint(network)
        try:
            channel = self.connect(self.pythons.get(contestant.backend, sys.executable), contestant.speed)
        except WorkerGone as error:
            self._fail(contestant, "start", str(error))
            return
        runner = Runner(contestant, channel)
        self._runners.append(runner)
        answer = self._ask(runner, "start", {
            "do": "start", **structs.asdict(contestant), "network": spec.as_dict(network), "device": plan.device,
            "epoch_batches": plan.epoch_batches, "sample_seconds": plan.sample_seconds, "seed": plan.seed,
            "data": plain(plan.data) if plan.data else None}) or {}
        offered = answer.pop("phases", ())
        runner.phases = [phase for phase in plan.measured_phases() if phase in offered]
        if runner.phases:
            runner.entry = Worker(**structs.asdict(contestant), id=len(self.record.workers), spec_sha256=fingerprint,
                                  **answer)
            self.record.workers.append(runner.entry)
            self.record.networks[fingerprint] = spec.as_dict(network)
        else:  # it failed, or the book has no such code
            channel.close()

    def _prepare(self, runner: Runner) -> None:
        for phase in list(runner.phases):
            if runner.entry is None:
                return
            self.report_progress(f"warming up {runner.contestant.label}, batch {runner.contestant.batch_size}: {phase}")
            answer = self._ask(runner, phase, {"do": "prepare", "phase": phase})
            if answer is None:
                runner.phases.remove(phase)
                continue
            runner.results[phase] = Result(worker=runner.entry.id, phase=phase, work=Work(**answer.pop("work")),
                                           **answer, samples=[])
            self.record.results.append(runner.results[phase])

    def _sample(self, phase: Phase, runner: Runner, number: int) -> None:
        if runner.entry is None or phase not in runner.phases:
            return
        with busy_processes(self.plan.beside if phase == BESIDE else 0):
            at = time.monotonic() - self._began
            answer = self._ask(runner, phase, {"do": "sample", "phase": phase})
        if answer is None:
            runner.phases.remove(phase)  # it may fail again and again: one failure in the record is enough
        else:
            runner.results[phase].samples.append(Sample(round=number, at=at, **answer))

    def _ask(self, runner: Runner, what: str, command: dict[str, Any]) -> dict[str, Any] | None:
        """Return a worker's answer. If it fails, record that and return None: the others continue."""
        try:
            return runner.channel.ask(command)
        except WorkerFailed as error:
            gone = isinstance(error, WorkerGone)
            if gone:
                runner.entry = None
            hint = (f"; install alexnet_mf and {runner.contestant.backend} there, or name another Python (`pythons`)"
                    if gone and what == "start" else "")
            self._fail(runner.contestant, what, f"{error}{hint}")
            return None

    def _fail(self, contestant: Contestant, what: str, why: str) -> None:
        reason = why.removeprefix(f"backend {contestant.backend}: ")
        self.record.failures.append(Failure(**structs.asdict(contestant), phase=what, reason=reason))
        self.report_progress(f"{contestant.label}, {what}: {reason}")

    def _close(self) -> None:
        for runner in self._runners:
            runner.channel.close()
        self._runners = []


Task = tuple[Phase, Runner]


def order(tasks: list[Task], number: int, draw: random.Random) -> list[Task]:
    """Return the tasks of one round, phase by phase: in a new order in even rounds, else in the reverse of the last."""
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


def bench(plan: Plan | None = None, *, pythons: Mapping[str, str] | None = None, command: Sequence[str] = (),
          report_progress: Callable[[str], None] = lambda line: None,
          save: Callable[[Record], None] = lambda record: None) -> Record:
    """Measure the speed of backends, and compare it with the limits of the device and the book's own code.

    Args:
        plan: what to measure; without it, AlexNet in all frameworks that are installed here or have an entry in
            `pythons`.
        pythons: interpreters of backends that live in other environments, by backend.
        command: words for the record; without them, the call of this function.
        report_progress: takes a line of progress.
        save: takes the record after each round, and when the run ends or is interrupted, if it holds a sample.

    Raises:
        BackendUnavailable: if no framework is installed, or one that the plan names is missing.
        SpecError: if the network cannot be found or read.
        BenchError: if nothing at all could be measured.
    """
    plan, pythons = check_type("plan", Plan() if plan is None else plan, Plan), pythons or {}
    command = command or [f"alexnet_mf.api.bench({plan})"]
    plan.check_settings()
    most = MOST_BUSY * (machine.usable_cores() or 1)
    if plan.beside > most:
        raise BenchError(f"`beside` is {plan.beside:,}; use at most {most} on this machine, {MOST_BUSY} per core")
    names = plan.backends or tuple(name for name in available(pythons) if name in backends.FRAMEWORKS)
    if not names:
        raise BackendUnavailable(f"none of torch, tensorflow and mxnet is installed; "
                                 f"{backends.BACKENDS['torch'].install}, or name an interpreter that has one "
                                 f"(`pythons`)")
    plan = structs.replace(plan, backends=names)
    check_interpreters(plan.backends, pythons)
    for name in plan.backends:
        find_network(plan.net, name)
    if plan.book and not plan.data and plan.net not in BOOKS:
        warnings.warn(f"not measuring the book's own code: it has AlexNet, but not {plan.net}", Notice, stacklevel=2)
    opened = datasets.open_source(plan.data) if plan.data else None
    if plan.data and opened:
        wanted = max(plan.batch_sizes) * plan.epoch_batches
        if len(opened.train) < wanted:
            raise BenchError(f"{opened.origin}: has {len(opened.train):,} training images, but {plan.epoch_batches} "
                             f"batches of {max(plan.batch_sizes)} need {wanted:,}; use a smaller `batch_sizes` or "
                             "`epoch_batches`")
        source = plan.data.resolved()
        plan = structs.replace(plan, data=source)
        for name in plan.backends:  # once, before the workers: they read what is prepared
            network = datasets.adapted(find_network(plan.net, name), opened)
            datasets.prepare(opened, datasets.choose(opened, network), source, parts=("train",))
    return Bench(plan, pythons, command, report_progress, save=save, opened=opened).run()
