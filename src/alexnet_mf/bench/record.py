"""The record of a benchmark: conditions, plan and every sample. Times are in seconds, sizes in bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from alexnet_mf.bench.plan import Contestant, Phase, Plan, Work
from alexnet_mf.errors import BenchError
from alexnet_mf.instruments import records
from alexnet_mf.instruments.machine import WholeConditions
from alexnet_mf.instruments.records import Amount, AtLeastOne, Count, Part

FORMAT: Literal[3] = 3


class Worker(Contestant):
    """One worker process."""

    id: Count
    spec_sha256: str
    device: str
    description: str
    versions: Annotated[dict[str, str], Meta(description="of the framework and its libraries")]
    python: str
    import_seconds: Amount
    build_seconds: Amount
    settings: Annotated[dict[str, Any], Meta(description="as the backend reads them back: after the last sample, or, "
                                                         "in a stopped run, before the first")]
    peak_memory_bytes: Count | None = None
    peak_device_memory_bytes: Count | None = None


class Failure(Contestant):
    """A measurement that failed."""

    phase: str
    reason: str


class Sample(Part, omit_defaults=True):
    """One sample."""

    round: Count
    at: Annotated[float, Meta(ge=0, description="since the run began")]
    seconds: Annotated[float, Meta(gt=0)]
    calls: AtLeastOne
    cpu_seconds: Annotated[float, Meta(ge=0, description="of all threads of the worker; of an epoch, with the first "
                                                         "step and the evaluation")]
    joules: Annotated[float, Meta(ge=0, description="of the whole GPU; of an epoch, with the first step and the "
                                                    "evaluation; missing if unknown, or the sample is "
                                                    "shorter than 2 s")] | None = None


class Result(Part):
    """One phase, or one ceiling, of one worker."""

    worker: Annotated[int, Meta(ge=0, description="id of the worker")]
    phase: Phase
    work: Work
    first_call_seconds: Amount
    calls_per_sample: AtLeastOne
    warm_up_seconds: Annotated[list[Amount], Meta(description="samples that do not count")]
    steady: Annotated[bool, Meta(description="true if the warm-up ended because samples no longer got faster")]
    expected_seconds: Amount
    peak_memory_bytes: Annotated[int, Meta(ge=0, description="of the process, until the end of this warm-up")] | None
    peak_device_memory_bytes: Count | None
    samples: list[Sample]


class Record(Part):
    """One run of the benchmark."""

    format: Literal[3]
    conditions: WholeConditions
    plan: Plan
    networks: Annotated[dict[str, dict[str, Any]], Meta(description="each measured spec, by its digest")]
    workers: list[Worker]
    results: list[Result]
    failures: list[Failure]
    complete: Annotated[bool, Meta(description="false if the run was stopped")]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record."""
    return records.json_schema(Record)


def load(path: Path) -> Record:
    """Read a record from a file.

    Raises:
        BenchError: if it cannot be read, is not a record, has another format, or is damaged; names file and field.
    """
    record = records.load(path, Record, "bench", FORMAT, BenchError,
                          lambda value: {"format", "results", "workers"} <= value.keys())
    workers = {worker.id for worker in record.workers}
    for i, result in enumerate(record.results):
        if result.worker not in workers:
            raise BenchError(f"{path}: damaged: results[{i}].worker: there is no worker {result.worker}")
    for worker in record.workers:
        if worker.spec_sha256 not in record.networks:
            raise BenchError(f"{path}: damaged: no network has the digest of worker {worker.id}")
    for digest, network in record.networks.items():
        if not isinstance(network.get("name"), str):
            raise BenchError(f"{path}: damaged: networks.{records.cut(digest)}.name: missing, or not a string")
    return record
