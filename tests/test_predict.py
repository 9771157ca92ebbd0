"""Predictions: the softmax of a model's logits on the prepared pictures, in order; and unreadable files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_mf import backends, data
from alexnet_mf.conversion import Weights
from alexnet_mf.data import FASHION_CLASSES, LabeledImages
from alexnet_mf.data.image_files import Unreadable
from alexnet_mf.data.preprocessing import prepare, to_inputs
from alexnet_mf.errors import AlexnetMfError, DataError, OutputsNotFinite
from alexnet_mf.predict import (
    BATCH,
    choose_preprocessing,
    class_names,
    is_dark_on_light,
    normalized,
    predict,
    stated_preprocessing,
)
from alexnet_mf.spec import Network, Preprocessing
from alexnet_mf.spec.layers import Conv2d, Dense, Flatten, Normalize
from alexnet_mf.spec.preprocessing import CAFFE, FASHION_MNIST, IMAGENET
from alexnet_mf.spec.zoo import ALEXNET, ALEXNET_28, ALEXNET_OWT, LENET5
from alexnet_mf.weights import parameters


@pytest.fixture
def enlarged(small):
    """Return a network for images enlarged to twice their size, with the layers of the small one."""
    layers = list(small.layers)
    layers[0] = dataclasses.replace(layers[0], stride=4)
    return dataclasses.replace(small, input=(1, 56, 56), layers=tuple(layers))


@pytest.fixture
def garments(tmp_path):
    """Write more pictures than a batch has, and one file that is no picture; return the pixels and the folder."""
    images = np.random.default_rng(0).integers(0, 256, (BATCH + 2, 28, 28)).astype(np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number:03}.png")
    (tmp_path / "001a.png").write_text("no picture")
    return images, tmp_path


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_predictions_are_the_softmax_of_the_logits(backend, enlarged, garments):
    images, folder = garments
    weights = parameters.initialize(enlarged, 0, random_biases=True)
    model = backend.build(enlarged, weights, "cpu")
    results = list(predict(model, [folder], FASHION_MNIST, top=4))
    assert [index for index, each in enumerate(results) if isinstance(each, Unreadable)] == [2]
    answers = [each for each in results if not isinstance(each, Unreadable)]
    assert [answer.name for answer in answers] == [str(folder / f"{i:03}.png") for i in range(len(images))]
    reference = backends.load("numpy").build(enlarged, weights, "cpu")
    shares = softmax(reference.logits(reference.place(images, np.zeros(len(images), np.int64)), 8))
    for answer, expected, image in zip(answers, shares, images, strict=True):
        np.testing.assert_allclose(answer.probabilities, np.sort(expected)[::-1][:4], rtol=1e-4)
        np.testing.assert_allclose(expected[answer.labels], answer.probabilities, rtol=1e-4)
        assert (answer.seen == image).all()


def test_top_is_limited_to_the_number_of_classes(small, garments):
    model = backends.load("numpy").build(small, parameters.initialize(small, 0), "cpu")
    answer = next(predict(model, [garments[1]], FASHION_MNIST, top=99))
    assert sorted(answer.labels) == list(range(10))
    assert sum(answer.probabilities) == pytest.approx(1)
    assert answer.probabilities == sorted(answer.probabilities, reverse=True)


def test_pictures_are_read_batch_by_batch(small, garments):
    """A folder of any size takes the memory of one batch."""
    model = backends.load("numpy").build(small, parameters.initialize(small, 0), "cpu")
    results = predict(model, [garments[1]], FASHION_MNIST)
    next(results)
    (garments[1] / f"{BATCH + 1:03}.png").unlink()
    assert isinstance(list(results)[-1], Unreadable)


@pytest.mark.parametrize("record", [
    Preprocessing("rgb", resize=60, crop=(40, 60), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
    Preprocessing("bgr", resize=(44, 60), crop=(40, 60), scale=1, mean=(1, 2, 3)),
    Preprocessing("gray", resize=(64, 48), fit=True), Preprocessing("gray", resize=(64, 48), mean=(0.5,), std=(0.5,))],
    ids=Preprocessing.describe)
def test_color_networks_and_other_sizes_are_supported(garments, record):
    images, folder = garments
    network = Network("other", (record.channels, *record.size), (
        Conv2d("c", channels=4, kernel=5, stride=4), Flatten("f"), Dense("d", units=3)))
    model = backends.load("numpy").build(network, parameters.initialize(network, 0), "cpu")
    answer = next(predict(model, [folder], record, top=3))
    levels = prepare(Image.fromarray(images[0]), record)
    assert (answer.seen == levels).all() and answer.seen.shape == record.size + (3,) * (record.channels == 3)
    expected = softmax(model.logits(model.place(
        to_inputs(levels[np.newaxis], record), np.zeros(1, np.int64)), 1).astype(np.float64))[0]
    np.testing.assert_allclose(answer.probabilities, np.sort(expected)[::-1], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(small, garments, monkeypatch, bad):
    model = backends.load("numpy").build(small, parameters.initialize(small, 0), "cpu")
    monkeypatch.setattr(model, "logits", lambda placed, batch_size: np.full((len(placed), 10), bad))
    monkeypatch.setattr(model, "place", lambda inputs, labels: inputs)
    with pytest.raises(OutputsNotFinite, match="NaN or infinite"):
        next(predict(model, [garments[1]], FASHION_MNIST))


def stated(network: Network, **metadata: Any) -> Weights:
    """Return weights whose file has these entries."""
    return Weights("safetensors", Path("w.safetensors"), network, {}, metadata)


NORMALIZES = dataclasses.replace(ALEXNET_OWT, name="normalizes", layers=(
    Normalize("norm", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), *ALEXNET_OWT.layers))
COLOR = Preprocessing("rgb", resize=224, crop=(224, 224))
"""Default for a network that takes color, apart from the normalization."""
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


@pytest.mark.parametrize("network, expected", [
    (ALEXNET, FASHION_MNIST), (LENET5, FASHION_MNIST), (ALEXNET_28, FASHION_MNIST), (NORMALIZES, COLOR),
    (dataclasses.replace(LENET5, name="other", input=(1, 30, 34)), Preprocessing("gray", resize=(30, 34), fit=True))],
    ids=lambda each: getattr(each, "name", ""))
def test_without_a_record_the_preprocessing_follows_from_the_networks_input(network, expected):
    assert choose_preprocessing(stated(network)) == expected
    assert choose_preprocessing(stated(network), normalize=False) == expected
    assert choose_preprocessing(stated(network), invert=True) == dataclasses.replace(expected, invert=True)


def test_the_normalization_of_colors_is_never_guessed():
    with pytest.raises(DataError, match=r"w\.safetensors: does not state how the colors of its pictures were "
                                        r"normalized; give `mean` and `std`, or `normalize=False` if they were only"):
        choose_preprocessing(stated(ALEXNET_OWT))
    assert choose_preprocessing(stated(ALEXNET_OWT), normalize=False) == COLOR
    assert choose_preprocessing(stated(ALEXNET_OWT), mean=MEAN, std=STD) == \
        dataclasses.replace(COLOR, mean=MEAN, std=STD)


def test_the_record_of_the_weights_is_used_and_arguments_change_it():
    weights = stated(ALEXNET_OWT, preprocessing=IMAGENET.as_dict())

    def changed(**fields):
        return dataclasses.replace(IMAGENET, **fields)

    assert choose_preprocessing(weights) == IMAGENET
    assert choose_preprocessing(weights, mean=list(MEAN), std=list(STD)) == changed(mean=MEAN, std=STD)
    assert choose_preprocessing(weights, normalize=False) == changed(mean=None, std=None)
    assert choose_preprocessing(weights, resize=240) == changed(resize=240)
    assert choose_preprocessing(weights, resize=(224, 224)) == changed(resize=(224, 224), crop=None)
    assert choose_preprocessing(weights, resize=(256, 256), crop=224) == changed(resize=(256, 256))
    assert choose_preprocessing(weights, crop=(224, 224), invert=True) == changed(invert=True)
    gray = stated(ALEXNET, preprocessing=FASHION_MNIST.as_dict())
    assert choose_preprocessing(gray, resize=224, mean=[0.5], std=[0.5]) == \
        Preprocessing("gray", resize=224, crop=(224, 224), mean=(0.5,), std=(0.5,))
    assert choose_preprocessing(gray, resize=32, crop=28) == Preprocessing("gray", resize=32, crop=(28, 28))


def test_arguments_name_red_first_and_numbers_in_0_to_1_whatever_the_record_has():
    caffe = stated(dataclasses.replace(ALEXNET_OWT, name="c", input=(3, 227, 227)), preprocessing=CAFFE.as_dict())
    assert choose_preprocessing(caffe) == CAFFE
    assert choose_preprocessing(caffe, mean=MEAN, std=STD) == \
        dataclasses.replace(CAFFE, scale=1 / 255, mean=MEAN[::-1], std=STD[::-1])
    assert choose_preprocessing(caffe, normalize=False) == dataclasses.replace(CAFFE, scale=1 / 255, mean=None)
    assert choose_preprocessing(caffe, color="bgr") == CAFFE
    assert choose_preprocessing(caffe, color="rgb") == dataclasses.replace(CAFFE, color="rgb", mean=CAFFE.mean[::-1])
    unstated = stated(ALEXNET_OWT)
    assert choose_preprocessing(unstated, color="bgr", mean=MEAN, std=STD) == \
        dataclasses.replace(COLOR, color="bgr", mean=MEAN[::-1], std=STD[::-1])


@pytest.mark.parametrize("network, record, arguments, message", [
    (ALEXNET_OWT, None, {"mean": MEAN}, "`mean` and `std` belong together; give both"),
    (ALEXNET_OWT, None, {"std": STD}, "`mean` and `std` belong together; give both"),
    (ALEXNET_OWT, IMAGENET, {"mean": MEAN, "std": STD, "normalize": False}, "`normalize=False` contradicts `mean` and"),
    (NORMALIZES, None, {"mean": MEAN, "std": STD}, "normalizes begins with a Normalize layer; leave out `mean` and"),
    (NORMALIZES, IMAGENET, {}, "normalizes begins with a Normalize layer, which takes .*; use the network without"),
    (ALEXNET_OWT, None, {"mean": [0.5], "std": [0.5]}, "mean must be a list with a number .* for each channel"),
    (ALEXNET, FASHION_MNIST, {"color": "bgr"}, "network alexnet takes gray pictures; leave out `color`"),
    (ALEXNET_OWT, IMAGENET, {"color": "red"}, "`color` must be one of rgb, bgr, not 'red'"),
    (ALEXNET_OWT, IMAGENET, {"crop": 200}, "takes 3x224x224, but the preprocessing gives 200x200 pixels, .*; use"),
    (ALEXNET_OWT, IMAGENET, {"resize": 200}, "a crop of 224x224 is larger than a picture resized to 200"),
    (ALEXNET_OWT, IMAGENET, {"resize": 2.5}, "resize must be"), (ALEXNET_OWT, IMAGENET, {"crop": "x"}, "crop must be"),
    (ALEXNET, FASHION_MNIST, {"mean": [0.3], "std": [0.3]}, "takes 1x224x224, but the preprocessing gives 28x28 pixe"),
    (ALEXNET_OWT, FASHION_MNIST, {}, "takes 3x224x224, but the preprocessing gives 1 channels"),
    (Network("two", (2, 8, 8), (Flatten("f"), Dense("d", units=2))), None, {},
     "network two takes 2 channels, and pictures have 1 or 3")])
def test_what_cannot_be_right_is_refused(network, record, arguments, message):
    with pytest.raises(AlexnetMfError, match=message):
        choose_preprocessing(stated(network, **({"preprocessing": record.as_dict()} if record else {})), **arguments)


def test_classes_have_the_weights_names_or_fashion_mnists_or_numbers(small):
    assert class_names(stated(ALEXNET)) == FASHION_CLASSES
    assert class_names(stated(ALEXNET, classes=list("abcdefghij"))) == tuple("abcdefghij")
    assert class_names(stated(dataclasses.replace(small, input=(3, 28, 28))))[0] == "class 0", "ten, but color images"
    two = (*small.layers[:-1], Dense("fc4", units=2))
    assert class_names(stated(dataclasses.replace(small, layers=two))) == ("class 0", "class 1")
    assert class_names(stated(ALEXNET_OWT))[-1] == "class 999" and len(class_names(stated(ALEXNET_OWT))) == 1000


def test_a_datasets_images_are_normalized_as_the_weights_state(small):
    images = LabeledImages(np.arange(2 * 784).reshape(2, 28, 28).astype(np.uint8), np.array([3, 4]))
    assert stated_preprocessing(stated(small)) is None
    assert stated_preprocessing(stated(small, preprocessing=FASHION_MNIST.as_dict())) == FASHION_MNIST
    assert normalized(images, FASHION_MNIST, small) is images
    record = Preprocessing("gray", resize=32, crop=(28, 28), mean=(0.5,), std=(0.25,))
    assert stated_preprocessing(stated(small, preprocessing=record.as_dict())) == record
    result = normalized(images, record, small)
    assert (len(result.images), result.images.shape) == (2, (2, 1, 28, 28))
    np.testing.assert_allclose(result.images[np.array([1, 0])], (images.images[::-1, None] / 255 - 0.5) / 0.25,
                               atol=1e-6)
    assert (result.labels == images.labels).all()
    with pytest.raises(DataError, match=r"network alexnet takes .*28x28 pixels"):
        stated_preprocessing(stated(ALEXNET, preprocessing=record.as_dict()))


def test_pictures_that_are_dark_on_light_are_noticed():
    drawn = data.synthetic.draw(0, train=1, test=300).test.images
    assert sum(is_dark_on_light(image, FASHION_MNIST) for image in drawn) < 6
    assert sum(is_dark_on_light(255 - image, FASHION_MNIST) for image in drawn) > 290
    margins = np.zeros((28, 28), np.uint8)
    margins[:, 8:20] = 255 - drawn[0][:, 8:20]
    assert is_dark_on_light(margins, FASHION_MNIST), "with the black margins of a narrow picture"
    assert not is_dark_on_light(255 - drawn[0], dataclasses.replace(FASHION_MNIST, invert=True))
    assert not is_dark_on_light(255 - drawn[0], Preprocessing("gray", resize=28, crop=(28, 28)))
    assert not is_dark_on_light(np.zeros((28, 28), np.uint8), FASHION_MNIST)


def test_the_normalization_of_a_datasets_colors_is_not_guessed():
    with pytest.raises(DataError, match=r"w\.safetensors: does not state how the colors .* normalized; give `mean`"):
        stated_preprocessing(stated(ALEXNET_OWT))
