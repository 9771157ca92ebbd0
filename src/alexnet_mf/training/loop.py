"""The training loop, which is the same for every backend and needs no framework."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from alexnet_mf.backends.contract import Model, TrainerState
from alexnet_mf.data import LabeledImages
from alexnet_mf.errors import OutOfMemory, TrainingDiverged
from alexnet_mf.evaluation import EVALUATION_BATCH, place_parts, score
from alexnet_mf.instruments.records import Number, Whole
from alexnet_mf.training import memory
from alexnet_mf.training.feed import Batch, Feed, feed, is_resident
from alexnet_mf.training.recipe import Recipe
from alexnet_mf.weights.parameters import Parameters

READING_INTERVAL = 1.0
"""Seconds between two readings of the metrics: a reading waits for the device, a step does not."""


@dataclass(frozen=True)
class Progress:
    """Progress of a training. Loss and accuracy are means over the epoch so far, dropout on, weights changing."""

    epoch: int
    epochs: int
    step: int
    """Steps taken in this epoch."""
    steps: int
    loss: float
    train_accuracy: float
    images_per_second: float
    seconds_left: float
    """Time left to train, without evaluation."""


@dataclass(frozen=True)
class Epoch:
    """Closing figures of an epoch. Training figures are means over the epoch, as in the book."""

    epoch: Whole
    loss: Number
    train_accuracy: Number
    test_loss: Number
    test_accuracy: Number

    def describe(self) -> str:
        """Return the book's closing line."""
        return f"loss {self.loss:.3f}, train acc {self.train_accuracy:.3f}, test acc {self.test_accuracy:.3f}"


@dataclass(frozen=True)
class Position:
    """Position of a training, between two steps."""

    number: Whole = 0
    """Steps taken. With the seed it determines the order of the images and the dropout masks to come."""
    epochs: list[Epoch] = field(default_factory=list)
    """Finished epochs, including their evaluation."""
    losses: list[Number] = field(default_factory=list)
    """Mean cross entropy of each step's batch."""
    loss_sum: Number = 0.0
    """Sum over the images of the current epoch; `correct` and `images` count them."""
    correct: Whole = 0
    images: Whole = 0
    timed_images: Whole = 0
    seconds: Number = 0.0
    """Time of the loop for `timed_images`."""

    @property
    def closed_epoch(self) -> Epoch | None:
        """Return the epoch that ends here, or None."""
        return self.epochs[-1] if self.epochs and not self.images else None


@dataclass(frozen=True)
class Snapshot:
    """Everything that the rest of a training depends on, apart from its arguments."""

    position: Position
    state: TrainerState

    def weights(self) -> Parameters:
        """Return the weights in float32."""
        return {name: value.astype(np.float32, copy=False) for name, value in self.state.parameters.items()}


@dataclass(frozen=True)
class Result:
    """A training that has finished or was stopped."""

    epochs: list[Epoch]
    images: int
    """Number of images trained while the clock ran: all but those of the first step."""
    seconds: float
    """Time of the loop with its input, device synchronized, without evaluation, saving and the first step."""
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
    """Counts images and seconds while it runs; the device is synchronized at both ends."""

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
        for total in (losses * sizes).tolist():  # one by one: the sum must not depend on when it is read
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


@dataclass(frozen=True)
class Hooks:
    """Functions that a training calls."""

    on_progress: Callable[[Progress], None] = lambda now: None
    """Called after every reading of the metrics."""
    on_epoch: Callable[[Epoch], None] = lambda done: None
    """Called after every epoch and its evaluation."""
    on_evaluation: Callable[[int, int], None] = lambda done, images: None
    """Called during each evaluation with the number of test images done and the number of all."""
    save: Callable[[Snapshot], None] | None = None
    """Called after every epoch, every `save_seconds`, and before a stop."""
    save_seconds: float = math.inf
    stop: Callable[[], bool] = lambda: False
    """Called after every step and within an evaluation; True stops the training there, unfinished."""


def train(model: Model[Any], training_set: LabeledImages, test_set: LabeledImages, recipe: Recipe, seed: int = 0,
          hooks: Hooks = Hooks(), *, start: Snapshot | None = None) -> Result:
    """Train a model in place.

    NumPy draws the order of the batches from the seed, the same in every backend. A short last batch is used too.

    Args:
        start: snapshot to resume from. With the same arguments and backend on the same CPU, the numbers are those of
            an uninterrupted training, bit for bit.

    Raises:
        TrainingDiverged: if a loss is NaN or infinite when it is read, or a weight when it is to be saved; names the
            step.
        OutOfMemory: if the batch or the images do not fit in the device's memory; names a batch size that does.
    """
    training_set, test_set = training_set.some(recipe.train_images, seed), test_set.some(recipe.test_images)
    batch_size = min(recipe.batch_size, len(training_set))
    if model.device == "cpu":
        memory.check_fits(model.network, batch_size, model.item_bytes)
    fed = None
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is reported as TrainingDiverged
            fed = feed(model, training_set, recipe, seed)
            return _Loop(model, fed, test_set, recipe, seed, hooks, start).run()
    except Exception as error:
        if not model.out_of_memory(error):
            raise
    if fed is None:
        raise OutOfMemory(f"{len(training_set):,} training images do not fit in the memory of {model.device}; use "
                          "fewer with `train_images`")
    raise memory.does_not_fit(model, fed.place, batch_size)


class _Loop:
    """State of a training between two steps."""

    def __init__(self, model: Model[Any], fed: Feed, test_set: LabeledImages, recipe: Recipe, seed: int, hooks: Hooks,
                 start: Snapshot | None):
        self.model, self.feed, self.test_set = model, fed, test_set
        self.images = images = len(fed.images)
        self.recipe, self.seed, self.hooks = recipe, seed, hooks
        self.placed_test = list(place_parts(model, test_set)) if is_resident(model, test_set) else None
        self.steps = recipe.steps(images)
        self.all_steps = recipe.epochs * self.steps
        self.anneal_after = recipe.annealed_from(self.steps)

        position = start.position if start else Position()
        self.number, self.epochs, self.losses = position.number, list(position.epochs), list(position.losses)
        self.means = _Means(position.loss_sum, position.correct, position.images)
        self.clock = _Clock(model, position.timed_images, position.seconds)
        is_annealed = 0 < self.anneal_after <= self.number < self.all_steps
        self.trainer = model.trainer(recipe.annealed_sgd if is_annealed else recipe.sgd, seed)
        if start:
            self.trainer.load_state(start.state)
        # The first step compiles and allocates, so its time does not count, unless it is the only one.
        self.is_warm = self.all_steps - self.number == 1 and not self.clock.images
        self.last_save = time.perf_counter()

    def run(self) -> Result:
        """Train until the last epoch, or until a stop."""
        if self.hooks.stop():
            return self.result(finished=False)
        for epoch in range(len(self.epochs) + 1, self.recipe.epochs + 1):
            is_complete = self.train_epoch(epoch) and self.evaluate(epoch)
            self.save(self.epochs[-1] if is_complete else None)
            if not is_complete or (self.hooks.stop() and epoch < self.recipe.epochs):
                return self.result(finished=False)
        return self.result(finished=True)

    def train_epoch(self, epoch: int) -> bool:
        """Take the steps that are left in an epoch. Return False if the training was stopped after one of them."""
        size = self.recipe.batch_size
        sizes = np.minimum(size, self.images - np.arange(0, self.images, size))
        read = done = self.number - (epoch - 1) * self.steps
        if self.is_warm:
            self.clock.start()
        stopping, last_reading = False, time.perf_counter()
        for step, batch in enumerate(self.feed.batches(epoch - 1, done), done + 1):
            self.step(batch)
            now = time.perf_counter()
            stopping, anneals = self.hooks.stop(), self.number == self.anneal_after
            saving = self.hooks.save is not None and now - self.last_save >= self.hooks.save_seconds
            if step == self.steps or anneals or stopping or saving or now - last_reading >= READING_INTERVAL:
                self.read(epoch, step, sizes[read:step])
                read, last_reading = step, time.perf_counter()
            if anneals and self.number < self.all_steps:
                self.trainer = self.model.trainer(self.recipe.annealed_sgd, self.seed)
            if stopping:
                break
            if saving and step < self.steps:
                self.clock.stop()
                self.save()
                self.clock.start()
        self.clock.stop()
        return not stopping

    def step(self, batch: Batch) -> None:
        """Take one step."""
        self.trainer.step(batch.data, batch.rows, self.number, batch.draws)
        self.number += 1
        self.clock.count(batch.size)
        if not self.is_warm:
            short = self.images % self.recipe.batch_size
            if short and self.steps > 1:
                # Or the last batch would compile while the clock runs.
                self.trainer.prepare(self.feed.place(short), short)
            self.clock.start()
            self.is_warm = True

    def read(self, epoch: int, step: int, sizes: np.ndarray) -> None:
        """Read the metrics of the steps since the last reading, whose batches have these sizes."""
        metrics = self.trainer.read()
        bad = np.flatnonzero(~np.isfinite(metrics.losses))
        if len(bad):
            raise self.diverged(f"the loss is {metrics.losses[bad[0]]} in step {len(self.losses) + bad[0] + 1}")
        self.means.add(metrics.losses, metrics.correct, sizes)
        self.losses += metrics.losses.tolist()
        rate = self.clock.images / self.clock.elapsed() if self.clock.images else float("nan")
        images_left = (self.recipe.epochs - epoch + 1) * self.images - self.means.images
        self.hooks.on_progress(Progress(epoch, self.recipe.epochs, step, self.steps, self.means.loss,
                                        self.means.accuracy, rate, images_left / rate))

    def evaluate(self, epoch: int) -> bool:
        """Close an epoch with an evaluation. Return False if the training was stopped within it."""
        logits: list[np.ndarray] = []
        for placed in self.placed_test or place_parts(self.model, self.test_set):
            self.hooks.on_evaluation(sum(map(len, logits)), len(self.test_set))
            if self.hooks.stop():
                return False
            logits.append(self.model.logits(placed, EVALUATION_BATCH))
        test_loss, test_accuracy = score(np.concatenate(logits), self.test_set.labels)
        if not math.isfinite(test_loss):
            raise self.diverged(f"the loss on the test images is {test_loss} after step {self.number}")
        self.epochs.append(Epoch(epoch, self.means.loss, self.means.accuracy, test_loss, test_accuracy))
        self.means = _Means()
        return True

    def save(self, done: Epoch | None = None) -> None:
        """Check that the weights are finite; then pass the finished epoch and a snapshot to the hooks."""
        snapshot = None
        if self.hooks.save:
            position = Position(self.number, list(self.epochs), list(self.losses), self.means.loss_sum,
                                self.means.correct, self.means.images, self.clock.images, self.clock.seconds)
            snapshot = Snapshot(position, self.trainer.export_state())
            for name, value in snapshot.state.parameters.items():
                if not np.isfinite(value.astype(np.float32, copy=False)).all():  # the NumPy backend trains in float64
                    raise self.diverged(f"{name} has NaN or infinite weights in float32 after step {self.number}")
        if done:
            self.hooks.on_epoch(done)
        if self.hooks.save and snapshot:
            self.hooks.save(snapshot)
        self.last_save = time.perf_counter()

    def result(self, finished: bool) -> Result:
        """Return the result up to here."""
        return Result(self.epochs, self.clock.images, self.clock.seconds, self.losses, finished)

    def diverged(self, fault: str) -> TrainingDiverged:
        """Return the error for a loss or a weight that is not finite."""
        return TrainingDiverged(f"{fault}; the learning rate is {self.recipe.sgd.learning_rate:g}: try a smaller "
                                "`learning_rate`")
