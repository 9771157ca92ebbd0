"""The figures in sentences: which part dominates memory, which computation, and what bandwidth means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from alexnet_mf.analysis.costs import DENSE, PARTS, Costs, LayerCost, costs
from alexnet_mf.analysis.roofline import MEMORY, Ceilings, layer_times
from alexnet_mf.instruments.units import bytes_text, percent_text, rate_text, three_digits

HELD = {"weights": "weights", "weight_gradients": "their gradients", "optimizer": "momentum",
        "activations": "activations", "auxiliary": "indices and masks"}


def conclusions(found: Costs) -> list[str]:
    """By arithmetic alone."""
    return [memory(found), computation(found), traffic(found)]


def by_part(found: Costs, amount: Callable[[LayerCost], float]) -> dict[str, float]:
    """An amount summed over the layers of each part, the largest first."""
    sums = {part: sum(map(amount, found.part(part))) for part in PARTS}
    return dict(sorted(sums.items(), key=lambda pair: -pair[1]))


def verdict(sums: Mapping[str, float]) -> str:
    """Who dominates: has more than half."""
    whole = sum(sums.values())
    (first, most), *_ = sums.items()
    shares = ", ".join(f"{part} {percent_text(amount / whole)}" for part, amount in sums.items() if amount)
    dominates = f"{first} dominate" if most > whole / 2 else f"no part has more than half, {first} most"
    return f"{dominates} ({shares})"


def memory(found: Costs) -> str:
    """The footprint of training, what it consists of, and the batch at which convolutions and dense layers hold as
    much."""
    sums = by_part(found, lambda layer: layer.held.total)
    largest = next(iter(sums))
    kinds = {name: sum(getattr(layer.held, kind) for layer in found.part(largest)) for kind, name in HELD.items()}
    made_of = ", ".join(f"{name} {bytes_text(count)}" for name, count in sorted(
        kinds.items(), key=lambda pair: -pair[1]) if count)
    weights = by_part(found, lambda layer: layer.parameters)
    sentence = (f"Memory: a training step on {images(found.batch_size)} holds {bytes_text(found.held)}, and "
                f"{verdict(sums)}. What {largest} hold: {made_of}. Of the parameters, {next(iter(weights))} have "
                f"{percent_text(next(iter(weights.values())) / sum(weights.values()))}.")
    return f"{sentence} {_crossing(found)}".rstrip()


def _crossing(found: Costs) -> str:
    """From which batch size on another part holds more than the dense layers: these hold weights above all, the others
    activations, which grow with the batch."""
    def held(batch_size: int) -> dict[str, float]:
        again = costs(found.network, batch_size, found.item_bytes, found.momentum)
        return by_part(again, lambda layer: layer.held.total)
    one, two = held(1), held(2)
    slopes = {part: two[part] - one[part] for part in PARTS}
    for part in (part for part in one if part != DENSE):
        faster, behind = slopes[part] - slopes[DENSE], one[DENSE] - one[part]
        if faster > 0 and behind > 0:
            return f"From a batch of {1 + math.floor(behind / faster) + 1} on, {part} hold more than {DENSE}."
    return ""


def computation(found: Costs) -> str:
    """Multiply-accumulates."""
    forward = by_part(found, lambda layer: layer.forward.macs)
    training = by_part(found, lambda layer: layer.training.macs)
    return (f"Computation: {found.forward.macs // found.batch_size:,} multiply-accumulates an image forward, "
            f"{found.training.macs // found.batch_size:,} in training; in training {verdict(training)}; forward "
            f"{verdict(forward)}.")


def traffic(found: Costs) -> str:
    """Bytes moved, at this batch and at one image."""
    single = costs(found.network, 1, found.item_bytes, found.momentum)
    weights = sum(layer.held.weights for layer in single.part(DENSE))
    return (f"Memory traffic: inference on {images(found.batch_size)} moves at least "
            f"{bytes_text(found.forward.traffic)}, {verdict(by_part(found, lambda layer: layer.forward.traffic))}; "
            f"training at least {bytes_text(found.training.traffic)}, "
            f"{verdict(by_part(found, lambda layer: layer.training.traffic))}. On one image, reading "
            f"the weights of {DENSE} is {percent_text(weights / single.forward.traffic)} of inference's traffic "
            f"({three_digits(single.forward.intensity)} FLOP/byte in all){_shared(found)}.")


def _shared(found: Costs) -> str:
    """Return a sentence on the gain from a batch."""
    return "" if found.batch_size == 1 else (f"; a batch of {found.batch_size} reads them once for all its images "
                                             f"({three_digits(found.forward.intensity)} FLOP/byte)")


def bandwidth(found: Costs, ceilings: Ceilings) -> list[str]:
    """Return sentences on the limits of a device."""
    limited = [layer.name for layer in found.layers
               if layer.forward.traffic and ceilings.limit(layer.forward) == MEMORY]
    times = {layer.name: layer_times(layer, ceilings) for layer in found.layers}
    whole = sum(time.training for time in times.values())
    waiting = sum(time.memory for time in times.values())
    return [f"Roofline: {rate_text(ceilings.flops, 'FLOP/s')} and {rate_text(ceilings.bandwidth, 'B/s')} meet at "
            f"{three_digits(ceilings.ridge)} FLOP/byte. Below it memory bandwidth is the limit: in inference on "
            f"{images(found.batch_size)} of {listed(limited)}; in training for {percent_text(waiting / whole)} of the "
            f"predicted time, in which {verdict(by_part(found, lambda layer: times[layer.name].training))}."]


# Figures


def images(n: int) -> str:
    """A batch."""
    return f"{n} image{'s' * (n > 1)}"


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "no layer"
