"""Evaluations, counted by hand and by the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alexnet_mf import backends, data
from alexnet_mf.data import LabelledImages
from alexnet_mf.errors import OutputsNotFinite
from alexnet_mf.evaluation import EVALUATION_BATCH, evaluate, score
from alexnet_mf.weights import parameters


class Oracle:
    """A model that says what it is told to: the logits of each image, by its first pixel."""

    def __init__(self, network, logits):
        self.network = network
        self.table = np.asarray(logits, float)
        self.batches = []

    def place(self, images, labels):
        return images

    def logits(self, placed, batch_size):
        self.batches.append((len(placed), batch_size))
        return self.table[placed[:, 0, 0]]


def labelled(labels) -> LabelledImages:
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(len(labels))
    return LabelledImages(images, np.asarray(labels, np.int64))


def said(*pairs):
    """Logits for which the softmax gives that class that probability, and the others equal shares of the rest."""
    rows = []
    for label, probability in pairs:
        row = np.full(10, math.log((1 - probability) / 9))
        row[label] = math.log(probability)
        rows.append(row)
    return rows


def test_counts_by_hand(small):
    model = Oracle(small, said((0, 0.9), (2, 0.6), (2, 0.8), (1, 0.5), (2, 0.7)))
    found = evaluate(model, labelled([0, 1, 1, 1, 2]))
    expected = np.zeros((10, 10), int)
    expected[0, 0], expected[1, 2], expected[1, 1], expected[2, 2] = 1, 2, 1, 1
    assert (found.confusion == expected).all()
    assert found.images == 5 and found.accuracy == 3 / 5
    assert found.class_images.tolist() == [1, 3, 1, 0, 0, 0, 0, 0, 0, 0]
    assert found.class_accuracy[:3].tolist() == [1, 1 / 3, 1] and np.isnan(found.class_accuracy[3:]).all()
    assert found.loss == pytest.approx(-np.mean(np.log([0.9, 0.4 / 9, 0.2 / 9, 0.5, 0.7])))
    assert [(wrong.image, wrong.label, wrong.predicted) for wrong in found.mistakes] == [(2, 1, 2), (1, 1, 2)]
    assert [wrong.probability for wrong in found.mistakes] == pytest.approx([0.8, 0.6])


def test_only_the_most_confident_mistakes_are_kept(small):
    model = Oracle(small, said(*((3, 0.2 + i / 100) for i in range(50))))
    assert [wrong.image for wrong in evaluate(model, labelled([4] * 50), mistakes=3).mistakes] == [49, 48, 47]


def test_progress_is_told_part_by_part(small):
    model, told = Oracle(small, said((0, 0.9)) * 256), []
    many = LabelledImages(np.zeros((1200, 28, 28), np.uint8), np.zeros(1200, np.int64))
    assert evaluate(model, many, told.append).accuracy == 1
    assert told == [512, 1024, 1200] and sum(n for n, _ in model.batches) == 1200


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outputs_that_are_no_numbers_are_told(small, bad):
    logits = said((0, 0.9), (0, 0.9))
    logits[1][4] = bad
    with pytest.raises(OutputsNotFinite, match="NaN or infinite"):
        evaluate(Oracle(small, logits), labelled([0, 0]))


def test_the_numbers_are_the_trainings(backend, small):
    """And the reference's confusions, but for near ties."""
    images = data.synthetic.draw(0, train=1, test=600).test
    weights = parameters.initialise(small, 0, random_biases=True)
    model = backend.build(small, weights, "cpu")
    found = evaluate(model, images)
    logits = model.logits(model.place(images.images, images.labels), EVALUATION_BATCH)
    loss, accuracy = score(logits, images.labels)
    assert (found.loss, found.accuracy) == (pytest.approx(loss, rel=1e-6), pytest.approx(accuracy))
    reference = evaluate(backends.load("numpy").build(small, weights, "cpu"), images)
    assert found.loss == pytest.approx(reference.loss, rel=1e-5)
    assert np.abs(found.confusion - reference.confusion).sum() <= 4
