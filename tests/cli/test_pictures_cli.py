"""Pictures of one's own, from the folder to the answer: `data`, `train`, `evaluate`, `predict`, `sweep` and `bench`."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import photographs
import pytest
from console import Outcome
from PIL import Image

import alexnet_mf
from alexnet_mf import api, backends
from alexnet_mf.data.preprocessing import prepare
from alexnet_mf.spec import Preprocessing, toml
from alexnet_mf.spec.layers import Conv2d, Dense, Dropout, Flatten, MaxPool2d
from alexnet_mf.spec.network import Network
from alexnet_mf.training import feed
from alexnet_mf.weights import parameters

COUNT = 24
NETWORK = Network("tiny", (3, 32, 32), (
    Conv2d("conv1", channels=4, kernel=5, stride=4), MaxPool2d("pool1", 2, 2), Flatten("flatten"),
    Dropout("drop1", 0.25), Dense("fc2", units=10)))
TRAIN = ["train", "--net", "tiny.toml", "--epochs", "2", "--batch-size", "8", "--lr", "0.05", "--momentum", "0.9",
         "--quiet"]


@pytest.fixture(scope="session")
def source_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write photographs of four classes, 40 to 120 pixels on a side."""
    return photographs.write(tmp_path_factory.mktemp("photographs"), COUNT, (40, 120))


@pytest.fixture
def photos(source_photographs: Path, tmp_path: Path) -> Path:
    """Return a copy of the photographs in the working folder, and write `tiny.toml`."""
    Path("tiny.toml").write_text(toml.dump(NETWORK))
    shutil.copytree(source_photographs, "photos")
    return Path("photos")


def as_levels(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Return 32x32 levels and the class of each picture of a folder of class folders."""
    paths = sorted(folder.glob("*/*.jpg"))
    small = Preprocessing("rgb", resize=32, crop=(32, 32))
    return np.stack([prepare(Image.open(path), small) for path in paths]), [path.parent.name for path in paths]


def in_shards(photos: Path) -> str:
    Path("shards").mkdir()
    for part in ("train", "test"):
        paths = sorted((photos / part).glob("*/*.jpg"))
        for half in range(2):
            with tarfile.open(f"shards/{part}-{half}.tar", "w") as archive:
                for path in paths[half::2]:
                    for ending, content in (("jpg", path.read_bytes()), ("cls", path.parent.name.encode())):
                        member = tarfile.TarInfo(f"{path.stem}.{ending}")
                        member.size = len(content)
                        archive.addfile(member, io.BytesIO(content))
    return "shards"


def in_parquet(photos: Path) -> str:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    Path("parquet").mkdir()
    for part in ("train", "test"):
        paths = sorted((photos / part).glob("*/*.jpg"))
        table = pyarrow.table({"image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths],
                               "label": [path.parent.name for path in paths]})
        parquet.write_table(table, f"parquet/{part}.parquet", row_group_size=5)
    return "parquet"


def in_cifar(photos: Path) -> str:
    Path("cifar").mkdir()
    names = sorted(path.name for path in (photos / "train").iterdir())
    Path("cifar/batches.meta.txt").write_text("\n".join(names))
    for part in ("train", "test"):
        levels, labels = as_levels(photos / part)
        records = b"".join(bytes([names.index(label)]) + image.transpose(2, 0, 1).tobytes()
                           for image, label in zip(levels, labels))
        files = [f"data_batch_{number}" for number in range(1, 6)] if part == "train" else ["test_batch"]
        for number, name in enumerate(files):  # the training images in one file, others hold the first again
            Path(f"cifar/{name}.bin").write_bytes(records if number == 0 else records[:3073])
    return "cifar"


def in_idx(photos: Path) -> str:
    Path("idx").mkdir()
    for part, begin in (("train", "train"), ("test", "t10k")):
        levels, labels = as_levels(photos / part)
        gray = levels.mean(axis=3).astype(np.uint8)
        numbers = np.array([sorted(set(labels)).index(label) + 1 for label in labels], np.uint8)  # labels from 1
        Path(f"idx/{begin}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(struct.pack(">4I", 0x803, *gray.shape) + gray.tobytes()))
        Path(f"idx/{begin}-labels.idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, len(numbers)) + numbers.tobytes())
    return "idx"


SOURCES: dict[str, Callable[[Path], str]] = {"class folders": str, "shards": in_shards, "parquet": in_parquet,
                                             "cifar": in_cifar, "idx": in_idx}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_source_is_trained_and_evaluated(command, photos, backend_name, make):
    data = make(photos)
    done = command(*TRAIN, "--backend", backend_name, "--data", data, "--out", "run")
    assert done.code == 0, done.err
    assert f"network tiny gets 4 classes{' and 1 channel' if data == 'idx' else ''}, as " in done.err
    run = json.loads(Path("run/run.json").read_text())
    names = ["1", "2", "3", "4"] if data == "idx" else ["astronaut", "chelsea", "coffee", "hubble_deep_field"]
    assert run["classes"] == names
    losses = alexnet_mf.load_run("run").epochs
    assert all(np.isfinite(epoch.loss) for epoch in losses)
    tested = command("evaluate", "run", "--json", "e.json")
    assert tested.code == 0, tested.err
    report = json.loads(Path("e.json").read_text())
    assert report["loss"] == pytest.approx(losses[-1].test_loss, rel=1e-6)
    assert report["accuracy"] == losses[-1].test_accuracy
    assert [entry["class"] for entry in report["classes"]] == names


def test_pictures_from_folders_shards_and_parquet_train_alike(command, photos):
    """The same pictures in the same order give the same numbers, prepared or decoded in each epoch."""
    weights = set()
    for data, more in (("photos", []), (in_shards(photos), []), (in_parquet(photos), ["--no-store"])):
        assert command(*TRAIN, "--backend", "numpy", "--data", data, *more, "--out", f"run-{data}",
                       "--augment", "none", "--dropout", "0", "--batch-size", "1000").code == 0
        weights.add(round(alexnet_mf.load_run(f"run-{data}").epochs[1].test_loss, 9))
    assert len(weights) == 1, "one batch of all: the order within shards does not matter"


def test_an_answer_has_the_names_of_the_classes_and_the_pixels_of_the_evaluation(command, photos):
    """`predict` prepares a file as the store does."""
    assert command(*TRAIN, "--backend", "numpy", "--data", "photos", "--out", "run").code == 0
    names = sorted(path.name for path in (photos / "test").iterdir())
    assert command("evaluate", "run", "--json", "e.json", "--quiet").code == 0
    done = command("predict", "run", *[str(photos / "test" / name) for name in names], "--json", "p.json", "--top", "4")
    assert done.code == 0 and "red, green, blue; shorter side resized to 40, center of 40x40, center crop of 32x32" in \
        done.out
    answers = json.loads(Path("p.json").read_text())["images"]
    evaluated = json.loads(Path("e.json").read_text())
    right = sum(answer["top"][0]["class"] == Path(answer["image"]).parent.name for answer in answers)
    assert right == round(evaluated["accuracy"] * len(answers))
    losses = [-np.log(next(one["probability"] for one in answer["top"]
                           if one["class"] == Path(answer["image"]).parent.name)) for answer in answers]
    assert np.mean(losses) == pytest.approx(evaluated["loss"], rel=1e-6)
    mistake = evaluated["mistakes"][0]
    assert mistake["name"].startswith("photos/test/") or "/photos/test/" in mistake["name"]


def test_weights_travel_with_their_classes_to_other_folders(command, photos):
    """Another order of the classes is mapped by name; other classes are refused with both lists."""
    assert command(*TRAIN, "--backend", "numpy", "--data", "photos", "--out", "run").code == 0
    first = command("evaluate", "run", "--json", "-")
    Path("renamed").write_text("zebra\nyak\nxerus\nwolf\n")
    refused = command("evaluate", "run", "--data", "photos", "--classes", "renamed")
    assert refused.code == 2
    assert "has the classes astronaut, chelsea, coffee, hubble_deep_field, but" in refused.err
    assert "zebra, yak, xerus, wolf" in refused.err and len(refused.err.splitlines()) == 1
    weights, header = parameters.load_with_metadata(Path("run/weights.safetensors"), alexnet_mf.load_run("run").network)
    order = [2, 0, 3, 1]
    moved = {name: value[order] if name.startswith("fc2") else value for name, value in weights.items()}
    header = {**header, "classes": [header["classes"][label] for label in order]}
    parameters.save(Path("moved.safetensors"), moved, header)
    again = command("evaluate", "moved.safetensors", "--data", "photos", "--backend", "numpy", "--json", "-")
    assert again.code == 0, again.err
    ours, theirs = json.loads(first.out), json.loads(again.out)
    assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-9)
    assert [entry["class"] for entry in theirs["classes"]] == header["classes"]
    assert {entry["class"]: entry["correct"] for entry in theirs["classes"]} == {
        entry["class"]: entry["correct"] for entry in ours["classes"]}


def test_weights_continue_on_the_same_classes_alone(command, photos):
    assert command(*TRAIN, "--backend", "numpy", "--data", "photos", "--out", "run").code == 0
    words = [word for word in TRAIN if word not in ("--net", "tiny.toml")]
    done = command(*words, "--backend", "numpy", "--weights", "run", "--data", "photos", "--out", "more")
    assert done.code == 0, done.err
    refused = command(*words, "--backend", "numpy", "--weights", "run", "--data", in_idx(photos), "--out", "other")
    assert refused.code == 2 and "has the classes astronaut, chelsea" in refused.err
    assert not Path("other").exists()


def test_a_data_set_that_changed_is_not_resumed(command, photos):
    stopping = [*TRAIN, "--backend", "numpy", "--data", "photos", "--out", "run"]
    assert command(*stopping, "--epochs", "1").code == 0
    shutil.move("photos", "elsewhere")
    gone = command("train", "--resume", "run", "--epochs", "2", "--quiet")
    assert gone.code == 2 and "run: its images are no longer in " in gone.err
    assert "photos; name their new place with --data" in command("evaluate", "run").err
    moved = command("train", "--resume", "run", "--epochs", "2", "--quiet", "--data", "elsewhere")
    assert moved.code == 0, moved.err
    assert Path(json.loads(Path("run/run.json").read_text())["source"]["name"]).name == "elsewhere"
    assert command("evaluate", "run").code == 0, "the record knows the new place"
    whole = command(*[*stopping[:-1], "whole"], "--data", "elsewhere")
    assert whole.code == 0
    weights = [parameters.digest(alexnet_mf.load_run(folder).parameters()) for folder in ("run", "whole")]
    assert weights[0] == weights[1], "the same run as without the move"
    Image.new("RGB", (50, 50)).save(next(Path("elsewhere/train/coffee").iterdir()))
    changed = command("train", "--resume", "run", "--epochs", "3", "--quiet", "--data", "elsewhere")
    assert changed.code == 2 and "run: the images differ from those of the run (train: coffee/" in changed.err
    assert ".jpg is another picture); restore them, or name another place with --data" in changed.err
    (Path("elsewhere/test/coffee") / "new.jpg").write_bytes(next(Path("elsewhere/test/chelsea").iterdir()).read_bytes())
    more = command("train", "--resume", "run", "--epochs", "3", "--quiet", "--data", "elsewhere")
    assert more.code == 2 and "coffee/new.jpg is new" in more.err


def test_the_papers_augmentation_is_the_default_of_larger_pictures_alone(command, photos):
    words = [*(word for word in TRAIN if word != "--quiet"), "--backend", "numpy", "--data"]
    large = command(*words, "photos", "--out", "a")
    assert "augmented by flip, crop" in large.out
    small = command(*words, in_cifar(photos), "--out", "b")
    assert small.code == 0 and "augmented" not in small.out
    none = command(*words, "photos", "--augment", "none", "--out", "c")
    assert none.code == 0 and "augmented" not in none.out


def test_flags_change_the_runs_own_source(command, photos):
    """A moved folder keeps its share of test pictures."""
    shutil.rmtree("photos/test")
    shutil.move("photos/train", "flat")
    assert command(*TRAIN, "--backend", "numpy", "--data", "flat", "--test", "0.25", "--out", "run").code == 0
    shutil.move("flat", "moved")
    moved = command("train", "--resume", "run", "--epochs", "3", "--quiet", "--data", "moved")
    assert moved.code == 0, moved.err
    assert command("train", "--resume", "run", "--epochs", "4", "--quiet", "--no-store").code == 0
    assert json.loads(Path("run/run.json").read_text())["source"]["store"] is False
    other = command("train", "--resume", "run", "--epochs", "5", "--quiet", "--test", "0.5")
    assert other.code == 2 and "the images differ from those of the run" in other.err
    results = [command("evaluate", "run", *more, "--quiet", "--json", "-") for more in ([], ["--store", "again"])]
    assert all(each.code == 0 for each in results) and Path("again").is_dir()
    first, second = (json.loads(each.out) for each in results)
    assert first["loss"] == second["loss"] and first["images"] == second["images"] == 6
    refused = command("evaluate", "run", "--data-dir", "folder")
    assert refused.code == 2 and "--data-dir is for the built-in sets" in refused.err


def test_all_pictures_of_a_folder_can_be_tested_on(command, photos):
    assert command(*TRAIN, "--backend", "numpy", "--data", "photos", "--out", "run").code == 0
    (alone := Path("alone")).mkdir()
    shutil.copytree("photos/test", alone / "test")
    losses = set()
    for words in ([], ["--data", "photos/test", "--test", "1"], ["--data", "alone", "--test", "1"]):
        tested = command("evaluate", "run", *words, "--quiet", "--json", "-")
        assert tested.code == 0, tested.err
        losses.add(json.loads(tested.out)["loss"])
    assert len(losses) == 1
    assert "or test on all pictures with --test 1" in command("evaluate", "run", "--data", "alone").err
    refused = command(*TRAIN, "--backend", "numpy", "--data", "alone", "--test", "1", "--out", "other")
    assert refused.code == 2 and "none is left to train on; use a smaller --test" in refused.err
    surveyed = command("data", "alone", "--test", "1", "--plot", "sheet.png")
    assert surveyed.code == 0 and Path("sheet.png").exists()


def test_more_images_than_there_are_is_refused(command, photos):
    words = ["--net", "tiny.toml", "--backends", "numpy", "--data", "photos"]
    benched = command("bench", *words, "--batch-size", "2,8", "--epoch-batches", "4")
    assert benched.code == 2 and "has 24 training images, but 4 batches of 8 need 32; use a smaller" in benched.err
    assert "--batch-size or --epoch-batches" in benched.err
    proven = command("parity", *words, "--images", "25")
    assert proven.code == 2 and "has 24 test images, not 25; use a smaller --images" in proven.err


def test_the_preprocessing_is_shown(command, photos):
    words = [word for word in TRAIN if word != "--quiet"]
    shown = command(*words, "--backend", "numpy", "--data", "photos", "--out", "run")
    assert "pictures: red, green, blue; shorter side resized to 40, center of 40x40, center crop of 32x32" in shown.out


def test_parity_gives_the_network_the_pictures_classes_and_channels(command, photos):
    traced = command("parity", "trace", "--backend", "numpy", "--net", "lenet5-relu", "--data", "photos",
                     "--images", "12", "--batch-size", "2", "--steps", "2", "--out", "trace.safetensors")
    assert traced.code == 0, traced.err
    assert "network lenet5-relu gets 4 classes and 3 channels, as pictures in photos" in traced.err


def test_resized_crops_need_pictures_at_their_full_size(command, photos):
    words = [*TRAIN, "--backend", "numpy", "--data", "photos", "--augment", "flip,resized-crop"]
    refused = command(*words)
    assert refused.code == 2 and "resized-crop needs pictures at their full size" in refused.err
    assert "use --no-store" in refused.err
    assert command(*words, "--no-store", "--out", "run").code == 0
    assert alexnet_mf.load_run("run").recipe.augment == ("flip", "resized-crop")


@pytest.mark.parametrize("more", [[], ["--no-store"]], ids=["store", "decoded"])
def test_a_streamed_training_equals_one_on_the_device(command, photos, monkeypatch, more):
    results = []
    for most in (2**29, 0):
        monkeypatch.setattr(feed, "MOST_ON_CPU", most)
        done = command(*TRAIN, "--backend", "numpy", "--data", "photos", *more, "--out", f"run-{most}")
        assert done.code == 0, done.err
        results.append(parameters.digest(alexnet_mf.load_run(f"run-{most}").parameters()))
    assert results[0] == results[1]


def test_ten_crops_average_the_probabilities(command, photos):
    assert command(*TRAIN, "--backend", "numpy", "--data", "photos", "--out", "run").code == 0
    report = api.evaluate("run", ten_crop=True, progress=False)
    run = alexnet_mf.load_run("run")
    model = backends.load("numpy").build(run.network, run.parameters())
    levels, shares = report.test.images[:], []
    for left, top in ((0, 0), (8, 0), (0, 8), (8, 8), (4, 4)):
        crop = levels[:, top:top + 32, left:left + 32]
        for view in (crop, crop[:, :, ::-1]):
            logits = model.logits(model.place(np.ascontiguousarray(view), report.test.labels), 100)
            shares.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    mean = np.mean(shares, axis=0)
    assert report.evaluation.accuracy == (mean.argmax(axis=1) == report.test.labels).mean()
    assert report.evaluation.loss == pytest.approx(-np.log(mean[np.arange(COUNT), report.test.labels]).mean())
    assert command("evaluate", "run", "--ten-crop", "--quiet").code == 0
    refused = command("evaluate", "run", "--data", in_cifar(photos), "--ten-crop")
    assert refused.code == 0, "the weights' preprocessing gives larger pictures of these too"


def test_damaged_pictures_are_named_before_the_training(command, photos):
    paths = sorted((photos / "train" / "coffee").iterdir())
    paths[0].write_bytes(paths[0].read_bytes()[:300])
    paths[1].write_text("no picture")
    words = [*TRAIN, "--backend", "numpy", "--data", "photos", "--out", "run"]
    refused = command(*words)
    assert refused.code == 2 and str(paths[0]) in refused.err and str(paths[1]) in refused.err
    assert "--skip-damaged" in refused.err and not Path("run").exists()
    done = command(*words, "--skip-damaged")
    assert done.code == 0 and sum("; left out" in line for line in done.err.splitlines()) == 2
    listed = command("data", "photos")
    assert listed.code == 1 and str(paths[1]) in listed.err and "2 damaged" in listed.lines[-1]


# data


def test_data_shows_classes_numbers_and_sizes(command, photos):
    done = command("data", "photos", "--json", "d.json", "--plot", "sheet.png")
    assert done.code == 0, done.err
    assert done.lines[0].split() == ["class", "train", "test"]
    assert done.lines[1].split() == ["astronaut", "6", "6"] and "all                   24    24" in done.out
    assert "48 images of 4 classes, " in done.lines[-1] and ", in color, " in done.lines[-1]
    report = json.loads(Path("d.json").read_text())
    assert report["images"] == report["in_color"] == 48 and report["damaged"] == []
    sizes = [Image.open(path).size for path in photos.glob("*/*/*.jpg")]
    assert report["height_and_width"]["most"] == [max(high for _, high in sizes), max(wide for wide, _ in sizes)]
    assert report["file_bytes"] == sum(path.stat().st_size for path in photos.glob("*/*/*.jpg"))
    with Image.open("sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 500


def test_data_shows_built_in_sets(command, small_alexnet):
    done = command("data", "synthetic", "--quiet")
    assert done.lines == ["synthetic garments drawn with seed 0: 96 images of 10 classes, all 28x28 pixels, gray"]
    assert command("data", "nowhere").code == 2


# The other verbs


def test_a_sweep_trains_on_pictures(command, photos):
    words = ["sweep", "--backend", "numpy", "--net", "tiny.toml", "--data", "photos", "--store", "stores", "--epochs",
             "1", "--batch-size", "8", "--seeds", "0,1", "--lr", "0.05", "--out", "s", "--json", "s.json"]
    done = command(*words)
    assert done.code == 0, done.err
    record = json.loads(Path("s.json").read_text())
    assert record["complete"] and len(record["trainings"]) == 2
    assert record["networks"]["tiny.toml"]["name"] == "tiny-4-classes"
    assert record["data"]["source"]["name"] == str(photos.resolve())


def test_analyze_takes_the_classes_and_channels_of_pictures(command, photos):
    done = command("analyze", "--net", "lenet5", "--no-measure", "--data", "photos", "--json", "a.json")
    assert done.code == 0, done.err
    assert "network lenet5 gets 4 classes and 3 channels, as pictures in photos: lenet5-4-classes-color" in done.err


def test_bench_measures_input_and_epochs_of_pictures(command, photos, backend_name):
    done = command("bench", "--net", "tiny.toml", "--backends", backend_name, "--data", "photos", "--store", "stores",
                   "--phases", "input,step,epoch", "--rounds", "1", "--batch-size", "4", "--epoch-batches", "3",
                   "--sample-seconds", "0.01", "--json", "b.json")
    assert done.code == 0, done.err
    record = json.loads(Path("b.json").read_text())
    assert {result["phase"] for result in record["results"]} >= {"input", "step", "epoch"}
    assert record["plan"]["data"]["name"] == str(photos.resolve())


def test_the_ladder_takes_photographs(command, photos, backend_name):
    """Rung 2: every backend gets bit-identical pixels of photographs, cropped on its device."""
    done: Outcome = command("parity", "--net", "tiny.toml", "--backends", backend_name, "--data", "photos", "--store",
                            "stores", "--images", "24", "--batch-size", "2", "--steps", "3", "--json", "p.json")
    assert done.code == 0, done.out + done.err
    assert "photos" in done.lines[0]


def test_a_home_is_expanded_behind_an_equals_sign(command, photos, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    done = command(*TRAIN, "--backend", "numpy", "--data=~/photos", "--out=~/run")
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "run.json").exists() and not Path("~").exists()
