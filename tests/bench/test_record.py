"""Records: their schema, writing and reading, and files that are not records."""

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


def test_a_written_record_matches_the_schema(good, saved):
    jsonschema.Draft202012Validator.check_schema(record.json_schema())
    jsonschema.validate(good, record.json_schema(), jsonschema.Draft202012Validator)
    assert plain(record.load(saved(good))) == good


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_published_records_are_read_and_written_unchanged(path):
    published = record.load(path)
    assert json.loads(to_json(published)) == json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(plain(published), record.json_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("path", sorted([*FOLDER.glob("*/parity-*.json"), *FOLDER.glob("*/analysis.json")]),
                         ids=lambda path: path.stem)
def test_published_parity_and_analysis_records_are_read_unchanged(path):
    value = json.loads(path.read_text(encoding="utf-8"))
    record_type = analysis_record.Record if path.stem == "analysis" else parity_record.Record
    assert plain(parse(value, record_type)) == value


def change(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy with a new value at `path`, or without that value if `new` is `...`."""
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


@pytest.mark.parametrize("path, new, place, fault", DAMAGE, ids=[f"{place} {fault}" for _, _, place, fault in DAMAGE])
def test_the_error_names_the_damaged_place_of_a_record(good, saved, path, new, place, fault):
    damaged = change(good, path, new)
    with pytest.raises(BenchError) as caught:
        record.load(saved(damaged))
    assert str(caught.value).startswith(f"{saved(damaged)}: damaged: {place}: ")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_results_belong_to_workers_and_workers_to_networks(good, saved):
    with pytest.raises(BenchError, match=r"results\[0\].worker: there is no worker 99"):
        record.load(saved(change(good, ("results", 0, "worker"), 99)))
    with pytest.raises(BenchError, match="no network has the digest of worker 0"):
        record.load(saved(change(good, ("workers", 0, "spec_sha256"), "0")))


@pytest.mark.parametrize("content, message", [
    ("", "not JSON"), ("{", "not JSON"), ('{"format": NaN}', "not JSON"),
    ("[]", "not a record of bench"), ("7", "not a record"), ('{"format": 1, "holds": true}', "not a record"),
    ('{"format": 99, "results": [], "workers": []}', "its format is 99, this version reads 3"),
], ids=lambda value: value[:20])
def test_a_file_that_is_not_a_record_is_refused_in_one_line(saved, content, message):
    path = saved(content)
    with pytest.raises(BenchError) as caught:
        record.load(path)
    assert str(path) in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value)
