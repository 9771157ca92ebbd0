"""How good a network is on labelled images, and where it errs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.backends.contract import Model
from alexnet_mf.data import LabelledImages
from alexnet_mf.errors import OutputsNotFinite
from alexnet_mf.training.loop import EVALUATION_BATCH, EVALUATION_PART, log_probabilities

MISTAKES = 30
"""The most confident ones, that are kept."""


@dataclass(frozen=True)
class Mistake:
    """An image that the network is wrong about."""

    image: int
    """Its number in the data set."""
    label: int
    predicted: int
    probability: float
    """Of the class that it was taken for."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found."""

    loss: float
    """Mean cross entropy, in nats."""
    confusion: NDArray[np.int64]
    """Images by their class and by the class that they were taken for, (classes, classes)."""
    mistakes: list[Mistake]
    """The most confident first."""

    @property
    def images(self) -> int:
        """All of them."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The share of images whose most probable class is theirs."""
        return float(np.trace(self.confusion) / self.images)

    @property
    def class_images(self) -> NDArray[np.int64]:
        """Images of each class, (classes,)."""
        return np.asarray(self.confusion.sum(axis=1))

    @property
    def class_accuracy(self) -> NDArray[np.float64]:
        """The same share for each class, (classes,); NaN for one that has no image."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.diag(self.confusion) / self.class_images)


def evaluate(model: Model[Any], data: LabelledImages, on_progress: Callable[[int], None] = lambda images: None,
             mistakes: int = MISTAKES) -> Evaluation:
    """Loss, confusions and the most confident mistakes, dropout off; the numbers are those of `train`'s evaluations.

    Args:
        on_progress: told how many images are done.
        mistakes: how many to keep.

    Raises:
        OutputsNotFinite: where the network gives no numbers.
        DataError: where the network does not take these images.
    """
    parts = []
    for first in range(0, len(data), EVALUATION_PART):
        part = slice(first, first + EVALUATION_PART)
        parts.append(model.logits(model.place(data.images[part], data.labels[part]), EVALUATION_BATCH))
        on_progress(min(first + EVALUATION_PART, len(data)))
    logits = np.concatenate(parts)
    if not np.isfinite(logits).all():
        raise OutputsNotFinite("the network's outputs are NaN or infinite: these weights are of no use")
    return _judged(log_probabilities(logits), logits.argmax(axis=1), data.labels, model.network.classes, mistakes)


def _judged(logarithms: NDArray[np.float64], predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int,
            mistakes: int) -> Evaluation:
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    confidence = logarithms[np.arange(len(labels)), predicted]
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:mistakes]
    loss = -logarithms[np.arange(len(labels)), labels].mean()
    return Evaluation(float(loss), confusion, [Mistake(int(i), int(labels[i]), int(predicted[i]),
                                                       float(np.exp(confidence[i]))) for i in worst])
