"""Other people's AlexNet: torchvision's and the MXNet model zoo's, with random weights, against `alexnet-owt`.

Their weights are put into each backend by canonical name, and the logits must be theirs. The witness computes in
float64, as the ladder's reference does, so that the ladder's tolerance is the right one.
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
    """Its random weights in canonical form, and its logits."""
    import torch
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.alexnet(weights=None).eval()
    layers = [module for module in net.modules() if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))]
    given = {f"{name}.{kind}": getattr(layer, kind).detach().numpy().copy()
             for name, layer in zip(LAYERS, layers, strict=True) for kind in ("weight", "bias")}
    with torch.no_grad():
        return given, net.double()(torch.tensor(IMAGES, dtype=torch.float64)).numpy()


@functools.cache
def mxnet_alexnet() -> tuple[Parameters, np.ndarray]:
    """The same of the model zoo's."""
    backends.load("mxnet")  # makes mxnet importable beside a newer NumPy
    import mxnet as mx

    mx.random.seed(0)
    net = mx.gluon.model_zoo.vision.alexnet(pretrained=False)
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 3, 224, 224)))  # only now do its parameters have shapes
    blocks = [block for block in (*net.features, net.output) if isinstance(block, (mx.gluon.nn.Conv2D,
                                                                                   mx.gluon.nn.Dense))]
    stream = np.random.default_rng(0)
    for block in blocks:  # biases begin at zero, which would hide their loss
        block.bias.set_data(mx.nd.array(stream.uniform(-0.1, 0.1, block.bias.shape)))
    given = {f"{name}.{kind}": getattr(block, kind).data().asnumpy()
             for name, block in zip(LAYERS, blocks, strict=True) for kind in ("weight", "bias")}
    net.cast("float64")
    return given, net(mx.nd.array(IMAGES, dtype="float64")).asnumpy()


pytestmark = pytest.mark.exhaustive  # ImageNet's AlexNet, in float64 too

WITNESSES = {"torch": torchvision_alexnet, "mxnet": mxnet_alexnet}


@pytest.fixture(scope="module", autouse=True)
def forget() -> Iterator[None]:
    yield
    for witness in WITNESSES.values():
        witness.cache_clear()


@pytest.mark.parametrize("framework", WITNESSES)
def test_every_backend_gives_the_witnesss_logits(backend_name: str, framework: str,
                                                 requires: Callable[[str], None]) -> None:
    requires(framework)
    given, expected = WITNESSES[framework]()
    assert {name: value.shape for name, value in given.items()} == parameters.shapes(ALEXNET_OWT)
    model = backends.load(backend_name).build(ALEXNET_OWT, given)
    logits = model.logits(model.place(IMAGES, np.array([0, 999])), 2)
    assert logits.shape == expected.shape == (2, 1000)
    assert np.ptp(expected) > 0.01
    assert relative_l2(logits, expected) < (1e-12 if backend_name == "numpy" else TIERS["float32"].output)


@pytest.mark.parametrize("framework", WITNESSES)
def test_the_witness_would_see_another_padding(framework: str, requires: Callable[[str], None]) -> None:
    """conv1 padded by 3 instead of 2 gives the same shapes, 219 // 4 = 217 // 4 = 54, and another function."""
    requires(framework)
    given, expected = WITNESSES[framework]()
    other = replace(ALEXNET_OWT, layers=(replace(ALEXNET_OWT.layers[0], padding=3), *ALEXNET_OWT.layers[1:]))
    assert parameters.shapes(other) == parameters.shapes(ALEXNET_OWT)
    model = backends.load("numpy").build(other, given)
    assert relative_l2(model.logits(model.place(IMAGES, np.array([0, 999])), 2), expected) > 1e-3
