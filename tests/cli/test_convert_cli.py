"""`convert` on the command line: runs and files in, files out, and one line for each error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from console import assert_one_line

from alexnet_mf import conversion, data, spec
from alexnet_mf.spec import toml, zoo
from alexnet_mf.weights import parameters


@pytest.fixture
def run(command, small_alexnet) -> str:
    """Return the folder of a finished run with best weights that differ from its last."""
    done = command("train", "--backend", "numpy", "--data", "synthetic", "--limit-train", "32", "--limit-test", "16",
                   "--batch-size", "8", "--epochs", "2", "--recipe", "book", "--out", "run", "--quiet")
    assert done.code == 0
    other = {name: value + np.float32(1) for name, value in conversion.read(Path("run")).parameters.items()}
    parameters.save(Path("run/weights-best.safetensors"), other, {"network": spec.as_dict(small_alexnet)})
    return "run"


def test_a_run_is_converted(command, run):
    done = command("convert", run, "a.npz")
    weights = conversion.read(Path(run))
    digest = parameters.digest(weights.parameters)
    count = sum(value.size for value in weights.parameters.values())
    assert (done.code, done.err) == (0, "a.npz: npz files have no room for preprocessing and class names; keep run\n")
    assert done.out == \
        f"wrote a.npz (npz) from run (safetensors): alexnet, {count:,} parameters, SHA-256 {digest[:16]}\n"
    with np.load("a.npz") as arrays:
        assert parameters.digest(dict(arrays)) == digest


def test_which_best_converts_the_best_weights(command, run):
    assert command("convert", run, "last.npz").code == 0
    assert command("convert", run, "best.npz", "--which", "best").code == 0
    with np.load("last.npz") as last, np.load("best.npz") as best:
        assert np.allclose(best["fc4.bias"] - last["fc4.bias"], 1)


def test_json_reports_the_conversion_back_to_safetensors(command, run, small_alexnet):
    assert command("convert", run, "a.npz").code == 0
    done = command("convert", "a.npz", "b.safetensors", "--net", "alexnet", "--json", "-")
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert (report["source"], report["destination"], report["network"]) == ("npz", "safetensors",
                                                                            spec.as_dict(small_alexnet))
    assert report["sha256"] == parameters.digest(parameters.load(Path("b.safetensors"), small_alexnet))


def test_from_and_to_override_content_and_ending(command, run):
    assert command("convert", run, "a.dat", "--to", "npz").code == 0
    assert command("convert", "a.dat", "b.npz", "--from", "npz", "--net", "alexnet").code == 0
    done = command("convert", "a.dat", "c.npz", "--from", "safetensors")
    assert done.code == 2 and "a.dat: cannot be read as safetensors" in done.err


@pytest.mark.parametrize("words, fragments", [
    (["run", "a.npz", "--to", "nothing"], ["argument --to: invalid choice: 'nothing'"]),
    (["a.npz", "a.npz", "--from", "gluon-zoo"], ["argument --from: invalid choice: 'gluon-zoo'"]),
    (["run", "a.what"], ["a.what: unrecognized ending", "--to"]),
    (["run", "taken.npz"], ["taken.npz: exists", "--force"]),
    (["run", "a.npz", "--net", "lenet.toml"], ["weights of alexnet, which differs from my-lenet5; leave out --net"]),
    (["run", "a.npz", "--from", "npz"], ["run: is a run folder, whose format is safetensors; leave out --from"]),
    (["run/weights.safetensors", "a.npz", "--which", "best"], ["is not a run folder; leave out --which best"]),
    (["run", "a.npz", "--bake-preprocessing"], ["a.npz: npz files have no graph", "leave out --bake-preprocessing"]),
    (["what", "a.npz"], ["what: unrecognized weights format; supported: ",
                         "; if it has one of these, use `convert` with --from to name it"]),
])
def test_each_error_is_one_line_and_writes_no_file(command, run, tmp_path, words, fragments):
    (tmp_path / "taken.npz").write_text("mine")
    (tmp_path / "a.onnx").write_text("mine")
    (tmp_path / "what").write_text("mine")
    (tmp_path / "lenet.toml").write_text(toml.dump(zoo.LENET5), encoding="utf-8")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert_one_line(command("convert", *words), *fragments, out="")
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "taken.npz").read_text() == "mine"


@pytest.mark.parametrize("flag", ["--json", "--plot"])
def test_a_file_that_a_command_reads_is_not_replaced(command, run, flag):
    assert command("convert", run, "a.npz").code == 0
    before = Path("a.npz").read_bytes()
    words = ["evaluate", "a.npz", "--backend", "numpy", "--data", "synthetic", "--limit-test", "4", flag, "./a.npz"]
    assert_one_line(command(*words), "a.npz: is read by this command", flag)
    assert Path("a.npz").read_bytes() == before


def test_force_replaces_an_existing_file(command, run, tmp_path):
    (tmp_path / "taken.npz").write_text("mine")
    assert command("convert", run, "taken.npz", "--force").code == 0
    assert conversion.format_of_content(tmp_path / "taken.npz") == "npz"


def test_a_run_is_converted_to_a_graph_that_takes_levels(command, run):
    assert command("convert", run, "a.onnx", "--bake-preprocessing").code == 0
    model = onnx.load("a.onnx")
    assert model.doc_string == ("pixels: float32 (N, 1, 28, 28); gray; resized to fit 28x28, centered on black; "
                                "levels 0 to 255")
    assert json.loads({prop.key: prop.value for prop in model.metadata_props}["classes"]) == list(data.FASHION_CLASSES)
