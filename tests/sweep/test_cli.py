"""The verb `sweep`: its output, its refusals, and resuming after Ctrl-C."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from console import call
from PIL import Image

from alexnet_mf import data, files
from alexnet_mf.spec import toml, zoo
from alexnet_mf.sweep import record as records
from alexnet_mf.training.run import load_run


@pytest.fixture
def command(capsys, small_sweeps):
    """Return a function that runs `sweep` in this process. A new sweep's folder is s."""
    def run(*words: str) -> tuple[int, str, str]:
        words = words if {"--resume", "--out", "--schema"} & {*words} else (*words, "--out", "s")
        outcome = call(capsys, "sweep", *words)
        return outcome.code, outcome.out, outcome.err
    return run


SHORT = ("--backend", "numpy", "--data", "synthetic", "--net", "lenet5,lenet5-relu", "--epochs", "2")


def test_a_sweep_writes_tables_record_and_picture(command, simulated):
    code, out, err = command(*SHORT, "--seeds", "0,1", "--augment", "none", "--augment", "crop,flip",
                             "--json", "s.json", "--plot", "s.png")
    assert code == 0
    assert out.startswith("after 2 epochs: means over the seeds (lowest to highest)\n")
    assert [line.split()[:2] for line in out.splitlines()[2:6]] == [
        ["lenet5", "none"], ["lenet5", "flip+crop"], ["lenet5-relu", "none"], ["lenet5-relu", "flip+crop"]]
    assert [training["recipe"]["augment"] for training in simulated.commands] == [[], ["flip", "crop"]] * 4
    assert err.splitlines()[0] == "training 1/8: lenet5, batch 128, lr 0.9, seed 0: test accuracy 0.450 in 0 s"
    assert len(err.splitlines()) == 8
    record = records.load(Path("s.json"))
    assert record.complete
    assert record.sessions[0].command[:2] == ["alexnet-mf", "sweep"]
    assert Path("s.png").read_bytes().startswith(b"\x89PNG")


def test_each_network_uses_the_books_rate_or_a_chosen_one(command, simulated):
    code, out, err = command(*SHORT, "--lr", "0.03,0.1", "--lr", "lenet5=own", "--held-out", "5")
    assert code == 0
    assert [line.partition(": ")[2].partition(", seed")[0] for line in err.splitlines()] == [
        "lenet5-relu, batch 128, lr 0.03", "lenet5-relu, batch 128, lr 0.1",
        "lenet5, batch 128, lr 0.9", "lenet5-relu, batch 128, lr 0.1"]
    assert out.startswith("accuracy on 5 held-out training images by learning rate (*: chosen)")
    Path("mine.toml").write_text(toml.dump(zoo.get_network("lenet5")), encoding="utf-8")
    simulated.commands.clear()
    assert command(*SHORT[:4], "--net", "mine.toml,lenet5", "--lr", "mine.toml=0.2", "--out", "t")[0] == 0
    assert [training["recipe"]["sgd"]["learning_rate"] for training in simulated.commands] == [0.2, 0.9]


def test_json_on_standard_output_matches_the_schema(command):
    code, out, err = command(*SHORT, "--json", "-")
    assert (code, err) == (0, "")
    jsonschema.validate(json.loads(out), json.loads(command("--schema")[1]), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("source", ["s", "s.json"])
def test_ctrl_c_keeps_finished_trainings_and_names_the_resume_command(command, simulated, source):
    simulated.fails = lambda training: KeyboardInterrupt() if len(simulated.commands) == 3 else None
    code, out, err = command(*SHORT, "--seeds", "0,1", "--json", "s.json")
    assert code == 130
    assert "incomplete: some trainings are missing" in out
    assert "finishing this step and saving; a second Ctrl-C stops at once" in err
    assert "resume with: alexnet-mf sweep --resume s\n" in err
    assert len(records.load(Path("s.json")).trainings) == len(records.load(Path("s")).trainings) == 2
    simulated.fails = lambda training: None
    code, out, err = command("--resume", source)
    assert code == 0
    assert [line.split(":")[0] for line in err.splitlines()] == ["training 3/4", "training 4/4"]
    assert "not complete" not in out
    record = records.load(Path(source))
    assert record.complete
    assert len(record.sessions) == 2
    before = Path("s/sweep.json").read_bytes()
    code, again, err = command("--resume", source, "--plot", "s.png")
    assert (code, again, err) == (0, out, f"{source}: complete, nothing left to train\n")
    assert Path("s/sweep.json").read_bytes() == before
    assert Path("s.png").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_a_closed_terminal_ends_the_step_and_saves(tmp_path):
    """A worker saves its run when the sweep gets SIGHUP, as for Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "alexnet_mf", "sweep", "--backend", "numpy", "--net", "lenet5-relu", "--data",
         "synthetic", "--epochs", "50", "--out", "s"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    folder = tmp_path / "s" / "lenet5-relu-numpy-lr0.3-seed0"
    lines = folder / "metrics.jsonl"
    while process.poll() is None and not (lines.exists() and lines.stat().st_size):
        time.sleep(0.05)
    for _ in range(2):  # one from the shell, one from the system
        process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 129, err
    assert err.splitlines()[-3:] == ["finishing this step and saving; a second Ctrl-C stops at once",
                                     "resume with: alexnet-mf sweep --resume s", "alexnet-mf: stopped by SIGHUP"]
    assert load_run(folder).state == "stopped"


def test_ctrl_c_on_a_full_disk_still_names_the_resume_command(command, simulated, monkeypatch):
    def full_disk(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    def interrupt(training):
        if len(simulated.commands) == 2:
            monkeypatch.setattr(files, "write", full_disk)
            return KeyboardInterrupt()
        return None
    simulated.fails = interrupt
    code, _, err = command(*SHORT)
    assert code == 130
    assert "sweep.json: cannot be written (No space left on device)" in err
    assert "resume with: alexnet-mf sweep --resume s\n" in err


@pytest.mark.parametrize("change", [
    lambda text: text[:-20], lambda text: "{}", lambda text: text.replace('"backend"', '"back"', 1),
    lambda text: text.replace('"epochs": 2', '"epochs": 3', 1)])
def test_a_damaged_record_is_refused_with_the_remedy(command, simulated, change):
    assert command(*SHORT)[0] == 0
    record = Path("s/sweep.json")
    text = record.read_text()
    record.write_text(change(text))
    assert record.read_text() != text
    simulated.commands.clear()
    for source in ("s", "s/sweep.json"):
        code, out, err = command("--resume", source)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("alexnet-mf: error: s/sweep.json: ")
        assert err.endswith("; remove it and repeat the first command with --out s\n")
    record.unlink()
    code, _, err = command(*SHORT)
    assert (code, simulated.commands) == (0, [])
    assert err.startswith("training 1/2: lenet5, batch 128, lr 0.9, seed 0: test accuracy 0.450\n"), "without a time"


def test_a_refused_sweep_leaves_the_runs_unchanged(command, simulated):
    assert command(*SHORT)[0] == 0
    Path("s/sweep.json").unlink()
    before = sorted(Path("s").rglob("*"))
    code, out, err = command(*SHORT, "--precision", "float32")
    assert (code, out) == (2, "")
    assert "holds a run with precision float64, expected float32; move it away" in err
    assert "resume with" not in err and sorted(Path("s").rglob("*")) == before
    assert command(*SHORT)[0] == 0


def test_a_resumed_sweep_removes_the_weights_of_its_finished_runs(command, simulated):
    def weights() -> int:
        return len([*Path("s").rglob("weights*.safetensors")])
    assert command(*SHORT)[0] == 0
    assert weights() == 4
    next(Path("s").rglob("weights.safetensors")).unlink()
    simulated.commands.clear()
    assert command("--resume", "s", "--no-weights")[0] == 0
    assert weights() == 0 and simulated.commands == []
    before = Path("s/sweep.json").read_bytes()
    assert command("--resume", "s", "--no-weights")[0] == command("--resume", "s")[0] == 0, "the option is recorded"
    assert Path("s/sweep.json").read_bytes() == before


def test_a_failed_training_is_reported_with_exit_code_1(command, simulated):
    simulated.fails = lambda task: ({"failed": "does not fit", "reason": "--batch-size 8 would"}
                                 if task["recipe"]["batch_size"] == 16 else None)
    code, out, _ = command(*SHORT[:-4], "--net", "lenet5", "--batch-size", "8,16,32")
    assert code == 1
    assert "batch 16, seed 0: does not fit: --batch-size 8 would" in out.splitlines()
    assert [line.split()[2] for line in out.splitlines()[2:4]] == ["8", "32"]


def test_no_picture_is_drawn_if_every_training_failed(command, simulated):
    simulated.fails = lambda training: {"failed": "diverged", "reason": "NaN; take a smaller `learning_rate`"}
    code, out, err = command(*SHORT, "--plot", "s.png")
    assert code == 1
    assert "lenet5, seed 0: diverged: NaN; take a smaller --lr" in out.splitlines()
    assert err.splitlines()[-1] == "s.png: not drawn: no final training succeeded"
    assert not Path("s.png").exists()


@pytest.mark.parametrize("failure, retries", [("does not fit", 1), ("ended", 1), ("diverged", 0)])
def test_only_failures_that_may_be_temporary_are_retried(command, simulated, failure, retries):
    simulated.fails = lambda training: {"failed": failure, "reason": "why"} if training["seed"] == 1 else None
    assert command(*SHORT[:-4], "--net", "lenet5", "--seeds", "0,1", "--json", "s.json")[0] == 1
    tried = len(simulated.commands)
    simulated.fails = lambda training: None
    assert command("--resume", "s.json")[0] == 1 - retries
    assert len(simulated.commands) - tried == retries
    assert records.load(Path("s.json")).complete


def test_a_failed_rate_is_not_retried_after_another_was_chosen(command, simulated):
    """A retry could mix trainings at two learning rates in one row."""
    words = [*SHORT[:-4], "--net", "lenet5", "--seeds", "0,1", "--lr", "0.03,0.1", "--held-out", "5", "--json",
             "s.json"]
    simulated.fails = lambda task: ({"failed": "ended", "reason": "why"}
                                 if task["recipe"]["sgd"]["learning_rate"] == 0.1 or task["seed"] == 1 else None)
    assert command(*words)[0] == 1
    simulated.fails = lambda task: None
    simulated.commands.clear()
    assert command("--resume", "s.json")[0] == 0
    assert [(task["recipe"]["sgd"]["learning_rate"], task["seed"]) for task in simulated.commands] == [(0.03, 1)]


@pytest.mark.parametrize("words, fragment", [
    (["--net", "lenet6"], "unknown network 'lenet6'; known: alexnet,"),
    (["--augment", "flip,blur"], "unknown augmentation 'blur'; known: flip, crop, resized-crop, color, pca, or none"),
    (["--augment", "flip,none"], "none cannot be combined with others, as in 'flip,none'"),
    (["--seeds", "0,x"], "must be a whole number of at least 0, not 'x'"),
    (["--batch-size", "0"], "at least 1"),
    (["--lr", "fast"], "must be numbers, comma-separated, or own, not 'fast'"),
    (["--lr", "alexnet="], "must be numbers, comma-separated, or own, not ''"),
    (["--lr", "lenet5=0.1"], "lenet5 has learning rates, but is not trained; the networks are alexnet (--net)"),
    (["--lr", "0.1", "--lr", "0.2"], "--lr is repeated for all networks; name the learning rates once"),
    (["--lr", "alexnet=0.1", "--lr", "alexnet=own"], "--lr is repeated for alexnet"),
    (["--held-out", "10"], "--lr"),
    (["--json", "missing/s.json"], "no folder missing"),
    (["--net", "lenet5,lenet5-relu", "--backend", "numpy", "--augment", "flip", "--momentum", "1"], "--momentum must"),
    (["--out", "/dev/null/s"], "/dev/null/s: cannot be created (Not a directory); name another folder with --out"),
    (["--resume", "s.json"], "cannot be read"),
    (["--resume", "s.json", "--out", "t"], "leave out --out"),
    (["--resume", "s.json", "--epochs", "10"], "leave out --epochs"),
])
def test_impossible_options_are_refused_in_one_line_before_any_training(command, simulated, words, fragment):
    code, out, err = command(*([] if "--resume" in words else ["--backend", "numpy", "--data", "synthetic"]), *words)
    assert (code, out) == (2, "")
    assert fragment in err
    assert err.count("\n") == 1, err
    assert simulated.commands == []


def test_run_folders_of_a_sweep_work_with_other_verbs(tmp_path, monkeypatch, capsys):
    """Two NumPy processes train; other verbs then read their run folders."""
    words = [sys.executable, "-m", "alexnet_mf", "sweep"]
    done = subprocess.run([*words, "--backend", "numpy", "--net", "lenet5-relu", "--data", "synthetic", "--limit-train",
                           "32", "--limit-test", "8", "--batch-size", "8,16", "--epochs", "1", "--augment",
                           "flip,crop,color", "--json", "s.json"], cwd=tmp_path, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    record = records.load(tmp_path / "s.json")
    assert [len(entry.result.epochs) for entry in record.trainings] == [1, 1]
    monkeypatch.chdir(tmp_path)
    [folder] = Path("sweeps").iterdir()
    assert f"sweep folder: {folder}\n" in done.stderr
    assert call(capsys, "sweep", "--resume", "s.json").out == done.stdout
    listed = call(capsys, "list", "runs", "--runs", folder, "--json", "-")
    assert [(entry["state"], entry["test_accuracy"]) for entry in json.loads(listed.out)] == [
        ("finished", entry.accuracy) for entry in sorted(record.trainings, key=lambda entry: entry.run)]
    for entry in record.trainings:
        tested = call(capsys, "evaluate", folder / entry.run, "--limit-test", "8", "--json", "-")
        assert json.loads(tested.out)["accuracy"] == entry.accuracy
    Image.fromarray(data.synthetic.draw(0, train=1, test=1).test.images[0]).save("picture.png")
    assert call(capsys, "predict", folder / entry.run, "picture.png").code == 0
    drawn = call(capsys, "plot", "curves", *sorted(folder.glob("[!.]*")), "--plot", "c.png")
    assert (drawn.code, drawn.out) == (0, "c.png: 2 runs\n")
