"""The training loop: the same for every backend, without a framework."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from alexnet_mf.backends.contract import Model, TrainerState
from alexnet_mf.data import LabelledImages, batches, epoch_order
from alexnet_mf.errors import OutOfMemory, TrainingDiverged
from alexnet_mf.evaluation import EVALUATION_BATCH, EVALUATION_PART, score
from alexnet_mf.training import memory
from alexnet_mf.training.recipe import Recipe

READING_INTERVAL = 1.0
"""Seconds between two readings of the metrics: a reading waits for the device, a step does not."""


@dataclass(frozen=True)
class Progress:
    """Progress of a training. Loss and accuracy are means over the epoch so far, dropout on and the weights moving."""

    epoch: int
    epochs: int
    step: int
    """Steps taken in this epoch."""
    steps: int
    loss: float
    train_accuracy: float
    images_per_second: float
    seconds_left: float
    """Time left to train, evaluation left out."""


@dataclass(frozen=True)
class Epoch:
    """Closing figures of an epoch; those of the training are means over it, as in the book."""

    epoch: int
    loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float

    def describe(self) -> str:
        """Return the book's closing line."""
        return f"loss {self.loss:.3f}, train acc {self.train_accuracy:.3f}, test acc {self.test_accuracy:.3f}"


@dataclass(frozen=True)
class Position:
    """Position of a training, between two steps."""

    number: int = 0
    """Steps taken. With the seed it determines the order of the images and the dropout masks to come."""
    epochs: list[Epoch] = field(default_factory=list)
    """Finished epochs, their evaluation included."""
    losses: list[float] = field(default_factory=list)
    """Mean cross entropy of each step's batch."""
    loss_sum: float = 0.0
    """Sum over the images of the current epoch; `correct` and `images` count them."""
    correct: int = 0
    images: int = 0
    timed_images: int = 0
    seconds: float = 0.0
    """Time of the loop for `timed_images`."""


@dataclass(frozen=True)
class Snapshot:
    """Everything that the rest of a training depends on, apart from its arguments."""

    position: Position
    state: TrainerState


@dataclass(frozen=True)
class Result:
    """A training that has finished or was stopped."""

    epochs: list[Epoch]
    images: int
    """Number of images trained while the clock ran: all but the first step's."""
    seconds: float
    """Time of the loop: input included, device synchronised, evaluation, saving and the first step left out."""
    losses: list[float]
    """Mean cross entropy of each step's batch."""
    finished: bool = True

    @property
    def images_per_second(self) -> float:
        """Return the rate, or NaN if nothing was timed."""
        return self.images / self.seconds if self.seconds else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {"epochs": [asdict(epoch) for epoch in self.epochs], "losses": self.losses, "images_timed": self.images,
                "seconds": self.seconds, "images_per_second": self.images_per_second}


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

    loss_sum: float = 0.0
    correct: int = 0
    images: int = 0

    def add(self, losses: np.ndarray, correct: np.ndarray, sizes: np.ndarray) -> None:
        for total in (losses * sizes).tolist():  # one after the other: the sum must not depend on when it is read
            self.loss_sum += total
        self.correct += int(correct.sum())
        self.images += int(sizes.sum())

    @property
    def loss(self) -> float:
        return self.loss_sum / self.images

    @property
    def accuracy(self) -> float:
        return self.correct / self.images


def result_at(position: Position) -> Result:
    """Return the result of a training that is finished at this position."""
    return Result(list(position.epochs), position.timed_images, position.seconds, list(position.losses))


def train(model: Model[Any], training_set: LabelledImages, test_set: LabelledImages, recipe: Recipe, seed: int = 0,
          on_progress: Callable[[Progress], None] = lambda progress: None,
          on_epoch: Callable[[Epoch], None] = lambda epoch: None, *, start: Snapshot | None = None,
          save: Callable[[Snapshot], None] | None = None, save_seconds: float = math.inf,
          stop: Callable[[], bool] = lambda: False,
          on_evaluation: Callable[[int, int], None] = lambda done, images: None) -> Result:
    """Train a model in place.

    The order of the batches is NumPy's, from the seed, the same in every backend; the last, short batch is used.

    Args:
        start: snapshot to resume from. With the same arguments and backend on the same CPU, the numbers are those of
            an uninterrupted training, bit for bit.
        save: called after every epoch, every `save_seconds`, and before a stop.
        stop: called after every step and within an evaluation; True ends the training there, not finished.
        on_evaluation: called during each evaluation with the number of test images done, and of all.

    Raises:
        TrainingDiverged: as soon as a loss that is read is NaN or infinite; names the step.
        OutOfMemory: if the batch or the images do not fit in the device's memory; names a batch size that does.
    """
    training_set, test_set = training_set.first(recipe.train_images), test_set.first(recipe.test_images)
    batch_size = min(recipe.batch_size, len(training_set))
    memory.check_fits(model, batch_size)
    placed = None
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is reported as TrainingDiverged
            placed = model.place(training_set.images, training_set.labels)
            return _train(model, training_set, placed, test_set, recipe, seed, on_progress, on_epoch, start, save,
                          save_seconds, stop, on_evaluation)
    except Exception as error:
        if not model.out_of_memory(error):
            raise
    if placed is None:
        raise OutOfMemory(f"{len(training_set):,} training images do not fit in the memory of {model.device}; use "
                          "fewer with `train_images`")
    raise memory.does_not_fit(model, placed, batch_size)


def _train(model: Model[Any], training_set: LabelledImages, placed: Any, test_set: LabelledImages, recipe: Recipe,
           seed: int, on_progress: Callable[[Progress], None], on_epoch: Callable[[Epoch], None],
           start: Snapshot | None, save: Callable[[Snapshot], None] | None, save_seconds: float,
           stop: Callable[[], bool], on_evaluation: Callable[[int, int], None]) -> Result:
    """The loop itself, on data that is on the device."""
    parts = [slice(first, first + EVALUATION_PART) for first in range(0, len(test_set), EVALUATION_PART)]
    placed_test = [model.place(test_set.images[part], test_set.labels[part]) for part in parts]
    steps = -(-len(training_set) // recipe.batch_size)
    all_steps, all_images = recipe.epochs * steps, recipe.epochs * len(training_set)
    anneal_after = recipe.annealed_from(steps)

    position = start.position if start else Position()
    number, epochs, losses = position.number, list(position.epochs), list(position.losses)
    means = _Means(position.loss_sum, position.correct, position.images)
    sgd = recipe.annealed_sgd if 0 < anneal_after <= number < all_steps else recipe.sgd
    trainer = model.trainer(sgd, seed, recipe.augment)
    if start:
        trainer.load_state(start.state)
    clock = _Clock(model, position.timed_images, position.seconds)
    trained = len(epochs) * len(training_set) + means.images
    warm = all_steps - number == 1 and not clock.images  # a first step compiles and allocates; if alone, it counts
    last_save = time.perf_counter()

    def save_here() -> None:
        nonlocal last_save
        if save:
            save(Snapshot(Position(number, list(epochs), list(losses), means.loss_sum, means.correct, means.images,
                                   clock.images, clock.seconds), trainer.export_state()))
        last_save = time.perf_counter()

    def result(finished: bool) -> Result:
        return Result(epochs, clock.images, clock.seconds, losses, finished)

    if stop():
        return result(finished=False)
    for epoch in range(len(epochs) + 1, recipe.epochs + 1):
        rows = batches(epoch_order(len(training_set), seed, epoch - 1), recipe.batch_size)
        sizes = np.array([len(row) for row in rows])
        read = done = number - (epoch - 1) * steps
        if warm:
            clock.start()
        last_reading = time.perf_counter()
        for step, indices in enumerate(rows[done:], done + 1):
            trainer.step(placed, indices, number)
            number += 1
            trained += len(indices)
            clock.count(len(indices))
            if not warm:
                clock.start()
                warm = True
            now = time.perf_counter()
            stopping, saving = stop(), save is not None and now - last_save >= save_seconds
            if (step == steps or number == anneal_after or stopping or saving
                    or now - last_reading >= READING_INTERVAL):
                metrics = trainer.read()
                _check_finite(metrics.losses, number - step + read, recipe)
                means.add(metrics.losses, metrics.correct, sizes[read:step])
                losses += metrics.losses.tolist()
                read, last_reading = step, time.perf_counter()
                rate = clock.images / clock.elapsed() if clock.images else float("nan")
                on_progress(Progress(epoch, recipe.epochs, step, steps, means.loss, means.accuracy, rate,
                                     (all_images - trained) / rate))
            if number == anneal_after and trained < all_images:
                trainer = model.trainer(recipe.annealed_sgd, seed, recipe.augment)
            if stopping or (saving and step < steps):
                clock.stop()
                save_here()
                if stopping:
                    return result(finished=False)
                clock.start()
        clock.stop()
        logits = _logits(model, placed_test, stop, lambda done: on_evaluation(done, len(test_set)))
        if logits is None:
            save_here()
            return result(finished=False)
        test_loss, test_accuracy = score(logits, test_set.labels)
        if not math.isfinite(test_loss):
            raise _diverged(f"the loss on the test images is {test_loss} after step {number}", recipe)
        epochs.append(Epoch(epoch, means.loss, means.accuracy, test_loss, test_accuracy))
        means = _Means()
        on_epoch(epochs[-1])
        save_here()
        if stop() and epoch < recipe.epochs:
            return result(finished=False)
    return result(finished=True)


def _logits(model: Model[Any], parts: list[Any], stop: Callable[[], bool],
            on_part: Callable[[int], None]) -> np.ndarray | None:
    """Return the logits of all parts, or None if stopped between two of them."""
    logits: list[np.ndarray] = []
    for placed in parts:
        on_part(sum(map(len, logits)))
        if stop():
            return None
        logits.append(model.logits(placed, EVALUATION_BATCH))
    return np.concatenate(logits)


def _check_finite(losses: np.ndarray, first: int, recipe: Recipe) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise _diverged(f"the loss is {losses[bad[0]]} in step {first + bad[0] + 1}", recipe)


def _diverged(what: str, recipe: Recipe) -> TrainingDiverged:
    return TrainingDiverged(f"{what}; the learning rate is {recipe.sgd.learning_rate:g}: try a smaller `learning_rate`")
