"""Augmented pixels: the reference checked by hand and against other libraries, every backend against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from alexnet_mf import backends
from alexnet_mf.backends.contract import Backend, Model, Sgd
from alexnet_mf.data.augmentation import KINDS, LUMA, Draws, draw
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import Conv2d, Dense, Flatten, MaxPool2d
from alexnet_mf.weights import parameters

PLACES = [("flip",), ("crop",), ("flip", "crop")]


def network(name: str, *shape: int) -> Network:
    return Network(name, shape, (Conv2d("conv1", channels=4, kernel=3, stride=2), MaxPool2d("pool1", 2, 2),
                                 Flatten("flatten"), Dense("fc2", units=10)))


GRAY, ENLARGED, RGB = network("gray", 1, 28, 28), network("enlarged", 1, 224, 224), network("rgb", 3, 20, 29)


def build(backend: Backend, net: Network) -> Model[Any]:
    return backend.build(net, parameters.initialize(net, 0), "cpu")


def some_images(net: Network, count: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels: gray levels for a network of one channel, else pixels from 0 to 1."""
    generator = np.random.default_rng(2)
    inputs = (generator.integers(0, 256, (count, 28, 28), np.uint8) if net.input[0] == 1
              else generator.random((count, *net.input), np.float32))
    return inputs, generator.integers(0, 10, count)


def drawn(kinds: tuple[str, ...], net: Network, count: int = 9) -> Draws:
    draws = draw(kinds, 0, 0, count, (1, 28, 28) if net.input[0] == 1 else net.input)
    assert draws is not None
    return draws


def by_hand(**changes: Any) -> Draws:
    """Return draws for one image of 2 rows and 3 columns, with some changes."""
    values = {"kinds": (), "flip": np.array([False]), "corner": np.array([[0, 0]]), "padding": (0, 0), "stored": (2, 3),
              "size": (2, 3), "factors": np.ones((1, 3), np.float32)}
    return Draws(**{**values, **changes})


IMAGE = np.array([[[1, 2, 3], [4, 5, 6]]], np.float32)


@pytest.mark.parametrize("draws, expected", [
    (by_hand(kinds=("flip",), flip=np.array([True])), [[3, 2, 1], [6, 5, 4]]),
    (by_hand(kinds=("flip",)), [[1, 2, 3], [4, 5, 6]]),
    (by_hand(kinds=("crop",), padding=(1, 1), corner=np.array([[1, 1]])), [[1, 2, 3], [4, 5, 6]]),
    (by_hand(kinds=("crop",), padding=(1, 1), corner=np.array([[0, 1]])), [[0, 0, 0], [1, 2, 3]]),
    (by_hand(kinds=("crop",), padding=(1, 1), corner=np.array([[2, 0]])), [[0, 4, 5], [0, 0, 0]]),
    (by_hand(kinds=("flip", "crop"), flip=np.array([True]), padding=(1, 1), corner=np.array([[1, 2]])),
     [[2, 1, 0], [5, 4, 0]]),  # the flip comes first: a crop of the mirrored image
    (by_hand(kinds=("color",), factors=np.array([[0.5, 1, 9]], np.float32)), [[0.5, 1, 1.5], [2, 2.5, 3]]),
    (by_hand(kinds=("color",), factors=np.array([[2, 1, 9]], np.float32)), [[2, 4, 5], [5, 5, 5]]),  # white is 5
    (by_hand(kinds=("color",), factors=np.array([[0.5, 2, 9]], np.float32)),
     [[0, 0.25, 1.25], [2.25, 3.25, 4.25]]),  # the mean is 1.75; -0.75 is cut off
])
def test_augmented_pixels_by_hand(backend, draws, expected):
    """The saturation factor, 9 here, has no effect on one channel."""
    model = build(backend, Network("tiny", (1, 2, 3), (Flatten("flatten"), Dense("fc1", units=10))))
    scaled = model.pixels(model.place(IMAGE[np.newaxis] / 5, np.zeros(1, np.int64)), draws)
    if draws.colored:
        assert_allclose(scaled[0, 0] * 5, expected, atol=2e-6)
    else:
        assert_array_equal(scaled[0, 0], np.array(expected, np.float32) / 5)


@pytest.mark.parametrize("kinds", PLACES, ids="+".join)
@pytest.mark.parametrize("net", [GRAY, ENLARGED, RGB], ids=lambda net: net.name)
def test_flip_and_crop_are_the_same_bits_in_every_backend(backend, net, kinds):
    draws, images = drawn(kinds, net), some_images(net)
    plain, expected, actual = pixels(net, "numpy", images), pixels(net, "numpy", images, draws), pixels(
        net, backend.name, images, draws)
    assert actual.shape == (9, *net.input)
    assert actual.dtype == np.float32
    assert actual.tobytes() == expected.tobytes()
    assert len({image.tobytes() for image in (*plain, *expected)}) > 9, "the draws must change some images"


@pytest.mark.parametrize("kinds", [("color",), KINDS], ids="+".join)
@pytest.mark.parametrize("net", [GRAY, ENLARGED, RGB], ids=lambda net: net.name)
def test_color_is_the_same_within_rounding(backend, net, kinds):
    """The tolerances are the ladder's for a layer's output."""
    draws, images = drawn(kinds, net), some_images(net)
    expected, actual = pixels(net, "numpy", images, draws), pixels(net, backend.name, images, draws)
    assert np.linalg.norm(actual - expected) <= 2e-6 * np.linalg.norm(expected)
    assert np.abs(actual - expected).max() <= 1e-5
    assert 0 <= actual.min() <= actual.max() <= 1 + 1e-6
    assert np.abs(expected - pixels(net, "numpy", images, drawn(kinds[:-1], net) if kinds[:-1] else None)).max() > 0.1


def pixels(net: Network, name: str, images: tuple[np.ndarray, np.ndarray], draws: Draws | None = None) -> np.ndarray:
    model = build(backends.load(name), net)
    return model.pixels(model.place(*images), draws)


def test_a_flip_may_come_before_or_after_the_enlargement():
    """The docstring of `augmentation.py` promises this."""
    draws, images = drawn(("flip",), ENLARGED), some_images(ENLARGED)
    plain = pixels(ENLARGED, "numpy", images)
    mirrored = np.where(draws.flip[:, np.newaxis, np.newaxis, np.newaxis], plain[..., ::-1], plain)
    assert pixels(ENLARGED, "numpy", images, draws).tobytes() == mirrored.tobytes()


@pytest.mark.parametrize("kinds", [("flip", "crop"), KINDS], ids="+".join)
@pytest.mark.parametrize("net", [GRAY, RGB], ids=lambda net: net.name)
def test_a_training_step_augments_by_seed_and_step(backend, net, kinds):
    """Two steps with augmentation equal two steps without it on images augmented beforehand."""
    model, other = build(backend, net), build(backend, net)
    inputs, labels = some_images(net)
    data = model.place(inputs, labels)
    trainer, plain = model.trainer(Sgd(0.1, 0.9), 7), other.trainer(Sgd(0.1, 0.9), 7)
    for number, rows in ((5, np.array([3, 1, 4, 8])), (6, np.array([0, 2]))):
        draws = draw(kinds, 7, number, len(rows), (1, 28, 28) if net is GRAY else net.input)
        trainer.step(data, rows, number, draws)
        ready = model.pixels(model.place(inputs[rows], labels[rows]), draws)
        plain.step(other.place(ready, labels[rows]), np.arange(len(rows)), number)
    assert_allclose(trainer.read().losses, plain.read().losses, rtol=1e-6)
    for name, value in other.export().items():
        assert_allclose(model.export()[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    assert parameters.digest(model.export()) != parameters.digest(parameters.initialize(net, 0))


def test_torchvision_changes_colors_in_the_same_way(requires):
    """An independent implementation agrees; its gray takes 0.2989 of red, ours 0.299."""
    requires("torch")
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.functional")
    draws, (images, labels) = drawn(("color",), RGB), some_images(RGB)
    augmented = pixels(RGB, "numpy", (images, labels), draws)
    for image, ours, (brightness, contrast, saturation) in zip(images, augmented, draws.factors.tolist()):
        theirs = functional.adjust_brightness(torch.from_numpy(image), brightness)
        theirs = functional.adjust_contrast(theirs, contrast)
        theirs = functional.adjust_saturation(theirs, saturation)
        assert_allclose(ours, theirs.numpy(), atol=1e-4)
    assert sum(LUMA) == pytest.approx(1)
