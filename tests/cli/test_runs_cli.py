"""`list runs` and `plot curves`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import jsonschema
import pytest
from console import assert_one_line
from run_folders import assert_refused, flip_bit, lines, start, stop_after

# The record


def test_run_records_match_the_schema_that_train_prints(quick, command):
    outcome = command("train", "--schema")
    assert (outcome.code, outcome.err) == (0, "")
    schema = json.loads(outcome.out)
    start(command, "finished")
    stop_after(7, command, "stopped")
    for folder in ("finished", "stopped"):
        run = json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))
        jsonschema.validate(run, schema, jsonschema.Draft202012Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**run, "state": "unheard"}, schema, jsonschema.Draft202012Validator)


# list runs


def test_list_runs_prints_state_epoch_and_results(quick, command, tmp_path, failing_os):
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
    flip_bit(runs / "damaged" / "run.json", 100)
    (runs / "no run").mkdir()
    shutil.copytree(runs / "finished", runs / "cut")
    (runs / "cut" / "metrics.jsonl").write_bytes(b"")
    outcome = command("list", "runs", "--json", str(tmp_path / "runs.json"))
    assert (outcome.code, outcome.err) == (0, "")
    entries = json.loads((tmp_path / "runs.json").read_text(encoding="utf-8"))
    assert {Path(entry["run"]).name: (entry["state"], entry["epoch"]) for entry in entries} == {
        "damaged": ("damaged", None), "failed": ("failed", 0), "finished": ("finished", 3), "stopped": ("stopped", 1),
        "cut": ("finished", 3), "interrupted": ("interrupted", 1)}
    cut, finished = ({**entry, "run": None} for entry in entries if entry["state"] == "finished")
    assert cut == finished
    last = lines(runs / "finished")[-1]
    assert finished["test_accuracy"] == last["test_accuracy"]
    assert finished["images_per_second"] > 0
    row = next(line for line in outcome.out.splitlines() if line.startswith("runs/finished"))
    assert row.split() == ["runs/finished", "numpy", "alexnet", "finished", "3", "3", f"{last['loss']:.3f}",
                           f"{last['train_accuracy']:.3f}", f"{last['test_accuracy']:.3f}",
                           f"{finished['images_per_second']:.3f}"]


def test_runs_sweeps_and_folders_of_runs_are_distinguished(quick, command, tmp_path):
    run = tmp_path / "runs" / "one"
    start(command, run)
    assert_one_line(command("sweep", "--resume", str(run)), f"{run}: is a run, not a sweep", f"train --resume {run}")
    for words in (["train", "--resume"], ["plot", "curves", "--plot", "c.png"]):
        assert_one_line(command(*words, str(run.parent)), f"{run.parent}: is not a run, but holds runs", str(run))


# plot curves


def test_plot_curves_draws_several_runs(command, small_alexnet, tmp_path):
    for seed in "12":
        start(command, tmp_path / seed, "--seed", seed)
    outcome = command("plot", "curves", str(tmp_path / "1"), str(tmp_path / "2"), "--plot", "curves.png")
    assert (outcome.code, outcome.out, outcome.err) == (0, "curves.png: 2 runs\n", "")
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words, fragments", [
    (["curves", "nowhere", "--plot", "c.png"], ["nowhere: there is no run here", "list runs"]),
    (["curves", "run", "--plot", "/nowhere/c.png"], ["/nowhere/c.png"]),
    (["curves", "run"], ["--plot"]),
    (["curves", "--plot", "c.png"], ["RUN"]),
    (["circles"], ["circles", "curves"]),
    (["curves", "damaged", "--plot", "c.png"], ["damaged/metrics.jsonl: line 2 is damaged"]),
    (["curves", "empty", "--plot", "c.png"], ["empty: has no metrics yet"]),
])
def test_plot_reports_errors_in_one_line(quick, command, tmp_path, words, fragments):
    start(command, tmp_path / "run")
    for name, change in (("damaged", lambda text: text.replace("\n{", "\n", 1)), ("empty", lambda text: "")):
        (tmp_path / name).mkdir()
        text = change((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8"))
        (tmp_path / name / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert_refused(command("plot", *words), *fragments)


def test_plot_without_matplotlib_names_the_install_command(quick, command, tmp_path, monkeypatch):
    start(command, tmp_path / "run")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith(("matplotlib.", "alexnet_mf.plots.curves"))]:
        monkeypatch.delitem(sys.modules, name)
    assert_refused(command("plot", "curves", "run", "--plot", "c.png"), "pip install matplotlib")
