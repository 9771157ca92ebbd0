"""Runs in processes of their own: SIGKILL, two processes on one run, a second Ctrl-C."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from typing import Any

import photographs
import pytest
from run_folders import checkpoint_steps, figures, record

from alexnet_mf import spec
from alexnet_mf.training import checkpoint
from alexnet_mf.training.weight_files import BEST, WEIGHTS

pytestmark = pytest.mark.exhaustive

DRIVER = """
import json, signal, sys
from alexnet_mf import spec
from alexnet_mf.spec import zoo
network = spec.from_dict(json.loads({network!r}))
zoo.get_network = lambda name: network
signal.signal(signal.SIGINT, signal.default_int_handler)
{more}
from alexnet_mf.cli import main
sys.exit(main())
"""


@pytest.fixture
def process_words(small):
    """Return a function that builds the command line of a training of the small network."""
    network = json.dumps(spec.as_dict(dataclasses.replace(small, name="alexnet")))
    return lambda *words, more="": [sys.executable, "-c", DRIVER.format(network=network, more=more), *words]


LONGER = ["--data", "synthetic", "--limit-train", "300", "--limit-test", "64", "--batch-size", "8",
          "--checkpoint-minutes", "1e-9", "--out", "run", "--quiet"]


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until, "timed out"
        time.sleep(0.002)


def run_to_end(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def test_a_killed_run_resumes_to_the_same_numbers(backend_name, process_words, tmp_path):
    """SIGKILL arrives at any moment after step 20."""
    words = process_words("train", "--backend", backend_name, "--epochs", "2", *LONGER)
    assert run_to_end([*words[:-3], "--out", "whole", "--quiet"]).returncode == 0
    folder = tmp_path / "run"
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: any(step >= 20 for step in checkpoint_steps(folder)), process)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    done = run_to_end(process_words("train", "--resume", "run", "--quiet", "--checkpoint-minutes", "1e-9"))
    assert (done.returncode, done.stderr) == (0, "")
    assert figures(folder) == figures(tmp_path / "whole")
    (session,) = record(folder)["resumed"]
    assert 20 <= session["step"] < 76


@pytest.mark.parametrize("data, more", [("photos", ["--store", "stores"]), ("photos", ["--no-store"]),
                                        ("shards", ["--store", "stores"])], ids=["store", "decoded", "shards"])
def test_a_killed_training_that_streams_resumes_to_the_same_numbers(process_words, tmp_path, data, more):
    """In the middle of an epoch, with crops and flips: the same batches, and the same parts of the pictures."""
    photographs.write(tmp_path / "photos", 150, (40, 60))
    if data == "shards":
        for part in ("train", "test"):
            with tarfile.open(tmp_path / f"{part}.tar", "w") as archive:
                for path in sorted((tmp_path / "photos" / part).glob("*/*.jpg")):
                    (tmp_path / "label").write_text(path.parent.name)
                    archive.add(path, f"{path.stem}.jpg")
                    archive.add(tmp_path / "label", f"{path.stem}.cls")
        (tmp_path / "shards").mkdir()
        for path in tmp_path.glob("*.tar"):
            path.rename(tmp_path / "shards" / path.name)
    streams = "from alexnet_mf.training import feed\nfeed.MOST_ON_CPU = 0"
    begin = ["train", "--backend", "torch", "--epochs", "3", "--data", data, *more, "--batch-size", "4", "--quiet",
             "--checkpoint-minutes", "1e-9", "--out"]
    done = run_to_end(process_words(*begin, "whole", more=streams))
    assert done.returncode == 0, done.stderr
    with subprocess.Popen(process_words(*begin, "run", more=streams), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as process:
        wait_for(lambda: any(step >= 20 for step in checkpoint_steps(tmp_path / "run")), process)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    words = process_words("train", "--resume", "run", "--quiet", "--checkpoint-minutes", "1e-9", more=streams)
    done = run_to_end(words)
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path / "run") == figures(tmp_path / "whole")
    (session,) = record(tmp_path / "run")["resumed"]
    assert 20 <= session["step"] < 114


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_nothing(backend_name, process_words, tmp_path):
    """Kill a run and its resumes between the first import and the last rename until one finishes, and start again.

    `-rP` prints a row of the table in docs/reference/run-folder.md.
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
        has_run = (folder / "run.json").exists()
        resumed += has_run
        with subprocess.Popen(process_words(*(resuming if has_run else begin)), stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) as process:
            try:
                process.wait(moments.uniform(0.5, 1.0) * whole_seconds if len(steps) < 20 else 300)
            except subprocess.TimeoutExpired:
                process.kill()
                steps.append(max(checkpoint_steps(folder), default=0))
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
            wait_for(lambda: checkpoint_steps(folder), process)
            second = run_to_end(process_words("train", "--resume", "run"))
            assert second.returncode == 2
            assert second.stderr == f"alexnet-mf: error: run: is in use by process {process.pid}; wait for it, or " \
                                    "use another folder\n"
            listed = run_to_end(process_words("list", "runs", "--runs", ".", "--json", "-"))
            assert [entry["state"] for entry in json.loads(listed.stdout)] == ["running"]
        finally:
            process.kill()
    assert (folder / ".lock").exists(), "a killed process leaves its lock file"
    third = run_to_end(process_words("train", "--resume", "run", "--epochs", "1", "--quiet"))
    assert "in use" not in third.stderr


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
                         ids=["Ctrl-C", "SIGTERM", "SIGHUP"])
def test_a_second_signal_ends_at_once_and_damages_nothing(process_words, tmp_path, number, code):
    """After the first signal, each checkpoint takes an hour."""
    more = ("import os, time\nfrom alexnet_mf import files\nfrom alexnet_mf.cli import signals\n"
            "write = files._write_all\n"
            "def slow(descriptor, content):\n"
            "    if received and len(content) > 10000: time.sleep(3600)\n"
            "    write(descriptor, content)\n"
            "files._write_all = slow\nreceived = []\n"
            "first = signals.Stop.__init__\n"
            "def init(self, tell):\n    first(self, lambda name: (received.append(1), tell(name)))\n"
            "signals.Stop.__init__ = init\n")
    folder = tmp_path / "run"
    words = process_words("train", "--backend", "numpy", "--epochs", "100000", *LONGER, more=more)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: any(step > 5 for step in checkpoint_steps(folder)), process)
            process.send_signal(number)
            notice = process.stderr.readline()
            assert notice == ("Ctrl-C" if code == 130 else signal.Signals(number).name) + \
                ": finishing this step and saving; a second signal stops at once\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)
            process.send_signal(number)
            assert process.wait(10) == code
        finally:
            process.kill()
    assert checkpoint.latest(folder / "checkpoint")[2] == {}
    done = run_to_end(process_words("train", "--resume", "run", "--quiet", "--epochs", "100000", more=(
        "from alexnet_mf.training import loop\n"
        "loop.Hooks.stop = property(lambda self: lambda: True, lambda self, value: None)\n"
        "from alexnet_mf.cli import signals\n"
        "signals.Stop.signal = property(lambda self: 15, lambda self, value: None)\n")))
    assert done.returncode == 143, done.stderr
