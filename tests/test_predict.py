"""Predictions: the softmax of a model's logits on the prepared pictures, in order; and unreadable files."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from alexnet_mf import backends
from alexnet_mf.data import FASHION_CLASSES
from alexnet_mf.data.image_files import Unreadable
from alexnet_mf.data.preprocessing import Preparation
from alexnet_mf.errors import DataError, OutputsNotFinite
from alexnet_mf.predict import BATCH, class_names, predict, preparation
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import Conv2d, Dense, Flatten, Normalize
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
    results = list(predict(model, [folder], preparation(enlarged), top=4))
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
    answer = next(predict(model, [garments[1]], preparation(small), top=99))
    assert sorted(answer.labels) == list(range(10))
    assert sum(answer.probabilities) == pytest.approx(1)
    assert answer.probabilities == sorted(answer.probabilities, reverse=True)


def test_pictures_are_read_batch_by_batch(small, garments):
    """A folder of any size takes the memory of one batch."""
    model = backends.load("numpy").build(small, parameters.initialize(small, 0), "cpu")
    results = predict(model, [garments[1]], preparation(small))
    next(results)
    (garments[1] / f"{BATCH + 1:03}.png").unlink()
    assert isinstance(list(results)[-1], Unreadable)


def test_color_networks_and_other_sizes_are_supported(garments):
    for shape in ((3, 40, 60), (1, 64, 48)):
        network = Network("other", shape, (Conv2d("c", channels=4, kernel=5, stride=4), Flatten("f"),
                                           Dense("d", units=3)))
        model = backends.load("numpy").build(network, parameters.initialize(network, 0), "cpu")
        answer = next(predict(model, [garments[1]], preparation(network), top=3))
        assert sum(answer.probabilities) == pytest.approx(1)
        assert answer.seen.dtype == np.uint8 and answer.seen.shape == shape[1:] + ((3,) if shape[0] == 3 else ())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(small, garments, monkeypatch, bad):
    model = backends.load("numpy").build(small, parameters.initialize(small, 0), "cpu")
    monkeypatch.setattr(model, "logits", lambda placed, batch_size: np.full((len(placed), 10), bad))
    monkeypatch.setattr(model, "place", lambda inputs, labels: inputs)
    with pytest.raises(OutputsNotFinite, match="NaN or infinite"):
        next(predict(model, [garments[1]], preparation(small)))


@pytest.mark.parametrize("network, expected", [
    (ALEXNET, Preparation(28, 28)), (LENET5, Preparation(28, 28)), (ALEXNET_28, Preparation(28, 28)),
    (ALEXNET_OWT, Preparation(224, 224, color=True, levels=False)),
    (dataclasses.replace(ALEXNET_OWT, name="normalizes", layers=(
        Normalize("norm", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), *ALEXNET_OWT.layers)),
     Preparation(224, 224, color=True, levels=False, normalize=False))], ids=lambda each: getattr(each, "name", ""))
def test_the_preparation_follows_from_the_networks_input(network, expected):
    assert preparation(network) == expected
    assert preparation(network, invert=True) == dataclasses.replace(expected, invert=True)


def test_a_network_for_two_channels_is_refused():
    network = Network("two", (2, 8, 8), (Flatten("f"), Dense("d", units=2)))
    with pytest.raises(DataError, match="network two takes 2 channels, and pictures have 1 or 3"):
        preparation(network)


def test_classes_of_fashion_mnist_have_names_and_others_numbers(small):
    assert class_names(ALEXNET) == FASHION_CLASSES
    assert class_names(dataclasses.replace(small, input=(3, 28, 28)))[0] == "class 0", "ten classes, but color images"
    two = (*small.layers[:-1], Dense("fc4", units=2))
    assert class_names(dataclasses.replace(small, layers=two)) == ("class 0", "class 1")
    assert class_names(ALEXNET_OWT)[-1] == "class 999" and len(class_names(ALEXNET_OWT)) == 1000
