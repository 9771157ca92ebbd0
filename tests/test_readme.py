"""Every command that the README shows is parsed, and runs in `tox -e exhaustive`; installing is left to `.ci/run`."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from console import call
from PIL import Image

from alexnet_mf import cli, conversion, data
from alexnet_mf.spec import toml, zoo

README = Path(__file__).parents[1] / "README.md"

SHORT = {  # what makes a command short enough for a test; of a flag given twice the later counts
    "train": "--data synthetic --limit-train 8 --limit-test 8 --batch-size 4 --epochs 1",
    "trace": "--data synthetic --net lenet5 --batch-size 1 --steps 1 --images 4",
    "parity": "--data synthetic --batch-size 1 --steps 1 --images 4",
    "sweep": "--data synthetic --limit-train 8 --limit-test 8 --net lenet5,lenet5-relu --batch-size 4 --seeds 0 "
             "--epochs 1",
    "evaluate": "--limit-test 8",
    "analyze": "--net lenet5 --batch-size 4 --rounds 1 --sample-seconds 0.01",
    "bench": "--batch-size 1 --rounds 1 --epoch-batches 2 --sample-seconds 0.01",
}


def commands(path: Path = README) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def program_commands() -> list[str]:
    return [command for command in commands() if command.startswith("python -m alexnet_mf")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that a command finds the files of those before it; with the reader's own pictures."""
    path = tmp_path_factory.mktemp("readme")
    (path / "pictures").mkdir()
    for number, image in enumerate(data.synthetic.draw(0, train=1, test=2).test.images):
        Image.fromarray(image).resize((100, 80)).save(path / "pictures" / f"{number}.jpg")
    return path


def test_the_readme_shows_every_verb() -> None:
    text = " ".join(program_commands())
    for verb in ("train", "shapes", "parity", "parity trace", "parity compare", "bench", "bench --report",
                 "sweep", "sweep --resume", "list backends", "list networks", "list runs", "train --resume",
                 "plot curves", "plot filters", "analyze", "evaluate", "predict", "convert"):
        assert f"alexnet_mf {verb}" in text


def test_the_two_commands_for_a_fresh_machine_stand_first() -> None:
    run, test = commands()[:2]
    assert run.endswith(".venv/bin/python -m alexnet_mf --backend torch")
    assert test.endswith(".venv/bin/tox")


@pytest.fixture(scope="module")
def unwritten() -> set[str]:
    """Return the words of the skipped commands, the names of the files that they would have written among them."""
    return set()


@pytest.mark.exhaustive
@pytest.mark.parametrize("command", program_commands())
def test_command(command: str, folder: Path, unwritten: set[str], present: list[str],
                 capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has imported the frameworks already; `-m alexnet_mf` itself is other tests'."""
    words = shlex.split(command)[1:]
    monkeypatch.chdir(folder)

    def skip(reason: str) -> None:
        unwritten.update(words)
        pytest.skip(f"{command}: {reason}")

    if "--backend" in words and words[words.index("--backend") + 1] not in [*present, "all"]:
        skip("not one of the backends of this run")
    if "convert" in words:
        for word in words[3:]:
            needed = conversion.FORMATS[conversion.format_of_name(Path(word))].backend if "/" not in word else None
            if needed not in (None, *present):
                skip(f"{needed} is not one of the backends of this run")
    written = {words[words.index(flag) + 1] for flag in ("--out", "--save-weights") if flag in words}
    written |= {words[-1]} if "convert" in words else set()
    missing = [word for word in words if re.match(r"runs/|.*\.(safetensors|pt|h5|params|npz|onnx)$", word)
               and word not in written and not (folder / word).exists()]
    for name in missing:
        assert unwritten & {name, *map(str, list(Path(name).parents)[:-1])}, f"no command before this one writes {name}"
        skip(f"{name} is written by a command of another backend")
    short = {"compare", "--report", "--no-measure"} & {*words} or words[2:4] == ["sweep", "--resume"]
    kind = "trace" if "trace" in words else "" if short else words[2]
    extra = shlex.split(SHORT.get(kind, ""))
    if kind == "parity":  # of the tabs one that differs will do
        differing = [name for name in present if name in ("tensorflow", "mxnet")][:1] if "alexnet-tab" in words else []
        extra += ["--backends", ",".join(differing or present)]
        extra += ["--net", "lenet5,alexnet-28"] if "all" in words else []
    if kind == "bench":  # two processes for each backend: one will do, not the reference where there is another
        names = [name for name in present if name != "numpy"]
        extra += ["--backends", names[0]] if names else ["--backends", "numpy", "--precision", "float64"]
    if kind == "sweep":  # a process for each training: the reference's begin at once
        extra += ["--backend", present[-1], *(["--held-out", "8"] if "--held-out" in words else [])]
    done = call(capsys, *words[2:], *extra)
    differs = "alexnet-tab" in words and {"tensorflow", "mxnet"} & set(present)
    assert done.code == (1 if differs else 0), done.err
    assert done.out.strip()
    assert "Traceback" not in done.err
    if differs:
        assert "padding 0 instead of 1" in done.out


@pytest.mark.exhaustive
def test_the_python_example_runs(folder: Path, requires: Callable[[str], None]) -> None:
    requires("torch")
    requires("tensorflow")
    [example] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    accuracy, run = done.stdout.splitlines()[-1].split()
    assert 0 <= float(accuracy) <= 1
    assert (folder / run / "lenet5.onnx").stat().st_size > 4 * 61_706


def test_the_toml_example_goes_before_the_first_layer(tmp_path: Path) -> None:
    """Of lenet5, as a file."""
    [example] = re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    head, header, rest = toml.dump(zoo.LENET5).partition("[[layers]]")
    (tmp_path / "mine.toml").write_text(f"{head}{example}\n{header}{rest}", encoding="utf-8")
    network = toml.load(tmp_path / "mine.toml")
    assert network.layers[1:] == zoo.LENET5.layers
    assert network.layers[0].mean == (0.2860,) and network.layers[0].std == (0.3530,)


@pytest.mark.real_data
def test_the_toml_example_has_the_numbers_of_fashion_mnist() -> None:
    """Every pixel of the training images, in [0, 1]."""
    images, values = data.fashion_mnist.load().train.images, np.arange(256) / 255
    counts = sum(np.bincount(part.ravel(), minlength=256) for part in np.array_split(images, 20))
    mean = np.average(values, weights=counts)
    assert (round(mean, 4), round(np.average((values - mean)**2, weights=counts)**0.5, 4)) == (0.2860, 0.3530)


EXERCISES = commands(README.parent / "docs" / "exercises.md")


@pytest.mark.parametrize("command", [*program_commands(), *EXERCISES])
def test_a_command_is_parsed(command: str) -> None:
    """The exercises train for hours: that the program accepts them is enough here."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "alexnet_mf"]
    assert cli.parser().parse_args(words[3:]).verb == words[3]
