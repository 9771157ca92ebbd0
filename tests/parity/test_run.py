"""Parity called from Python."""

from __future__ import annotations

import jsonschema
import pytest
from console import must_not_start

from alexnet_mf import api
from alexnet_mf.backends.execution import Execution
from alexnet_mf.errors import AlexnetMfError, BackendUnavailable, SpecError
from alexnet_mf.instruments import machine
from alexnet_mf.instruments.records import parse, plain
from alexnet_mf.parity import run, trace
from alexnet_mf.parity.record import Record, json_schema, make_record
from alexnet_mf.parity.run import parity


def test_each_backend_is_traced_in_its_own_process_and_compared(small, tmp_path, backend_name):
    progress: list[str] = []
    report = parity(small, [backend_name], seed=3, data="synthetic", images=12, batch_size=2, steps=2, device="cpu",
                    keep=tmp_path / "traces", command=["a", "command"], report_progress=progress.append)
    assert report.holds
    names = list(dict.fromkeys(["numpy", backend_name]))
    assert list(report.rungs) == names
    assert progress == [*(f"tracing {name}" for name in names), "comparing"]
    case = trace.load(tmp_path / "traces" / f"{backend_name}.safetensors").case()
    assert (case.network, case.seed, case.batch, case.steps, len(case.inputs)) == (small, 3, 2, 2, 12)
    values = plain(make_record(report))
    jsonschema.validate(values, json_schema(), jsonschema.Draft202012Validator)
    assert parse(values, Record) == make_record(report)
    assert (values["conditions"]["command"], values["conditions"]["cpu"]) == (["a", "command"], machine.cpu()[0])
    assert sorted(path.name for path in (tmp_path / "traces").iterdir()) == sorted(
        f"{name}.safetensors" for name in names), "no temporary file remains"


def test_errors_name_the_argument(small):
    with pytest.raises(BackendUnavailable, match="use more `images`, or a smaller `batch_size` or `steps`"):
        parity(small, ["numpy"], data="synthetic", images=1)
    with pytest.raises(BackendUnavailable, match=r"nowhere cannot be run .*; name another interpreter \(`pythons`\)"):
        parity(small, ["numpy"], pythons={"numpy": "/nowhere"})
    with pytest.raises(SpecError, match="unknown network 'lenet6'"):
        parity("lenet6", ["numpy"])


@pytest.mark.parametrize("options, message", [
    ({"backends": []}, "`backends` must have at least one item"), ({"backends": "torch"}, "`backends` must be a list"),
    ({"backends": ["jax"]}, "unknown backend 'jax'; known: torch"), ({"tier": "half"}, "`tier` must be one of float32"),
    ({"steps": 0}, "`steps` must be at least 1, not 0"), ({"images": -1}, "`images` must be at least 1, not -1"),
    ({"batch_size": 2.0}, "`batch_size` must be an integer, not 2.0"), ({"seed": -1}, "`seed` must be at least 0"),
    ({"data": "mnist"}, r"mnist: is neither a built-in dataset \(auto, fashion-mnist, synthetic\) nor a file"),
    ({"execution": "bfloat16"}, "`execution` must be of type Execution, not 'bfloat16'"),
    ({"execution": Execution(speed={"turbo": True})}, "`execution.speed` must be one of allocator, .* not 'turbo'"),
    ({"keep": 3}, "`keep` must be a path, not 3"), ({"device": 3}, "`device` must be of type str, not 3"),
    ({"pythons": {"numpy": 3}}, "`pythons` must be a path, not 3"),
    ({"pythons": ["x"]}, "`pythons` must be of type dict"),
    ({"pythons": {"jax": "python"}}, "`pythons` must be one of torch, .* not 'jax'"),
], ids=str)
def test_wrong_arguments_are_refused_before_any_work(small, monkeypatch, options, message):
    monkeypatch.setattr(run, "trace_in_process", must_not_start)
    with pytest.raises(AlexnetMfError, match=message):
        parity(small, **{"backends": ["numpy"], **options})


def test_paths_of_traces_may_be_strings(small, tmp_path):
    path = str(tmp_path / "trace")
    api.parity_trace(path, "numpy", small, data="synthetic", images=12, batch_size=2, steps=2)
    assert api.parity_compare([path]).holds


def test_wrong_arguments_for_traces_are_refused_before_any_work(small, monkeypatch, tmp_path):
    monkeypatch.setattr(run.loading, "load", must_not_start)
    for options, message in (({"steps": 0}, "`steps`"), ({"path": tmp_path / "no" / "t"}, "no folder .*no; create it"),
                             ({"path": 3}, "`path` must be a path"), ({"net": "lenet6"}, "unknown network 'lenet6'")):
        with pytest.raises(AlexnetMfError, match=message):
            api.parity_trace(**{"path": tmp_path / "t", "backend": "torch", "net": small, **options})
    for paths, message in ((str(tmp_path), "`paths` must be a list"), ([], "`paths` must have at least one item")):
        with pytest.raises(AlexnetMfError, match=message):
            api.parity_compare(paths)
    with pytest.raises(AlexnetMfError, match="`tier` must be one of float32"):
        api.parity_compare([tmp_path / "t"], "half")
