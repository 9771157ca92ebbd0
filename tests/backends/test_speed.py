"""Speed settings and precisions change a backend's speed, not its function; timed phases do what their names say."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import re
import shutil
import sys
import weakref
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from alexnet_mf import backends, data
from alexnet_mf.backends import randomness
from alexnet_mf.backends.contract import Backend, Device, Sgd, TrainerState, find_device
from alexnet_mf.backends.execution import SPEED_SETTINGS, Execution, Setting
from alexnet_mf.errors import BackendUnavailable
from alexnet_mf.parity.case import Case, random_case
from alexnet_mf.parity.reference import make_reference
from alexnet_mf.parity.run import answer, compare
from alexnet_mf.spec import Network, zoo
from alexnet_mf.weights import parameters

NETWORK_PHASES = {"input", "forward", "forward_backward", "optimizer", "step"}


def load_settings(name: str) -> dict[str, dict[str, Setting]]:
    """Return a framework's speed settings by device type; the reference has none."""
    if name == "numpy":
        return {"cpu": {}}
    settings: dict[str, dict[str, Setting]] = importlib.import_module(f"alexnet_mf.backends.{name}.speed").SPEED
    return settings


def case_of(network: Network) -> Case:
    return random_case(network, seed=0, count=16, batch=2, steps=3)


@pytest.fixture
def model(backend: Backend, small: Network) -> Any:
    return backend.build(small, parameters.initialize(small, 0, random_biases=True))


# Speed settings


def test_every_setting_has_a_reason(backend_name):
    for device, settings in load_settings(backend_name).items():
        assert device in ("cpu", "cuda", "mps")
        assert set(settings) <= set(SPEED_SETTINGS)
        for name, setting in settings.items():
            is_unmeasurable = (backend_name, device) == ("tensorflow", "cuda")  # always a tf.function
            unmeasured = "|not measured" if is_unmeasurable or not setting.on else ""
            assert re.search(r"\d\.\d+x|no difference seen" + unmeasured, setting.reason), f"{device}: {name}"


@pytest.mark.parametrize("backend_name", backends.FRAMEWORKS, indirect=True)
def test_every_speed_setting_passes_the_ladder(backend_name, backend, small):
    """The ladder is green with the defaults, with each setting reversed, with all settings and with none."""
    right = make_reference(case_of(small))
    settings = dict(load_settings(backend_name)["cpu"])
    if backend_name == "torch" and shutil.which(os.environ.get("CXX", "g++")) is None:
        del settings["compile"]  # needs a C++ compiler
    on = {name for name, setting in settings.items() if setting.on}
    for wanted in (on, *(on ^ {name} for name in settings), set(settings), set()):
        speed = {name: name in wanted for name in on ^ wanted}
        trace = answer(backend, right.case, execution=Execution(speed=speed))
        assert trace.meta["settings"]["speed"] == speed
        report = compare([trace], reference=right)
        assert report.holds, (wanted, report.diagnoses)


@pytest.mark.parametrize("backend_name", ["torch"], indirect=True)
def test_each_setting_does_what_its_name_says(backend, small, monkeypatch):
    import torch

    def build(**speed: bool) -> Any:
        return backend.build(small, parameters.initialize(small, 0), execution=Execution(speed=speed))

    def convolution_layout(infer: Any) -> bool:
        """Return True if the weights of conv2 are in channels_last layout."""
        seen = []
        call = torch.nn.Conv2d.forward
        monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda self, x: seen.append(
            self.weight.is_contiguous(memory_format=torch.channels_last) and not self.weight.is_contiguous())
            or call(self, x))
        infer()
        return seen[1]  # with one input channel, as in conv1, both layouts are the same

    images, labels = np.zeros((4, 28, 28), np.uint8), np.zeros(4, np.int64)
    def layouts(model: Any) -> tuple[bool, bool]:
        """Return whether inference and training use channels_last."""
        data = model.place(images, labels)
        return convolution_layout(lambda: model.logits(data, 4)), convolution_layout(lambda: model.gradients(data))

    assert layouts(build()) == (True, True)
    assert layouts(build(layout=False)) == (False, False)
    assert build(fused=True).trainer(Sgd(0.1), 0).update.options["fused"] is True
    assert not build().trainer(Sgd(0.1), 0).update.options["fused"]
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda net, **options: compiled.append(options) or net)
    build()
    assert not compiled
    build(compile=True)
    assert [options["dynamic"] for options in compiled] == [False]
    assert type(build(fold=True).net.conv1).__name__ == "FoldedConv2d"
    assert type(build().net.conv1).__name__ == "Conv2d"
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendUnavailable, match=r"needs a C\+\+ compiler.*`compile=True`"):
        build(compile=True)


@pytest.mark.parametrize("backend_name", ["torch"], indirect=True)
def test_readings_of_many_steps_share_one_block_of_memory(backend):
    """One tensor for each step would fragment the memory that the steps free (see `Readings`)."""
    import torch

    from alexnet_mf.backends.torch.trainer import Readings

    readings = Readings(torch.device("cpu"), room=2)
    blocks = set()
    for taken in (5, 0, 1):
        for step in range(taken):
            readings.add(torch.tensor(step / 2), torch.tensor(step))
            blocks.add(readings._losses.untyped_storage().data_ptr())
        metrics = readings.take()
        assert metrics.losses.dtype == np.float64
        assert_array_equal(metrics.losses, np.arange(taken) / 2)
        assert_array_equal(metrics.correct, np.arange(taken))
    assert len(blocks) <= 3, "one each for 2, 4 and 8 steps"


@pytest.mark.parametrize("backend_name", ["torch"], indirect=True)
@pytest.mark.parametrize("change, channels, kernel, stride, padding, groups, height, width", [
    ("fold", 1, 11, 4, 1, 1, 224, 224), ("fold", 1, 11, 4, 0, 1, 224, 224), ("fold", 3, 11, 4, 2, 1, 224, 224),
    ("fold", 3, 11, 4, 0, 1, 227, 227), ("fold", 1, 3, 2, (2, 0), 1, 10, 9),
    ("fold", 2, 4, 2, 0, 1, 9, 11), ("fold", 1, 3, 3, 2, 1, 10, 17),
    ("keep_to_ieee", 4, 5, 1, 2, 1, 9, 7), ("keep_to_ieee", 4, 5, 1, (1, 3), 2, 9, 7)])
def test_folded_and_ieee_convolutions_equal_the_plain_one(backend, change, channels, kernel, stride, padding, groups,
                                                          height, width):
    import torch

    from alexnet_mf.backends.torch import layers

    torch.manual_seed(0)
    plain, other = (torch.nn.Conv2d(channels, 8, kernel, stride, padding, groups=groups).double() for _ in range(2))
    other.load_state_dict(plain.state_dict())
    getattr(layers, change)(torch.nn.Sequential(other))
    assert type(other).__name__ == {"fold": "FoldedConv2d", "keep_to_ieee": "IeeeConv2d"}[change]
    images, results = torch.randn(2, channels, height, width, dtype=torch.float64), []
    for convolution in (plain, other):
        inputs = images.clone().requires_grad_()
        outputs = convolution(inputs)
        outputs.sin().sum().backward()
        results.append([outputs, inputs.grad, convolution.weight.grad, convolution.bias.grad])
    for right, value, atol in zip(*results, (1e-13, 1e-12, 1e-12, 1e-12)):
        torch.testing.assert_close(value, right, rtol=1e-12, atol=atol)


@pytest.mark.parametrize("backend_name", ["torch"], indirect=True)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("layout", [False, True])
def test_a_run_resumes_bit_for_bit_with_each_optimizer_and_layout(backend, small, fused, layout):
    """A fused update reads weights and momentum by position, so both need the same memory layout."""
    how = Execution(speed={"fused": fused, "layout": layout})
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28), np.uint8)

    def train(steps: range, state: TrainerState | None) -> TrainerState:
        model = backend.build(small, parameters.initialize(small, 0), execution=how)
        trainer, data = model.trainer(Sgd(0.1, 0.9), 7), model.place(images, np.arange(8) % 10)
        if state is not None:
            trainer.load_state(state)
        for number in steps:
            trainer.step(data, np.arange(number, number + 4), number)
        return trainer.export_state()

    ends = [train(range(4), None), train(range(2, 4), train(range(2), None))]
    for part in ("parameters", "velocity"):
        for name, value in getattr(ends[0], part).items():
            assert_array_equal(value, getattr(ends[1], part)[name], err_msg=f"{part} {name}")


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="PyTorch's own modules are in cycles there")
@pytest.mark.parametrize("backend_name", ["torch"], indirect=True)
def test_a_finished_training_needs_no_garbage_collector(backend, small):
    """Python's collector counts objects, and would run long after a GPU's memory is full."""
    gc.collect()
    gc.disable()
    try:
        model = backend.build(small, parameters.initialize(small, 0))
        data, trainer = model.place(np.zeros((4, 28, 28), np.uint8), np.zeros(4, np.int64)), model.trainer(Sgd(0.1), 7)
        trainer.step(data, np.arange(4), 0)
        model.logits(data, 4)
        left = [weakref.ref(each) for each in (model, model.net, trainer, data, data.inputs)]
        del model, trainer, data
        assert [ref() is None for ref in left] == [True] * 5
    finally:
        gc.enable()


def test_the_ceiling_multiplies_random_numbers(backend, monkeypatch):
    """Constant operands would overstate a GPU's speed on real data."""
    module = importlib.import_module(f"alexnet_mf.backends.{backend.name}.backend")
    asked = []
    monkeypatch.setattr(module, "random_matrices", lambda size: asked.append(size) or randomness.random_matrices(64))
    monkeypatch.setattr(module, "random_bytes", lambda count: asked.append(count) or randomness.random_bytes(64))
    backend.ceilings("cpu", Execution())
    assert len(asked) == 2 and min(asked) > 1000
    first, second = randomness.random_matrices(64)
    assert abs(first.std() - 1) < 0.05 and not np.array_equal(first, second)
    assert len(np.unique(randomness.random_bytes(10_000))) == 256


@pytest.mark.parametrize("backend_name", ["torch", "tensorflow", "mxnet"], indirect=True)
def test_bfloat16_is_green_in_its_own_tier_and_red_in_float32(backend, small):
    if "bfloat16" not in backend.precisions("cpu"):
        pytest.skip(f"{backend.name} has no bfloat16 on this processor")
    right = make_reference(case_of(small))
    trace = answer(backend, right.case, execution=Execution("bfloat16"))
    assert trace.meta["settings"]["precision"] == "bfloat16"
    report = compare([trace], "bfloat16", right)
    assert report.holds, report.diagnoses
    assert not compare([trace], "float32", right).holds
    assert parameters.digest(backend.build(small, right.case.parameters(), execution=Execution("bfloat16")).export()) \
        == parameters.digest(right.case.parameters()), "the weights stay float32"


def test_unavailable_precisions_and_settings_are_errors(backend, small):
    values = parameters.initialize(small, 0)
    precisions = ", ".join(backend.precisions("cpu"))
    with pytest.raises(BackendUnavailable, match=f"no precision tf32 on cpu; available: {precisions}"):
        backend.build(small, values, execution=Execution("tf32"))
    for on in (False, True):
        with pytest.raises(BackendUnavailable, match="no setting 'magic' on cpu; available: "):
            backend.build(small, values, execution=Execution(speed={"magic": on}))


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("backend_name", ["torch"], indirect=True)
def test_a_prepared_batch_size_compiles_nothing_more(backend, small):
    """The preparation leaves the weights unchanged."""
    import torch
    from torch._dynamo.utils import counters

    drawn = data.synthetic.draw(0, train=24, test=1).train
    weights = {}
    for prepares in (True, False):
        torch._dynamo.reset()  # else the second model would reuse the first one's code
        model = backend.build(small, parameters.initialize(small, 0), "cpu", Execution(speed={"compile": True}))
        images = model.place(drawn.images, drawn.labels)
        trainer = model.trainer(Sgd(0.05, momentum=0.9), 3)
        trainer.step(images, np.arange(16), 0)
        if prepares:
            trainer.prepare(images, 8)
        graphs = counters["stats"]["unique_graphs"]
        trainer.step(images, np.arange(16, 24), 1)
        trainer.step(images, np.arange(16), 2)
        assert (counters["stats"]["unique_graphs"] == graphs) is prepares
        weights[prepares] = parameters.digest(model.export())
    assert weights[True] == weights[False]


@pytest.mark.parametrize("backend_name", ["torch"], indirect=True)
def test_an_apple_gpu_supports_float32_alone(backend, small, monkeypatch):
    """PyTorch's MPS functions are replaced, so that the test needs no GPU."""
    import torch

    from alexnet_mf.backends.torch.trainer import seed_dropout

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendUnavailable, match="no device 'mps' here; available: cpu"):
        find_device(backend, "mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert [device.name for device in backend.devices()] == ["mps", "cpu"]
    assert find_device(backend, "auto") == "mps"
    values = parameters.initialize(small, 0)
    with pytest.raises(BackendUnavailable, match="no precision bfloat16 on mps; available: float32"):
        backend.build(small, values, "mps", Execution("bfloat16"))
    with pytest.raises(BackendUnavailable, match="no setting 'compile' on mps; available: spin"):
        backend.build(small, values, "mps", Execution(speed={"compile": True}))
    seeds = []
    monkeypatch.setattr(torch.mps, "manual_seed", seeds.append)
    seed_dropout(torch.device("mps"), 7)
    assert seeds == [7]
    monkeypatch.setattr(torch.mps, "synchronize", lambda: seeds.append("waited"))
    backend.synchronize("mps")
    assert seeds == [7, "waited"] and backend.peak_memory("mps") is None
    model = backend.build(small, values)
    assert model.out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
    assert not model.out_of_memory(RuntimeError("something else"))


# Timed phases


def test_only_the_phases_optimizer_and_step_change_parameters(model, small):
    """Phases may run any number of times, in any order."""
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    data = model.place(images, np.arange(6) % 10)
    phases = model.phases(data, np.arange(4), Sgd(0.1), seed=0)
    assert set(phases) == NETWORK_PHASES
    before = parameters.digest(model.export())
    for name in ("input", "forward", "forward_backward", "forward", "forward_backward", "input"):
        for number in range(2):
            phases[name](number)
        model.synchronize()
        assert parameters.digest(model.export()) == before, name
    for name in ("optimizer", "optimizer", "step", "optimizer", "step"):  # even twice from the same gradients
        phases[name](0)
        model.synchronize()
        assert parameters.digest(model.export()) != before, name
        before = parameters.digest(model.export())


def test_the_phase_optimizer_needs_no_step_before(model):
    data, before = model.place(np.zeros((6, 28, 28), np.uint8), np.arange(6) % 10), parameters.digest(model.export())
    model.phases(data, np.arange(4), Sgd(0.1), seed=0)["optimizer"](0)
    model.synchronize()
    assert parameters.digest(model.export()) != before


def test_the_timed_step_equals_the_trainers_step(backend, small):
    values = parameters.initialize(small, 0, random_biases=True)
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    ends = []
    for timed in (True, False):
        model = backend.build(small, values)
        data, indices = model.place(images, np.arange(6) % 10), np.array([3, 1, 5, 0])
        step = (model.phases(data, indices, Sgd(0.1), 7)["step"] if timed
                else functools.partial(model.trainer(Sgd(0.1), 7).step, data, indices))
        for number in range(2):
            step(number)
        model.synchronize()
        ends.append(parameters.digest(model.export()))
    assert ends[0] == ends[1]


@pytest.mark.exhaustive
def test_every_backend_measures_its_ceilings(backend):
    ceilings = backend.ceilings("cpu", Execution())
    assert set(ceilings) == {"matrix product", "copy"}
    for ceiling in ceilings.values():
        assert ceiling.amount > 1e6
        ceiling.call()
    backend.synchronize("cpu")
    assert backend.peak_memory("cpu") is None


@pytest.mark.exhaustive
def test_the_books_own_code_runs_on_a_batch(backend):
    calls = backend.book("cpu", 2)
    if backend.name == "numpy":
        assert calls == {}
        return
    assert set(calls) == {"forward", "step"}
    for call in calls.values():
        call()
        call()
    backend.synchronize("cpu")
    if backend.name == "mxnet":
        npx = importlib.import_module("mxnet").npx
        assert npx.is_np_array(), "the tab uses NumPy semantics"
        npx.reset_np()


@pytest.mark.parametrize("before, value", [(None, "0"), ("1", "1")])
def test_mxnets_gpu_build_is_kept_from_tf32(monkeypatch, requires, before, value):
    """MXNet has no switch for TF32. A user's own NVIDIA_TF32 stays, and `build` then refuses a GPU."""
    requires("mxnet")
    compat = importlib.import_module("alexnet_mf.backends.mxnet.compat")
    monkeypatch.setattr(compat, "_has", lambda package: True)
    monkeypatch.setattr(compat, "_load_cuda", lambda: None)
    monkeypatch.setenv(compat.TF32, before or "")
    if before is None:
        monkeypatch.delenv(compat.TF32)  # and restores it after the test
    compat.prepare()
    assert os.environ[compat.TF32] == value
    backend = backends.load("mxnet")
    monkeypatch.setattr(backend, "devices", lambda: [Device("cuda:0"), Device("cpu")])
    message = "no precision tf32 on cuda:0" if value == "0" else "unset NVIDIA_TF32"
    with pytest.raises(BackendUnavailable, match=message):
        backend.build(zoo.LENET5, {}, "cuda:0", Execution("tf32"))
