"""Golden numbers of seed 0: each backend, alone in its environment, must give them, and no change moves them unseen.

`PYTHONPATH=tests python tests/parity/test_golden.py` rewrites `golden/*.json` from the reference; review the difference
before you commit it. The file of the real images is written only if `ALEXNET_MF_DATA_DIR` is set.
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
from alexnet_mf.data import DataSource
from alexnet_mf.parity.case import Case, make_case
from alexnet_mf.parity.tolerances import TIERS
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.layers import Dense, Flatten, MaxPool2d
from alexnet_mf.weights import parameters

FOLDER = Path(__file__).parent / "golden"
BATCH = 2
EPSILON, NOTHING = 1e-10, 1e-4
"""Relative tolerance of the reference itself: another processor may sum float64 in another order. A norm below it is 0:
that of a bias's gradient before batch normalization. In float32 it may be `NOTHING`."""


@functools.cache
def golden_case(network: Network, source: data.DatasetName = "synthetic") -> Case:
    return make_case(network, 0, DataSource(source), count=BATCH, batch=BATCH, steps=0, continued=0)


def digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's values, in C order and in the array's dtype."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def norms(model: Any, case: Case) -> dict[str, float]:
    """Return the loss, and the L2 norm of each layer's output and each gradient."""
    batch = model.place(case.inputs, case.labels)
    loss, gradients = model.gradients(batch)
    named = {**{f"outputs/{name}": value for name, value in model.outputs(batch).items()},
             **{f"gradients/{name}": value for name, value in gradients.items()}}
    return {"loss": float(loss),
            **{name: float(np.linalg.norm(value.astype(np.float64))) for name, value in named.items()}}


@functools.cache
def measure(name: str, backend_name: str) -> dict[str, Any]:
    """Return all golden numbers of one network, computed by one backend."""
    network = zoo.get_network(name)
    case = golden_case(network)
    build = backends.load(backend_name).build
    exported = parameters.digest(build(network, parameters.initialize(network, 0)).export())
    model = build(network, case.parameters())
    return {"spec": spec.fingerprint(network), "parameters": exported,
            "parameters_with_biases": parameters.digest(model.export()), **images(model, case),
            "norms": norms(model, case)}


def images(model: Any, case: Case) -> dict[str, str]:
    """Return digests of the images, their labels and the pixels that the network receives."""
    return {"images": digest(case.inputs), "labels": digest(case.labels.astype("<i8")),
            "pixels": digest(model.pixels(model.place(case.inputs, case.labels)).astype("<f4"))}


def real_images(backend_name: str) -> dict[str, str]:
    """Return digests of Fashion-MNIST, and of its pixels in networks that take it enlarged and as it is."""
    build = backends.load(backend_name).build
    layers = MaxPool2d("pool1", kernel=56, stride=56), Flatten("flatten"), Dense("fc1", units=10)
    enlarged = Network("enlarged", zoo.ALEXNET.input, layers)
    large, plain = (images(build(case.network, case.parameters()), case)
                    for case in (golden_case(network, "fashion-mnist") for network in (enlarged, zoo.LENET5)))
    assert (plain["images"], plain["labels"]) == (large["images"], large["labels"])
    return {**large, "pixels_28x28": plain["pixels"]}


def golden(name: str) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return numbers


def orders() -> dict[str, str]:
    """Return digests of the first epochs' batch orders, by number of images and epoch."""
    return {f"{count} images, epoch {epoch}": digest(data.epoch_order(count, 0, epoch).astype("<i8"))
            for count in (100, 60_000) for epoch in (0, 1)}


def test_the_batch_order_is_golden() -> None:
    assert orders() == golden("batch-order")


@pytest.mark.parametrize("name", by_size(zoo.NETWORKS))
def test_the_reference_gives_the_golden_numbers(name: str) -> None:
    mine, theirs = measure(name, "numpy"), golden(name)
    assert {key: value for key, value in mine.items() if key != "norms"} == {
        key: value for key, value in theirs.items() if key != "norms"}
    assert mine["norms"] == pytest.approx(theirs["norms"], rel=EPSILON, abs=EPSILON)


@pytest.mark.real_data
def test_real_images_give_the_golden_pixels(backend_name: str) -> None:
    """Every bit is equal, from the file to the network's input."""
    assert real_images(backend_name) == golden("real-images")


@pytest.mark.parametrize("name", by_size(zoo.NETWORKS))
def test_each_backend_gives_the_golden_numbers(backend: Backend, name: str) -> None:
    """Digests are equal; a norm may differ as much as its tensor, and a gradient's by one near tie."""
    if backend.name == "numpy":
        pytest.skip("the reference has a test of its own")
    if name.startswith(zoo.TAB) and name != zoo.name_in_backend(zoo.TAB, backend.name):
        pytest.skip("another backend's tab")
    one_tie = 5e-3  # one near tie may move a gradient of so small a batch by this much
    tolerances = {"outputs": TIERS["float32"].output, "loss": TIERS["float32"].loss, "gradients": one_tie}
    mine, theirs = measure(name, backend.name), golden(name)
    for key in ("spec", "parameters", "parameters_with_biases", "images", "labels", "pixels"):
        assert mine[key] == theirs[key], key
    assert list(mine["norms"]) == list(theirs["norms"])
    for key, value in theirs["norms"].items():
        assert mine["norms"][key] == pytest.approx(value, rel=tolerances[key.partition("/")[0]],
                                                   abs=NOTHING if value < EPSILON else 0), key


def write() -> None:
    FOLDER.mkdir(exist_ok=True)
    numbers = {"batch-order": orders(), **{name: measure(name, "numpy") for name in zoo.NETWORKS}}
    if os.environ.get("ALEXNET_MF_DATA_DIR"):
        numbers["real-images"] = real_images("numpy")
    for name, values in numbers.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
