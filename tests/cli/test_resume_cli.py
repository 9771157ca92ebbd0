"""Interrupted runs resume to the same numbers, bit for bit."""

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
    checkpoint_steps,
    content,
    fail_when_over,
    figures,
    flip_bit,
    lines,
    record,
    resume,
    start,
    stop_after,
    tensor_digest,
)

import alexnet_mf
from alexnet_mf import datasets, spec
from alexnet_mf.spec import zoo
from alexnet_mf.training import checkpoint, loop
from alexnet_mf.training import record as records
from alexnet_mf.training.folder import RunFolder
from alexnet_mf.training.weight_files import BEST, WEIGHTS, WeightFiles
from alexnet_mf.weights import parameters


def accuracies(*figures: float) -> Callable[..., tuple[float, float]]:
    """Return a substitute for `loop.score` that gives these accuracies, one for each evaluation."""
    remaining = iter(figures)
    return lambda logits, labels: (1.0, next(remaining))


@contextmanager
def other_images() -> Iterator[None]:
    """Change the dataset: replace its test images by the training images."""
    open_source = datasets.open_source
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "open_source", lambda *words: dataclasses.replace(
            open_source(*words), test=open_source(*words).train))
        yield


# The files of a run


def test_a_run_folder_has_record_metrics_weights_and_checkpoint(command, small_alexnet, tmp_path):
    outcome = command("train", "--backend", "numpy", *SHORT, "--seed", "5")
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}-numpy-alexnet", folder.name)
    assert f"run folder: {folder}" in outcome.out.splitlines()
    assert outcome.err == ""
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "checkpoint", "curves.png", "metrics.jsonl", "run.json", "weights-best.safetensors", "weights.safetensors"]
    saved = record(folder)
    assert spec.from_dict(saved["network"]) == small_alexnet
    assert saved["spec_sha256"] == spec.fingerprint(small_alexnet)
    assert (saved["backend"], saved["device"], saved["seed"]) == ("numpy", "cpu", 5)
    assert saved["source"]["name"] == "synthetic"
    assert saved["recipe"]["batch_size"] == 8
    assert saved["versions"]["numpy"] == np.__version__
    assert saved["command"][:3] == ["alexnet-mf", "train", "--backend"]
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", saved["git_revision"] or "0" * 40)
    assert saved["state"] == "finished"
    epochs = [line for line in lines(folder) if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert saved["closing"]["last_epoch"]["test_accuracy"] == epochs[-1]["test_accuracy"]
    assert [line["step"] for line in lines(folder) if line["kind"] == "step"] == list(range(1, 13))
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    best = max(epochs, key=lambda line: line["test_accuracy"])
    _, header = parameters.load_with_metadata(folder / "weights-best.safetensors", small_alexnet)
    assert (header["epoch"], header["test_accuracy"]) == (best["epoch"], best["test_accuracy"])
    assert header["step"] == 4 * best["epoch"]
    assert checkpoint_steps(folder) == [12]


def test_the_best_weights_come_from_the_best_epoch(quick, command, small_alexnet, monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "score", accuracies(0.5, 0.75, 0.25))
    saved: list[str] = []
    save = WeightFiles.save
    monkeypatch.setattr(WeightFiles, "save", lambda self, weights, *rest: (
        saved.append(parameters.digest(weights)), save(self, weights, *rest)))
    start(command, tmp_path / "run")
    assert len(set(saved)) == 3
    assert tensor_digest(tmp_path / "run" / "weights.safetensors") == saved[2]
    assert tensor_digest(tmp_path / "run" / "weights-best.safetensors") == saved[1]


def test_save_weights_writes_the_weights_of_the_run(quick, command, tmp_path):
    start(command, tmp_path / "run", "--save-weights", str(tmp_path / "w"))
    assert tensor_digest(tmp_path / "w") == tensor_digest(tmp_path / "run" / "weights.safetensors")


def test_missing_matplotlib_gives_one_notice_and_no_curves(command, small_alexnet, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith(("matplotlib.", "alexnet_mf.plots.curves"))]:
        monkeypatch.delitem(sys.modules, name)
    outcome = start(command, tmp_path / "run")
    assert outcome.code == 0
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("no curves.png: matplotlib cannot be imported (")
    assert outcome.err.endswith("); pip install matplotlib\n")
    assert not (tmp_path / "run" / "curves.png").exists()


@pytest.mark.parametrize("file, fragment", [
    ("thesis.tex", "run: is not empty"), ("run.json", "run: holds a run; resume it with alexnet-mf train --resume "),
    ("checkpoint/step-00000012-0123456789abcdef.safetensors", "run: holds a run"),
    ("checkpoint/step-00000012.damaged", "run: holds a run")])
def test_train_refuses_a_folder_that_is_not_empty(quick, command, tmp_path, file, fragment):
    """Checkpoints without a run.json count as a run: `--resume` of the new run would use them."""
    (tmp_path / "run" / file).parent.mkdir(parents=True)
    (tmp_path / "run" / file).write_text("mine", encoding="utf-8")
    assert_refused(start(command, tmp_path / "run"), f"{tmp_path}/{fragment}", "--out")
    assert content(tmp_path / "run") == {file: b"mine"}


# Resuming


@pytest.mark.parametrize("step", [1, 4, 7, 8, 9, 11])
def test_a_stopped_run_resumes_to_the_same_numbers(whole, command, tmp_path, step):
    """The steps lie within an epoch, at its end, and on both sides of the first annealed step."""
    folder = stop_after(step, command, tmp_path / "run")
    assert record(folder)["state"] == "stopped"
    assert max(checkpoint_steps(folder)) == step
    assert tensor_digest(folder / "weights.safetensors") != whole["weights.safetensors"]
    outcome = resume(command, folder)
    assert (outcome.code, outcome.err) == (0, "")
    assert figures(folder) == whole
    assert checkpoint_steps(folder) == [12], "older checkpoints are removed"
    assert [line["step"] for line in lines(folder) if line["kind"] == "step"] == list(range(1, 13))
    (session,) = record(folder)["resumed"]
    assert (session["step"], session["backend"], session["command"][1]) == (step, "numpy", "train")


def test_every_backend_resumes_to_the_same_numbers(backend_name, quick, command, tmp_path):
    """test_killed_cli.py tests this across processes. Augmentation depends on seed and step alone: no checkpoint stores
    its state."""
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


def test_resuming_a_finished_run_repeats_its_results_and_redraws_its_curves(quick, command, tmp_path):
    folder = tmp_path / "run"
    first = start(command, folder)
    before = content(folder)
    (folder / "curves.png").unlink()
    quiet = resume(command, folder)
    assert (quiet.code, quiet.out, quiet.err) == (0, first.out, "")
    full = command("train", "--resume", str(folder))
    assert (full.code, full.err) == (0, "")
    assert full.out == f"{folder}: finished after epoch 3, nothing left to train; start a new run from its " \
        f"weights (--weights {folder})\n" + first.out
    assert json.loads(resume(command, folder, "--json", "-").out)["command"] == record(folder)["command"]
    assert content(folder) == before


@pytest.mark.parametrize("damage", [lambda path: flip_bit(path, 1000), Path.unlink], ids=["a bit flipped", "removed"])
@pytest.mark.parametrize("last", [0.5, 0.875], ids=["not the best", "the best"])
def test_weights_of_a_finished_run_are_rewritten_to_the_same_bytes(quick, command, monkeypatch, tmp_path, last, damage):
    """Both names are one file if the last weights are the best: a flipped bit then damages both."""
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
], ids=["before the checkpoint", "before the checkpoint, then not the best", "after the checkpoint"])
def test_the_best_weights_come_from_an_epoch_of_the_run(quick, command, small_alexnet, monkeypatch, tmp_path, where,
                                                        first, second, best):
    """The run ends after epoch 2. Without that checkpoint, the resumed epoch 2 differs, as it may on a GPU."""
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


def test_a_prolonged_run_has_the_numbers_of_a_longer_run(quick, command, tmp_path):
    words = ["--recipe", "book"]
    start(command, tmp_path / "long", *words, "--epochs", "4")
    start(command, tmp_path / "run", *words, "--epochs", "2")
    finished = command("train", "--resume", str(tmp_path / "run"))
    assert "nothing left to train; prolong it with more --epochs\n" in finished.out
    assert resume(command, tmp_path / "run", "--epochs", "4").code == 0
    assert figures(tmp_path / "run") == figures(tmp_path / "long")
    assert record(tmp_path / "run")["recipe"]["epochs"] == 4
    assert_refused(resume(command, tmp_path / "run", "--epochs", "3"), "has begun epoch 4")


def test_a_run_with_annealed_steps_cannot_be_prolonged(quick, command, tmp_path):
    start(command, tmp_path / "run")
    assert_refused(resume(command, tmp_path / "run", "--epochs", "9"), "smaller learning rate", "--weights")


def remove_checkpoints(folder: Path, keep_metrics: bool = False) -> None:
    """Give a run the state that it had before its first checkpoint."""
    shutil.rmtree(folder / "checkpoint")
    if not keep_metrics:
        (folder / "metrics.jsonl").write_bytes(b"")
        (folder / WEIGHTS).unlink()
        (folder / BEST).unlink()
    run_record = records.read(folder)
    run_record.state, run_record.closing = "running", None
    records.write(folder, run_record)


def test_a_run_without_checkpoints_restarts_from_its_weights(quick, command, small_alexnet, monkeypatch, tmp_path):
    """The weights are read again from any working folder, and refused if they have changed."""
    parameters.save(tmp_path / "w", parameters.initialize(small_alexnet, 3))
    start(command, tmp_path / "whole", "--net", "alexnet", "--weights", "w")
    start(command, tmp_path / "run", "--net", "alexnet", "--weights", "w")
    remove_checkpoints(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    outcome = resume(command, tmp_path / "run")
    assert outcome.code == 0
    assert "ended before its first checkpoint; starting from the first step" in outcome.err
    assert figures(tmp_path / "run") == figures(tmp_path / "whole")
    remove_checkpoints(tmp_path / "run")
    parameters.save(tmp_path / "w", parameters.initialize(small_alexnet, 4))
    assert_refused(resume(command, tmp_path / "run"), str(tmp_path / "w"), "has changed")


def test_two_epochs_without_checkpoints_are_not_overwritten(quick, command, tmp_path):
    """After a kill, run.json has no steps, but the weights come from the second epoch."""
    start(command, tmp_path / "run", "--epochs", "2")
    remove_checkpoints(tmp_path / "run", keep_metrics=True)
    weights = (tmp_path / "run" / WEIGHTS).read_bytes()
    assert_refused(resume(command, tmp_path / "run"), "no checkpoint", "--weights")
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == weights


def test_a_stopped_run_without_checkpoints_is_not_overwritten(stopped, command, tmp_path):
    """A new start would overwrite weights and metrics."""
    folder = tmp_path / "gone"
    shutil.copytree(stopped, folder)
    shutil.rmtree(folder / "checkpoint")
    weights = (folder / "weights.safetensors").read_bytes()
    outcome = command("train", "--resume", str(folder))
    assert outcome.code == 2
    assert "no checkpoint (a sweep removes those" in outcome.err and "--weights " in outcome.err
    assert (folder / "weights.safetensors").read_bytes() == weights


# Another spec, backend or version


@pytest.mark.parametrize("words, fragments", [
    (["--net", "alexnet-tab-torch"], ["--net is alexnet in this run, not alexnet-tab-torch",
                                      "; leave it out, or start a new run without --resume"]),
    (["--dropout", "0.25"], ["--dropout is 0.5 in this run, not 0.25"]),
    (["--lr", "0.5"], ["--lr is 0.03 in this run, not 0.5; leave it out, or start a new run with --weights "]),
    (["--batch-size", "4"], ["--batch-size is 8 in this run"]),
    (["--seed", "1"], ["--seed is 0 in this run, not 1; leave it out, or start a new run without --resume"]),
    (["--momentum", "0"], ["--momentum is 0.9 in this run"]),
    (["--limit-train", "31"], ["--limit-train is 30 in this run"]),
    (["--recipe", "book"], ["--recipe is quick in this run"]),
    (["--data", "fashion-mnist"], ["--data is", "synthetic", "not fashion-mnist"]),
    (["--precision", "bfloat16"], ["--precision is float64 in this run"]),
    (["--no-compile"], ["the speed settings of a run are fixed; leave out --no-compile"]),
    (["--weights", "w"], ["--weights cannot change in a resumed run"]),
    (["--out", "other"], ["takes no --out; leave it out"]),
    (["--epochs", "1"], ["has begun epoch 2"]),
])
def test_a_flag_that_contradicts_the_run_is_refused(stopped, command, words, fragments):
    before = content(stopped)
    assert_refused(resume(command, stopped, *words), *fragments)
    assert content(stopped) == before


def test_flags_that_agree_with_the_run_are_accepted(whole, stopped, command):
    outcome = command("train", "--resume", str(stopped), "--backend", "numpy", *SHORT, "--quiet", "--seed", "0",
                      "--net", "alexnet", "--dropout", "0.5")
    assert (outcome.code, outcome.err) == (0, "")
    assert figures(stopped) == whole


def test_a_run_keeps_its_network_if_the_name_changes_its_meaning(whole, stopped, command, monkeypatch):
    """A later version may define `alexnet` differently: the run keeps its own network."""
    monkeypatch.setattr(zoo, "NETWORKS", {})
    assert resume(command, stopped).code == 0
    assert figures(stopped) == whole


def test_resume_reports_another_version(stopped, command, monkeypatch):
    monkeypatch.setattr(alexnet_mf, "__version__", "9.9")
    outcome = resume(command, stopped)
    assert outcome.code == 0
    assert re.search(r"versions differ from the checkpoint's \(alexnet_mf \S+ then, 9\.9 now\): the numbers may differ",
                     outcome.err)


def test_resume_refuses_other_images(stopped, command):
    before = content(stopped)
    with other_images():
        assert_refused(resume(command, stopped), "the images differ", "synthetic")
    assert content(stopped) == before


@pytest.mark.parametrize("field, words", [("seed", ["--seed", "1"]), ("spec_sha256", ["--dropout", "0.25"]),
                                          ("data_sha256", [])])
def test_resume_refuses_the_checkpoint_of_another_run(stopped, command, tmp_path, field, words):
    """The other checkpoint lies beside the run's own, and is later."""
    with nullcontext() if words else other_images():
        start(command, tmp_path / "other", *words)
    (foreign,) = (tmp_path / "other" / "checkpoint").iterdir()
    shutil.copy(foreign, stopped / "checkpoint")
    before = content(stopped)
    assert_refused(resume(command, stopped), str(stopped / "checkpoint" / foreign.name), str(stopped / "run.json"),
                   f"{field} is ", "another run")
    assert content(stopped) == before


@pytest.mark.parametrize("recipe", ["quick", "book"])
def test_another_backend_resumes_from_the_weights(backend_name, quick, command, tmp_path, recipe):
    """The run begins in NumPy. A notice names the state that is not carried over."""
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
        in outcome.err
    assert ("momentum starts from zero" in outcome.err) == (recipe == "quick")
    assert f"dropout masks are {backend_name}'s own" in outcome.err
    assert "rounded to float32" in outcome.err
    assert outcome.err.count("\n") == 1
    assert [line["step"] for line in lines(folder) if line["kind"] == "step"] == list(range(1, 13))
    assert [line["epoch"] for line in lines(folder) if line["kind"] == "epoch"] == [1, 2, 3]
    assert (record(folder)["backend"], record(folder)["resumed"][0]["backend"]) == ("numpy", backend_name)
    assert checkpoint.latest(folder / "checkpoint")[1].session.backend == backend_name


# TensorBoard


def test_a_resumed_run_continues_its_tensorboard_events(quick, command, tmp_path):
    pytest.importorskip("tensorboardX")
    folder = stop_after(7, command, tmp_path / "run", "--tensorboard")
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert resume(command, folder).code == 0  # a run with events continues them
    files = list((folder / "tensorboard").iterdir())
    assert sorted(path.name.rpartition(".")[2] for path in files) == ["0", "7"]
    assert all(b"accuracy/test" in path.read_bytes() for path in files)
    assert_refused(resume(command, folder, "--tensorboard"), "is finished and writes no more events")
    plain = stop_after(7, command, tmp_path / "plain")
    assert not (plain / "tensorboard").exists()
    assert resume(command, plain, "--tensorboard").code == 0
    assert [path.name.rpartition(".")[2] for path in (plain / "tensorboard").iterdir()] == ["7"]


def test_missing_tensorboard_is_reported_before_the_training(quick, command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert_refused(start(command, tmp_path / "run", "--tensorboard"), "pip install tensorboardX")
    assert not (tmp_path / "run").exists()
