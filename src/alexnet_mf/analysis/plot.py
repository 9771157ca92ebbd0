"""The roofline as a picture. Imports matplotlib; only `plots.Picture` imports this module."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_mf.analysis.costs import CONVOLUTIONS, Costs, Work
from alexnet_mf.analysis.roofline import Ceilings
from alexnet_mf.plots import style

LABEL_GAP = 0.045
"""Smallest distance between two names, as a share of a panel's width: their height, since they are vertical."""
LONGEST_NAME = 24
"""Largest number of letters; longer names are cut off."""
LETTER, LEGEND = 0.016, 0.25
"""Width of a letter and height of the legend, as shares of a panel's height."""
LEAST_DECADES = 1.0


def draw(costs: Costs, ceilings: Ceilings, measured: Mapping[str, float], title: str = "") -> Figure:
    """Draw two panels, inference and training: the roof, each layer at the rate that the roof allows, and the measured
    rate of the whole network.

    Markers and shades of gray distinguish them, not colors. Each layer's name stands below its point.

    Args:
        measured: seconds of `forward` and `step`.
    """
    figure = style.new_figure(11, 5)
    panels = figure.subplots(1, 2, sharey=True)
    parts = {layer.name: layer.part for layer in costs.layers}
    contents = (({layer.name: layer.forward for layer in costs.layers}, costs.forward, measured["forward"]),
             ({layer.name: layer.training for layer in costs.layers}, costs.training, measured["step"]))
    rates: list[float] = []
    for panel, name, (works, whole, seconds) in zip(panels, ("inference", "training step"), contents):
        computing = {layer: work for layer, work in works.items() if work.macs}
        rates += draw_panel(panel, computing, parts, ceilings, whole, whole.flops / seconds)
        panel.set_title(f"{name}, batch {costs.batch_size}", loc="left", fontsize="medium")
        panel.set_xlabel("arithmetic intensity (FLOP/byte)")
    longest = min(LONGEST_NAME, max(map(len, parts)))
    panels[0].set_ylim(*limits(min(rates) / 1e9, max(ceilings.flops, *rates) / 1e9, 0.07 + LETTER * longest))
    panels[0].set_ylabel("rate (GFLOP/s)")
    panels[0].legend(loc="upper left", fontsize="small", framealpha=1)
    if title:
        figure.suptitle(title, fontsize="small", color="0.3")
    return figure


def limits(lowest: float, highest: float, below: float, above: float = LEGEND) -> tuple[float, float]:
    """Return the ends of a logarithmic axis that leaves these shares below the lowest and above the highest point."""
    between = max(math.log10(highest / lowest), LEAST_DECADES)
    whole = between / (1 - below - above)
    return lowest / 10 ** (below * whole), lowest * 10 ** (between + above * whole)


def draw_panel(panel: Axes, works: Mapping[str, Work], parts: Mapping[str, str], ceilings: Ceilings, whole: Work,
               rate: float) -> list[float]:
    """Draw a panel, and return all rates in it, in FLOP/s.

    Args:
        rate: measured rate of the whole network, in FLOP/s.
    """
    intensities = [work.intensity for work in (*works.values(), whole)]
    left, right = min([ceilings.ridge, *intensities]) / 3, max([ceilings.ridge, *intensities]) * 3
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(left, right)
    roof = [left, ceilings.ridge, right]
    panel.plot(roof, [ceilings.attainable(value) / 1e9 for value in roof], "-", color="black", linewidth=1.5,
               label="roof: copy and matrix product, measured")
    for convolution, marker, label in ((True, "o", "convolutions at the roof's rate"),
                                       (False, "s", "fully connected layers at the roof's rate")):
        points = [work.intensity for name, work in works.items() if (parts[name] == CONVOLUTIONS) == convolution]
        panel.plot(points, [ceilings.attainable(value) / 1e9 for value in points], marker, markeredgecolor="black",
                   markerfacecolor="0.3" if convolution else "white", markersize=7, zorder=3, label=label)
    panel.plot([whole.intensity], [rate / 1e9], "X", markeredgecolor="black", markerfacecolor="0.75", markersize=11,
               zorder=4, label="whole network, measured")
    draw_names(panel, {name: (work.intensity, ceilings.attainable(work.intensity) / 1e9)
                       for name, work in works.items()})
    style.add_grid(panel)
    panel.spines[["top", "right"]].set_visible(False)
    return [rate, *(ceilings.attainable(value) for value in intensities)]


def draw_names(panel: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write the names vertically along the bottom without overlaps, each with a thin line to its point."""
    names = sorted(points, key=lambda name: points[name])
    to_share = panel.transAxes.inverted()
    wanted = [to_share.transform(panel.transData.transform(points[name]))[0] for name in names]
    for name, share in zip(names, spread(wanted, min(LABEL_GAP, 0.9 / len(names)))):
        shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
        panel.annotate(shown, xy=points[name], xytext=(share, 0.02), textcoords="axes fraction", rotation=90,
                       ha="center", va="bottom", fontsize="small",
                       arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkB": 4})


def spread(wanted: Sequence[float], gap: float, low: float = 0.03, high: float = 0.97) -> list[float]:
    """Return the places nearest to the wanted ones, in order, between low and high, and at least a gap apart.

    Places that are too close form a group around the mean of their wanted places. Groups that touch are merged.
    """
    groups: list[list[float]] = []

    def first(group: list[float]) -> float:
        width = gap * (len(group) - 1)
        return max(low, min(sum(group) / len(group) - width / 2, high - width))

    for place in wanted:
        groups.append([place])
        while len(groups) > 1 and first(groups[-1]) - first(groups[-2]) < gap * len(groups[-2]) - 1e-9:
            last = groups.pop()
            groups[-1] += last
    return [first(group) + gap * i for group in groups for i in range(len(group))]


def png(costs: Costs, ceilings: Ceilings, measured: Mapping[str, float], title: str = "") -> bytes:
    """Return the picture as the content of a file."""
    return style.png(draw(costs, ceilings, measured, title))
