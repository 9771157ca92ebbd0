"""Augmented pixels: the reference checked by hand and against other libraries, every backend against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from alexnet_mf import backends
from alexnet_mf.backends.contract import Backend, Model, Sgd
from alexnet_mf.data.augmentation import LUMA, Draws, draw, principal_colors
from alexnet_mf.data.batches import read_batch
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import Conv2d, Dense, Flatten, MaxPool2d
from alexnet_mf.weights import parameters

PLACES = [("flip",), ("crop",), ("flip", "crop")]
CHANGES = ("flip", "crop", "color")


def network(name: str, *shape: int) -> Network:
    return Network(name, shape, (Conv2d("conv1", channels=4, kernel=3, stride=2), MaxPool2d("pool1", 2, 2),
                                 Flatten("flatten"), Dense("fc2", units=10)))


GRAY, ENLARGED, RGB = network("gray", 1, 28, 28), network("enlarged", 1, 224, 224), network("rgb", 3, 20, 29)
LEVELS = {"of the network's "
          "size": (20, 30, 3), "larger": (27, 35, 3), "wider only": (20, 33, 3), "half as large": (10, 15, 3)}
"""Shapes of levels in color, for a network that takes 3x20x30."""


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
              "size": (2, 3), "shifts": np.zeros((1, 3), np.float32), "parts": np.zeros((0, 10, 4)),
              "factors": np.ones((1, 3), np.float32)}
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


@pytest.mark.parametrize("kinds", [("color",), CHANGES], ids="+".join)
@pytest.mark.parametrize("net", [GRAY, ENLARGED, RGB], ids=lambda net: net.name)
def test_color_is_the_same_within_rounding(backend, net, kinds):
    """The tolerances are the ladder's for a layer's output."""
    draws, images = drawn(kinds, net), some_images(net)
    expected, actual = pixels(net, "numpy", images, draws), pixels(net, backend.name, images, draws)
    assert np.linalg.norm(actual - expected) <= 2e-6 * np.linalg.norm(expected)
    assert np.abs(actual - expected).max() <= 1e-5
    assert 0 <= actual.min() <= actual.max() <= 1 + 1e-6
    assert np.abs(expected - pixels(net, "numpy", images, drawn(kinds[:-1], net) if kinds[:-1] else None)).max() > 0.1


@pytest.mark.parametrize("kinds", [(), ("flip",), ("crop",), ("flip", "crop"), ("color",)], ids="+".join)
@pytest.mark.parametrize("shape", LEVELS.values(), ids=LEVELS)
def test_levels_in_color_are_the_same_bits_in_every_backend(backend, shape, kinds):
    """Larger levels are cropped as drawn, else at the center; smaller ones enlarged."""
    net = network("color", 3, 20, 30)
    levels = np.random.default_rng(3).integers(0, 256, (9, *shape), np.uint8)
    images = levels, np.zeros(9, np.int64)
    draws = draw(kinds, 0, 0, 9, (3, *shape[:2]), (20, 30))
    expected, actual = pixels(net, "numpy", images, draws), pixels(net, backend.name, images, draws)
    assert actual.shape == (9, 3, 20, 30)
    if kinds == ("color",):
        assert_allclose(actual, expected, atol=1e-6)
        return
    assert actual.tobytes() == expected.tobytes()
    if shape[0] >= 20 and not kinds:
        top, left = round((shape[0] - 20) / 2), round((shape[1] - 30) / 2)
        by_hand = levels[:, top:top + 20, left:left + 30].transpose(0, 3, 1, 2) * np.float32(1 / 255)
        assert actual.tobytes() == np.ascontiguousarray(by_hand).tobytes()


@pytest.mark.parametrize("kinds", [(), ("flip",), ("crop",), ("flip", "crop")], ids="+".join)
@pytest.mark.parametrize("shape", [*LEVELS.values(), (20, 30)])
def test_crops_before_the_device_are_those_on_the_device(shape, kinds):
    """Images that stream are cropped by `read_batch`, and mirrored on the device."""
    net = network("color", 3 if len(shape) == 3 else 1, 20, 30)
    levels, rows = np.random.default_rng(3).integers(0, 256, (9, *shape), np.uint8), np.array([5, 0, 8, 2])
    draws = draw(kinds, 0, 0, 4, (net.input[0], *shape[:2]), (20, 30))
    on_device = pixels(net, "numpy", (levels[rows], np.zeros(4, np.int64)), draws)
    cropped = read_batch(levels, rows, net, draws)
    assert cropped.shape[1:3] == ((10, 15) if shape[0] == 10 else (20, 30))
    before = pixels(net, "numpy", (cropped, np.zeros(4, np.int64)), draws.after_crop() if draws else None)
    assert before.tobytes() == on_device.tobytes()


def test_levels_that_cannot_be_enlarged_exactly_are_enlarged_before_the_device():
    """By Pillow, as whole levels: 32x32 for an input of 224x224."""
    net = network("color", 3, 70, 70)
    levels = np.random.default_rng(3).integers(0, 256, (4, 10, 10, 3), np.uint8)
    enlarged = read_batch(levels, np.array([1, 3]), net)
    for image, number in zip(enlarged, (1, 3)):
        expected = Image.fromarray(levels[number]).resize((70, 70), Image.Resampling.BILINEAR)
        assert image.tobytes() == expected.tobytes()


def pixels(net: Network, name: str, images: tuple[np.ndarray, np.ndarray], draws: Draws | None = None) -> np.ndarray:
    model = build(backends.load(name), net)
    return model.pixels(model.place(*images), draws)


def test_a_flip_may_come_before_or_after_the_enlargement():
    """The docstring of `augmentation.py` promises this."""
    draws, images = drawn(("flip",), ENLARGED), some_images(ENLARGED)
    plain = pixels(ENLARGED, "numpy", images)
    mirrored = np.where(draws.flip[:, np.newaxis, np.newaxis, np.newaxis], plain[..., ::-1], plain)
    assert pixels(ENLARGED, "numpy", images, draws).tobytes() == mirrored.tobytes()


@pytest.mark.parametrize("kinds", [("flip", "crop"), CHANGES], ids="+".join)
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


def test_the_papers_noise_shifts_all_pixels_of_an_image_alike(backend):
    """By the principal colors: the covariance of red, green and blue of the pixels in [0, 1], by NumPy's own."""
    levels = np.random.default_rng(0).integers(100, 140, (9, 20, 29, 3), np.uint8)
    levels[..., 1] = levels[..., 0] // 2 + 30
    colors = principal_colors(levels)
    pixels_in_rows = levels.reshape(-1, 3) / 255
    assert_allclose(colors.T @ np.linalg.pinv(np.diag(np.linalg.norm(colors, axis=1))) @ colors,
                    np.cov(pixels_in_rows.T, bias=True), atol=1e-12)
    draws = draw(("flip", "pca"), 3, 5, 9, (3, 20, 29), (20, 29), colors * 30)
    moved = draw(("flip",), 3, 5, 9, (3, 20, 29), (20, 29))
    images = levels, np.zeros(9, np.int64)
    plain, shifted = pixels(RGB, backend.name, images, moved), pixels(RGB, backend.name, images, draws)
    difference = shifted - plain
    assert_allclose(difference, np.broadcast_to(draws.shifts[:, :, None, None], difference.shape), atol=1e-6)
    assert np.abs(draws.shifts).max() > 0.01


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
