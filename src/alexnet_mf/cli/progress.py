"""How far something is: a bar on a terminal, a plain line now and then in a pipe or a file, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from alexnet_mf.cli.output import closing_figures, duration, notice, say
from alexnet_mf.training import loop

PLAIN_INTERVAL = 10.0
"""Seconds between two plain lines."""

SHORTEST_BAR = 8
"""Columns that a bar keeps beside figures; in a terminal too narrow for that it is the figures that go."""

Self = TypeVar("Self", bound="Display")


class Display:
    """A bar while it is entered; other lines go above it, from any thread."""

    def __init__(self, quiet: bool, *, error: bool = False):
        """
        Args:
            error: show it on standard error, as what nobody asked for; else on standard output.
        """
        self.quiet = quiet
        self.bar: Progress | None = None
        self._put = notice if error else say
        self._last_line = time.perf_counter()
        if not quiet and (sys.stderr if error else sys.stdout).isatty():
            self.bar = Progress(TextColumn("{task.fields[label]}", markup=False), BarColumn(bar_width=None),
                                TextColumn("{task.fields[figures]}", markup=False), console=Console(stderr=error),
                                expand=True, transient=True)
            self.task = self.bar.add_task("", total=None, label="", figures="")

    def __enter__(self: Self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, label: str, done: float, total: float | None, figures: Sequence[str],
             importance: Sequence[int] = (), plain_label: str = "") -> None:
        """Move the bar, or say a line if it is time for one.

        Args:
            figures: phrases, in the order to be shown.
            importance: their positions, what may least be left out first; as they stand without it.
            plain_label: the label of a line, where it says more.
        """
        if self.bar:
            room = self.bar.console.width - len(label) - SHORTEST_BAR - 2
            self.bar.update(self.task, completed=done, total=total, label=label,
                            figures=fitted(figures, importance or range(len(figures)), room))
        elif not self.quiet and time.perf_counter() - self._last_line >= PLAIN_INTERVAL:
            self._last_line = time.perf_counter()
            self._put(f"{plain_label or label}: {', '.join(figures)}")

    def line(self, text: str) -> None:
        """A line, above the bar."""
        self._above(text, self._put)

    def warn(self, text: str) -> None:
        """A line on standard error, or above the bar."""
        self._above(text, notice)

    def _above(self, text: str, put: Any) -> None:
        if self.bar:
            self.bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            put(text)


def fitted(figures: Sequence[str], importance: Sequence[int], room: int) -> str:
    """As many of the figures as there is room for, the most important at least, in their order."""
    taken: list[int] = []
    for position in importance:
        text = ", ".join(figures[i] for i in sorted([*taken, position]))
        if taken and len(text) > room:
            break
        taken.append(position)
    return ", ".join(figures[i] for i in sorted(taken))


def pace(done: float, total: float | None, seconds: float, unit: str) -> list[str]:
    """The rate, and the time left where the end is known."""
    if not done or seconds <= 0:
        return []
    figures = [f"{done / seconds:.1f} {unit}/s"]
    return figures if total is None else [*figures, f"{duration((total - done) * seconds / done)} left"]


class DownloadDisplay(Display):
    """What pooch shows a download's progress to; it is started anew for each file."""

    def __init__(self, name: str, quiet: bool = False):
        super().__init__(quiet, error=True)
        self.name = name
        self._total = self._done = 0
        self._start = time.perf_counter()

    @property
    def total(self) -> int:
        """Bytes of the file."""
        return self._total

    @total.setter
    def total(self, size: int) -> None:
        self._total, self._done, self._start = size, 0, time.perf_counter()
        self._last_line = self._start
        if self.bar:
            self.bar.start()
        elif not self.quiet:
            notice(f"downloading {self.name}: {size / 1e6:.1f} MB")

    def update(self, size: int) -> None:
        """So many bytes more have come."""
        self._done += size
        done, total = self._done / 1e6, self._total / 1e6
        self.show(f"downloading {self.name}", done, total, [
            f"{done:.1f} of {total:.1f} MB", *pace(done, total, time.perf_counter() - self._start, "MB")])

    def reset(self) -> None:
        """Back to the start: pooch does so at the end, before it counts the whole file once more."""
        self._done = 0

    def close(self) -> None:
        """The file is there."""
        self.__exit__()


class ImagesDisplay(Display):
    """How many images are done, how fast, and the time left."""

    def __init__(self, doing: str, total: int | None, quiet: bool):
        super().__init__(quiet, error=True)
        self.doing = doing
        self.total = total
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._start

    def done(self, images: int) -> None:
        """So many, all in all."""
        counted = f"{images:,}{f' of {self.total:,}' if self.total else ''} images"
        self.show(self.doing, images, self.total, [counted, *pace(images, self.total, self.seconds, "images")])


class TrainingDisplay(Display):
    """Each epoch's steps, then its evaluation; a line that stays when it is over."""

    def __init__(self, quiet: bool):
        super().__init__(quiet)
        self._epoch, self._trained = "epoch 1", ["first step ..."]
        self._evaluation_start = 0.0
        if self.bar:
            self.bar.update(self.task, total=1, label=self._epoch, figures=self._trained[0])

    def progress(self, now: loop.Progress) -> None:
        """Show where the training is."""
        self._epoch = f"epoch {now.epoch}/{now.epochs}"
        self._trained = figures = [f"loss {now.loss:.3f}", f"train acc {now.train_accuracy:.3f}"]
        if now.images_per_second > 0:  # not a number until the second step
            self._trained = [*figures, f"{now.images_per_second:.1f} images/s"]
            figures = [*self._trained, f"{duration(now.seconds_left)} left"]
        self.show(self._epoch, now.step, now.steps, figures, (3, 0, 1, 2) if len(figures) == 4 else (0, 1),
                  f"{self._epoch}, step {now.step}/{now.steps}")

    def evaluation(self, done: int, images: int) -> None:
        """Show how far an epoch's evaluation is, which may take minutes, beside the figures of its training."""
        if not done:
            self._evaluation_start = time.perf_counter()
        left = pace(done, images, time.perf_counter() - self._evaluation_start, "images")[1:]
        figures = [*self._trained, f"evaluating {done:,} of {images:,}", *left]
        trained = len(self._trained)
        self.show(self._epoch, done, images, figures, [*range(trained, len(figures)), *range(trained)])

    def epoch(self, done: loop.Epoch, epochs: int) -> None:
        """A line that stays."""
        if not self.quiet:
            self.line(f"epoch {done.epoch}/{epochs}: {closing_figures(done)}")
