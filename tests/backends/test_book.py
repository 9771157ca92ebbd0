"""The book's tabs, typed by hand, against the networks built from the spec."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from alexnet_mf import backends, data
from alexnet_mf.spec import Network
from alexnet_mf.spec.zoo import ALEXNET, TABS
from alexnet_mf.weights import parameters

WEIGHTED = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]

pytestmark = [pytest.mark.exhaustive,  # the book's own size of network
              pytest.mark.parametrize("backend_name", backends.FRAMEWORKS, indirect=True)]


@pytest.fixture(scope="module")
def canonical() -> parameters.Parameters:
    """Return parameters for all the networks, which differ in padding alone; no bias is zero, so a lost one shows."""
    return parameters.initialize(ALEXNET, 0, random_biases=True)


@pytest.fixture
def book(backend) -> Iterator[Any]:
    """Return the tab's module; for MXNet, with the NumPy semantics that its reader sets."""
    module = importlib.import_module(f"alexnet_mf.backends.{backend.name}.book")
    if backend.name == "mxnet":
        module.npx.set_np()
    yield module
    reset_semantics(backend)


def reset_semantics(backend: Any) -> None:
    if backend.name == "mxnet":
        importlib.import_module("mxnet").npx.reset_np()


IMAGES = np.random.default_rng(0).random((2, 1, 224, 224), np.float32)


# Loading and running a tab's network, independently of the backends' own weights.py


def fill(name: str, net: Any, values: parameters.Parameters) -> None:
    """Put canonical parameters into a tab's network."""
    pairs = [(values[f"{layer}.weight"], values[f"{layer}.bias"]) for layer in WEIGHTED]
    if name == "torch":
        import torch
        layers = [module for module in net if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))]
        with torch.no_grad():
            for layer, (weight, bias) in zip(layers, pairs, strict=True):
                layer.weight.copy_(torch.tensor(weight))
                layer.bias.copy_(torch.tensor(bias))
    elif name == "tensorflow":
        for layer, (weight, bias) in zip([layer for layer in net.layers if layer.weights], pairs, strict=True):
            if weight.ndim == 4:
                native = np.einsum("oihw->hwio", weight)
            elif weight.shape[1] == 256 * 5 * 5:
                native = np.einsum("ochw->hwco", weight.reshape(-1, 256, 5, 5)).reshape(5 * 5 * 256, -1)
            else:
                native = weight.T
            layer.set_weights([native, bias])
    else:
        import mxnet as mx
        net.initialize()
        net(mx.np.zeros((1, 1, 224, 224)))  # gives the parameters their shapes
        blocks = [block for block in net if isinstance(block, (mx.gluon.nn.Conv2D, mx.gluon.nn.Dense))]
        for block, (weight, bias) in zip(blocks, pairs, strict=True):
            block.weight.set_data(mx.np.array(weight))
            block.bias.set_data(mx.np.array(bias))


def logits(name: str, net: Any, images: np.ndarray) -> np.ndarray:
    """Return the logits of a tab's network, run as its users would, with dropout off."""
    if name == "torch":
        import torch
        net.eval()
        with torch.no_grad():
            return net(torch.tensor(images)).numpy()
    if name == "tensorflow":
        return np.asarray(net(images.transpose(0, 2, 3, 1), training=False))
    import mxnet as mx
    return net(mx.np.array(images)).asnumpy()


def spec_logits(backend: Any, network: Network, canonical: parameters.Parameters) -> np.ndarray:
    reset_semantics(backend)
    model = backend.build(network, canonical, "cpu")
    return model.logits(model.place(IMAGES, np.zeros(2, np.int64)), 2)


def relative_l2(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


def test_the_tab_equals_its_network_in_the_spec(backend, book, canonical):
    """The same weights give the same logits, and different ones with the other padding of conv1."""
    net = book.alexnet()
    fill(backend.name, net, canonical)
    expected = logits(backend.name, net, IMAGES)
    assert expected.shape == (2, 10)
    assert relative_l2(expected[0], expected[1]) > 0.01, "the images must differ in their logits"
    assert relative_l2(spec_logits(backend, TABS[backend.name], canonical), expected) < 1e-5
    other = TABS["mxnet"] if backend.name == "torch" else ALEXNET
    assert other.layers[0].padding != TABS[backend.name].layers[0].padding
    assert relative_l2(spec_logits(backend, other, canonical), expected) > 0.01


def initial_parameters(name: str, book: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each layer's initial weight and bias in the tab; dense weights as (out, in)."""
    net = book.alexnet()
    if name == "torch":
        import torch
        torch.manual_seed(0)
        net = book.alexnet()
        book.initialize(net)
        layers = [module for module in net if hasattr(module, "weight")]
        pairs = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]
    elif name == "tensorflow":
        import keras
        keras.utils.set_random_seed(0)
        pairs = [tuple(layer.get_weights()) for layer in book.alexnet().layers if layer.weights]
    else:
        import mxnet as mx
        mx.random.seed(0)
        book.initialize(net, mx.cpu())
        net(mx.np.zeros((1, 1, 224, 224)))
        blocks = [block for block in net if hasattr(block, "weight")]
        pairs = [(block.weight.data().asnumpy(), block.bias.data().asnumpy()) for block in blocks]
    return dict(zip(WEIGHTED, pairs, strict=True))


def test_the_tab_initializes_as_the_spec_says(backend, book):
    """All tabs have Xavier-uniform weights; biases are zero, or uniform on +-1/sqrt(fan_in) in the PyTorch tab."""
    shapes = parameters.shapes(ALEXNET)
    uniform = TABS[backend.name].bias_initialisation == "uniform_fan_in"
    for layer, (weight, bias) in initial_parameters(backend.name, book).items():
        shape = shapes[f"{layer}.weight"]
        receptive = math.prod(shape[2:])
        assert weight.size == math.prod(shape)
        assert_uniform(weight, math.sqrt(6 / (shape[0] * receptive + shape[1] * receptive)), layer)
        if uniform:
            assert_uniform(bias, 1 / math.sqrt(shape[1] * receptive), layer)
        else:
            assert not bias.any()


def assert_uniform(values: np.ndarray, bound: float, layer: str) -> None:
    """Check the bound, and the variance and mean to five standard errors."""
    values = values.ravel().astype(np.float64)
    assert np.abs(values).max() <= bound * (1 + 1e-6), layer
    assert np.abs(values).max() > bound * (1 - 10 / len(values)), layer
    error = bound**2 * math.sqrt((1 / 5 - 1 / 9) / len(values))  # of the mean of x^2
    assert abs((values**2).mean() - bound**2 / 3) < 5 * error, layer
    assert abs(values.mean()) < 5 * bound / math.sqrt(3 * len(values)), layer


def batch(name: str, batches: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the first batch of a tab's loader, as NCHW."""
    x, y = (np.asarray(value.asnumpy() if name == "mxnet" else value) for value in next(iter(batches)))
    return (x.transpose(0, 3, 1, 2) if name == "tensorflow" else x), y


def test_the_tab_trains(backend, book):
    """One epoch of 32 images gives plausible figures."""
    images = data.synthetic.draw(0, train=32, test=16)
    arguments = {} if backend.name == "tensorflow" else {"workers": 0}
    train_batches = book.loader(images.train.images, images.train.labels, shuffle=True, batch_size=16, **arguments)
    test_batches = book.loader(images.test.images, images.test.labels, shuffle=False, batch_size=16, **arguments)
    x, y = batch(backend.name, test_batches)
    assert x.shape == (16, 1, 224, 224)
    assert x.min() == 0
    assert 0.5 < x.max() <= 1
    assert y.tolist() == images.test.labels.tolist()
    gray = images.test.images[:, np.newaxis].repeat(8, axis=2).repeat(8, axis=3) / 255
    assert np.abs(x - gray).mean() < 0.05, "the images must be enlarged, neither rotated nor mirrored"
    assert len(batch(backend.name, train_batches)[1]) == 16
    loss, train_accuracy, test_accuracy, rate = book.train(book.alexnet(), train_batches, test_batches, epochs=1)
    assert loss == pytest.approx(math.log(10), abs=0.7)
    assert train_accuracy * 32 == pytest.approx(round(train_accuracy * 32), abs=1e-4)
    assert test_accuracy * 16 == pytest.approx(round(test_accuracy * 16), abs=1e-4)
    assert 0 <= train_accuracy <= 1
    assert 0 <= test_accuracy <= 1
    assert 0.5 < rate < 100_000
