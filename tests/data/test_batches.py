"""Batch order: a function of seed and epoch alone."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet_mf.data import batches, epoch_order
from alexnet_mf.errors import DataError


@pytest.mark.parametrize("n", [1, 2, 1000, 60_000])
def test_order_is_a_permutation(n: int) -> None:
    order = epoch_order(n, seed=0, epoch=0)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {(seed, epoch): epoch_order(1000, seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)}
    for (seed, epoch), order in orders.items():
        np.testing.assert_array_equal(epoch_order(1000, seed, epoch), order)
    assert len({order.tobytes() for order in orders.values()}) == len(orders)
    for order in orders.values():
        assert (order == np.arange(1000)).sum() < 10  # one is expected


def test_order_is_pinned() -> None:
    assert epoch_order(10, seed=0, epoch=0).tolist() == [1, 5, 9, 0, 8, 2, 7, 6, 4, 3]
    assert epoch_order(10, seed=0, epoch=1).tolist() == [6, 1, 8, 7, 5, 4, 2, 9, 3, 0]


def test_the_last_short_batch_is_kept() -> None:
    order = epoch_order(60_000, seed=0, epoch=0)
    cut = batches(order, 128)
    assert len(cut) == 469
    assert {len(batch) for batch in cut[:-1]} == {128}
    assert len(cut[-1]) == 96  # 60,000 - 468 x 128
    np.testing.assert_array_equal(np.concatenate(cut), order)


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [(4, 2, [2, 2]), (3, 5, [3]), (2, 1, [1, 1])])
def test_only_the_last_batch_may_be_short(n: int, batch_size: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in batches(epoch_order(n, 0, 0), batch_size)] == sizes


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(batch_size: int) -> None:
    with pytest.raises(DataError, match="at least 1"):
        batches(np.arange(3), batch_size)
