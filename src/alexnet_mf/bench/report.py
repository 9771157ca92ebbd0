"""The report on records: tables, conclusions and conditions."""

from __future__ import annotations

import itertools
import string
from collections.abc import Sequence
from dataclasses import dataclass, field

from alexnet_mf.bench.conclusions import gains, ranking, remarks
from alexnet_mf.bench.figures import Row, rows_of
from alexnet_mf.bench.record import Record
from alexnet_mf.bench.tables import Table, parts_of, results_table
from alexnet_mf.instruments.units import bytes_text

SHOWN = ("input", "forward", "forward_backward", "optimizer", "step", "epoch")
"""The order of the table."""


@dataclass
class Report:
    """Everything that records show."""

    rows: list[Row]
    tables: list[Table]
    conclusions: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)


def report(records: Sequence[Record]) -> Report:
    """Return everything that the records show, in words and figures."""
    runs = [name_of(i) if len(records) > 1 else "" for i in range(len(records))]
    rows = sorted(itertools.chain(*(rows_of(record, run) for record, run in zip(records, runs))),
                  key=lambda row: (row.batch_size, SHOWN.index(row.phase)))
    tables = [results_table(rows)] if rows else []
    parts = list(itertools.chain(*(parts_of(record, run) for record, run in zip(records, runs))))
    if parts:
        tables.append(Table("what the device can do, and what a step is made of", [
            "backend", "batch", "matrix product", "copy", "input in a step", "epoch to steps", "import", "build"],
            parts, [1]))
    conclusions = [*gains(rows), *ranking(rows), *remarks(rows)]
    for record, run in zip(records, runs):
        prefix = f"{run}: " if run else ""
        conclusions += [f"{prefix}{failure.backend} {failure.style} {failure.precision}, batch "
                        f"{failure.batch_size}, {failure.phase} failed: {failure.reason}"
                        for failure in record.failures]
        if not record.complete:
            conclusions.append(f"{prefix}stopped before its end: this is what had been measured")
    return Report(rows, tables, conclusions, [line for record, run in zip(records, runs)
                                              for line in conditions_of(record, run)])


def name_of(number: int) -> str:
    """Return A, ..., Z, AA, ..."""
    letters = string.ascii_uppercase
    return (name_of(number // 26 - 1) if number >= 26 else "") + letters[number % 26]


def conditions_of(record: Record, run: str) -> list[str]:
    """Return the lines on machine, time, versions and command."""
    at, plan = record.conditions, record.plan
    memory = f", {bytes_text(at.memory_bytes)}" if at.memory_bytes else ""
    lines = [f"{at.cpu}, {at.physical_cores or '?'} cores, {at.usable_cores} usable threads{memory}; "
             f"{at.platform}; Python {at.python}"]
    lines += [", ".join(value if key == "name" else f"{key} {value}" for key, value in gpu.items())
              for gpu in at.gpus]
    versions: dict[str, str] = {}
    for worker in record.workers:
        versions |= worker.versions
    nets = ", ".join(f"{entry['name']} ({digest[:12]})" for digest, entry in record.networks.items())
    load = " and ".join("?" if value is None else f"{value[0]:.1f}" for value in (at.load_before, at.load_after))
    lines += [f"{', '.join(f'{library} {version}' for library, version in versions.items())}; {nets}",
              f"{plan.rounds} round{'s' * (plan.rounds != 1)}, seed {plan.seed}, {at.time}, load {load}, "
              f"revision {at.git_revision or 'unknown'}"]
    if at.command:
        lines.append(" ".join(at.command))
    return [f"{run}: {line}" if run else line for line in lines]


def markdown(found: Report) -> str:
    """Return the whole report as Markdown."""
    blocks = []
    for table in found.tables:
        rule = ["---:" if i in table.right else "---" for i in range(len(table.columns))]
        cells = [[cell.replace("|", "\\|") for cell in row] for row in [table.columns, rule, *table.rows]]
        blocks.append(f"{table.title[0].upper()}{table.title[1:]}:\n\n" + "\n".join(
            f"| {' | '.join(row)} |" for row in cells))
    for lines in (found.conclusions, found.conditions):
        if lines:
            blocks.append("\n".join(f"- {line}" for line in lines))
    return "\n\n".join(blocks) + "\n"
