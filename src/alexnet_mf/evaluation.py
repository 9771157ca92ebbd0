"""Evaluation of a network on labeled images: loss, accuracy and mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.backends.contract import Model
from alexnet_mf.data import LabeledImages
from alexnet_mf.data.batches import batches, read_batch
from alexnet_mf.errors import OutputsNotFinite

EVALUATION_BATCH = 128
EVALUATION_PART = 4 * EVALUATION_BATCH
"""Images between two progress reports; a training can stop only between these parts."""

MISTAKES = 30
"""Number of mistakes to keep."""
TOP = 5
"""Number of classes among which the true one counts in the top-5 accuracy."""


@dataclass(frozen=True)
class Mistake:
    """An image that the network classifies wrongly."""

    image: int
    """Number of the image in the dataset."""
    label: int
    predicted: int
    probability: float
    """Probability of the predicted class."""
    name: str | None = None
    """File of the image; None if it has only its number."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of an evaluation."""

    loss: float
    """Mean cross entropy, in nats."""
    confusion: NDArray[np.int64]
    """Number of images by true class (row) and predicted class (column), (classes, classes)."""
    mistakes: list[Mistake]
    """The most confident first."""
    top5_accuracy: float | None = None
    """Share of images whose true class is among the five most probable; None for five classes or fewer."""

    @property
    def images(self) -> int:
        """Return the number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Return the share of images whose most probable class is the true one."""
        return float(np.trace(self.confusion) / self.images)

    @property
    def class_images(self) -> NDArray[np.int64]:
        """Return the number of images of each class, (classes,)."""
        return np.asarray(self.confusion.sum(axis=1))

    @property
    def class_accuracy(self) -> NDArray[np.float64]:
        """Return the accuracy of each class, (classes,); NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.diag(self.confusion) / self.class_images)


def log_probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the logarithm of the softmax, (n, classes), in float64."""
    logits = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # an infinite logit makes the loss NaN, which needs no warning
        shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def score(logits: NDArray[Any], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Return the mean cross entropy and the top-1 accuracy."""
    loss = -log_probabilities(logits)[np.arange(len(labels)), labels].mean()
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def place_parts(model: Model[Any], data: LabeledImages) -> Iterator[Any]:
    """Yield the images on the device, `EVALUATION_PART` at a time. The next part is read while one is used."""
    parts = batches(np.arange(len(data)), EVALUATION_PART)
    with ThreadPoolExecutor(1, "read part") as pool:
        reading = [pool.submit(read_batch, data.images, rows, model.network) for rows in parts[:1]]
        for rows, following in zip(parts, [*parts[1:], None]):
            inputs = reading.pop().result()
            if following is not None:
                reading.append(pool.submit(read_batch, data.images, following, model.network))
            yield model.place(inputs, data.labels[rows])


def evaluate(model: Model[Any], data: LabeledImages, on_progress: Callable[[int], None] = lambda images: None,
             mistakes: int = MISTAKES, views: Sequence[LabeledImages] = ()) -> Evaluation:
    """Compute loss, accuracies, confusion matrix and the most confident mistakes without dropout, as `train` does after
    each epoch.

    Args:
        on_progress: receives the number of images evaluated so far.
        mistakes: number of mistakes to keep.
        views: the same images in several ways, such as crops, whose probabilities are averaged; without them `data`.

    Raises:
        OutputsNotFinite: if logits are NaN or infinite.
        DataError: if the network does not take these images.
    """
    views, done = views or [data], 0
    seen = []
    for view in views:
        parts: list[NDArray[Any]] = []
        for placed in place_parts(model, view):
            parts.append(model.logits(placed, EVALUATION_BATCH))
            done += len(parts[-1])
            on_progress(done // len(views))
        seen.append(np.concatenate(parts))
        check_finite(seen[-1])
    logarithms = log_probabilities(seen[0]) if len(seen) == 1 else \
        np.log(np.mean([np.exp(log_probabilities(logits)) for logits in seen], axis=0))
    labels, predicted = data.labels, (seen[0] if len(seen) == 1 else logarithms).argmax(axis=1)
    confusion = np.zeros((model.network.classes, model.network.classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    rows = np.arange(len(labels))
    confidence = logarithms[rows, predicted]
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:mistakes]
    true = logarithms[rows, labels]
    among = (logarithms > true[:, np.newaxis]).sum(axis=1) < TOP
    return Evaluation(float(-true.mean()), confusion, [
        Mistake(int(i), int(labels[i]), int(predicted[i]), float(np.exp(confidence[i])), data.name(int(i)))
        for i in worst], float(among.mean()) if model.network.classes > TOP else None)


def check_finite(logits: NDArray[Any]) -> None:
    """Check that all logits are finite.

    Raises:
        OutputsNotFinite: if a logit is NaN or infinite.
    """
    if not np.isfinite(logits).all():
        raise OutputsNotFinite("the weights produce NaN or infinite logits")
