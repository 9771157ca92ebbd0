"""The report's plot. Imports matplotlib, and so is imported only when there is something to draw."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from alexnet_mf.bench.plan import BOOK
from alexnet_mf.bench.report import RANKED, Row
from alexnet_mf.errors import BenchError
from alexnet_mf.instruments.statistics import title_of_medians
from alexnet_mf.plots import style

HEIGHT_PER_ROW = 0.34
"""Inches."""


def draw(rows: Sequence[Row]) -> Figure:
    """Draw one panel for each batch size (across) and phase (down): every raw sample, the median and its interval, and
    the rate of the matrix product, if there is one. Shapes and shades of gray tell them apart, not colors.

    Raises:
        BenchError: if there is nothing to draw.
    """
    phases = [phase for phase in RANKED if any(row.phase == phase for row in rows)]
    phases = phases or list(dict.fromkeys(row.phase for row in rows))
    if not phases:
        raise BenchError("there are no results to draw")
    sizes = sorted({row.batch_size for row in rows if row.phase in phases})
    heights = [max(1, max(sum(row.phase == phase and row.batch_size == size for row in rows) for size in sizes))
               for phase in phases]
    figure = style.new_figure(1.5 + 4.2 * len(sizes), 1.2 + sum(0.7 + HEIGHT_PER_ROW * n for n in heights))
    panels = figure.subplots(len(phases), len(sizes), squeeze=False, gridspec_kw={"height_ratios": heights})
    for line, phase in zip(panels, phases):
        for panel, size in zip(line, sizes):
            here = [row for row in rows if (row.phase, row.batch_size) == (phase, size)]
            for y, row in enumerate(here):
                draw_row(panel, y, row)
            panel.set_yticks(range(len(here)), [row.label for row in here])
            panel.set_ylim(len(here) - 0.5, -0.5)
            panel.set_xlim(left=0)
            panel.set_title(f"{phase}, batch {size}", loc="left", fontsize="medium")
            panel.set_xlabel("images/s")
            style.add_grid(panel, axis="x")
            panel.spines[["top", "right"]].set_visible(False)
    shown = title_of_medians(row.rate for row in rows if row.phase in phases)
    figure.suptitle(f"{shown}; dots: samples; |: rate of the matrix product\n"
                    "filled: alexnet_mf, open: the book's style", fontsize="small", color="0.3")
    return figure


def draw_row(panel: matplotlib.axes.Axes, y: int, row: Row) -> None:
    """Draw one contestant."""
    book = row.worker.style == BOOK
    samples = list(row.rates.values())
    panel.plot(samples, [y + 0.25] * len(samples), ".", color="0.65", markersize=3)
    if row.rate.low is not None and row.rate.high is not None:
        panel.plot([row.rate.low, row.rate.high], [y, y], "-", color="black", linewidth=2, solid_capstyle="butt")
    panel.plot([row.rate.median], [y], "s" if book else "o", markeredgecolor="black",
               markerfacecolor="white" if book else "black", markersize=6)
    if row.share and row.ceiling == "matrix product":
        panel.plot([row.rate.median / row.share.median], [y], "|", color="0.3", markersize=14, markeredgewidth=1.5)


def png(rows: Sequence[Row]) -> bytes:
    """Return the picture as the content of a file.

    Raises:
        BenchError: if there is nothing to draw.
    """
    return style.png(draw(rows), dpi=150)
