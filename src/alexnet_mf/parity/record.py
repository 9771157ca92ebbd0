"""A parity report as a record: every measurement with its conditions. None stands for infinity or NaN."""

from __future__ import annotations

import math
from typing import Annotated, Any

from msgspec import Meta

from alexnet_mf import spec
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.instruments import records
from alexnet_mf.instruments.machine import Conditions
from alexnet_mf.instruments.records import AtLeastOne, Count, Part
from alexnet_mf.parity import ladder
from alexnet_mf.parity.run import Report


class Measurement(Part):
    """One error beside its tolerance."""

    where: str
    error: float | None
    tolerance: float | None
    what: str
    holds: bool


class Rung(Part):
    """One rung's measurements for one backend."""

    number: AtLeastOne
    name: str
    holds: bool
    note: str
    measurements: list[Measurement]


class Backend(Part):
    """The ladder of one backend, and its diagnosis."""

    versions: dict[str, str]
    settings: dict[str, Any]
    device: str
    rungs: list[Rung]
    diagnosis: list[str]


class Pair(Part):
    """The largest differences between two backends, without the reference."""

    first: str
    second: str
    pixels_equal: bool
    output: float | None
    layer: str
    gradient: float | None
    parameter: str


class Record(Part, omit_defaults=True):
    """Parity of one network."""

    holds: bool
    network: dict[str, Any]
    spec_sha256: str
    data: str
    seed: Count
    batch: AtLeastOne
    steps: Count
    sgd: Sgd
    float32_cost: dict[str, float]
    backends: dict[str, Backend]
    pairs: list[Pair]
    conditions: Annotated[Conditions, Meta(
        description="of the comparison, on whose machine `parity` computes the traces too; missing before 2026-11-28"
    )] | None = None


class Several(Part):
    """Parity of several networks."""

    holds: bool
    networks: dict[str, Record]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record of one network or of several."""
    return records.json_schema(Record, Several)


def make_record(report: Report) -> Record:
    """Return a report as a record."""
    case = report.reference.case
    return Record(
        holds=report.holds, network=spec.as_dict(case.network), spec_sha256=spec.fingerprint(case.network),
        data=case.origin, seed=case.seed, batch=case.batch, steps=case.steps, sgd=case.sgd,
        float32_cost=report.reference.cost,
        backends={name: Backend(
            versions=subject.meta["versions"], settings=subject.meta["settings"], device=subject.meta["device"],
            rungs=[rung_record(rung) for rung in report.rungs[name]], diagnosis=report.diagnoses[name])
            for name, subject in zip(report.rungs, report.subjects)},
        pairs=[Pair(**{**vars(pair), "output": finite(pair.output), "gradient": finite(pair.gradient)})
               for pair in report.pairs], conditions=report.conditions)


def rung_record(rung: ladder.Rung) -> Rung:
    """Return a rung's record."""
    return Rung(number=rung.number, name=rung.name, holds=rung.holds, note=rung.note, measurements=[
        Measurement(where=one.where, error=finite(one.error), tolerance=finite(one.tolerance), what=one.what,
                    holds=one.holds) for one in rung.measurements])


def finite(value: float) -> float | None:
    """Return the number, or None if it is infinite or NaN."""
    return float(value) if math.isfinite(value) else None
