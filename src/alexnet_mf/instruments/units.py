"""Figures in words."""

from __future__ import annotations

from collections.abc import Callable

from alexnet_mf.instruments.statistics import Estimate


def number_text(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def estimate_text(found: Estimate, show: Callable[[float], str] = number_text, unit: str = "") -> str:
    """45.1 [44.8, 45.6]; where there are too few samples for an interval, their number."""
    interval = (f"(n = {found.n})" if found.low is None or found.high is None
                else f"[{show(found.low)}, {show(found.high)}]")
    return f"{show(found.median)}{unit} {interval}"


def percent(value: float) -> str:
    """A share, without the sign."""
    return f"{100 * value:.0f}" if value >= 0.1 else f"{100 * value:.2g}"


def times(value: float) -> str:
    """A ratio, without the sign."""
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def seconds_text(seconds: float) -> str:
    """With a unit that suits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def bytes_text(count: int | None) -> str:
    """In GB or MB; nothing where unknown."""
    if count is None:
        return ""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
