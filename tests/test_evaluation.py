"""Evaluations, compared with counts by hand and with the reference implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alexnet_mf import backends, data
from alexnet_mf.data import LabeledImages
from alexnet_mf.errors import OutputsNotFinite
from alexnet_mf.evaluation import EVALUATION_BATCH, evaluate, score
from alexnet_mf.weights import parameters


class TableModel:
    """Model with a table of logits. The first pixel of an image is its row."""

    def __init__(self, network, logits):
        self.network = network
        self.table = np.asarray(logits, float)
        self.batches = []

    def place(self, images, labels):
        return images

    def logits(self, placed, batch_size):
        self.batches.append((len(placed), batch_size))
        return self.table[placed[:, 0, 0]]


def make_images(labels) -> LabeledImages:
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(len(labels))
    return LabeledImages(images, np.asarray(labels, np.int64))


def make_logits(*pairs):
    """Return logits that give each image's class its probability. The other classes share the rest equally."""
    rows = []
    for label, probability in pairs:
        row = np.full(10, math.log((1 - probability) / 9))
        row[label] = math.log(probability)
        rows.append(row)
    return rows


def test_an_evaluation_matches_counts_by_hand(small):
    model = TableModel(small, make_logits((0, 0.9), (2, 0.6), (2, 0.8), (1, 0.5), (2, 0.7)))
    result = evaluate(model, make_images([0, 1, 1, 1, 2]))
    expected = np.zeros((10, 10), int)
    expected[0, 0], expected[1, 2], expected[1, 1], expected[2, 2] = 1, 2, 1, 1
    assert (result.confusion == expected).all()
    assert result.images == 5 and result.accuracy == 3 / 5
    assert result.class_images.tolist() == [1, 3, 1, 0, 0, 0, 0, 0, 0, 0]
    assert result.class_accuracy[:3].tolist() == [1, 1 / 3, 1] and np.isnan(result.class_accuracy[3:]).all()
    assert result.loss == pytest.approx(-np.mean(np.log([0.9, 0.4 / 9, 0.2 / 9, 0.5, 0.7])))
    assert [(wrong.image, wrong.label, wrong.predicted) for wrong in result.mistakes] == [(2, 1, 2), (1, 1, 2)]
    assert [wrong.probability for wrong in result.mistakes] == pytest.approx([0.8, 0.6])


def test_only_the_most_confident_mistakes_are_kept(small):
    model = TableModel(small, make_logits(*((3, 0.2 + i / 100) for i in range(50))))
    assert [wrong.image for wrong in evaluate(model, make_images([4] * 50), mistakes=3).mistakes] == [49, 48, 47]


def test_progress_is_reported_part_by_part(small):
    model, calls = TableModel(small, make_logits((0, 0.9)) * 256), []
    many = LabeledImages(np.zeros((1200, 28, 28), np.uint8), np.zeros(1200, np.int64))
    assert evaluate(model, many, calls.append).accuracy == 1
    assert calls == [512, 1024, 1200] and sum(n for n, _ in model.batches) == 1200


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused(small, bad):
    logits = make_logits((0, 0.9), (0, 0.9))
    logits[1][4] = bad
    with pytest.raises(OutputsNotFinite, match="NaN or infinite"):
        evaluate(TableModel(small, logits), make_images([0, 0]))


def test_an_evaluation_gives_the_numbers_of_the_training(backend, small):
    """The confusion matrix is the reference's, except for near ties."""
    images = data.synthetic.draw(0, train=1, test=600).test
    weights = parameters.initialize(small, 0, random_biases=True)
    model = backend.build(small, weights, "cpu")
    result = evaluate(model, images)
    logits = model.logits(model.place(images.images, images.labels), EVALUATION_BATCH)
    loss, accuracy = score(logits, images.labels)
    assert (result.loss, result.accuracy) == (pytest.approx(loss, rel=1e-6), pytest.approx(accuracy))
    reference = evaluate(backends.load("numpy").build(small, weights, "cpu"), images)
    assert result.loss == pytest.approx(reference.loss, rel=1e-5)
    assert np.abs(result.confusion - reference.confusion).sum() <= 4
