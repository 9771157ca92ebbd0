"""Pictures in class folders: `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, or `CLASS/*.jpg` of which some are the test
set.

The classes are the names of the folders in the order of their characters, as in torchvision's `ImageFolder`; the
pictures of a class are in the order of their paths.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data.collection import SHOWN, LabeledPictures, PictureSet, check_classes, split_off
from alexnet_mf.data.pictures import ENDINGS, FORMATS, OTHER_ENDINGS, Names, PictureFiles
from alexnet_mf.errors import DataError

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
        test_share: share of the training pictures that become the test set, if the folder has none.
        seed: chooses them.

    Raises:
        DataError: if there are no classes, or something cannot be listed; names it.
    """
    parts = {path.name.lower(): path for path in _folders(folder)}
    train, test, validation = (next((parts[name] for name in names if name in parts), None)
                               for names in (TRAIN, TEST, VALIDATION))
    left_out = _LeftOut()
    if train is None:
        if test or validation:
            raise DataError(f"{folder}: has {(test or validation or folder).name}, but no {TRAIN[0]}; name the folder "
                            f"of the training pictures {TRAIN[0]}")
        train = folder
    else:
        others = [path.name for path in parts.values() if path not in (train, test, validation)]
        left_out.folders = others
    if test is None and validation is not None:
        test, validation = validation, None
        left_out.notices.append(f"{folder}: has no {TEST[0]}; {test.name} is what is tested on")
    classes = check_classes(folder, [path.name for path in _folders(train)])
    training = _part(train, classes, left_out)
    if test is not None:
        testing = _part(test, classes, left_out)
        if test_share is not None:
            raise DataError(f"{folder}: has test pictures, in {test.name}; leave out `test_share`")
    else:
        training, testing = split_off(folder, training, test_share, seed)
    return PictureSet("folder", training, testing, classes, f"pictures in {folder}",
                      None if validation is None else _part(validation, classes, left_out), left_out.all(folder))


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
        if entry.is_dir():
            yield Path(entry.path)


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """Return the visible files and folders in a folder, in the order of their names."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error}); leave it out, or change its permissions"
                        ) from error


def _part(folder: Path, classes: Sequence[str], left_out: _LeftOut) -> LabeledPictures:
    """List the pictures of one part of the set.

    Raises:
        DataError: if a class is unknown or has no picture, or something cannot be read.
    """
    unknown = [path.name for path in _folders(folder) if path.name not in classes]
    if unknown:
        raise DataError(f"{folder}: has the class {unknown[0]!r}, which the training pictures lack; move it or add "
                        "pictures to train on")
    names, stamps, labels = [], [], []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            left_out.notices.append(f"{folder}: has no class {name!r}")
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
    start = len(os.path.join(str(folder), ""))

    def visit(path: str, above: tuple[tuple[int, int], ...]) -> None:
        here = os.stat(path)
        identity = here.st_dev, here.st_ino
        if identity in above or len(above) > MOST_LEVELS:
            raise DataError(f"{path}: is a link to a folder that contains it; remove it")
        for entry in _entries(path):
            if entry.is_dir():
                visit(entry.path, (*above, identity))
                continue
            ending = os.path.splitext(entry.name)[1].lower()
            if ending not in ENDINGS and ending not in OTHER_ENDINGS:
                left_out.endings[ending] += 1
                continue
            try:
                facts = entry.stat()
            except OSError as error:
                raise DataError(f"{entry.path}: cannot be read ({error.strerror or error}); remove it") from error
            if stat.S_ISREG(facts.st_mode):
                pictures.append((entry.path[start:], facts.st_size, facts.st_mtime_ns))

    visit(str(folder / name), ())
    pictures.sort()
    return [path for path, _, _ in pictures], np.array([facts for _, *facts in pictures], np.int64).reshape(-1, 2)
