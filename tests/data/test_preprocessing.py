"""Pixels equal those of torchvision's transforms; numbers equal a computation by hand; what does not fit is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from alexnet_mf import backends
from alexnet_mf.data.preprocessing import PIXEL_SCALE, check_fits, prepare, to_inputs
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Network, Normalize, Preprocessing
from alexnet_mf.spec.layers import Dense, Flatten
from alexnet_mf.spec.preprocessing import CAFFE, FASHION_MNIST, IMAGENET
from alexnet_mf.spec.zoo import ALEXNET, ALEXNET_28, ALEXNET_OWT, LENET5
from alexnet_mf.weights import parameters

SIZES = [  # width and height: squares, photographs, odd sides, results of 341x256 and 256x341, enlarged and long ones
    (256, 256), (224, 224), (255, 257), (257, 255), (512, 512), (225, 225), (1, 1), (2, 3), (3, 2), (28, 28),
    (500, 375), (375, 500), (640, 480), (480, 640), (1024, 768), (768, 1024), (800, 600), (333, 250), (500, 333),
    (333, 500), (400, 300), (300, 400), (511, 383), (383, 511), (341, 256), (256, 341), (342, 256), (256, 343),
    (1, 30), (30, 1), (7, 90), (90, 7), (1000, 100), (100, 1000), (999, 37), (37, 999), (31, 29), (29, 31),
    (2700, 2100), (2100, 2700),
    *map(tuple, np.random.default_rng(0).integers(1, 900, (64, 2)).tolist())]


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    levels = np.random.default_rng((width, height)).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(levels).convert(mode)


@pytest.fixture
def transforms(requires):
    requires("torch")
    return pytest.importorskip("torchvision.transforms")


def network(*shape: int, first: tuple[Normalize, ...] = ()) -> Network:
    return Network("other", shape, (*first, Flatten("flatten"), Dense("fc1", units=2)))


# Pixels


def test_pixels_equal_torchvisions_at_a_hundred_sizes(transforms):
    assert len(SIZES) > 100
    expected = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    for size in SIZES:
        image = picture(*size)
        levels = prepare(image, IMAGENET)
        assert levels.dtype == np.uint8 and levels.shape == (224, 224, 3)
        assert (levels == np.asarray(expected(image))).all(), size


@pytest.mark.parametrize("resize, crop", [(64, (64, 48)), (65, (33, 64)), ((70, 41), None), ((256, 256), (227, 227)),
                                          (None, (50, 61)), (None, (200, 7)), (None, (90, 301))], ids=str)
def test_other_sizes_equal_torchvisions_too(transforms, resize, crop):
    """A crop that is larger than the picture has black margins."""
    steps = [*([transforms.Resize(resize)] if resize else []), *([transforms.CenterCrop(crop)] if crop else [])]
    for size in ((64, 64), (75, 50), (51, 73), (201, 90), (89, 300), (120, 66)):
        image = picture(*size)
        levels = prepare(image, Preprocessing("rgb", resize=resize, crop=crop))
        assert (levels == np.asarray(transforms.Compose(steps)(image))).all(), size


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "YCbCr"])
def test_pixels_equal_torchvisions_in_every_mode(transforms, mode):
    image = picture(301, 207, mode)
    expected = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(image.convert("RGB"))
    assert (prepare(image, IMAGENET) == np.asarray(expected)).all()


def test_inputs_equal_torchvisions_whole_preprocessing(transforms):
    """torchvision divides by 255; this package multiplies by float32(1/255), like every backend."""
    published = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                                    transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    images = [picture(500, 375), picture(120, 333)]
    inputs = to_inputs(np.stack([prepare(image, IMAGENET) for image in images]), IMAGENET)
    assert inputs.dtype == np.float32 and inputs.shape == (2, 3, 224, 224) and inputs.flags.c_contiguous
    np.testing.assert_allclose(inputs, np.stack([published(image).numpy() for image in images]), atol=1e-6)


def test_a_picture_that_would_grow_too_large_is_refused():
    with pytest.raises(DataError, match="is too long: 1x60000 pixels cannot be resized to 256x15360000; crop it"):
        prepare(Image.new("L", (1, 60_000)), IMAGENET)
    with pytest.raises(DataError, match="is too long: 60000x1 pixels"):
        prepare(Image.new("L", (60_000, 1)), IMAGENET)
    with pytest.raises(DataError, match="is too long: 1x60000 pixels cannot be resized to 60000x1; crop it"):
        prepare(Image.new("L", (1, 60_000)), Preprocessing("gray", resize=(1, 60_000)))  # the rows are resized first
    assert prepare(Image.new("L", (1, 60_000)), FASHION_MNIST).shape == (28, 28)


# Numbers


def test_caffes_channels_are_levels_in_the_order_blue_green_red():
    levels = np.zeros((1, 227, 227, 3), np.uint8)
    levels[..., 0], levels[..., 1], levels[..., 2] = 200, 100, 50
    inputs = to_inputs(levels, CAFFE)
    np.testing.assert_allclose(inputs[0, :, 5, 7], [50 - 104.00699, 100 - 116.66877, 200 - 122.67891], rtol=1e-5)


def test_gray_levels_stay_bytes_unless_they_are_normalized():
    levels = np.arange(2 * 28 * 28).reshape(2, 28, 28).astype(np.uint8)
    assert to_inputs(levels, FASHION_MNIST) is levels
    inputs = to_inputs(levels, dataclasses.replace(FASHION_MNIST, mean=(0.5,), std=(0.25,)))
    np.testing.assert_allclose(inputs, (levels[:, None] / 255 - 0.5) / 0.25, atol=1e-6)
    assert (to_inputs(levels, dataclasses.replace(FASHION_MNIST, scale=1)) == levels[:, None]).all()


def test_bytes_and_numbers_give_the_same_logits():
    """The backend scales bytes to the same bits as `to_inputs`."""
    model = backends.load("numpy").build(LENET5, parameters.initialize(LENET5, 0), "cpu")
    levels = np.random.default_rng(0).integers(0, 256, (2, 28, 28)).astype(np.uint8)
    colors = dataclasses.replace(FASHION_MNIST, color="rgb", mean=(0.0,) * 3)  # not levels, but numbers
    numbers = to_inputs(np.repeat(levels[..., None], 3, axis=-1), colors)[:, :1]
    assert (numbers == levels[:, None] * PIXEL_SCALE).all()
    labels = np.zeros(2, np.int64)
    assert (model.logits(model.place(levels, labels), 2) == model.logits(model.place(numbers, labels), 2)).all()


# Networks


@pytest.mark.parametrize("record, net", [
    (FASHION_MNIST, ALEXNET), (FASHION_MNIST, LENET5), (FASHION_MNIST, ALEXNET_28), (IMAGENET, ALEXNET_OWT),
    (CAFFE, network(3, 227, 227)), (dataclasses.replace(FASHION_MNIST, mean=(0.3,)), LENET5),
    (dataclasses.replace(IMAGENET, mean=None, std=None),
     network(3, 224, 224, first=(Normalize("n", (0.4,) * 3, (0.2,) * 3),)))])
def test_a_network_takes_its_preprocessing(record, net):
    check_fits(record, net)


@pytest.mark.parametrize("record, net, message", [
    (FASHION_MNIST, ALEXNET_OWT, "alexnet-owt takes 3x224x224, but the preprocessing gives 1 channels; use"),
    (IMAGENET, ALEXNET, "alexnet takes 1x224x224, but the preprocessing gives 3 channels"),
    (CAFFE, ALEXNET_OWT, "alexnet-owt takes 3x224x224, but the preprocessing gives 227x227 pixels; use `resize`"),
    (FASHION_MNIST, network(1, 30, 20), "other takes 1x30x20, but the preprocessing gives 28x28 pixels; use `resize`"),
    (dataclasses.replace(FASHION_MNIST, mean=(0.3,)), ALEXNET,
     r"takes 1x224x224, but the preprocessing gives 28x28 pixels, which are enlarged only if they lie in \[0, 1\]"),
    (Preprocessing("rgb", resize=224), ALEXNET_OWT, "but the preprocessing gives pictures of any size; name one"),
    (IMAGENET, network(3, 224, 224, first=(Normalize("n", (0.4,) * 3, (0.2,) * 3),)),
     r"other begins with a Normalize layer, which takes pixels in \[0, 1\], but the preprocessing gives scaled to"),
    (dataclasses.replace(FASHION_MNIST, scale=1), network(1, 28, 28, first=(Normalize("n", (0.4,), (0.2,)),)),
     r"which takes pixels in \[0, 1\], but the preprocessing gives levels 0 to 255; use the network without")])
def test_what_a_network_does_not_take_is_refused(record, net, message):
    with pytest.raises(DataError, match=message):
        check_fits(record, net)
