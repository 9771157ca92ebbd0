"""Statistics, checked on samples with known answers and by drawing many samples."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_mf.instruments import statistics
from alexnet_mf.instruments.statistics import Estimate, estimate, is_larger, median, median_interval, quantile, ratio


def test_quantiles_are_interpolated_between_neighbors():
    """The position is share * (n - 1), the default of NumPy and R."""
    assert [quantile([10, 20, 40, 80], share) for share in (0, 0.25, 0.5, 0.75, 1)] == [10, 17.5, 30, 50, 80]
    assert quantile([math.inf, math.inf], 0.5) == math.inf
    assert (median([3]), median([9, 1, 4]), median([9, 1])) == (3, 4, 5)


@pytest.mark.parametrize("values", [[], [1.0, math.nan]], ids=["none", "not a number"])
def test_a_quantile_of_no_values_or_nan_is_refused(values):
    with pytest.raises(ValueError, match="no quantile"):
        median(values)


# From tables of the sign test: the k-th smallest and k-th largest of n enclose the median with at least 95 %.
@pytest.mark.parametrize("n, k", [(6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (14, 3), (15, 4), (17, 5), (20, 6), (25, 8),
                                  (30, 10), (50, 18), (100, 40)])
def test_the_interval_takes_the_order_statistics_of_the_tables(n, k):
    values = list(range(1, n + 1))
    random.Random(n).shuffle(values)
    assert median_interval(values) == (k, n + 1 - k)


def test_fewer_than_six_values_have_no_interval():
    """Five values cover 1 - 2 / 2^5 = 93.75 %. Six are enough for 95 %, but not for 99 %."""
    assert statistics.FEWEST == 6
    assert not any(median_interval(list(range(n))) for n in range(6))
    assert median_interval([1, 2, 3, 4, 5, 6], confidence=0.99) is None


@pytest.mark.parametrize("n", [6, 7, 12, 25])
@pytest.mark.parametrize("draw, true_median", [
    (lambda r: r.gauss(5, 2), 5), (lambda r: r.expovariate(1), math.log(2)),
    (lambda r: 1 + (r.expovariate(0.1) if r.random() < 0.3 else 0.1 * r.random()), 1 + 0.1 * 0.5 / 0.7),
], ids=["normal", "exponential", "bursts"])
def test_the_interval_covers_the_median_as_often_as_it_says(n, draw, true_median):
    """Chance leaves fewer than 3,740 of 4,000 intervals at 95 % around the median once in 10^4 tests; seeded."""
    stream = random.Random(0)
    trials = 4000
    covered = 0
    for _ in range(trials):
        low, high = median_interval([draw(stream) for _ in range(n)])
        covered += low <= true_median <= high
    assert covered / trials >= 0.935


@given(st.lists(st.floats(0.001, 1000), min_size=6, max_size=40))
def test_an_estimates_quantiles_are_ordered(values):
    result = estimate(values)
    assert min(values) <= result.low <= result.median <= result.high <= max(values)
    assert result.lower_quartile <= result.median <= result.upper_quartile
    assert result.n == len(values)


def test_a_ratio_is_taken_round_by_round():
    """The machine is ten times slower in half of the rounds; the ratio is 1.25 in every round."""
    slow = {number: 10.0 if number % 2 else 1.0 for number in range(8)}
    result = ratio({number: 1.25 * value for number, value in slow.items()}, slow)
    assert (result.median, result.low, result.high, result.n) == (1.25, 1.25, 1.25, 8)


def test_rounds_of_only_one_side_do_not_count():
    result = ratio({0: 2.0, 1: 4.0, 5: 100.0}, {0: 1.0, 1: 1.0, 2: 7.0})
    assert (result.median, result.low, result.n) == (3.0, None, 2)
    assert ratio({0: 1.0}, {1: 1.0}) is None


# Ranking


def interval(low: float | None, high: float | None) -> Estimate:
    return Estimate(1.0, 1.0, 1.0, low, high, 7)


@pytest.mark.parametrize("a, b, larger", [
    ((12.5, 13), (10, 12), True), ((10, 12), (12.5, 13), False), ((11, 12.75), (10, 12), False),
    ((2, 3), (1, 2), False), ((100, 101), (None, None), False), ((None, None), (1, 2), False)])
def test_only_intervals_that_do_not_overlap_rank(a, b, larger):
    """Intervals that touch and missing intervals do not rank."""
    assert is_larger(interval(*a), interval(*b)) is larger
