"""`parity`, called from Python."""

from __future__ import annotations

import jsonschema
import pytest

from alexnet_mf.errors import BackendUnavailable, SpecError
from alexnet_mf.instruments.records import parse, plain
from alexnet_mf.parity import trace
from alexnet_mf.parity.record import Record, json_schema, make_record
from alexnet_mf.parity.run import parity


def test_each_backend_is_traced_in_a_process_of_its_own_and_compared(small, tmp_path, backend_name):
    progress: list[str] = []
    report = parity(small, [backend_name], seed=3, data="synthetic", images=12, batch_size=2, steps=2, device="cpu",
                    keep=tmp_path / "traces", report_progress=progress.append)
    assert report.holds
    names = list(dict.fromkeys(["numpy", backend_name]))
    assert list(report.rungs) == names
    assert progress == [*(f"tracing {name}" for name in names), "comparing"]
    case = trace.load(tmp_path / "traces" / f"{backend_name}.safetensors").case()
    assert (case.network, case.seed, case.batch, case.steps, len(case.inputs)) == (small, 3, 2, 2, 12)
    values = plain(make_record(report))
    jsonschema.validate(values, json_schema(), jsonschema.Draft202012Validator)
    assert parse(values, Record) == make_record(report)
    assert sorted(path.name for path in (tmp_path / "traces").iterdir()) == sorted(
        f"{name}.safetensors" for name in names), "no temporary file stays"


def test_what_cannot_be_done_names_the_argument(small):
    with pytest.raises(BackendUnavailable, match="take more `images`, or a smaller `batch_size` or `steps`"):
        parity(small, [], data="synthetic", images=1)
    with pytest.raises(BackendUnavailable, match=r"nowhere cannot be run .*; it needs .* another interpreter .`pyth"):
        parity(small, [], pythons={"numpy": "/nowhere"})
    with pytest.raises(SpecError, match="unknown network 'lenet6'"):
        parity("lenet6", [])
