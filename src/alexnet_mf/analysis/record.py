"""An analysis as JSON values."""

from __future__ import annotations

import dataclasses
from typing import Any

from alexnet_mf import spec
from alexnet_mf.analysis import words
from alexnet_mf.analysis.costs import PARTS, Costs, LayerCost, Work
from alexnet_mf.analysis.measure import Measured
from alexnet_mf.analysis.peak import Peak
from alexnet_mf.analysis.roofline import layer_times, predictions
from alexnet_mf.training.recipe import Recipe


def as_json(found: Costs, recipe: Recipe, peak: Peak, measured: Measured | None) -> dict[str, Any]:
    """Everything, in bytes, seconds and counts."""
    result: dict[str, Any] = {
        "network": spec.as_dict(found.network), "spec_sha256": spec.fingerprint(found.network),
        "recipe": recipe.name, "momentum": recipe.sgd.momentum, "batch_size": found.batch_size,
        "item_bytes": found.item_bytes, "layers": [layer_json(layer) for layer in found.layers],
        "total": {"parameters": sum(layer.parameters for layer in found.layers), "held_bytes": found.held,
                  "forward": work_json(found.forward), "training": work_json(found.training)},
        "parts": {part: {"parameters": sum(layer.parameters for layer in found.part(part)),
                         "held_bytes": sum(layer.held.total for layer in found.part(part)),
                         "forward_macs": sum(layer.forward.macs for layer in found.part(part)),
                         "training_macs": sum(layer.training.macs for layer in found.part(part)),
                         "forward_traffic_bytes": sum(layer.forward.traffic for layer in found.part(part)),
                         "training_traffic_bytes": sum(layer.training.traffic for layer in found.part(part))}
                  for part in PARTS},
        "predicted_peak_bytes": peak.bytes, "predicted_peak_moment": peak.moment,
        "conclusions": words.conclusions(found), "measured": None}
    if measured:
        ceilings = measured.ceilings
        result["conclusions"] += words.bandwidth(found, ceilings)
        result["measured"] = {
            "backend": measured.backend, "device": measured.device, "description": measured.description,
            "precision": measured.precision, "versions": measured.versions, "settings": measured.settings,
            "conditions": measured.conditions,
            "ceilings": {"flops_per_second": ceilings.flops, "bytes_per_second": ceilings.bandwidth,
                         "ridge_flops_per_byte": ceilings.ridge},
            "predicted_seconds": dict(predictions(found, ceilings)),
            "layers": {layer.name: dataclasses.asdict(layer_times(layer, ceilings)) for layer in found.layers},
            "measured_seconds": {phase: dataclasses.asdict(taken) for phase, taken in measured.seconds.items()},
            "memory_bytes": dataclasses.asdict(measured.memory),
            "allocator_over_predicted_peak": measured.memory.off(peak.bytes)}
    return result


def layer_json(layer: LayerCost) -> dict[str, Any]:
    """A layer."""
    return {"layer": layer.name, "kind": layer.kind, "part": layer.part, "output": list(layer.output),
            "parameters": layer.parameters, "held_bytes": {**dataclasses.asdict(layer.held), "total": layer.held.total},
            "activation_gradient_bytes": layer.activation_gradients, "forward": work_json(layer.forward),
            "training": work_json(layer.training),
            "operations": {name: work_json(work) for name, work in layer.operations.items()}}


def work_json(work: Work) -> dict[str, Any]:
    """What is done and moved, and their ratio."""
    return {"macs": work.macs, "traffic_bytes": work.traffic, "flops_per_byte": work.intensity}
