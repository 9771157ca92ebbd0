"""Pictures in tar archives, as WebDataset writes them: shards. Parts and labels of sets that are spread over files.

A sample is the members of a shard with the same name up to the first dot, one after the other: `dir/0001.jpg` and
`dir/0001.cls`. Shards are in the order of their names with numbers by value, samples in the order of the archive. The
headers are read once; each picture is then read alone, from its place in the file. Nothing is unpickled, and nothing
but a packed archive as a whole is unpacked.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import math
import os
import re
import shutil
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.data import downloads
from alexnet_mf.data.collection import SHOWN, LabeledPictures, PictureSet, check_classes, split_off
from alexnet_mf.data.pictures import MOST_BYTES, Names, Pictures
from alexnet_mf.data.sources import folder as folders
from alexnet_mf.errors import DataError, one_line

ENDINGS = (".tar", ".tar.gz", ".tgz")
PICTURES = ("jpg", "jpeg", "png", "webp")
"""Endings of the members that are pictures."""
KEYS = ("label", "cls", "class")
"""Keys of a label in JSON, in the order of their preference."""
CLASSES = "classes.txt"
"""File beside the shards with the names of the classes, one per line; the first is that of label 0."""
MOST_SHARDS = 1_000_000
MOST_LABEL = 1_000
"""Largest length of a label, in characters."""
MOST_LABELS = 100_000
"""Largest number of different labels: more are captions or numbers of pictures."""
MOST_TEXT = 1_000_000
"""Largest size of a member with a label, and of a member's extended header, in bytes."""
MOST_UNPACKED = 10_000_000_000
MOST_RATIO = 1_000
"""An archive that is unpacked to more than this size and more than this multiple is no archive of pictures."""
SPARE = 2**26
"""Bytes that the disk keeps free beside unpacked shards."""


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


def find(path: Path, endings: Sequence[str] = ENDINGS) -> Parts | None:
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


# Members of a tar archive

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_LINKS = (b"1", b"2")
_WITHOUT_DATA = (*_LINKS, b"3", b"4", b"5", b"6")
_FILES = (b"0", b"\0", b"7")


class _Member(NamedTuple):
    name: str
    kind: bytes
    """Type in its header."""
    start: int
    size: int
    is_sparse: bool


def _members(file: BinaryIO, size: int) -> Iterator[_Member]:
    """Yield the members of a tar archive of the POSIX, GNU or old format. Python's `tarfile` takes several times as
    long for it, and cannot tell a truncated archive from a complete one.

    Raises:
        ValueError: if it is no archive, truncated or damaged.
    """
    offset, extended = 0, dict[str, str]()
    while True:
        file.seek(offset)
        header = file.read(_BLOCK)
        if len(header) < _BLOCK:
            raise ValueError("is empty; replace or remove it" if not size else
                             f"is truncated after {size:,} bytes; download it again")
        if header == _ZEROS:
            _check_end(file)
            return
        if not _has_checksum(header):
            raise ValueError(f"is damaged at byte {offset:,}; download it again" if offset else
                             "is no tar archive; replace it by one (.tar or .tar.gz)")
        kind, start = header[156:157], offset + _BLOCK
        try:
            length = int(extended["size"]) if "size" in extended and kind not in b"xgLK" else _number(header[124:136])
            if kind == b"S":  # the list of the holes is continued in further blocks
                more = header[482]
                while more:
                    file.seek(start)
                    start, more = start + _BLOCK, file.read(_BLOCK)[504]
        except (ValueError, IndexError) as error:
            raise ValueError(f"is damaged at byte {offset:,}; download it again") from error
        if kind in _WITHOUT_DATA:
            length = 0
        if length < 0 or start + length > size:
            raise ValueError(f"is truncated after {size:,} bytes; download it again")
        offset = start + -(-length // _BLOCK) * _BLOCK
        if kind in (b"x", b"X", b"L"):
            if length > MOST_TEXT:
                raise ValueError(f"is damaged at byte {start - _BLOCK:,}; download it again")
            file.seek(start)
            content = file.read(length)
            extended |= {"path": _text(content)} if kind == b"L" else _records(content)
        elif kind not in (b"g", b"K"):
            name = extended.get("GNU.sparse.name") or extended.get("path") or _header_name(header)
            is_sparse = kind == b"S" or any(key.startswith("GNU.sparse.") for key in extended)
            yield _Member(name, kind, start, length, is_sparse)
            extended = {}


def _check_end(file: BinaryIO) -> None:
    """Check that nothing but zeros follows."""
    while content := file.read(1 << 20):
        if content.count(0) != len(content):
            raise ValueError("has data after its end, perhaps another archive; pack it again as one")


def _has_checksum(header: bytes) -> bool:
    """Return True if the header has its checksum. Old programs added signed bytes."""
    try:
        checksum = _number(header[148:156])
    except ValueError:
        return False
    rest = header[:148] + b" " * 8 + header[156:]
    total = sum(rest)
    return checksum == total or checksum == total - 256 * sum(byte > 127 for byte in rest)


def _number(number: bytes) -> int:
    """Return a number of a header: octal digits, or GNU's binary form."""
    if number[0] & 0x80:
        return int.from_bytes(bytes([number[0] & 0x7F]) + number[1:], "big")
    return int(number.split(b"\0", 1)[0].strip() or b"0", 8)


def _text(text: bytes) -> str:
    return text.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _header_name(header: bytes) -> str:
    name = _text(header[:100])
    return f"{_text(header[345:500])}/{name}" if header[257:263] == b"ustar\0" and header[345] else name


def _records(content: bytes) -> dict[str, str]:
    """Return the records of an extended header, `LENGTH KEY=VALUE`."""
    records, place = {}, 0
    while place < len(content) and content[place]:
        length, space, _ = content[place:place + 20].partition(b" ")
        end = place + int(length) if length.isdigit() else 0
        key, equals, value = content[place + len(length) + 1:end - 1].partition(b"=")
        if not space or not equals or not place < end <= len(content) or content[end - 1] != ord("\n"):
            raise ValueError("has a damaged extended header; pack it again")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        place = end
    return records


# Samples of a shard


@dataclass
class _Index:
    """Pictures of a shard, in their order."""

    names: list[str] = field(default_factory=list)
    offsets: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    codes: array[int] = field(default_factory=lambda: array("q"))
    without_picture: int = 0
    """Number of labels without a picture."""
    others: Counter[str] = field(default_factory=Counter)
    """Members by ending that are neither."""


@dataclass
class _Sample:
    """Members of a sample that have been read."""

    key: str = ""
    picture: _Member | None = None
    labels: dict[str, bytes] = field(default_factory=dict)


def _listed(path: Path, labels: Labels) -> _Index:
    """List the pictures of an unpacked shard.

    Raises:
        ValueError: if it is damaged, or a sample is incomplete.
        OSError: if it cannot be read.
    """
    index, sample = _Index(), _Sample()
    with path.open("rb", buffering=1 << 13) as file:
        for member in _members(file, os.fstat(file.fileno()).st_size):
            name = member.name
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"has the member {_quoted(name)}, a path out of the archive; pack it again with "
                                 "paths in a folder")
            if member.kind == b"5" or name.endswith("/"):
                continue
            folder, slash, base = name.rpartition("/")
            stem, dot, ending = base.partition(".")
            ending = ending.lower()
            if not stem:  # hidden, such as what macOS adds
                continue
            is_picture, is_label = ending in PICTURES, ending in ("cls", "json")
            if not is_picture and not is_label:
                index.others[f"{dot}{ending}"[:MOST_LABEL] if len(index.others) < MOST_LABEL else ""] += 1
                continue
            if member.is_sparse or member.kind not in _FILES:
                what = "a link" if member.kind in _LINKS else "sparse" if member.is_sparse else "no file"
                raise ValueError(f"{_quoted(name)} is {what}; pack the files as they are")
            key = f"{folder}{slash}{stem}"
            if key != sample.key:
                _finish(sample, index, labels)
                sample = _Sample(key)
            if is_picture:
                if sample.picture:
                    raise ValueError(f"has two pictures in one sample, {_quoted(sample.picture.name)} and "
                                     f"{_quoted(name)}; remove or rename one")
                sample.picture = member
                continue
            if ending in sample.labels:
                raise ValueError(f"has {_quoted(name)} twice; remove one")
            if member.size > MOST_TEXT:
                raise ValueError(f"{_quoted(name)} has {member.size:,} bytes, too many for a label; correct it")
            if "cls" not in sample.labels:
                file.seek(member.start)
                sample.labels[ending] = file.read(member.size)
        _finish(sample, index, labels)
    if not index.names:
        raise ValueError(f"has no picture ({', '.join(f'.{ending}' for ending in PICTURES)}); remove it")
    return index


def _finish(sample: _Sample, index: _Index, labels: Labels) -> None:
    """Add a sample to the index."""
    if sample.picture is None:
        index.without_picture += bool(sample.labels)
        return
    if not sample.labels:
        raise ValueError(f"{_quoted(sample.picture.name)} has no label; put {_quoted(sample.key + '.cls')} or .json "
                         "beside it, with the files of a sample one after the other")
    ending = "cls" if "cls" in sample.labels else "json"
    try:
        code = labels.code(_label_of(ending, sample.labels[ending]))
    except ValueError as error:
        raise ValueError(f"the label of {_quoted(sample.picture.name)}, in its .{ending}, {error}; correct it"
                         ) from error
    index.names.append(sample.picture.name)
    index.offsets.append(sample.picture.start)
    index.sizes.append(sample.picture.size)
    index.codes.append(code)


def _label_of(ending: str, content: bytes) -> str:
    """Return the label that a member states.

    Raises:
        ValueError: if there is none.
    """
    try:
        text = content.decode("utf-8-sig")
        if ending == "cls":
            return text.strip()
        values = files.parse_json(text)
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8 text") from error
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from error
    label = next((values[key] for key in KEYS if key in values), None) if isinstance(values, dict) else None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if not isinstance(label, (str, int)) or isinstance(label, bool):
        raise ValueError(f"is missing: {' or '.join(f'`{key}`' for key in KEYS)} must be a whole number or a name")
    return str(label).strip()


def _quoted(name: str) -> str:
    return repr(one_line(name))


# Packed shards


def _is_packed(path: Path) -> bool:
    return files.start(path, 2) == b"\x1f\x8b"


def _unpacked(path: Path, walk: Callable[[Path], _Index]) -> tuple[Path, _Index]:
    """Return the path of a shard's unpacked form, and its index. It is in the user's cache until the shard changes.

    Raises:
        ValueError: as `walk`, or if the shard is damaged, a bomb, or the disk has no room. Nothing is kept then.
        OSError: if something cannot be read or written.
    """
    facts, cache = path.stat(), downloads.cache_folder("unpacked")
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]
    state = hashlib.sha256(f"{facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:8]
    target = cache / f"{place}-{state}.tar"
    if target.exists():
        return target, walk(target)
    cache.mkdir(parents=True, exist_ok=True)
    _check_room(cache, facts.st_size)
    with files.replacing(target) as partial:
        _unpack(path, partial, facts.st_size)
        index = walk(partial)
    for old in cache.glob(f"{place}-*.tar"):
        if old != target:
            with contextlib.suppress(OSError):
                old.unlink()
    return target, index


def _unpack(path: Path, target: Path, packed: int) -> None:
    written = checked = 0
    try:
        with gzip.open(path) as source, target.open("wb") as sink:
            while content := source.read(1 << 20):
                written += len(content)
                if written > max(MOST_UNPACKED, MOST_RATIO * packed):
                    raise ValueError(f"is unpacked to more than {MOST_RATIO:,} times its size, as no pictures are; "
                                     "remove it")
                if written >= checked:
                    _check_room(target.parent, len(content))
                    checked += SPARE // 2
                sink.write(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError("is truncated or damaged; download it again") from error


def _check_room(cache: Path, wanted: int) -> None:
    free = shutil.disk_usage(cache).free
    if free < wanted + SPARE:
        raise ValueError(f"cannot be unpacked: {free / 1e9:.1f} GB are free in {cache}; make room, or unpack the "
                         "shards yourself, to .tar files")


# Sets


@dataclass(frozen=True)
class Shard:
    """A tar archive whose members are known."""

    path: Path
    size: int
    changed: int
    """Time of its last change, in nanoseconds."""


@dataclass(eq=False)
class ShardPictures(Pictures):
    """Pictures in shards. A read opens its own file, so threads share nothing."""

    folder: Path
    names: Names
    """Paths of the shards in the folder, and of the members in the shards."""
    stamps: NDArray[np.int64]
    shards: Sequence[Shard]
    numbers: NDArray[np.int32]
    """Number of each picture's shard."""
    offsets: NDArray[np.int64]

    def read(self, number: int) -> bytes:
        shard, size = self.shards[self.numbers[number]], int(self.stamps[number, 0])
        if not 0 < size <= MOST_BYTES:
            raise DataError(f"cannot be read (larger than {MOST_BYTES / 1e6:g} MB)" if size else "is empty")
        try:
            with shard.path.open("rb") as file:
                facts = os.fstat(file.fileno())
                file.seek(int(self.offsets[number]))
                content = file.read(size)
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror or error})") from error
        if (facts.st_size, facts.st_mtime_ns) != (shard.size, shard.changed) or len(content) != size:
            raise DataError("cannot be read (its shard has changed since it was listed)")
        return content

    def name(self, number: int) -> str:
        return str(self.folder / self.names[number])

    def identity(self) -> bytes:
        """Return a digest of folder, names and stamps, as for pictures that are files."""
        return hashlib.sha256(os.fsencode(os.path.realpath(self.folder)) + b"\0" + super().identity()).digest()


def load(parts: Parts, test_share: float | None = None, seed: int = 0) -> PictureSet:
    """List the pictures of shards.

    Args:
        test_share: share of the training pictures that become the test set, if there is none.
        seed: chooses them.

    Raises:
        DataError: if a shard is damaged, a sample incomplete, or there are no classes; names the shard.
    """
    parts.check(test_share, "name a folder with train-*.tar and test-*.tar")
    names = _class_names(parts.folder / CLASSES)
    labels, left_out = Labels(), _LeftOut()
    coded = {part: _part(parts.folder, paths, labels, left_out) for part, paths in parts.files.items()}
    return picture_set("shards", parts, coded, labels, names, test_share, seed, tuple(left_out.all(parts.where)))


@dataclass
class _LeftOut:
    """Members that are not read, and shards that are unpacked, for notices."""

    without_picture: int = 0
    others: Counter[str] = field(default_factory=Counter)
    unpacked: int = 0
    unpacked_bytes: int = 0

    def all(self, where: Path) -> Iterator[str]:
        """Yield the notices."""
        if self.unpacked:
            yield (f"{where}: {self.unpacked:,} packed shards take {self.unpacked_bytes / 1e9:.1f} GB unpacked, in "
                   f"{downloads.cache_folder('unpacked')}")
        if self.without_picture:
            yield f"{where}: left out {self.without_picture:,} labels without a picture"
        if self.others:
            kinds = ", ".join(f"{count:,} {one_line(ending) or 'other'}"
                              for ending, count in self.others.most_common(SHOWN))
            yield (f"{where}: left out {sum(self.others.values()):,} members that are neither pictures nor labels: "
                   f"{kinds}")


def _class_names(path: Path) -> tuple[str, ...] | None:
    """Return the names of the classes in a file; None if there is no file.

    Raises:
        DataError: if it cannot be read, or names no two classes.
    """
    try:
        lines = files.read_text(path, MOST_TEXT).rstrip().splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); replace or remove it") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    names = [one_line(line.strip()) for line in lines]
    if not all(names):
        raise DataError(f"{path}: line {names.index('') + 1} is empty; name a class in each line")
    return check_classes(path, names)


def _part(folder: Path, paths: Collection[Path], labels: Labels, left_out: _LeftOut) -> LabeledPictures:
    """List the pictures of one part, with the codes of their labels."""
    shards, names, stamps, codes = [], [], [], []
    for path in paths:
        try:
            facts = path.stat()
            is_packed = _is_packed(path)
            place, index = (_unpacked(path, lambda one: _listed(one, labels)) if is_packed else
                            (path, _listed(path, labels)))
            on_disk = place.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error}); replace or remove it") from error
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
        shards.append(Shard(place, on_disk.st_size, on_disk.st_mtime_ns))
        beginning = str(path.relative_to(folder))
        names.append(Names(f"{beginning}/{name}" for name in index.names))
        offsets, sizes = (np.frombuffer(values, np.int64) for values in (index.offsets, index.sizes))
        stamps.append(np.stack([sizes, facts.st_mtime_ns + offsets, offsets], 1))
        codes.append(np.frombuffer(index.codes, np.int64))
        left_out.without_picture += index.without_picture
        left_out.others += index.others
        if is_packed:
            left_out.unpacked += 1
            left_out.unpacked_bytes += on_disk.st_size
    numbers = np.repeat(np.arange(len(shards), dtype=np.int32), list(map(len, codes)))
    whole = np.concatenate(stamps)
    pictures = ShardPictures(folder, Names.joined(names), np.ascontiguousarray(whole[:, :2]), shards, numbers,
                             np.ascontiguousarray(whole[:, 2]))
    return LabeledPictures(pictures, np.concatenate(codes))
