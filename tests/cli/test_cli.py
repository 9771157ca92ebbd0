"""The command line: exit codes, one line for each error, and the output to a terminal, a pipe and a file.

Most tests call `main` in this process, with the NumPy backend and a network of 28x28 images in place of AlexNet: they
test the commands, not the arithmetic. Tests of signals, pipes and terminals start a process of their own. One test
trains AlexNet itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import fcntl
import importlib.metadata
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from console import Outcome, assert_one_line

import alexnet_mf
from alexnet_mf import backends, cli, conversion, data, shapes, spec
from alexnet_mf.backends import registry
from alexnet_mf.backends.numpy.backend import NumpyModel
from alexnet_mf.cli import output
from alexnet_mf.errors import AlexnetMfError, DataError
from alexnet_mf.instruments.units import duration
from alexnet_mf.plots import Picture
from alexnet_mf.spec import toml, zoo
from alexnet_mf.training.recipe import BOOK, QUICK, choose_recipe
from alexnet_mf.weights import parameters

CLOSING = re.compile(r"loss (\d+\.\d{3}), train acc ([01]\.\d{3}), test acc ([01]\.\d{3})\n"
                     r"(\d+\.\d) examples/sec on (cpu|cuda:\d+)\n\Z")
TRAIN = ["train", "--backend", "numpy", "--data", "synthetic"]
MXNET = "pip install 'mxnet==1.9.1'" if sys.version_info < (3, 13) else "use Python 3.10, 3.11 or 3.12"
"""Remedy for a missing MXNet: its last release has no build for Python 3.13."""
TINY = ["--limit-train", "8", "--limit-test", "8", "--batch-size", "4", "--epochs", "1"]


# Help and version


def parsers() -> list[tuple[str, argparse.ArgumentParser]]:
    """Return the name and the parser of every verb and of the verbs below it."""
    pairs, queue = [], [((), cli.parser())]
    for path, parser in queue:
        pairs.append((" ".join(path), parser))
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                queue += [((*path, name), below) for name, below in action.choices.items()]
    return pairs


PARSERS = dict(parsers())


@pytest.mark.parametrize("verb", PARSERS)
def test_help_explains_every_flag(command, verb):
    outcome = command(*verb.split(), "--help")
    assert (outcome.code, outcome.err) == (0, "")
    for action in PARSERS[verb]._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action
        for flag in action.option_strings:
            assert flag in outcome.out


IN_WORDS = {("bench", "phases"): "all", ("bench", "precision"): "float32 without TF32", ("bench", "beside"): "none",
            ("bench", "backends"): "those of torch", ("sweep", "held_out"): "none", ("sweep", "lr_epochs"): "--epochs"}
"""Defaults that a help text states in words, by verb and destination."""


@pytest.mark.parametrize("verb", PARSERS)
def test_help_states_the_defaults_of_the_parser(verb):
    """Every flag with a value states its default, except required flags and files that are written on demand. The text
    describes a default of None in words, not by a number."""
    for action in PARSERS[verb]._actions:
        if action.nargs == 0 or isinstance(action.default, bool):
            continue
        stated = re.search(r"\(default: ([^),;]*)", action.help or "")
        if stated is None:
            optional = action.option_strings and not action.required
            assert not optional or action.dest in ("json", "save_weights", "plot", "python"), (verb, action.dest)
            continue
        values = action.default if isinstance(action.default, tuple) else (action.default,)
        expected = ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values) or "none"
        if action.default is None:
            assert not re.fullmatch(r"[\d.e-]+", stated[1]), (verb, action.dest)
        else:
            assert stated[1] == IN_WORDS.get((verb, action.dest), expected), (verb, action.dest)


def test_the_device_chooses_the_recipe_unless_one_is_named():
    for name, device, recipe in ((None, "cpu", QUICK), (None, "cuda:0", BOOK), ("book", "cpu", BOOK),
                                 ("quick", "cuda:0", QUICK)):
        assert choose_recipe(name, zoo.ALEXNET, device) == recipe


def test_the_script_and_the_module_run_main():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="alexnet-mf")
    assert script.load() is cli.main
    done = subprocess.run([sys.executable, "-m", "alexnet_mf", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"alexnet-mf {alexnet_mf.__version__}\n")


# Initial weights


@pytest.mark.parametrize("source", ["first", "first/weights.safetensors", "saved.safetensors", "w.npz"])
def test_a_training_starts_from_weights_of_any_format(command, monkeypatch, tmp_path, source):
    """The message of a run that cannot be prolonged advises this. LeNet-5 is not the default network."""
    draw = data.synthetic.draw
    monkeypatch.setattr(data.synthetic, "draw", lambda seed: draw(seed, train=16, test=8))
    words = [*TRAIN, "--quiet", "--epochs", "1", "--batch-size", "8"]
    assert command(*words, "--net", "lenet5", "--recipe", "quick", "--lr", "0.03", "--out", "first",
                   "--save-weights", "saved.safetensors").code == 0
    assert command("convert", "first", "w.npz").code == 0
    named = ["--net", "lenet5"] if source == "w.npz" else []
    done = command(*words, "--weights", source, *named, "--lr", "0", "--out", "second")
    assert done.code == 0, done.err
    first, second = (conversion.read(folder) for folder in ("first", "second"))
    assert second.network == first.network and second.network.name == "lenet5"
    assert parameters.digest(second.parameters) == parameters.digest(first.parameters)
    assert parameters.digest(first.parameters) != parameters.digest(parameters.initialize(first.network, 0))


# Missing and broken backends


def test_a_missing_backend_says_how_to_install_it(command, installed):
    installed("torch")
    assert_one_line(command("train", "--backend", "mxnet"), "mxnet is not installed", MXNET)


def test_without_a_framework_the_error_names_an_install_command(command, installed):
    installed("numpy")
    assert_one_line(command("train"), "none of torch, tensorflow and mxnet", "pip install torch", "--backend numpy")


@pytest.mark.parametrize("names, expected", [(["torch", "tensorflow", "mxnet"], "torch"),
                                             (["tensorflow", "mxnet"], "tensorflow"), (["mxnet"], "mxnet")])
def test_the_first_installed_backend_is_the_default(command, small_alexnet, installed, monkeypatch, names, expected):
    numpy_backend, loaded = backends.load("numpy"), []
    installed(*names)
    monkeypatch.setattr(backends, "load", lambda name: loaded.append(name) or numpy_backend)
    outcome = command("--data", "synthetic", *TINY)
    assert outcome.code == 0
    assert loaded == [expected]
    assert outcome.err == f"using --backend {expected}, the first installed of torch, tensorflow, mxnet\n"


BREAKAGES = {
    "ImportError": "raise ImportError('libc10.so: cannot open shared object file')",
    "OSError": "raise OSError('libc10.so: cannot open shared object file')",
    "RuntimeError": "raise RuntimeError('a first line\\nlibc10.so: cannot open shared object file')",
    "ValueError": "raise ValueError('numpy.dtype size changed: libc10.so: cannot open shared object file')",
    "AttributeError": "raise AttributeError('libc10.so: cannot open shared object file')",
    "SyntaxError": "libc10.so: cannot open shared object file",
    "an empty folder": "",
}


def broken_torch(folder: Path, content: str) -> dict[str, str]:
    """Return an environment in which `import torch` fails."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text(content + "\n", encoding="utf-8")
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{before}" if before else str(folder)}


@pytest.mark.parametrize("content", BREAKAGES.values(), ids=BREAKAGES)
def test_a_broken_framework_is_reported_in_one_line(tmp_path, content):
    done = subprocess.run([sys.executable, "-m", "alexnet_mf", "train", "--backend", "torch"], capture_output=True,
                          text=True, timeout=60, env=broken_torch(tmp_path, content))
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    assert_one_line(outcome, "torch is installed but its import failed", "pip install torch")
    if content.startswith("raise"):
        assert "libc10.so: cannot open shared object file" in outcome.err


def test_list_backends_continues_after_broken_and_missing_frameworks(tmp_path):
    script = "import sys; sys.modules['mxnet'] = sys.modules['tensorflow'] = None\n" \
             "from alexnet_mf.cli import main\nsys.exit(main())"
    done = subprocess.run([sys.executable, "-c", script, "list", "backends", "--json", "b.json"], capture_output=True,
                          text=True, timeout=60, env=broken_torch(tmp_path, BREAKAGES["RuntimeError"]))
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert rows["torch"].split()[1] == "broken" and rows["torch"].index("pip") == rows["numpy"].index("pip")
    assert done.stderr.count("\n") == 1 and "libc10.so" in done.stderr, "below the table, not between its rows"
    assert "not installed" in rows["tensorflow"]
    assert MXNET in rows["mxnet"]
    assert re.search(r"installed +[\d.]+ +cpu", rows["numpy"])
    entries = {entry["backend"]: entry for entry in json.loads(Path("b.json").read_text(encoding="utf-8"))}
    assert list(entries) == list(rows) == list(backends.BACKENDS)
    assert (entries["torch"]["state"], entries["numpy"]["state"]) == ("broken", "installed")
    assert (entries["mxnet"]["state"], entries["mxnet"]["devices"]) == ("not installed", [])
    assert entries["numpy"]["version"] == np.__version__
    assert entries["tensorflow"]["install"].startswith("pip install ") and MXNET in entries["mxnet"]["install"]


# list


def test_list_networks_prints_inputs_costs_and_sources(command):
    outcome = command("list", "networks")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.lines[0].split() == ["network", "input", "parameters", "multiply", "accumulates", "source"]
    assert [line.split()[0] for line in outcome.lines[1:]] == list(zoo.NETWORKS)
    rows = {line.split()[0]: line for line in outcome.lines[1:]}
    for name in ("alexnet", "alexnet-tab-torch", "alexnet-tab-tensorflow", "alexnet-tab-mxnet"):
        assert rows[name].split()[1:4] == ["1x224x224", "46,764,746", "938,146,176"]
        assert "Dive into Deep Learning, section 8.1" in rows[name]
    assert rows["alexnet-owt"].split()[1:4] == ["3x224x224", "61,100,840", "714,188,480"]
    assert rows["lenet5"].split()[1:4] == ["1x28x28", "61,706", "416,520"]
    assert command("list", "networks", "lenet5").lines[1:] == [
        f"lenet5   1x28x28      61,706               416,520  {zoo.LENET5.source}"]
    entries = json.loads(command("list", "networks", "--json", "-").out)
    assert [entry["network"] for entry in entries] == list(zoo.NETWORKS)
    assert {(entry["parameters"], entry["multiply_accumulates"]) for entry in entries[:2]} == {
        (46_764_746, 938_146_176)}


def test_a_changed_copy_of_a_network_is_listed_built_and_trained(command, tmp_path):
    """`list networks NAME --toml` prints the copy, which the user then changes."""
    outcome = command("list", "networks", "lenet5", "--toml")
    assert (outcome.code, outcome.err) == (0, "")
    path = tmp_path / "mine.toml"
    path.write_text(outcome.out.replace("channels = 6\n", "channels = 3\n"), encoding="utf-8")
    assert command("list", "networks", str(path)).lines[1].split()[:3] == ["my-lenet5", "1x28x28", "60,428"]
    shapes = command("shapes", "--backend", "numpy", "--net", str(path))
    assert (shapes.code, shapes.err) == (0, "")
    assert any(line.split()[:4] == ["conv1", "conv2d", "+", "sigmoid"] and "1x3x28x28" in line for line in shapes.lines)
    trained = command(*TRAIN, *TINY, "--net", str(path), "--json", str(tmp_path / "run.json"))
    assert (trained.code, trained.err) == (0, "")
    report = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert report["network"]["name"] == "my-lenet5"
    assert report["network"]["layers"][0]["channels"] == 3
    assert report["recipe"]["sgd"]["learning_rate"] == 0.9, "the learning rate of the network"


def test_lr_overrides_the_learning_rate_of_the_network(command, tmp_path):
    words = [*TRAIN, *TINY, "--net", "lenet5", "--lr", "0.25", "--json", str(tmp_path / "run.json")]
    assert command(*words, "--recipe", "book").code == 0
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["recipe"]["sgd"]["learning_rate"] == 0.25


def test_an_impossible_network_file_is_reported_in_one_line(command, tmp_path):
    path = tmp_path / "net.toml"
    path.write_text('name = "mine"\ninput = [1, 28, 28]\n\n[[layers]]\nkind = "Conv2d"\nname = "conv1"\nchannels = 4\n'
                    'kernel = 1_000_000_000\n', encoding="utf-8")
    for words in (TRAIN, ["shapes", "--backend", "all"], ["parity"], ["bench"]):
        assert_one_line(command(*words, "--net", str(path)), str(path), "line 4: layer conv1", "kernel 1000000000")


def test_exhausted_memory_is_reported_in_one_line(command, monkeypatch):
    def exhausted(*arguments: Any, **options: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(parameters, "initialize", exhausted)
    assert_one_line(command("shapes", "--backend", "numpy"), "not enough memory")


def test_list_backends_marks_installed_backends(command, backend):
    outcome = command("list", "backends", "--json", "b.json")
    entries = {entry["backend"]: entry for entry in json.loads(Path("b.json").read_text(encoding="utf-8"))}
    assert [line.split()[0] for line in outcome.lines[1:]] == list(entries)
    assert entries[backend.name]["state"] == "installed"
    assert entries[backend.name]["version"]
    assert any(device.startswith("cpu") for device in entries[backend.name]["devices"])


# shapes

ROWS = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "flatten", "fc6", "drop6", "fc7",
        "drop7", "fc8"]


def test_shapes_prints_the_table_of_one_backend(command):
    outcome = command("shapes", "--backend", "numpy", "--net", "lenet5")
    assert (outcome.code, outcome.err) == (0, "")
    table = {line.split()[0]: line for line in outcome.lines if line}
    assert list(table)[2:-2] == ["conv1", "pool1", "conv2", "pool2", "flatten", "fc3", "fc4", "fc5"]
    assert re.fullmatch(r"conv1 +conv2d \+ sigmoid +1x6x28x28 +156", table["conv1"])
    assert re.fullmatch(r"pool2 +avg_pool +1x16x5x5", table["pool2"])
    assert re.fullmatch(r"total +61,706", table["total"])
    assert outcome.lines[-1] == "the arithmetic and numpy agree on shapes and parameter counts"


@pytest.mark.exhaustive  # four frameworks, each with its AlexNet: 1.4 GB
def test_shapes_of_alexnet_are_the_same_in_all_backends(command, installed, present):
    """The JSON maps each backend to rows of name, native, shape (NCHW), native_shape and parameters."""
    installed(*present)
    outcome = command("shapes", "--backend", "all", "--json", "-")
    assert outcome.code == 0
    assert outcome.err.splitlines() == [f"{name} is not installed: {backends.BACKENDS[name].install}"
                                        for name in backends.BACKENDS if name not in present]
    tables = json.loads(outcome.out)
    assert list(tables) == present
    for name, rows in tables.items():
        assert [row["name"] for row in rows] == ROWS
        assert {tuple(row) for row in rows} == {("name", "native", "shape", "native_shape", "parameters")}
        assert [row["shape"] for row in rows][:2] == [[1, 96, 54, 54], [1, 96, 26, 26]]
        assert rows[0]["native_shape"] == ([1, 54, 54, 96] if name == "tensorflow" else [1, 96, 54, 54])
        assert sum(row["parameters"] for row in rows) == 46_764_746


def test_shapes_prints_all_backends_side_by_side(command, small_alexnet, present):
    if len(present) < 4:
        pytest.skip("needs all four backends")
    outcome = command("shapes", "--backend", "all")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.lines[1].split() == ["layer", "output", "shape", "parameters", *backends.BACKENDS]
    conv1 = re.split(r"  +", outcome.lines[2])
    assert conv1 == ["conv1", "1x8x13x13", "208", "Conv2d + ReLU", "ZeroPadding2D + Conv2D", "Conv2D", "conv2d + relu"]
    assert outcome.lines[-1] == \
        "the arithmetic, torch, tensorflow, mxnet and numpy agree on shapes and parameter counts"


def test_shapes_of_all_backends_names_the_missing_ones_in_order(command, small_alexnet, installed):
    installed("numpy")
    outcome = command("shapes", "--backend", "all")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.err.splitlines()] == list(backends.FRAMEWORKS)
    assert outcome.lines[-1] == "the arithmetic and numpy agree on shapes and parameter counts"


@pytest.mark.parametrize("change, fragments", [
    (lambda rows: [dataclasses.replace(rows[0], shape=(1, 8, 12, 12)), *rows[1:]],
     ["conv1: numpy has 1x8x12x12 and 208 parameters, the arithmetic has 1x8x13x13 and 208 parameters"]),
    (lambda rows: [dataclasses.replace(rows[0], parameters=209), *rows[1:]], ["conv1: numpy has", "209 parameters"]),
    (lambda rows: rows[1:], ["numpy has the layers pool1, conv2", "the arithmetic has conv1, pool1"]),
    (lambda rows: [dataclasses.replace(rows[0], name="conv9"), *rows[1:]], ["conv9", "the arithmetic has conv1"]),
], ids=["shape", "parameters", "missing row", "name"])
@pytest.mark.parametrize("everywhere", [False, True], ids=["alone", "all"])
def test_shapes_exits_with_1_where_a_backend_disagrees(command, small_alexnet, installed, monkeypatch, change,
                                                       fragments, everywhere):
    numpy = backends.load("numpy")
    rows = numpy.build(small_alexnet, parameters.initialize(small_alexnet, 0), "cpu").describe()
    monkeypatch.setattr(NumpyModel, "describe", lambda model: change(rows))
    if everywhere:  # NumPy without the change, named torch, comes first
        other = SimpleNamespace(build=lambda *arguments: SimpleNamespace(describe=lambda: rows))
        installed("torch", "numpy")
        monkeypatch.setattr(registry, "load", lambda name: other if name == "torch" else numpy)
    outcome = command("shapes", "--backend", "all" if everywhere else "numpy")
    assert outcome.code == 1
    for fragment in fragments:
        assert fragment in outcome.out
    assert outcome.lines[-1].endswith("do not agree on shapes and parameter counts")
    assert "Traceback" not in outcome.err


def test_shapes_compares_the_backends_with_each_other(command, small_alexnet, installed, monkeypatch):
    """Each backend agrees with the arithmetic of its own network."""
    numpy, own = backends.load("numpy"), {"torch": zoo.get_network("lenet5"), "numpy": zoo.get_network("alexnet-28")}
    installed("torch", "numpy")
    monkeypatch.setattr(registry, "load", lambda name: numpy)
    monkeypatch.setattr(shapes, "find_network", lambda net, name: own[name])
    outcome = command("shapes", "--backend", "all")
    assert outcome.code == 1
    assert "numpy has the layers conv1" in outcome.out and "torch has conv1" in outcome.out


# train


def test_train_ends_with_the_two_lines_of_the_book(command, small_alexnet):
    """`train` is the default verb. Each epoch prints one line."""
    outcome = command("--backend", "numpy", "--data", "synthetic", *TINY, "--epochs", "3")
    assert (outcome.code, outcome.err) == (0, "")
    assert CLOSING.search(outcome.out)
    assert outcome.lines[0].startswith("alexnet in numpy ")
    assert any(line.startswith("total") for line in outcome.lines)
    assert any(line.startswith("synthetic garments") for line in outcome.lines)
    epochs = [line for line in outcome.lines if line.startswith("epoch")]
    assert [line[:9] for line in epochs] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert epochs[-1] == f"epoch 3/3: {outcome.lines[-2]}"


def test_quiet_prints_only_the_last_two_lines(command, small_alexnet):
    outcome = command(*TRAIN, *TINY, "--quiet")
    assert (outcome.code, outcome.err, len(outcome.lines)) == (0, "", 2)
    assert CLOSING.match(outcome.out)


def test_the_quick_recipe_is_announced_with_the_time_of_the_book_recipe(command, small_alexnet):
    outcome = command(*TRAIN, "--batch-size", "8")
    assert any(line.startswith("recipe quick, since this is a CPU") for line in outcome.lines)
    estimate = r"at \d+\.\d images/s, --recipe book would take about .* here, without evaluation"
    assert any(re.fullmatch(estimate, line) for line in outcome.lines)
    named = command(*TRAIN, "--batch-size", "8", "--recipe", "quick")
    assert "since this is a CPU" not in named.out
    assert "would take" not in named.out


def test_json_has_the_conditions_and_the_results(command, small_alexnet, tmp_path):
    path = tmp_path / "run.json"
    outcome = command(*TRAIN, "--json", str(path), "--epochs", "2", "--batch-size", "5", "--lr", "0.02", "--momentum",
                      "0.5", "--weight-decay", "0.001", "--dropout", "0.25", "--seed", "9", "--limit-train", "12",
                      "--limit-test", "7", "--recipe", "book")
    report = json.loads(path.read_text(encoding="utf-8"))
    network = spec.with_dropout(small_alexnet, 0.25)
    assert report["backend"] == "numpy"
    assert report["device"] == "cpu"
    assert report["versions"]["numpy"] == np.__version__
    assert report["settings"]
    assert report["seed"] == 9
    assert "synthetic" in report["data"]
    assert spec.from_dict(report["network"]) == network
    assert report["spec_sha256"] == spec.fingerprint(network)
    assert (report["precision"], report["speed"]) == ("float64", {})
    assert {"cpu", "gpus", "time", "git_revision"} <= set(report) and report["command"][0] == "alexnet-mf"
    assert report["recipe"] == {"name": "book", "epochs": 2, "batch_size": 5, "train_images": 12, "test_images": 7,
                                "annealed": 0, "augment": [], "held_out": 0,
                                "sgd": {"learning_rate": 0.02, "momentum": 0.5, "weight_decay": 0.001}}
    assert len(report["losses"]) == 2 * 3
    assert [epoch["epoch"] for epoch in report["epochs"]] == [1, 2]
    assert report["images_timed"] == 2 * 12 - 5
    assert report["images_per_second"] == pytest.approx(report["images_timed"] / report["seconds"])
    last = report["epochs"][-1]
    assert CLOSING.search(outcome.out).groups() == (
        f"{last['loss']:.3f}", f"{last['train_accuracy']:.3f}", f"{last['test_accuracy']:.3f}",
        f"{report['images_per_second']:.1f}", "cpu")


@pytest.mark.parametrize("write", [lambda path: output.write_json(path, [1]),
                                   lambda path: Picture(path, "alexnet_mf.plots.style").save(b"1")],
                         ids=["json", "picture"])
def test_a_result_is_written_whole_or_not_at_all(failing_os, tmp_path, write):
    """A disk that fills up during the write leaves the old file in place."""
    path = tmp_path / "result.png"
    path.write_bytes(b"before")
    recorded = failing_os()
    write(str(path))
    path.write_bytes(b"before")
    failing_os(recorded.calls.index("write"), errno.ENOSPC)
    with pytest.raises(AlexnetMfError, match=r"result\.png: cannot be written"):
        write(str(path))
    failing_os()
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("result.png", b"before")]


def test_losses_depend_on_precision_and_not_on_speed_settings(command, small_alexnet, backend_name):
    """A speed setting changes the losses by rounding alone."""
    if backend_name == "numpy":
        pytest.skip("the reference has one precision and no speed settings")
    words = ["--backend", backend_name, "--data", "synthetic", "--device", "cpu", *TINY, "--json", "-"]
    plain, slow = (json.loads(command("train", *words, *more).out) for more in ([], ["--no-compile"] if backend_name
                   != "torch" else ["--no-allocator"]))
    assert slow["losses"] == pytest.approx(plain["losses"], rel=1e-4)
    assert (plain["precision"], plain["speed"]) == ("float32", {})
    assert list(slow["speed"].values()) == [False]
    if "bfloat16" not in backends.load(backend_name).precisions("cpu"):  # MXNet without AVX-512
        assert_one_line(command("train", *words, "--precision", "bfloat16"), "no precision bfloat16 on cpu", "float32")
    else:
        other = json.loads(command("train", *words, "--precision", "bfloat16").out)
        assert other["precision"] == "bfloat16"
        assert other["losses"] != plain["losses"]
        assert other["losses"] == pytest.approx(plain["losses"], rel=0.2)


def losses(command, *words: str) -> list[float]:
    """Train, and return the losses from the JSON on standard output."""
    outcome = command(*TRAIN, *TINY, "--json", "-", *words)
    assert (outcome.code, outcome.err) == (0, "")
    return json.loads(outcome.out)["losses"]


def test_losses_depend_on_seed_and_dropout(command, small_alexnet):
    assert losses(command) == losses(command, "--seed", "0")
    assert losses(command, "--seed", "1") != losses(command)
    assert losses(command, "--dropout", "0") != losses(command)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_a_loss_that_is_not_finite_exits_with_1(backend_name, command, small_alexnet):
    """The weights grow 1e76-fold in each step, too fast even for float64."""
    outcome = command("train", "--backend", backend_name, "--data", "synthetic", *TINY, "--epochs", "9", "--lr", "1e38",
                      "--weight-decay", "1e38")
    assert_one_line(outcome, "step ", "learning rate is 1e+38", "--lr", code=1)
    assert re.search(r"the loss (is|on the test images is) (nan|inf) (in|after) step \d+;", outcome.err)
    assert "examples/sec" not in outcome.out


def test_auto_falls_back_to_the_synthetic_dataset_with_the_reason(command, small_alexnet, monkeypatch):
    def no_mirror(*arguments: Any, **more: Any) -> None:
        raise DataError("no mirror could deliver it")

    monkeypatch.setattr(data.fashion_mnist, "load", no_mirror)
    outcome = command("train", "--backend", "numpy", *TINY)
    assert outcome.code == 0
    assert outcome.err == "using the synthetic set: no mirror could deliver it\n"
    assert CLOSING.search(outcome.out)


# Progress


@pytest.mark.parametrize("seconds, text", [(0.4, "0 s"), (8, "8 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"),
                                           (13_320, "3 h 42 min"), (float("nan"), "?")])
def test_durations_have_at_most_two_units(seconds, text):
    assert duration(seconds) == text


# Signals, pipes and terminals: the small network in a process of its own


@pytest.fixture
def words(small, tmp_path):
    """Return a function that builds the command line of a training of the small network."""
    (tmp_path / "small.toml").write_text(toml.dump(small), encoding="utf-8")
    return lambda *more, backend="numpy": [
        sys.executable, "-m", "alexnet_mf", "--net", "small.toml", "--backend", backend, "--data", "synthetic",
        "--limit-train", "64", "--limit-test", "8", "--batch-size", "8", *more]


def stop_by(number: int, words: list[str]) -> Outcome:
    """Start a process, send a signal after its first epoch, and return the outcome."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = ""
            for line in process.stdout:
                lines += line
                if line.startswith("epoch 1/"):
                    break
            else:
                pytest.fail(f"no epoch was trained: {process.stderr.read()}")
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return Outcome(process.returncode, lines + out, err)


STOPPED = (r"{0}: finishing this step and saving; a second signal stops at once\n"
           r"alexnet-mf: stopped by {0} after \d+ steps; resume with: alexnet-mf train --resume runs/\S+\n")


def test_ctrl_c_ends_with_130_and_says_how_to_resume(words, backend_name):
    outcome = stop_by(signal.SIGINT, words("--epochs", "100000", backend=backend_name))
    assert outcome.code == 130, outcome.err
    assert re.fullmatch(STOPPED.format("Ctrl-C"), outcome.err)
    assert "examples/sec" not in outcome.out


def test_sigterm_ends_with_143_and_says_how_to_resume(words):
    outcome = stop_by(signal.SIGTERM, words("--epochs", "100000"))
    assert outcome.code == 143
    assert re.fullmatch(STOPPED.format("SIGTERM"), outcome.err)


def test_main_restores_the_signal_handlers(command):
    before = signal.getsignal(signal.SIGTERM)
    command("list", "networks")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_training_reports_a_closed_pipe(words):
    """`head -1` closes the pipe after one line."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words("--epochs", "300"), **pipes) as process:
        assert process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=120) == 1
    assert err.count("\n") == 1
    assert "train ended early" in err and "train --resume RUN" in err


def test_a_list_ends_quietly_if_the_pipe_is_closed():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    words = [sys.executable, "-m", "alexnet_mf", "list", "networks"]
    with subprocess.Popen(words, **pipes) as process:
        process.stdout.close()
        err = process.stderr.read()
        assert (process.wait(timeout=120), err) == (0, "")


def test_a_pipe_gets_plain_lines(words):
    done = subprocess.run(words("--epochs", "1"), capture_output=True, text=True, timeout=60,
                          env=os.environ | {"FORCE_COLOR": "1", "TERM": "xterm-256color"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert CLOSING.search(done.stdout)


def on_a_terminal(words: list[str], columns: int, interrupt_at: bytes = b"", **environment: str) -> Outcome:
    """Run a command on a terminal of this many columns; send Ctrl-C when `interrupt_at` appears there."""
    main, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    with subprocess.Popen(words, stdout=secondary, stderr=subprocess.PIPE, text=True,
                          env=clean | {"TERM": "xterm-256color", "PYTHONUTF8": "1"} | environment) as process:
        os.close(secondary)
        shown = b""
        while True:
            try:
                chunk = os.read(main, 65536)
            except OSError:  # the other side is closed
                break
            if not chunk:
                break
            shown += chunk
            if interrupt_at and interrupt_at in shown:
                process.send_signal(signal.SIGINT)
                interrupt_at = b""
        err = process.stderr.read()
        code = process.wait(timeout=60)
    os.close(main)
    return Outcome(code, shown.decode().replace("\r\n", "\n"), err)


COLOR = re.compile(r"\x1b\[[0-9;]*\b(3[0-9]|4[0-9]|9[0-7])(;[0-9;]*)?m")


def test_a_terminal_gets_a_bar_and_the_same_last_lines(words):
    outcome = on_a_terminal(words("--epochs", "2"), columns=120)
    assert (outcome.code, outcome.err) == (0, "")
    assert COLOR.search(outcome.out)
    assert "━━━━━" in outcome.out
    assert "epoch 2/2" in outcome.out
    assert "images/s" in outcome.out
    assert CLOSING.search(outcome.out)


@pytest.mark.parametrize("columns, environment", [(40, {"NO_COLOR": "1"}), (1, {})], ids=["no color", "one column"])
def test_terminals_without_color_or_width_get_the_last_lines(words, columns, environment):
    outcome = on_a_terminal(words("--epochs", "1"), columns, **environment)
    assert (outcome.code, outcome.err) == (0, "")
    assert CLOSING.search(outcome.out)
    if environment:
        assert not COLOR.search(outcome.out)


def test_quiet_on_a_terminal_is_two_lines(words):
    outcome = on_a_terminal(words("--epochs", "1", "--quiet"), columns=80)
    assert (outcome.code, outcome.err) == (0, "")
    assert CLOSING.match(outcome.out)


def test_ctrl_c_restores_the_cursor(words):
    """The progress bar hides the cursor while it is shown."""
    outcome = on_a_terminal(words("--epochs", "100000"), columns=80, interrupt_at=b"epoch 2/")
    assert outcome.code == 130
    assert outcome.err.startswith("alexnet-mf: stopped by Ctrl-C after ")
    assert "Ctrl-C: finishing this step and saving" in outcome.out, "the notice is above the bar"
    assert outcome.out.rindex("\x1b[?25h") > outcome.out.rindex("\x1b[?25l")


# AlexNet itself, once, in the first selected framework


@pytest.fixture
def framework(present) -> str:
    if present == ["numpy"]:
        pytest.skip("no framework is installed")
    return present[0]


@pytest.mark.exhaustive
def test_the_first_command_of_the_readme_trains_alexnet(framework, tmp_path):
    """The dataset is limited to eight images."""
    report_file, weights_file = tmp_path / "run.json", tmp_path / "weights.safetensors"
    done = subprocess.run([sys.executable, "-m", "alexnet_mf", "--backend", framework, "--data", "synthetic", *TINY,
                           "--json", str(report_file), "--save-weights", str(weights_file)],
                          capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert CLOSING.search(done.stdout)
    assert "46,764,746" in done.stdout
    assert "\x1b" not in done.stdout
    report = json.loads(report_file.read_text(encoding="utf-8"))
    assert report["spec_sha256"] == spec.fingerprint(zoo.ALEXNET)
    assert report["versions"][framework]
    assert len(report["losses"]) == 2
    trained = parameters.load(weights_file, zoo.ALEXNET)
    assert parameters.digest(trained) != parameters.digest(parameters.initialize(zoo.ALEXNET, 0))
