"""Class folders of pictures: what is listed, what is left out, and every folder that is refused."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opened_sources import fault_of
from PIL import Image

from alexnet_mf.data import DataSource
from alexnet_mf.data.collection import LabeledPictures, PictureSet
from alexnet_mf.data.sources import folder as folders
from alexnet_mf.errors import DataError


def add(path: Path, *names: str) -> Path:
    """Write small pictures, each of another color, into a folder."""
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        color = zlib.crc32(name.encode("utf-8", "surrogateescape")).to_bytes(4, "big")[:3]
        Image.new("RGB", (8, 6), tuple(color)).save(path / name, "PNG")
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Return a folder with two classes, three training and two test pictures each."""
    for part, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            add(tmp_path / "pets" / part / name, *(f"{part}{number}.jpg" for number in range(count)))
    return tmp_path / "pets"


def open_set(path: Path | str, **options: Any) -> tuple[PictureSet, list[str]]:
    """Return the set in a folder, and the notices."""
    notices: list[str] = []
    data = DataSource(str(path), **options).open(notice=notices.append)
    assert isinstance(data, PictureSet)
    return data, notices


def names_of(part: LabeledPictures) -> list[str]:
    return [part.pictures.name(part.number(row)) for row in range(len(part))]


# Parts


def test_training_and_test_pictures_have_folders(pets: Path) -> None:
    add(pets / "val" / "dog", "v.png")
    data, notices = open_set(pets)
    assert data.classes == ("cat", "dog") and data.origin == f"pictures in {pets}"
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and data.test.labels.tolist() == [0, 0, 1, 1]
    assert names_of(data.train)[::3] == [str(pets / "train/cat/train0.jpg"), str(pets / "train/dog/train0.jpg")]
    assert names_of(data.test)[1] == str(pets / "test/cat/test1.jpg")
    assert data.validation is not None and data.validation.labels.tolist() == [1]
    assert notices == [f"{pets / 'val'}: has no class 'cat'"]
    assert data.train.pictures.image(3).size == (8, 6)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_pictures_are_tested_on_if_there_are_no_others(pets: Path, name: str) -> None:
    (pets / "test").rename(pets / name)
    data, notices = open_set(pets)
    assert len(data.test) == 4 and data.validation is None
    assert notices == [f"{pets}: has no test; {name} is what is tested on"]


def test_names_of_parts_may_be_longer_and_in_any_case(pets: Path) -> None:
    (pets / "train").rename(pets / "Training")
    (pets / "test").rename(pets / "TESTING")
    data, notices = open_set(pets)
    assert (len(data.train), len(data.test), notices) == (6, 4, [])


def test_pictures_that_are_not_divided_are_divided_by_their_share(tmp_path: Path) -> None:
    add(tmp_path / "cat", *(f"{number:02}.jpg" for number in range(20)))
    add(tmp_path / "dog", *(f"{number:02}.jpg" for number in range(10)))
    data, notices = open_set(tmp_path, test_share=0.3)
    assert np.bincount(data.train.labels).tolist() == [14, 7] and np.bincount(data.test.labels).tolist() == [6, 3]
    together = names_of(data.train) + names_of(data.test)
    assert len(set(together)) == 30 and notices == []
    assert all(Path(name).parent.name == data.classes[label] for part in (data.train, data.test)
               for name, label in zip(names_of(part), part.labels))
    assert names_of(open_set(tmp_path, test_share=0.3)[0].test) == names_of(data.test)
    assert names_of(folders.load(tmp_path, 0.3, seed=1).test) != names_of(data.test)


def test_training_pictures_without_test_pictures_are_divided(pets: Path) -> None:
    (pets / "test").rename(pets / ".test")
    assert "has no test pictures; name the share" in fault_of(pets)
    data, _ = open_set(pets, test_share=1 / 3)
    assert (len(data.train), len(data.test)) == (4, 2)
    assert "6 pictures, of which 0.01 are 0" in fault_of(pets, test_share=0.01)


def test_a_share_leaves_every_class_something_to_train_on(tmp_path: Path) -> None:
    add(tmp_path / "cat", "0.jpg", "1.jpg", "2.jpg")
    add(tmp_path / "dog", "only.jpg")
    message = fault_of(tmp_path, test_share=0.8)
    assert message.startswith(f"{tmp_path / 'dog' / 'only.jpg'}: no picture of its class is left to train on")


def test_a_share_is_refused_where_there_are_test_pictures(pets: Path) -> None:
    assert "leave out `test_share`" in fault_of(pets, test_share=0.2)
    (pets / "test").rename(pets / "val")
    assert "has test pictures, in val" in fault_of(pets, test_share=0.2)


@pytest.mark.parametrize("share", [0, 1.5, -0.5, 20, float("nan")])
def test_a_share_lies_between_0_and_1(share: float) -> None:
    with pytest.raises(DataError, match="`test_share` must be more than 0 and at most 1"):
        DataSource("pets", test_share=share)


def test_test_pictures_need_training_pictures(pets: Path) -> None:
    (pets / "train").rename(pets / "learn")
    assert "has test, but no train; name the folder" in fault_of(pets)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        add(tmp_path / name, "0.jpg", "1.jpg")
    assert open_set(tmp_path, test_share=0.5)[0].classes == ("bus", "train")


# Names


def test_nested_folders_and_all_endings_are_listed_and_hidden_ones_are_not(tmp_path: Path) -> None:
    add(tmp_path / "cat", "b/2.PNG", "b/c/1.jpeg", "a.JPG", "z.tif", ".hidden.jpg", ".cache/0.jpg")
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    add(tmp_path / "dog", "e.Webp", "d.bmp", "f.gif")
    data, notices = open_set(tmp_path, test_share=0.3)
    pictures = data.train.pictures
    assert list(pictures.names) == ["cat/a.JPG", "cat/b/2.PNG", "cat/b/c/1.jpeg", "cat/z.tif", "dog/d.bmp",
                                    "dog/e.Webp", "dog/f.gif"]
    assert data.classes == ("cat", "dog") and notices == []
    assert all(pictures.image(number).size == (8, 6) for number in range(7))


def test_names_have_any_letters(tmp_path: Path) -> None:
    for name in ("Schäfer hund", "猫", "it's 100%", "a\u200db"):
        add(tmp_path / name, "ein Bild (1).jpg", "ü\U0001f600.png")
    data, _ = open_set(tmp_path, test_share=0.5)
    assert data.classes == ("Schäfer hund", r"a\u200db", "it's 100%", "猫")  # as weights files name them
    assert all(data.train.pictures.image(number) for number in range(8))


def test_names_need_not_be_utf_8(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    try:
        (tmp_path / odd).mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    add(tmp_path / odd, os.fsdecode(b"\xff 1.jpg"), "2.jpg", "notes.txt")
    add(tmp_path / "tea", "1.jpg", "2.jpg")
    data, _ = open_set(tmp_path, test_share=0.5)
    assert data.classes == (r"caf\udce9", "tea") and "".join(data.classes).isprintable()
    assert all(data.train.pictures.image(number) for number in range(4))
    assert r"caf\udce9" in fault_of(add(tmp_path / odd, "1.jpg").parent / odd)


def test_a_tilde_is_the_home_folder(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(pets.parent))
    monkeypatch.setenv("USERPROFILE", str(pets.parent))
    assert names_of(open_set("~/pets")[0].test) == names_of(open_set(pets)[0].test)
    assert DataSource("~/pets").resolved().name == str(pets.resolve())
    assert "there is no such user" in fault_of("~nobody-of-this-name/pets")


def test_the_current_folder_can_be_named(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pets / "train")
    data, _ = open_set(".", test_share=0.5)
    assert list(data.train.pictures.names)[:2] == ["cat/train0.jpg", "cat/train1.jpg"]
    assert data.train.pictures.image(5).size == (8, 6)
    monkeypatch.chdir(pets)
    assert open_set(".")[0].test.pictures.image(3).size == (8, 6)


def test_classes_can_have_other_names(pets: Path) -> None:
    assert open_set(pets, classes=("Katze", "Hund"))[0].classes == ("Katze", "Hund")
    assert open_set(pets, classes=["a", "A"])[0].classes == ("a", "A")
    assert "`classes` has 3 names, but pictures in" in fault_of(pets, classes=("a", "b", "c"))
    assert "has 'a' more than once" in fault_of(pets, classes=("a", "a"))


# Left out, with a notice


def test_files_that_are_no_pictures_are_counted(pets: Path) -> None:
    for name in ("a.txt", "b.TXT", "c.csv", "README"):
        (pets / "train" / "cat" / name).write_text("text")
    (pets / "test" / "dog" / "gone").symlink_to(pets / "nowhere")
    assert open_set(pets)[1] == [f"{pets}: left out 5 files that are no pictures by their names: "
                                 "2 without ending, 2 .txt, 1 .csv"]


def test_pictures_outside_of_classes_and_other_folders_are_named(pets: Path) -> None:
    add(pets / "train", "1.jpg", "2.PNG")
    add(pets / "extra" / "cat", "1.jpg")
    add(pets / "validation" / "cat", "1.jpg")
    add(pets / "val" / "cat", "1.jpg")
    data, notices = open_set(pets)
    assert len(data.train) == 6
    assert notices == [f"{pets / 'train'}: left out 2 pictures that are in no folder of a class",
                       f"{pets / 'val'}: has no class 'dog'", f"{pets}: left out: extra, validation"]


def test_classes_without_test_pictures_are_named(pets: Path) -> None:
    for number in range(8):
        add(pets / "train" / f"bird {number}", "1.jpg")
    assert open_set(pets)[1] == [f"{pets / 'test'}: has no class 'bird 0', 'bird 1', 'bird 2', 'bird 3', 'bird 4' and "
                                 "3 more"]


# Refused


def test_an_empty_class_is_refused(pets: Path) -> None:
    (pets / "train" / "bird").mkdir()
    (pets / "train" / "bird" / "notes.txt").write_text("text")
    assert fault_of(pets).startswith(f"{pets / 'train' / 'bird'}: has no picture; add some (JPEG")


def test_fewer_than_two_classes_are_refused(tmp_path: Path) -> None:
    add(tmp_path / "cat", "1.jpg", "2.jpg")
    assert "has one class, 'cat'; a network needs at least two" in fault_of(tmp_path, test_share=0.5)
    (tmp_path / "cat").rename(tmp_path / "train")
    assert fault_of(tmp_path, test_share=0.5).startswith(f"{tmp_path / 'train'}: has no folders of classes")
    add(tmp_path / "test" / "cat", "1.jpg")
    assert fault_of(tmp_path).startswith(f"{tmp_path / 'train'}: has no folders of classes")


def test_a_test_class_without_training_pictures_is_refused(pets: Path) -> None:
    add(pets / "test" / "bird", "1.jpg")
    assert fault_of(pets).startswith(f"{pets / 'test'}: has the class 'bird', which the training pictures lack; move")


def test_test_pictures_without_classes_are_refused(pets: Path) -> None:
    for name in ("cat", "dog"):
        (pets / "test" / name).rename(pets / f".{name}")
    add(pets / "test", "1.jpg")
    assert fault_of(pets).startswith(f"{pets / 'test'}: has no folders of classes; add one for each class")


def test_classes_that_differ_in_case_only_are_refused(pets: Path) -> None:
    if (pets / "train" / "CAT").exists():
        pytest.skip("this file system has one name for both")
    add(pets / "train" / "Cat", "1.jpg")
    assert "has the classes 'Cat' and 'cat', which differ in case only; rename or join them" in fault_of(pets)


def test_links_in_a_circle_are_refused(pets: Path) -> None:
    circle = pets / "train" / "cat" / "again"
    circle.symlink_to(pets / "train" / "cat", target_is_directory=True)
    assert fault_of(pets).startswith(f"{circle}: is a link to a folder that contains it; remove it")
    circle.unlink()
    circle.symlink_to(circle)
    assert fault_of(pets).startswith(f"{circle}: cannot be read (")
    circle.unlink()
    (pets / "train" / "bird").symlink_to(pets / "train" / "bird")
    assert fault_of(pets).startswith(f"{pets / 'train' / 'bird'}: cannot be read (")


def test_links_elsewhere_are_followed_and_dangling_ones_refused(pets: Path, tmp_path: Path) -> None:
    add(tmp_path / "more", "1.jpg", "2.jpg")
    (pets / "train" / "cat" / "more").symlink_to(tmp_path / "more", target_is_directory=True)
    (pets / "train" / "dog" / "linked.jpg").symlink_to(tmp_path / "more" / "1.jpg")
    data, _ = open_set(pets)
    assert len(data.train) == 9 and data.train.pictures.image(8).size == (8, 6)
    (tmp_path / "more" / "1.jpg").unlink()
    assert fault_of(pets).startswith(f"{pets / 'train' / 'dog' / 'linked.jpg'}: cannot be read (No such file")


def test_folders_without_end_are_refused(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST_LEVELS", 3)
    add(pets / "train" / "cat", "1/2/3/a.jpg")
    assert len(open_set(pets)[0].train) == 7
    add(pets / "train" / "cat", "1/2/3/4/a.jpg")
    assert fault_of(pets).startswith(f"{pets / 'train/cat/1/2/3/4'}: is more than 3 folders deep; move")


@pytest.mark.parametrize(("call", "place"), [*(("scandir", place) for place in ("", "train", "train/cat",
                                                                                "train/cat/deeper")),
                                             *(("stat", place) for place in ("train/cat", "train/cat/deeper"))])
def test_a_folder_that_cannot_be_read_is_named(pets: Path, monkeypatch: pytest.MonkeyPatch, call: str,
                                               place: str) -> None:
    add(pets / "train" / "cat" / "deeper", "1.jpg")
    real = getattr(os, call)

    def refuse(path: Any = ".", *arguments: Any, **options: Any) -> Any:
        if not isinstance(path, int) and os.fspath(path) == str(pets / place):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, call, refuse)
    assert fault_of(pets).startswith(f"{pets / place}: cannot be read (Permission denied); ")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("place", ["", "train", "train/cat"])
def test_a_folder_without_permissions_is_named(pets: Path, place: str) -> None:
    (pets / place).chmod(0)
    try:
        assert fault_of(pets).startswith(f"{pets / place}: cannot be read (Permission denied); ")
    finally:
        (pets / place).chmod(0o755)


def test_a_path_without_a_dataset_is_refused(tmp_path: Path) -> None:
    assert fault_of(tmp_path).startswith(f"{tmp_path}: holds no dataset; give a folder with train/CLASS/")
    add(tmp_path, "1.jpg")
    assert "holds no dataset" in fault_of(tmp_path)
    assert "is a file that is no dataset; unpack" in fault_of(tmp_path / "1.jpg")
    gone = tmp_path / "gone"
    assert fault_of(gone).startswith(f"{gone}: is neither a built-in dataset (auto, fashion-mnist, synthetic) nor a")
    for path in (tmp_path / "1.jpg" / "below", tmp_path / ("long" * 1000)):
        with pytest.raises(DataError):
            DataSource(str(path)).check()
        fault_of(path)
    assert "null byte" in fault_of("a\0b")
    with pytest.raises(DataError, match="`data` is empty; give a folder"):
        DataSource("")


def test_the_check_comes_before_the_list(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "load", lambda *arguments: pytest.fail("listed"))
    DataSource(str(pets)).check()


def test_options_of_the_other_kind_are_refused(pets: Path) -> None:
    for options in ({"test_share": 0.2}, {"skip_damaged": True}, {"store": "prepared"}):
        with pytest.raises(DataError, match=f"`{next(iter(options))}` is for pictures of your own; leave it out"):
            DataSource("synthetic", **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="`data_dir` is for the built-in sets; leave it out"):
        DataSource(str(pets), data_dir="folder")
