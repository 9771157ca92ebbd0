"""Pictures in tar archives, as WebDataset writes them: shards.

A sample is the members of a shard with the same name up to the first dot, one after the other: `dir/0001.jpg` and
`dir/0001.cls`. Shards are in the order of their names with numbers by value, samples in the order of the archive. The
headers are read once; each picture is then read alone, from its place in the file. Nothing is unpickled, and nothing
but a packed archive as a whole is unpacked.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.data import downloads
from alexnet_mf.data.collection import SHOWN, LabeledPictures, PictureSet, check_classes
from alexnet_mf.data.pictures import MOST_BYTES, Names, PicturesInFolder
from alexnet_mf.data.sources.parts import MOST_LABEL, Labels, Parts, picture_set
from alexnet_mf.data.sources.tar import FILES, LINKS, MOST_TEXT, Member, members
from alexnet_mf.errors import DataError, one_line

ENDINGS = (".tar", ".tar.gz", ".tgz")
PICTURES = ("jpg", "jpeg", "png", "webp")
"""Endings of the members that are pictures."""
KEYS = ("label", "cls", "class")
"""Keys of a label in JSON, in the order of their preference."""
CLASSES = "classes.txt"
"""File beside the shards with the names of the classes, one per line; the first is that of label 0."""
MOST_UNPACKED = 10_000_000_000
MOST_RATIO = 1_000
"""An archive that is unpacked to more than this size and more than this multiple is no archive of pictures."""
SPARE = 2**26
"""Bytes that the disk keeps free beside unpacked shards."""


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
    picture: Member | None = None
    labels: dict[str, bytes] = field(default_factory=dict)


def _listed(path: Path, labels: Labels) -> _Index:
    """List the pictures of an unpacked shard.

    Raises:
        ValueError: if it is damaged, or a sample is incomplete.
        OSError: if it cannot be read.
    """
    index, sample = _Index(), _Sample()
    with path.open("rb", buffering=1 << 13) as file:
        for member in members(file, os.fstat(file.fileno()).st_size):
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
            if member.is_sparse or member.kind not in FILES:
                what = "a link" if member.kind in LINKS else "sparse" if member.is_sparse else "no file"
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
class ShardPictures(PicturesInFolder):
    """Pictures in shards. A name is the path of a shard, and of the member in it. A read opens its own file, so threads
    share nothing."""

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
