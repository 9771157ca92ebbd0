"""Pictures in class folders: `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, or `CLASS/*.jpg` of which some are the test
set.

The classes are the names of the folders in the order of their characters, as in torchvision's `ImageFolder`; the
pictures of a class are in the order of their paths.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data.collection import SHOWN, LabeledPictures, PictureSet, check_classes, split_off
from alexnet_mf.data.pictures import ENDINGS, FORMATS, OTHER_ENDINGS, Names, PictureFiles
from alexnet_mf.errors import DataError, one_line

TRAIN, TEST = ("train", "training"), ("test", "testing")
VALIDATION = ("val", "valid", "validation")
MOST_LEVELS = 64
"""Largest depth of a class's folders."""


def is_class_folders(folder: Path) -> bool:
    """Return True if the folder has visible folders."""
    return any(True for _ in _folders(folder))


def load(folder: Path, test_share: float | None = None, seed: int = 0) -> PictureSet:
    """List the pictures of a folder.

    Args:
        test_share: share of the training pictures that become the test set, if the folder has none. With 1 all do, and
            the folder may have `test` alone.
        seed: chooses them.

    Raises:
        DataError: if there are no classes, or something cannot be listed; names it.
    """
    visible = list(_folders(folder))
    parts: dict[str, Path] = {}
    for path in visible:
        parts.setdefault(path.name.lower(), path)
    train, test, validation = (next((parts[name] for name in names if name in parts), None)
                               for names in (TRAIN, TEST, VALIDATION))
    left_out = _LeftOut()
    if train and not (test or validation) and len(visible) > 1 and not is_class_folders(train):
        train = None  # a class of this name
    if train is None:
        if (tested := test or validation) and test_share != 1:
            raise DataError(f"{folder}: has {tested.name}, but no {TRAIN[0]}; name the folder of the training pictures "
                            f"{TRAIN[0]}, or test on all pictures with `test_share=1`")
        train, test, validation = tested or folder, None, None
    else:
        left_out.folders = [path.name for path in visible if path not in (train, test, validation)]
    if test is None and validation is not None:
        test, validation = validation, None
        left_out.notices.append(f"{folder}: has no {TEST[0]}; {test.name} is what is tested on")
    names = [path.name for path in _folders(train)]
    classes = check_classes(train, list(map(one_line, names)))  # printable, as weights files name them
    training = _part(train, names, left_out)
    if test is not None:
        testing = _part(test, names, left_out)
        if test_share is not None:
            raise DataError(f"{folder}: has test pictures, in {test.name}; leave out `test_share`")
    else:
        training, testing = split_off(folder, training, test_share, seed)
    return PictureSet("folder", training, testing, classes, f"pictures in {folder}",
                      None if validation is None else _part(validation, names, left_out), left_out.all(folder))


@dataclass
class _LeftOut:
    """Files and folders that are no pictures, for a notice."""

    folders: list[str] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)

    def all(self, folder: Path) -> tuple[str, ...]:
        """Return the notices."""
        notices = list(self.notices)
        if self.folders:
            notices.append(f"{folder}: left out: {', '.join(sorted(self.folders))}")
        if self.endings:
            kinds = ", ".join(f"{count:,} {ending or 'without ending'}"
                              for ending, count in self.endings.most_common(SHOWN))
            notices.append(f"{folder}: left out {sum(self.endings.values()):,} files that are no pictures by their "
                           f"names: {kinds}")
        return tuple(notices)


def _folders(folder: Path) -> Iterator[Path]:
    """Yield the visible folders in a folder, in the order of their names."""
    for entry in _entries(folder):
        if _is_folder(entry):
            yield Path(entry.path)


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """Return the visible files and folders in a folder, in the order of their names."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link to itself
        raise _unreadable(entry.path, error) from error


def _unreadable(path: Path | str, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror or error}); remove it, or change its permissions")


def _part(folder: Path, classes: Sequence[str], left_out: _LeftOut) -> LabeledPictures:
    """List the pictures of one part of the set.

    Raises:
        DataError: if a class is unknown or has no picture, or something cannot be read.
    """
    present = {path.name for path in _folders(folder)}
    unknown = sorted(present.difference(classes))
    if unknown:
        raise DataError(f"{folder}: has the class {unknown[0]!r}, which the training pictures lack; move it or add "
                        "pictures to train on")
    if not present:
        raise DataError(f"{folder}: has no folders of classes; add one for each class, with its pictures")
    if lacking := [repr(name) for name in classes if name not in present]:
        more = f" and {len(lacking) - SHOWN:,} more" if len(lacking) > SHOWN else ""
        left_out.notices.append(f"{folder}: has no class {', '.join(lacking[:SHOWN])}{more}")
    if loose := sum(os.path.splitext(entry.name)[1].lower() in ENDINGS and not _is_folder(entry)
                    for entry in _entries(folder)):
        left_out.notices.append(f"{folder}: left out {loose:,} pictures that are in no folder of a class")
    names, stamps, labels = [], [], []
    for label, name in enumerate(classes):
        if name not in present:
            continue
        paths, facts = _listed(folder, name, left_out)
        if not paths:
            raise DataError(f"{folder / name}: has no picture; add some ({FORMATS}), or remove the folder")
        names.append(Names(paths))
        stamps.append(facts)
        labels.append(np.full(len(paths), label, np.int64))
    return LabeledPictures(PictureFiles(folder, Names.joined(names), np.concatenate(stamps)), np.concatenate(labels))


def _listed(folder: Path, name: str, left_out: _LeftOut) -> tuple[list[str], NDArray[np.int64]]:
    """Return the paths of a class's pictures in a folder, and their stamps."""
    pictures: list[tuple[str, int, int]] = []
    start = len(os.path.join(folder, ""))

    def visit(path: str, above: tuple[tuple[int, int], ...]) -> None:
        try:
            here = os.stat(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        identity = here.st_dev, here.st_ino
        if identity in above:
            raise DataError(f"{path}: is a link to a folder that contains it; remove it")
        if len(above) > MOST_LEVELS:
            raise DataError(f"{path}: is more than {MOST_LEVELS} folders deep; move its pictures up")
        for entry in _entries(path):
            if _is_folder(entry):
                visit(entry.path, (*above, identity))
                continue
            ending = os.path.splitext(entry.name)[1].lower()
            if ending not in ENDINGS and ending not in OTHER_ENDINGS:
                left_out.endings[ending] += 1
                continue
            try:
                facts = entry.stat()
            except OSError as error:
                raise _unreadable(entry.path, error) from error
            pictures.append((entry.path[start:], facts.st_size, facts.st_mtime_ns))

    visit(os.path.join(folder, name), ())  # a `Path` would lose the dot of the current folder
    pictures.sort()
    return [path for path, _, _ in pictures], np.array([facts for _, *facts in pictures], np.int64).reshape(-1, 2)
