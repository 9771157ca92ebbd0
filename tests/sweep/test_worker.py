"""One training: what the worker answers, here and in a process of its own."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest

from alexnet_mf import backends, data, spec
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.errors import DataError, SweepError
from alexnet_mf.instruments.process import WorkerProcess
from alexnet_mf.sweep.worker import Worker, split
from alexnet_mf.training import loop, memory
from alexnet_mf.training.recipe import BOOK
from alexnet_mf.weights import parameters

RECIPE = dataclasses.replace(BOOK, epochs=2, batch_size=8, sgd=Sgd(0.05), train_images=20, test_images=10,
                             augment=("flip",))


def command(small: spec.Network, **changes: Any) -> dict[str, Any]:
    return {"do": "train", "backend": "numpy", "network": spec.as_dict(small), "device": "auto", "precision": None,
            "without": [], "also": [], "recipe": dataclasses.asdict(RECIPE), "seed": 3, "data_name": "synthetic",
            "data_dir": None, "held_out": 0, **changes}


@pytest.fixture
def worker() -> Worker:
    return Worker(lambda progress: None)


def test_it_trains_as_the_loop_does(worker, small):
    answer = worker.handle(command(small))
    images = data.synthetic.draw(0)
    model = backends.load("numpy").build(small, parameters.initialise(small, 3))
    expected = loop.train(model, images.train, images.test, RECIPE, 3)
    assert answer["epochs"] == [dataclasses.asdict(epoch) for epoch in expected.epochs]
    assert (answer["device"], answer["precision"], answer["images_timed"]) == ("cpu", "float64", 32)
    assert answer["data_sha256"] == images.digest()
    assert answer["versions"]["numpy"] == np.__version__


def test_it_trains_in_every_backend(worker, small, backend_name):
    answer = worker.handle(command(small, backend=backend_name))
    assert [epoch["epoch"] for epoch in answer["epochs"]] == [1, 2]
    assert backend_name in answer["versions"]
    assert (answer["device"] == "cpu") is (answer["peak_device_memory_bytes"] is None)


def test_images_held_out_are_tested_on_and_not_trained_on(worker, small):
    images = data.synthetic.draw(0)
    count = len(images.train)
    seen, tested = split(images, 30)
    assert (len(seen), len(tested)) == (count - 30, 30)
    assert np.concatenate([seen.images, tested.images]).tobytes() == images.train.images.tobytes()
    assert np.concatenate([seen.labels, tested.labels]).tolist() == images.train.labels.tolist()
    assert split(images, 0) == (images.train, images.test)
    with pytest.raises(DataError, match="hold out fewer"):
        split(images, count)
    recipe = dataclasses.asdict(dataclasses.replace(RECIPE, test_images=None))
    answer = worker.handle(command(small, held_out=7, recipe=recipe))
    right = answer["epochs"][-1]["test_accuracy"] * 7
    assert right == pytest.approx(round(right)), "a share of seven images"


def test_a_batch_that_does_not_fit_is_an_answer(worker, small, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    answer = worker.handle(command(small))
    assert answer["failed"] == "does not fit"
    assert "a batch of 8 does not fit" in answer["reason"]


def test_a_training_that_diverges_is_an_answer(worker, small):
    recipe = dataclasses.asdict(dataclasses.replace(RECIPE, sgd=Sgd(1e38, weight_decay=1e38)))
    with np.errstate(all="ignore"):
        answer = worker.handle(command(small, recipe=recipe))
    assert answer["failed"] == "diverged"
    assert "learning rate" in answer["reason"]


def test_another_command_is_refused(worker):
    with pytest.raises(SweepError, match="'measure'"):
        worker.handle({"do": "measure"})


def test_in_a_process_of_its_own(worker, small):
    process = WorkerProcess(sys.executable, "alexnet_mf.sweep.worker")
    try:
        answer = process.ask(command(small))
    finally:
        process.close()
    assert answer["epochs"] == worker.handle(command(small))["epochs"]
    if sys.platform == "linux":
        assert 10**7 < answer["peak_memory_bytes"] < 10**9
