"""Runs that end before their time, and go on: the same numbers, bit for bit, and nothing good is lost."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from console import Outcome
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file

from alexnet_mf import parameters, spec
from alexnet_mf.cli import train
from alexnet_mf.training import checkpoint, curves, job, metrics, run
from alexnet_mf.training.folder import BEST, WEIGHTS
from alexnet_mf.training.opened import WHICH, open_weights
from alexnet_mf.training.record import read as read_record
from alexnet_mf.training.weight_files import WeightFiles

# 3 epochs of 4 steps with momentum, a checkpoint after each step; annealed from step 9 on.
SHORT = ["--data", "synthetic", "--limit-train", "30", "--limit-test", "16", "--batch-size", "8", "--epochs", "3",
         "--checkpoint-minutes", "1e-9", "--lr", "0.03"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, small_alexnet: spec.Network) -> None:
    """Without what takes time and is tested elsewhere."""
    monkeypatch.setattr(job, "conditions", lambda command: {"command": command, "git_revision": None})
    monkeypatch.setattr(curves, "png", lambda runs: b"\x89PNG of " + json.dumps(runs).encode())


def start(command: Any, folder: Path | str, *more: str, backend: str = "numpy") -> Outcome:
    return command("train", "--backend", backend, *SHORT, "--out", str(folder), "--quiet", *more)


def figures(folder: Path) -> dict[str, Any]:
    """All numbers that a run left: those of the last checkpoint, its epochs, and the bits of its weights."""
    _, found, _ = checkpoint.latest(folder / "checkpoint")
    epochs = [line for line in lines(folder) if line["kind"] == "epoch"]
    state = found.snapshot.state
    return {"losses": found.snapshot.position.losses, "epochs": epochs,
            "tensors": (parameters.digest(state.parameters), parameters.digest(state.velocity)),
            **{name: tensor_digest(folder / name) for name in (WEIGHTS, BEST)}}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def tensor_digest(path: Path) -> str:
    return parameters.digest(load_file(path))


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def whole(quick, command, tmp_path) -> dict[str, Any]:
    """What an uninterrupted run leaves."""
    assert start(command, tmp_path / "whole").code == 0
    return figures(tmp_path / "whole")


@pytest.fixture
def stopped(quick, command, tmp_path) -> Path:
    """A run that was stopped after 7 of 12 steps, with checkpoints after 6 and 7."""
    return stop_after(7, command, tmp_path / "stopped")


def stop_after(step: int, command: Any, folder: Path, *more: str) -> Path:
    """Make believe that Ctrl-C came in this step. It is asked for before the first, and twice at an epoch's end."""
    calls = iter(range(step + 2 * ((step - 1) // 4)))

    def interrupted(self: Any) -> bool:
        if next(calls, None) is None:
            self.signal = signal.SIGINT
        return self.signal is not None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.signals.Stop, "__call__", interrupted)
        outcome = start(command, folder, *more)
    assert outcome.code == 130, outcome.err
    assert f"stopped by Ctrl-C after {step} steps; go on with: alexnet-mf train --resume {folder}\n" in outcome.err
    return folder


def checkpoints(folder: Path) -> list[int]:
    """The steps of those that there are."""
    return sorted(checkpoint.step_of(path) for path in (folder / "checkpoint").glob("step-*.safetensors"))


def resume(command: Any, folder: Path, *more: str) -> Outcome:
    return command("train", "--resume", str(folder), "--quiet", "--checkpoint-minutes", "1e-9", *more)


def assert_refused(outcome: Outcome, *fragments: str) -> None:
    """One clear line."""
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1, outcome.err
    for fragment in fragments:
        assert fragment in outcome.err


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
    assert told["spec_sha256"] == spec.digest(small_alexnet)
    assert (told["backend"], told["device"], told["seed"], told["data_name"]) == ("numpy", "cpu", 5, "synthetic")
    assert told["recipe"]["batch_size"] == 8
    assert told["versions"]["numpy"] == np.__version__
    assert told["command"][:3] == ["alexnet-mf", "train", "--backend"]
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", told["git_revision"] or "0" * 40)
    assert told["state"] == "finished"
    epochs = [line for line in lines(folder) if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert told["closing"]["test_accuracy"] == epochs[-1]["test_accuracy"]
    assert [line["step"] for line in lines(folder) if line["kind"] == "step"] == list(range(1, 13))
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    best = max(epochs, key=lambda line: line["test_accuracy"])
    _, header = parameters.load_with_metadata(folder / "weights-best.safetensors", small_alexnet)
    assert (header["epoch"], header["test_accuracy"]) == (best["epoch"], best["test_accuracy"])
    assert header["step"] == 4 * best["epoch"]
    assert checkpoints(folder) == [12]


def test_the_best_weights_are_those_of_the_best_epoch(quick, command, small_alexnet, monkeypatch, tmp_path):
    """Accuracies 1/2, 3/4, 1/4: the second."""
    accuracies = iter([0.5, 0.75, 0.25])
    monkeypatch.setattr(train.loop, "_score", lambda logits, labels: (1.0, next(accuracies)))
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
    for name in [name for name in sys.modules if name.startswith(("matplotlib.", "alexnet_mf.training.curves"))]:
        monkeypatch.delitem(sys.modules, name)
    outcome = start(command, tmp_path / "run")
    assert outcome.code == 0
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("no curves.png: matplotlib cannot be imported (")
    assert outcome.err.endswith("); pip install matplotlib\n")
    assert not (tmp_path / "run" / "curves.png").exists()


@pytest.mark.parametrize("there, fragment", [("run.json", "holds a run"), ("thesis.tex", "is not empty")])
def test_a_folder_that_holds_something_is_refused(quick, command, tmp_path, there, fragment):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / there).write_text("mine", encoding="utf-8")
    assert_refused(start(command, tmp_path / "run"), str(tmp_path / "run"), fragment, "--out")
    assert content(tmp_path / "run") == {there: b"mine"}


def test_a_folder_that_cannot_be_made_is_told(quick, command, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert_refused(start(command, tmp_path / "file" / "run"), "file/run", "cannot be made", "--out")


def test_a_run_that_diverges_has_failed(quick, command, tmp_path):
    outcome = start(command, tmp_path / "run", "--lr", "1e38", "--weight-decay", "1e38")
    assert outcome.code == 1
    assert record(tmp_path / "run")["state"] == "failed"
    assert "learning rate" in record(tmp_path / "run")["reason"]


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
    """In this process; the test with SIGKILL does it across processes."""
    start(command, tmp_path / "whole", backend=backend_name)
    calls = iter(range(8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Run, "save", fail_when_over(run.Run.save, calls))
        with pytest.raises(ZeroDivisionError):
            start(command, tmp_path / "run", backend=backend_name)
    assert record(tmp_path / "run")["state"] == "failed"
    outcome = resume(command, tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert figures(tmp_path / "run") == figures(tmp_path / "whole")


def test_every_backend_draws_the_same_augmentation_again(backend_name, quick, command, tmp_path):
    """What a step does to its images is a function of seed and step: a checkpoint holds nothing of it."""
    words = ["--augment", "color,flip,crop", "--epochs", "2"]
    start(command, tmp_path / "plain", *words[2:], backend=backend_name)
    start(command, tmp_path / "whole", *words, backend=backend_name)
    assert record(tmp_path / "whole")["recipe"]["augment"] == ["flip", "crop", "color"]
    assert figures(tmp_path / "whole")["losses"] != figures(tmp_path / "plain")["losses"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Run, "save", fail_when_over(run.Run.save, iter(range(3))))
        with pytest.raises(ZeroDivisionError):
            start(command, tmp_path / "run", *words, backend=backend_name)
    assert_refused(resume(command, tmp_path / "run", "--augment", "flip"), "--augment is flip,crop,color there", "flip")
    assert resume(command, tmp_path / "run", "--augment", "flip,crop,color").code == 0
    assert figures(tmp_path / "run") == figures(tmp_path / "whole")


def fail_when_over(method: Any, calls: Any) -> Any:
    def call(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise ZeroDivisionError
        return method(*arguments)
    return call


def test_a_finished_run_says_its_figures_again(quick, command, tmp_path):
    folder = tmp_path / "run"
    first = start(command, folder)
    before = content(folder)
    again = resume(command, folder)
    assert (again.code, again.out, again.err) == (0, first.out, "")
    told = command("train", "--resume", str(folder))
    assert (told.code, told.err) == (0, "")
    assert told.out == f"{folder}: all its 3 epochs are done, nothing is left to train; start a new run from its " \
        f"weights (--weights {folder / WEIGHTS})\n" + first.out
    assert content(folder) == before


def test_a_finished_run_that_can_be_longer_says_how(quick, command, tmp_path):
    start(command, tmp_path / "run", "--recipe", "book")
    assert "nothing is left to train; prolong it with more --epochs\n" in command(
        "train", "--resume", str(tmp_path / "run")).out


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "curves.png", WEIGHTS])
def test_a_finished_run_is_mended_too(quick, command, tmp_path, name):
    start(command, tmp_path / "run")
    before = figures(tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    assert resume(command, tmp_path / "run").code == 0
    assert (tmp_path / "run" / name).exists()
    assert figures(tmp_path / "run") == before
    assert record(tmp_path / "run")["state"] == "finished"


def test_more_epochs_prolong_a_run_as_if_it_had_been_longer_from_the_start(quick, command, tmp_path):
    words = ["--recipe", "book"]
    start(command, tmp_path / "long", *words, "--epochs", "4")
    start(command, tmp_path / "run", *words, "--epochs", "2")
    assert resume(command, tmp_path / "run", "--epochs", "4").code == 0
    assert figures(tmp_path / "run") == figures(tmp_path / "long")
    assert record(tmp_path / "run")["recipe"]["epochs"] == 4
    assert_refused(resume(command, tmp_path / "run", "--epochs", "3"), "has begun epoch 4")


def test_a_run_that_has_slowed_down_cannot_be_prolonged(quick, command, tmp_path):
    start(command, tmp_path / "run")
    assert_refused(resume(command, tmp_path / "run", "--epochs", "9"), "smaller learning rate", "--weights")


def test_a_run_that_began_with_weights_begins_with_them_again(quick, command, small_alexnet, tmp_path):
    """Where it was ended before its first checkpoint; and not if they have changed since."""
    parameters.save(tmp_path / "w", parameters.initialise(small_alexnet, 3))
    start(command, tmp_path / "whole", "--weights", str(tmp_path / "w"))
    start(command, tmp_path / "run", "--weights", str(tmp_path / "w"))
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    outcome = resume(command, tmp_path / "run")
    assert outcome.code == 0
    assert "ended before its first checkpoint; beginning at the first step" in outcome.err
    assert figures(tmp_path / "run") == figures(tmp_path / "whole")
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    parameters.save(tmp_path / "w", parameters.initialise(small_alexnet, 4))
    assert_refused(resume(command, tmp_path / "run"), str(tmp_path / "w"), "has changed")


# Power cuts and full disks: at every single call


def test_a_power_cut_at_any_call_costs_nothing(quick, command, failing_os, tmp_path):
    """Every open, write, fsync, rename and close of a run, its checkpoints and all else, one after the other.

    In NumPy: the function that writes knows no backend. Each backend is killed for real below.
    """
    words = ["--limit-train", "16", "--epochs", "2"]  # 2 steps each, the last of them slower
    recorded = failing_os()
    start(command, tmp_path / "whole", *words)
    whole = figures(tmp_path / "whole")
    assert recorded.calls.count("replace") >= 4 + 2 + 2 + 1, "checkpoints, weights, run.json, the best"
    for at in range(len(recorded.calls)):
        folder = tmp_path / f"run-{at}"
        failing = failing_os(at)
        with pytest.raises(failing.Crash):
            start(command, folder, *words)
        failing_os()
        if (folder / "run.json").exists():
            outcome = resume(command, folder)
            assert outcome.code == 0, outcome.err
            assert outcome.err == "" or "before its first checkpoint" in outcome.err, (at, outcome.err)
        else:
            outcome = start(command, folder, *words)
            assert outcome.code == 0, outcome.err
        assert figures(folder) == whole, f"call {at}: {recorded.calls[at]}"
        assert not list(folder.rglob("*.partial"))
        shutil.rmtree(folder)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
def test_an_error_at_any_call_is_told_and_costs_nothing(quick, command, failing_os, tmp_path, error):
    """Every call for every file of a run: one line that names file, error, last checkpoint and the way on."""
    words = ["--limit-train", "16", "--epochs", "2"]
    recorded = failing_os()
    start(command, tmp_path / "whole", *words)
    whole = figures(tmp_path / "whole")
    written = {name for call, name in zip(recorded.calls, recorded.names) if call in ("write", "replace")}
    assert {name.partition("-0")[0] for name in written} == {
        "run.json", "metrics.jsonl", "curves.png", WEIGHTS, BEST, "step"}
    assert (recorded.calls[-1], recorded.names[-1]) == ("close", "metrics.jsonl"), "on the disk by then: no harm"
    for at, (call, name) in enumerate(zip(recorded.calls[:-1], recorded.names)):
        if call == "link":  # without links there are copies
            continue
        folder = tmp_path / f"run-{at}"
        failing_os(at, error)
        outcome = start(command, folder, *words)
        failing_os()
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), (at, call, name)
        told = "checkpoint" if name.startswith("step-") else WEIGHTS if name == BEST else name
        assert outcome.err.startswith(f"alexnet-mf: error: {folder}"), outcome.err
        assert f"{told}: cannot be written ({os.strerror(error)})" in outcome.err or name == folder.name, outcome.err
        assert_nothing_good_is_lost(folder, outcome)
        done = resume(command, folder) if (folder / "run.json").exists() else start(command, folder, *words)
        assert done.code == 0, done.err
        assert figures(folder) == whole, (at, call, name)
        assert record(folder)["state"] == "finished"
        shutil.rmtree(folder)


def assert_nothing_good_is_lost(folder: Path, outcome: Outcome) -> None:
    """What is there is whole, and the checkpoint that is named is the last."""
    good = checkpoint.latest(folder / "checkpoint")
    if good is None:
        assert "there is no checkpoint yet" in outcome.err
    else:
        assert good[2] == {}
        named = re.search(r"the last good checkpoint is (\S+): mend that, then go on with: alexnet-mf train "
                          r"--resume \S+\n", outcome.err)
        assert named and checkpoint.step_of(good[0]) - checkpoint.step_of(folder / named[1]) in (0, 1)
        assert (folder / "checkpoint" / named[1]).exists()
    if (folder / "run.json").exists():
        assert read_record(folder)["state"] in ("running", "failed")
    for which, file in WHICH.items():
        if (folder / file).exists():
            open_weights(folder, which=which)
    if (folder / "curves.png").exists():
        assert (folder / "curves.png").read_bytes().endswith(b"]}")


# Damage


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "emptied": lambda path: path.write_bytes(b""),
    "a bit flipped": lambda path: flip(path, len(path.read_bytes()) // 2),
    "a bit flipped early": lambda path: flip(path, 5),
    "removed": lambda path: path.unlink(),
}


def flip(path: Path, place: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 4
    path.write_bytes(damaged)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name, says", [
    ("run.json", ["run.json: is", "writing it anew from the checkpoint"]),
    ("metrics.jsonl", ["metrics.jsonl: is", "its epochs are written anew"]),
    ("weights.safetensors", ["weights.safetensors: ", "written anew from the checkpoint"]),
    ("weights-best.safetensors", ["weights-best.safetensors: ", "the best of the epochs to come"]),
])
def test_a_damaged_file_is_told_and_mended(whole, stopped, command, name, says, damage):
    other = [path for path in (WEIGHTS, BEST) if path == name]
    assert not (stopped / WEIGHTS).samefile(stopped / BEST), "else both are damaged"
    damage(stopped / name)
    outcome = resume(command, stopped)
    assert outcome.code == 0
    assert outcome.err.count("\n") == 1, outcome.err
    assert (": is missing" in outcome.err or "cannot be read" in outcome.err) or damage is not DAMAGES["removed"]
    for fragment in says:
        assert fragment in outcome.err
    found = figures(stopped)
    if BEST in other:  # epoch 1 may have been the best, and is lost
        found[BEST] = whole[BEST]
    assert found == whole
    assert record(stopped)["state"] == "finished"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_picture_is_drawn_anew(whole, stopped, command, damage):
    damage(stopped / "curves.png")
    outcome = resume(command, stopped)
    assert (outcome.code, outcome.err) == (0, "")
    assert (stopped / "curves.png").read_bytes() == curves.png({stopped.name: metrics.read(stopped)})
    assert figures(stopped) == whole


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_events_are_left_alone_and_others_are_written(whole, command, tmp_path, damage):
    """Nothing of a run depends on them."""
    pytest.importorskip("tensorboardX")
    folder = stop_after(7, command, tmp_path / "run", "--tensorboard")
    (events,) = (folder / "tensorboard").iterdir()
    damage(events)
    before = content(folder / "tensorboard")
    outcome = resume(command, folder)
    assert (outcome.code, outcome.err) == (0, "")
    after = content(folder / "tensorboard")
    assert before.items() <= after.items()
    (new,) = after.keys() - before.keys()
    assert new.endswith(".7") and b"accuracy/test" in after[new]
    assert figures(folder) == whole


def test_events_whose_folder_is_gone_are_written_when_asked(whole, command, tmp_path):
    pytest.importorskip("tensorboardX")
    folder = stop_after(7, command, tmp_path / "run", "--tensorboard")
    shutil.rmtree(folder / "tensorboard")
    (folder / "tensorboard").write_text("no folder")
    assert_refused(resume(command, folder, "--tensorboard"), "tensorboard: cannot be written (File exists)",
                   "the last good checkpoint is step-00000007-")
    (folder / "tensorboard").unlink()
    outcome = resume(command, folder, "--tensorboard")
    assert (outcome.code, outcome.err) == (0, "")
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert figures(folder) == whole


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl"])
def test_what_is_damaged_is_put_aside(stopped, command, name):
    """A person may still make something of it."""
    flip(stopped / name, 5)
    damaged = (stopped / name).read_bytes()
    resume(command, stopped)
    assert (stopped / f"{name}.damaged").read_bytes() == damaged


@pytest.mark.parametrize("damage", list(DAMAGES.values())[:-1], ids=list(DAMAGES)[:-1])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(whole, stopped, command, monkeypatch, damage):
    latest, before = checkpoint.paths(stopped / "checkpoint")
    damage(latest)
    damaged = latest.read_bytes()
    good = before.read_bytes()
    found: list[dict[str, bytes]] = []
    save = run.Run.save
    monkeypatch.setattr(run.Run, "save", lambda self, snapshot: (
        found.append(content(stopped / "checkpoint")), save(self, snapshot)))
    outcome = resume(command, stopped)
    assert outcome.code == 0
    assert outcome.err.count("\n") == 1
    assert f"{latest.name} is damaged: its checksum does not fit" in outcome.err
    assert f"going on from the one before, {before.name}; it is {latest.name}.damaged until" in outcome.err
    assert figures(stopped) == whole
    assert record(stopped)["resumed"][0]["step"] == 6
    assert found[0] == {f"{latest.name}.damaged": damaged, before.name: good}, "put aside, and the good one untouched"
    assert not [name for name in found[1] if name.endswith(".damaged")], "step 7 has a good one again"


def test_a_damaged_checkpoint_is_passed_over_once(whole, stopped, command):
    """Ended again before there is another: the next resume finds the good one alone."""
    latest, before = checkpoint.paths(stopped / "checkpoint")
    flip(latest, 1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Run, "save", fail_when_over(run.Run.save, iter([])))
        with pytest.raises(ZeroDivisionError):
            resume(command, stopped)
    assert set(content(stopped / "checkpoint")) == {f"{latest.name}.damaged", before.name}
    outcome = resume(command, stopped)
    assert (outcome.code, outcome.err) == (0, "")
    assert figures(stopped) == whole
    assert set(content(stopped / "checkpoint")) == {checkpoint.paths(stopped / "checkpoint")[0].name}


def test_another_versions_checkpoint_is_no_damage(stopped, command):
    """It is not passed over: what was computed since would be lost."""
    _, found, _ = checkpoint.latest(stopped / "checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 2)
        newer = checkpoint.save(stopped / "checkpoint", found)
    before = content(stopped)
    assert_refused(resume(command, stopped), f"{newer.name} is in format 2, and this version reads 1: go on with the "
                   "version that wrote it")
    assert content(stopped) == before


def test_a_checkpoint_that_is_gone_is_not_missed(whole, stopped, command):
    checkpoint.paths(stopped / "checkpoint")[0].unlink()
    assert resume(command, stopped).code == 0
    assert figures(stopped) == whole


def test_if_no_checkpoint_is_good_nothing_is_overwritten(stopped, command):
    for path in checkpoint.paths(stopped / "checkpoint"):
        flip(path, 1000)
    before = content(stopped)
    outcome = resume(command, stopped)
    assert_refused(outcome, "no checkpoint is good", *(path.name for path in checkpoint.paths(stopped / "checkpoint")))
    assert content(stopped) == before


def test_without_record_and_checkpoint_there_is_nothing_to_go_on_from(stopped, command):
    shutil.rmtree(stopped / "checkpoint")
    (stopped / "run.json").unlink()
    assert_refused(resume(command, stopped), str(stopped), "no run here")
    (stopped / "checkpoint").mkdir()
    assert_refused(resume(command, stopped), "run.json: is missing", "no checkpoint", "anew")


# Another spec, backend or version


@pytest.mark.parametrize("words, fragments", [
    (["--net", "alexnet-tab"], ["--net is alexnet there, not alexnet-tab"]),
    (["--dropout", "0.25"], ["--dropout is 0.5 there, not 0.25"]),
    (["--lr", "0.5"], ["--lr is 0.03 there, not 0.5"]),
    (["--batch-size", "4"], ["--batch-size is 8 there"]),
    (["--seed", "1"], ["--seed is 0 there"]),
    (["--momentum", "0"], ["--momentum is 0.9 there"]),
    (["--limit-train", "31"], ["--limit-train is 30 there"]),
    (["--recipe", "book"], ["--recipe is quick there"]),
    (["--data", "fashion-mnist"], ["--data is", "synthetic", "not fashion-mnist"]),
    (["--precision", "bfloat16"], ["--precision is float64 there"]),
    (["--no-compile"], ["speed settings are fixed", "--no-compile"]),
    (["--weights", "w"], ["--weights is its own there"]),
    (["--out", "other"], ["leave out --out"]),
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
    monkeypatch.setattr(spec, "get_network", None)
    assert resume(command, stopped).code == 0
    assert figures(stopped) == whole


def test_another_version_is_told(stopped, command, monkeypatch):
    monkeypatch.setattr(job.alexnet_mf, "__version__", "9.9")
    outcome = resume(command, stopped)
    assert outcome.code == 0
    assert re.search(r"versions differ from the checkpoint's \(alexnet_mf \S+ then, 9\.9 now\): the numbers may differ",
                     outcome.err)


def test_other_images_are_refused(stopped, command, monkeypatch):
    draw = train.load
    monkeypatch.setattr(train, "load", lambda *words, **more: (
        dataclasses.replace(draw(*words, **more)[0], test=draw(*words, **more)[0].train), None))
    before = content(stopped)
    assert_refused(resume(command, stopped), "not the images", "synthetic")
    assert content(stopped) == before


def test_another_format_is_told(stopped, command, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    assert_refused(resume(command, stopped), "is in format 1, and this version reads 2")


@pytest.mark.parametrize("recipe", ["quick", "book"])
def test_another_backend_goes_on_from_the_weights(backend_name, quick, command, tmp_path, recipe):
    """Begun in NumPy; the notice names what is not carried."""
    if backend_name == "numpy":
        pytest.skip("the same backend")
    folder = stop_after(7, command, tmp_path / "run", "--recipe", recipe)
    weights = checkpoint.latest(folder / "checkpoint")[1].snapshot.state.parameters
    loaded: list[parameters.Parameters] = []
    with pytest.MonkeyPatch.context() as patch:
        load = train.loop.train
        patch.setattr(train.loop, "train", lambda model, *rest, **more: (
            loaded.append(model.export()), load(model, *rest, **more))[1])
        outcome = resume(command, folder, "--backend", backend_name)
    assert outcome.code == 0, outcome.err
    for name, value in loaded[0].items():
        assert_array_equal(value, weights[name].astype(np.float32))
    assert f"begun in numpy, going on in {backend_name}: weights, position and order of the images are carried over; " \
        "not carried: " in outcome.err
    assert ("the momentum starts from zero" in outcome.err) == (recipe == "quick")
    assert f"the dropout masks are {backend_name}'s own" in outcome.err
    assert "rounded to float32" in outcome.err
    assert outcome.err.count("\n") == 1
    assert [line["step"] for line in lines(folder) if line["kind"] == "step"] == list(range(1, 13))
    assert [line["epoch"] for line in lines(folder) if line["kind"] == "epoch"] == [1, 2, 3]
    assert (record(folder)["backend"], record(folder)["resumed"][0]["backend"]) == ("numpy", backend_name)
    assert checkpoint.latest(folder / "checkpoint")[1].session["backend"] == backend_name


# TensorBoard


def test_tensorboard_events_of_a_run_that_goes_on(quick, command, tmp_path):
    pytest.importorskip("tensorboardX")
    folder = stop_after(7, command, tmp_path / "run", "--tensorboard")
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert resume(command, folder).code == 0  # what has events goes on with them
    files = list((folder / "tensorboard").iterdir())
    assert sorted(path.name.rpartition(".")[2] for path in files) == ["0", "7"]
    assert all(b"accuracy/test" in path.read_bytes() for path in files)
    start(command, tmp_path / "without")
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_tensorboard_that_is_missing_is_told_before_the_training(quick, command, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert_refused(start(command, tmp_path / "run", "--tensorboard"), "pip install tensorboardX")
    assert not (tmp_path / "run").exists()


# list runs


def test_list_runs(quick, command, tmp_path, failing_os):
    runs = tmp_path / "runs"
    assert command("list", "runs").out == "no runs in runs\n"
    start(command, runs / "finished", "--seed", "1")
    stop_after(7, command, runs / "stopped")
    start(command, runs / "failed", "--lr", "1e38", "--weight-decay", "1e38")
    failing = failing_os(70)
    with pytest.raises(failing.Crash):
        start(command, runs / "interrupted")
    failing_os()
    shutil.copytree(runs / "finished", runs / "damaged")
    flip(runs / "damaged" / "run.json", 100)
    (runs / "no run").mkdir()
    outcome = command("list", "runs", "--json", str(tmp_path / "runs.json"))
    assert (outcome.code, outcome.err) == (0, "")
    entries = json.loads((tmp_path / "runs.json").read_text(encoding="utf-8"))
    assert {Path(entry["run"]).name: (entry["state"], entry["epoch"]) for entry in entries} == {
        "damaged": ("damaged", None), "failed": ("failed", 0), "finished": ("finished", 3), "stopped": ("stopped", 1),
        "interrupted": ("interrupted", 1)}
    finished = next(entry for entry in entries if entry["state"] == "finished")
    last = lines(runs / "finished")[-1]
    assert finished["test_accuracy"] == last["test_accuracy"]
    assert finished["images_per_second"] > 0
    row = next(line for line in outcome.out.splitlines() if line.startswith("runs/finished"))
    assert row.split() == ["runs/finished", "numpy", "alexnet", "finished", "3", "3", f"{last['loss']:.3f}",
                           f"{last['train_accuracy']:.3f}", f"{last['test_accuracy']:.3f}",
                           f"{finished['images_per_second']:.3f}"]


# plot curves


def test_plot_curves_of_several_runs(command, small_alexnet, tmp_path):
    for seed in "12":
        start(command, tmp_path / seed, "--seed", seed)
    outcome = command("plot", "curves", str(tmp_path / "1"), str(tmp_path / "2"), "--plot", "curves.png")
    assert (outcome.code, outcome.out, outcome.err) == (0, "curves.png: 2 runs\n", "")
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words, fragments", [
    (["curves", "nowhere", "--plot", "c.png"], ["nowhere/metrics.jsonl", "cannot be read"]),
    (["curves", "run", "--plot", "/nowhere/c.png"], ["/nowhere/c.png"]),
    (["curves", "run"], ["--plot"]),
    (["curves", "--plot", "c.png"], ["RUN"]),
    (["circles"], ["circles", "curves"]),
    (["curves", "damaged", "--plot", "c.png"], ["damaged/metrics.jsonl: line 2 is damaged"]),
    (["curves", "empty", "--plot", "c.png"], ["empty: there is nothing to draw yet"]),
])
def test_plot_tells_what_is_wrong_in_one_line(quick, command, tmp_path, words, fragments):
    start(command, tmp_path / "run")
    for name, change in (("damaged", lambda text: text.replace("\n{", "\n", 1)), ("empty", lambda text: "")):
        (tmp_path / name).mkdir()
        text = change((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8"))
        (tmp_path / name / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert_refused(command("plot", *words), *fragments)


def test_plot_without_matplotlib_says_how_to_get_it(quick, command, tmp_path, monkeypatch):
    start(command, tmp_path / "run")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith(("matplotlib.", "alexnet_mf.training.curves"))]:
        monkeypatch.delitem(sys.modules, name)
    assert_refused(command("plot", "curves", "run", "--plot", "c.png"), "pip install matplotlib")


# Processes: SIGKILL, two at once, a second Ctrl-C

DRIVER = """
import json, signal, sys
from alexnet_mf import spec
network = spec.from_dict(json.loads({network!r}))
spec.get_network = lambda name, backend="torch": network
signal.signal(signal.SIGINT, signal.default_int_handler)
{more}
from alexnet_mf.cli import main
sys.exit(main())
"""


@pytest.fixture
def process_words(small):
    """The words that start a training of the small network in a process."""
    network = json.dumps(spec.as_dict(dataclasses.replace(small, name="alexnet")))
    return lambda *words, more="": [sys.executable, "-c", DRIVER.format(network=network, more=more), *words]


LONGER = ["--data", "synthetic", "--limit-train", "300", "--limit-test", "64", "--batch-size", "8",
          "--checkpoint-minutes", "1e-9", "--out", "run", "--quiet"]


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until, "nothing came"
        time.sleep(0.002)


def run_to_end(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def test_a_killed_process_goes_on_with_the_same_numbers(backend_name, process_words, tmp_path):
    """SIGKILL in the middle of it, whatever it was doing then."""
    words = process_words("train", "--backend", backend_name, "--epochs", "2", *LONGER)
    assert run_to_end([*words[:-3], "--out", "whole", "--quiet"]).returncode == 0
    folder = tmp_path / "run"
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: any(step >= 20 for step in checkpoints(folder)), process)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    done = run_to_end(process_words("train", "--resume", "run", "--quiet", "--checkpoint-minutes", "1e-9"))
    assert (done.returncode, done.stderr) == (0, "")
    assert figures(folder) == figures(tmp_path / "whole")
    (again,) = record(folder)["resumed"]
    assert 20 <= again["step"] < 76


@pytest.mark.slow
def test_twenty_kills_at_random_moments(backend_name, process_words, tmp_path):
    """From the first import to the last rename; each resume is killed too, until one comes through, and so on.

    `-rP` shows a row of the README's table.
    """
    moments = random.Random(6)
    begin = ["train", "--backend", backend_name, "--epochs", "2", *LONGER]
    resuming = ["train", "--resume", "run", "--quiet", "--checkpoint-minutes", "1e-9"]
    began = time.monotonic()
    assert run_to_end(process_words(*begin[:-3], "--out", "whole", "--quiet")).returncode == 0
    whole_seconds = time.monotonic() - began
    folder, resumed, steps = tmp_path / "run", 0, []
    finished = 0
    while len(steps) < 20 or folder.exists():
        going_on = (folder / "run.json").exists()
        resumed += going_on
        with subprocess.Popen(process_words(*(resuming if going_on else begin)), stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) as process:
            try:
                process.wait(moments.uniform(0.5, 1.0) * whole_seconds if len(steps) < 20 else 300)
            except subprocess.TimeoutExpired:
                process.kill()
                steps.append(max(checkpoints(folder), default=0))
                continue
            assert process.returncode == 0, process.stderr.read()
        assert figures(folder) == figures(tmp_path / "whole")
        for name in (WEIGHTS, BEST):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        finished += 1
        shutil.rmtree(folder)
    digest = hashlib.sha256((tmp_path / "whole" / WEIGHTS).read_bytes()).hexdigest()
    print(f"| {backend_name} | {len(steps)} | {', '.join(map(str, sorted(steps)))} | {resumed} | {finished} | "
          f"`{digest[:16]}` |")


def test_a_second_process_on_the_same_run_is_refused(process_words, tmp_path):
    folder = tmp_path / "run"
    words = process_words("train", "--backend", "numpy", "--epochs", "100000", *LONGER)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: checkpoints(folder), process)
            second = run_to_end(process_words("train", "--resume", "run"))
            assert second.returncode == 2
            assert second.stderr == f"alexnet-mf: error: run: is in use by process {process.pid}; wait for it, or " \
                                    "take another folder\n"
            listed = run_to_end(process_words("list", "runs", "--runs", ".", "--json", "-"))
            assert [entry["state"] for entry in json.loads(listed.stdout)] == ["running"]
        finally:
            process.kill()
    assert (folder / ".lock").exists(), "left by a dead process"
    third = run_to_end(process_words("train", "--resume", "run", "--epochs", "1", "--quiet"))
    assert "in use" not in third.stderr


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
                         ids=["Ctrl-C", "SIGTERM", "SIGHUP"])
def test_a_second_signal_does_not_wait_and_harms_nothing(process_words, tmp_path, number, code):
    """Here each checkpoint takes an hour once a signal has come."""
    more = ("import os, time\nfrom alexnet_mf import files\nfrom alexnet_mf.cli import signals\n"
            "write = files._write_all\n"
            "def slow(descriptor, content):\n"
            "    if asked and len(content) > 10000: time.sleep(3600)\n"
            "    write(descriptor, content)\n"
            "files._write_all = slow\nasked = []\n"
            "first = signals.Stop.__init__\n"
            "def init(self, tell):\n    first(self, lambda name: (asked.append(1), tell(name)))\n"
            "signals.Stop.__init__ = init\n")
    folder = tmp_path / "run"
    words = process_words("train", "--backend", "numpy", "--epochs", "100000", *LONGER, more=more)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: any(step > 5 for step in checkpoints(folder)), process)
            process.send_signal(number)
            told = process.stderr.readline()
            assert told == ("Ctrl-C" if code == 130 else signal.Signals(number).name) + \
                ": ending this step and saving; once more leaves at once\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)
            process.send_signal(number)
            assert process.wait(10) == code
        finally:
            process.kill()
    assert checkpoint.latest(folder / "checkpoint")[2] == {}
    done = run_to_end(process_words("train", "--resume", "run", "--quiet", "--epochs", "100000", more=(
        "from alexnet_mf.training import loop\ntrain = loop.train\n"
        "loop.train = lambda *words, **more: train(*words, **more | {'stop': lambda: True})\n"
        "from alexnet_mf.cli import signals\n"
        "signals.Stop.signal = property(lambda self: 15, lambda self, value: None)\n")))
    assert done.returncode == 143, done.stderr
