"""Sweep workers: their run folders and answers, in this process and in a process of their own."""

from __future__ import annotations

import dataclasses
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_mf import backends, data, spec
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.errors import DataError
from alexnet_mf.instruments.process import WorkerGone, WorkerProcess
from alexnet_mf.sweep.worker import Worker
from alexnet_mf.training import loop, memory
from alexnet_mf.training.recipe import BOOK
from alexnet_mf.training.run import load_run
from alexnet_mf.weights import parameters

RECIPE = dataclasses.replace(BOOK, epochs=2, batch_size=8, sgd=Sgd(0.05), train_images=20, test_images=10,
                             augment=("flip",))


def command(small: spec.Network, folder: Path, **changes: Any) -> dict[str, Any]:
    return {"do": "train", "folder": str(folder), "network": spec.as_dict(small), "backend": "numpy", "device": "auto",
            "precision": None, "speed": {}, "recipe": dataclasses.asdict(RECIPE), "seed": 3,
            "data": {"name": "synthetic"}, "command": ["a", "b"], **changes}


@pytest.fixture
def worker() -> Worker:
    return Worker(lambda progress: None)


def test_a_worker_trains_as_train_does(worker, small, tmp_path):
    worker.handle(command(small, tmp_path / "run"))
    images = data.synthetic.draw(0)
    model = backends.load("numpy").build(small, parameters.initialize(small, 3))
    expected = loop.train(model, images.train, images.test, RECIPE, 3)
    run = load_run(tmp_path / "run")
    assert (run.state, run.epochs, run.recipe) == ("finished", expected.epochs, RECIPE)
    assert parameters.digest(run.parameters()) == parameters.digest(model.export())
    assert run.record.command == ["a", "b"]


def test_held_out_images_are_tested_on_and_not_trained_on(worker, small, tmp_path):
    images = data.synthetic.draw(0)
    count = len(images.train)
    split = images.hold_out(30)
    assert (len(split.train), len(split.test)) == (count - 30, 30)
    both = [image.tobytes() for part in (split.train, split.test) for image in part.images]
    assert sorted(both) == sorted(image.tobytes() for image in images.train.images)
    assert np.bincount(split.test.labels).tolist() == [3] * 10, "the classes in equal shares"
    assert images.hold_out(0).test.images.tobytes() == images.test.images.tobytes()
    with pytest.raises(DataError, match="`held_out` must be smaller"):
        images.hold_out(count)
    recipe = dataclasses.replace(RECIPE, train_images=None, test_images=None, batch_size=64, epochs=1,
                                 held_out=count - 64)
    worker.handle(command(small, tmp_path / "run", recipe=dataclasses.asdict(recipe)))
    model = backends.load("numpy").build(small, parameters.initialize(small, 3))
    split = images.hold_out(count - 64)
    assert load_run(tmp_path / "run").epochs == loop.train(model, split.train, split.test, recipe, 3).epochs


def test_a_batch_that_does_not_fit_is_answered_as_a_failure(worker, small, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    answer = worker.handle(command(small, tmp_path / "run"))
    assert answer["failed"] == "does not fit"
    assert "a batch of 8 does not fit" in answer["reason"]
    assert not (tmp_path / "run").exists()


def test_a_training_that_diverges_is_answered_as_a_failure(worker, small, tmp_path):
    recipe = dataclasses.asdict(dataclasses.replace(RECIPE, sgd=Sgd(1e38, weight_decay=1e38)))
    with np.errstate(all="ignore"):
        answer = worker.handle(command(small, tmp_path / "run", recipe=recipe))
    assert answer["failed"] == "diverged"
    assert "learning rate" in answer["reason"]


@pytest.mark.parametrize("is_named", [False, True])
def test_a_training_uses_the_resolved_settings_in_every_backend(worker, small, backend_name, is_named, tmp_path):
    framework = backends.load(backend_name)
    default = framework.precisions(framework.devices()[0].name)[0]
    speed = {"compile": False} if is_named and backend_name in ("torch", "tensorflow") else {}
    precision = default if is_named else None
    settings = {"backend": backend_name, "device": "auto", "precision": precision, "speed": speed}
    resolved = worker.handle({"do": "resolve", **settings})
    answer = worker.handle(command(small, tmp_path / "run", **settings))
    run = load_run(tmp_path / "run")
    assert resolved == {name: getattr(run.record, name) for name in ("device", "precision", "speed")}
    assert resolved["speed"] == speed
    assert [epoch.epoch for epoch in run.epochs] == [1, 2]
    assert (run.record.device == "cpu") is (answer["peak_device_memory_bytes"] is None)


def test_a_worker_process_is_interrupted_and_resumed(worker, small, tmp_path):
    recipe = dataclasses.asdict(dataclasses.replace(RECIPE, train_images=8000, augment=()))
    process = WorkerProcess(sys.executable, "alexnet_mf.sweep.worker")
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(process.ask, command(small, tmp_path / "run", recipe=recipe))
        lines = tmp_path / "run" / "metrics.jsonl"
        while not answer.done() and not (lines.exists() and lines.stat().st_size):
            time.sleep(0.05)
        process.interrupt()
        with pytest.raises(WorkerGone, match=r"stopped after .* steps"):
            answer.result()
    process.close()
    assert load_run(tmp_path / "run").state == "stopped"
    answer = worker.handle(command(small, tmp_path / "run"))
    run = load_run(tmp_path / "run")
    assert (run.state, len(run.record.resumed), len(run.epochs)) == ("finished", 1, 2)
    if sys.platform == "linux":
        assert 10**7 < answer["peak_memory_bytes"] < 10**10
