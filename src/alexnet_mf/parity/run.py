"""Parity over several backends, each in a process of its own: frameworks need not share an environment."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mf.backends import BACKENDS
from alexnet_mf.backends.contract import find_precision
from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.errors import BackendUnavailable, TraceError
from alexnet_mf.parity import trace as traces
from alexnet_mf.parity.diagnose import diagnose
from alexnet_mf.parity.ladder import Comparison, Rung, check_comparable
from alexnet_mf.parity.measure import TIERS, relative_l2
from alexnet_mf.parity.referee import Referee, make_referee
from alexnet_mf.parity.trace import Trace
from alexnet_mf.spec import zoo
from alexnet_mf.weights import parameters

PREFIX = "alexnet-mf: error: "
"""How the command line begins the line that says why it failed."""


@dataclass(frozen=True)
class Pair:
    """Two backends beside each other, the referee left out."""

    first: str
    second: str
    pixels_equal: bool
    output: float
    """The largest relative L2 error among the layers' outputs."""
    layer: str
    gradient: float
    """The same among the gradients; near ties decided differently are in it."""
    parameter: str


@dataclass(frozen=True)
class Report:
    """The ladder of each backend, its diagnosis, and the pairs."""

    referee: Referee
    subjects: list[Trace]
    rungs: dict[str, list[Rung]]
    """By the subject's label."""
    diagnoses: dict[str, list[str]]
    pairs: list[Pair]

    @property
    def holds(self) -> bool:
        return all(rung.holds for rungs in self.rungs.values() for rung in rungs)


def compare(answers: Sequence[Trace], tier: str = "float32", referee: Referee | None = None) -> Report:
    """The ladder over traces from anywhere.

    The referee's trace is among them, or it is computed anew from the inputs in the first one.

    Raises:
        TraceError: where they do not answer the same case.
    """
    check_comparable(list(answers))
    if referee is None:
        referee = next((referee_of(answer) for answer in answers if answer.backend == "numpy"), None)
    if referee is None:
        case = answers[0].case()
        names = {answer.case().network.name for answer in answers}
        tabs = len(names) > 1 and all(name.startswith(zoo.TAB) for name in names)
        name = zoo.name_in_backend(zoo.TAB, "numpy") if tabs else case.network.name
        if name in zoo.NETWORKS:
            case = dataclasses.replace(case, network=zoo.get_network(name))
        referee = make_referee(case)
    check_comparable([referee.trace, *answers])
    labels = label(answers)
    origins = {parameters.digest(answer.group("stepped")): answer for answer in [*answers, referee.trace]}
    rungs: dict[str, list[Rung]] = {}
    diagnoses: dict[str, list[str]] = {}
    for name, answer in labels.items():
        comparison = Comparison(answer, referee, TIERS[tier], origins)
        rungs[name] = comparison.climb()
        diagnoses[name] = diagnose(comparison, rungs[name])
    others = {name: answer for name, answer in labels.items() if answer.backend != "numpy"}
    pairs = [pair(a, b, others) for a, b in itertools.combinations(others, 2)]
    return Report(referee, list(answers), rungs, diagnoses, pairs)


def referee_of(answer: Trace) -> Referee:
    """A referee from its trace, which holds what float32 costs; computed where a foreign trace lacks it."""
    case = answer.case()
    cost = answer.meta.get("float32_cost")
    return Referee(case, answer, cost) if cost is not None else make_referee(case)


def label(answers: Sequence[Trace]) -> dict[str, Trace]:
    """The traces by backend, numbered where a backend has several."""
    names = [answer.backend for answer in answers]
    counted: dict[str, Trace] = {}
    for answer in answers:
        name, number = answer.backend, 1
        while name in counted or (number == 1 and names.count(answer.backend) > 1):
            name = f"{answer.backend}#{number}"
            number += 1
        counted[name] = answer
    return counted


def pair(first: str, second: str, answers: Mapping[str, Trace]) -> Pair:
    """How far two backends are from each other."""
    a, b = answers[first], answers[second]
    errors = {group: {name: relative_l2(value, b.group(group)[name]) for name, value in a.group(group).items()
                      if name in b.group(group)} for group in ("outputs", "gradients")}
    layer = max(errors["outputs"], key=lambda name: errors["outputs"][name])
    parameter = max(errors["gradients"], key=lambda name: errors["gradients"][name])
    equal = a.tensors["pixels"].tobytes() == b.tensors["pixels"].tobytes()
    return Pair(first, second, equal, errors["outputs"][layer], layer, errors["gradients"][parameter], parameter)


def parity(names: Sequence[str], flags: Sequence[str] = (), pythons: Mapping[str, str] | None = None,
           tier: str = "float32", keep: Path | None = None, tell: Callable[[str], None] = lambda line: None) -> Report:
    """Trace each backend in a process of its own, the referee first, and compare.

    Each backend's last steps start from the weights that the one before it had reached: a training begun in one
    framework and continued in another.

    Args:
        flags: of `parity trace`, the same for all.
        pythons: the interpreter to use for a backend, by name, where it is not this one.
        keep: a folder for the traces; without it they are temporary.

    Raises:
        BackendUnavailable: where a backend's process fails; with the last line that it wrote.
    """
    ordered = ["numpy", *(name for name in names if name != "numpy")]
    with tempfile.TemporaryDirectory(prefix="alexnet_mf-parity-") as temporary:
        folder = keep or Path(temporary)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TraceError(f"{folder}: no folder for traces ({error.strerror}); name another one: --keep") from error
        before: Path | None = None
        answers = []
        for name in ordered:
            tell(name)
            path = folder / f"{name}.safetensors"
            run_trace(name, path, [*flags, *(["--continue-from", str(before)] if before else [])],
                      (pythons or {}).get(name, sys.executable))
            before = path
            answers.append(traces.load(path))
        tell("comparing")
        return compare(answers, tier)


def run_trace(name: str, path: Path, flags: Sequence[str], python: str) -> None:
    """`parity trace` of one backend in a process of its own."""
    command = [python, "-m", "alexnet_mf", "parity", "trace", "--backend", name, "--out", str(path), *flags]
    try:
        process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        raise BackendUnavailable(f"backend {name}: {python} cannot be run ({error.strerror}); see --python") from error
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["nothing said"])[-1]
        if not reason.startswith(PREFIX):  # not an answer of this program: it is not there, or it crashed
            reason = f"{python} failed with exit code {process.returncode} ({reason}); it needs alexnet_mf and " \
                     f"{BACKENDS[name].framework}, or name another interpreter: --python {name}=PATH"
        raise BackendUnavailable(f"backend {name}: {reason.removeprefix(PREFIX).removeprefix(f'backend {name}: ')}")


def answer(backend: Any, case: Any, device: str = "cpu", continue_from: parameters.Parameters | None = None,
           execution: Execution = AS_IT_COMES) -> Trace:
    """A backend's trace. The referee's holds what float32 costs it; it computes on the CPU, in float64, wherever and
    however the others do."""
    if backend.name != "numpy":
        found = traces.trace(backend, case, device, continue_from,
                             build=functools.partial(backend.build, execution=execution))
        found.meta["settings"] |= {"precision": find_precision(backend, found.meta["device"], execution.precision),
                                   "without": sorted(execution.without), "also": sorted(execution.also)}
        return found
    referee = make_referee(case, continue_from)
    referee.trace.meta["float32_cost"] = referee.cost
    return referee.trace
