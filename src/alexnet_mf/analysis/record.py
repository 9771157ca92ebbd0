"""An analysis as a record, in bytes, seconds and counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from alexnet_mf import spec
from alexnet_mf.analysis import sentences
from alexnet_mf.analysis.costs import PARTS, Costs, LayerCost
from alexnet_mf.analysis.costs import Work as Amounts
from alexnet_mf.analysis.measure import Measured, Memory
from alexnet_mf.analysis.peak import Peak
from alexnet_mf.analysis.roofline import Times, layer_times, predictions
from alexnet_mf.instruments import records
from alexnet_mf.instruments.machine import Conditions
from alexnet_mf.instruments.records import Amount, AtLeastOne, Count, Part
from alexnet_mf.instruments.statistics import Estimate
from alexnet_mf.training.recipe import Recipe


class Work(Part):
    """Multiply-accumulates, bytes moved, and their ratio."""

    macs: Count
    traffic_bytes: Count
    flops_per_byte: Amount


class HeldBytes(Part):
    """Bytes that training keeps from the forward pass to the backward pass, or longer."""

    weights: Count
    weight_gradients: Count
    optimizer: Count
    activations: Count
    auxiliary: Count
    total: Count


class Layer(Part):
    """A layer."""

    layer: str
    kind: str
    part: str
    output: list[int]
    parameters: Count
    held_bytes: HeldBytes
    activation_gradient_bytes: Count
    forward: Work
    training: Work
    operations: dict[str, Work]


class Total(Part):
    """The network."""

    parameters: Count
    held_bytes: Count
    forward: Work
    training: Work


class Section(Part):
    """The convolutions, the fully connected layers, or the other layers."""

    parameters: Count
    held_bytes: Count
    forward_macs: Count
    training_macs: Count
    forward_traffic_bytes: Count
    training_traffic_bytes: Count


class Ceilings(Part):
    """Measured limits of the device."""

    flops_per_second: Amount
    bytes_per_second: Amount
    ridge_flops_per_byte: Amount


class Measurement(Part):
    """Measurements beside the predictions."""

    backend: str
    device: str
    description: str
    precision: str
    versions: dict[str, str]
    settings: dict[str, Any]
    conditions: Conditions
    ceilings: Ceilings
    predicted_seconds: dict[str, Amount]
    layers: dict[str, Times]
    measured_seconds: dict[str, Estimate]
    memory_bytes: Memory
    allocator_over_predicted_peak: float | None
    kernels: Annotated[dict[str, list[str]], Meta(description="convolutions that are not computed as the framework's "
                                                  "layers, where it changes the memory")]


class Record(Part):
    """An analysis."""

    network: dict[str, Any]
    spec_sha256: str
    recipe: str
    momentum: Amount
    batch_size: AtLeastOne
    item_bytes: AtLeastOne
    layers: list[Layer]
    total: Total
    parts: dict[str, Section]
    predicted_peak_bytes: Count
    predicted_peak_moment: str
    conclusions: list[str]
    measured: Measurement | None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record."""
    return records.json_schema(Record)


def make_record(costs: Costs, recipe: Recipe, peak: Peak, measured: Measured | None) -> Record:
    """Return an analysis as a record."""
    return Record(
        network=spec.as_dict(costs.network), spec_sha256=spec.fingerprint(costs.network), recipe=recipe.name,
        momentum=recipe.sgd.momentum, batch_size=costs.batch_size, item_bytes=costs.item_bytes,
        layers=[layer_record(layer) for layer in costs.layers],
        total=Total(parameters=sum(layer.parameters for layer in costs.layers), held_bytes=costs.stored,
                    forward=work_record(costs.forward), training=work_record(costs.training)),
        parts={part: section(costs.part(part)) for part in PARTS}, predicted_peak_bytes=peak.bytes,
        predicted_peak_moment=peak.moment,
        conclusions=sentences.conclusions(costs) + (sentences.bandwidth(costs, measured.ceilings) if measured else []),
        measured=measurement(costs, peak, measured) if measured else None)


def section(layers: Sequence[LayerCost]) -> Section:
    """Return the sums over layers."""
    return Section(parameters=sum(layer.parameters for layer in layers),
                   held_bytes=sum(layer.stored.total for layer in layers),
                   forward_macs=sum(layer.forward.macs for layer in layers),
                   training_macs=sum(layer.training.macs for layer in layers),
                   forward_traffic_bytes=sum(layer.forward.traffic for layer in layers),
                   training_traffic_bytes=sum(layer.training.traffic for layer in layers))


def measurement(costs: Costs, peak: Peak, measured: Measured) -> Measurement:
    """Return the measurements beside the predictions."""
    ceilings = measured.ceilings
    return Measurement(
        backend=measured.backend, device=measured.device, description=measured.description,
        precision=measured.precision, versions=measured.versions, settings=measured.settings,
        conditions=measured.conditions, predicted_seconds=dict(predictions(costs, ceilings)),
        ceilings=Ceilings(flops_per_second=ceilings.flops, bytes_per_second=ceilings.bandwidth,
                          ridge_flops_per_byte=ceilings.ridge),
        layers={layer.name: layer_times(layer, ceilings) for layer in costs.layers}, measured_seconds=measured.seconds,
        memory_bytes=measured.memory,
        kernels=measured.kernels, allocator_over_predicted_peak=measured.memory.off(peak.bytes))


def layer_record(layer: LayerCost) -> Layer:
    """Return a layer's record."""
    stored = layer.stored
    return Layer(
        layer=layer.name, kind=layer.kind, part=layer.part, output=list(layer.output), parameters=layer.parameters,
        held_bytes=HeldBytes(**vars(stored), total=stored.total), activation_gradient_bytes=layer.activation_gradients,
        forward=work_record(layer.forward), training=work_record(layer.training),
        operations={name: work_record(work) for name, work in layer.operations.items()})


def work_record(work: Amounts) -> Work:
    """Return the record of an amount of work."""
    return Work(macs=work.macs, traffic_bytes=work.traffic, flops_per_byte=work.intensity)
