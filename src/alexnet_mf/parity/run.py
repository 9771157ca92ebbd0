"""Parity over several backends, each in its own process, so frameworks need not share an environment."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mf import backends as registry
from alexnet_mf import datasets, files, spec
from alexnet_mf.backends import loading
from alexnet_mf.backends.contract import Backend, find_precision
from alexnet_mf.backends.execution import AS_IT_COMES, LEFT_OUT, SPEED_SETTINGS, Execution, switched_off
from alexnet_mf.backends.interpreters import available, check_interpreters
from alexnet_mf.checks import check_choice, check_integer, check_list, check_path, check_type
from alexnet_mf.data import DataSource
from alexnet_mf.errors import BackendUnavailable, TraceError
from alexnet_mf.instruments import machine
from alexnet_mf.instruments.machine import Conditions
from alexnet_mf.instruments.process import WorkerFailed, WorkerGone, WorkerProcess
from alexnet_mf.parity import trace as traces
from alexnet_mf.parity.case import Case, make_case
from alexnet_mf.parity.diagnose import diagnose
from alexnet_mf.parity.ladder import Comparison, Rung, check_comparable
from alexnet_mf.parity.reference import Reference, make_reference
from alexnet_mf.parity.tolerances import TIERS, relative_l2
from alexnet_mf.parity.trace import Trace
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.toml import find_network
from alexnet_mf.weights import parameters


@dataclass(frozen=True)
class Pair:
    """Differences between two backends, without the reference."""

    first: str
    second: str
    pixels_equal: bool
    output: float
    """Largest relative L2 error among the layers' outputs."""
    layer: str
    gradient: float
    """Largest relative L2 error among the gradients, including near ties decided differently."""
    parameter: str


@dataclass(frozen=True)
class Report:
    """The ladder of each backend, its diagnosis, and the pairs."""

    reference: Reference
    subjects: list[Trace]
    rungs: dict[str, list[Rung]]
    """Rungs by the trace's label."""
    diagnoses: dict[str, list[str]]
    pairs: list[Pair]
    conditions: Conditions | None = None
    """Conditions of `parity` or `parity_compare`, which made the report."""

    @property
    def holds(self) -> bool:
        return all(rung.holds for rungs in self.rungs.values() for rung in rungs)


def compare(answers: Sequence[Trace], tier: str = "float32", reference: Reference | None = None) -> Report:
    """Compare traces with the reference, rung by rung.

    If the reference's trace is not among them, it is computed from the inputs in the first one.

    Raises:
        TraceError: if they are not of the same case.
    """
    check_comparable(list(answers))
    if reference is None:
        reference = next((reference_of(answer) for answer in answers if answer.backend == "numpy"), None)
    if reference is None:
        case = answers[0].case()
        names = {answer.case().network.name for answer in answers}
        tabs = len(names) > 1 and all(name.startswith(zoo.TAB) for name in names)
        name = zoo.name_in_backend(zoo.TAB, "numpy") if tabs else case.network.name
        if name in zoo.NETWORKS:
            case = dataclasses.replace(case, network=zoo.get_network(name))
        reference = make_reference(case)
    check_comparable([reference.trace, *answers])
    labels = label(answers)
    origins = {parameters.digest(answer.group("stepped")): answer for answer in [*answers, reference.trace]}
    tiered = reference if tier == "float32" else reference.at(TIERS[tier])
    rungs: dict[str, list[Rung]] = {}
    diagnoses: dict[str, list[str]] = {}
    for name, answer in labels.items():
        comparison = Comparison(answer, tiered, TIERS[tier], origins)
        rungs[name] = comparison.climb()
        diagnoses[name] = diagnose(comparison, rungs[name])
    others = {name: answer for name, answer in labels.items() if answer.backend != "numpy"}
    pairs = [pair(a, b, others, tiered.noise()) for a, b in itertools.combinations(others, 2)]
    return Report(reference, list(answers), rungs, diagnoses, pairs)


def reference_of(answer: Trace) -> Reference:
    """Return the reference that a trace came from; compute it again if the trace lacks float32's errors."""
    case = answer.case()
    cost = answer.meta.get("float32_cost")
    return Reference(case, answer, cost) if cost is not None else make_reference(case)


def label(answers: Sequence[Trace]) -> dict[str, Trace]:
    """Return the traces by label: the backend's name, numbered if it has several traces."""
    names = [answer.backend for answer in answers]
    counted: dict[str, Trace] = {}
    for answer in answers:
        name, number = answer.backend, 1
        while name in counted or (number == 1 and names.count(answer.backend) > 1):
            name = f"{answer.backend}#{number}"
            number += 1
        counted[name] = answer
    return counted


def pair(first: str, second: str, answers: Mapping[str, Trace], noise: Collection[str]) -> Pair:
    """Return the differences between two backends, except in gradients that are `noise`."""
    a, b = answers[first], answers[second]
    errors = {group: {name: relative_l2(value, b.group(group)[name]) for name, value in a.group(group).items()
                      if name in b.group(group) and (group == "outputs" or name not in noise)}
              for group in ("outputs", "gradients")}
    layer = max(errors["outputs"], key=lambda name: errors["outputs"][name])
    parameter = max(errors["gradients"], key=lambda name: errors["gradients"][name])
    equal = a.tensors["pixels"].tobytes() == b.tensors["pixels"].tobytes()
    return Pair(first, second, equal, errors["outputs"][layer], layer, errors["gradients"][parameter], parameter)


def parity(net: Network | str = "alexnet", backends: Sequence[str] | None = None, *, seed: int = 0,
           data: DataSource | Path | str = "auto", data_dir: Path | str | None = None, images: int = 64,
           batch_size: int = 4, steps: int = 6, device: str = "auto", execution: Execution = AS_IT_COMES,
           tier: str | None = None, pythons: Mapping[str, str] | None = None, keep: Path | str | None = None,
           command: Sequence[str] = (), report_progress: Callable[[str], None] = lambda line: None) -> Report:
    """Compare what backends compute for one network with the float64 reference, rung by rung.

    Each backend writes its trace in a process of its own, the reference first. Each backend's last steps start from the
    weights that the previous backend reached, as if training continued in another framework.

    Args:
        net: network, its name, or the path of a TOML file.
        backends: names; by default all that are installed here or have an entry in `pythons`.
        seed: seed of the initial weights, the inputs and dropout.
        data: dataset of the inputs, or a path of your own images, as for `train`.
        data_dir: folder of the Fashion-MNIST files.
        images: number of test images to classify.
        batch_size: number of images in the forward and backward pass and in each SGD step.
        steps: number of SGD steps to compare.
        execution: precision and speed settings of all backends but the reference.
        tier: tolerances, one of `TIERS`; by default those of the precision.
        pythons: interpreters of backends that live in other environments, by backend.
        keep: folder for the traces; by default they are temporary.
        command: words for the record; the name of this function without them.
        report_progress: receives a line about each stage.

    Raises:
        BackendUnavailable: if a backend is missing, or its process fails.
        AlexnetMfError: if an argument is wrong, or the traces cannot be computed or written.
    """
    conditions = Conditions(**machine.conditions(command or ["alexnet_mf.api.parity"]))
    source = datasets.source_of(data, data_dir)
    source.check()
    check_arguments(seed, images, batch_size, steps, device, execution)
    if tier is not None:
        check_choice("tier", tier, TIERS)
    pythons = pythons or {}
    names = available(pythons) if backends is None else check_list("backends", backends)
    ordered = ["numpy", *(name for name in dict.fromkeys(names) if name != "numpy")]
    check_interpreters(ordered, pythons)
    networks = {name: find_network(net, name) for name in ordered}
    with tempfile.TemporaryDirectory(prefix="alexnet_mf-parity-") as temporary:
        folder = Path(temporary) if keep is None else check_path("keep", keep)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TraceError(f"{folder}: cannot be created ({error.strerror}); name another folder for the traces "
                             f"(`keep`)") from error
        before: Path | None = None
        answers = []
        for name in ordered:
            report_progress(f"tracing {name}")
            path = folder / f"{name}.safetensors"
            trace_in_process(name, pythons.get(name, sys.executable), {
                "path": str(path), "net": spec.as_dict(networks[name]), "seed": seed,
                "data": dataclasses.asdict(source), "images": images, "batch_size": batch_size, "steps": steps,
                "device": device, "precision": execution.precision, "speed": dict(execution.speed),
                "continue_from": before and str(before)})
            before = path
            answers.append(traces.load(path))
        report_progress("comparing")
        return dataclasses.replace(compare(answers, tier or execution.precision or "float32"), conditions=conditions)


def check_arguments(seed: int, images: int, batch_size: int, steps: int, device: str, execution: Execution) -> None:
    """Check the arguments that `parity` and `parity_trace` share.

    Raises:
        AlexnetMfError: names the argument, its value and what is allowed.
    """
    check_integer("seed", seed, least=0)
    for argument, value in (("images", images), ("batch_size", batch_size), ("steps", steps)):
        check_integer(argument, value)
    check_type("device", device, str)
    for name in check_type("execution", execution, Execution).speed:
        check_choice("execution.speed", name, SPEED_SETTINGS)


def trace_in_process(backend: str, python: str, values: dict[str, Any]) -> None:
    """Write a trace in a process of the given interpreter.

    Args:
        values: arguments of `parity_trace` as JSON values, see `parity.worker`.

    Raises:
        BackendUnavailable: if the process fails or cannot be started.
    """
    try:
        worker = WorkerProcess(python, "alexnet_mf.parity.worker", {LEFT_OUT: ",".join(switched_off(values["speed"]))},
                               answer_seconds=math.inf)  # the reference takes minutes for AlexNet, hours for more
        try:
            worker.ask({"do": "trace", "backend": backend, **values})
        finally:
            worker.close()
    except WorkerGone as error:
        raise BackendUnavailable(f"backend {backend}: {error}; install alexnet_mf and "
                                 f"{registry.BACKENDS[backend].framework} there, or name an interpreter (`pythons`)"
                                 ) from error
    except WorkerFailed as error:
        raise BackendUnavailable(f"backend {backend}: {str(error).removeprefix(f'backend {backend}: ')}") from error


def parity_trace(path: Path | str, backend: str, net: Network | str = "alexnet", *, seed: int = 0,
                 data: DataSource | Path | str = "auto", data_dir: Path | str | None = None, images: int = 64,
                 batch_size: int = 4, steps: int = 6, device: str = "auto", execution: Execution = AS_IT_COMES,
                 continue_from: Path | str | None = None) -> Trace:
    """Compute one backend's results in this process, and write them to a file for `parity_compare`.

    Args:
        path: file to write.
        backend: `torch`, `tensorflow`, `mxnet`, or `numpy` for the reference.
        net, seed, data, data_dir, images, batch_size, steps, device, execution: as for `parity`.
        continue_from: trace of another backend; the last steps start from the weights that it reached, by default
            from the backend's own.

    Raises:
        AlexnetMfError: if an argument is wrong, or the trace cannot be computed or written.
    """
    path = check_path("path", path)
    files.check_writable(path)
    source = datasets.source_of(data, data_dir)
    check_arguments(seed, images, batch_size, steps, device, execution)
    network = find_network(net, backend)
    loaded, execution = loading.load(backend, execution)
    case = make_case(network, seed, source, images, batch=batch_size, steps=steps)
    start = None
    if continue_from is not None:
        start = traces.load(check_path("continue_from", continue_from)).group("stepped")
        parameters.check(start, case.network, str(continue_from))
    result = answer(loaded, case, device, start, execution)
    traces.save(path, result)
    return result


def parity_compare(paths: Iterable[Path | str], tier: str = "float32", *, command: Sequence[str] = ()) -> Report:
    """Compare traces from any environment or machine with the reference, rung by rung.

    Args:
        paths: files that `parity_trace` wrote. The reference (`numpy`) is computed if its trace is not among them.
        tier: tolerances, one of `TIERS`.
        command: as for `parity`.

    Raises:
        TraceError: if a file is not a trace, or the traces are not of the same case.
    """
    check_choice("tier", tier, TIERS)
    conditions = Conditions(**machine.conditions(command or ["alexnet_mf.api.parity_compare"]))
    answers = [traces.load(Path(path)) for path in check_list("paths", paths, (str, Path))]
    return dataclasses.replace(compare(answers, tier), conditions=conditions)


def answer(backend: Backend, case: Case, device: str = "cpu", continue_from: parameters.Parameters | None = None,
           execution: Execution = AS_IT_COMES) -> Trace:
    """Return a backend's trace.

    The reference computes on the CPU in float64, whatever `device` and `execution` are. Its trace includes its
    float32 errors.
    """
    if backend.name == "numpy":
        reference = make_reference(case, continue_from)
        reference.trace.meta["float32_cost"] = reference.cost
        return reference.trace
    result = traces.trace(backend, case, device, continue_from,
                          build=functools.partial(backend.build, execution=execution))
    result.meta["settings"] |= {"precision": find_precision(backend, result.meta["device"], execution.precision),
                                "speed": dict(execution.speed)}
    return result
