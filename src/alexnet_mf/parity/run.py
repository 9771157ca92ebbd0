"""Parity over several backends, each in a process of its own: frameworks need not share an environment."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mf import backends as registry
from alexnet_mf import data, spec
from alexnet_mf.backends import loading
from alexnet_mf.backends.contract import find_precision
from alexnet_mf.backends.execution import AS_IT_COMES, LEFT_OUT, Execution, switched_off
from alexnet_mf.errors import BackendUnavailable, TraceError
from alexnet_mf.instruments.process import WorkerFailed, WorkerGone, WorkerProcess
from alexnet_mf.parity import trace as traces
from alexnet_mf.parity.case import make_case
from alexnet_mf.parity.diagnose import diagnose
from alexnet_mf.parity.ladder import Comparison, Rung, check_comparable
from alexnet_mf.parity.referee import Referee, make_referee
from alexnet_mf.parity.tolerances import TIERS, relative_l2
from alexnet_mf.parity.trace import Trace
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.toml import find_network
from alexnet_mf.weights import parameters


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


def parity(net: Network | str = "alexnet", backends: Sequence[str] | None = None, *, seed: int = 0,
           data: data.DatasetName = "auto", data_dir: Path | None = None, images: int = 64, batch_size: int = 4,
           steps: int = 6, device: str = "auto", execution: Execution = AS_IT_COMES, tier: str | None = None,
           pythons: Mapping[str, str] | None = None, keep: Path | None = None,
           report_progress: Callable[[str], None] = lambda line: None) -> Report:
    """Compare what backends compute for one network with the float64 referee, rung by rung.

    Each backend writes its trace in a process of its own, the referee first. Each backend's last steps start from the
    weights that the one before it had reached: a training begun in one framework and continued in another.

    Args:
        net: network, its name, or the path of a TOML file.
        backends: names; all that are installed here or have an entry in `pythons` without it.
        seed: of the initial weights, the inputs and dropout.
        data: dataset of the inputs.
        data_dir: folder of the Fashion-MNIST files.
        images: test images to classify.
        batch_size: images that pass through every layer and back, and of each SGD step.
        steps: SGD steps to compare.
        execution: precision and speed settings of all backends but the referee.
        tier: tolerances, one of `TIERS`; those of the precision without it.
        pythons: interpreters of backends that live in other environments, by backend.
        keep: folder for the traces; without it they are temporary.
        report_progress: takes a line on what is being done.

    Raises:
        BackendUnavailable: if a backend is missing, or its process fails.
        AlexnetMfError: if something else cannot be done as asked.
    """
    pythons = pythons or {}
    names = backends if backends is not None else [name for name in registry.BACKENDS if name in pythons
                                                   or registry.is_installed(name)]
    ordered = ["numpy", *(name for name in dict.fromkeys(names) if name != "numpy")]
    for name in ordered:
        if name not in pythons and not registry.is_installed(name):  # before the reference's minutes
            entry = registry.BACKENDS[name]
            raise BackendUnavailable(f"backend {name}: {entry.framework} is not installed; {entry.install}, or name an "
                                     "interpreter that has it (`pythons`)")
    networks = {name: find_network(net, name) if isinstance(net, str) else net for name in ordered}
    with tempfile.TemporaryDirectory(prefix="alexnet_mf-parity-") as temporary:
        folder = keep or Path(temporary)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TraceError(f"{folder}: cannot be made ({error.strerror}); name another folder for the traces "
                             f"(`keep`)") from error
        before: Path | None = None
        answers = []
        for name in ordered:
            report_progress(f"tracing {name}")
            path = folder / f"{name}.safetensors"
            trace_in_process(name, pythons.get(name, sys.executable), {
                "out": str(path), "network": spec.as_dict(networks[name]), "seed": seed, "data_name": data,
                "data_dir": data_dir and str(data_dir), "images": images, "batch_size": batch_size, "steps": steps,
                "device": device, "precision": execution.precision, "speed": dict(execution.speed),
                "continue_from": before and str(before)})
            before = path
            answers.append(traces.load(path))
        report_progress("comparing")
        return compare(answers, tier or execution.precision or "float32")


def trace_in_process(backend: str, python: str, values: dict[str, Any]) -> None:
    """Have a process of this interpreter write a trace.

    Args:
        values: arguments of `write_trace` as JSON values, see `parity.worker`.

    Raises:
        BackendUnavailable: if the process fails or cannot be started.
    """
    try:
        worker = WorkerProcess(python, "alexnet_mf.parity.worker", {LEFT_OUT: ",".join(switched_off(values["speed"]))},
                               answer_seconds=math.inf)  # the referee takes minutes for AlexNet, hours for more
        try:
            worker.ask({"do": "trace", "backend": backend, **values})
        finally:
            worker.close()
    except WorkerGone as error:
        raise BackendUnavailable(f"backend {backend}: {error}; it needs alexnet_mf and "
                                 f"{registry.BACKENDS[backend].framework}, or name another interpreter (`pythons`)"
                                 ) from error
    except WorkerFailed as error:
        raise BackendUnavailable(f"backend {backend}: {str(error).removeprefix(f'backend {backend}: ')}") from error


def write_trace(out: Path, backend: str, network: Network, *, seed: int = 0, data_name: data.DatasetName = "auto",
                data_dir: Path | None = None, images: int = 64, batch_size: int = 4, steps: int = 6,
                device: str = "auto", execution: Execution = AS_IT_COMES,
                continue_from: Path | None = None) -> tuple[Trace, str | None]:
    """Write the trace of one backend, in this process.

    Args:
        out: file to write.
        continue_from: another backend's trace; the last steps start from the weights that it had reached.

    Returns:
        The trace, and a notice if the inputs are not those hoped for.

    Raises:
        AlexnetMfError: if it cannot be computed or written.
    """
    loaded, execution = loading.load(backend, execution)
    case, notice = make_case(network, seed, data_name, data_dir, images, batch=batch_size, steps=steps)
    start = traces.load(continue_from).group("stepped") if continue_from else None
    if start is not None:
        parameters.check(start, case.network, str(continue_from))
    result = answer(loaded, case, device, start, execution)
    traces.save(out, result)
    return result, notice


def answer(backend: Any, case: Any, device: str = "cpu", continue_from: parameters.Parameters | None = None,
           execution: Execution = AS_IT_COMES) -> Trace:
    """A backend's trace. The referee's holds what float32 costs it; it computes on the CPU, in float64, wherever and
    however the others do."""
    if backend.name != "numpy":
        found = traces.trace(backend, case, device, continue_from,
                             build=functools.partial(backend.build, execution=execution))
        found.meta["settings"] |= {"precision": find_precision(backend, found.meta["device"], execution.precision),
                                   "speed": dict(execution.speed)}
        return found
    referee = make_referee(case, continue_from)
    referee.trace.meta["float32_cost"] = referee.cost
    return referee.trace
