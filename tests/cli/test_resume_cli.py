"""Runs that end before their time, and go on: the same numbers, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from run_folders import (
    SHORT,
    assert_refused,
    checkpoints,
    content,
    fail_when_over,
    figures,
    flip,
    lines,
    record,
    resume,
    start,
    stop_after,
    tensor_digest,
)

from alexnet_mf import spec
from alexnet_mf.spec import zoo
from alexnet_mf.training import checkpoint, loop, run
from alexnet_mf.training import record as records
from alexnet_mf.training.folder import RunFolder
from alexnet_mf.training.weight_files import BEST, WEIGHTS, WeightFiles
from alexnet_mf.weights import parameters


def accuracies(*figures: float) -> Callable[..., tuple[float, float]]:
    """In place of `loop.score`: these, one evaluation after the other."""
    left = iter(figures)
    return lambda logits, labels: (1.0, next(left))


@contextmanager
def other_images() -> Iterator[None]:
    """As if the dataset had changed: its test images are the training images."""
    draw = run.load_dataset
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "load_dataset", lambda *words, **more: (
            dataclasses.replace(draw(*words, **more)[0], test=draw(*words, **more)[0].train), None))
        yield


# What a run leaves


def test_a_run_folder(command, small_alexnet, tmp_path):
    outcome = command("train", "--backend", "numpy", *SHORT, "--seed", "5")
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}-numpy-alexnet", folder.name)
    assert f"run folder: {folder}" in outcome.out.splitlines()
    assert outcome.err == ""
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "checkpoint", "curves.png", "metrics.jsonl", "run.json", "weights-best.safetensors", "weights.safetensors"]
    told = record(folder)
    assert spec.from_dict(told["network"]) == small_alexnet
    assert told["spec_sha256"] == spec.fingerprint(small_alexnet)
    assert (told["backend"], told["device"], told["seed"], told["data_name"]) == ("numpy", "cpu", 5, "synthetic")
    assert told["recipe"]["batch_size"] == 8
    assert told["versions"]["numpy"] == np.__version__
    assert told["command"][:3] == ["alexnet-mf", "train", "--backend"]
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", told["git_revision"] or "0" * 40)
    assert told["state"] == "finished"
    epochs = [line for line in lines(folder) if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert told["closing"]["last_epoch"]["test_accuracy"] == epochs[-1]["test_accuracy"]
    assert [line["step"] for line in lines(folder) if line["kind"] == "step"] == list(range(1, 13))
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    best = max(epochs, key=lambda line: line["test_accuracy"])
    _, header = parameters.load_with_metadata(folder / "weights-best.safetensors", small_alexnet)
    assert (header["epoch"], header["test_accuracy"]) == (best["epoch"], best["test_accuracy"])
    assert header["step"] == 4 * best["epoch"]
    assert checkpoints(folder) == [12]


def test_the_best_weights_are_those_of_the_best_epoch(quick, command, small_alexnet, monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "score", accuracies(0.5, 0.75, 0.25))
    saved: list[str] = []
    save = WeightFiles.save
    monkeypatch.setattr(WeightFiles, "save", lambda self, weights, *rest: (
        saved.append(parameters.digest(weights)), save(self, weights, *rest)))
    start(command, tmp_path / "run")
    assert len(set(saved)) == 3
    assert tensor_digest(tmp_path / "run" / "weights.safetensors") == saved[2]
    assert tensor_digest(tmp_path / "run" / "weights-best.safetensors") == saved[1]


def test_saved_weights_are_those_of_the_run(quick, command, tmp_path):
    start(command, tmp_path / "run", "--save-weights", str(tmp_path / "w"))
    assert tensor_digest(tmp_path / "w") == tensor_digest(tmp_path / "run" / "weights.safetensors")


def test_without_matplotlib_there_is_one_notice_and_no_picture(command, small_alexnet, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith(("matplotlib.", "alexnet_mf.plots.curves"))]:
        monkeypatch.delitem(sys.modules, name)
    outcome = start(command, tmp_path / "run")
    assert outcome.code == 0
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("no curves.png: matplotlib cannot be imported (")
    assert outcome.err.endswith("); pip install matplotlib\n")
    assert not (tmp_path / "run" / "curves.png").exists()


@pytest.mark.parametrize("there, fragment", [
    ("thesis.tex", "run: is not empty"), ("run.json", "run: holds a run; resume it with alexnet-mf train --resume "),
    ("checkpoint/step-00000012-0123456789abcdef.safetensors", "run: holds a run"),
    ("checkpoint/step-00000012.damaged", "run: holds a run")])
def test_a_folder_that_holds_something_is_refused(quick, command, tmp_path, there, fragment):
    """Checkpoints without a run.json too, else `--resume` of the new run would take them for its own."""
    (tmp_path / "run" / there).parent.mkdir(parents=True)
    (tmp_path / "run" / there).write_text("mine", encoding="utf-8")
    assert_refused(start(command, tmp_path / "run"), f"{tmp_path}/{fragment}", "--out")
    assert content(tmp_path / "run") == {there: b"mine"}


# Going on


@pytest.mark.parametrize("step", [1, 4, 7, 8, 9, 11])
def test_a_stopped_run_goes_on_with_the_same_numbers(whole, command, tmp_path, step):
    """Within an epoch, at its end, and on both sides of the smaller rate's beginning."""
    folder = stop_after(step, command, tmp_path / "run")
    assert record(folder)["state"] == "stopped"
    assert max(checkpoints(folder)) == step
    assert tensor_digest(folder / "weights.safetensors") != whole["weights.safetensors"]
    outcome = resume(command, folder)
    assert (outcome.code, outcome.err) == (0, "")
    assert figures(folder) == whole
    assert checkpoints(folder) == [12], "the older ones have gone"
    assert [line["step"] for line in lines(folder) if line["kind"] == "step"] == list(range(1, 13))
    (again,) = record(folder)["resumed"]
    assert (again["step"], again["backend"], again["command"][1]) == (step, "numpy", "train")


def test_every_backend_goes_on_with_the_same_numbers(backend_name, quick, command, tmp_path):
    """In this process; the test with SIGKILL does it across processes. What a step does to its images is a function of
    seed and step: a checkpoint holds nothing of it."""
    words = ["--augment", "color,flip,crop"]
    start(command, tmp_path / "whole", *words, backend=backend_name)
    assert record(tmp_path / "whole")["recipe"]["augment"] == ["flip", "crop", "color"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "save", fail_when_over(RunFolder.save, iter(range(8))))
        with pytest.raises(ZeroDivisionError):
            start(command, tmp_path / "run", *words, backend=backend_name)
    assert record(tmp_path / "run")["state"] == "failed"
    assert_refused(resume(command, tmp_path / "run", "--augment", "flip"), "--augment is flip,crop,color in this run")
    outcome = resume(command, tmp_path / "run", "--augment", "flip,crop,color")
    assert (outcome.code, outcome.err) == (0, "")
    assert figures(tmp_path / "run") == figures(tmp_path / "whole")


def test_a_finished_run_says_its_figures_again_and_draws_its_picture(quick, command, tmp_path):
    folder = tmp_path / "run"
    first = start(command, folder)
    before = content(folder)
    (folder / "curves.png").unlink()
    again = resume(command, folder)
    assert (again.code, again.out, again.err) == (0, first.out, "")
    told = command("train", "--resume", str(folder))
    assert (told.code, told.err) == (0, "")
    assert told.out == f"{folder}: finished after epoch 3, nothing is left to train; start a new run from its " \
        f"weights (--weights {folder})\n" + first.out
    assert json.loads(resume(command, folder, "--json", "-").out)["command"] == record(folder)["command"]
    assert content(folder) == before


@pytest.mark.parametrize("damage", [lambda path: flip(path, 1000), Path.unlink], ids=["a bit flipped", "removed"])
@pytest.mark.parametrize("last", [0.5, 0.875], ids=["not the best", "the best"])
def test_a_finished_runs_weights_are_mended_to_the_same_bytes(quick, command, monkeypatch, tmp_path, last, damage):
    """Header and all. Where the last are the best both names are one file, and a flipped bit is in both."""
    monkeypatch.setattr(loop, "score", accuracies(0.25, 0.75, last))
    start(command, tmp_path / "run")
    before = content(tmp_path / "run")
    for name in (WEIGHTS, BEST)[:1 + (last > 0.75)]:
        damage(tmp_path / "run" / name)
        outcome = resume(command, tmp_path / "run")
        assert outcome.code == 0 and f"{name}: " in outcome.err and "rewritten from the checkpoint\n" in outcome.err
        assert content(tmp_path / "run") == before


@pytest.mark.parametrize("where, first, second, best", [
    ((RunFolder, "save", 7), (0.5, 0.875), (0.75, 0.625), (2, 0.75)),
    ((RunFolder, "save", 7), (0.75, 0.875), (0.5, 0.625), (1, 0.75)),
    ((WeightFiles, "keep_best", 8), (0.5, 0.875), (0.75,), (2, 0.875)),
], ids=["before the checkpoint", "before the checkpoint, not the best then", "after the checkpoint"])
def test_the_best_weights_are_those_of_an_epoch_of_the_run(quick, command, small_alexnet, monkeypatch, tmp_path, where,
                                                           first, second, best):
    """Ended after epoch 2. Without its checkpoint epoch 2 is another after the resumption, as it may be on a GPU."""
    owner, method, calls = where
    monkeypatch.setattr(loop, "score", accuracies(*first))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, fail_when_over(getattr(owner, method), iter(range(calls))))
        with pytest.raises(ZeroDivisionError):
            start(command, tmp_path / "run")
    monkeypatch.setattr(loop, "score", accuracies(*second))
    outcome = resume(command, tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    _, header = parameters.load_with_metadata(tmp_path / "run" / BEST, small_alexnet)
    assert (header["epoch"], header["test_accuracy"]) == best


def test_more_epochs_prolong_a_run_as_if_it_had_been_longer_from_the_start(quick, command, tmp_path):
    words = ["--recipe", "book"]
    start(command, tmp_path / "long", *words, "--epochs", "4")
    start(command, tmp_path / "run", *words, "--epochs", "2")
    finished = command("train", "--resume", str(tmp_path / "run"))
    assert "nothing is left to train; prolong it with more --epochs\n" in finished.out
    assert resume(command, tmp_path / "run", "--epochs", "4").code == 0
    assert figures(tmp_path / "run") == figures(tmp_path / "long")
    assert record(tmp_path / "run")["recipe"]["epochs"] == 4
    assert_refused(resume(command, tmp_path / "run", "--epochs", "3"), "has begun epoch 4")


def test_a_run_that_has_slowed_down_cannot_be_prolonged(quick, command, tmp_path):
    start(command, tmp_path / "run")
    assert_refused(resume(command, tmp_path / "run", "--epochs", "9"), "smaller learning rate", "--weights")


def before_first_checkpoint(folder: Path, keep_metrics: bool = False) -> None:
    """Make a run what it was before its first checkpoint."""
    shutil.rmtree(folder / "checkpoint")
    if not keep_metrics:
        (folder / "metrics.jsonl").write_bytes(b"")
        (folder / WEIGHTS).unlink()
        (folder / BEST).unlink()
    run_record = records.read(folder)
    run_record.state, run_record.closing = "running", None
    records.write(folder, run_record)


def test_a_run_that_began_with_weights_begins_with_them_again(quick, command, small_alexnet, monkeypatch, tmp_path):
    """Where it was ended before its first checkpoint, from whatever folder; and not if they have changed since."""
    parameters.save(tmp_path / "w", parameters.initialise(small_alexnet, 3))
    start(command, tmp_path / "whole", "--net", "alexnet", "--weights", "w")
    start(command, tmp_path / "run", "--net", "alexnet", "--weights", "w")
    before_first_checkpoint(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    outcome = resume(command, tmp_path / "run")
    assert outcome.code == 0
    assert "ended before its first checkpoint; starting from the first step" in outcome.err
    assert figures(tmp_path / "run") == figures(tmp_path / "whole")
    before_first_checkpoint(tmp_path / "run")
    parameters.save(tmp_path / "w", parameters.initialise(small_alexnet, 4))
    assert_refused(resume(command, tmp_path / "run"), str(tmp_path / "w"), "has changed")


# Another spec, backend or version


def test_two_epochs_whose_checkpoints_are_gone_are_not_begun_anew(quick, command, tmp_path):
    """As after a kill: run.json tells nothing of steps, but the weights are the second epoch's."""
    start(command, tmp_path / "run", "--epochs", "2")
    before_first_checkpoint(tmp_path / "run", keep_metrics=True)
    weights = (tmp_path / "run" / WEIGHTS).read_bytes()
    assert_refused(resume(command, tmp_path / "run"), "there is no checkpoint", "--weights")
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == weights


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(stopped, command, tmp_path):
    """Its weights and metrics would be lost."""
    folder = tmp_path / "gone"
    shutil.copytree(stopped, folder)
    shutil.rmtree(folder / "checkpoint")
    weights = (folder / "weights.safetensors").read_bytes()
    outcome = command("train", "--resume", str(folder))
    assert outcome.code == 2
    assert "there is no checkpoint (a sweep keeps none" in outcome.err and "--weights " in outcome.err
    assert (folder / "weights.safetensors").read_bytes() == weights


@pytest.mark.parametrize("words, fragments", [
    (["--net", "alexnet-tab-torch"], ["--net is alexnet in this run, not alexnet-tab-torch"]),
    (["--dropout", "0.25"], ["--dropout is 0.5 in this run, not 0.25"]),
    (["--lr", "0.5"], ["--lr is 0.03 in this run, not 0.5"]),
    (["--batch-size", "4"], ["--batch-size is 8 in this run"]),
    (["--seed", "1"], ["--seed is 0 in this run"]),
    (["--momentum", "0"], ["--momentum is 0.9 in this run"]),
    (["--limit-train", "31"], ["--limit-train is 30 in this run"]),
    (["--recipe", "book"], ["--recipe is quick in this run"]),
    (["--data", "fashion-mnist"], ["--data is", "synthetic", "not fashion-mnist"]),
    (["--precision", "bfloat16"], ["--precision is float64 in this run"]),
    (["--no-compile"], ["the speed settings of a run are fixed; leave out --no-compile"]),
    (["--weights", "w"], ["--weights is its own in this run"]),
    (["--out", "other"], ["takes no --out; leave it out"]),
    (["--epochs", "1"], ["has begun epoch 2"]),
])
def test_a_flag_that_contradicts_the_run_is_refused(stopped, command, words, fragments):
    before = content(stopped)
    assert_refused(resume(command, stopped, *words), *fragments)
    assert content(stopped) == before


def test_flags_that_agree_with_the_run_are_taken(whole, stopped, command):
    outcome = command("train", "--resume", str(stopped), "--backend", "numpy", *SHORT, "--quiet", "--seed", "0",
                      "--net", "alexnet", "--dropout", "0.5")
    assert (outcome.code, outcome.err) == (0, "")
    assert figures(stopped) == whole


def test_another_spec_under_the_same_name_changes_nothing(whole, stopped, command, monkeypatch):
    """A later version of this program may have another `alexnet`: the run keeps its own."""
    monkeypatch.setattr(zoo, "NETWORKS", {})
    assert resume(command, stopped).code == 0
    assert figures(stopped) == whole


def test_another_version_is_told(stopped, command, monkeypatch):
    monkeypatch.setattr(run.alexnet_mf, "__version__", "9.9")
    outcome = resume(command, stopped)
    assert outcome.code == 0
    assert re.search(r"versions differ from the checkpoint's \(alexnet_mf \S+ then, 9\.9 now\): the numbers may differ",
                     outcome.err)


def test_other_images_are_refused(stopped, command):
    before = content(stopped)
    with other_images():
        assert_refused(resume(command, stopped), "not the images", "synthetic")
    assert content(stopped) == before


@pytest.mark.parametrize("field, words", [("seed", ["--seed", "1"]), ("spec_sha256", ["--dropout", "0.25"]),
                                          ("data_sha256", [])])
def test_another_runs_checkpoint_is_refused(stopped, command, tmp_path, field, words):
    """Copied beside the run's own, and later than those."""
    with nullcontext() if words else other_images():
        start(command, tmp_path / "other", *words)
    (foreign,) = (tmp_path / "other" / "checkpoint").iterdir()
    shutil.copy(foreign, stopped / "checkpoint")
    before = content(stopped)
    assert_refused(resume(command, stopped), str(stopped / "checkpoint" / foreign.name), str(stopped / "run.json"),
                   f"{field} is ", "another run")
    assert content(stopped) == before


@pytest.mark.parametrize("recipe", ["quick", "book"])
def test_another_backend_goes_on_from_the_weights(backend_name, quick, command, tmp_path, recipe):
    """Begun in NumPy; the notice names what is not carried."""
    if backend_name == "numpy":
        pytest.skip("the same backend")
    folder = stop_after(7, command, tmp_path / "run", "--recipe", recipe)
    weights = checkpoint.latest(folder / "checkpoint")[1].snapshot.state.parameters
    loaded: list[parameters.Parameters] = []
    with pytest.MonkeyPatch.context() as patch:
        load = loop.train
        patch.setattr(loop, "train", lambda model, *rest, **more: (
            loaded.append(model.export()), load(model, *rest, **more))[1])
        outcome = resume(command, folder, "--backend", backend_name)
    assert outcome.code == 0, outcome.err
    for name, value in loaded[0].items():
        assert_array_equal(value, weights[name].astype(np.float32))
    assert f"begun in numpy, resumed in {backend_name}: weights, position and order of the images are carried over; " \
        "not carried over: " in outcome.err
    assert ("the momentum starts from zero" in outcome.err) == (recipe == "quick")
    assert f"the dropout masks are {backend_name}'s own" in outcome.err
    assert "rounded to float32" in outcome.err
    assert outcome.err.count("\n") == 1
    assert [line["step"] for line in lines(folder) if line["kind"] == "step"] == list(range(1, 13))
    assert [line["epoch"] for line in lines(folder) if line["kind"] == "epoch"] == [1, 2, 3]
    assert (record(folder)["backend"], record(folder)["resumed"][0]["backend"]) == ("numpy", backend_name)
    assert checkpoint.latest(folder / "checkpoint")[1].session.backend == backend_name


# TensorBoard


def test_tensorboard_events_of_a_run_that_goes_on(quick, command, tmp_path):
    pytest.importorskip("tensorboardX")
    folder = stop_after(7, command, tmp_path / "run", "--tensorboard")
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert resume(command, folder).code == 0  # what has events goes on with them
    files = list((folder / "tensorboard").iterdir())
    assert sorted(path.name.rpartition(".")[2] for path in files) == ["0", "7"]
    assert all(b"accuracy/test" in path.read_bytes() for path in files)
    assert_refused(resume(command, folder, "--tensorboard"), "is finished and writes no more events")
    plain = stop_after(7, command, tmp_path / "plain")
    assert not (plain / "tensorboard").exists()
    assert resume(command, plain, "--tensorboard").code == 0
    assert [path.name.rpartition(".")[2] for path in (plain / "tensorboard").iterdir()] == ["7"]


def test_tensorboard_that_is_missing_is_told_before_the_training(quick, command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert_refused(start(command, tmp_path / "run", "--tensorboard"), "pip install tensorboardX")
    assert not (tmp_path / "run").exists()
