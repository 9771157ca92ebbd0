"""The roofline (Williams, Waterman and Patterson 2009): a device's highest rate at an arithmetic intensity."""

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
        """Intensity, in FLOP/byte, at which computing and moving take equally long."""
        return self.flops / self.bandwidth

    def attainable(self, intensity: float) -> float:
        """Return the highest rate at an intensity, in FLOP/s."""
        return min(self.flops, intensity * self.bandwidth)

    def seconds(self, work: Work) -> float:
        """Return the shortest time of an operation: the longer of computing and moving."""
        return max(work.flops / self.flops, work.traffic / self.bandwidth)

    def limit(self, work: Work) -> str:
        """Return the limit that takes longer, compute or memory."""
        return COMPUTE if work.intensity >= self.ridge else MEMORY


@dataclass(frozen=True)
class Times:
    """Predicted seconds."""

    forward: float
    training: float
    memory: float
    """Seconds of `training` in operations that memory limits."""


def layer_times(layer: LayerCost, ceilings: Ceilings) -> Times:
    """Return the times of a layer, whose operations follow each other."""
    seconds = {name: ceilings.seconds(work) for name, work in layer.operations.items()}
    return Times(ceilings.seconds(layer.forward), sum(seconds.values()),
                 sum(seconds[name] for name, work in layer.operations.items() if ceilings.limit(work) == MEMORY))


def predictions(costs: Costs, ceilings: Ceilings) -> Mapping[str, float]:
    """Return the roofline's seconds for the phases that `bench` measures.

    `forward` is inference on ready pixels, `optimizer` an update, and `step` a whole training step, which also writes
    the upsampled pixels.
    """
    times = [layer_times(layer, ceilings) for layer in costs.layers]
    updates = [layer.operations[UPDATE] for layer in costs.layers if UPDATE in layer.operations]
    return {"forward": sum(time.forward for time in times), "optimizer": sum(map(ceilings.seconds, updates)),
            "step": sum(time.training for time in times) + costs.pixels / ceilings.bandwidth}
