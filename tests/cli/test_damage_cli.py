"""Power cuts, full disks and damaged files: no good file is lost, and the run resumes to the same bits."""

from __future__ import annotations

import errno
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from console import Outcome
from run_folders import (
    assert_refused,
    content,
    fail_when_over,
    figures,
    flip_bit,
    record,
    resume,
    start,
    stop_after,
)

from alexnet_mf.conversion import RUN_WEIGHTS
from alexnet_mf.conversion import read as read_weights
from alexnet_mf.plots import curves
from alexnet_mf.training import checkpoint, metrics
from alexnet_mf.training import folder as folder_module
from alexnet_mf.training.folder import RunFolder
from alexnet_mf.training.record import read as read_record
from alexnet_mf.training.weight_files import BEST, WEIGHTS

# Power cuts and full disks, at every call to the operating system


class SameThread(ThreadPoolExecutor):
    """Executor that writes checkpoints in the training's thread, so that the calls always have the same order."""

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        done = super().submit(function, *arguments, **options)
        done.exception()  # waits
        return done


def test_a_power_cut_at_any_call_loses_nothing(quick, command, failing_os, written, tmp_path):
    """Crash a run at each open, write, fsync, rename and close, one after the other.

    NumPy stands for all backends: the code that writes files is the same. test_killed_cli.py kills each backend.
    """
    words = ["--limit-train", "16", "--epochs", "2"]  # 2 steps an epoch; the last step is annealed
    recorded = failing_os()
    start(command, tmp_path / "whole", *words)
    whole = figures(tmp_path / "whole")
    assert recorded.calls.count("replace") >= 4 + 2 + 2 + 1, "checkpoints, weights, run.json, best weights"
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


@pytest.fixture(params=["same thread", pytest.param("own thread", marks=pytest.mark.exhaustive)])
def written(request, monkeypatch) -> None:
    """Write checkpoints in the training's thread, or in their own thread, with the calls in any order."""
    if request.param == "same thread":
        monkeypatch.setattr(folder_module, "ThreadPoolExecutor", SameThread)


@pytest.mark.parametrize("error", [errno.ENOSPC, pytest.param(errno.EIO, marks=pytest.mark.exhaustive),
                                   pytest.param(errno.EACCES, marks=pytest.mark.exhaustive)], ids=errno.errorcode.get)
def test_an_error_at_any_call_is_reported_and_loses_nothing(quick, command, failing_os, written, tmp_path, error):
    """Each failing call gives one line with the file, the error, the last checkpoint and the command to resume."""
    words = ["--limit-train", "8", "--limit-test", "8", "--epochs", "2"]  # one step an epoch
    recorded = failing_os()
    start(command, tmp_path / "whole", *words)
    whole = figures(tmp_path / "whole")
    names = {name for call, name in zip(recorded.calls, recorded.names) if call in ("write", "replace")}
    assert {name.partition("-0")[0] for name in names} == {
        "run.json", "metrics.jsonl", "curves.png", WEIGHTS, BEST, "step"}
    assert (recorded.calls[-1], recorded.names[-1]) == ("close", "metrics.jsonl"), "the content is on the disk by then"
    for at, (call, name) in enumerate(zip(recorded.calls[:-1], recorded.names)):
        if call == "link":  # a copy replaces a link that fails
            continue
        folder = tmp_path / f"run-{at}"
        failing = failing_os(at, error)
        outcome = start(command, folder, *words)
        failing_os()
        if failing.calls[at] == "link":
            continue
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), (at, call, name)
        # A file's own folder is synchronized after the file: the error names the file.
        file = [file for file, thread in zip(failing.names[:at + 1], failing.threads)
                if thread == failing.threads[at] and (file != folder.name or at == 0)][-1]
        label = "checkpoint" if file.startswith("step-") else WEIGHTS if file == BEST else file
        assert outcome.err.startswith(f"alexnet-mf: error: {folder}"), outcome.err
        assert f"{label}: cannot be written ({os.strerror(error)})" in outcome.err, outcome.err
        assert_nothing_good_is_lost(folder, outcome)
        done = resume(command, folder) if (folder / "run.json").exists() else start(command, folder, *words)
        assert done.code == 0, done.err
        assert figures(folder) == whole, (at, call, name)
        assert record(folder)["state"] == "finished"
        shutil.rmtree(folder)


def assert_nothing_good_is_lost(folder: Path, outcome: Outcome) -> None:
    """Assert that every file is whole and that the error names an existing checkpoint: the last one, or the one before
    if the last may not be on the disk yet."""
    match = re.search(r"the last good checkpoint is (\S+); fix this, then resume with alexnet-mf train --resume \S+\n",
                      outcome.err)
    assert (match is None) == ("there is no checkpoint yet" in outcome.err)
    assert match is None or (folder / "checkpoint" / match[1]).exists()
    good = checkpoint.latest(folder / "checkpoint")
    assert good is None or good[2] == {}
    assert (checkpoint.step_of(good[0]) if good else 0) - (checkpoint.step_of(Path(match[1])) if match else 0) in (0, 1)
    if (folder / "run.json").exists():
        assert read_record(folder).state in ("running", "failed")
    for which, file in RUN_WEIGHTS.items():
        if (folder / file).exists():
            read_weights(folder, which=which)
    if (folder / "curves.png").exists():
        assert (folder / "curves.png").read_bytes().endswith(b"]}")


# Damage


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "emptied": lambda path: path.write_bytes(b""),
    "a bit flipped": lambda path: flip_bit(path, len(path.read_bytes()) // 2),
    "a bit flipped early": lambda path: flip_bit(path, 5),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name, fragments", [
    ("run.json", ["run.json: is", "rewritten from the checkpoint"]),
    ("metrics.jsonl", ["metrics.jsonl: is", "its epochs are rewritten"]),
    ("weights.safetensors", ["weights.safetensors: ", "rewritten from the checkpoint"]),
    ("weights-best.safetensors", ["weights-best.safetensors: ", "the best of the next epochs"]),
])
def test_a_damaged_file_is_reported_and_rewritten(whole, stopped, command, name, fragments, damage):
    assert not (stopped / WEIGHTS).samefile(stopped / BEST), "one file with two names would be damaged under both"
    damage(stopped / name)
    damaged = content(stopped).get(name)
    outcome = resume(command, stopped)
    assert outcome.code == 0
    assert outcome.err.count("\n") == 1, outcome.err
    if name in ("run.json", "metrics.jsonl"):  # kept for a repair by hand
        assert content(stopped).get(f"{name}.damaged") == damaged
    is_missing = ": is missing" in outcome.err or "No such file" in outcome.err
    assert is_missing == (damage is DAMAGES["removed"])
    for fragment in fragments:
        assert fragment in outcome.err
    resumed = figures(stopped)
    if name == BEST:  # epoch 1 may have been the best, and is lost
        resumed[BEST] = whole[BEST]
    assert resumed == whole
    assert record(stopped)["state"] == "finished"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_picture_is_redrawn(whole, stopped, command, damage):
    damage(stopped / "curves.png")
    outcome = resume(command, stopped)
    assert (outcome.code, outcome.err) == (0, "")
    assert (stopped / "curves.png").read_bytes() == curves.png({stopped.name: metrics.read(stopped)})
    assert figures(stopped) == whole


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_events_stay_and_new_ones_are_written(whole, command, tmp_path, damage):
    """A run does not depend on its events."""
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


def test_tensorboard_recreates_the_folder_of_events(whole, command, tmp_path):
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


@pytest.mark.parametrize("damage", list(DAMAGES.values())[:-1], ids=list(DAMAGES)[:-1])
def test_resume_names_a_damaged_checkpoint_and_uses_the_one_before(whole, stopped, command, monkeypatch, damage):
    latest, before = checkpoint.paths(stopped / "checkpoint")
    damage(latest)
    damaged = latest.read_bytes()
    good = before.read_bytes()
    contents: list[dict[str, bytes]] = []
    save = RunFolder._save
    monkeypatch.setattr(RunFolder, "_save", lambda self, written: (
        contents.append(content(stopped / "checkpoint")), save(self, written)))
    outcome = resume(command, stopped)
    assert outcome.code == 0
    assert outcome.err.count("\n") == 1
    assert f"{latest.name} is damaged: its checksum does not match" in outcome.err
    assert f"resuming from the earlier {before.name}; the damaged file is now {latest.name}.damaged" in outcome.err
    assert figures(stopped) == whole
    assert record(stopped)["resumed"][0]["step"] == 6
    assert contents[0] == {f"{latest.name}.damaged": damaged, before.name: good}, "renamed, and the good one kept"
    assert not [name for name in contents[1] if name.endswith(".damaged")], "step 7 has a good one again"


def test_a_damaged_checkpoint_is_reported_once(whole, stopped, command):
    """The first resume fails before it saves a checkpoint, and leaves the good one alone for the second."""
    latest, before = checkpoint.paths(stopped / "checkpoint")
    flip_bit(latest, 1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "save", fail_when_over(RunFolder.save, iter([])))
        with pytest.raises(ZeroDivisionError):
            resume(command, stopped)
    assert set(content(stopped / "checkpoint")) == {f"{latest.name}.damaged", before.name}
    outcome = resume(command, stopped)
    assert (outcome.code, outcome.err) == (0, "")
    assert figures(stopped) == whole
    assert set(content(stopped / "checkpoint")) == {checkpoint.paths(stopped / "checkpoint")[0].name}


def test_resume_refuses_a_checkpoint_of_another_version(stopped, command):
    """Resuming from an older checkpoint would lose the steps since then."""
    _, saved, _ = checkpoint.latest(stopped / "checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 2)
        newer = checkpoint.save(stopped / "checkpoint", saved)
    before = content(stopped)
    assert_refused(resume(command, stopped), f"{newer.name} is in format 2, and this version reads 1: resume with "
                   "the version that wrote it")
    assert content(stopped) == before


def test_resume_uses_the_older_checkpoint_if_the_latest_is_removed(whole, stopped, command):
    checkpoint.paths(stopped / "checkpoint")[0].unlink()
    assert resume(command, stopped).code == 0
    assert figures(stopped) == whole


def test_resume_without_a_good_checkpoint_overwrites_nothing(stopped, command):
    for path in checkpoint.paths(stopped / "checkpoint"):
        flip_bit(path, 1000)
    before = content(stopped)
    outcome = resume(command, stopped)
    assert_refused(outcome, "all checkpoints are damaged",
                   *(path.name for path in checkpoint.paths(stopped / "checkpoint")))
    assert content(stopped) == before


def test_resume_is_refused_without_record_and_checkpoint(stopped, command):
    shutil.rmtree(stopped / "checkpoint")
    (stopped / "run.json").unlink()
    assert_refused(resume(command, stopped), str(stopped), "no run here; `list runs` lists the runs")
    (stopped / "checkpoint").mkdir()
    assert_refused(resume(command, stopped), "run.json: is missing", "no checkpoint; start a new training")
