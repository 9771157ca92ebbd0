"""Parts and labels of sets that are spread over files, such as shards and Parquet files."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_mf.data.collection import SHOWN, LabeledPictures, PictureSet, check_classes, split_off
from alexnet_mf.data.sources import folder as folders
from alexnet_mf.errors import DataError, one_line

MOST_SHARDS = 1_000_000
MOST_LABEL = 1_000
"""Largest length of a label, in characters."""
MOST_LABELS = 100_000
"""Largest number of different labels: more are captions or numbers of pictures."""


# Files and parts

TRAIN, TEST, VALIDATION = "train", "test", "validation"
WORDS = {TRAIN: folders.TRAIN, TEST: folders.TEST, VALIDATION: folders.VALIDATION}
"""Words in the names of the files of each part, and names of their folders."""
_PARTS = {word: part for part, words in WORDS.items() for word in words}
_WORD = re.compile(rf"(?:^|[-_. ])({'|'.join(sorted(_PARTS, key=len, reverse=True))})(?![a-z])")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")


@dataclass(frozen=True)
class Parts:
    """Files of a set, by part."""

    where: Path
    """Path that the user named."""
    folder: Path
    """Folder that contains all files."""
    files: Mapping[str, Sequence[Path]]
    """Files by `TRAIN`, `TEST` and `VALIDATION`, each part in its order."""
    notices: tuple[str, ...] = ()

    @property
    def are_divided(self) -> bool:
        """Return True if there is something to test on."""
        return TEST in self.files or VALIDATION in self.files

    def check(self, test_share: float | None, remedy: str) -> None:
        """Check that there is a training set and a test set, before the files are read.

        Args:
            remedy: way to add a test set.

        Raises:
            DataError: if one is missing, or there are two ways to test.
        """
        if TRAIN not in self.files:
            first = next(path for paths in self.files.values() for path in paths)
            raise DataError(f"{self.where}: has {first.name}, but no training set; name its files {TRAIN}-...")
        if self.are_divided and test_share is not None:
            first = self.files.get(TEST, self.files.get(VALIDATION, ()))[0]
            raise DataError(f"{self.where}: has test pictures, in {first.relative_to(self.folder)}; leave out "
                            "`test_share`")
        if not self.are_divided and test_share is None:
            raise DataError(f"{self.where}: has no test pictures; name the share of the pictures to test on, such as "
                            f"`test_share=0.2`, or {remedy}")


def find(path: Path, endings: Sequence[str]) -> Parts | None:
    """Return the files that a path names: one file, several by braces, or those of a folder. None if there are none.

    In a folder, a file belongs to the part that its name or its folder's name states. A folder that has none of these
    words is a training set, unless it has folders too. Folders of classes come first.

    Raises:
        DataError: if a file that braces name is missing.
        OSError: if a folder cannot be read.
    """
    if paths := expanded(path):
        if not all(one.name.lower().endswith(tuple(endings)) for one in paths):
            return None
        common = os.path.commonpath([os.path.abspath(one.parent) for one in paths])
        return Parts(path, Path(common), {TRAIN: [Path(os.path.abspath(one)) for one in paths]})
    if path.is_file():
        return Parts(path, path.parent, {TRAIN: [path]}) if path.name.lower().endswith(tuple(endings)) else None
    if not path.is_dir():
        return None
    return _in_folder(path, endings)


def _in_folder(folder: Path, endings: Sequence[str]) -> Parts | None:
    direct, inner = _visible(folder, endings)
    parts: dict[str, list[Path]] = {}
    others: list[Path] = []
    with_classes = []
    for path in direct:
        part = _WORD.search(path.name.lower())
        (parts.setdefault(_PARTS[part[1]], []) if part else others).append(path)
    for one in inner:
        part_of_folder = _PARTS.get(one.name.lower())
        if part_of_folder is None:
            continue
        try:
            paths, folders_in_it = _visible(one, endings)
        except OSError:  # named when its classes are listed
            paths, folders_in_it = [], [one]
        if folders_in_it:
            with_classes.append(part_of_folder)
        elif paths:
            parts.setdefault(part_of_folder, []).extend(paths)
    if TRAIN in with_classes or (not parts and (inner or not others)):
        return None
    if not parts:
        return Parts(folder, folder, {TRAIN: others})
    notices = [f"{folder}: left out: {_some([path.name for path in others])}; they name no part of the set"
               ] if others else []
    return Parts(folder, folder, {part: parts[part] for part in WORDS if part in parts}, tuple(notices))


def _visible(folder: Path, endings: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Return the visible files of these endings, and the folders, in the order of their names. A file that is there
    packed and unpacked counts once."""
    with os.scandir(folder) as entries:
        visible = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    names = {name for name in visible if name.lower().endswith(tuple(endings)) and os.path.isfile(folder / name)}
    inner = [folder / name for name in visible if os.path.isdir(folder / name)]
    unpacked = {f"{name[:-4]}{ending}" for name in names if name.endswith(".tar") for ending in (".tar.gz", ".tgz")}
    return [folder / name for name in sorted(names - unpacked, key=_natural)], inner


def _natural(name: str) -> tuple[Any, ...]:
    """Return a key that sorts names with their numbers by value."""
    pieces = re.split(r"([0-9]+)", name)
    return tuple((int(piece), piece) if number % 2 else piece for number, piece in enumerate(pieces))


def expanded(path: Path) -> list[Path]:
    """Return the files that braces in a path stand for, `{000..146}` or `{a,b}`, in their order; none without braces.

    Raises:
        DataError: if one is missing.
    """
    pieces = _BRACES.split(str(path))
    if len(pieces) == 1 or path.exists():
        return []
    choices = [[piece] if number % 2 == 0 else _choices(piece) for number, piece in enumerate(pieces)]
    if math.prod(map(len, choices)) > MOST_SHARDS:
        raise DataError(f"{path}: stands for more than {MOST_SHARDS:,} files; name fewer")
    paths = [Path("".join(names)) for names in itertools.product(*choices)]
    missing = [one for one in paths if not one.is_file()]
    if missing:
        raise DataError(f"{path}: {len(missing):,} of its {len(paths):,} files are missing, the first is "
                        f"{missing[0]}; add them, or change the braces")
    if len(set(paths)) < len(paths):
        raise DataError(f"{path}: names a file twice; change the braces")
    return paths


def _choices(text: str) -> Sequence[str]:
    """Return the texts that the inside of braces stands for."""
    if match := _RANGE.fullmatch(text):
        first, last = int(match[1]), int(match[2])
        width = max(map(len, match.groups())) if any(len(end) > 1 and end[0] == "0" for end in match.groups()) else 0
        if abs(last - first) >= MOST_SHARDS:
            raise DataError(f"{{{text}}}: stands for more than {MOST_SHARDS:,} files; name fewer")
        return [f"{number:0{width}}" for number in
                (range(first, last + 1) if first <= last else range(first, last - 1, -1))]
    return text.split(",") if "," in text else [f"{{{text}}}"]


# Labels

_NUMBER = re.compile(r"-?[0-9]{1,18}")


class Labels:
    """Different labels of a set's samples, as texts; each has a code."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}

    def code(self, text: str) -> int:
        """Return the code of a label.

        Raises:
            ValueError: if it is no label, or there are too many.
        """
        code = self.codes.get(text)
        if code is None:
            if not text or len(text) > MOST_LABEL:
                raise ValueError("is empty" if not text else f"has {len(text):,} characters, more than {MOST_LABEL:,}")
            if len(self.codes) == MOST_LABELS:
                raise ValueError(f"is one of more than {MOST_LABELS:,} different ones, which are no classes")
            code = self.codes[text] = len(self.codes)
        return code


def picture_set(kind: str, parts: Parts, coded: Mapping[str, LabeledPictures], labels: Labels,
                names: Sequence[str] | None, test_share: float | None, seed: int,
                notices: Sequence[str] = ()) -> PictureSet:
    """Return the set of pictures whose labels are codes.

    Labels that are all whole numbers are numbers; the classes are then `names`, or the numbers that occur in the
    training set. Otherwise the classes are the labels of the training set in the order of their characters.

    Raises:
        DataError: if there are fewer than two classes, or a label is not one of the training set's; names a picture.
    """
    where, lines = parts.where, [*parts.notices, *notices]
    texts = list(labels.codes)
    are_numbers = all(map(_NUMBER.fullmatch, texts))
    keys: list[Any] = [int(text) if are_numbers else one_line(text) for text in texts]
    if are_numbers:
        _check_numbers(coded, keys, names)
    present = sorted({keys[code] for code in np.unique(coded[TRAIN].labels).tolist()})
    classes = tuple(names) if names and are_numbers else tuple(map(str, present))
    if names and not are_numbers:
        lines.append(f"{where}: the classes are those in the labels; the list of names is for labels that are numbers")
    if len(present) < 2:
        raise DataError(f"{where}: all training pictures have the label {present[0]!r}; a network needs at least two "
                        "classes")
    places = {key: key if names and are_numbers else number for number, key in enumerate(present)}
    table = np.array([places.get(key, -1) for key in keys], np.int64)
    ready = {}
    for part, pictures in coded.items():
        numbers = table[pictures.labels]
        if (numbers < 0).any():
            row = int(np.argmax(numbers < 0))
            raise DataError(f"{pictures.pictures.name(row)}: has the label {keys[pictures.labels[row]]!r}, which the "
                            "training pictures lack; remove it or add pictures to train on")
        ready[part] = LabeledPictures(pictures.pictures, numbers)
        if lacking := sorted(set(range(len(classes))) - set(np.unique(numbers).tolist())):
            lines.append(f"{where}: the {'training' if part == TRAIN else part} pictures lack {len(lacking):,} of "
                         f"{len(classes):,} classes: {_some([classes[number] for number in lacking])}")
    classes = check_classes(where, classes)
    if not parts.are_divided:
        train, test = split_off(where, ready[TRAIN], test_share, seed)
    elif TEST in ready:
        train, test = ready[TRAIN], ready[TEST]
    else:
        train, test = ready[TRAIN], ready.pop(VALIDATION)
        lines.append(f"{where}: has no {TEST} pictures; the {VALIDATION} pictures are what is tested on")
    return PictureSet(kind, train, test, classes, f"pictures in {where}", ready.get(VALIDATION), tuple(lines))


def _check_numbers(coded: Mapping[str, LabeledPictures], numbers: Sequence[int], names: Sequence[str] | None) -> None:
    """Check that labels are not negative, and smaller than the number of names.

    Raises:
        DataError: if one is not; names the picture.
    """
    values = np.array(numbers, np.int64)
    for part, pictures in coded.items():
        labels = values[pictures.labels]
        bad = labels < 0 if names is None else (labels < 0) | (labels >= len(names))
        if bad.any():
            row = int(np.argmax(bad))
            name, label = pictures.pictures.name(row), labels[row]
            if label < 0:
                raise DataError(f"{name}: has the label {label}, which stands for an unknown class; move the "
                                f"{part} files away, or add their labels")
            raise DataError(f"{name}: has the label {label}, but {len(names or ())} classes have names, from 0; name "
                            "all of them, or correct the label")


def _some(names: Sequence[str]) -> str:
    """Return the first of some names, and the number of the others."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(one_line, names[:SHOWN])) + more
