"""Independent AlexNets, torchvision's and the MXNet model zoo's, with random weights, against `alexnet-owt`.

Each backend loads their weights by canonical name, and must give their logits. They compute in float64, as the
ladder's reference does, so that the ladder's tolerance applies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from alexnet_mf import backends
from alexnet_mf.parity.tolerances import TIERS, relative_l2
from alexnet_mf.spec.zoo import ALEXNET_OWT
from alexnet_mf.weights import parameters
from alexnet_mf.weights.parameters import Parameters

LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
IMAGES = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)


@functools.cache
def torchvision_alexnet() -> tuple[Parameters, np.ndarray]:
    """Return torchvision's random weights in canonical form, and its logits."""
    import torch
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.alexnet(weights=None).eval()
    layers = [module for module in net.modules() if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))]
    weights = {f"{name}.{part}": getattr(layer, part).detach().numpy().copy()
               for name, layer in zip(LAYERS, layers, strict=True) for part in ("weight", "bias")}
    with torch.no_grad():
        return weights, net.double()(torch.tensor(IMAGES, dtype=torch.float64)).numpy()


@functools.cache
def mxnet_alexnet() -> tuple[Parameters, np.ndarray]:
    """Return the MXNet model zoo's random weights in canonical form, and its logits."""
    backends.load("mxnet")  # makes mxnet importable beside a newer NumPy
    import mxnet as mx

    mx.random.seed(0)
    net = mx.gluon.model_zoo.vision.alexnet(pretrained=False)
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 3, 224, 224)))  # gives the parameters their shapes
    blocks = [block for block in (*net.features, net.output) if isinstance(block, (mx.gluon.nn.Conv2D,
                                                                                   mx.gluon.nn.Dense))]
    stream = np.random.default_rng(0)
    for block in blocks:  # a lost bias would not show if it were zero
        block.bias.set_data(mx.nd.array(stream.uniform(-0.1, 0.1, block.bias.shape)))
    weights = {f"{name}.{part}": getattr(block, part).data().asnumpy()
               for name, block in zip(LAYERS, blocks, strict=True) for part in ("weight", "bias")}
    net.cast("float64")
    return weights, net(mx.nd.array(IMAGES, dtype="float64")).asnumpy()


pytestmark = pytest.mark.exhaustive  # ImageNet's AlexNet, in float64 too

WITNESSES = {"torch": torchvision_alexnet, "mxnet": mxnet_alexnet}


@pytest.fixture(scope="module", autouse=True)
def clear_caches() -> Iterator[None]:
    yield
    for witness in WITNESSES.values():
        witness.cache_clear()


@pytest.mark.parametrize("framework", WITNESSES)
def test_every_backend_gives_the_witnesses_logits(backend_name: str, framework: str,
                                                  requires: Callable[[str], None]) -> None:
    requires(framework)
    weights, expected = WITNESSES[framework]()
    assert {name: value.shape for name, value in weights.items()} == parameters.shapes(ALEXNET_OWT)
    model = backends.load(backend_name).build(ALEXNET_OWT, weights)
    logits = model.logits(model.place(IMAGES, np.array([0, 999])), 2)
    assert logits.shape == expected.shape == (2, 1000)
    assert np.ptp(expected) > 0.01
    assert relative_l2(logits, expected) < (1e-12 if backend_name == "numpy" else TIERS["float32"].output)


@pytest.mark.parametrize("framework", WITNESSES)
def test_another_padding_changes_the_logits(framework: str, requires: Callable[[str], None]) -> None:
    """conv1 padded by 3 instead of 2 gives the same shapes, 219 // 4 = 217 // 4 = 54, but another function."""
    requires(framework)
    weights, expected = WITNESSES[framework]()
    other = replace(ALEXNET_OWT, layers=(replace(ALEXNET_OWT.layers[0], padding=3), *ALEXNET_OWT.layers[1:]))
    assert parameters.shapes(other) == parameters.shapes(ALEXNET_OWT)
    model = backends.load("numpy").build(other, weights)
    assert relative_l2(model.logits(model.place(IMAGES, np.array([0, 999])), 2), expected) > 1e-3
