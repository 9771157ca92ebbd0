"""Golden numbers: what seed 0 gives, written down once, so that each backend alone, in its own environment, is held to
the same numbers, and so that no later change moves them unseen.

`PYTHONPATH=tests python tests/parity/test_golden.py` writes `golden/*.json` anew, from the reference; look at the
difference before you commit it. The file of the real images is written only where `ALEXNET_MF_DATA_DIR` names them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sizes import by_size

from alexnet_mf import backends, data, spec
from alexnet_mf.backends.contract import Backend
from alexnet_mf.parity.case import Case, make_case
from alexnet_mf.parity.tolerances import TIERS
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.layers import Dense, Flatten, MaxPool2d
from alexnet_mf.weights import parameters

FOLDER = Path(__file__).parent / "golden"
BATCH = 2
EPSILON = 1e-10
"""For the reference itself: float64 sums in another order, on another processor."""


@functools.cache
def question(network: Network, source: data.DatasetName = "synthetic") -> Case:
    return make_case(network, 0, source, count=BATCH, batch=BATCH, steps=0, continued=0)[0]


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's values, in an order and a dtype of their own."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def norms(model: Any, case: Case) -> dict[str, float]:
    """The loss, and the L2 norm of each layer's output and each gradient."""
    batch = model.place(case.inputs, case.labels)
    loss, gradients = model.gradients(batch)
    named = {**{f"outputs/{name}": value for name, value in model.outputs(batch).items()},
             **{f"gradients/{name}": value for name, value in gradients.items()}}
    return {"loss": float(loss),
            **{name: float(np.linalg.norm(value.astype(np.float64))) for name, value in named.items()}}


@functools.cache
def measured(name: str, backend_name: str) -> dict[str, Any]:
    """All golden numbers of one network, as one backend computes them."""
    network = zoo.get_network(name)
    case = question(network)
    build = backends.load(backend_name).build
    exported = parameters.digest(build(network, parameters.initialise(network, 0)).export())
    model = build(network, case.parameters())
    return {"spec": spec.fingerprint(network), "parameters": exported,
            "parameters_with_biases": parameters.digest(model.export()), **images(model, case),
            "norms": norms(model, case)}


def images(model: Any, case: Case) -> dict[str, str]:
    """Digests of the images, their labels, and what the network is fed."""
    return {"images": digest(case.inputs), "labels": digest(case.labels.astype("<i8")),
            "pixels": digest(model.pixels(model.place(case.inputs, case.labels)).astype("<f4"))}


def real_images(backend_name: str) -> dict[str, str]:
    """Fashion-MNIST's, and what networks that take it enlarged and as it is are fed."""
    build = backends.load(backend_name).build
    layers = MaxPool2d("pool1", kernel=56, stride=56), Flatten("flatten"), Dense("fc1", units=10)
    enlarged = Network("enlarged", zoo.ALEXNET.input, layers)
    large, plain = (images(build(case.network, case.parameters()), case)
                    for case in (question(network, "fashion-mnist") for network in (enlarged, zoo.LENET5)))
    assert (plain["images"], plain["labels"]) == (large["images"], large["labels"])
    return {**large, "pixels_28x28": plain["pixels"]}


def golden(name: str) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return numbers


def orders() -> dict[str, str]:
    """The batch order of the first epochs, by the number of images and the epoch."""
    return {f"{count} images, epoch {epoch}": digest(data.epoch_order(count, 0, epoch).astype("<i8"))
            for count in (100, 60_000) for epoch in (0, 1)}


def test_the_batch_order() -> None:
    assert orders() == golden("batch-order")


@pytest.mark.parametrize("name", by_size(zoo.NETWORKS))
def test_the_reference(name: str) -> None:
    mine, theirs = measured(name, "numpy"), golden(name)
    assert {key: value for key, value in mine.items() if key != "norms"} == {
        key: value for key, value in theirs.items() if key != "norms"}
    assert mine["norms"] == pytest.approx(theirs["norms"], rel=EPSILON)


@pytest.mark.real_data
def test_real_images(backend_name: str) -> None:
    """Bit for bit, from the file to what the network is fed."""
    assert real_images(backend_name) == golden("real-images")


@pytest.mark.parametrize("name", by_size(zoo.NETWORKS))
def test_each_backend(backend: Backend, name: str) -> None:
    """Bit for bit where that is promised; a norm is no further off than the tensor may be, near ties apart."""
    if backend.name == "numpy":
        pytest.skip("the reference has a test of its own")
    if name.startswith(zoo.TAB) and name != zoo.name_in_backend(zoo.TAB, backend.name):
        pytest.skip("another backend's tab")
    one_tie = 5e-3  # what one near tie, decided otherwise, may move a gradient of so small a batch
    tolerances = {"outputs": TIERS["float32"].output, "loss": TIERS["float32"].loss, "gradients": one_tie}
    mine, theirs = measured(name, backend.name), golden(name)
    for key in ("spec", "parameters", "parameters_with_biases", "images", "labels", "pixels"):
        assert mine[key] == theirs[key], key
    assert list(mine["norms"]) == list(theirs["norms"])
    for key, value in theirs["norms"].items():
        assert mine["norms"][key] == pytest.approx(value, rel=tolerances[key.partition("/")[0]]), key


def write() -> None:
    FOLDER.mkdir(exist_ok=True)
    numbers = {"batch-order": orders(), **{name: measured(name, "numpy") for name in zoo.NETWORKS}}
    if os.environ.get("ALEXNET_MF_DATA_DIR"):
        numbers["real-images"] = real_images("numpy")
    for name, values in numbers.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
