"""The style of all pictures: shades of gray and markers, not colors, so that they can be read in print."""

from __future__ import annotations

import io
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MARKERS = "osD^vP*X"
LIGHTEST = 0.65
"""Shade of the last of several lines; the first is black."""
DPI = 120


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Return an empty figure of this size in inches."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def line_style(number: int, count: int) -> dict[str, Any]:
    """Return the look of one line among several."""
    return {"color": str(LIGHTEST * number / max(1, count - 1)), "marker": MARKERS[number % len(MARKERS)],
            "markersize": 5, "markerfacecolor": "white"}


def add_grid(panel: Axes, **options: Any) -> None:
    """Add a pale grid behind the data."""
    panel.grid(color="0.9", **options)
    panel.set_axisbelow(True)


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """Return the picture as the content of a file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()
