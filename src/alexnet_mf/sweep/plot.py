"""A sweep's plot. Imports matplotlib, and so is imported only when there is something to draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from alexnet_mf.plots import style
from alexnet_mf.sweep.plan import augment_text
from alexnet_mf.sweep.report import Outcome


def draw(outcomes: Sequence[Outcome]) -> Figure:
    """Draw test accuracy by epoch, or accuracy, throughput and peak memory by batch size if there are several.

    Lines are means over the seeds, with a bar from the lowest to the highest. Markers and shades of gray distinguish
    the lines, not colors.
    """
    sizes = {outcome.setup.batch_size for outcome in outcomes}
    figure = style.new_figure(11 if len(sizes) > 1 else 6.5, 4)
    if len(sizes) > 1:
        by_batch_size(figure, outcomes)
    else:
        by_epoch(figure, outcomes)
    return figure


def by_epoch(figure: Figure, outcomes: Sequence[Outcome]) -> None:
    """Draw one panel, a line for each setup."""
    panel = figure.subplots()
    for number, outcome in enumerate(outcomes):
        epochs = range(len(outcome.results[0].epochs))
        spread(panel, [epoch + 1 for epoch in epochs], [outcome.values("test_accuracy", epoch) for epoch in epochs],
               outcome.label, style.line_style(number, len(outcomes)))
    panel.set_xlabel("epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylabel("test accuracy (share of images)")
    finish(panel)


def by_batch_size(figure: Figure, outcomes: Sequence[Outcome]) -> None:
    """Draw three panels, a line for each network and augmentation."""
    accuracy, speed, memory = figure.subplots(1, 3)
    lines: dict[tuple[str, tuple[str, ...]], list[Outcome]] = {}
    for outcome in outcomes:
        lines.setdefault((outcome.setup.net, outcome.setup.augment), []).append(outcome)
    for number, ((net, augment), several) in enumerate(lines.items()):
        name = f"{net}, {augment_text(augment)}" if augment else net
        line = style.line_style(number, len(lines))
        sizes = [outcome.setup.batch_size for outcome in several]
        spread(accuracy, sizes, [outcome.values("test_accuracy") for outcome in several], name, line)
        timed = [outcome for outcome in several if outcome.rates]
        spread(speed, [outcome.setup.batch_size for outcome in timed], [outcome.rates for outcome in timed], name,
               line, median)
        peaks = [(outcome.setup.batch_size, [outcome.memory / 1e9]) for outcome in several if outcome.memory]
        spread(memory, [size for size, _ in peaks], [peak for _, peak in peaks], name, line)
    for panel, quantity in ((accuracy, "test accuracy (share of images)"), (speed, "training (images/s)"),
                            (memory, "peak memory (GB)")):
        panel.set_xscale("log", base=2)
        panel.set_xticks(sorted({outcome.setup.batch_size for outcome in outcomes}))
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlabel("batch size (images)")
        panel.set_ylabel(quantity)
        finish(panel)
    for panel in (speed, memory):
        panel.set_ylim(0, 1.1 * panel.dataLim.y1)


def spread(panel: Axes, places: Sequence[int], values: Sequence[Sequence[float]], name: str, line: dict[str, Any],
           middle: Callable[[Sequence[float]], float] = fmean) -> None:
    """Draw a line through the middle values, with a bar at each from the lowest to the highest."""
    middles = [middle(several) for several in values]
    bars = [[center - min(several) for center, several in zip(middles, values)],
            [max(several) - center for center, several in zip(middles, values)]]
    panel.errorbar(places, middles, yerr=bars, label=name, capsize=3, **line)


def finish(panel: Axes) -> None:
    """Add the grid and the legend."""
    style.add_grid(panel)
    panel.legend(fontsize="small")


def png(outcomes: Sequence[Outcome]) -> bytes:
    """Return the picture as the content of a file."""
    return style.png(draw(outcomes))
