"""Every command that the README shows runs; installing is left to `.ci/run` and to the reader."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_mf import backends

README = Path(__file__).parents[1] / "README.md"

SHORT = {  # what makes a command short enough for a test; of a flag given twice the later counts
    "train": "--data synthetic --limit-train 8 --limit-test 8 --batch-size 4 --epochs 1",
    "trace": "--data synthetic --batch-size 1 --steps 1 --images 4",
    "parity": "--data synthetic --batch-size 1 --steps 1 --images 4",
    "analyze": "--net lenet5 --batch-size 4 --rounds 1 --sample-seconds 0.01",
    "bench": "--batch-size 1 --rounds 1 --epoch-batches 2 --sample-seconds 0.01",
}


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def program_commands() -> list[str]:
    return [command for command in commands() if command.startswith("python -m alexnet_mf")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that a command finds the files of those before it."""
    return tmp_path_factory.mktemp("readme")


def test_the_readme_shows_every_verb() -> None:
    text = " ".join(program_commands())
    for verb in ("train", "shapes", "parity", "parity trace", "parity compare", "bench", "bench --report",
                 "list backends", "list networks", "list runs", "train --resume", "plot curves", "plot filters",
                 "analyze"):
        assert f"alexnet_mf {verb}" in text


def test_the_two_commands_for_a_fresh_machine_stand_first() -> None:
    run, test = commands()[:2]
    assert run.endswith(".venv/bin/python -m alexnet_mf --backend torch")
    assert test.endswith(".venv/bin/tox")


@pytest.mark.parametrize("command", program_commands())
def test_command(command: str, folder: Path, request: pytest.FixtureRequest) -> None:
    asked = [name for name in request.config.getoption("--backends").split(",") if name] or backends.installed()
    words = shlex.split(command)[1:]
    if "--backend" in words and words[words.index("--backend") + 1] not in [*asked, "all"]:
        pytest.skip(f"{command}: not one of the backends of this run")
    missing = [word for word in words if word.endswith(".safetensors") and "--out" not in words
               and "--save-weights" not in words and not (folder / word).exists()]
    missing += [word for word in words if word.startswith("runs/") and "--out" not in words
                and not (folder / word).exists()]
    if missing:
        pytest.skip(f"{missing[0]} is written by a command of another backend")
    kind = "trace" if "trace" in words else "" if "compare" in words or "--report" in words else words[2]
    extra = shlex.split(SHORT.get(kind, ""))
    if kind == "parity":
        extra += ["--backends", ",".join(asked)]
    if kind == "bench":  # not the referee, unless there is nobody else
        names = [name for name in asked if name != "numpy"]
        extra += ["--backends", ",".join(names)] if names else ["--backends", "numpy", "--precision", "float64"]
    done = subprocess.run([sys.executable, *words, *extra], cwd=folder, capture_output=True, text=True, check=False)
    differs = "alexnet-tab" in words and {"tensorflow", "mxnet"} & set(asked)
    assert done.returncode == (1 if differs else 0), done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr
    if differs:
        assert "padding 0 instead of 1" in done.stdout
