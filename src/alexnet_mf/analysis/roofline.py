"""The roofline (Williams, Waterman and Patterson 2009): how fast a device can be at a given arithmetic intensity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alexnet_mf.analysis.costs import UPDATE, Costs, LayerCost, Work

COMPUTE, MEMORY = "compute", "memory"


@dataclass(frozen=True)
class Ceilings:
    """Measured limits of a device."""

    flops: float
    """FLOP/s of a large matrix product."""
    bandwidth: float
    """Bytes/s of a large copy, read and written."""

    @property
    def ridge(self) -> float:
        """The intensity, in FLOP/byte, at which both take equally long."""
        return self.flops / self.bandwidth

    def attainable(self, intensity: float) -> float:
        """FLOP/s at this intensity."""
        return min(self.flops, intensity * self.bandwidth)

    def seconds(self, work: Work) -> float:
        """At least, for something done in one go: the longer of computing and moving."""
        return max(work.flops / self.flops, work.traffic / self.bandwidth)

    def limit(self, work: Work) -> str:
        """Which of the two takes longer."""
        return COMPUTE if work.intensity >= self.ridge else MEMORY


@dataclass(frozen=True)
class Times:
    """Predicted seconds."""

    forward: float
    training: float
    memory: float
    """The part of `training` that operations limited by memory take."""


def layer_times(layer: LayerCost, ceilings: Ceilings) -> Times:
    """Return the times of a layer, its operations one after the other."""
    taken = {name: ceilings.seconds(work) for name, work in layer.operations.items()}
    return Times(ceilings.seconds(layer.forward), sum(taken.values()),
                 sum(taken[name] for name, work in layer.operations.items() if ceilings.limit(work) == MEMORY))


def predictions(costs: Costs, ceilings: Ceilings) -> Mapping[str, float]:
    """Seconds of the phases that `bench` measures, by the roofline.

    `forward` is inference on pixels that are ready, `optimizer` an update, and `step` a whole training step, which also
    writes the enlarged pixels.
    """
    times = [layer_times(layer, ceilings) for layer in costs.layers]
    updates = [layer.operations[UPDATE] for layer in costs.layers if UPDATE in layer.operations]
    return {"forward": sum(time.forward for time in times), "optimizer": sum(map(ceilings.seconds, updates)),
            "step": sum(time.training for time in times) + costs.pixels / ceilings.bandwidth}
