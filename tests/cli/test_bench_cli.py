"""`bench`: flags, exit codes, files, Ctrl-C, and worker processes that measure a small network."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import console
import jsonschema
import numpy as np
import pytest
from console import Outcome, script

from alexnet_mf import backends, cli, spec
from alexnet_mf.bench import record, run
from alexnet_mf.bench.plan import PHASES, Plan
from alexnet_mf.cli import bench as verb
from alexnet_mf.spec import toml

QUICK = ["--backends", "numpy", "--precision", "float64", "--batch-size", "2", "--epoch-batches", "2",
         "--sample-seconds", "0.01"]


@pytest.fixture
def command(command):
    return functools.partial(command, "bench")


assert_one_line = functools.partial(console.assert_one_line, out="")
"""Refused commands print nothing on standard output."""


# A run


@pytest.fixture(scope="module")
def record_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for the record of one real run, which several tests read."""
    return tmp_path_factory.mktemp("bench")


@pytest.fixture
def measured(record_folder, command, small_alexnet) -> tuple[Path, Outcome]:
    """Measure the NumPy backend in six rounds, once for all tests; return the record's path and the outcome."""
    path, saved = record_folder / "run.json", record_folder / "outcome.json"
    if not saved.exists():
        outcome = command(*QUICK, "--rounds", "6", "--json", path, "--plot", record_folder / "plot.png", "--markdown",
                          record_folder / "report.md")
        saved.write_text(json.dumps(dataclasses.asdict(outcome)), encoding="utf-8")
    return path, Outcome(**json.loads(saved.read_text(encoding="utf-8")))


def test_bench_prints_tables_and_conditions(measured):
    _, outcome = measured
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == "medians with their 95 % intervals"
    assert lines[1].split("  ")[0] == "batch"
    for phase in PHASES:
        assert [line for line in lines if line.split()[:4] == ["2", phase, "numpy", "float64"]], phase
    assert "GFLOP/s" in outcome.out and f"numpy {np.__version__}" in outcome.out
    assert "alexnet-mf" in lines[-1]


def test_the_record_has_every_sample(measured, command, small_alexnet):
    path, _ = measured
    written = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(written, json.loads(command("--schema").out), jsonschema.Draft202012Validator)
    assert [len(result["samples"]) for result in written["results"]] == [6] * (len(PHASES) + 2)
    assert {result["phase"] for result in written["results"]} == {*PHASES, "matrix product", "copy"}
    (worker,) = written["workers"]
    assert worker["spec_sha256"] == spec.fingerprint(small_alexnet)
    assert written["networks"] == {worker["spec_sha256"]: json.loads(json.dumps(spec.as_dict(small_alexnet)))}
    assert "OPENBLAS_NUM_THREADS" in worker["settings"]
    assert written["complete"] and not written["failures"]


def test_a_report_prints_what_the_run_printed(measured, command, tmp_path):
    path, outcome = measured
    again = command("--report", path, "--plot", tmp_path / "again.png")
    assert (again.code, again.err, again.out) == (0, "", outcome.out)
    assert (tmp_path / "again.png").read_bytes().startswith(b"\x89PNG")
    assert (path.parent / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_markdown_is_the_same_in_a_file_and_on_standard_output(measured, command):
    path, _ = measured
    outcome = command("--report", path, "--markdown", "-")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (path.parent / "report.md").read_text(encoding="utf-8")
    assert outcome.out.count("| --- |") and "medians, in" not in outcome.out


def test_a_report_compares_several_records(measured, command):
    path, _ = measured
    outcome = command("--report", path, path)
    assert outcome.code == 0
    assert "A: numpy float64" in outcome.out and "B: numpy float64" in outcome.out
    assert "no difference seen" in outcome.out


def test_bench_of_a_color_network_writes_json_to_standard_output(command, small, tmp_path):
    (tmp_path / "color.toml").write_text(toml.dump(dataclasses.replace(small, input=(3, *small.input[1:]))),
                                         encoding="utf-8")
    outcome = command(*QUICK, "--net", tmp_path / "color.toml", "--rounds", "1", "--phases", "input,epoch", "--json",
                      "-")
    assert outcome.code == 0, outcome.err
    assert outcome.err == f"not measuring the book's own code: it has AlexNet, but not {tmp_path / 'color.toml'}\n"
    assert [result["phase"] for result in json.loads(outcome.out)["results"]] == [
        "input", "epoch", "matrix product", "copy"]


# A backend that fails


DRIVER = """
import runpy, sys, time
import numpy as np
from alexnet_mf import backends
from alexnet_mf.backends.numpy import backend as module
phases = module.NumpyModel.phases
def changed(self, *arguments):
    functions = phases(self, *arguments)
    {change}
    return functions
module.NumpyModel.phases = changed
runpy.run_module(sys.argv.pop(2), run_name="__main__")
"""


@pytest.fixture
def interpreter(tmp_path):
    """Return a function that writes a Python with changed phases in its NumPy backend."""
    def write(change: str) -> str:
        driver = tmp_path / "driver.py"
        driver.write_text(DRIVER.format(change=change), encoding="utf-8")
        return str(script(tmp_path / "python", f'exec {shlex.quote(sys.executable)} {shlex.quote(str(driver))} "$@"'))
    return write


def test_a_failed_phase_is_reported_and_the_others_continue(command, small_alexnet, interpreter, tmp_path):
    python = interpreter("functions['optimizer'] = lambda number: 1 / 0")
    outcome = command(*QUICK, "--rounds", "2", "--phases", "input,optimizer", "--python", f"numpy={python}", "--json",
                      tmp_path / "run.json")
    assert (outcome.code, outcome.err) == (1, "")
    assert "numpy alexnet_mf float64, batch 2, optimizer failed: ZeroDivisionError: division by zero" in outcome.out
    written = record.load(tmp_path / "run.json")
    assert {result.phase: len(result.samples) for result in written.results} == {
        "input": 2, "matrix product": 2, "copy": 2}
    report = command("--report", tmp_path / "run.json", "--markdown", "-")
    assert report.code == 1
    assert report.err == "numpy alexnet_mf float64, batch 2, optimizer failed: ZeroDivisionError: division by zero\n"


def test_a_crashed_backend_is_reported_in_one_line(command, small_alexnet, interpreter, tmp_path):
    """The process ends while it warms up: nothing was measured, so no record is written."""
    python = interpreter("functions['step'] = lambda number: __import__('os').abort()")
    outcome = command(*QUICK, "--rounds", "2", "--phases", "forward,step", "--python", f"numpy={python}", "--json",
                      tmp_path / "run.json")
    assert_one_line(outcome, "nothing was measured: numpy: ", "ended with exit code -6")
    assert not (tmp_path / "run.json").exists()


def test_a_sleep_is_measured_in_its_phase(command, small_alexnet, interpreter, tmp_path):
    """The sample is at least as long as the sleep, on any machine."""
    python = interpreter("real = functions['input']; "
                         "functions['input'] = lambda number: (real(number), time.sleep(0.25))")
    assert command(*QUICK, "--rounds", "1", "--phases", "input,optimizer", "--python", f"numpy={python}", "--json",
                   tmp_path / "run.json").code == 0
    by = {result.phase: result for result in record.load(tmp_path / "run.json").results}
    assert by["input"].samples[0].seconds / by["input"].samples[0].calls >= 0.25
    assert by["input"].first_call_seconds >= 0.25


def test_unsupported_options_are_reported_in_one_line(command, small_alexnet):
    assert_one_line(command("--backends", "numpy", "--precision", "float32"),
                    "nothing was measured: numpy: no precision float32 on cpu", "available: float64 (--precision)")
    assert_one_line(command(*QUICK, "--no-compile"), "numpy", "no setting 'compile'", "none")
    assert_one_line(command(*QUICK, "--device", "cuda:7"), "numpy", "no device 'cuda:7'", "cpu")


def test_a_python_without_the_package_is_reported_in_one_line(command, small_alexnet, tmp_path):
    python = script(tmp_path / "python", f'exec {shlex.quote(sys.executable)} -I -S "$@"')
    assert_one_line(command(*QUICK, "--python", f"numpy={python}"), "numpy", "exit code 1", "alexnet_mf and numpy",
                    "--python NAME=PATH")


# Ctrl-C


@pytest.mark.parametrize("number, code, message", [(signal.SIGINT, 130, "stopped by Ctrl-C"),
                                              (signal.SIGTERM, 143, "stopped by SIGTERM")])
def test_a_signal_ends_the_workers_and_keeps_the_samples(small, tmp_path, number, code, message):
    """A process of its own receives the signal after its first sample."""
    program = f"""
import json, os, signal, sys
from alexnet_mf.bench.run import Bench
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with SIGINT ignored
sample = Bench._sample
def sample_and_note(self, *arguments):
    sample(self, *arguments)
    pids = [runner.channel.process.pid for runner in self._runners]
    open({str(tmp_path / "new")!r}, "w").write(json.dumps(pids))
    os.replace({str(tmp_path / "new")!r}, {str(tmp_path / "pids")!r})  # a signal may come between two lines
Bench._sample = sample_and_note
from alexnet_mf.cli import main
sys.exit(main(sys.argv[1:]))
"""
    (tmp_path / "small.toml").write_text(toml.dump(small), encoding="utf-8")
    process = subprocess.Popen([sys.executable, "-c", program, "bench", *QUICK, "--no-book", "--net",
                                str(tmp_path / "small.toml"), "--rounds", "1000000", "--json",
                                str(tmp_path / "run.json")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
        assert time.monotonic() < end and process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (code, "")
    assert [line for line in err.splitlines() if line] == [
        f"{tmp_path / 'run.json'} has the samples so far; to show them: bench --report {tmp_path / 'run.json'}",
        f"alexnet-mf: {message}"]
    written = record.load(tmp_path / "run.json")
    assert not written.complete
    assert any(result.samples for result in written.results)
    for pid in json.loads((tmp_path / "pids").read_text()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# Flags and imports


def test_a_missing_backend_is_reported_before_the_measurement(command, monkeypatch, installed):
    installed("numpy")
    monkeypatch.setattr(run, "Bench", None)
    assert_one_line(command("--backends", "numpy,mxnet"), "mxnet", "not installed", backends.BACKENDS["mxnet"].install,
                    "(--python NAME=PATH)")
    assert_one_line(command(), "none of torch, tensorflow and mxnet is installed", "--python NAME=PATH")


def test_flags_reach_the_plan():
    options = cli.parser().parse_args([
        "bench", "--backends", "numpy", "--net", "alexnet-tab", "--device", "cpu", "--batch-size", "32,128,32",
        "--precision", "tf32,bfloat16", "--phases", "input,step", "--rounds", "9", "--epoch-batches", "4",
        "--sample-seconds", "1.5", "--seed", "3", "--no-book", "--no-fused", "--layout",
        "--ablate", "compile,allocator", "--try", "compile,compile+fused"])
    plan = verb.plan(options)
    assert verb.plan(cli.parser().parse_args(["bench"])) == Plan()
    assert (plan.backends, plan.net, plan.device, plan.batch_sizes, plan.precisions, plan.phases) == (
        ("numpy",), "alexnet-tab", "cpu", (32, 128), ("tf32", "bfloat16"), ("input", "step"))
    assert (plan.rounds, plan.epoch_batches, plan.sample_seconds, plan.seed, plan.book) == (9, 4, 1.5, 3, False)
    assert (plan.speed, plan.ablate, plan.tried) == (
        {"fused": False, "layout": True}, ("compile", "allocator"), ("compile", "compile+fused"))


def test_bench_imports_neither_a_framework_nor_matplotlib():
    """Neither the help text nor the modules of a report without a plot need them."""
    program = ("import sys\nfrom alexnet_mf.cli import main\ntry: main(['bench', '--help'])\nexcept SystemExit: pass\n"
               "import alexnet_mf.bench.run, alexnet_mf.bench.report, alexnet_mf.bench.record\n"
               "print(sorted({'matplotlib', 'jsonschema', 'torch', 'tensorflow', 'mxnet'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
