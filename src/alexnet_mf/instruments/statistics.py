"""Medians, their confidence intervals, and when one result may be called faster than another.

Times on a computer have no known distribution: the machine only ever adds to them, in bursts. So nothing here assumes
one. Medians take the place of means, order statistics that of standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
FEWEST = 6
"""Fewest samples of which two can enclose the median with 95 % confidence: 1 - 2 / 2^n reaches it at n = 6."""


@dataclass(frozen=True)
class Estimate:
    """A median and its uncertainty."""

    median: float
    lower_quartile: float
    upper_quartile: float
    low: float | None
    """The confidence interval's ends; None where there are too few samples for one."""
    high: float | None
    n: int


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of the samples lies, between neighbors by distance.

    Raises:
        ValueError: if there are no samples, or one is not a number.
    """
    if not values or any(math.isnan(value) for value in values):
        raise ValueError(f"no quantile of {list(values)}")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    if ordered[below] == ordered[above]:  # the difference of two infinities would be NaN
        return ordered[below]
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def median(values: Sequence[float]) -> float:
    """Return the middle sample, or the mean of the middle two."""
    return quantile(values, 0.5)


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Return two of the samples that enclose the median of their distribution, at least with this confidence.

    Each sample lies below that median with probability 1/2, whatever the distribution, so the number of samples below
    it is binomial. The k-th smallest and the k-th largest miss it only if fewer than k samples lie on one of its sides.
    This takes the largest k that is still safe.

    Returns:
        None where even the smallest and the largest are not safe: for 95 %, with fewer than 6 samples.
    """
    n = len(values)
    k, missed = 0, 0.0
    while k < n // 2:
        missed += 2 * math.comb(n, k) / 2**n  # fewer than k + 1 on one side, or on the other
        if missed > 1 - confidence:
            break
        k += 1
    if k == 0:
        return None
    ordered = sorted(values)
    return ordered[k - 1], ordered[n - k]


def estimate(values: Sequence[float]) -> Estimate:
    """Return median, quartiles and the median's interval."""
    low, high = median_interval(values) or (None, None)
    return Estimate(median(values), quantile(values, 0.25), quantile(values, 0.75), low, high, len(values))


def title_of_medians(estimates: Iterable[Estimate]) -> str:
    """Return the title of a table or picture of estimates; it names intervals if any of them has one."""
    sure = f"{100 * CONFIDENCE:.0f} %"
    if any(estimate.low is not None for estimate in estimates):
        return f"medians with their {sure} intervals"
    return f"medians without intervals: a {sure} interval needs {FEWEST} samples"


def ratio(above: Mapping[int, float], below: Mapping[int, float]) -> Estimate | None:
    """Return how many times larger one series is than another that was measured in the same rounds.

    Both samples of a round were taken close together, so what slows the machine for a while slows both, and cancels.
    That is why this is the median of the rounds' ratios and not the ratio of the medians.

    Args:
        above, below: a sample by round; rounds that only one of them has do not count.

    Returns:
        None where they share no round.
    """
    shared = [above[key] / below[key] for key in above if key in below]
    return estimate(shared) if shared else None


def is_larger(a: Estimate, b: Estimate) -> bool:
    """Return True if the first is surely larger: its interval lies above the second's."""
    return a.low is not None and b.high is not None and a.low > b.high
