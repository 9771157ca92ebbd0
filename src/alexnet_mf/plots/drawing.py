"""Pictures of predictions and evaluations, in gray. Imports matplotlib, and so is imported only to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from alexnet_mf.plots.style import new_figure, png

if TYPE_CHECKING:
    from PIL.Image import Image

    from alexnet_mf.evaluation import Evaluation
    from alexnet_mf.predict import Prediction

__all__ = ["contact_sheet", "evaluation", "png", "samples"]
MOST_ON_SHEET = 60
COLUMNS = 6
CELL = 1.5
"""Width of an image and the space beside it, in inches."""
IMAGE = 1.2
"""Width of an image, in inches."""
LINE = 0.13
"""Height of a line of small text, in inches."""
GAP = 0.06
"""Space between an image and its text, and between that and the next image, in inches."""
TITLE = 0.4
LONGEST_NAME, LONGEST_CLASS = 20, 13
MOST_CLASSES = 20
"""Largest number of classes for which names and numbers in a confusion matrix can be read."""


def contact_sheet(predictions: Sequence[Prediction], names: Sequence[str]) -> Figure:
    """Draw the network's inputs, each with its file name and its most probable classes.

    Args:
        predictions: the first `MOST_ON_SHEET` are drawn.
        names: names of the classes.
    """
    shown = predictions[:MOST_ON_SHEET]
    texts = ["\n".join([_file_name(prediction.name), *(
        f"{_cut(names[label])} {_share(probability)}"
        for label, probability in zip(prediction.labels, prediction.probabilities))]) for prediction in shown]
    columns = min(COLUMNS, len(shown))
    figure = new_figure(columns * CELL, _height(texts, columns), layout=None)
    _images(figure, [prediction.seen for prediction in shown], texts, columns)
    return figure


def samples(images: Sequence[tuple[str, Image]]) -> Figure:
    """Draw images, each with the name of its class.

    Args:
        images: name and image; evenly spaced ones are drawn if there are more than `MOST_ON_SHEET`.
    """
    rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), MOST_ON_SHEET)).round().astype(int)).tolist()
    texts = [_cut(images[row][0]) for row in rows]
    columns = min(COLUMNS, len(rows))
    figure = new_figure(columns * CELL, _height(texts, columns), layout=None)
    _images(figure, [np.asarray(images[row][1].convert("RGB")) for row in rows], texts, columns)
    return figure


def evaluation(figures: Evaluation, images: NDArray[np.uint8], names: Sequence[str]) -> Figure:
    """Draw the confusion matrix, and beside it the most confident mistakes.

    Args:
        images: images of the dataset, (n, height, width).
        names: names of the classes.
    """
    texts = [f"{_cut(names[wrong.label])}\nnot {_cut(names[wrong.predicted])}\n({_share(wrong.probability)} sure)"
             for wrong in figures.mistakes]
    columns = max(3, min(COLUMNS, len(texts)))
    height = max(6.5, TITLE + _height(texts, columns))
    figure = new_figure(height + 1 + columns * CELL, height)
    grid = figure.add_gridspec(1, 2, width_ratios=[height + 1, columns * CELL])
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    _matrix(left.subplots(), figures, names)
    right.text(0.5, 1 - TITLE / 4 / height, "most confident mistakes" if texts else "no mistakes", fontsize="medium",
               ha="center", va="top")
    _images(right, [images[wrong.image] for wrong in figures.mistakes], texts, columns, TITLE)
    return figure


def _cell(texts: Sequence[str]) -> float:
    """Return the distance from an image to the one below, in inches."""
    return IMAGE + 3 * GAP + LINE * max((text.count("\n") + 1 for text in texts), default=0)


def _height(texts: Sequence[str], columns: int) -> float:
    """Return the height of a grid of images with these texts, in inches."""
    return -(-len(texts) // columns) * _cell(texts) + GAP


def _images(figure: Figure | SubFigure, images: Sequence[NDArray[np.uint8]], texts: Sequence[str], columns: int,
            down: float = 0) -> None:
    """Draw a grid of images with a text below each, `down` inches from the top. The positions are fixed, since a layout
    would make room for the widest text everywhere."""
    scale = figure.dpi_scale_trans.inverted()
    width, height = figure.bbox.transformed(scale).size
    for number, (image, text) in enumerate(zip(images, texts)):
        row, column = divmod(number, columns)
        left, bottom = column * CELL + (CELL - IMAGE) / 2, height - down - GAP - row * _cell(texts) - IMAGE
        panel = figure.add_axes((left / width, bottom / height, IMAGE / width, IMAGE / height), anchor="S")
        panel.set_axis_off()
        panel.imshow(image, cmap="gray", vmin=0, vmax=255)
        figure.text((left + IMAGE / 2) / width, (bottom - GAP) / height, text, ha="center", va="top",
                    fontsize="x-small", linespacing=1.2, parse_math=False)


def _matrix(panel: Axes, figures: Evaluation, names: Sequence[str]) -> None:
    """Draw the share of each class as a shade of gray, and the number of images as text."""
    with np.errstate(invalid="ignore"):
        shares = np.nan_to_num(figures.confusion / figures.class_images[:, np.newaxis])
    panel.imshow(shares, cmap="gray_r", vmin=0, vmax=1)
    panel.set_title(f"accuracy {figures.accuracy:.3f} on {figures.images:,} images", fontsize="medium")
    panel.set_xlabel("predicted class")
    classes = len(names)
    panel.set_ylabel("true class" if classes > MOST_CLASSES else "true class, with its accuracy")
    if classes > MOST_CLASSES:
        numbers = range(0, classes, -(-classes // MOST_CLASSES))
        panel.set_xticks(numbers)
        panel.set_yticks(numbers)
        return
    short = [_cut(name) for name in names]
    panel.set_xticks(range(classes), short, rotation=45, ha="right", rotation_mode="anchor", fontsize="small")
    accuracies = ["" if math.isnan(share) else f" {share * 100:.0f} %" for share in figures.class_accuracy]
    panel.set_yticks(range(classes), [name + share for name, share in zip(short, accuracies)], fontsize="small")
    panel.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    panel.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    panel.grid(which="minor", color="0.85", linewidth=0.5)
    panel.tick_params(which="both", length=0)
    for row, column in zip(*np.nonzero(figures.confusion)):
        panel.text(column, row, f"{figures.confusion[row, column]:,}", ha="center", va="center", fontsize="small",
                   color="white" if shares[row, column] > 0.5 else "black")


def _share(probability: float) -> str:
    """Return `98.0 %`; a probability below 1 is never `100.0 %`."""
    if probability >= 0.9995:
        return ">99.9 %"
    return f"{probability:.1%}".replace("%", " %") if probability >= 0.0005 else "<0.1 %"


def _file_name(path: str) -> str:
    """Return the end of a path, in printable characters."""
    end = "".join(letter if letter.isprintable() else "?" for letter in path.rpartition("/")[2])
    return end if len(end) <= LONGEST_NAME else f"...{end[3 - LONGEST_NAME:]}"


def _cut(name: str) -> str:
    """Return the beginning of a class's name."""
    return name if len(name) <= LONGEST_CLASS else f"{name[:LONGEST_CLASS - 2]}..."
