"""`benchmarks/gpu.py`: its parts run on a CPU, and a part that fails affects no other."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alexnet_mf.spec import zoo

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
RECORDS = ["parity-lenet5-float32.json", "parity-lenet5-relu-float32.json", "bench.json", "settings.json",
           "profile.txt", "train.json", "analysis.json", "state.json"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_runner", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_runner", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "GRACE", 0.5)
    return module


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


def run(gpu: ModuleType, folder: Path, parts: list[Any], budget: float = 60.0) -> tuple[bool, dict[str, Any]]:
    succeeded = gpu.Runner(folder, budget, 2).run(parts)
    states = json.loads((folder / "r" / "state.json").read_text())
    with tarfile.open(folder / "results.tar.gz") as archive:
        assert json.load(archive.extractfile("r/state.json")) == states, "the archive is written again after every part"
    return succeeded, states


def test_a_part_that_fails_or_hangs_does_not_affect_the_others(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.Part, "limit", property(lambda part: 30.0 if part.seconds else 1.0))
    hang = ("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('there', flush=True); "
            "time.sleep(60)")
    began = time.monotonic()
    succeeded, states = run(gpu, tmp_path, [
        gpu.Part("red", python("raise SystemExit(1)"), 1, alone=False),
        gpu.Part("broken", python("raise SystemExit(2)"), 1),
        gpu.Part("hanging", python(hang), 0), gpu.Part("missing", ("/no/such/command",), 1),
        gpu.Part("good", python("print('fine')"), 1), gpu.Part("on-broken", python(""), 1, after=("hanging",))])
    assert not succeeded and time.monotonic() - began < 30
    assert {name: state["exit_code"] for name, state in states.items()} == {
        "red": 1, "broken": 2, "hanging": None, "missing": None, "good": 0, "on-broken": None}
    assert states["hanging"]["text"].startswith("stopped after")
    assert states["on-broken"]["text"] == "left out: hanging did not end"
    assert "there" in (tmp_path / "r" / "hanging.txt").read_text()


def test_an_archive_is_written_even_if_every_part_is_stopped(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PACKAGE", python("import time; time.sleep(60)"))
    monkeypatch.setattr(gpu.sys, "executable", "/bin/false" if os.path.exists("/bin/false") else "/usr/bin/false")
    monkeypatch.setattr(gpu.Part, "limit", property(lambda part: 0.2))
    parts = gpu.parts(tmp_path, "torch", "cpu", quick=True)
    succeeded, states = run(gpu, tmp_path, parts)
    assert not succeeded
    assert set(states) == {part.name for part in parts}
    assert not any(state["exit_code"] == 0 for state in states.values())


def test_the_budget_is_kept_and_the_next_call_continues(gpu, tmp_path):
    log = tmp_path / "log"
    def write(name: str, seconds: float = 0.0) -> tuple[str, ...]:
        return python(f"import time; time.sleep({seconds}); print('{name}', file=open({str(log)!r}, 'a'))")

    parts = [gpu.Part("first", write("first"), 0.1), gpu.Part("long", write("long"), 300),
             gpu.Part("short", write("short"), 0.1), gpu.Part("slow", write("slow", 60), 0.1)]
    began = time.monotonic()
    succeeded, states = run(gpu, tmp_path, parts, budget=5.0)
    assert not succeeded and time.monotonic() - began < 10, "the budget ends the part that is running"
    assert states["long"]["text"].startswith("left out: takes 300 s")
    parts[-1] = gpu.Part("slow", write("slow"), 0.1)
    succeeded, states = run(gpu, tmp_path, parts, budget=400.0)
    assert succeeded and log.read_text().split() == ["first", "short", "long", "slow"]


def test_a_changed_command_runs_again_and_a_partial_run_is_removed(gpu, tmp_path):
    half = tmp_path / "runs" / "train"
    half.mkdir(parents=True)
    (half / "run.json").write_text("half")
    command = python(f"import os; raise SystemExit(2 if os.path.exists({str(half)!r}) else 0)")
    assert run(gpu, tmp_path, [gpu.Part("train", command, 1, run=half)])[0]
    log = tmp_path / "log"
    assert run(gpu, tmp_path, [gpu.Part("train", python(f"open({str(log)!r}, 'w')"), 1)])[0]
    assert log.exists(), "the state of another command does not count"


def test_timings_run_alone_and_a_removed_output_is_created_again(gpu, tmp_path):
    log, output = tmp_path / "log", tmp_path / "output"
    def note(name: str, more: str = "") -> tuple[str, ...]:
        return python(f"import time; f = open({str(log)!r}, 'a'); print('{name}', file=f, flush=True); {more}"
                      f"time.sleep(0.5); print('{name}', file=f, flush=True)")

    parts = [gpu.Part("make", note("make", f"open({str(output)!r}, 'w'); "), 1, alone=False, output=output),
             gpu.Part("beside", note("beside"), 1, alone=False),
             gpu.Part("read", note("read"), 1, alone=False, after=("make",)), gpu.Part("timing", note("timing"), 1)]
    assert run(gpu, tmp_path, parts)[0]
    lines = log.read_text().split()
    assert lines[:4] in (["make", "beside", "make", "beside"], ["beside", "make", "make", "beside"],
                         ["make", "beside", "beside", "make"], ["beside", "make", "beside", "make"])
    assert lines[-2:] == ["timing", "timing"] and lines[-4:-2] == ["read", "read"]
    output.unlink()
    assert run(gpu, tmp_path, parts)[0]
    assert log.read_text().split()[8:] == ["make", "make"]


def test_every_network_of_the_package_has_a_ladder(gpu, tmp_path):
    assert {"alexnet", *gpu.NETWORKS} == set(zoo.NETWORKS)


def test_the_parts_of_each_backend_are_well_formed(gpu, tmp_path):
    for backend in ("torch", "tensorflow", "mxnet"):
        parts = gpu.parts(tmp_path, backend, "cuda", quick=False)
        names = [part.name for part in parts]
        assert len(set(names)) == len(names)
        for number, part in enumerate(parts):
            assert set(part.after) <= set(names[:number]), part.name
        assert parts[-1].seconds < 480


@pytest.mark.exhaustive
@pytest.mark.real_data
def test_all_parts_run_on_a_cpu(requires: Callable[[str], None], tmp_path: Path) -> None:
    requires("torch")
    requires("numpy")
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--device", "cpu", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        assert {f"r/{name}" for name in RECORDS} <= set(archive.getnames()), done.stdout[-3000:]


def test_an_interrupt_ends_the_parts_and_keeps_the_archive(tmp_path):
    with subprocess.Popen([sys.executable, str(SCRIPT), "--out", str(tmp_path), "--device", "cpu", "--quick"],
                          stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("backends: ")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "backends: " in output and "archive: " in output
    assert (tmp_path / "results.tar.gz").exists()
