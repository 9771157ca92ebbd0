"""`analyze` and `plot filters`: tables, conclusions, files, and errors of one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from console import assert_one_line

from alexnet_mf import spec
from alexnet_mf.analysis import measure as measurements
from alexnet_mf.analysis.costs import costs
from alexnet_mf.analysis.measure import PHASES, Measured, Memory
from alexnet_mf.analysis.peak import predicted_peak
from alexnet_mf.analysis.roofline import Ceilings
from alexnet_mf.errors import BenchError
from alexnet_mf.instruments import machine
from alexnet_mf.instruments.statistics import estimate
from alexnet_mf.spec import layers, toml, zoo
from alexnet_mf.training import memory
from alexnet_mf.weights import parameters

TABLE = ["analyze", "--no-measure"]
KERNELS = {"conv1": ["fold", "pool"]}


@pytest.mark.parametrize("words", [["analyze"], ["plot", "curves", "run"], ["bench"], ["sweep"], ["evaluate", "run"]])
def test_plot_refuses_a_file_that_is_not_png(command, words):
    assert_one_line(command(*words, "--plot", "picture.pdf"), "--plot must end in .png, not 'picture.pdf'")


# The arithmetic


def test_analyze_prints_the_tables_of_alexnet(command):
    outcome = command(*TABLE)
    assert (outcome.code, outcome.err) == (0, "")
    memory_table, costs_table = (table.splitlines() for table in re.split(r"\n\n", outcome.out)[:2])
    assert memory_table[0] == "alexnet, batch 16, 4 bytes per number, SGD with momentum (recipe quick)"
    assert memory_table[2].split() == ["conv1", "96x54x54", "11,712", "46.8", "kB", "46.8", "kB", "46.8", "kB",
                                       "17.9", "MB", "17.9", "MB", "2.9", "%"]
    assert memory_table[16].split()[:4] == ["total", "46,764,746", "187", "MB"] and memory_table[16].endswith("100 %")
    assert costs_table[4].split()[:6] == ["conv2", "6.65", "G", "44", "%", "17.7"]
    assert costs_table[-1].split()[:4] == ["total", "15.0", "G", "100"]
    for sentence in ("Memory: a training step on 16 images stores", "Computation: 938,146,176 multiply-accumulates",
                     "Memory traffic: ", "Predicted peak of a training step"):
        assert f"\n{sentence}" in outcome.out


@pytest.mark.parametrize("net", zoo.NETWORKS)
def test_json_totals_are_the_sums_of_the_layers(command, net):
    outcome = command(*TABLE, "--net", net, "--batch-size", "3", "--json", "-")
    assert outcome.code == 0
    report = json.loads(outcome.out)
    network, total = zoo.get_network(net), report["total"]
    expected = costs(network, 3, momentum=report["momentum"] > 0)
    assert report["batch_size"] == 3 and report["measured"] is None
    assert [layer["layer"] for layer in report["layers"]] == [layer.name for layer in network.layers]
    assert [total["parameters"], total["held_bytes"], total["forward"]["macs"], total["training"]["traffic_bytes"]] == [
        sum(column) for column in zip(*((
            layer["parameters"], layer["held_bytes"]["total"], layer["forward"]["macs"],
            layer["training"]["traffic_bytes"]) for layer in report["layers"]))]
    for key in report["parts"]["convolutions"]:
        assert sum(part[key] for part in report["parts"].values()) > 0
    assert report["predicted_peak_bytes"] == predicted_peak(expected).bytes
    assert len(report["conclusions"]) == 3


def test_analyze_without_measuring_imports_no_framework(tmp_path):
    script = ("import sys, time\nstart = time.perf_counter()\nfrom alexnet_mf.cli import main\n"
              "assert main(['analyze', '--no-measure']) == 0\n"
              "assert not {'torch', 'tensorflow', 'mxnet', 'matplotlib'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr


def test_recipe_batch_and_backend_change_the_table(command):
    assert "128, 4 bytes per number, SGD without momentum (recipe book)" in command(*TABLE, "--recipe", "book").out
    assert "alexnet, batch 5, 8 bytes" in command(*TABLE, "--batch-size", "5", "--backend", "numpy").out
    assert "alexnet-tab-mxnet" in command(*TABLE, "--net", "alexnet-tab-mxnet", "--backend", "mxnet").out


def test_analyze_computes_the_costs_of_a_billion_images(command):
    report = json.loads(command(*TABLE, "--batch-size", 10**9, "--json", "-").out)
    assert report["total"]["forward"]["macs"] == 938_146_176 * 10**9


# Measured

BACKEND_NOTICE = "using --backend mxnet, the first installed of torch, tensorflow, mxnet\n"


@pytest.fixture
def measured(installed, monkeypatch):
    """Replace the measurement by fixed numbers, and return the options that the command passes to it."""
    requested: dict[str, Any] = {}

    def run(network: Any, backend: str, device: str, batch_size: int, momentum: float, **options: Any) -> Measured:
        requested.update(options, network=network.name, backend=backend, device=device, batch_size=batch_size,
                         momentum=momentum)
        seconds = {what: estimate([0.5] * options["rounds"]) for what in (*PHASES, "matrix product", "copy")}
        conditions = machine.Conditions(**machine.conditions([]))
        return Measured(backend, "cuda:0" if requested.get("allocator") else "cpu", "a GPU", "float32",
                        {"torch": "1.0"}, requested.get("settings", {}), seconds, Ceilings(300e9, 20e9),
                        Memory(300, 900, requested.get("allocator")), KERNELS, conditions)
    monkeypatch.setattr(measurements, "measure", run)
    installed("mxnet", "numpy")
    return requested


def test_measurements_are_printed_beside_the_predictions(command, measured, tmp_path):
    outcome = command("analyze", "--plot", "roof.png", "--json", "a.json", "--device", "cpu", "--rounds", "7")
    assert (outcome.code, outcome.err) == (0, BACKEND_NOTICE)
    assert measured["backend"] == "mxnet" and measured["momentum"] == 0.9 and measured["batch_size"] == 16
    assert measured["rounds"] == 7
    assert "roofline: 300 GFLOP/s, 20.0 GB/s (mxnet float32 on" in outcome.out
    assert re.search(r"^step +\d+ ms +500 ms \[500 ms, 500 ms\] +\d\.\d\d$", outcome.out, re.M)
    assert re.search(r"^fc6 +7\.95 +159  memory", outcome.out, re.M)
    assert re.search(r"^conv2 +751 +300  compute", outcome.out, re.M)
    assert "the process took at most 900 B, and 300 B with mxnet alone: 600 B more" in outcome.out
    assert Path("roof.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads(Path("a.json").read_text(encoding="utf-8"))["measured"]
    assert report["ceilings"]["ridge_flops_per_byte"] == 15.0
    assert report["measured_seconds"]["step"]["median"] == 0.5
    assert set(report["predicted_seconds"]) == set(PHASES)
    assert report["memory_bytes"] == {"imported": 300, "process": 900, "allocator": None}


@pytest.mark.parametrize("ratio, code, difference", [(1.0, 0, "+0.0 %"), (1.09, 0, "+9.0 %"), (1.2, 1, "+20.0 %"),
                                              (0.8, 1, "-20.0 %")])
def test_analyze_exits_with_1_if_the_allocator_contradicts_the_prediction(command, measured, ratio, code, difference):
    peak = predicted_peak(costs(zoo.ALEXNET, 16, momentum=True), KERNELS).bytes
    measured["allocator"] = round(ratio * peak)
    outcome = command("analyze", "--device", "cpu")
    assert outcome.code == code
    assert (f"predicted peak with conv1 by fold and pool {peak / 1e6:.0f} MB, the allocator's without workspaces "
            f"{measured['allocator'] / 1e6:.0f} MB: {difference}") in outcome.out
    assert ("off by more than 10 %" in outcome.err) is (code == 1)


@pytest.mark.parametrize("rounds, title", [
    (6, "times, 6 samples, medians with their 95 % intervals"),
    (5, "times, 5 samples, medians without intervals: a 95 % interval needs 6 samples"),
    (1, "times, 1 sample, medians without intervals: a 95 % interval needs 6 samples")])
def test_intervals_need_six_samples(command, measured, rounds, title):
    outcome = command("analyze", "--device", "cpu", "--rounds", rounds)
    assert title in outcome.out.splitlines()
    assert ("[500 ms, 500 ms]" in outcome.out) is (rounds == 6)
    assert (f"(n = {rounds})" in outcome.out) is (rounds < 6)


@pytest.mark.parametrize("settings, threads", [
    ({"threads": 1}, "1 thread on "), ({"threads": "2"}, "2 threads on "), ({"intra_op_threads": 3}, "3 threads on "),
    ({"intra_op_threads": 0}, ""), ({"OPENBLAS_NUM_THREADS": None, "OMP_NUM_THREADS": "1"}, "1 thread on "),
    ({"OMP_NUM_THREADS": "4,2"}, ""), ({}, "")])
def test_conditions_name_the_threads_that_were_used(command, measured, settings, threads):
    measured["settings"] = settings
    cpu, cores = machine.cpu()[0], machine.usable_cores()
    out = command("analyze", "--device", "cpu").out
    assert f"(mxnet float32 on {cpu}, {threads}{cores} cores)\n" in out
    assert f", {cpu}, {threads}{cores} cores, load" in out.splitlines()[-1]


def test_json_is_the_only_standard_output(command, measured):
    outcome = command("analyze", "--device", "cpu", "--json", "-")
    assert json.loads(outcome.out)["measured"]["backend"] == "mxnet"
    assert len(json.loads(outcome.out)["conclusions"]) == 4


def test_a_failed_measurement_is_reported_after_the_table(command, measured, monkeypatch):
    def fail(*words: Any, **options: Any) -> Any:
        raise BenchError("backend mxnet: step: it broke; the arithmetic alone (`measure=False`) needs none")
    monkeypatch.setattr(measurements, "measure", fail)
    outcome = command("analyze", "--device", "cpu", "--backend", "mxnet")
    assert_one_line(outcome, "backend mxnet: step: it broke", "--no-measure")
    assert "Computation: " in outcome.out


def test_analyze_measures_the_reference(command):
    """The reference runs in a process of its own, on a network that takes moments."""
    outcome = command("analyze", "--backend", "numpy", "--net", "lenet5", "--batch-size", "4", "--rounds", "1",
                      "--sample-seconds", "0.01")
    assert outcome.code == 0, outcome.err
    assert re.search(r"numpy float64 on .*cores\)", outcome.out)
    assert "numpy alone" in outcome.out or "does not report" in outcome.out


def test_analyze_without_a_framework_names_the_alternatives(command, installed):
    installed("numpy")
    assert_one_line(command("analyze"), "none of torch, tensorflow and mxnet", "--no-measure", "--backend numpy")


def test_missing_matplotlib_is_reported_before_the_measurement(command, measured, monkeypatch):
    monkeypatch.setitem(sys.modules, "alexnet_mf.analysis.plot", None)
    assert_one_line(command("analyze", "--plot", "r.png"), "pip install matplotlib")
    assert not measured


# Impossible networks, in every verb that takes a network


@pytest.mark.parametrize("right, wrong, fragments", [
    ("kernel = 11", "kernel = 1_000_000_000", ["layer conv1", "line ", "1000000000"]),
    ("channels = 96", "channels = 1_000_000_000", ["layer conv1", "too large"]),
    ("units = 4096", "units = 1_000_000_000", ["layer fc6", "line ", "too large"]),
    ("224, 224", "28, 28", ["layer pool2", "kernel 3 is larger than its padded input 2x2", "line "]),
    ("stride = 4", "strides = 4", ["layer conv1", "unknown key 'strides', perhaps 'stride'"]),
    ("[[layers]]", "[[layers]", ["not TOML", "line "])],
    ids=["kernel", "channels", "units", "input too small", "key", "malformed"])
@pytest.mark.parametrize("words", [TABLE, ["train", "--backend", "numpy"], ["bench", "--backends", "numpy"], ["parity"],
                                   ["shapes", "--backend", "numpy"]], ids=lambda words: words[0])
def test_an_impossible_network_is_refused_before_weights_are_drawn(command, words, right, wrong, fragments,
                                                                   monkeypatch):
    monkeypatch.setattr(parameters, "initialize", lambda *arguments, **options: pytest.fail("weights were drawn"))
    text = toml.dump(zoo.ALEXNET)
    assert right in text
    Path("net.toml").write_text(text.replace(right, wrong, 1), encoding="utf-8")
    outcome = command(*words, "--net", "net.toml")
    assert_one_line(outcome, "net.toml", *fragments)
    assert outcome.out == ""


# plot filters


def test_plot_filters_draws_a_weights_file(command, tmp_path):
    parameters.save(tmp_path / "w.safetensors", parameters.initialize(zoo.LENET5, 0),
                    {"network": spec.as_dict(zoo.LENET5)})
    outcome = command("plot", "filters", "w.safetensors", "--plot", "f.png")
    assert (outcome.code, outcome.out, outcome.err) == (0, "f.png: 6 filters of conv1 of lenet5\n", "")
    assert Path("f.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words, fragments", [
    (["gone.safetensors", "--plot", "f.png"], ["gone.safetensors: cannot be read (No such file"]),
    (["text.safetensors", "--plot", "f.png"], ["text.safetensors: cannot be read as safetensors"]),
    ([".", "--plot", "f.png"], [".: has no weights.safetensors; name a weights file"]),
    (["dense.safetensors", "--plot", "f.png"], ["network dense has no convolution"]),
    (["dense.safetensors", "--plot", "f.png", "--net", "lenet"], ["unknown network 'lenet'"]),
    (["dense.safetensors", "--plot", "f.png", "--net", "lenet5"], ["weights of dense, which differs from lenet5"]),
    (["dense.safetensors", "--plot", "/nowhere/f.png"], ["/nowhere/f.png: cannot be written"]),
    (["dense.safetensors"], ["--plot"]),
    ([], ["RUN|WEIGHTS"]),
])
def test_plot_filters_reports_errors_in_one_line(command, tmp_path, words, fragments):
    dense = spec.Network("dense", (1, 2, 2), (layers.Flatten("flatten"), layers.Dense("fc1", units=2)))
    parameters.save(tmp_path / "dense.safetensors", parameters.initialize(dense, 0), {"network": spec.as_dict(dense)})
    (tmp_path / "text.safetensors").write_text("no tensors", encoding="utf-8")
    assert_one_line(command("plot", "filters", *words), *fragments)
    assert not (tmp_path / "f.png").exists()


def test_free_memory_is_checked_only_without_a_gpu(command, measured, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**6)
    monkeypatch.setattr(machine, "gpus", lambda: [{"name": "GPU"}])
    assert command("analyze").code == 0
    assert_one_line(command("analyze", "--device", "cpu", "--backend", "mxnet"), "does not fit",
                    "not even a single image fits")
