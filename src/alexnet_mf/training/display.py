"""Watchers of a training: the base class, and the display on a terminal or in a pipe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from alexnet_mf.data.preprocessing import input_size
from alexnet_mf.instruments.progress import Display, pace
from alexnet_mf.instruments.units import duration
from alexnet_mf.models import LoadedModel
from alexnet_mf.training.loop import Epoch, Progress

if TYPE_CHECKING:
    from alexnet_mf.training.run import Training


class Watcher:
    """Base class of receivers of a training's events. Its methods do nothing; override the ones you need.

    A training enters its watcher before the first step and leaves it after the last.
    """

    quiet = True

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def built(self, loaded: LoadedModel) -> None:
        """Receive the built model; all arguments have been checked. Not called if nothing is left to train."""

    def begin(self, training: Training) -> None:
        """Receive the training before its first step; the run folder is ready."""

    def progress(self, now: Progress) -> None:
        """Receive the metrics about once a second: loss and accuracy so far, images per second, time left."""

    def evaluation(self, done: int, images: int) -> None:
        """Receive the progress of an evaluation: `done` of `images` test images."""

    def epoch(self, done: Epoch) -> None:
        """Receive the closing figures of a finished epoch. Its weights may not be in the run folder yet."""

    def should_stop(self) -> bool:
        """Return True to stop after this step. The run can be resumed."""
        return False

    def stopping(self) -> None:
        """Receive the first Ctrl-C: the training finishes this step and saves."""


class TrainingDisplay(Display, Watcher):
    """Progress of each epoch's steps and evaluation, and a line for each finished epoch."""

    def __init__(self, quiet: bool = False):
        Display.__init__(self, quiet)
        self._epoch, self._epochs, self._trained = "epoch 1", 0, ["first step ..."]
        self._evaluation_start = 0.0
        if self.bar:
            self.bar.update(self.task, total=1, label=self._epoch, figures=self._trained[0])

    def begin(self, training: Training) -> None:
        """Show the data, the recipe and the run folder."""
        self._epochs = training.recipe.epochs
        if not self.quiet:
            self.line(f"{training.data.origin}: {training.recipe.describe()}")
            if not training.folder.record.source.is_built_in and (prepared := training.data.preprocessing):
                self.line(f"pictures: {prepared.describe(input_size(training.loaded.model.network))}")
            self.line(f"run folder: {training.folder.path}")

    def progress(self, now: Progress) -> None:
        """Show the step, the figures and the time left."""
        self._epoch = f"epoch {now.epoch}/{now.epochs}"
        self._trained = figures = [f"loss {now.loss:.3f}", f"train acc {now.train_accuracy:.3f}"]
        if now.images_per_second > 0:  # not a number until the second step
            self._trained = [*figures, f"{now.images_per_second:.1f} images/s"]
            figures = [*self._trained, f"{duration(now.seconds_left)} left"]
        self.show(self._epoch, now.step, now.steps, figures, (3, 0, 1, 2) if len(figures) == 4 else (0, 1),
                  f"{self._epoch}, step {now.step}/{now.steps}")

    def evaluation(self, done: int, images: int) -> None:
        """Show the progress of an evaluation, which may take minutes, after the figures of the training."""
        if not done:
            self._evaluation_start = time.perf_counter()
        left = pace(done, images, time.perf_counter() - self._evaluation_start, "images")[1:]
        figures = [*self._trained, f"evaluating {done:,} of {images:,}", *left]
        trained = len(self._trained)
        self.show(self._epoch, done, images, figures, [*range(trained, len(figures)), *range(trained)])

    def epoch(self, done: Epoch) -> None:
        """Write the closing line of an epoch."""
        if not self.quiet:
            self.line(f"epoch {done.epoch}/{self._epochs}: {done.describe()}")

    def stopping(self) -> None:
        """Announce that the training stops after this step."""
        self.warn("Ctrl-C: finishing this step and saving; a second Ctrl-C stops at once")
