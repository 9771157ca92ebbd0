"""Traces for tests of the ladder, and changes to them. The reference's layers in float32 stand for a framework."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from alexnet_mf import backends, data
from alexnet_mf.parity.case import Case
from alexnet_mf.parity.ladder import Rung
from alexnet_mf.parity.reference import Reference
from alexnet_mf.parity.run import Report, answer, compare
from alexnet_mf.parity.trace import Trace, trace
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import Conv2d, Dense, Dropout, Flatten, MaxPool2d

# Sizes chosen so that faults stay silent, as in AlexNet: conv1 gives 18x18 with padding 0 and 1; pool1 gives 8x8 or,
# rounded up, 9x9, and pool2 makes 4x4 of both. fc4 is square, conv2 has as many input as output channels.
PLAIN = Network("plain", (1, 56, 56), (
    Conv2d("conv1", channels=8, kernel=5, stride=3, padding=1), MaxPool2d("pool1", kernel=3, stride=2),
    Conv2d("conv2", channels=8, kernel=3, padding=1), MaxPool2d("pool2", kernel=2, stride=2),
    Flatten("flatten"), Dense("fc3", units=96, activation="relu"), Dropout("drop3", rate=0.5),
    Dense("fc4", units=96, activation="sigmoid"), Dropout("drop4", rate=0.2), Dense("fc5", units=10)))
DRAWN = data.synthetic.draw(0, train=1, test=24).test
Change: TypeAlias = Callable[[Trace], None]


def make_trace(network: Network, name: str = "torch", count: int = 24, continue_from: Any = None,
               **options: Any) -> Trace:
    """Return a trace of the reference, or of its layers in float32 under a framework's name, on some images."""
    numpy: Any = backends.load("numpy")
    case = Case(network, **{"seed": 0, "inputs": DRAWN.images[:count], "labels": DRAWN.labels[:count],
                            "origin": "synthetic", **options})
    if name == "numpy":
        return answer(numpy, case)
    result = trace(numpy, case, continue_from=continue_from, build=functools.partial(numpy.build, dtype=np.float32))
    result.meta["backend"] = name
    return result


def spoiled(correct: Trace, *changes: Change) -> Trace:
    """Return a copy with changes, which may write into the arrays."""
    result = Trace(copy.deepcopy(correct.meta), {name: value.copy() for name, value in correct.tensors.items()})
    for change in changes:
        change(result)
    return result


def put(key: str, change: Callable[[Any], Any]) -> Change:
    """Return a change of a tensor or of an entry of the header."""
    def apply(target: Trace) -> None:
        entries = target.meta if key in target.meta else target.tensors
        entries[key] = change(entries.get(key))
    return apply


def scale(tensor: str, factor: float) -> Change:
    return put(tensor, lambda values: values * np.float32(factor))


def rung_of(report: Report, name: str, backend: str = "torch") -> Rung:
    return next(rung for rung in report.rungs[backend] if rung.name == name)


def assert_green(backend_name: str, reference: Reference) -> None:
    """Assert that a backend passes every rung on the reference's case."""
    report = compare([trace(backends.load(backend_name), reference.case)], reference=reference)
    failures = [(rung.name, rung.note, rung.failures) for rung in report.rungs[backend_name] if not rung.holds]
    assert not failures, (reference.case.network, report.diagnoses)
    assert report.diagnoses == {backend_name: []}
