"""Parquet files: their columns, as Hugging Face and others write them, parts and classes, and every form of damage."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opened_sources import fault_of, opened
from PIL import Image

from alexnet_mf.data.prepare import prepare
from alexnet_mf.data.sources import parquet
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Preprocessing

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PREPROCESSING = Preprocessing("rgb", resize=16, crop=(16, 16))
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(seed: int, kind: str = "PNG") -> bytes:
    levels = np.random.default_rng(seed).integers(0, 256, (18 + seed % 5, 20, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(levels).save(content, kind)
    return content.getvalue()


PICTURES = [picture(number) for number in range(8)]


def images(*contents: bytes | None) -> Any:
    """Return the column that `datasets` writes."""
    return pa.array([None if content is None else {"bytes": content, "path": f"{number}.png"}
                     for number, content in enumerate(contents)], STRUCT)


def write(path: Path, labels: Any = (0, 1, 0, 1), names: Any = None, group: int = 3, **columns: Any) -> Path:
    """Write a file; the names of the classes go to its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if "image" not in columns and not any(name in columns for name in ("img", "picture")):
        columns = {"image": images(*(PICTURES * len(labels))[:len(labels)]), **columns}
    table = pa.table({**columns, **({} if labels is None else {"label": labels})})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group)
    return path


# Files and parts


@pytest.mark.parametrize("places", [
    ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"),
    ("train-0.parquet", "train-1.parquet", "validation.parquet"),
    ("train/0000.parquet", "train/0001.parquet", "test/0000.parquet")])
def test_the_parts_of_a_folder(tmp_path: Path, places: tuple[str, ...]) -> None:
    for number, place in enumerate(places):
        write(tmp_path / place, [number % 2, 1, 0, 1])
    data, notices = opened(tmp_path)
    assert (data.name, data.classes, len(data.test)) == ("parquet", ("0", "1"), 4)
    assert data.train.labels.tolist() == [0, 1, 0, 1, 1, 1, 0, 1]
    beginning = "data/" if places[0].startswith("data") else ""
    assert [f"{beginning}{name}" for name in data.train.pictures.names] == [
        f"{place}/{row}" for place in places[:2] for row in range(4)]
    assert data.train.pictures.name(5) == str(tmp_path / places[1] / "1")
    assert [data.train.pictures.read(number) for number in range(8)] == PICTURES[:4] * 2
    assert len(notices) == ("validation" in places[2])


def test_a_share_is_split_off_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "pets.parquet", [0, 1] * 10)
    assert "`test_share=0.2`" in fault_of(path)
    data, _ = opened(path, 0.2)
    assert (len(data.train), np.bincount(data.test.labels).tolist()) == (16, [2, 2])
    write(tmp_path / "more" / "x-1.parquet", [0, 1] * 5)
    write(tmp_path / "more" / "x-2.parquet", [0, 1] * 5)
    for several in (tmp_path / "more", tmp_path / "more" / "x-{1,2}.parquet"):
        assert len(opened(several, 0.5)[0].train) == 10


# Columns and classes


@pytest.mark.parametrize(("labels", "names", "classes", "numbers"), [
    ([3, 1, 10], None, ("1", "3", "10"), [1, 0, 2]),
    ([2, 0, 0], ["cat", "dog", "owl"], ("cat", "dog", "owl"), [2, 0, 0]),
    (["b", "a", " b"], None, ("a", "b"), [1, 0, 1]),
    (pa.array(["b", "a", "b"]).dictionary_encode(), None, ("a", "b"), [1, 0, 1]),
    (pa.array([1, 0, 1], pa.uint8()), None, ("0", "1"), [1, 0, 1]),
    ([0, 1, 2], ["crane", "owl", "Crane"], ("crane (0)", "owl", "Crane (2)"), [0, 1, 2]),
    ([0, 1, 1], {"damaged": 1}, ("0", "1"), [0, 1, 1])],
    ids=["numbers", "named", "texts", "dictionary", "bytes", "crane", "damaged names"])
def test_the_classes_are_the_labels(tmp_path: Path, labels: Any, names: Any, classes: Any, numbers: list[int]) -> None:
    for part in ("train", "test"):
        write(tmp_path / f"{part}.parquet", labels, names, group=2)
    data, _ = opened(tmp_path)
    assert (data.classes, data.train.labels.tolist()) == (classes, numbers)


@pytest.mark.parametrize("columns", [
    {"img": pa.array(PICTURES[:2])}, {"picture": pa.array(PICTURES[:2], pa.large_binary())},
    {"image": images(*PICTURES[:2]), "mask": pa.array(PICTURES[2:4])},
    {"picture": images(*PICTURES[:2]), "id": pa.array([7, 8]), "text": pa.array(["a", "b"])}],
    ids=["binary", "another name", "two", "others"])
def test_the_column_of_pictures(tmp_path: Path, columns: Any) -> None:
    write(tmp_path / "train.parquet", [0, 1], **columns)
    write(tmp_path / "test.parquet", [0, 1], **columns)
    data, _ = opened(tmp_path)
    assert [data.train.pictures.read(number) for number in (1, 0)] == [PICTURES[1], PICTURES[0]]


@pytest.mark.parametrize(("labels", "columns", "fault"), [
    ([0, 1], {"fine_label": [0, 1]}, "several columns of labels (whole numbers or texts named label, fine_label, cls, "
                                     "class, labels): `fine_label`, `label`; keep or rename one of them"),
    (None, {"image": images(*PICTURES[:2]), "coarse": [0, 1]},
     "no column of labels (whole numbers or texts named label, fine_label, cls, class, labels), but `image`, `coarse`; "
     "rename or add one"),
    ([0.5, 1.5], {}, "no column of labels"), ([[0], [1]], {}, "no column of labels"),
    ([0, 1], {"image": ["a.png", "b.png"]}, "no column of pictures (bytes, or a struct with `bytes`), but `image`"),
    ([0, 1], {"picture": images(*PICTURES[:2]), "mask": pa.array(PICTURES[:2])}, "several columns of pictures")])
def test_columns_that_are_missing_or_ambiguous(tmp_path: Path, labels: Any, columns: Any, fault: str) -> None:
    path = write(tmp_path / "x.parquet", labels, **columns)
    message = fault_of(path, 0.5)
    assert message.startswith(f"{path}: ") and fault in message


def test_a_column_whose_values_have_names_is_the_labels(tmp_path: Path) -> None:
    for part in ("train", "test"):
        path = write(tmp_path / f"{part}.parquet", None, image=images(*PICTURES[:2]), breed=[1, 0], id=[3, 4])
        metadata = json.dumps({"info": {"features": {"breed": {"names": ["beagle", "pug"]}}}})
        pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": metadata}), path)
    data, _ = opened(tmp_path)
    assert (data.classes, data.train.labels.tolist()) == (("beagle", "pug"), [1, 0])


@pytest.mark.parametrize(("train", "test", "fault"), [
    (dict(labels=[0, 1]), dict(labels=[0, 2]), "test.parquet/1: has the label 2, which the training pictures lack"),
    (dict(labels=[0, 1]), dict(labels=[-1, -1]), "test.parquet/0: has the label -1, which stands for an unknown class"),
    (dict(labels=[0, 0]), dict(labels=[0, 0]), "have the label 0; a network needs at least two"),
    (dict(labels=["a", "A"]), dict(labels=["a"]), "'A' and 'a', which differ in case"),
    (dict(labels=["a", ""]), dict(labels=["a"]), "train.parquet: a label in `label` is empty"),
    (dict(labels=[0, 2], names=["a", "b"]), dict(labels=[0, 1], names=["a", "b"]), "has the label 2, but 2 classes"),
    (dict(labels=[0, 1], names=["a", "b"]), dict(labels=[0, 1], names=["b", "a"]), "has other names of the classes"),
    (dict(labels=[0, 1, 0, 1, None]), dict(labels=[0]), "train.parquet: row 4 has no label in `label`"),
    (dict(labels=["a", None]), dict(labels=["a"]), "train.parquet: row 1 has no label"),
    (dict(labels=[], image=images()), dict(labels=[0]), "train.parquet: has no")])
def test_rows_that_cannot_be_used(tmp_path: Path, train: Any, test: Any, fault: str) -> None:
    for part, options in (("train", train), ("test", test)):
        if isinstance(options["labels"], list) and not options["labels"]:
            options = {**options, "labels": pa.array([], pa.int64())}
        write(tmp_path / f"{part}.parquet", **options)
    assert fault in fault_of(tmp_path)


@pytest.mark.parametrize("image", [
    images(*PICTURES[:3], None), pa.array([*PICTURES[:3], None]),
    pa.array([*({"bytes": content, "path": "x"} for content in PICTURES[:3]), {"bytes": None, "path": "x"}], STRUCT)],
    ids=["struct", "binary", "path alone"])
def test_rows_without_a_picture_are_reported_or_left_out(tmp_path: Path, image: Any) -> None:
    write(tmp_path / "data" / "train.parquet", [0, 1, 0, 1], group=2, image=image)
    write(tmp_path / "data" / "test.parquet", [0, 1])
    data, _ = opened(tmp_path)
    with pytest.raises(DataError, match=r"train\.parquet/3: has no bytes of a picture in its row; repair or remove"):
        prepare(data, PREPROCESSING, folder=tmp_path / "store")
    assert len(prepare(data, PREPROCESSING, folder=tmp_path / "store", skip_damaged=True).train) == 3


# Damage


def test_large_row_groups_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", [0, 1] * 20, group=40)
    monkeypatch.setattr(parquet, "MOST_IN_GROUP", 2_000)
    assert "in one row group, more than 2e-06 GB; write it again with smaller groups" in fault_of(path, 0.5)


def test_damaged_files(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [0, 1] * 20)
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    for damaged in (b"", b"PAR1", b"no parquet" * 100, content[:-5], content[:1000],
                    content[:-footer] + bytes(footer - 8) + content[-8:], content[:-8] + b"\xff\xff\xff\x7fPAR1"):
        path.write_bytes(damaged)
        message = fault_of(path, 0.5)
        assert message.startswith(f"{path}: is damaged or no Parquet file")


READ_DAMAGED = """
import sys
from pathlib import Path
import numpy as np
from alexnet_mf.data.sources import parquet
from alexnet_mf.errors import DataError
path = Path(sys.argv[1])
content = bytearray(path.read_bytes())
footer = int.from_bytes(content[-8:-4], "little") + 8
draw = np.random.default_rng(0)
for _ in range(300):
    damaged = content.copy()
    for place in draw.integers(len(content) - footer, len(content), 3):
        damaged[place] = draw.integers(256)
    path.write_bytes(damaged)
    try:
        data = parquet.load(parquet.find(path), 0.5)
        for number in range(len(data.train.pictures)):
            data.train.pictures.read(number)
    except DataError as error:
        assert "\\n" not in str(error)
"""


def test_random_damage_is_an_error_or_pictures(tmp_path: Path) -> None:
    """Damaged metadata of a column end the process if pyarrow is asked for them, hence another process."""
    path = write(tmp_path / "x.parquet", [0, 1] * 10)
    done = subprocess.run([sys.executable, "-c", READ_DAMAGED, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_damaged_rows_are_reported_and_the_others_read(tmp_path: Path) -> None:
    path = write(tmp_path / "data" / "train.parquet", [0, 1] * 4, group=2)
    write(tmp_path / "data" / "test.parquet", [0, 1])
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start:start + 20] = b"\xff" * 20
    path.write_bytes(content)
    data, _ = opened(tmp_path)
    with pytest.raises(DataError, match=r"train\.parquet/2: cannot be read"):
        prepare(data, PREPROCESSING, folder=tmp_path / "store")
    assert len(prepare(data, PREPROCESSING, folder=tmp_path / "store", skip_damaged=True).train) == 6


def test_pyarrow_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", [0, 1] * 10)
    with monkeypatch.context() as patch:
        patch.setattr(pa, "__version__", "13.0.0")
        assert "`pip install 'alexnet_mf[parquet]'`" in fault_of(path, 0.5)
        patch.setattr(pa, "__version__", "14.0.1.dev5")
        opened(path, 0.5)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "install it with `pip install 'alexnet_mf[parquet]'`" in fault_of(path, 0.5)


# Reading


def test_threads_read_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    contents = [picture(number) for number in range(60)]
    for file in range(3):
        part = contents[20 * file:20 * file + 20]
        write(tmp_path / f"train-{file}.parquet", [0, 1] * 10, group=7, image=images(*part))
    data, _ = opened(tmp_path, 0.5)
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(60), 5)).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(data.train.pictures.read, order)) == [contents[number] for number in order]


def test_rows_in_their_order_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", [0, 1] * 50, group=40)
    data, _ = opened(path, 0.5)
    starts: list[int] = []
    batches = parquet._batches
    monkeypatch.setattr(parquet, "_batches", lambda *args: starts.append(args[2]) or batches(*args))
    monkeypatch.setattr(parquet, "NEIGHBORS", 7)
    for number in range(100):
        data.train.pictures.read(number)
    assert starts == [0, 1, 2]
    data.train.pictures.read(98)
    assert starts == [0, 1, 2], "in the rows that were read last"
    data.train.pictures.read(1)
    assert starts == [0, 1, 2, 0]


def test_a_file_that_changes_after_it_was_listed_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [0, 1] * 10)
    data, _ = opened(path, 0.5)
    before = data.train.pictures.identity()
    assert opened(path, 0.5)[0].train.pictures.identity() == before
    os.utime(path, ns=(1, 1))
    assert opened(path, 0.5)[0].train.pictures.identity() != before
    with pytest.raises(DataError, match="has changed"):
        data.train.pictures.read(0)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        data.train.pictures.read(0)


@pytest.mark.parametrize("keep", [True, False])
def test_pixels_and_digests_are_those_of_class_folders(tmp_path: Path, keep: bool) -> None:
    for part, count in (("train", 12), ("test", 6)):
        labels, contents = [], []
        for number in range(count):
            labels.append(number * 3 // count)
            contents.append(picture(number + count, ("JPEG", "PNG", "WEBP")[number % 3]))
            path = tmp_path / "folders" / part / ("cat", "dog", "owl")[labels[-1]] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[-1])
        for file, rows in enumerate((slice(0, 5), slice(5, None))):
            write(tmp_path / "parquet" / "data" / f"{part}-0000{file}-of-00002.parquet", labels[rows],
                  ["cat", "dog", "owl"], image=images(*contents[rows]))
    ready = [prepare(opened(tmp_path / kind)[0], PREPROCESSING, folder=tmp_path / "store", keep=keep)
             for kind in ("folders", "parquet")]
    for part in ("train", "test"):
        expected, actual = (getattr(one, part) for one in ready)
        np.testing.assert_array_equal(expected.images[:], actual.images[:])
        np.testing.assert_array_equal(expected.labels, actual.labels)
    assert ready[0].classes == ready[1].classes
    assert ready[0].digest() == ready[1].digest()
