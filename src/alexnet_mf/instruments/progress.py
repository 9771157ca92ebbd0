"""Progress displays: a bar on a terminal, a plain line now and then in a pipe or a file, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from alexnet_mf.instruments.units import duration

PLAIN_INTERVAL = 10.0
"""Seconds between two plain lines."""

SHORTEST_BAR = 8
"""Columns that a bar keeps beside the figures; a narrower terminal drops figures instead."""

Self = TypeVar("Self", bound="Display")


class Display:
    """A progress bar, shown inside a `with` block. Other lines appear above it, from any thread."""

    def __init__(self, quiet: bool, *, error: bool = False):
        """
        Args:
            error: show it on standard error, not on standard output.
        """
        self.quiet = quiet
        self.bar: Progress | None = None
        self._error = error
        self._last_line = time.perf_counter()
        if not quiet and self._stream.isatty():
            self.bar = Progress(TextColumn("{task.fields[label]}", markup=False), BarColumn(bar_width=None),
                                TextColumn("{task.fields[figures]}", markup=False), console=Console(stderr=error),
                                expand=True, transient=True)
            self.task = self.bar.add_task("", total=None, label="", figures="")

    @property
    def _stream(self) -> TextIO:
        return sys.stderr if self._error else sys.stdout

    def __enter__(self: Self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar:
            self.bar.stop()

    def show(self, label: str, done: float, total: float | None, figures: Sequence[str],
             importance: Sequence[int] = (), plain_label: str = "") -> None:
        """Move the bar, or write a line if it is time for one.

        Args:
            figures: phrases, in the order in which they are shown.
            importance: their positions, the most important first; without it, their order.
            plain_label: a longer label for plain lines.
        """
        if self.bar:
            room = self.bar.console.width - len(label) - SHORTEST_BAR - 2
            self.bar.update(self.task, completed=done, total=total, label=label,
                            figures=fitted(figures, importance or range(len(figures)), room))
        elif not self.quiet and time.perf_counter() - self._last_line >= PLAIN_INTERVAL:
            self._last_line = time.perf_counter()
            self.line(f"{plain_label or label}: {', '.join(figures)}")

    def line(self, text: str) -> None:
        """Write a line, above the bar. A terminal wraps it between words."""
        self._write(self._stream, text)

    def warn(self, text: str) -> None:
        """Write a line on standard error, or above the bar."""
        self._write(sys.stderr, text, soft_wrap=self.bar is not None)

    def _write(self, stream: TextIO, text: str, soft_wrap: bool = False) -> None:
        if self.bar or stream.isatty():
            console = self.bar.console if self.bar else Console(file=stream)
            console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap)
        else:
            stream.write(f"{text}\n")
            stream.flush()


def fitted(figures: Sequence[str], importance: Sequence[int], room: int) -> str:
    """Return as many figures as fit, at least the most important one, in their order."""
    taken: list[int] = []
    for position in importance:
        text = ", ".join(figures[i] for i in sorted([*taken, position]))
        if taken and len(text) > room:
            break
        taken.append(position)
    return ", ".join(figures[i] for i in sorted(taken))


def pace(done: float, total: float | None, seconds: float, unit: str) -> list[str]:
    """Return the rate, and the time left if the total is known."""
    if not done or seconds <= 0:
        return []
    figures = [f"{done / seconds:.1f} {unit}/s"]
    return figures if total is None else [*figures, f"{duration((total - done) * seconds / done)} left"]


class DownloadDisplay(Display):
    """Progress of downloads, in the form that pooch takes. Each file starts a new bar."""

    def __init__(self, name: str, quiet: bool = False):
        super().__init__(quiet, error=True)
        self.name = name
        self._total = self._done = 0
        self._start = time.perf_counter()

    @property
    def total(self) -> int:
        """Size of the file, in bytes."""
        return self._total

    @total.setter
    def total(self, size: int) -> None:
        self._total, self._done, self._start = size, 0, time.perf_counter()
        self._last_line = self._start
        if self.bar:
            self.bar.start()
        elif not self.quiet:
            self.line(f"downloading {self.name}: {size / 1e6:.1f} MB")

    def update(self, size: int) -> None:
        """Add bytes that have arrived."""
        self._done += size
        done, total = self._done / 1e6, self._total / 1e6
        self.show(f"downloading {self.name}", done, total, [
            f"{done:.1f} of {total:.1f} MB", *pace(done, total, time.perf_counter() - self._start, "MB")])

    def reset(self) -> None:
        """Reset to zero. pooch calls this at the end, before it counts the whole file once more."""
        self._done = 0

    def close(self) -> None:
        """End the file's display."""
        self.__exit__()


class ImagesDisplay(Display):
    """Number of images done, the rate, and the time left."""

    def __init__(self, doing: str, total: int | None, quiet: bool):
        super().__init__(quiet, error=True)
        self.doing = doing
        self.total = total
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Return the time since the start."""
        return time.perf_counter() - self._start

    def done(self, images: int) -> None:
        """Show the number of images done."""
        counted = f"{images:,}{f' of {self.total:,}' if self.total else ''} images"
        self.show(self.doing, images, self.total, [counted, *pace(images, self.total, self.seconds, "images")])
