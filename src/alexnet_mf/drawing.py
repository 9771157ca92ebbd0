"""Pictures of predictions and evaluations, in greys. Imports matplotlib, and so is imported only to draw."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from alexnet_mf.evaluate import Evaluation
from alexnet_mf.predict import Prediction

MOST_ON_SHEET = 60
COLUMNS = 6
CELL = 1.5
"""Inches, of an image and the space beside it."""
LINE = 0.16
"""Inches, of a line of small text."""
LONGEST_NAME = 20
MOST_CLASSES = 20
"""Of a confusion matrix whose names and numbers can still be read."""


def contact_sheet(predictions: Sequence[Prediction], names: Sequence[str]) -> Figure:
    """The pictures as the network was fed them, each with its name and its most probable classes.

    Args:
        predictions: of which the first `MOST_ON_SHEET` are drawn.
        names: of the classes.
    """
    shown = predictions[:MOST_ON_SHEET]
    texts = ["\n".join([_short(found.name), *(f"{names[label]} {_share(probability)}" for label, probability
                                              in zip(found.labels, found.probabilities))]) for found in shown]
    columns = min(COLUMNS, len(shown))
    figure = _figure(columns, -(-len(shown) // columns), 1 + len(shown[0].labels))
    _images(figure, [found.seen for found in shown], texts, columns)
    return figure


def evaluation(found: Evaluation, images: NDArray[np.uint8], names: Sequence[str]) -> Figure:
    """The confusion matrix, and beside it the most confident mistakes.

    Args:
        images: the data set's, (n, height, width).
        names: of the classes.
    """
    texts = [f"{names[wrong.label]}\nnot {names[wrong.predicted]}\n({_share(wrong.probability)} sure)"
             for wrong in found.mistakes]
    columns = min(COLUMNS, max(1, len(texts)))
    rows = max(3, -(-len(texts) // columns))
    height = rows * (CELL * 0.62 + 3 * LINE) + 0.7
    side = max(height, 5.5)
    figure = Figure(figsize=(side + 1.0 + columns * CELL, side), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, 2, width_ratios=[side + 1.0, columns * CELL])
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    _matrix(left.subplots(), found, names)
    right.suptitle("most confident mistakes: what it is, and what it was taken for" if texts else "no mistakes",
                   fontsize="medium")
    _images(right, [images[wrong.image] for wrong in found.mistakes], texts, columns, rows)
    return figure


def png(figure: Figure) -> bytes:
    """The picture as a file's content."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def _figure(columns: int, rows: int, lines: int) -> Figure:
    figure = Figure(figsize=(max(columns * CELL, 2.5), rows * (CELL * 0.8 + lines * LINE) + 0.1), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _images(figure: Figure | SubFigure, images: Sequence[NDArray[np.uint8]], texts: Sequence[str], columns: int,
            rows: int | None = None) -> None:
    """A grid of images with a text below each."""
    panels = list(figure.subplots(rows or -(-len(images) // columns), columns, squeeze=False).flat)
    for panel in panels:
        panel.set_axis_off()
    for panel, image, text in zip(panels, images, texts):
        panel.imshow(image, cmap="gray", vmin=0, vmax=255)
        panel.text(0.5, -0.04, text, transform=panel.transAxes, ha="center", va="top", fontsize="x-small",
                   parse_math=False)


def _matrix(panel: Axes, found: Evaluation, names: Sequence[str]) -> None:
    """Shares of each class by grey, numbers of images in figures."""
    with np.errstate(invalid="ignore"):
        shares = np.nan_to_num(found.confusion / found.class_images[:, np.newaxis])
    panel.imshow(shares, cmap="gray_r", vmin=0, vmax=1)
    panel.set_title(f"accuracy {found.accuracy:.3f} on {found.images:,} images", fontsize="medium")
    panel.set_xlabel("taken for")
    panel.set_ylabel("class, and its accuracy")
    classes = len(names)
    if classes > MOST_CLASSES:
        return
    panel.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor", fontsize="small")
    accuracies = ["" if math.isnan(share) else f" {share * 100:.0f} %" for share in found.class_accuracy]
    panel.set_yticks(range(classes), [f"{name}{share}" for name, share in zip(names, accuracies)], fontsize="small")
    panel.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    panel.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    panel.grid(which="minor", color="0.85", linewidth=0.5)
    panel.tick_params(which="both", length=0)
    for row, column in zip(*np.nonzero(found.confusion)):
        panel.text(column, row, f"{found.confusion[row, column]:,}", ha="center", va="center", fontsize="small",
                   color="white" if shares[row, column] > 0.5 else "black")


def _share(probability: float) -> str:
    """98 %, or as many nines as it takes not to say 100 % of what is not."""
    if probability >= 0.9995:
        return ">99.9 %"
    return f"{probability:.1%}".replace("%", " %") if probability >= 0.0005 else "<0.1 %"


def _short(name: str) -> str:
    """The end of a path, of printable characters."""
    end = "".join(letter if letter.isprintable() else "?" for letter in name.rpartition("/")[2])
    return end if len(end) <= LONGEST_NAME else f"...{end[3 - LONGEST_NAME:]}"
