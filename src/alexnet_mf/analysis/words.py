"""What the figures say, in sentences: which part dominates memory, which computation, and what bandwidth means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from alexnet_mf.analysis.costs import DENSE, PARTS, Costs, LayerCost, costs
from alexnet_mf.analysis.roofline import MEMORY, Ceilings, layer_times

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
    shares = ", ".join(f"{part} {percent(amount / whole)}" for part, amount in sums.items() if amount)
    dominates = f"{first} dominate" if most > whole / 2 else f"no part has more than half, {first} most"
    return f"{dominates} ({shares})"


def memory(found: Costs) -> str:
    """The footprint of training, what it consists of, and the batch at which convolutions and dense layers hold as
    much."""
    sums = by_part(found, lambda layer: layer.held.total)
    largest = next(iter(sums))
    kinds = {words: sum(getattr(layer.held, kind) for layer in found.part(largest)) for kind, words in HELD.items()}
    made_of = ", ".join(f"{words} {size(count)}" for words, count in sorted(kinds.items(), key=lambda pair: -pair[1])
                        if count)
    weights = by_part(found, lambda layer: layer.parameters)
    sentence = (f"Memory: a training step on {images(found.batch_size)} holds {size(found.held)}, and "
                f"{verdict(sums)}. What {largest} hold: {made_of}. Of the parameters, {next(iter(weights))} have "
                f"{percent(next(iter(weights.values())) / sum(weights.values()))}.")
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
    return (f"Memory traffic: inference on {images(found.batch_size)} moves at least {size(found.forward.traffic)}, "
            f"{verdict(by_part(found, lambda layer: layer.forward.traffic))}; training at least "
            f"{size(found.training.traffic)}, {verdict(by_part(found, lambda layer: layer.training.traffic))}. On one "
            f"image, reading the weights of {DENSE} is {percent(weights / single.forward.traffic)} of inference's "
            f"traffic ({number(single.forward.intensity)} FLOP/byte in all){_shared(found)}.")


def _shared(found: Costs) -> str:
    """What a batch gains."""
    return "" if found.batch_size == 1 else (f"; a batch of {found.batch_size} reads them once for all its images "
                                             f"({number(found.forward.intensity)} FLOP/byte)")


def bandwidth(found: Costs, ceilings: Ceilings) -> list[str]:
    """What limits what on a device."""
    limited = [layer.name for layer in found.layers
               if layer.forward.traffic and ceilings.limit(layer.forward) == MEMORY]
    times = {layer.name: layer_times(layer, ceilings) for layer in found.layers}
    whole = sum(time.training for time in times.values())
    waiting = sum(time.memory for time in times.values())
    return [f"Roofline: {rate(ceilings.flops, 'FLOP/s')} and {rate(ceilings.bandwidth, 'B/s')} meet at "
            f"{number(ceilings.ridge)} FLOP/byte. Below it memory bandwidth is the limit: in inference on "
            f"{images(found.batch_size)} of {listed(limited)}; in training for {percent(waiting / whole)} of the "
            f"predicted time, in which {verdict(by_part(found, lambda layer: times[layer.name].training))}."]


# Figures


def images(n: int) -> str:
    """A batch."""
    return f"{n} image{'s' * (n > 1)}"


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "no layer"


def number(value: float) -> str:
    """Three significant digits; whole above a hundred."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def scaled(value: float, units: Sequence[str]) -> str:
    """Three digits or so, in the unit that suits, each a thousand of the one before."""
    step = 0
    while step < len(units) - 1 and round(value, 0 if step == 0 else 1) >= 1000:
        value, step = value / 1000, step + 1
    digits = f"{value:.0f}" if step == 0 and value == int(value) else number(value)
    return f"{digits} {units[step]}".rstrip()


def size(count: float) -> str:
    """Bytes: 187 MB."""
    return scaled(count, ("B", "kB", "MB", "GB", "TB"))


def rate(value: float, unit: str) -> str:
    """319 GFLOP/s."""
    return scaled(value, [prefix + unit for prefix in ("", "k", "M", "G", "T", "P")])


def seconds(value: float) -> str:
    """12.3 ms."""
    return scaled(value * 1e6, ("us", "ms", "s"))


def percent(share: float) -> str:
    """94 %, 4.6 %, 0.053 %."""
    points = 100 * share
    return f"{points:.0f} %" if points >= 9.95 else f"{points:.1f} %" if points >= 0.1 else f"{points:.2g} %"
