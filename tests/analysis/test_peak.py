"""The predicted peak: by hand, and against the tensors that PyTorch has alive in a real training step.

The tensors are counted on a CPU, after each operation, as a GPU's allocator would be read. What differs there are
workspaces, which the prediction leaves out, rounding to 512 bytes, and dropout's masks, of four bytes on a CPU.
"""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from sizes import narrower

from alexnet_mf import backends
from alexnet_mf.analysis.costs import MASK_BYTES, costs
from alexnet_mf.analysis.peak import predicted_peak
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.layers import AvgPool2d, Conv2d, Dense, Dropout, Flatten, MaxPool2d, Normalize
from alexnet_mf.weights import parameters

TOLERANCE = 0.002


def test_by_hand():
    """fc1 has 6 inputs and 4 units, fc2 3 units; two images, one byte a number, momentum."""
    network = Network("hand", (1, 2, 3), (Flatten("flatten"), Dense("fc1", units=4, activation="relu"),
                                          Dense("fc2", units=3)))
    weights = (6 * 4 + 4) + (4 * 3 + 3)
    pixels, hidden, logits = 2 * 6, 2 * 4, 2 * 3
    peak = predicted_peak(costs(network, 2, 1, momentum=True))
    assert peak.bytes == 3 * weights + pixels + hidden + logits, "the gradient of fc1's output, and the caller's logits"
    assert peak.moment == "the gradients of fc1"


def test_by_hand_where_backward_needs_more():
    """Convolution 1x1 of two channels, pooled: backward has the gradients on both sides of the ReLU beside all that
    it still keeps."""
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


NORMALISED = Network("normalised", (3, 64, 64), (
    Normalize("normalize", (0.5, 0.4, 0.3), (0.2, 0.2, 0.3)), AvgPool2d("pool0", 8, 8),
    Conv2d("conv1", channels=2, kernel=3), Flatten("flatten"), Dense("fc2", units=2)))


def test_by_hand_where_pixels_are_normalised():
    """Three of them at once: as they come, less their mean, and divided; nobody keeps the last once it is pooled."""
    weights, pixels = (2 * 27 + 2) + (2 * 72 + 2), 5 * 3 * 64 * 64
    peak = predicted_peak(costs(NORMALISED, 5, 1))
    assert peak.moment == "the output of normalize"
    assert peak.bytes == weights + 3 * pixels


def test_without_momentum_a_velocity_less():
    found = [predicted_peak(costs(zoo.ALEXNET, 1, momentum=momentum)).bytes for momentum in (False, True)]
    assert found[1] - found[0] == 4 * 46_764_746


# PyTorch's own tensors


@pytest.fixture
def torch_backend(requires):
    requires("torch")
    return backends.load("torch")


def live_tensors() -> Any:
    """A dispatch mode that knows the bytes of all tensors which operations have made and somebody still holds."""
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Live(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.known: dict[int, tuple[Any, int]] = {}

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = {id(leaf) for leaf in tree_leaves((args, kwargs))}
            old = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs))
                   if hasattr(leaf, "untyped_storage")}
            result = function(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if hasattr(leaf, "untyped_storage") and id(leaf) not in given:
                    storage = leaf.untyped_storage()
                    if storage._cdata not in old:
                        self.known[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
            return result

        def bytes(self) -> int:
            self.known = {key: entry for key, entry in self.known.items() if not entry[0].expired()}
            return sum(size for _, size in self.known.values())

    return Live()


def counted(backend: Any, network: Network, batch_size: int, momentum: float, model: Any = None) -> int:
    """What a GPU's allocator would be asked, asked of the tensors."""
    from alexnet_mf.backends.torch import allocations

    model = model or backend.build(network, parameters.initialise(network, 0), "cpu")
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
    ("lenet5", 64, 0.9, False), ("alexnet-28", 16, 0.0, False)])
def test_pytorchs_tensors_take_what_was_predicted(torch_backend, name, batch_size, momentum, narrow):
    """Where the peak is at the end of the forward pass, and where it is in the backward pass."""
    network = narrower(zoo.get_network(name)) if narrow else zoo.get_network(name)
    predicted = predicted_peak(costs(network, batch_size, momentum=momentum > 0)).bytes
    assert counted(torch_backend, network, batch_size, momentum) == pytest.approx(predicted, rel=TOLERANCE)


class NoKernel:
    """In the place of one of Triton's: memory does not depend on what it computes."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments: None


@pytest.mark.parametrize("speed, ieee, moment", [
    ({"fold"}, False, "the gradients of conv2"), ({"pool"}, False, "the gradients of pool1"),
    ({"fold", "pool"}, False, "the folded input of conv1"), ({"pool"}, True, "the gradients of conv2")])
def test_so_do_those_of_the_kernels_for_a_gpu(torch_backend, monkeypatch, speed, ieee, moment):
    pytest.importorskip("triton", reason="PyTorch brings Triton on Linux alone")
    from alexnet_mf.backends.torch import pooling
    from alexnet_mf.backends.torch.backend import TorchModel
    from alexnet_mf.backends.torch.layers import keep_to_ieee

    for name in ("_forward", "_backward", "_bias_gradient"):
        monkeypatch.setattr(pooling, name, NoKernel())
    network = narrower(zoo.ALEXNET)
    model = TorchModel(network, parameters.initialise(network, 0), "cpu", frozenset({*speed, "layout"}))
    if ieee:  # as on a GPU in float32
        keep_to_ieee(model.net)
    assert model.kernels() == {name: kinds for name, kinds in (
        ("conv1", sorted(speed)), ("conv2", ["ieee"] * ieee + ["pool"] * ("pool" in speed)),
        ("conv5", ["pool"] * ("pool" in speed))) if kinds}
    peak = predicted_peak(costs(network, 8), model.kernels())
    assert peak.moment == moment
    assert counted(torch_backend, network, 8, 0.0, model) == pytest.approx(peak.bytes, rel=TOLERANCE)


@pytest.mark.parametrize("pool, channels", [(8, 2), (2, 16), (None, 2)])
def test_normalised_pixels_are_kept_only_for_a_convolution(torch_backend, pool, channels):
    """At once, and not where they are pooled first; seen where the peak comes later."""
    before = (NORMALISED.layers[0], *([AvgPool2d("pool0", pool, pool)] if pool else []))
    network = Network("normalised", NORMALISED.input, (
        *before, Conv2d("conv1", channels, kernel=3), Flatten("flatten"), Dense("fc2", units=2)))
    predicted = predicted_peak(costs(network, 8)).bytes
    assert counted(torch_backend, network, 8, 0.0) == pytest.approx(predicted, rel=TOLERANCE)


def test_dropout_after_a_layer_that_keeps_nothing(torch_backend):
    """No one needs fc1's output once its dropout is done. On a CPU a mask takes four bytes and not one; at the
    gradients of fc2 drop1's is the only one left."""
    network = Network("drop", (1, 16, 16), (
        Flatten("flatten"), Dense("fc1", units=2048), Dropout("drop1", rate=0.5), Dense("fc2", units=2048),
        Dropout("drop2", rate=0.5), Dense("fc3", units=10)))
    peak = predicted_peak(costs(network, 512))
    assert peak.moment == "the gradients of fc2"
    predicted = peak.bytes + (4 - MASK_BYTES) * 512 * 2048
    assert counted(torch_backend, network, 512, 0.0) == pytest.approx(predicted, rel=TOLERANCE)


def test_what_cublas_keeps_is_not_counted(torch_backend, monkeypatch):
    """The way that a GPU's allocator is read, with these tensors in its place, and a workspace that stays once it has
    been taken, as cuBLAS's does."""
    import torch

    network, rows = zoo.LENET5, np.arange(32)
    model = torch_backend.build(network, parameters.initialise(network, 0), "cpu")
    placed = model.place(np.zeros((32, 1, 28, 28), np.float32), rows % 10)
    workspace, asked = {"bytes": 0}, []
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: workspace.update(bytes=0), raising=False)
    gc.collect()
    with live_tensors() as live:
        def allocated(device: str) -> int:
            asked.append(device)
            if len(asked) == 6:
                workspace["bytes"] = 2**23
            return live.bytes() + workspace["bytes"]
        monkeypatch.setattr(torch.cuda, "memory_allocated", allocated)
        assert model.step_memory(placed, rows, Sgd(2.0**-20), 0) is None, "a CPU's allocator does not tell"
        assert not asked
        model.device = "cuda:1"
        held = model.step_memory(placed, rows, Sgd(2.0**-20), 0)
    assert len(asked) > 50 and set(asked) == {"cuda:1"}
    assert held == pytest.approx(predicted_peak(costs(network, 32)).bytes, rel=TOLERANCE)
