"""Correct networks stay green, whatever the seed: AlexNet made narrower and smaller, on synthetic and on real images.

Layer by layer it is AlexNet: the same kernels, strides, paddings, poolings and dropout. Upsampled images give it the
same flat areas, and so the same near ties, which random inputs never have.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from sizes import narrower
from traces import assert_green

from alexnet_mf import data
from alexnet_mf.data import DataSource
from alexnet_mf.parity.case import Case, make_case
from alexnet_mf.parity.reference import Reference, make_reference
from alexnet_mf.spec.zoo import ALEXNET

COUNT = 48
"""Images in a case: nine batches of four, and some more to classify."""


NARROW = replace(narrower(ALEXNET), input=(1, 112, 112))


def narrow_case(source: data.DatasetName, seed: int) -> Case:
    """Return a case of test images, different ones for each seed."""
    if source == "synthetic":  # drawn here, because `make_case` would draw the whole set
        drawn = data.synthetic.draw(seed, train=1, test=COUNT).test
        return Case(NARROW, seed, drawn.images, drawn.labels, source)
    return make_case(NARROW, seed, DataSource(source), count=COUNT)


@functools.cache  # shared by all backends
def reference(source: data.DatasetName, seed: int) -> Reference:
    return make_reference(narrow_case(source, seed))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, 4)),
                                  *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 10))])
@pytest.mark.parametrize("source", ["synthetic", pytest.param("fashion-mnist", marks=pytest.mark.real_data)])
def test_every_seed_is_green(backend_name: str, source: data.DatasetName, seed: int) -> None:
    right = reference(source, seed)
    assert right.case.origin == source
    assert_green(backend_name, right)
