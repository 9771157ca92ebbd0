"""`parity`, `parity trace` and `parity compare`: verdicts, exit codes, files that are no traces, other interpreters.

Most tests call `main` in this process, on traces of a small network. The whole ladder gets processes of its own, with
the small network from a file; AlexNet itself is compared with `-m slow` alone.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pickle
import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import console
import jsonschema
import numpy as np
import pytest
import traces
from console import Outcome, must_not_start, script
from safetensors.numpy import save_file
from traces import Change, put, scale

from alexnet_mf import backends, spec
from alexnet_mf.data import DataSource
from alexnet_mf.errors import BackendUnavailable
from alexnet_mf.instruments import machine
from alexnet_mf.parity import run, trace
from alexnet_mf.parity.ladder import RUNGS
from alexnet_mf.parity.trace import Trace
from alexnet_mf.spec import Network, toml, zoo
from alexnet_mf.weights import parameters

PLAN = ["--data", "synthetic", "--images", "12", "--batch-size", "2", "--steps", "2"]


@pytest.fixture
def command(command):
    return functools.partial(command, "parity")


assert_one_line = functools.partial(console.assert_one_line, out="")
"""Check of a refused command, which prints nothing on standard output."""


def make_trace(network: Network, name: str = "torch", **options: Any) -> Trace:
    """Return a small trace of the reference, or of its layers in float32 under a framework's name."""
    return traces.make_trace(network, name, **{"count": 12, "batch": 2, "steps": 2, "continued": 1, **options})


class Files:
    """A good trace of the reference, one of a framework, and a folder for bad ones."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder, self.network, self.correct = folder, network, make_trace(network)
        self.numpy, self.torch = self.save(make_trace(network, "numpy"), "numpy"), self.save(self.correct, "torch")

    def save(self, answer: Trace, name: str = "other") -> Path:
        path = self.folder / f"{name}.safetensors"
        trace.save(path, answer)
        return path

    def spoil(self, *changes: Change) -> Path:
        """Write the framework's trace with some changes, unchecked."""
        answer, path = traces.spoiled(self.correct, *changes), self.folder / "bad.safetensors"
        tensors = {key: np.ascontiguousarray(value) for key, value in answer.tensors.items()}
        save_file(tensors, path, {trace.KEY: json.dumps(answer.meta)})
        return path


@pytest.fixture
def files(small, tmp_path) -> Files:
    return Files(tmp_path, small)


def wider(network: Network) -> Network:
    """Return another padding: conv1 gives 14x14 instead of 13x13, and pool1 has the same shape after both."""
    return dataclasses.replace(network, layers=(dataclasses.replace(network.layers[0], padding=2), *network.layers[1:]))


# The verdict


def test_parity_that_holds_exits_with_0(command, files):
    outcome = command("compare", files.numpy, files.torch)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].startswith("small, synthetic, seed 0")
    assert [line[4:].split("  ")[0] for line in lines[2:12]] == list(RUNGS)
    assert lines[-1] == "parity holds: same function, same training steps as the float64 reference in torch"
    assert "RED " not in outcome.out.replace("A RED cell", "")
    assert "\x1b" not in outcome.out


def test_a_failed_rung_exits_with_1_and_names_the_cause(command, files):
    outcome = command("compare", files.numpy, files.torch, files.spoil(scale("gradients/fc3.weight", 1.01)))
    assert (outcome.code, outcome.err) == (1, "")
    assert re.search(r"^ 6 +gradients .* RED 1\.0e-02 / \S+ fc3\.weight$", outcome.out, re.MULTILINE)
    assert outcome.out.count("RED 1") == 1
    lines = outcome.out.splitlines()
    assert lines[-2] == "torch#2: first divergent gradient, from the loss downwards: fc3.weight: scaled by 1.01"
    assert lines[-1] == "parity does not hold: torch#2 fails at rung 'gradients'"


def test_the_reference_agrees_with_itself(command, files):
    outcome = command("compare", files.numpy)
    assert outcome.code == 0
    assert outcome.out.endswith("float64 reference in numpy\n")


def test_a_wider_tier_passes_errors_that_float32_does_not(command, files):
    path = files.spoil(scale("outputs/conv1", 1 + 1e-3))
    codes = [command("compare", files.numpy, path, *tier).code for tier in ((), ("--tier", "float32"),
                                                                            ("--tier", "tf32"))]
    assert codes == [1, 1, 0]
    assert_one_line(command("compare", files.numpy, "--tier", "float8"), "float8", "tf32")


# Traces that answer another question


def test_traces_with_different_inputs_are_refused_in_one_line(command, files):
    assert_one_line(command("compare", files.numpy, files.save(make_trace(files.network, seed=1))),
                    "numpy and torch differ in seed (0 and 1); write both with the same arguments of `parity trace`")
    *rest, last = files.network.layers
    units = dataclasses.replace(files.network, name="other", layers=(*rest, dataclasses.replace(last, units=11)))
    assert_one_line(command("compare", files.save(make_trace(units)), files.numpy), "torch and numpy",
                    "other and small", "write both with the same --net")


def test_another_network_named_alexnet_is_refused_in_one_line(command, files, monkeypatch):
    """The reference computes the built-in `alexnet`, replaced here by another small network."""
    *rest, last = files.network.layers
    real = dataclasses.replace(files.network, name="alexnet", layers=(*rest, dataclasses.replace(last, units=11)))
    monkeypatch.setitem(zoo.NETWORKS, "alexnet", real)
    assert command("compare", files.save(make_trace(real))).code == 0
    path = files.save(make_trace(dataclasses.replace(files.network, name="alexnet")))
    assert_one_line(command("compare", path), "numpy and torch", "layers or parameters")


def test_traces_of_several_tabs_are_compared_with_the_tab_of_the_reference(command, files, monkeypatch):
    """A single tab is compared like any other network."""
    first, *rest = files.network.layers
    padded = dataclasses.replace(files.network, layers=(dataclasses.replace(first, padding=2), *rest))
    tabs = {name: dataclasses.replace(network, name=name) for name, network in (
        ("alexnet-tab-torch", files.network), ("alexnet-tab-mxnet", padded))}
    monkeypatch.setattr(zoo, "NETWORKS", tabs)
    one, other = (files.save(make_trace(network), name) for name, network in tabs.items())
    assert command("compare", one).code == command("compare", other).code == 0
    for paths in ([one, other], [other, one]):
        outcome = command("compare", *paths)
        assert outcome.code == 1
        assert "conv1.padding is 2, the reference's is 1" in outcome.out


# Files that are no traces


class Trap:
    """Object that creates a file when unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("sprung"),)


def bytes_of(content: bytes) -> Callable[[Path, Files], Any]:
    return lambda path, files: path.write_bytes(content)


def cut(share: float, letters: int = 0) -> Callable[[Path, Files], Any]:
    """Write the first part of a good trace."""
    def write(path: Path, files: Files) -> None:
        whole = files.torch.read_bytes()
        path.write_bytes(whole[:int(len(whole) * share) - letters])
    return write


def foreign(header: dict[str, str] | None) -> Callable[[Path, Files], Any]:
    """Write a safetensors file with another header."""
    return lambda path, files: save_file({"logits": np.zeros((12, 10), np.float32)}, path, header)


BFLOAT16 = b'{"logits": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}'
UNREADABLE = "cannot be read as a trace"
NO_TRACES: dict[str, tuple[Callable[[Path, Files], Any], str]] = {
    "missing": (lambda path, files: None, "cannot be read as a trace (No such file"),
    "folder": (lambda path, files: path.mkdir(), "is a folder, not a trace"), "empty": (bytes_of(b""), UNREADABLE),
    "text": (bytes_of(b"hello, this is no trace\n" * 9), UNREADABLE), "zeros": (bytes_of(bytes(1000)), UNREADABLE),
    "ones": (bytes_of(b"\xff" * 1000), UNREADABLE), "PNG": (bytes_of(b"\x89PNG\r\n\x1a\n" + bytes(100)), UNREADABLE),
    "broken header": (bytes_of(struct.pack("<Q", 9) + b"{not json" + bytes(9)), UNREADABLE),
    # Some safetensors can read it.
    "a dtype that numpy lacks": (bytes_of(struct.pack("<Q", len(BFLOAT16)) + BFLOAT16 + bytes(4)), "a trace"),
    "cut by 1": (cut(1, 1), UNREADABLE), "cut by 1000": (cut(1, 1000), UNREADABLE), "half": (cut(0.5), UNREADABLE),
    "a hundredth": (cut(0.01), UNREADABLE),
    "weights": (lambda path, files: parameters.save(path, parameters.initialize(files.network, 0)),
                "is a weights file, not a trace"),
    "other tensors": (foreign(None), "is a safetensors file of other content, not a trace"),
    **{f"header {text}": (foreign({trace.KEY: text}), "not a trace") for text in (
        "", "text", "[]", "{}", "null", '{"format": 1}', '{"format": 1, "network": []}')}}


@pytest.mark.parametrize("write, message", NO_TRACES.values(), ids=NO_TRACES)
def test_a_file_other_than_a_trace_is_refused_in_one_line(command, files, tmp_path, write, message):
    write(tmp_path / "file", files)
    assert_one_line(command("compare", files.numpy, tmp_path / "file"), f"{tmp_path / 'file'}: ", message,
                    "parity trace")


def test_a_pickle_is_refused_without_being_loaded(command, tmp_path):
    path = tmp_path / "trace.pt"
    path.write_bytes(pickle.dumps(Trap()))
    assert_one_line(command("compare", path), str(path), "parity trace")
    assert not Path("sprung").exists()
    pickle.loads(path.read_bytes())
    assert Path("sprung").exists(), "the trap must work, or the test shows nothing"


def test_a_trace_in_another_format_version_is_refused_in_one_line(command, files):
    path = files.spoil(lambda answer: answer.meta.update(format=99))
    assert_one_line(command("compare", path), str(path), "format 99", "write it again")


def without(key: str) -> Change:
    def change(answer: Trace) -> None:
        (answer.meta if key in answer.meta else answer.tensors).pop(key)
    return change


def no_number(key: str, value: float) -> Change:
    def change(answer: Trace) -> None:
        answer.tensors[key].ravel()[3] = value
    return change


def header(key: str, value: Any) -> Change:
    return lambda answer: answer.meta.update({key: value})


DAMAGED: dict[str, tuple[Change, str]] = {
    "other images": (put("inputs", lambda x: x ^ 1), "its inputs do not match its header"),
    "another plan": (put("plan", lambda plan: plan | {"batch": 3}), "its inputs do not match"),
    "too few images": (put("plan", lambda plan: plan | {"steps": 99}), "there are 12"),
    "surplus gradient": (put("gradients/fc9.bias", lambda _: np.zeros(3, np.float32)), "surplus gradients/fc9.bias"),
    "surplus stepped": (put("stepped/fc9.bias", lambda _: np.zeros(3, np.float32)), "surplus stepped/fc9.bias"),
    "stepped of another shape": (put("stepped/fc3.bias", lambda x: x[1:]), "stepped/fc3.bias is (31,), not (32,)"),
    "gradient transposed": (put("gradients/fc3.weight", lambda x: x.T), "gradients/fc3.weight is (108, 32), not (32, "),
    "stepped in float16": (put("stepped/fc3.bias", lambda x: x.astype(np.float16)), "stepped/fc3.bias is float16"),
    "stepped in integers": (put("stepped/fc3.bias", lambda x: x.astype(np.int32)), "stepped/fc3.bias is int32"),
    "losses too few": (put("step_losses", lambda losses: losses[:1]), "1 step_losses, not 2"),
    "continued losses too few": (put("continued_losses", lambda losses: []), "0 continued_losses, not 1"),
    "several": (lambda answer: [without("stepped/fc3.bias")(answer), without("outputs/fc4")(answer)],
                "missing stepped/fc3.bias; missing outputs/fc4"),
}
for _key in ("stepped/conv2.bias", "gradients/fc4.weight", "outputs/pool1", "training/conv1", "stepwise/1/fc4",
             "inputs", "pixels", "logits", "labels", "dropped/drop3/first/in", "dropped/drop3/again/out",
             "dropped/logits", "format", "backend", "versions", "settings", "device", "network", "seed", "data", "plan",
             "case_sha256", "layers", "parameters_sha256", "exported_sha256", "loss", "step_losses", "continued_losses",
             "continued_from_sha256", "evaluates_the_same_twice", "dropout_step_loss"):
    DAMAGED[f"no {_key}"] = without(_key), _key
for _key in ("stepped/conv1.weight", "gradients/fc3.weight", "outputs/conv1", "training/fc3", "stepwise/0/fc4",
             "pixels", "logits", "dropped/drop3/second/out"):
    DAMAGED[f"NaN in {_key}"] = no_number(_key, np.nan), f"{_key} contains NaN or infinity"
for _key, _value in (("backend", 3), ("layers", "none"), ("layers", [1]), ("exported_sha256", []), ("loss", "3"),
                     ("step_losses", ["3", "2"]), ("evaluates_the_same_twice", 1), ("float32_cost", [1e-6]),
                     ("float32_cost", {"loss": "small"})):
    DAMAGED[f"{_key} is {_value}"] = header(_key, _value), f"{_key} in its header has the wrong type"
DAMAGED["layers without shapes"] = header("layers", [{"name": "conv1", "parameters": 9}]), "layers.shape in its header"
DAMAGED["infinity in logits"] = no_number("logits", -np.inf), "logits contains NaN or infinity"


@pytest.mark.parametrize("change, message", DAMAGED.values(), ids=DAMAGED)
def test_an_incomplete_trace_is_refused_in_one_line(command, files, change, message):
    path = files.spoil(change)
    named = [] if message == "there are 12" else [str(path)]  # the case itself says how many images there are
    assert_one_line(command("compare", files.numpy, path), *named, message)


def test_a_trace_written_without_changes_can_be_read(command, files):
    """The tests of damaged traces rely on this."""
    assert command("compare", files.numpy, files.spoil()).code == 0


# JSON


def read_json(text: str) -> Any:
    """Read strict JSON: Python's own reader accepts infinities, other readers do not."""
    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")
    return json.loads(text, parse_constant=refuse)


def measurements(text: str) -> dict[str, Any]:
    """Read a record, and leave out its conditions, such as the time."""
    report: dict[str, Any] = read_json(text)
    assert report.pop("conditions")["time"]
    return report


def test_json_has_the_conditions_and_every_measurement(command, files, tmp_path):
    path = tmp_path / "report.json"
    outcome = command("compare", files.numpy, files.torch, files.torch, "--json", path)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == command("compare", files.numpy, files.torch, files.torch).out
    assert outcome.out.splitlines()[1].split() == ["rung", "numpy", "torch#1", "torch#2"]
    assert re.search(r"^torch#1 - torch#2 +equal +0\.0e\+00 .* +0\.0e\+00", outcome.out, re.MULTILINE)
    assert outcome.out.endswith("in torch#1 and torch#2\n")
    report = read_json(path.read_text(encoding="utf-8"))
    assert set(report) == {"holds", "network", "spec_sha256", "data", "seed", "batch", "steps", "sgd", "float32_cost",
                           "backends", "pairs", "conditions"}
    assert report["conditions"]["command"] == ["alexnet-mf", "parity", "compare", *map(str, (
        files.numpy, files.torch, files.torch)), "--json", str(path)]
    assert report["conditions"]["cpu"] == machine.cpu()[0]
    assert report["holds"] is True
    assert spec.from_dict(report["network"]) == files.network
    assert report["spec_sha256"] == spec.fingerprint(files.network)
    assert (report["data"], report["seed"], report["batch"], report["steps"]) == ("synthetic", 0, 2, 2)
    assert report["sgd"] == {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.01}
    assert report["float32_cost"]["gradients/conv1.weight"] > 0
    assert list(report["backends"]) == ["numpy", "torch#1", "torch#2"]
    for answer in report["backends"].values():
        assert set(answer) == {"versions", "settings", "device", "rungs", "diagnosis"}
        assert answer["device"] == "cpu"
        assert answer["versions"]["numpy"] == np.__version__
        assert [(rung["number"], rung["name"]) for rung in answer["rungs"]] == list(enumerate(RUNGS, 1))
        for rung in answer["rungs"]:
            assert set(rung) == {"number", "name", "holds", "note", "measurements"}
            for measurement in rung["measurements"]:
                assert set(measurement) == {"where", "error", "tolerance", "what", "holds"}
                assert measurement["holds"] is True
                assert measurement["error"] <= measurement["tolerance"]
    (pair,) = report["pairs"]
    assert pair == {"first": "torch#1", "second": "torch#2", "pixels_equal": True, "output": 0, "layer": "conv1",
                    "gradient": 0, "parameter": "conv1.bias"}


def test_the_schema_of_the_record_is_printed(command, files):
    outcome = command("--schema")
    assert (outcome.code, outcome.err) == (0, "")
    jsonschema.validate(read_json(command("compare", files.numpy, files.torch, "--json", "-").out),
                        json.loads(outcome.out), jsonschema.Draft202012Validator)


def test_json_on_standard_output_has_no_other_text_beside_it(command, files, tmp_path):
    for path, code in ((files.torch, 0), (files.spoil(scale("logits", 1.01)), 1)):
        outcome = command("compare", files.numpy, path, "--json", "-")
        assert (outcome.code, outcome.err) == (code, "")
        report = read_json(outcome.out)
        assert report["holds"] is (code == 0)
        assert command("compare", files.numpy, path, "--json", tmp_path / "r.json").code == code
        assert measurements((tmp_path / "r.json").read_text(encoding="utf-8")) == measurements(outcome.out)


def test_json_has_no_infinite_numbers(command, files):
    """Different shapes have an infinite error, and a loss may be NaN."""
    nan = files.spoil(put("loss", lambda loss: np.nan))
    outcome = command("compare", files.numpy, nan, files.save(make_trace(wider(files.network))), "--json", "-")
    assert (outcome.code, outcome.err) == (1, "")
    report = read_json(outcome.out)
    assert report["backends"]["torch#1"]["rungs"][4]["measurements"][1]["error"] is None
    outputs = report["backends"]["torch#2"]["rungs"][3]["measurements"]
    assert {"where": "conv1", "error": None, "holds": False}.items() <= outputs[0].items()
    assert report["pairs"][0]["output"] is None
    assert report["pairs"][0]["layer"] == "conv1"
    assert report["backends"]["torch#2"]["diagnosis"][-1].endswith("padding 2 instead of 1")


def test_an_unwritable_json_path_is_refused_before_the_comparison(command, files, monkeypatch, tmp_path):
    monkeypatch.setattr(trace, "load", must_not_start)
    monkeypatch.setattr(run, "trace_in_process", must_not_start)
    for words in (["compare", files.numpy], PLAN):
        assert_one_line(command(*words, "--json", tmp_path / "no" / "r.json"), str(tmp_path / "no"), "create it")
        assert_one_line(command(*words, "--json", tmp_path), str(tmp_path), "cannot be written")


# parity trace


def test_trace_and_compare_work_in_every_backend(command, small_alexnet, tmp_path, backend_name):
    paths = [tmp_path / f"{name}.safetensors" for name in ("numpy", backend_name)]
    for name, path in zip(("numpy", backend_name), paths):
        outcome = command("trace", "--backend", name, "--out", path, "--device", "cpu", "--seed", "3", *PLAN)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out == f"{path}: {name} on cpu, synthetic, seed 3\n"
    answer = trace.load(paths[1])
    case = answer.case()
    assert (case.network, case.seed, case.batch, case.steps, len(case.inputs)) == (small_alexnet, 3, 2, 2, 12)
    assert answer.backend == backend_name
    outcome = command("compare", *dict.fromkeys(paths))
    assert outcome.code == 0, outcome.out
    assert outcome.out.endswith(f"float64 reference in {backend_name}\n")


def test_a_repeated_trace_is_the_same_file(command, small_alexnet, tmp_path):
    words = ["trace", "--backend", "numpy", *PLAN, "--out"]
    for name in ("1", "2"):
        assert command(*words, tmp_path / name).code == 0
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_an_unwritable_trace_path_is_refused_before_the_computation(command, small_alexnet, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "answer", must_not_start)
    words = ["trace", "--backend", "numpy", *PLAN, "--out"]
    assert_one_line(command(*words, tmp_path / "no" / "t"), str(tmp_path / "no" / "t"), "no folder", "create it")
    assert_one_line(command(*words, tmp_path), str(tmp_path), "name another file")
    (tmp_path / "old").write_bytes(b"")
    for path in (tmp_path / "old", tmp_path / "new"):
        monkeypatch.setattr("os.access", lambda path, mode: False)
        assert_one_line(command(*words, path), str(path), "name another file")


def test_a_full_disk_is_reported_in_one_line(command, small_alexnet, monkeypatch, tmp_path):
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(trace, "save_file", full)
    assert_one_line(command("trace", "--backend", "numpy", *PLAN, "--out", tmp_path / "t"), str(tmp_path / "t"),
                    "No space left", "another file")


def test_too_few_images_name_the_flag_to_change(command, small_alexnet, tmp_path):
    """The layers take 2 images, and so does each of the two steps and of the two continued ones."""
    words = ["trace", "--backend", "numpy", "--data", "synthetic", "--batch-size", "2", "--steps", "2", "--out",
             tmp_path / "t", "--images"]
    assert_one_line(command(*words, "9"), "5 batches of 2 (layers, 2 steps, 2 continued steps) need 10", "--images",
                    "--batch-size", "--steps")
    assert command(*words, "10").code == 0


# Other precisions, and without speed settings


@pytest.mark.parametrize("name", ["torch", "tensorflow", "mxnet"])
def test_a_trace_in_bfloat16_needs_its_tier(command, small_alexnet, tmp_path, requires, name):
    requires(name)
    if "bfloat16" not in backends.load(name).precisions("cpu"):
        pytest.skip(f"{name} has no bfloat16 on this processor")
    path = tmp_path / "t"
    words = ["trace", "--backend", name, "--device", "cpu", "--out", path, *PLAN, "--precision", "bfloat16"]
    assert command(*words).code == 0
    assert trace.load(path).meta["settings"]["precision"] == "bfloat16"
    assert command("compare", path).code == 1
    assert command("compare", path, "--tier", "bfloat16").code == 0


# Continuing from another backend's weights


def test_steps_continue_from_the_weights_of_another_backend(command, small_alexnet, tmp_path, backend_name):
    before, after = tmp_path / "before", tmp_path / "after"
    assert command("trace", "--backend", "numpy", "--out", before, *PLAN).code == 0
    assert command("trace", "--backend", backend_name, "--out", after, "--device", "cpu", *PLAN, "--continue-from",
                   before).code == 0
    outcome = command("compare", before, after)
    assert outcome.code == 0
    assert re.search(rf"^weight exchange: training continued from numpy's weights \(.*{backend_name}.*\)$", outcome.out,
                     re.MULTILINE)


def test_the_reference_continues_from_the_weights_of_another_backend(command, files, small_alexnet, tmp_path):
    words = ["trace", "--backend", "numpy", "--out", tmp_path / "after", *PLAN, "--continue-from", files.torch]
    assert command(*words).code == 0
    begun = trace.load(files.torch).group("stepped")
    assert trace.load(tmp_path / "after").meta["continued_from_sha256"] == parameters.digest(begun)


def test_a_bad_trace_to_continue_from_is_refused_in_one_line(command, files, small_alexnet, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "answer", must_not_start)
    nan = files.spoil(no_number("stepped/conv1.weight", np.nan))
    for path, message in ((tmp_path / "nowhere", "No such file"), (nan, "NaN or infinity")):
        assert_one_line(command("trace", "--backend", "numpy", *PLAN, "--out", tmp_path / "t", "--continue-from", path),
                        str(path), message)
    assert not (tmp_path / "t").exists()


def test_weights_of_another_network_to_continue_from_are_refused_in_one_line(command, files, small_alexnet, tmp_path,
                                                                             backend_name):
    *rest, last = files.network.layers
    wider = dataclasses.replace(files.network, layers=(*rest, dataclasses.replace(last, units=11)))
    other = files.save(make_trace(wider))
    assert_one_line(command("trace", "--backend", backend_name, *PLAN, "--device", "cpu", "--out", tmp_path / "t",
                            "--continue-from", other), "fc4.weight is (11, 32), not (10, 32)")


# Backends that are not here


def test_a_missing_backend_is_reported_before_the_computation(command, monkeypatch, tmp_path, installed):
    installed("torch", "numpy")
    monkeypatch.setattr(run, "trace_in_process", must_not_start)
    assert_one_line(command("--backends", "numpy,mxnet"), "mxnet", "not installed", backends.BACKENDS["mxnet"].install,
                    "(--python NAME=PATH)")
    assert_one_line(command("trace", "--backend", "mxnet", "--out", tmp_path / "trace"), "mxnet", "not installed",
                    backends.BACKENDS["mxnet"].install)


@pytest.fixture
def trace_calls(monkeypatch, small):
    """Record each backend's interpreter and values, and answer at once."""
    calls: list[tuple[str, str, dict[str, Any]]] = []

    def answer(backend: str, python: str, values: dict[str, Any]) -> None:
        calls.append((backend, python, values))
        trace.save(Path(values["path"]), make_trace(small, backend))
    monkeypatch.setattr(run, "trace_in_process", answer)
    return calls


@pytest.mark.parametrize("words, names", [
    ([], ["numpy", "torch"]), (["--python", "mxnet=/bin/sh"], ["numpy", "torch", "mxnet"]),
    (["--backends", "torch,numpy"], ["numpy", "torch"]), (["--backends", "numpy"], ["numpy"]),
    (["--backends", "mxnet,mxnet", "--python", "mxnet=/bin/sh"], ["numpy", "mxnet"])],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "")
def test_the_backends_that_take_part(command, trace_calls, installed, words, names):
    """By default those installed here or named by --python: the reference first, each once."""
    installed("torch", "numpy")
    outcome = command(*words)
    assert outcome.code == 0
    assert [(name, python) for name, python, _ in trace_calls] == [
        (name, "/bin/sh" if name == "mxnet" else sys.executable) for name in names]
    assert outcome.err == "", "nothing to be seen but on a terminal"


def test_all_backends_get_the_same_inputs_and_continue_from_the_one_before(command, trace_calls, installed, tmp_path):
    installed("numpy", *backends.FRAMEWORKS)
    assert command("--keep", tmp_path, "--net", "alexnet-tab", "--device", "cpu", "--seed", "5", "--data", "synthetic",
                   "--batch-size", "3", "--steps", "4", "--images", "50", "--data-dir", tmp_path).code == 0
    names = ["numpy", *backends.FRAMEWORKS]
    assert [name for name, _, _ in trace_calls] == names
    for before, (name, _, values) in zip([None, *names], trace_calls):
        assert values == {
            "path": str(tmp_path / f"{name}.safetensors"), "seed": 5,
            "data": dataclasses.asdict(DataSource("synthetic", str(tmp_path))), "images": 50,
            "net": spec.as_dict(toml.find_network("alexnet-tab", name)),
            "batch_size": 3, "steps": 4, "device": "cpu", "precision": None, "speed": {},
            "continue_from": before and str(tmp_path / f"{before}.safetensors")}


# Several networks


def networks_of(calls) -> list[str]:
    return list(dict.fromkeys(values["net"]["name"] for _, _, values in calls))


def test_several_networks_give_a_short_table(command, trace_calls, installed, tmp_path):
    installed("torch", "numpy")
    outcome = command("--net", "lenet5,lenet5-relu,lenet5", "--keep", tmp_path / "kept", "--json",
                      tmp_path / "all.json")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == "lenet5: parity holds: same function, same training steps as the float64 reference in torch"
    assert lines[-1] == "parity holds in lenet5, lenet5-relu"
    heading, *rows = lines[-9:-4]
    assert heading.split()[-2:] == ["SGD", "steps"]
    assert [row.split()[:-12] for row in rows] == [["lenet5", "numpy", "10", "of", "10"], ["torch", "10", "of", "10"],
                                                   ["lenet5-relu", "numpy", "10", "of", "10"],
                                                   ["torch", "10", "of", "10"]]
    record = read_json((tmp_path / "all.json").read_text())
    assert record["holds"] and list(record["networks"]) == ["lenet5", "lenet5-relu"]
    assert all(report["holds"] for report in record["networks"].values())
    assert sorted(path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("*.*")) == [
        f"{folder}/{name}.safetensors" for folder in ("1-lenet5", "2-lenet5-relu") for name in ("numpy", "torch")]


def test_a_failing_network_is_named_and_the_others_are_still_compared(command, trace_calls, monkeypatch, small,
                                                                         installed):
    installed("torch", "numpy")
    ask_all = run.trace_in_process

    def answer(backend: str, python: str, values: dict[str, Any]) -> None:
        ask_all(backend, python, values)
        if backend == "torch" and values["net"]["name"] == "lenet5":
            bad = trace.load(Path(values["path"]))
            scale("gradients/conv1.weight", 1.5)(bad)
            trace.save(Path(values["path"]), bad)
    monkeypatch.setattr(run, "trace_in_process", answer)
    outcome = command("--net", "lenet5,lenet5-relu")
    assert outcome.code == 1
    assert outcome.out.splitlines()[-1] == "parity does not hold in lenet5"
    assert "lenet5: parity does not hold: torch fails at rung 'gradients'\ntorch: " in outcome.out
    assert "torch    9 of 10" in outcome.out and "RED 5" in outcome.out
    assert "lenet5-relu: parity holds" in outcome.out


def test_an_error_keeps_the_results_of_the_networks_before_it(command, trace_calls, monkeypatch, tmp_path, installed):
    installed("torch", "numpy")
    ask_all = run.trace_in_process

    def answer(backend: str, python: str, values: dict[str, Any]) -> None:
        if values["net"]["name"] == "lenet5-relu":
            raise BackendUnavailable("backend torch: gone")
        ask_all(backend, python, values)
    monkeypatch.setattr(run, "trace_in_process", answer)
    first = command("--net", "lenet5-relu,lenet5", "--json", tmp_path / "none.json")
    assert (first.code, first.out, (tmp_path / "none.json").exists()) == (2, "", False)
    outcome = command("--net", "lenet5,lenet5-relu,alexnet-28", "--json", tmp_path / "all.json")
    assert outcome.code == 2
    assert outcome.out.splitlines()[-1] == "parity holds in lenet5"
    assert outcome.err == "alexnet-mf: error: backend torch: gone\n"
    assert list(read_json((tmp_path / "all.json").read_text())["networks"]) == ["lenet5"]


def test_all_names_every_network_that_is_the_same_in_all_backends(command, trace_calls, installed):
    installed("torch", "numpy")
    assert command("--net", "all", "--json", "-").code == 0
    assert networks_of(trace_calls) == [name for name in zoo.NETWORKS if not name.startswith(zoo.TAB)]


def test_an_unknown_network_among_several_is_refused_before_the_computation(command, monkeypatch):
    monkeypatch.setattr(run, "trace_in_process", must_not_start)
    assert_one_line(command("--net", "lenet5,lenet6"), "unknown network 'lenet6'", "known: alexnet")


# The whole ladder, each backend in a process

@pytest.fixture
def by(tmp_path) -> Callable[..., list[str]]:
    """Return flags that name an interpreter for each backend and the reference; each interpreter records its use."""
    def write(*names: str) -> list[str]:
        paths = {name: script(tmp_path / f"python of {name}", f'echo {name} >> {shlex.quote(str(tmp_path / "taken"))}',
                              f'exec {shlex.quote(sys.executable)} "$@"') for name in ("numpy", *names)}
        return [word for name, path in paths.items() for word in ("--python", f"{name}={path}")]
    return write


def test_the_ladder_with_other_interpreters_and_kept_traces(command, by, present, small_toml, tmp_path):
    """The kept traces alone give the same verdict."""
    backend_name = present[0]
    kept = tmp_path / "a" / "folder"
    outcome = command("--net", small_toml, "--backends", backend_name, *PLAN, "--device", "cpu", *by(backend_name),
                      "--keep", kept, "--json", tmp_path / "report.json")
    assert (outcome.code, outcome.err) == (0, ""), outcome.out
    names = list(dict.fromkeys(["numpy", backend_name]))
    assert (tmp_path / "taken").read_text(encoding="utf-8").split() == names
    assert sorted(path.name for path in kept.iterdir()) == sorted(f"{name}.safetensors" for name in names)
    if backend_name != "numpy":
        assert "training continued from numpy's weights" in outcome.out
    again = command("compare", *(kept / f"{name}.safetensors" for name in names), "--json", tmp_path / "again.json")
    assert (again.code, again.out) == (outcome.code, outcome.out)
    first, second = ((tmp_path / name).read_text(encoding="utf-8") for name in ("report.json", "again.json"))
    assert measurements(second) == measurements(first)


def test_a_tab_that_differs_from_the_reference_fails_and_is_named(command, monkeypatch, requires, small):
    requires("tensorflow")
    tabs = {name: zoo.TABS[name].name for name in ("torch", "tensorflow")}
    for name, tab in tabs.items():
        network = dataclasses.replace(wider(small) if name == "tensorflow" else small, name=tab)
        monkeypatch.setitem(zoo.NETWORKS, tab, network)
    outcome = command("--net", "alexnet-tab", "--backends", "tensorflow", *PLAN, "--device", "cpu")
    assert (outcome.code, outcome.err) == (1, "")
    assert outcome.out.splitlines()[-3:] == [
        "tensorflow: conv1.padding is 2, the reference's is 1",
        "tensorflow: first divergent layer: conv1: padding 2 instead of 1",
        "parity does not hold: tensorflow fails at rung 'layers and weights'"]


def test_an_interpreter_for_a_backend_that_takes_no_part_is_refused(command, by):
    outcome = command("--backends", "numpy", *PLAN, *by("torch"))
    assert_one_line(outcome, "--python NAME=PATH names an interpreter for torch, which is not selected", "--backends")


def test_a_backend_that_fails_gives_its_reason_once(command, by, small_toml):
    outcome = command("--net", small_toml, "--backends", "numpy", "--data", "synthetic", "--images", "9", *by())
    assert_one_line(outcome, "backend numpy: 9 batches of 4 (layers, 6 steps, 2 continued steps) need 36 images",
                    "--images")
    assert outcome.err.count("error") == 1


@pytest.mark.parametrize("lines, messages", [
    (["echo a warning >&2", "echo 'No module named alexnet_mf' >&2", "exit 1"], ["No module named alexnet_mf"]),
    ([f'exec {shlex.quote(sys.executable)} -I -S "$@"'], ["exit code 1"]),
    (["exit 0"], ["ended with exit code 0"]),
    (["exit 3"], ["exit code 3"]),
    (["kill -9 $$"], ["exit code -9"]),
    (["echo 'Segmentation fault' >&2", "exit 139"], ["exit code 139", "Segmentation fault"]),
    (None, ["cannot be run"]), ("no program", ["cannot be run"]), ("folder", ["cannot be run"]),
], ids=["no package", "an empty Python", "no answer", "silent", "killed", "crashed", "missing", "no program", "folder"])
def test_a_failing_interpreter_is_reported_in_one_line(command, tmp_path, lines, messages):
    python = tmp_path / "python"
    if lines == "folder":
        python.mkdir()
    elif lines == "no program":
        python.write_text("no program", encoding="utf-8")
    elif lines:
        script(python, *lines)
    assert_one_line(command("--backends", "numpy", *PLAN, "--python", f"numpy={python}"), "backend numpy", str(python),
                    "--python NAME=PATH", *messages, *(["alexnet_mf and numpy"] if isinstance(lines, list) else []))


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_an_unwritable_folder_for_traces_is_refused_before_the_computation(command, monkeypatch, tmp_path, folder):
    monkeypatch.setattr(run, "trace_in_process", must_not_start)
    (tmp_path / "file").write_bytes(b"")
    assert_one_line(command("--backends", "numpy", "--keep", tmp_path / folder), str(tmp_path / folder), "--keep")


def test_traces_are_deleted_unless_kept(command, small_toml, monkeypatch, tmp_path):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert command("--net", small_toml, "--backends", "numpy", *PLAN).code == 0
    assert command("--net", small_toml, "--backends", "numpy", "--images", "1").code == 2
    assert list((tmp_path / "temporary").iterdir()) == []


# AlexNet itself

SHORT = ["--data", "synthetic", "--device", "cpu", "--images", "4", "--steps", "1", "--batch-size", "1"]


def alexnet(*words: str) -> Outcome:
    done = subprocess.run([sys.executable, "-m", "alexnet_mf", "parity", *SHORT, *words], capture_output=True,
                          text=True, timeout=600)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_parity_of_alexnet(present):
    """One framework is enough here: test_docs.py runs the command with all of them."""
    if present[0] == "numpy":
        pytest.skip("no framework here")
    name = present[0]
    outcome = alexnet("--backends", name, "--python", f"{name}={sys.executable}")
    assert (outcome.code, outcome.err) == (0, ""), outcome.out
    assert outcome.out.endswith(f"float64 reference in {name}\n")


@pytest.mark.slow
def test_parity_of_the_tabs_names_the_padding_of_conv1(requires):
    requires("torch")
    requires("tensorflow")
    outcome = alexnet("--net", "alexnet-tab", "--backends", "tensorflow,torch", "--json", "-")
    assert (outcome.code, outcome.err) == (1, "")
    report = read_json(outcome.out)
    assert report["holds"] is False
    assert report["backends"]["tensorflow"]["diagnosis"] == [
        "conv1.padding is 0, the reference's is 1", "first divergent layer: conv1: padding 0 instead of 1"]
    assert all(rung["holds"] for rung in report["backends"]["torch"]["rungs"])
    assert report["backends"]["torch"]["diagnosis"] == []
