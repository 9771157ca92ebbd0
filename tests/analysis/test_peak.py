"""The predicted memory peak, checked by hand and against PyTorch's live tensors in a real training step.

The tensors are counted on a CPU after each operation, as a GPU's allocator would be read. A GPU differs in workspaces
(the prediction omits them), in rounding to 512 bytes, and in dropout masks (four bytes per value on a CPU).
"""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sizes import narrower

from alexnet_mf import backends
from alexnet_mf.analysis.costs import MASK_BYTES, costs
from alexnet_mf.analysis.peak import predicted_peak
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.layers import AvgPool2d, BatchNorm, Conv2d, Dense, Dropout, Flatten, MaxPool2d, Normalize
from alexnet_mf.weights import parameters

TOLERANCE = 0.002


def test_the_peak_matches_a_hand_count():
    """fc1 has 6 inputs and 4 units, fc2 has 3 units; the batch has two images; a number takes one byte."""
    network = Network("hand", (1, 2, 3), (Flatten("flatten"), Dense("fc1", units=4, activation="relu"),
                                          Dense("fc2", units=3)))
    weights = (6 * 4 + 4) + (4 * 3 + 3)
    pixels, hidden, logits = 2 * 6, 2 * 4, 2 * 3
    peak = predicted_peak(costs(network, 2, 1, momentum=True))
    assert peak.bytes == 3 * weights + pixels + hidden + logits, "the gradient of fc1's output, and the caller's logits"
    assert peak.moment == "the gradients of fc1"


def test_the_backward_peak_matches_a_hand_count():
    """A 1x1 convolution of two channels is pooled. The backward pass holds the gradients on both sides of the ReLU in
    addition to the activations."""
    network = Network("hand", (1, 8, 8), (Conv2d("conv1", channels=2, kernel=1), MaxPool2d("pool1", 2, 2),
                                          Flatten("flatten"), Dense("fc2", units=2)))
    n = 5
    conv, dense = 2 + 2, 2 * 32 + 2
    pixels, output, pooled, indices, logits = n * 64, n * 128, n * 32, n * 32 * 8, n * 2
    peak = predicted_peak(costs(network, n, 1))
    backward_of_pool = (conv + dense) + pixels + (output + pooled + indices + logits) - pooled + dense + pooled + output
    backward_of_relu = (conv + dense) + pixels + output + logits + dense + output + output
    assert backward_of_pool > backward_of_relu
    assert (peak.bytes, peak.moment) == (backward_of_pool, "the gradients of pool1")


NORMALIZED = Network("normalized", (3, 64, 64), (
    Normalize("normalize", (0.5, 0.4, 0.3), (0.2, 0.2, 0.3)), AvgPool2d("pool0", 8, 8),
    Conv2d("conv1", channels=2, kernel=3), Flatten("flatten"), Dense("fc2", units=2)))


def test_the_normalization_peak_matches_a_hand_count():
    """Three copies of the pixels exist at once: as read, minus the mean, and divided. Pooling frees the last copy."""
    weights, pixels = (2 * 27 + 2) + (2 * 72 + 2), 5 * 3 * 64 * 64
    peak = predicted_peak(costs(NORMALIZED, 5, 1))
    assert peak.moment == "the output of normalize"
    assert peak.bytes == weights + 3 * pixels


def test_momentum_adds_one_value_per_parameter():
    peaks = [predicted_peak(costs(zoo.ALEXNET, 1, momentum=momentum)).bytes for momentum in (False, True)]
    assert peaks[1] - peaks[0] == 4 * 46_764_746


# PyTorch's own tensors


@pytest.fixture
def torch_backend(requires):
    requires("torch")
    return backends.load("torch")


def live_tensors() -> Any:
    """Return a dispatch mode that counts the bytes of all live tensors that operations have made."""
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Live(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.storages: dict[int, tuple[Any, int]] = {}

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            inputs = {id(leaf) for leaf in tree_leaves((args, kwargs))}
            input_storages = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs))
                              if hasattr(leaf, "untyped_storage")}
            result = function(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if hasattr(leaf, "untyped_storage") and id(leaf) not in inputs:
                    storage = leaf.untyped_storage()
                    if storage._cdata not in input_storages:
                        self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
            return result

        def bytes(self) -> int:
            self.storages = {key: entry for key, entry in self.storages.items() if not entry[0].expired()}
            return sum(size for _, size in self.storages.values())

    return Live()


def count_peak(backend: Any, network: Network, batch_size: int, momentum: float, model: Any = None) -> int:
    """Return the peak bytes of a training step, read from live tensors instead of a GPU's allocator."""
    from alexnet_mf.backends.torch import allocations

    model = model or backend.build(network, parameters.initialize(network, 0), "cpu")
    drawn = np.random.default_rng(0).random((batch_size, *network.input), np.float32)
    placed = model.place(drawn, np.arange(batch_size) % network.classes)
    trainer, rows = model.trainer(Sgd(2.0**-20, momentum), 0), np.arange(batch_size)
    gc.collect()
    with live_tensors() as live:
        return allocations.step_memory(lambda number: trainer.step(placed, rows, number),
                                       sum(value.nbytes for value in model.export().values()), live.bytes, lambda: None)


LARGE = [("alexnet", 2, 0.0), ("alexnet", 16, 0.9), ("alexnet-2012", 8, 0.0), ("alexnet-owt", 2, 0.9)]


@pytest.mark.parametrize("name, batch_size, momentum, narrow", [
    *((*case, True) for case in LARGE), *(pytest.param(*case, False, marks=pytest.mark.exhaustive) for case in LARGE),
    ("lenet5", 64, 0.9, False), ("lenet5-bn", 64, 0.9, False), ("alexnet-28", 16, 0.0, False)])
def test_the_prediction_matches_pytorchs_tensors(torch_backend, name, batch_size, momentum, narrow):
    """Some cases have their peak at the end of the forward pass, others in the backward pass."""
    network = narrower(zoo.get_network(name)) if narrow else zoo.get_network(name)
    predicted = predicted_peak(costs(network, batch_size, momentum=momentum > 0)).bytes
    assert count_peak(torch_backend, network, batch_size, momentum) == pytest.approx(predicted, rel=TOLERANCE)


class NoKernel:
    """Replacement for a Triton kernel. Memory does not depend on the computed values."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments: None


@pytest.mark.parametrize("speed, ieee, moment", [
    ({"fold"}, False, "the gradients of conv2"), ({"pool"}, False, "the gradients of pool1"),
    ({"fold", "pool"}, False, "the folded input of conv1"), ({"pool"}, True, "the gradients of conv2")])
def test_the_prediction_matches_the_tensors_of_gpu_kernels(torch_backend, monkeypatch, speed, ieee, moment):
    pytest.importorskip("triton", reason="PyTorch includes Triton on Linux only")
    from alexnet_mf.backends.torch import pooling
    from alexnet_mf.backends.torch.backend import TorchModel
    from alexnet_mf.backends.torch.layers import keep_to_ieee

    for name in ("_forward", "_backward", "_bias_gradient"):
        monkeypatch.setattr(pooling, name, NoKernel())
    network = narrower(zoo.ALEXNET)
    model = TorchModel(network, parameters.initialize(network, 0), "cpu", frozenset({*speed, "layout"}))
    if ieee:  # as on a GPU in float32
        keep_to_ieee(model.net)
    assert model.kernels() == {name: kernels for name, kernels in (
        ("conv1", sorted(speed)), ("conv2", ["ieee"] * ieee + ["pool"] * ("pool" in speed)),
        ("conv5", ["pool"] * ("pool" in speed))) if kernels}
    peak = predicted_peak(costs(network, 8), model.kernels())
    assert peak.moment == moment
    assert count_peak(torch_backend, network, 8, 0.0, model) == pytest.approx(peak.bytes, rel=TOLERANCE)


@pytest.mark.parametrize("pool, channels", [(8, 2), (2, 16), (None, 2)])
def test_normalized_pixels_are_kept_only_for_a_convolution(torch_backend, pool, channels):
    """Pixels that are pooled first are not kept. The peak comes after the normalization."""
    before = (NORMALIZED.layers[0], *([AvgPool2d("pool0", pool, pool)] if pool else []))
    network = Network("normalized", NORMALIZED.input, (
        *before, Conv2d("conv1", channels, kernel=3), Flatten("flatten"), Dense("fc2", units=2)))
    predicted = predicted_peak(costs(network, 8)).bytes
    assert count_peak(torch_backend, network, 8, 0.0) == pytest.approx(predicted, rel=TOLERANCE)


@pytest.mark.parametrize("activation", [
    {"activation": "tanh"}, {"activation": "elu"}, {"activation": "leaky_relu", "alpha": 0.1}, {"activation": "gelu"},
    {"activation": "gelu_tanh"}], ids=str)
@pytest.mark.parametrize("between", [[MaxPool2d("pool1", 2, 2)], [Dropout("drop1", rate=0)], []], ids=len)
def test_the_prediction_covers_every_activation(torch_backend, activation, between):
    """A GELU keeps its input, the other activations their output."""
    network = Network("curves", (1, 32, 32), (
        Conv2d("conv1", 8, kernel=3, padding=1, **activation), *between, Conv2d("conv2", 8, kernel=3, **activation),
        Flatten("flatten"), Dense("fc3", units=16, **activation), Dense("fc4", units=10)))
    predicted = predicted_peak(costs(network, 16)).bytes
    assert count_peak(torch_backend, network, 16, 0.0) == pytest.approx(predicted, rel=TOLERANCE)


@pytest.mark.parametrize("activation", [{}, {"activation": "relu"}, {"activation": "gelu"}], ids=str)
@pytest.mark.parametrize("layers", [
    (Conv2d("conv1", 8, kernel=3, activation=None, bias=False), BatchNorm("bn1"), Conv2d("conv2", 8, kernel=3)),
    (Conv2d("conv1", 8, kernel=3), BatchNorm("bn1"), MaxPool2d("pool1", 2, 2)),
    (BatchNorm("bn1"), Conv2d("conv1", 8, kernel=3))], ids=lambda layers: layers[-1].name)
def test_batch_normalization_keeps_its_input(torch_backend, layers, activation):
    layers = [replace(layer, **activation) if isinstance(layer, BatchNorm) else layer for layer in layers]
    network = Network("batches", (3, 32, 32), (*layers, Flatten("flatten"), Dense("fc2", units=10)))
    predicted = predicted_peak(costs(network, 16)).bytes
    assert count_peak(torch_backend, network, 16, 0.0) == pytest.approx(predicted, rel=TOLERANCE)


@pytest.mark.parametrize("layers, moment", [
    ((Conv2d("conv1", channels=8, kernel=3, stride=2, padding="same"),), "the gradients of conv1"),
    ((Conv2d("conv1", channels=8, kernel=3), Conv2d("conv2", channels=2, kernel=3, stride=2, padding="same")),
     "the gradients of conv2"),
    ((Conv2d("conv1", channels=8, kernel=3), AvgPool2d("pool1", 2, 1),
      Conv2d("conv2", channels=8, kernel=4, padding="same")), "the gradients of conv2"),
    ((Conv2d("conv1", channels=8, kernel=3), MaxPool2d("pool1", 4, 1, padding="same")), "the gradients of pool1"),
    ((Conv2d("conv1", channels=8, kernel=3), AvgPool2d("pool1", 2, 1, "same")), "the gradients of pool1"),
    ((Conv2d("conv1", channels=8, kernel=3), AvgPool2d("pool1", 2, 1, "same", True)), "the gradients of pool1"),
    ((AvgPool2d("pool0", 4, 4, ((1, 2), (3, 0))), Conv2d("conv1", channels=2, kernel=3)),
     "the output of pool0")])
def test_a_padded_copy_is_kept_for_the_backward_pass(torch_backend, layers, moment):
    """The original is freed, unless its own activation needs it."""
    network = Network("padded", (3, 64, 64), (*layers, Flatten("flatten"), Dense("fc", units=2)))
    peak = predicted_peak(costs(network, 8))
    assert (peak.moment, count_peak(torch_backend, network, 8, 0.0)) == (
        moment, pytest.approx(peak.bytes, rel=TOLERANCE))


def test_the_input_of_dropout_is_freed(torch_backend):
    """The output of fc1 is freed after its dropout. A mask takes four bytes per value on a CPU instead of one. Only the
    mask of drop1 is left at the gradients of fc2."""
    network = Network("drop", (1, 16, 16), (
        Flatten("flatten"), Dense("fc1", units=2048), Dropout("drop1", rate=0.5), Dense("fc2", units=2048),
        Dropout("drop2", rate=0.5), Dense("fc3", units=10)))
    peak = predicted_peak(costs(network, 512))
    assert peak.moment == "the gradients of fc2"
    predicted = peak.bytes + (4 - MASK_BYTES) * 512 * 2048
    assert count_peak(torch_backend, network, 512, 0.0) == pytest.approx(predicted, rel=TOLERANCE)


def test_the_workspace_of_cublas_is_not_counted(torch_backend, monkeypatch):
    """Live tensors replace a GPU's allocator. A workspace is added that stays allocated after its first use, like the
    workspace of cuBLAS."""
    import torch

    network, rows = zoo.LENET5, np.arange(32)
    model = torch_backend.build(network, parameters.initialize(network, 0), "cpu")
    placed = model.place(np.zeros((32, 1, 28, 28), np.float32), rows % 10)
    workspace, devices = {"bytes": 0}, []
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: workspace.update(bytes=0), raising=False)
    gc.collect()
    with live_tensors() as live:
        def allocated(device: str) -> int:
            devices.append(device)
            if len(devices) == 6:
                workspace["bytes"] = 2**23
            return live.bytes() + workspace["bytes"]
        monkeypatch.setattr(torch.cuda, "memory_allocated", allocated)
        assert model.step_memory(placed, rows, Sgd(2.0**-20), 0) is None, "a CPU's allocator reports no peak"
        assert not devices
        model.device = "cuda:1"
        peak = model.step_memory(placed, rows, Sgd(2.0**-20), 0)
    assert len(devices) > 50 and set(devices) == {"cuda:1"}
    assert peak == pytest.approx(predicted_peak(costs(network, 32)).bytes, rel=TOLERANCE)
