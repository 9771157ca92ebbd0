"""The record: its schema, what the program makes of it, and files that are none."""

from __future__ import annotations

import copy
import functools
import json
import operator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from alexnet_mf.analysis import record as analysis_record
from alexnet_mf.bench import record
from alexnet_mf.errors import BenchError
from alexnet_mf.instruments.records import parse, plain, to_json
from alexnet_mf.parity import record as parity_record

FOLDER = Path(__file__).parents[2] / "benchmarks" / "results"
RESULTS = [*sorted(FOLDER.glob("*.json")), *sorted(FOLDER.glob("*/bench.json"))]


@pytest.fixture
def good(measured) -> dict[str, Any]:
    return json.loads(json.dumps(measured(rounds=6)))


@pytest.fixture
def saved(tmp_path):
    def save(value: Any) -> Any:
        path = tmp_path / "run.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path
    return save


def test_what_the_program_writes_is_what_the_schema_says(good, saved):
    jsonschema.Draft202012Validator.check_schema(record.json_schema())
    jsonschema.validate(good, record.json_schema(), jsonschema.Draft202012Validator)
    assert plain(record.load(saved(good))) == good


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_records_that_are_kept_are_read_as_they_are(path):
    """And written again as they are: every number stands in a field of the type."""
    found = record.load(path)
    assert json.loads(to_json(found)) == json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(plain(found), record.json_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("path", sorted([*FOLDER.glob("*/parity-*.json"), *FOLDER.glob("*/analysis.json")]),
                         ids=lambda path: path.stem)
def test_records_of_parity_and_analyses_that_are_kept_have_their_types_too(path):
    value = json.loads(path.read_text(encoding="utf-8"))
    of = analysis_record.Record if path.stem == "analysis" else parity_record.Record
    assert plain(parse(value, of)) == value


def change(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with something else in one place; `...` removes it."""
    damaged = copy.deepcopy(value)
    holder = functools.reduce(operator.getitem, path[:-1], damaged)
    if new is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return damaged


SAMPLE = ("results", 0, "samples", 0)
DAMAGE = [
    (("conditions", "load_after"), [], "conditions.load_after", "Expected `array` of length >= 3"),
    (("conditions",), ..., "the record", "missing required field `conditions`"),
    (("conditions", "seconds"), ..., "conditions.seconds", "missing"),
    (("conditions", "load_before"), [-1.0, 0.0, 0.0], "conditions.load_before[0]", "Expected `float` >= 0"),
    (("networks", "a" * 64), {}, f"networks.{'a' * 64}.name", "missing"),
    (("networks", "a" * 64), {"name": 1}, f"networks.{'a' * 64}.name", "not a string"),
    (("plan", "rounds"), 0, "plan.rounds", "Expected `int` >= 1"),
    (("plan", "rounds"), 1.5, "plan.rounds", "Expected `int`, got `float`"),
    (("plan", "rounds"), ..., "plan.rounds", "missing"),
    (("plan", "epoch_batches"), 1, "the record", "`epoch_batches` must be at least 2"),
    (("plan", "phases"), [], "plan.phases", "Expected `array` of length >= 1"),
    (("plan", "phases"), ["forwards"], "plan.phases[0]", "Invalid enum value 'forwards'"),
    (("workers", 1, "style"), "Book", "workers[1].style", "Invalid enum value 'Book'"),
    (("results", 0, "speed"), 1, "results[0]", "contains unknown field `speed`"),
    ((*SAMPLE, "seconds"), 0, "results[0].samples[0].seconds", "Expected `float` > 0"),
    ((*SAMPLE, "seconds"), 10**400, "results[0].samples[0].seconds", ""),
    ((*SAMPLE, "round"), -1, "results[0].samples[0].round", "Expected `int` >= 0"),
    (("failures",), [{"backend": "torch"}], "failures[0]", "missing required field `style`"),
]


@pytest.mark.parametrize("path, new, place, said", DAMAGE, ids=[f"{place} {said}" for _, _, place, said in DAMAGE])
def test_a_damaged_record_is_told_by_place(good, saved, path, new, place, said):
    damaged = change(good, path, new)
    with pytest.raises(BenchError) as caught:
        record.load(saved(damaged))
    assert str(caught.value).startswith(f"{saved(damaged)}: damaged: {place}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_results_belong_to_workers_and_workers_to_networks(good, saved):
    with pytest.raises(BenchError, match=r"results\[0\].worker: there is no worker 99"):
        record.load(saved(change(good, ("results", 0, "worker"), 99)))
    with pytest.raises(BenchError, match="no network has the digest of worker 0"):
        record.load(saved(change(good, ("workers", 0, "spec_sha256"), "0")))


@pytest.mark.parametrize("content, said", [
    ("", "not JSON"), ("{", "not JSON"), ('{"format": NaN}', "not JSON"),
    ("[]", "not a record of bench"), ("7", "not a record"), ('{"format": 1, "holds": true}', "not a record"),
    ('{"format": 99, "results": [], "workers": []}', "its format is 99, this version reads 3"),
], ids=lambda value: value[:20])
def test_a_file_that_is_no_record_is_told_in_one_line(saved, content, said):
    path = saved(content)
    with pytest.raises(BenchError) as caught:
        record.load(path)
    assert str(path) in str(caught.value) and said in str(caught.value)
    assert "\n" not in str(caught.value)
