"""Training curves. Imports matplotlib, and so is imported only to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from alexnet_mf.plots import style

QUANTITIES = (("train loss", "-"), ("train accuracy", "--"), ("test accuracy", ":"))
"""Quantities to draw, and their dashes."""
LOSS, ACCURACY = "loss (nats)", "accuracy (share of images)"


def draw(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw the chapter's picture for one run; several runs share two panels, for loss and accuracy.

    Dashes distinguish the quantities, markers and shades of gray the runs: no color is needed.

    Args:
        runs: the lines of metrics.jsonl, by the run's name.
    """
    several = len(runs) > 1
    figure = style.new_figure(9.5 if several else 5.5, 4)
    panels = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
    losses, accuracies = panels[0], panels[-1]
    for number, (name, entries) in enumerate(runs.items()):
        steps = [entry for entry in entries if entry["kind"] == "step"]
        epochs = [entry for entry in entries if entry["kind"] == "epoch"]
        look = style.line_style(number, len(runs))
        values = [(losses, [(entry["epochs"], entry["loss"]) for entry in steps]),
                  (accuracies, [(entry["epochs"], entry["train_accuracy"]) for entry in steps]),
                  (accuracies, [(entry["epoch"], entry["test_accuracy"]) for entry in epochs])]
        for (panel, points), (quantity, dashes) in zip(values, QUANTITIES):
            panel.plot([x for x, _ in points], [y for _, y in points], dashes,
                       label=f"{name}: {quantity}" if several else quantity,
                       markevery=max(1, len(points) // 10), **look)
    for panel in panels:
        panel.set_xlabel("epoch")
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        style.add_grid(panel)
        panel.legend(fontsize="small")
    losses.set_ylabel(LOSS if several else f"{LOSS}, {ACCURACY}")
    if several:
        accuracies.set_ylabel(ACCURACY)
    return figure


def png(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Return the picture as the content of a file."""
    return style.png(draw(runs))
