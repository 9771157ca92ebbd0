"""Numbers as text: seconds, bytes, rates, shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alexnet_mf.instruments.statistics import Estimate


def number_text(value: float) -> str:
    """Return three digits or more: 4.57, 45.1, 451.3, 4,513."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def three_digits(value: float) -> str:
    """Return three significant digits: 4.50, 45.1; whole numbers from 100 on."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def estimate_text(estimate: Estimate, show: Callable[[float], str] = number_text, unit: str = "") -> str:
    """Return 45.1 [44.8, 45.6]; if there are too few samples for an interval, 45.1 (n = 3)."""
    interval = (f"(n = {estimate.n})" if estimate.low is None or estimate.high is None
                else f"[{show(estimate.low)}, {show(estimate.high)}]")
    return f"{show(estimate.median)}{unit} {interval}"


def percent(share: float) -> str:
    """Return a share in percent without the sign: 82, 4.6, 0.053."""
    return f"{100 * share:.0f}" if share >= 0.0995 else f"{100 * share:.2g}"


def percent_text(share: float) -> str:
    """Return a share in percent: 82 %."""
    return f"{percent(share)} %"


def times(value: float) -> str:
    """Return a ratio without the sign."""
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def scaled(value: float, units: Sequence[str]) -> str:
    """Return about three digits in a suitable unit; each unit is a thousand times the one before."""
    step = 0
    while step < len(units) - 1 and round(value, 0 if step == 0 else 1) >= 1000:
        value, step = value / 1000, step + 1
    digits = f"{value:.0f}" if step == 0 and value == int(value) else three_digits(value)
    return f"{digits} {units[step]}".rstrip()


def seconds_text(seconds: float) -> str:
    """Return 12.3 ms."""
    return scaled(seconds * 1e6, ("us", "ms", "s"))


def bytes_text(count: float | None) -> str:
    """Return 187 MB; nothing if it is unknown."""
    return "" if count is None else scaled(count, ("B", "kB", "MB", "GB", "TB"))


def rate_text(value: float, unit: str) -> str:
    """Return 319 GFLOP/s."""
    return scaled(value, [prefix + unit for prefix in ("", "k", "M", "G", "T", "P")])


def duration(seconds: float) -> str:
    """Return 3 h 42 min, 2 min 05 s, or 8 s."""
    if seconds != seconds:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def listed(names: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
