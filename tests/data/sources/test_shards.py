"""Shards: tar archives with pictures and labels, their parts and classes, and every form of damage."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import re
import shutil
import tarfile
from collections import namedtuple
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opened_sources import fault_of, opened
from PIL import Image

from alexnet_mf.data import DataSource
from alexnet_mf.data.collection import PictureSet
from alexnet_mf.data.prepare import prepare
from alexnet_mf.data.sources import parts, shards
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Preprocessing

Members = Sequence[tuple[str, bytes]]
PREPROCESSING = Preprocessing("rgb", resize=16, crop=(16, 16))


def picture(seed: int, kind: str = "PNG") -> bytes:
    levels = np.random.default_rng(seed).integers(0, 256, (18 + seed % 5, 20, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(levels).save(content, kind)
    return content.getvalue()


PICTURE = picture(0)


def sample(name: str, label: Any = 0, ending: str = "png", content: bytes = PICTURE) -> list[tuple[str, bytes]]:
    """Return the members of a sample, with its label in `.cls`, or in `.json` if it is an object."""
    if isinstance(label, dict):
        return [(f"{name}.{ending}", content), (f"{name}.json", json.dumps(label).encode())]
    return [(f"{name}.cls", str(label).encode()), (f"{name}.{ending}", content)]


def packed(members: Members, form: int = tarfile.GNU_FORMAT) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def write(path: Path, *members: Members, form: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = packed([member for several in members for member in several], form)
    path.write_bytes(content if path.suffix == ".tar" else gzip.compress(content, 1))
    return path


def names(part: Any) -> list[str]:
    return [part.pictures.names[part.number(row)] for row in range(len(part))]


# Places and parts


@pytest.mark.parametrize("places", [
    ("train-1.tar", "train-2.tar", "train-10.tar", "test.tar", "val-0.tar"),
    ("train/1.tar", "train/2.tar", "train/10.tar", "test/x.tar", "valid/0.tar"),
    ("set-train-01.tar", "set-train-02.tgz", "set-train-10.tar.gz", "set_test_0.tar", "set-validation-0.tar")],
    ids=["files", "folders", "words in names"])
def test_the_parts_of_a_folder(tmp_path: Path, places: tuple[str, ...]) -> None:
    for number, place in enumerate(places):
        write(tmp_path / place, sample("a/b.c/x", number % 2, content=picture(number)),
              sample("a/b.c/y", 1 - number % 2, ending="PNG"))
    data, notices = opened(tmp_path)
    assert (data.name, data.classes) == ("shards", ("0", "1"))
    assert names(data.train) == [f"{place}/a/b.c/{name}" for place in places[:3] for name in ("x.png", "y.PNG")]
    assert data.train.labels.tolist() == [0, 1, 1, 0, 0, 1]
    assert (len(data.test), data.validation and len(data.validation)) == (2, 2)
    assert data.train.pictures.read(2) == picture(1)
    assert data.train.pictures.name(2) == str(tmp_path / places[1] / "a/b.c/x.png")
    assert all("unpacked" in line for line in notices)


def test_without_a_test_set_the_validation_set_is_tested_on(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write(tmp_path / f"{part}.tar", sample("a", 0), sample("b", 1))
    data, notices = opened(tmp_path)
    assert (len(data.test), data.validation) == (2, None)
    assert names(data.test) == ["val.tar/a.png", "val.tar/b.png"]
    assert [line for line in notices if "tested on" in line]
    assert "leave out `test_share`" in fault_of(tmp_path, 0.5)


def test_a_share_is_split_off_what_is_not_divided(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"pets-{number:03}.tar", *(sample(f"{number}{row}", row % 2) for row in range(10)))
    for path in (tmp_path, tmp_path / "pets-{000..003}.tar", tmp_path / "pets-{000,001,002,003}.tar"):
        assert "`test_share=0.2`" in fault_of(path)
        data, _ = opened(path, 0.25)
        assert (len(data.train), len(data.test)) == (30, 10)
        assert np.bincount(data.test.labels).tolist() == [5, 5]
        assert data.train.pictures is data.test.pictures
        assert sorted(names(data.train) + names(data.test)) == list(data.train.pictures.names)
    data, _ = opened(tmp_path / "pets-002.tar", 0.2)
    assert (len(data.train), len(data.test)) == (8, 2)
    data, _ = opened(tmp_path / "pets-{002..001}.tar", 0.2)
    assert names(data.train)[0].startswith("pets-002") and names(data.train)[-1].startswith("pets-001")


@pytest.mark.parametrize(("pattern", "fault"), [
    ("x-{0..3}.tar", "2 of its 4 files are missing, the first is"), ("x-{0,0}.tar", "names a file twice"),
    ("x-{0..999999999}.tar", "more than 1,000,000"), ("x-{a..b}.tar", "missing"),
    ("x-{0..999}{0..999}{0..9}.tar", "more than 1,000,000")])
def test_faulty_braces(tmp_path: Path, pattern: str, fault: str) -> None:
    for number in (0, 1):
        write(tmp_path / f"x-{number}.tar", sample("a"))
    assert fault in fault_of(tmp_path / pattern, 0.5)
    with pytest.raises(DataError):
        DataSource(str(tmp_path / pattern)).check()


def test_braces_stay_in_a_record(tmp_path: Path) -> None:
    for number in (0, 1):
        write(tmp_path / f"{{a}}/x-{number}.tar", sample("a", 0), sample("b", 1), sample("c", 0), sample("d", 1))
    source = DataSource(str(tmp_path / "{a}" / "x-{0..1}.tar"), test_share=0.5)
    source.check()
    recorded = source.resolved()
    data = recorded.open()
    assert isinstance(data, PictureSet) and len(data.train) == 4


def test_archives_beside_class_folders_are_no_shards(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(tmp_path / f"{part}.tar", sample("a"))
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "a.png").write_bytes(PICTURE)
    data, _ = opened(tmp_path)
    assert (data.name, data.classes) == ("folder", ("cat", "dog"))


def test_files_that_name_no_part_are_left_out(tmp_path: Path) -> None:
    for name in ("train-0", "test-0", "latest", ".train-1"):
        write(tmp_path / f"{name}.tar", sample("a", 0), sample("b", 1))
    shutil.copy(tmp_path / "train-0.tar", tmp_path / "train-0.tar.gz")  # the same, packed
    data, notices = opened(tmp_path)
    assert len(data.train) == 2
    assert [line for line in notices if "left out: latest.tar" in line]


def test_a_training_set_is_needed(tmp_path: Path) -> None:
    write(tmp_path / "test-0.tar", sample("a", 0), sample("b", 1))
    assert "test-0.tar, but no training set" in fault_of(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert "holds no dataset" in fault_of(tmp_path) and "train-*.tar" in fault_of(tmp_path)


# Labels and classes


def train_and_test(folder: Path, train: Members, test: Members | None = None) -> Path:
    write(folder / "train.tar", train)
    write(folder / "test.tar", train if test is None else test)
    return folder


def labeled(*labels: Any) -> list[tuple[str, bytes]]:
    return [member for number, label in enumerate(labels) for member in sample(f"{number:03}", label)]


@pytest.mark.parametrize(("labels", "classes", "numbers"), [
    ((10, 2, "007\n", 2), ("2", "7", "10"), [2, 0, 1, 0]),
    (("dog", "cat", " dog\n", "\ufeffcat"), ("cat", "dog"), [1, 0, 1, 0]),
    (({"label": 3}, {"cls": 4.0}, {"class": "3"}, {"label": 4, "cls": 9, "other": [1]}), ("3", "4"), [0, 1, 0, 1]),
    (({"label": "zebra"}, 7, "7up", "zebra"), ("7", "7up", "zebra"), [2, 0, 1, 2])],
    ids=["numbers", "names", "JSON", "mixed"])
def test_the_classes_are_the_labels(tmp_path: Path, labels: Any, classes: Any, numbers: list[int]) -> None:
    data, _ = opened(train_and_test(tmp_path, labeled(*labels)))
    assert data.classes == classes
    assert data.train.labels.tolist() == data.test.labels.tolist() == numbers
    assert data.train.labels.dtype == np.int64


def test_a_number_is_the_line_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog \nowl\n")
    data, notices = opened(train_and_test(tmp_path, labeled(2, 0, 2)))
    assert (data.classes, data.train.labels.tolist()) == (("cat", "dog", "owl"), [2, 0, 2])
    assert [line for line in notices if "training pictures lack 1 of 3 classes: dog" in line]
    data, notices = opened(train_and_test(tmp_path, labeled("b", "a")))
    assert data.classes == ("a", "b")
    assert [line for line in notices if "list of names" in line]


@pytest.mark.parametrize(("lines", "fault"), [
    ("cat\n\ndog", "line 2 is empty"), ("cat\nCat", "differ in case"), ("cat", "one class"),
    ("cat\ndog", "000.png: has the label 2, but 2 classes have names")])
def test_faulty_lists_of_names(tmp_path: Path, lines: str, fault: str) -> None:
    (tmp_path / "classes.txt").write_text(lines)
    assert fault in fault_of(train_and_test(tmp_path, labeled(2, 0)))


@pytest.mark.parametrize(("train", "test", "fault"), [
    ((0, 1), (0, 1, 2), r"test\.tar/002\.png: has the label 2, which the training pictures lack"),
    (("a", "b"), ("a", "c"), r"test\.tar/001\.png: has the label 'c', which"),
    ((0, 1), ("a",), r"test\.tar/000\.png: has the label 'a', which"),
    ((5, 5), (5,), "have the label 5; a network needs at least two"),
    (("a", "b", "A"), ("a",), "'A' and 'a', which differ in case"),
    ((0, 1), (-1, -1), r"test\.tar/000\.png: has the label -1, which stands for an unknown class; move the test files"),
    (("a", "b" * 1001), ("a",), "1,001 characters"), (("a", ""), ("a",), "is empty; correct it"),
    (("a", {"labels": "b"}), ("a",), r"train\.tar: the label of '001\.png', in its \.json, is missing"),
    (("a", {"label": [1]}), ("a",), "must be a whole number or a name"),
    (("a", {"label": True}), ("a",), "must be a whole number or a name"),
    (("a", {"label": 1.5}), ("a",), "must be a whole number or a name")])
def test_labels_that_are_no_classes(tmp_path: Path, train: Any, test: Any, fault: str) -> None:
    assert re.search(fault, fault_of(train_and_test(tmp_path, labeled(*train), labeled(*test))))


def test_captions_are_no_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_LABELS", 5)
    assert "no classes" in fault_of(train_and_test(tmp_path, labeled(*"abcdef")))


# Samples


def test_other_members_are_left_out(tmp_path: Path) -> None:
    train = [*sample("a", 0), ("a.txt", b"caption"), ("a.pyd", b"\x80"), ("a.seg.png", PICTURE), ("orphan.cls", b"7"),
             *sample("b", {"label": 1}, "JPEG", picture(1, "JPEG")), ("._b.png", b"macOS"), ("README", b"text"),
             *sample("c", 1, "webp", picture(2, "WEBP")), ("c.json", b"{}")]
    data, notices = opened(train_and_test(tmp_path, train))
    assert names(data.train) == ["train.tar/a.png", "train.tar/b.JPEG", "train.tar/c.webp"]
    assert [data.train.pictures.image(row).size for row in range(3)] == [(20, 18), (20, 19), (20, 20)]
    assert [line for line in notices if "left out 2 labels without a picture" in line]  # in train and test
    assert [line for line in notices if "left out 8 members" in line and "2 .seg.png" in line and "2 other" in line]


@pytest.mark.parametrize(("members", "fault"), [
    ([("b.png", PICTURE)], "'b.png' has no label; put 'b.cls' or .json beside it"),
    ([("b.png", PICTURE), ("c.png", PICTURE), ("b.cls", b"0")], "'b.png' has no label"),
    ([("b.png", PICTURE), ("b.jpg", PICTURE), ("b.cls", b"0")], "two pictures in one sample, 'b.png' and 'b.jpg'"),
    ([("b.cls", b"0"), ("b.cls", b"1"), ("b.png", PICTURE)], "has 'b.cls' twice"),
    ([("b.cls", b"\xff"), ("b.png", PICTURE)], "is not UTF-8"), ([("b.cls", bytes(2_000_000))], "too many for a label"),
    ([("b.json", b"{"), ("b.png", PICTURE)], "is not JSON"), ([("b.json", b"[]"), ("b.png", PICTURE)], "is missing"),
    ([("b.json", b"[" * 100_000), ("b.png", PICTURE)], "nested too deeply"),
    ([("/b.png", PICTURE)], "'/b.png', a path out of the archive"), ([("x/../../b", b"")], "a path out of"),
    ([("b\n.png", PICTURE)], r"'b\\n.png' has no label")])
def test_faulty_samples(tmp_path: Path, members: Members, fault: str) -> None:
    train_and_test(tmp_path, [*sample("a", 0), *members])
    message = fault_of(tmp_path)
    assert message.startswith(f"{tmp_path / 'train.tar'}: ") and fault in message


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("name", ["b.png", "b.cls", "b.other"])
def test_links_and_sparse_files_are_no_pictures(tmp_path: Path, kind: bytes, name: str) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        special = tarfile.TarInfo(name)
        special.type, special.linkname = kind, "a.png"
        archive.addfile(special)
        for inner, data in labeled(0, 1):
            info = tarfile.TarInfo(inner)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    train_and_test(tmp_path, labeled(0, 1))
    (tmp_path / "train.tar").write_bytes(content.getvalue())
    if name == "b.other":
        assert len(opened(tmp_path)[0].train) == 2
    else:
        assert f"'{name}' is " in fault_of(tmp_path)


# Archives


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT],
                         ids=["ustar", "GNU", "pax"])
def test_every_format_is_read_as_tarfile_does(tmp_path: Path, form: int) -> None:
    stems = ["a", "deep/" * 30 + "b", "x" * 90 + "/" + "y" * 60]
    if form != tarfile.USTAR_FORMAT:
        stems += ["long/" * 60 + "c" * 200, "ÄŸ/猫"]
    members = [member for number, stem in enumerate(stems)
               for member in sample(stem, number % 2, content=picture(number))]
    write(tmp_path / "train.tar", members, form=form)
    write(tmp_path / "test.tar", members, form=form)
    data, _ = opened(tmp_path)
    assert names(data.train) == [f"train.tar/{stem}.png" for stem in stems]
    with tarfile.open(tmp_path / "train.tar") as archive:
        for row, member in enumerate(one for one in archive if one.name.endswith("png")):
            assert data.train.pictures.read(row) == picture(row) == archive.extractfile(member).read()  # type: ignore


def test_pax_headers_state_sizes_and_sparse_files(tmp_path: Path) -> None:
    def with_records(records: dict[str, str]) -> bytes:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, data in labeled(0, 1):
                info = tarfile.TarInfo(name)
                info.size, info.pax_headers = len(data), records if name == "001.png" else {}
                archive.addfile(info, io.BytesIO(data))
        return content.getvalue()

    train_and_test(tmp_path, labeled(0, 1))
    for records, fault in [({"GNU.sparse.name": "c.png", "GNU.sparse.major": "1"}, "'c.png' is sparse"),
                           ({"size": "9999999"}, "is truncated"), ({"size": "x"}, "is damaged at byte")]:
        (tmp_path / "train.tar").write_bytes(with_records(records))
        assert fault in fault_of(tmp_path)


def test_a_truncated_archive_is_never_read(tmp_path: Path) -> None:
    train_and_test(tmp_path, labeled(0, 1))
    path = tmp_path / "train.tar"
    content = path.read_bytes()
    end = len(content.rstrip(b"\0"))
    for size in [0, *range(1, end, 211), *range(512, end, 512), end]:
        path.write_bytes(content[:size])
        message = fault_of(tmp_path)
        assert message.startswith(f"{path}: is ") and ("truncated" in message or "empty" in message)


def test_damaged_archives(tmp_path: Path) -> None:
    train_and_test(tmp_path, labeled(0, 1))
    path = tmp_path / "train.tar"
    content = path.read_bytes()
    for damaged, fault in [
            (b"no archive" * 100, "is no tar archive"), (b"x" * 100, "truncated"),
            (content[:1024] + b"\xff" + content[1025:], "is damaged at byte 1,024"),
            (content + content, "has data after its end"), (packed([]), "has no picture"),
            (packed([("a.cls", b"0")]), "has no picture")]:
        path.write_bytes(damaged)
        message = fault_of(tmp_path)
        assert message.startswith(f"{path}: ") and fault in message


def test_random_damage_is_an_error_or_pictures(tmp_path: Path) -> None:
    train_and_test(tmp_path, labeled(0, 1, 0))
    path = tmp_path / "train.tar"
    content = bytearray(path.read_bytes())
    draw = np.random.default_rng(0)
    headers = [offset for offset in range(0, len(content), 512) if content[offset + 257:offset + 262] == b"ustar"]
    for _ in range(300):
        damaged = content.copy()
        for offset in draw.choice(headers, 2):
            damaged[offset + draw.integers(512)] = draw.integers(256)
            if draw.random() < 0.7:
                header = damaged[offset:offset + 512]
                total = sum(header) - sum(header[148:156]) + 256
                damaged[offset + 148:offset + 156] = b"%06o\0 " % total
        path.write_bytes(damaged)
        try:
            data, _ = opened(tmp_path)
        except DataError as error:
            assert "\n" not in str(error)
        else:
            for row in range(len(data.train)):
                data.train.pictures.read(row) if data.train.pictures.stamps[row, 0] else None


def test_threads_read_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    contents = [picture(number) for number in range(60)]
    for shard in range(3):
        write(tmp_path / f"train-{shard}.tar", *(sample(f"{row:03}", row % 2, content=contents[row])
                                                for row in range(20 * shard, 20 * shard + 20)))
    data, _ = opened(tmp_path, 0.5)
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(60), 5)).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(data.train.pictures.read, order)) == [contents[row] for row in order]


def test_a_shard_that_changes_after_it_was_listed_is_not_read(tmp_path: Path) -> None:
    data, _ = opened(train_and_test(tmp_path, labeled(0, 1)))
    before = data.train.pictures.identity()
    assert opened(tmp_path)[0].train.pictures.identity() == before
    os.utime(tmp_path / "train.tar", ns=(1, 1))
    with pytest.raises(DataError, match="has changed"):
        data.train.pictures.read(0)
    assert opened(tmp_path)[0].train.pictures.identity() != before
    (tmp_path / "train.tar").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        data.train.pictures.read(0)


def test_empty_and_damaged_pictures_are_reported_with_their_shard(tmp_path: Path) -> None:
    members = [*labeled(0, 1), *sample("x", 0, content=b""), *sample("y", 1, content=PICTURE[:60])]
    data, _ = opened(train_and_test(tmp_path / "data", members, labeled(0, 1)))
    with pytest.raises(DataError, match=r"train\.tar/x\.png: is empty; also .*train\.tar/y\.png; repair"):
        prepare(data, PREPROCESSING, folder=tmp_path / "store")
    ready = prepare(data, PREPROCESSING, folder=tmp_path / "store", skip_damaged=True)
    assert len(ready.train) == 2


@pytest.mark.parametrize("keep", [True, False])
def test_pixels_and_digests_are_those_of_class_folders(tmp_path: Path, keep: bool) -> None:
    for part, count in (("train", 12), ("test", 6)):
        members: list[tuple[str, bytes]] = []
        for number in range(count):
            label, kind = ("cat", "dog", "owl")[number * 3 // count], ("JPEG", "PNG", "WEBP")[number % 3]
            path = tmp_path / "folders" / part / label / f"{number:03}.{kind.lower()}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number + count, kind))
            members += sample(f"{label}/{number:03}", label, kind.lower(), path.read_bytes())
        cut = 2 * (count // 4)  # two members a sample
        write(tmp_path / "shards" / f"{part}-0.tar", members[:cut])
        write(tmp_path / "shards" / f"{part}-1.tar.gz", members[cut:])
    ready = [prepare(opened(tmp_path / kind)[0], PREPROCESSING, folder=tmp_path / "store", keep=keep)
             for kind in ("folders", "shards")]
    for part in ("train", "test"):
        expected, actual = (getattr(one, part) for one in ready)
        np.testing.assert_array_equal(expected.images[:], actual.images[:])
        np.testing.assert_array_equal(expected.labels, actual.labels)
    assert ready[0].classes == ready[1].classes
    assert ready[0].digest() == ready[1].digest()


# Packed archives


def test_packed_shards_are_unpacked_once(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "train.tar.gz", labeled(0, 1))
    write(tmp_path / "test.tar.gz", labeled(1, 0))
    data, notices = opened(tmp_path)
    assert [line for line in notices if "2 packed shards" in line and str(cache) in line]
    unpacked = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(unpacked) == 2
    again, _ = opened(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == unpacked
    assert again.train.pictures.identity() == data.train.pictures.identity()
    write(tmp_path / "train.tar.gz", labeled(0, 1, 1))
    assert len(opened(tmp_path)[0].train) == 3
    assert len(list(cache.iterdir())) == 2, "the old form is removed"


def test_a_packed_shard_may_have_any_name(tmp_path: Path) -> None:
    train_and_test(tmp_path, labeled(0, 1))
    plain = (tmp_path / "train.tar").read_bytes()
    (tmp_path / "train.tar").write_bytes(gzip.compress(plain))
    assert len(opened(tmp_path)[0].train) == 2
    (tmp_path / "train.tar").unlink()
    (tmp_path / "train.tar.gz").write_bytes(plain)
    assert len(opened(tmp_path)[0].train) == 2


@pytest.mark.parametrize(("content", "fault"), [
    (gzip.compress(packed(labeled(0, 1)))[:-30], "is truncated or damaged; download it again"),
    (gzip.compress(packed(labeled(0, 1)))[:200] + bytes(500), "is truncated or damaged"),
    (gzip.compress(packed(labeled(0, 1))[:3000]), "is truncated after 3,000 bytes"),
    (gzip.compress(packed([("../a", b"")])), "out of the archive"), (gzip.compress(b""), "is empty")])
def test_faulty_packed_shards_leave_nothing(tmp_path: Path, cache: Path, content: bytes, fault: str) -> None:
    (tmp_path / "train.tar.gz").write_bytes(content)
    message = fault_of(tmp_path / "train.tar.gz", 0.5)
    assert message.startswith(f"{tmp_path / 'train.tar.gz'}: ") and fault in message
    assert list(cache.iterdir()) == []


def test_bombs_and_full_disks_leave_nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.tgz", sample("a", 0, content=bytes(3_000_000)))
    monkeypatch.setattr(shards, "MOST_UNPACKED", 1_000_000)
    monkeypatch.setattr(shards, "MOST_RATIO", 20)
    assert "more than 20 times its size" in fault_of(tmp_path / "train.tgz", 0.5)
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(1_000_000))
    assert "0.0 GB are free" in fault_of(tmp_path / "train.tgz", 0.5)
    assert list(cache.iterdir()) == []


def test_a_source_of_shards_takes_names_of_classes(tmp_path: Path) -> None:
    train_and_test(tmp_path, labeled(0, 1))
    source = DataSource(str(tmp_path), classes=("cat", "dog"))
    assert source.open().classes == ("cat", "dog")
    assert dataclasses.replace(source, classes=None).open().classes == ("0", "1")
