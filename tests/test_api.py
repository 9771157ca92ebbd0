"""The Python API: the command line's own training, and a fresh process that has imported nothing yet."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import alexnet_mf
from alexnet_mf import cli, networks, parameters, spec, specfile
from alexnet_mf.data import synthetic
from alexnet_mf.errors import AlexnetMfError, BackendUnavailable, ParametersError, RunError
from alexnet_mf.training.recipe import QUICK

SHORT = {"data": "synthetic", "train_images": 30, "test_images": 16, "batch_size": 8, "epochs": 3,
         "learning_rate": 0.03, "momentum": 0.9, "progress": False}
FLAGS = ["--data", "synthetic", "--limit-train", "30", "--limit-test", "16", "--batch-size", "8", "--epochs", "3",
         "--lr", "0.03", "--momentum", "0.9"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw = synthetic.load
    monkeypatch.setattr(synthetic, "load", lambda seed: draw(seed, train=64, test=32))


@pytest.fixture
def toml(small: spec.Network, tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(specfile.dump(small), encoding="utf-8")
    return str(path)


def test_train_leaves_the_command_lines_numbers(backend_name, small, toml, tmp_path):
    run = alexnet_mf.train(small, backend_name, **SHORT, out="mine")
    assert cli.main(["train", "--backend", backend_name, "--net", toml, *FLAGS, "--recipe", "book", "--out", "theirs",
                     "--quiet"]) == 0
    theirs = alexnet_mf.load_run("theirs")
    assert run.epochs == theirs.epochs
    assert parameters.digest(run.parameters()) == parameters.digest(theirs.parameters())
    assert parameters.digest(run.parameters("best")) == parameters.digest(theirs.parameters("best"))
    assert (run.state, run.backend, len(run.epochs), run.seed) == ("finished", backend_name, 3, 0)
    assert sorted(path.name for path in run.folder.iterdir()) == sorted(path.name for path in theirs.folder.iterdir())
    mine, others = (json.loads((folder / "run.json").read_text()) for folder in (run.folder, theirs.folder))
    assert mine["spec_sha256"] == others["spec_sha256"]
    assert {key: value for key, value in mine["recipe"].items()} == others["recipe"]


def test_what_is_shown_and_told(small, capsys):
    seen: dict[str, list] = {"progress": [], "epoch": []}
    run = alexnet_mf.train(small, "numpy", **{**SHORT, "progress": True}, on_progress=seen["progress"].append,
                           on_epoch=seen["epoch"].append)
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert err == ""
    assert seen["epoch"] == run.epochs
    assert [(now.epoch, now.step) for now in seen["progress"] if now.step == now.steps] == [(1, 4), (2, 4), (3, 4)]
    assert run.folder.parent == Path("runs")
    alexnet_mf.train(small, "numpy", **SHORT)
    assert capsys.readouterr() == ("", "")


def test_an_interrupted_run_goes_on_with_the_same_numbers(small):
    whole = alexnet_mf.train(small, "numpy", **SHORT)

    def interrupt(done):
        if done.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        alexnet_mf.train(small, "numpy", **SHORT, out="cut", on_epoch=interrupt)
    cut = alexnet_mf.load_run("cut")
    assert (cut.state, len(cut.epochs)) == ("interrupted", 2)
    told = []
    done = cut.resume(progress=False, on_epoch=told.append)
    assert (done.state, done.epochs) == ("finished", whole.epochs)
    assert told[-1] == whole.epochs[-1]
    assert parameters.digest(done.parameters()) == parameters.digest(whole.parameters())


def test_a_run_is_prolonged(small):
    longer = alexnet_mf.train(small, "numpy", **{**SHORT, "epochs": 4})
    assert alexnet_mf.train(small, "numpy", **SHORT).resume(epochs=4, progress=False).epochs == longer.epochs


def test_a_run_goes_on_in_another_backend_and_a_warning_says_what_is_lost(backend_name, small):
    begun = alexnet_mf.train(small, "numpy", **SHORT)
    if backend_name == "numpy":
        return
    with pytest.warns(UserWarning, match=f"begun in numpy, going on in {backend_name}: .* not carried: the momentum"):
        done = begun.resume(4, backend_name, progress=False)
    assert (done.backend, done.epochs[:3], len(done.epochs)) == (backend_name, begun.epochs, 4)


def test_a_run_is_built_in_every_backend(backend_name, small):
    run = alexnet_mf.train(small, "numpy", **SHORT)
    model = run.build(backend_name)
    assert parameters.digest(model.export()) == parameters.digest(run.parameters())
    assert run.build().network == small


def test_build_takes_names_files_networks_and_weights(small, toml, tmp_path):
    drawn = parameters.initialise(small, 7)
    for net in (small, toml):
        assert parameters.digest(alexnet_mf.build(net, "numpy", seed=7).export()) == parameters.digest(drawn)
    assert alexnet_mf.build("lenet5", "numpy").network == networks.LENET5
    parameters.save(tmp_path / "a.safetensors", drawn, {"network": spec.as_dict(small)})
    alexnet_mf.convert(str(tmp_path / "a.safetensors"), tmp_path / "a.npz")
    for net, weights in ((None, "a.safetensors"), (small, "a.safetensors"), (small, "a.npz"), (small, drawn)):
        model = alexnet_mf.build(net, "numpy", weights=weights)
        assert model.network.layers == small.layers
        assert parameters.digest(model.export()) == parameters.digest(drawn)
    inputs = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)
    assert_array_equal(model.logits(model.place(inputs, np.zeros(2, np.int64)), 2).shape, (2, 10))


def test_train_starts_from_weights_and_takes_a_recipe(small):
    run = alexnet_mf.train(small, "numpy", **SHORT)
    again = alexnet_mf.train(small, "numpy", weights=run.folder / "weights.safetensors", data="synthetic",
                             recipe=dataclasses.replace(QUICK, train_images=16, test_images=8), dropout=0.0,
                             progress=False)
    assert again.recipe.name == "quick" and again.recipe.train_images == 16
    assert again.network == spec.with_dropout(small, 0.0)
    record = json.loads((again.folder / "run.json").read_text())
    assert record["weights"]["sha256"] == parameters.digest(run.parameters())


@pytest.mark.parametrize("call, error, fragment", [
    (lambda small: alexnet_mf.train(small, "nothing"), BackendUnavailable, "unknown backend 'nothing'; known: torch"),
    (lambda small: alexnet_mf.train("nothing", "numpy"), AlexnetMfError, "unknown network 'nothing'"),
    (lambda small: alexnet_mf.train(small, "numpy", recipe="slow"), AlexnetMfError, "unknown recipe 'slow'; known"),
    (lambda small: alexnet_mf.train(small, "numpy", **{**SHORT, "epochs": 0}), AlexnetMfError, "at least 1, not 0"),
    (lambda small: alexnet_mf.train(small, "numpy", data="other"), AlexnetMfError, "unknown data set 'other'"),
    (lambda small: alexnet_mf.build(small, "numpy", weights={}), ParametersError, "missing conv1.weight"),
    (lambda small: alexnet_mf.build(small, "numpy", device="cuda"), BackendUnavailable, "no device 'cuda'"),
    (lambda small: alexnet_mf.load_run("nowhere"), RunError, "is missing")])
def test_what_is_wrong_is_told_and_leaves_nothing(small, call, error, fragment):
    with pytest.raises(error, match=fragment):
        call(small)
    assert not Path("runs").exists()


def test_a_folder_that_holds_something_is_refused(small):
    run = alexnet_mf.train(small, "numpy", **SHORT, out="mine")
    with pytest.raises(RunError, match="holds a run"):
        alexnet_mf.train(small, "numpy", **SHORT, out="mine")
    assert alexnet_mf.load_run("mine").epochs == run.epochs


def test_the_package_offers_it_and_imports_nothing_before_it_is_asked():
    script = """
import sys, alexnet_mf
assert {"train", "build", "load_run", "convert"} <= set(dir(alexnet_mf))
assert "numpy" not in sys.modules and "alexnet_mf.api" not in sys.modules
assert alexnet_mf.train.__doc__ and alexnet_mf.build.__doc__ and alexnet_mf.load_run.__doc__
assert not {"torch", "tensorflow", "mxnet", "keras"} & set(sys.modules)
try:
    alexnet_mf.nothing
except AttributeError as error:
    assert "has no attribute 'nothing'" in str(error)
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
