"""PyTorch on a GPU: a step replayed as a CUDA graph equals the step itself, whatever runs in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from alexnet_mf import backends
from alexnet_mf.backends.contract import Backend, Sgd, TrainerState
from alexnet_mf.backends.execution import Execution
from alexnet_mf.data.augmentation import draw
from alexnet_mf.parity.case import random_case
from alexnet_mf.parity.reference import make_reference
from alexnet_mf.parity.run import answer, compare
from alexnet_mf.parity.tolerances import relative_l2
from alexnet_mf.spec import Network
from alexnet_mf.weights import parameters

SGD = Sgd(0.05, 0.9, 1e-4)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
LABELS = np.arange(40) % 10
BATCHES = [np.arange(start, start + size) for start, size in (
    (0, 16), (16, 16), (32, 8), (8, 16), (20, 8), (3, 16), (12, 8), (24, 16))]
"""Image indices, with the short batches that end an epoch. A size is recorded at its second step, then replayed."""
ROUNDING = 1e-4


@pytest.fixture
def torch_on_cuda(request: pytest.FixtureRequest) -> Iterator[Backend]:
    request.getfixturevalue("requires")("torch")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield backends.load("torch")
    torch.cuda.empty_cache()


def build(backend: Backend, network: Network, **speed: bool) -> Any:
    return backend.build(network, parameters.initialize(network, 0), "cuda:0", Execution(speed=speed))


def train(model: Any, steps: range, state: TrainerState | None = None, augment: tuple[str, ...] = (),
          trainer: Any = None) -> tuple[TrainerState, NDArray[Any]]:
    """Return the state after these steps, and their losses."""
    trainer, data = trainer or model.trainer(SGD, 7), model.place(IMAGES, LABELS)
    if state is not None:
        trainer.load_state(state)
    for number in steps:
        draws = draw(augment, 7, number, len(BATCHES[number]), (1, *IMAGES.shape[1:]))
        trainer.step(data, BATCHES[number], number, draws)
    return trainer.export_state(), trainer.read().losses


def assert_same(actual: TrainerState, right: TrainerState, tolerance: float = ROUNDING) -> None:
    for part in ("parameters", "velocity"):
        for name, value in getattr(right, part).items():
            error = relative_l2(getattr(actual, part)[name], value)
            assert error <= tolerance, f"{part} {name}: {error:.1e}"


@pytest.mark.parametrize("augment", [(), ("flip", "crop")])
def test_a_replayed_step_equals_the_step(torch_on_cuda, small, augment):
    """A replay uses the dropout masks and the augmentation of its own step number."""
    right, losses = train(build(torch_on_cuda, small, graph=False), range(8), augment=augment)
    state, replayed = train(build(torch_on_cuda, small), range(8), augment=augment)
    assert_same(state, right)
    np.testing.assert_allclose(replayed, losses, rtol=ROUNDING)


def test_dropout_follows_the_steps_number_in_a_replay(torch_on_cuda, small):
    """The masks of another step lead to other weights."""
    model = build(torch_on_cuda, small)
    right, _ = train(model, range(8))
    trainer, data = build(torch_on_cuda, small).trainer(SGD, 7), model.place(IMAGES, LABELS)
    for number in range(8):
        trainer.step(data, BATCHES[number], number + (number == 5))
    other = trainer.export_state()
    assert relative_l2(other.parameters["fc4.weight"], right.parameters["fc4.weight"]) > 10 * ROUNDING


@pytest.mark.parametrize("has_graphs", [False, True])
def test_a_stopped_run_resumes(torch_on_cuda, small, has_graphs):
    """A trainer with recorded graphs reads weights and velocity at fixed addresses, and must resume like a new one."""
    right, _ = train(build(torch_on_cuda, small), range(8))
    state, _ = train(build(torch_on_cuda, small), range(4))
    model = build(torch_on_cuda, small)
    trainer = model.trainer(SGD, 7)
    if has_graphs:
        train(model, range(8), trainer=trainer)
    resumed, _ = train(model, range(4, 8), state, trainer=trainer)
    assert_same(resumed, right)


@pytest.mark.parametrize("fused", [False, True])
def test_a_recorded_step_takes_a_new_learning_rate(torch_on_cuda, small, fused):
    ends = []
    for graph in (False, True):
        model = build(torch_on_cuda, small, graph=graph, fused=fused)
        trainer = model.trainer(SGD, 7)
        train(model, range(4), trainer=trainer)
        trainer.set_rate(0.5)
        ends.append(train(model, range(4, 8), trainer=trainer)[0])
    assert_same(ends[1], ends[0])
    unchanged, _ = train(build(torch_on_cuda, small, fused=fused), range(8))
    assert relative_l2(unchanged.parameters["fc4.weight"], ends[1].parameters["fc4.weight"]) > 10 * ROUNDING


def test_inference_and_training_share_memory_without_interference(torch_on_cuda, small):
    """Evaluations in batches of two sizes run between steps of two sizes."""
    ends = []
    for graph in (False, True):
        model = build(torch_on_cuda, small, graph=graph)
        trainer, data, logits = model.trainer(SGD, 7), model.place(IMAGES, LABELS), []
        for number, batch in enumerate(BATCHES):
            trainer.step(data, batch, number)
            logits.append(model.logits(data, 16))
        ends.append((trainer.export_state(), np.stack(logits), trainer.read().losses))
    assert_same(ends[1][0], ends[0][0])
    np.testing.assert_allclose(ends[1][1], ends[0][1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ends[1][2], ends[0][2], rtol=ROUNDING)


def test_a_second_batch_size_and_a_second_trainer_cost_little(torch_on_cuda, small):
    """All graphs of a model share their memory, and a finished training releases its own."""
    import torch

    from alexnet_mf.spec.toml import find_network

    def reserved() -> int:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    train(build(torch_on_cuda, small), range(3))  # allocates what cuBLAS keeps
    before = reserved()
    network = find_network("alexnet-28")
    images = np.random.default_rng(0).integers(0, 256, (1024, 28, 28), np.uint8)
    model = torch_on_cuda.build(network, parameters.initialize(network, 0), "cuda:0")
    data, trainer = model.place(images, np.arange(1024) % 10), model.trainer(SGD, 7)
    for number in range(2):  # the second one is recorded
        trainer.step(data, np.arange(1024), number)
    one = reserved() - before
    second = model.trainer(SGD, 8)
    for number in range(2):
        trainer.step(data, np.arange(896), 2 + number)
        model.logits(data, 1024)
        second.step(data, np.arange(1024), number)
    weights = 4 * sum(value.size for value in model.export().values())
    assert reserved() - before < 1.2 * one + weights, "the second trainer has a velocity of its own"
    del model, data, trainer, second
    assert reserved() - before < 2**25


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_the_ladder_is_green_with_default_settings(torch_on_cuda, small, precision):
    right = make_reference(random_case(small, seed=0, count=16, batch=2, steps=3))
    trace = answer(torch_on_cuda, right.case, "cuda:0", execution=Execution(precision))
    report = compare([trace], precision, right)
    assert report.holds, report.diagnoses


def test_cudnn_times_algorithms_only_with_autotune(torch_on_cuda, small):
    import torch

    for on in (True, False):
        build(torch_on_cuda, small, autotune=on)
        assert torch.backends.cudnn.benchmark is on


def test_a_batch_that_does_not_fit_is_recognized(torch_on_cuda, small):
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    images = np.zeros((40_000, 28, 28), np.uint8)
    model = build(torch_on_cuda, small)
    data, trainer = model.place(images, np.zeros(40_000, np.int64)), model.trainer(SGD, 7)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError) as caught:
            trainer.step(data, np.arange(40_000), 0)
        assert model.out_of_memory(caught.value)
        trainer.step(data, np.arange(64), 0)
        assert np.isfinite(trainer.read().losses).all()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("n, channels, side, out, groups", [
    (8, 64, 27, 192, 1), (128, 64, 26, 192, 1), (128, 96, 26, 256, 1), (8, 96, 27, 256, 2)])
def test_the_weight_gradient_of_5x5_kernels_is_exact_to_float32(torch_on_cuda, n, channels, side, out, groups):
    """cuDNN's own gradient has an error of 1e-3 in most of these cases."""
    import torch

    from alexnet_mf.backends.torch.layers import keep_to_ieee

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(channels, out, 5, padding=2, groups=groups)).cuda()
    net.to(memory_format=torch.channels_last)
    keep_to_ieee(net)
    assert type(net[0]).__name__ == "IeeeConv2d"
    x = torch.randn(n, channels, side, side, device="cuda").relu().to(memory_format=torch.channels_last)
    gradient = torch.randn(n, out, side, side, device="cuda").to(memory_format=torch.channels_last)
    net(x).backward(gradient)
    right = torch.zeros_like(net[0].weight, dtype=torch.float64)
    for start in range(0, n, 8):
        right += torch.nn.grad.conv2d_weight(x[start:start + 8].double(), right.shape,
                                             gradient[start:start + 8].double(), 1, 2, 1, groups)
    assert relative_l2(net[0].weight.grad.cpu().numpy(), right.cpu().numpy()) < 2e-5
