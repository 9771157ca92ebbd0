"""`predict` and `evaluate`: output, files and refusals."""

from __future__ import annotations

import dataclasses
import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet_mf import backends, data, spec
from alexnet_mf.evaluation import evaluate
from alexnet_mf.spec import Preprocessing, layers, zoo
from alexnet_mf.spec.preprocessing import FASHION_MNIST
from alexnet_mf.weights import parameters


@pytest.fixture
def trained(quick, command):
    """Train for two epochs in `first`, and return the last line of the metrics."""
    done = command("train", "--backend", "numpy", "--data", "synthetic", "--batch-size", "8", "--epochs", "2", "--lr",
                   "0.05", "--out", "first", "--quiet")
    assert done.code == 0, done.err
    return json.loads(Path("first/metrics.jsonl").read_text().splitlines()[-1])


@pytest.fixture
def pictures(trained):
    """Write three test images to `pictures`, and return their pixels."""
    Path("pictures").mkdir()
    images = data.synthetic.draw(0).test.images[:3]
    for number, image in enumerate(images):
        Image.fromarray(image).save(f"pictures/{number}.png")
    return images


# evaluate


def test_evaluate_reproduces_the_results_of_a_run(command, trained):
    done = command("evaluate", "first")
    assert done.code == 0, done.err
    assert "using --backend" not in done.err and done.lines[0].startswith("alexnet in numpy ")
    assert done.lines[0].endswith("weights first/weights.safetensors")
    assert done.lines[1] == "synthetic garments drawn with seed 0: 32 test images"
    closing = re.fullmatch(r"test loss (\d\.\d{3}), test acc (\d\.\d{3}), top-5 acc \d\.\d{3} on 32 images, "
                           r"\d+\.\d images/s on cpu", done.lines[-1])
    assert closing, done.lines[-1]
    assert closing[1] == f"{trained['test_loss']:.3f}" and closing[2] == f"{trained['test_accuracy']:.3f}"


def test_the_table_the_matrix_and_the_json_agree(command, trained):
    done = command("evaluate", "first", "--json", "e.json")
    report = json.loads(Path("e.json").read_text())
    assert report["loss"] == pytest.approx(trained["test_loss"], rel=1e-7)
    assert report["accuracy"] == trained["test_accuracy"] == np.trace(report["confusion"]) / 32
    assert [entry["class"] for entry in report["classes"]] == list(data.FASHION_CLASSES)
    assert report["data"].startswith("synthetic") and report["backend"] == "numpy" and report["images_per_second"] > 0
    matrix = done.lines.index("true class (row) and predicted class (column)") + 2
    for label, name in enumerate(data.FASHION_CLASSES):
        entry, row = report["classes"][label], report["confusion"][label]
        images = sum(row)
        cells = next(line for line in done.lines if re.match(rf"{name}  ", line)).removeprefix(name).split()
        assert cells[:2] == [str(images), str(row[label])] and entry["images"] == images
        assert entry["accuracy"] == (row[label] / images if images else None)
        assert done.lines[matrix + label].startswith(f"{label} {name}")
        assert [int(cell.replace(".", "0")) for cell in done.lines[matrix + label].split()[-10:]] == row
    mistakes = report["mistakes"]
    assert len(mistakes) == min(30, 32 - round(32 * report["accuracy"]))
    assert [wrong["probability"] for wrong in mistakes] == sorted(wrong["probability"] for wrong in mistakes)[::-1]
    labels = data.synthetic.draw(0).test.labels
    assert all(wrong["label"] == labels[wrong["image"]] != wrong["predicted"] for wrong in mistakes)


def test_json_is_the_only_standard_output_and_quiet_prints_the_last_line(command, trained):
    done = command("evaluate", "first", "--json", "-", "--limit-test", "5")
    assert json.loads(done.out)["images"] == 5 and done.err == ""
    assert re.fullmatch(r"test loss .*\n", command("evaluate", "first", "--quiet").out)


def test_weights_best_evaluates_the_best_weights(command, trained, small_alexnet):
    best = parameters.initialize(small_alexnet, 5)
    parameters.save(Path("first/weights-best.safetensors"), best, {"network": spec.as_dict(small_alexnet)})
    for words, digest in ([], parameters.digest(parameters.load(Path("first/weights.safetensors"), small_alexnet))), \
            (["--which", "best"], parameters.digest(best)):
        report = json.loads(command("evaluate", "first", *words, "--json", "-", "--limit-test", "1").out)
        assert report["weights_sha256"] == digest


def test_evaluate_reports_other_images_than_the_run_had(command, trained, monkeypatch):
    draw = data.synthetic.draw
    monkeypatch.setattr(data.synthetic, "draw", lambda seed: draw(seed + 1))
    done = command("evaluate", "first", "--quiet")
    assert done.code == 0 and done.err.startswith("first: was trained on synthetic garments drawn with seed 0; these")


@pytest.mark.parametrize("file, backend", [
    ("w.pt", "torch"), ("w.weights.h5", "tensorflow"), ("w.params", "mxnet"), ("w.npz", "numpy")])
def test_a_native_file_is_evaluated_in_its_framework(command, trained, pictures, requires, file, backend):
    """An .npz file belongs to no framework and needs `--backend`."""
    requires(backend)
    assert command("convert", "first", file).code == 0
    words = ["--net", "alexnet", *(["--backend", "numpy"] if backend == "numpy" else [])]
    report = json.loads(command("evaluate", file, *words, "--data", "synthetic", "--json", "-").out)
    assert (report["backend"], report["weights"]) == (backend, file)
    assert report["loss"] == pytest.approx(trained["test_loss"], rel=1e-5)
    run = json.loads(command("predict", "first", "pictures", "--json", "-").out)
    same = json.loads(command("predict", file, "pictures", "--net", "alexnet", "--backend", "numpy",
                              "--json", "-").out)
    assert same["weights_sha256"] == run["weights_sha256"] == report["weights_sha256"]
    tops = [[[(top["label"], top["probability"]) for top in image["top"]] for image in report["images"]]
            for report in (run, same)]
    assert tops[0] == tops[1]


def test_a_native_file_of_another_network_is_refused(command, requires):
    """An .npz file does not name its network."""
    parameters.save(Path("w"), parameters.initialize(zoo.LENET5, 0), {"network": spec.as_dict(zoo.LENET5)})
    assert command("convert", "w", "w.npz").code == 0
    done = command("evaluate", "w.npz", "--backend", "numpy", "--data", "synthetic")
    assert done.code == 2 and done.out == "" and len(done.err.splitlines()) == 1
    assert "its tensors fit lenet5 and lenet5-relu: name the network with --net" in done.err
    done = command("evaluate", "w.npz", "--net", "alexnet", "--backend", "numpy", "--data", "synthetic")
    assert done.code == 2 and "w.npz: not the parameters of alexnet: " in done.err
    assert command("evaluate", "w.npz", "--net", "lenet5", "--backend", "numpy", "--data", "synthetic",
                   "--limit-test", "4").code == 0


def test_an_evaluation_in_another_backend_gives_the_same_loss(command, trained, backend_name):
    report = json.loads(command("evaluate", "first", "--backend", backend_name, "--json", "-").out)
    assert report["backend"] == backend_name
    assert report["loss"] == pytest.approx(trained["test_loss"], rel=1e-5)


def test_a_run_of_a_missing_backend_is_evaluated_in_another_backend(command, trained, requires, installed):
    requires("torch")
    installed("torch")
    done = command("evaluate", "first", "--limit-test", "4")
    assert "first: was trained in numpy, which is not installed here (pip install numpy)" in done.err
    assert "using --backend torch, the first installed of" in done.err and " in torch " in done.lines[0]


def test_evaluate_draws_a_picture(command, trained):
    assert command("evaluate", "first", "--plot", "e.png", "--quiet").code == 0
    with Image.open("e.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000


@pytest.mark.parametrize("verb", [("evaluate",), ("predict", "x.png")], ids=["evaluate", "predict"])
@pytest.mark.parametrize("source, message", [
    ("gone", "gone: cannot be read (No such file or directory); name a weights file or a run folder"),
    (".", ".: has no weights.safetensors; "), ("a" * 300, "a" * 80 + "...: File name too long"),
    ("text", "text: unrecognized weights format; supported: safetensors, torch, "),
    ("w.safetensors", "w.safetensors: cannot be read as safetensors")])
def test_a_source_without_weights_is_refused(command, small_alexnet, verb, source, message):
    Path("text").write_text("text")
    Path("w.safetensors").write_text("text")
    done = command(verb[0], source, *verb[1:], "--backend", "numpy")
    assert done.code == 2 and done.err.startswith(f"alexnet-mf: error: {message}") and len(done.err.splitlines()) == 1


def test_colors_of_unknown_normalization_are_not_evaluated(command, requires):
    network = spec.Network("color", (3, 8, 8), (layers.Flatten("f"), layers.Dense("d", units=10)))
    parameters.save(Path("w"), parameters.initialize(network, 0), {"network": spec.as_dict(network)})
    done = command("evaluate", "w", "--backend", "numpy", "--data", "synthetic")
    assert done.code == 2
    assert "does not state how the colors of its pictures were normalized" in done.err


# predict


def test_predict_prints_classes_and_probabilities(command, trained, pictures):
    done = command("predict", "first", "pictures", "--json", "p.json", "--top", "2")
    assert done.code == 0 and done.err == "", done.err
    assert done.lines[1].startswith("preprocessing: gray; resized to fit 28x28")
    assert done.lines[2].split() == ["picture", "class", "probability", "then"]
    report = json.loads(Path("p.json").read_text())
    assert report["unreadable"] == [] and report["preprocessing"] in done.lines[1]
    model = backends.load("numpy").build(zoo.get_network("alexnet"), parameters.load(
        Path("first/weights.safetensors"), zoo.get_network("alexnet")), "cpu")
    logits = model.logits(model.place(pictures, np.zeros(3, np.int64)), 8)
    for number, (line, entry, row) in enumerate(zip(done.lines[3:], report["images"], logits, strict=True)):
        best = np.argsort(-row)[:2]
        shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        names = [data.FASHION_CLASSES[label] for label in best]
        assert re.fullmatch(rf"pictures/{number}\.png +{names[0]} +{shares[best[0]]:.3f}  {names[1]} "
                            rf"{shares[best[1]]:.3f}", line), line
        assert entry["image"] == f"pictures/{number}.png"
        assert [each["class"] for each in entry["top"]] == names
        assert [each["probability"] for each in entry["top"]] == pytest.approx(shares[best].tolist())


def test_unreadable_pictures_are_reported_and_the_others_classified(command, trained, pictures):
    Path("pictures/1.png").write_text("text")
    Path("bad\nname\x1b[2J.png").write_text("text")
    Path("empty").mkdir()
    done = command("predict", "first", "pictures", "empty", "bad\nname\x1b[2J.png", "gone.png", "--json", "p.json")
    assert done.code == 1
    assert [line.split()[0] for line in done.lines[3:]] == ["pictures/0.png", "pictures/2.png"]
    errors = done.err.splitlines()
    assert len(errors) == 4
    assert errors[0].startswith("pictures/1.png: is no JPEG, PNG, WebP, BMP, GIF or TIFF picture")
    assert errors[1].startswith("empty: has no picture by the names of its files")
    assert errors[2].startswith("bad\\nname\\x1b[2J.png: is no JPEG, PNG")
    assert errors[3] == "gone.png: cannot be read (No such file or directory)"
    assert len(json.loads(Path("p.json").read_text())["unreadable"]) == 4


def test_predict_without_a_readable_picture_prints_no_table(command, trained):
    done = command("predict", "first", "gone.png", "--plot", "sheet.png", "--quiet")
    assert done.code == 1 and done.out == "" and not Path("sheet.png").exists()
    assert done.err.splitlines()[-1] == "sheet.png: not written: no picture could be read"


def test_predict_draws_a_contact_sheet_of_an_idx_file(command, trained, pictures):
    many = np.concatenate([pictures] * 30)
    Path("x").write_bytes(struct.pack(">4I", 0x803, 90, 28, 28) + many.tobytes())
    done = command("predict", "first", "x", "--plot", "sheet.png", "--quiet", "--top", "1")
    assert done.code == 0 and done.err == "sheet.png: first 60 of 90 pictures\n"
    assert len(done.lines) == 91 and done.lines[-1].startswith("x[89]  ")
    assert done.lines[0].split() == ["picture", "class", "probability"]
    with Image.open("sheet.png") as picture:
        assert picture.format == "PNG"


def test_invert_restores_inverted_pictures(command, trained, pictures):
    for number, image in enumerate(pictures):
        Image.fromarray(255 - image).save(f"pictures/{number}.png")
    dark, inverted = (command("predict", "first", "pictures", *words) for words in ([], ["--invert"]))
    Path("x").write_bytes(struct.pack(">4I", 0x803, 3, 28, 28) + pictures.tobytes())
    light = command("predict", "first", "x")

    def rows(done):
        return [line.split(maxsplit=1)[1].split() for line in done.lines[3:]]

    assert rows(inverted) == rows(light) != rows(dark)
    assert "gray, inverted;" in inverted.lines[1] and "inverted" not in dark.lines[1]


def test_class_names_are_read_from_a_file(command, trained, pictures):
    Path("names").write_text("".join(f"kind {i}\r\n" for i in range(10)) + "\n")
    assert re.search(r"kind \d +0\.\d{3}  kind \d 0\.\d{3}, kind \d ", command("predict", "first", "pictures",
                                                                             "--classes", "names").out)
    Path("names").write_text("".join(f"Größe {i}\n" for i in range(10)), encoding="utf-16")  # as PowerShell's > writes
    assert re.search(r"Größe \d +0\.\d{3} ", command("predict", "first", "pictures", "--classes", "names").out)
    for content, message in ((b"one\ntwo\n", "--classes has 2 names, but alexnet has 10 classes"),
                             (b"\xff\xfe", "--classes must have at least one item"),
                             ("Größe".encode("latin-1"), "names: is not UTF-8 text (byte 0xf6 at position 2)")):
        Path("names").write_bytes(content)
        done = command("predict", "first", "pictures", "--classes", "names")
        assert done.code == 2 and message in done.err
    assert "gone: cannot be read" in command("predict", "first", "pictures", "--classes", "gone").err


def save(path: str, network: spec.Network, **metadata: Any) -> None:
    parameters.save(Path(path), parameters.initialize(network, 0), {"network": spec.as_dict(network), **metadata})


def test_predict_uses_the_names_and_the_preprocessing_that_a_run_carries(command, trained, pictures):
    metadata = parameters.read_header(Path("first/weights-best.safetensors")).metadata
    assert metadata["classes"] == list(data.FASHION_CLASSES)
    assert Preprocessing.from_dict(metadata["preprocessing"]) == FASHION_MNIST
    network = zoo.get_network("alexnet")
    record = dataclasses.replace(FASHION_MNIST, mean=(0.3,), std=(0.2,))
    save("w.safetensors", network, classes=[f"kind\n{i}" for i in range(10)], preprocessing=record.as_dict())
    words = ["w.safetensors", "pictures", "--backend", "numpy"]
    done = command("predict", *words)
    assert done.code == 0 and done.lines[1] == (
        "preprocessing: gray; resized to fit 28x28, centered on black; scaled to [0, 1], normalized by mean 0.3 and "
        "standard deviation 0.2")
    assert re.search(r"kind\\n\d +0\.\d{3}  kind\\n\d 0\.\d{3}, ", done.out)
    plain = command("predict", *words, "--no-normalize", "--json", "-")
    assert json.loads(plain.out)["preprocessing"] == FASHION_MNIST.describe()
    other = json.loads(command("predict", *words, "--json", "-").out)
    assert other["images"] != json.loads(plain.out)["images"]
    model = backends.load("numpy").build(network, parameters.load(Path("w.safetensors"), network), "cpu")
    inputs = (pictures[:, None].astype(np.float32) / 255 - 0.3) / 0.2
    logits = model.logits(model.place(inputs.astype(np.float32), np.zeros(3, np.int64)), 8)
    assert [entry["top"][0]["label"] for entry in other["images"]] == logits.argmax(axis=1).tolist()


def test_predict_refuses_to_guess_the_normalization_of_colors(command, small_alexnet):
    network = spec.Network("color", (3, 8, 8), (layers.Flatten("f"), layers.Dense("d", units=2)))
    save("w.safetensors", network)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8)).save("a.png")
    words = ["predict", "w.safetensors", "a.png", "--backend", "numpy"]
    done = command(*words)
    assert done.code == 2 and done.out == ""
    assert done.err == ("alexnet-mf: error: w.safetensors: does not state how the colors of its pictures were "
                        "normalized; give --mean and --std, or --no-normalize if they were only scaled to [0, 1]\n")
    for flags, steps in (
            (["--no-normalize"], "shorter side resized to 8, center crop of 8x8; scaled to [0, 1]"),
            (["--mean", "0.5,0.4,0.3", "--std", "1,2,3", "--resize", "9"], "shorter side resized to 9, center crop of "
             "8x8; scaled to [0, 1], normalized by mean 0.5, 0.4, 0.3 and standard deviation 1, 2, 3"),
            (["--no-normalize", "--resize", "9x12", "--crop", "8"], "resized to 9x12, center crop of 8x8; scaled to "
             "[0, 1]"), (["--no-normalize", "--resize", "8x8"], "resized to 8x8; scaled to [0, 1]")):
        done = command(*words, *flags)
        assert done.code == 0, done.err
        assert done.lines[1] == f"preprocessing: red, green, blue; {steps}"


@pytest.mark.parametrize("flags, message", [
    (["--mean", "0.5"], "--mean and --std belong together; give both"),
    (["--mean", "x", "--std", "1"], "argument --mean: must be numbers, comma-separated, not 'x'"),
    (["--resize", "1x2x3"], "argument --resize: must be N or HxW in pixels, not '1x2x3'"),
    (["--crop", "0"], "argument --crop: must be a whole number of at least 1, not '0'"),
    (["--resize", "300x300", "--crop", "300"], "but the preprocessing gives 300x300 pixels; use --resize and --crop"),
    (["--mean", "1", "--std", "1", "--no-normalize"], "--no-normalize contradicts --mean and --std; leave it out")])
def test_wrong_preprocessing_flags_are_refused(command, trained, pictures, flags, message):
    done = command("predict", "first", "pictures", *flags)
    assert done.code == 2 and message in done.err and len(done.err.splitlines()) == 1


def test_evaluate_normalizes_and_names_classes_as_the_weights_state(command, trained):
    network, record = zoo.get_network("alexnet"), dataclasses.replace(FASHION_MNIST, mean=(0.3,), std=(0.2,))
    save("w.safetensors", network, classes=list("abcdefghij"), preprocessing=record.as_dict())
    save("plain.safetensors", network)
    Path("names").write_text("\n".join("abcdefghij"))
    words = ["--backend", "numpy", "--data", "synthetic", "--json", "-"]
    refused = command("evaluate", "w.safetensors", *words)
    assert refused.code == 2 and "has the classes a, b, c, d, e, f, g, h, i, j, but synthetic garments" in refused.err
    unnamed = command("evaluate", "plain.safetensors", *words)
    assert unnamed.err.startswith("plain.safetensors: does not name its classes; class 0 is taken for t-shirt, ")
    report, plain = (json.loads(done.out) for done in (
        command("evaluate", "w.safetensors", *words, "--classes", "names"), unnamed))
    assert [entry["class"] for entry in report["classes"]] == list("abcdefghij")
    assert [entry["class"] for entry in plain["classes"]] == list(data.FASHION_CLASSES)
    model = backends.load("numpy").build(network, parameters.load(Path("w.safetensors"), network), "cpu")
    test = data.synthetic.draw(0).test
    inputs = ((test.images[:, None] / 255 - 0.3) / 0.2).astype(np.float32)
    assert report["loss"] == pytest.approx(evaluate(model, data.LabeledImages(inputs, test.labels)).loss, rel=1e-6)
    assert report["loss"] != pytest.approx(plain["loss"], rel=1e-3)


@pytest.mark.parametrize("entries, message", [
    ({"preprocessing": {"color": "red"}}, "has a wrong entry in its metadata (preprocessing: color must be one of"),
    ({"preprocessing": 3}, "has a wrong entry in its metadata (preprocessing: must have a color and other"),
    ({"classes": ["a", 3]}, "has a wrong entry in its metadata (classes must be a list of names); correct"),
    ({"classes": "abcdefghij"}, "(classes must be a list of names)"),
    ({"classes": ["a", "b"]}, "has 2 class names, but alexnet has 10 classes; correct or remove the names in its")])
def test_wrong_entries_of_a_file_are_refused(command, small_alexnet, entries, message):
    save("w.safetensors", small_alexnet, **entries)
    for verb in (["evaluate", "w.safetensors"], ["predict", "w.safetensors", "a.png"],
                 ["convert", "w.safetensors", "copy.safetensors"]):
        done = command(*verb)
        assert done.code == 2 and done.err.startswith("alexnet-mf: error: w.safetensors: ") and message in done.err
        assert len(done.err.splitlines()) == 1
    assert not Path("copy.safetensors").exists()


def test_missing_matplotlib_is_reported_before_the_work(command, trained, pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "alexnet_mf.plots.drawing", None)
    for words in (["predict", "first", "pictures"], ["evaluate", "first"]):
        done = command(*words, "--plot", "x.png")
        assert done.code == 2 and done.out == "" and "--plot needs matplotlib" in done.err
