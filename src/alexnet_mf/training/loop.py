"""The training loop: the same for every backend, with no framework inside."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alexnet_mf.backends.base import Model
from alexnet_mf.data import LabelledImages, batches, epoch_order
from alexnet_mf.errors import TrainingDiverged
from alexnet_mf.training import memory
from alexnet_mf.training.recipe import Recipe

READING_INTERVAL = 1.0
"""Seconds between two readings of the metrics: a reading waits for the device, a step does not."""

EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Progress:
    """Where the training is. Loss and accuracy are means over the epoch so far, dropout on and the weights moving."""

    epoch: int
    epochs: int
    step: int
    """Steps taken in this epoch."""
    steps: int
    loss: float
    train_accuracy: float
    images_per_second: float
    seconds_left: float
    """Of training, evaluation left out."""


@dataclass(frozen=True)
class Epoch:
    """The closing figures of an epoch; the training ones are means over it, as in the book."""

    epoch: int
    loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float


@dataclass(frozen=True)
class Result:
    """A finished training."""

    epochs: list[Epoch]
    images: int
    """Images trained while the clock ran: all but the first step's."""
    seconds: float
    """Time of the loop: input included, device synchronised, evaluation and the first step left out."""
    losses: list[float]
    """Mean cross entropy of each step's batch."""

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else float("nan")


@dataclass
class _Clock:
    """Counts images and seconds while it runs; the device is synchronised at both ends."""

    model: Model[Any]
    images: int = 0
    seconds: float = 0.0
    _started: float | None = None

    def start(self) -> None:
        self.model.synchronize()
        self._started = time.perf_counter()

    def stop(self) -> None:
        self.model.synchronize()
        self.seconds = self.elapsed()
        self._started = None

    def count(self, images: int) -> None:
        if self._started is not None:
            self.images += images

    def elapsed(self) -> float:
        return self.seconds + (time.perf_counter() - self._started if self._started is not None else 0.0)


@dataclass
class _Means:
    """Running means over an epoch."""

    loss: float = 0.0
    correct: int = 0
    images: int = 0
    losses: list[float] = field(default_factory=list)

    def add(self, losses: np.ndarray, correct: np.ndarray, sizes: np.ndarray) -> None:
        self.loss += float((losses * sizes).sum())
        self.correct += int(correct.sum())
        self.images += int(sizes.sum())
        self.losses += losses.tolist()


def train(model: Model[Any], training_set: LabelledImages, test_set: LabelledImages, recipe: Recipe, seed: int = 0,
          on_progress: Callable[[Progress], None] = lambda progress: None,
          on_epoch: Callable[[Epoch], None] = lambda epoch: None) -> Result:
    """Train a model in place.

    The order of the batches is NumPy's, from the seed, the same in every backend; the last, short batch is used.

    Raises:
        TrainingDiverged: as soon as a reading or an evaluation shows a loss that is NaN or infinite; names the step.
        OutOfMemory: where the batch does not fit in the device's memory; names a size that would.
    """
    training_set, test_set = training_set.first(recipe.train_images), test_set.first(recipe.test_images)
    batch_size = min(recipe.batch_size, len(training_set))
    memory.check_fits(model, batch_size)
    placed, placed_test = (model.place(part.images, part.labels) for part in (training_set, test_set))
    try:
        return _train(model, training_set, placed, placed_test, test_set, recipe, seed, on_progress, on_epoch)
    except Exception as error:
        if not model.out_of_memory(error):
            raise
    raise memory.does_not_fit(model, placed, batch_size)


def _train(model: Model[Any], training_set: LabelledImages, placed: Any, placed_test: Any, test_set: LabelledImages,
           recipe: Recipe, seed: int, on_progress: Callable[[Progress], None],
           on_epoch: Callable[[Epoch], None]) -> Result:
    """The loop itself, on data that is on the device."""
    trainer = model.trainer(recipe.sgd, seed)
    clock = _Clock(model)
    steps = -(-len(training_set) // recipe.batch_size)
    all_images = recipe.epochs * len(training_set)
    anneal_after = recipe.epochs * steps - int(recipe.annealed * recipe.epochs * steps)
    epochs: list[Epoch] = []
    losses: list[float] = []
    trained = number = 0
    for epoch in range(1, recipe.epochs + 1):
        means = _Means()
        rows = batches(epoch_order(len(training_set), seed, epoch - 1), recipe.batch_size)
        sizes = np.array([len(row) for row in rows])
        read = 0
        if number > 0 or recipe.epochs * steps == 1:
            clock.start()
        last_reading = time.perf_counter()
        for step, indices in enumerate(rows, 1):
            trainer.step(placed, indices, number)
            number += 1
            trained += len(indices)
            clock.count(len(indices))
            if number == 1 and clock.images == 0:
                clock.start()  # the first step compiles and allocates
            if step == steps or number == anneal_after or time.perf_counter() - last_reading >= READING_INTERVAL:
                metrics = trainer.read()
                _check_finite(metrics.losses, number - step + read, recipe)
                means.add(metrics.losses, metrics.correct, sizes[read:step])
                read, last_reading = step, time.perf_counter()
                rate = clock.images / clock.elapsed() if clock.images else float("nan")
                on_progress(Progress(epoch, recipe.epochs, step, steps, means.loss / means.images,
                                     means.correct / means.images, rate, (all_images - trained) / rate))
            if number == anneal_after and trained < all_images:
                trainer = model.trainer(recipe.annealed_sgd, seed)
        clock.stop()
        test_loss, test_accuracy = evaluate(model, placed_test, test_set.labels)
        if not math.isfinite(test_loss):
            raise _diverged(f"the loss on the test images is {test_loss} after step {number}", recipe)
        losses += means.losses
        epochs.append(Epoch(epoch, means.loss / means.images, means.correct / means.images, test_loss, test_accuracy))
        on_epoch(epochs[-1])
    return Result(epochs, clock.images, clock.seconds, losses)


def evaluate(model: Model[Any], placed: Any, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross entropy and top-1 accuracy, dropout off."""
    logits = model.logits(placed, EVALUATION_BATCH).astype(np.float64)
    with np.errstate(invalid="ignore"):  # of an infinite logit the loss is not a number, and no warning is needed
        shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def _check_finite(losses: np.ndarray, first: int, recipe: Recipe) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise _diverged(f"the loss is {losses[bad[0]]} in step {first + bad[0] + 1}", recipe)


def _diverged(what: str, recipe: Recipe) -> TrainingDiverged:
    return TrainingDiverged(f"{what}; the learning rate is {recipe.sgd.learning_rate:g}: try a smaller one (--lr)")
