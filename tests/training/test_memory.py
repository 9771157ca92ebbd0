"""Batches that do not fit in memory: refused before training by arithmetic, or in a step by the framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_mf import spec
from alexnet_mf.backends.contract import Backend, Sgd
from alexnet_mf.data import synthetic
from alexnet_mf.errors import OutOfMemory
from alexnet_mf.spec import arithmetic, zoo
from alexnet_mf.training import loop, memory
from alexnet_mf.training.recipe import Recipe
from alexnet_mf.weights import parameters


def recipe(batch_size: int) -> Recipe:
    return Recipe("test", epochs=1, batch_size=batch_size, sgd=Sgd(0.01))


@pytest.fixture
def model(backend: Backend, small: spec.Network) -> Any:
    return backend.build(small, parameters.initialize(small, 0))


@pytest.fixture
def data() -> Any:
    return synthetic.draw(0, train=64, test=4)


def set_free_bytes(monkeypatch: pytest.MonkeyPatch, count: int | None) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: count)


def test_a_batch_that_cannot_fit_is_refused_before_the_first_step(model, data, monkeypatch, backend_name):
    """The limit is exact to the byte. The error names a batch size that fits, or states that none does."""
    assert model.item_bytes == (8 if backend_name == "numpy" else 4)
    needed = model.item_bytes * arithmetic.training_values(model.network, 64)
    set_free_bytes(monkeypatch, needed)
    assert loop.train(model, data.train, data.test, recipe(64)).epochs
    set_free_bytes(monkeypatch, needed - 1)
    monkeypatch.setattr(model, "trainer", None)  # no step is taken
    with pytest.raises(OutOfMemory, match=r"a batch of 64 does not fit: .* GB .* free; use `batch_size=(16|32)`"):
        loop.train(model, data.train, data.test, recipe(64))
    with pytest.raises(OutOfMemory, match="a batch of 64 does not fit"):  # all 64 images are one batch
        loop.train(model, data.train, data.test, recipe(1000))
    set_free_bytes(monkeypatch, 1000)
    with pytest.raises(OutOfMemory, match="not even a single image fits"):
        loop.train(model, data.train, data.test, recipe(64))


def test_the_named_batch_size_fits(model, monkeypatch):
    for free in range(10**6, 10**9, 10**7 + 1):
        set_free_bytes(monkeypatch, free)
        try:
            memory.check_fits(model.network, 10**6, model.item_bytes)
        except OutOfMemory as error:
            words = str(error).split()
            size = int(words[-2].strip("`").split("=")[1]) if "=" in words[-2] else 0
            if size:
                memory.check_fits(model.network, size, model.item_bytes)
                assert size & size - 1 == 0


@pytest.mark.parametrize("count, device", [(None, "cpu"), (1, "cuda:0")], ids=["unknown", "GPU"])
def test_no_batch_is_refused_if_free_memory_is_unknown(model, data, monkeypatch, count, device):
    set_free_bytes(monkeypatch, count)
    monkeypatch.setattr(model, "device", device)
    monkeypatch.setattr(model, "place", lambda *images: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # raised by `place`, after the check
        loop.train(model, data.train, data.test, recipe(64))


def test_free_memory_is_plausible():
    free = memory.free_bytes()
    if free is None:
        pytest.skip("this system does not report free memory")
    assert 10**7 < free < 10**14


def test_a_container_may_have_less_than_the_machine(monkeypatch):
    files = {"/proc/meminfo": "MemTotal: 99 kB\nMemAvailable:   4000 kB\n",
             "/sys/fs/cgroup/memory.max": "3000000\n", "/sys/fs/cgroup/memory.current": "1000000\n"}
    monkeypatch.setattr(memory, "_read", lambda path: files.get(path, ""))
    assert memory.free_bytes() == 2_000_000
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert memory.free_bytes() == 4_096_000
    files.clear()
    assert memory.free_bytes() is None


def test_a_step_that_runs_out_of_memory_names_a_size_that_fits(model, data, monkeypatch, backend_name):
    """Steps with more than ten images raise the framework's own error."""
    tried = []
    make_trainer = model.trainer

    def trainer(sgd: Sgd, seed: int) -> Any:
        limited_trainer = make_trainer(sgd, seed)
        step = limited_trainer.step

        def limited(data: Any, indices: np.ndarray, number: int, draws: None = None) -> None:
            tried.append(len(indices))
            if len(indices) > 10:
                raise make_framework_error(backend_name)
            step(data, indices, number)
        limited_trainer.step = limited
        return limited_trainer

    monkeypatch.setattr(model, "trainer", trainer)
    with pytest.raises(OutOfMemory, match="64 does not fit in the memory of cpu; use `batch_size=8`") as caught:
        loop.train(model, data.train, data.test, recipe(64))
    assert tried == [64, 32, 16, 8]
    assert caught.value.__context__ is None, "the framework's error would keep its tensors alive"
    assert caught.value.exit_code == 2


def make_framework_error(backend_name: str) -> Exception:
    """Return the framework's out-of-memory error on a CPU, as raised with a limited address space."""
    if backend_name == "torch":
        return RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
                            "you tried to allocate 1146617856 bytes. Error code 12 (Cannot allocate memory)")
    if backend_name == "tensorflow":
        import tensorflow as tf

        return tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[1024,54,54,96]")
    if backend_name == "mxnet":
        import mxnet as mx

        return mx.MXNetError("Failed to allocate CPU Memory")
    return MemoryError()


def test_other_errors_are_not_changed(model, data, monkeypatch):
    """PyTorch's and MXNet's out-of-memory errors are RuntimeErrors too."""
    def trainer(*arguments: Any) -> None:
        raise RuntimeError("something else")
    monkeypatch.setattr(model, "trainer", trainer)
    with pytest.raises(RuntimeError, match="something else"):
        loop.train(model, data.train, data.test, recipe(64))


def test_values_of_a_training_step_match_a_hand_count():
    """A step of AlexNet needs three values per parameter and two per pixel and layer output."""
    outputs = (96 * 54 * 54 + 96 * 26 * 26 + 256 * 26 * 26 + 256 * 12 * 12 + 2 * 384 * 12 * 12 + 256 * 12 * 12
               + 2 * 256 * 5 * 5 + 4 * 4096 + 10)
    assert arithmetic.training_values(zoo.ALEXNET, 128) == 3 * 46_764_746 + 2 * 128 * (224 * 224 + outputs)


def test_the_values_of_a_padded_copy_are_counted():
    """A padding that differs between the sides takes a copy of 3 x 5 x 7 values. Without it there are fewer outputs."""
    layers = spec.Flatten("flatten"), spec.Dense("fc2", units=2)
    copied, even = (arithmetic.training_values(spec.Network("net", (3, 4, 6), (
        spec.Conv2d("conv1", channels=2, kernel=2, padding=padding), *layers)), 10)
        for padding in (((0, 1), (0, 1)), 0))
    outputs = 2 * (4 * 6 - 3 * 5)
    assert copied - even == 3 * 2 * outputs + 2 * 10 * (2 * outputs + 3 * 5 * 7), "they are flattened"


SIX_TRAININGS = """
import json, os, sys
import alexnet_mf
from alexnet_mf import spec
from alexnet_mf.backends import allocator
from alexnet_mf.spec.layers import Dense, Flatten
allocator.keep_large_blocks = lambda: True  # what glibc keeps for the next step is not what a training leaves
network = spec.Network("wide", (1, 28, 28), (
    Flatten("flatten"), Dense("fc1", units=4000, activation="relu"), Dense("fc2", units=10)))
sizes = []
for number in range(6):
    alexnet_mf.train(network, sys.argv[1], data="synthetic", train_images=8, test_images=4, batch_size=4, epochs=1,
                     momentum=0.9, progress=False, out=os.path.join(sys.argv[2], str(number)))
    with open("/proc/self/statm") as file:
        sizes.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
print(json.dumps(sizes))
"""


def test_a_finished_training_leaves_nothing_in_memory(backend_name: str, tmp_path: Path) -> None:
    """A process is as large after six trainings as after two, without a call of `gc.collect`.

    Each training needs 38 MB (parameters, momentum and gradients); the heap alone varies by as much.
    """
    done = subprocess.run([sys.executable, "-c", SIX_TRAININGS, backend_name, str(tmp_path)], capture_output=True,
                          text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    sizes = json.loads(done.stdout.splitlines()[-1])
    assert sizes[-1] - sizes[1] < 2 * 38e6, sizes
