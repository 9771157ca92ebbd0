"""Sentences of the analysis, computed from the network, the batch and the device."""

from __future__ import annotations

import re

import pytest

from alexnet_mf.analysis import sentences
from alexnet_mf.analysis.costs import CONVOLUTIONS, DENSE, costs
from alexnet_mf.analysis.roofline import Ceilings
from alexnet_mf.instruments.units import bytes_text, listed, percent_text, rate_text
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.layers import Conv2d, Dense, Flatten


def test_conclusions_for_alexnet():
    memory, computation, traffic = sentences.conclusions(costs(zoo.ALEXNET, 16, momentum=True))
    assert "fully connected layers dominate" in memory
    assert "Fully connected layers have 92 % of the parameters." in memory
    assert "938,146,176 multiply-accumulates per image forward, 2,780,566,272 in training" in computation
    assert computation.count("convolutions dominate (convolutions 95 %, fully connected layers 4.6 %)") == 2
    assert "is 89 % of inference's traffic" in traffic


def test_conclusions_reverse_for_large_convolutions_and_a_small_dense_layer():
    network = Network("other", (3, 32, 32), (Conv2d("conv1", channels=64, kernel=3, padding=1), Flatten("flatten"),
                                             Dense("fc2", units=1)))
    memory, *_ = sentences.conclusions(costs(network, 16))
    assert "convolutions dominate" in memory
    dense = Network("dense", (1, 4, 4), (Flatten("flatten"), Dense("fc1", units=9), Dense("fc2", units=2)))
    memory, computation, _ = sentences.conclusions(costs(dense, 1))
    assert "fully connected layers dominate (fully connected layers 100 %)" in computation
    assert "From batch size" not in memory, "there are no convolutions"


@pytest.mark.parametrize("momentum", [False, True])
def test_the_batch_size_from_which_convolutions_need_more_memory_is_exact(momentum):
    result = costs(zoo.ALEXNET, 1, momentum=momentum)
    match = re.search(r"From batch size (\d+) on, convolutions store more", sentences.memory(result))
    n = int(match[1])

    def memory_by_part(batch_size: int) -> dict[str, float]:
        return sentences.by_part(costs(zoo.ALEXNET, batch_size, momentum=momentum), lambda layer: layer.stored.total)
    assert memory_by_part(n)[CONVOLUTIONS] > memory_by_part(n)[DENSE]
    assert memory_by_part(n - 1)[CONVOLUTIONS] <= memory_by_part(n - 1)[DENSE]


def test_a_part_with_at_most_half_does_not_dominate():
    assert sentences.verdict({"a": 45.0, "b": 35.0, "c": 20.0}) == \
        "a have the largest part (a 45 %, b 35 %, c 20 %)"
    assert sentences.verdict({"a": 60.0, "b": 40.0, "c": 0}) == "a dominate (a 60 %, b 40 %)"


def test_the_bandwidth_sentence_follows_the_device():
    result = costs(zoo.ALEXNET, 16)
    (balanced,) = sentences.bandwidth(result, Ceilings(300e9, 20e9))
    assert balanced.startswith("Roofline: 300 GFLOP/s and 20.0 GB/s meet at 15.0 FLOP/byte.")
    assert "for pool1, pool2, pool5, fc6, fc7 and fc8" in balanced
    (slow_memory,) = sentences.bandwidth(result, Ceilings(300e12, 1e9))
    assert "for conv1, pool1, conv2" in slow_memory and "for 100 % of the predicted time" in slow_memory
    plain = Network("plain", (1, 4, 4), (Flatten("flatten"), Dense("fc1", units=2)))
    (slow_arithmetic,) = sentences.bandwidth(costs(plain, 16), Ceilings(1.0, 1e15))
    assert "for no layer in inference on 16 images" in slow_arithmetic


@pytest.mark.parametrize("value, text", [
    (640, "640 B"), (999.9e3, "1,000 kB"), (46_848, "46.8 kB"), (187_058_984, "187 MB"), (1.756e9, "1.76 GB"),
    (1e15, "1,000 TB"), (0, "0 B")])
def test_bytes_read_well(value, text):
    assert bytes_text(value) == text


def test_other_figures_read_well():
    assert [percent_text(share) for share in (1, 0.945, 0.0996, 0.0463, 0.002, 0.00053)] == [
        "100 %", "94 %", "10 %", "4.6 %", "0.2 %", "0.053 %"]
    assert rate_text(319e9, "FLOP/s") == "319 GFLOP/s"
    assert rate_text(6_645_350_400, "") == "6.65 G"
    assert [listed(names) for names in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
