"""Conclusions in sentences: the parts that dominate memory, computation and traffic, and the limit of bandwidth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from alexnet_mf.analysis.costs import DENSE, PARTS, Costs, LayerCost
from alexnet_mf.analysis.costs import costs as compute_costs
from alexnet_mf.analysis.roofline import MEMORY, Ceilings, layer_times
from alexnet_mf.instruments.units import bytes_text, listed, percent_text, rate_text, three_digits

STORED = {"weights": "weights", "weight_gradients": "their gradients", "optimizer": "momentum",
        "activations": "activations", "auxiliary": "indices and masks"}


def conclusions(costs: Costs) -> list[str]:
    """Return the conclusions that need no measurement."""
    return [memory(costs), computation(costs), traffic(costs)]


def by_part(costs: Costs, amount: Callable[[LayerCost], float]) -> dict[str, float]:
    """Return the sum of an amount over the layers of each part, the largest first."""
    sums = {part: sum(map(amount, costs.part(part))) for part in PARTS}
    return dict(sorted(sums.items(), key=lambda pair: -pair[1]))


def verdict(sums: Mapping[str, float]) -> str:
    """Return the part that dominates, with more than half, and the shares of all."""
    whole = sum(sums.values())
    (first, most), *_ = sums.items()
    shares = ", ".join(f"{part} {percent_text(amount / whole)}" for part, amount in sums.items() if amount)
    dominates = f"{first} dominate" if most > whole / 2 else f"{first} have the largest part"
    return f"{dominates} ({shares})"


def memory(costs: Costs) -> str:
    """Return a sentence on training memory, its components, and the batch size from which another part dominates."""
    sums = by_part(costs, lambda layer: layer.stored.total)
    largest = next(iter(sums))
    layers = costs.part(largest)
    counts = {name: sum(getattr(layer.stored, field) for layer in layers) for field, name in STORED.items()}
    components = ", ".join(f"{name} {bytes_text(count)}" for name, count in sorted(
        counts.items(), key=lambda pair: -pair[1]) if count)
    weights = by_part(costs, lambda layer: layer.parameters)
    sentence = (f"Memory: a training step on {images(costs.batch_size)} stores {bytes_text(costs.stored)}; "
                f"{verdict(sums)}. {largest.capitalize()} store: {components}. {next(iter(weights)).capitalize()} "
                f"have {percent_text(next(iter(weights.values())) / sum(weights.values()))} of the parameters.")
    return f"{sentence} {_crossing(costs)}".rstrip()


def _crossing(costs: Costs) -> str:
    """Return a sentence on the batch size from which another part holds more than the dense layers, or "". Activations
    grow with the batch, weights do not."""
    def stored(batch_size: int) -> dict[str, float]:
        other = compute_costs(costs.network, batch_size, costs.item_bytes, costs.momentum)
        return by_part(other, lambda layer: layer.stored.total)
    one, two = stored(1), stored(2)
    slopes = {part: two[part] - one[part] for part in PARTS}
    for part in (part for part in one if part != DENSE):
        faster, behind = slopes[part] - slopes[DENSE], one[DENSE] - one[part]
        if faster > 0 and behind > 0:
            return f"From batch size {1 + math.floor(behind / faster) + 1} on, {part} store more than {DENSE}."
    return ""


def computation(costs: Costs) -> str:
    """Return a sentence on the multiply-accumulates."""
    forward = by_part(costs, lambda layer: layer.forward.macs)
    training = by_part(costs, lambda layer: layer.training.macs)
    return (f"Computation: {costs.forward.macs // costs.batch_size:,} multiply-accumulates per image forward, "
            f"{costs.training.macs // costs.batch_size:,} in training. In training {verdict(training)}; "
            f"in the forward pass {verdict(forward)}.")


def traffic(costs: Costs) -> str:
    """Return a sentence on the bytes moved, for this batch and for one image."""
    single = compute_costs(costs.network, 1, costs.item_bytes, costs.momentum)
    weights = sum(layer.stored.weights for layer in single.part(DENSE))
    shared = "" if costs.batch_size == 1 else (f"; a batch of {costs.batch_size} reads them once for all its images "
                                               f"({three_digits(costs.forward.intensity)} FLOP/byte)")
    return (f"Memory traffic: inference on {images(costs.batch_size)} moves at least "
            f"{bytes_text(costs.forward.traffic)}, {verdict(by_part(costs, lambda layer: layer.forward.traffic))}; "
            f"training at least {bytes_text(costs.training.traffic)}, "
            f"{verdict(by_part(costs, lambda layer: layer.training.traffic))}. On one image, reading "
            f"the weights of {DENSE} is {percent_text(weights / single.forward.traffic)} of inference's traffic "
            f"({three_digits(single.forward.intensity)} FLOP/byte overall){shared}.")


def bandwidth(costs: Costs, ceilings: Ceilings) -> list[str]:
    """Return sentences on the limits that a device sets."""
    limited = [layer.name for layer in costs.layers
               if layer.forward.traffic and ceilings.limit(layer.forward) == MEMORY]
    times = {layer.name: layer_times(layer, ceilings) for layer in costs.layers}
    whole = sum(time.training for time in times.values())
    waiting = sum(time.memory for time in times.values())
    return [f"Roofline: {rate_text(ceilings.flops, 'FLOP/s')} and {rate_text(ceilings.bandwidth, 'B/s')} meet at "
            f"{three_digits(ceilings.ridge)} FLOP/byte. Below it, memory bandwidth is the limit: for "
            f"{listed(limited) or 'no layer'} in inference on {images(costs.batch_size)}; for "
            f"{percent_text(waiting / whole)} of the predicted time in training, in which "
            f"{verdict(by_part(costs, lambda layer: times[layer.name].training))}."]


def images(n: int) -> str:
    """Return `1 image` or `2 images`."""
    return f"{n} image{'s' * (n > 1)}"
