"""Pictures in Parquet files, as Hugging Face publishes them: a column of encoded pictures, one of labels.

A picture is read with a few neighbors: in memory are these and the page that holds them, not their whole row group.
Each thread has a reader of its own, which continues from one picture to the next; for a picture before it, it reads the
row group from its beginning. pyarrow is imported when there is a file.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.data.collection import LabeledPictures, PictureSet
from alexnet_mf.data.pictures import MOST_BYTES, Names, PicturesInFolder
from alexnet_mf.data.sources import parts as sets
from alexnet_mf.data.sources.parts import Labels, Parts
from alexnet_mf.errors import DataError, one_line

ENDINGS = (".parquet",)
IMAGES = ("image", "img")
"""Names of the column of pictures, where several are possible."""
LABELS = ("label", "fine_label", "cls", "class", "labels")
"""Names of the column of labels."""
OLDEST = (14, 0, 1)
"""First version of pyarrow that runs no code from a file (CVE-2023-47248)."""
INSTALL = "`pip install 'alexnet_mf[parquet]'`"
NEIGHBORS = 64
"""Largest number of rows that are read at a time."""
NEIGHBOR_BYTES = 2**22
"""Approximate size of the rows that are read at a time."""
MOST_IN_GROUP = 1_000_000_000
"""Largest size of a row group, in bytes: a page can hold all of it."""
BUFFER = 2**20
"""Bytes of a column that are read from the disk at a time."""


def find(path: Path) -> Parts | None:
    """Return the files that a path names: of a folder, or of the folder `data` in it. None if there are none.

    Raises:
        DataError, OSError: as `sets.find`.
    """
    return sets.find(path, ENDINGS) or sets.find(path / "data", ENDINGS)


def load(parts: Parts, test_share: float | None = None, seed: int = 0) -> PictureSet:
    """List the pictures of Parquet files.

    Args:
        test_share: share of the training pictures that become the test set, if there is none.
        seed: chooses them.

    Raises:
        DataError: if pyarrow is missing, a file is damaged, its columns are not recognized, or there are no classes;
            names the file.
    """
    parts.check(test_share, "name a folder with train-*.parquet and test-*.parquet")
    _pyarrow()
    labels = Labels()
    tables = {part: [_Table.read(path, labels) for path in paths] for part, paths in parts.files.items()}
    coded = {part: _part(parts.folder, of_part) for part, of_part in tables.items()}
    first, *others = [table for of_part in tables.values() for table in of_part]
    for other in others:
        if other.names != first.names:
            raise DataError(f"{other.path}: has other names of the classes than {first.path.name}; give all files "
                            "the same")
    return sets.picture_set("parquet", parts, coded, labels, first.names and _unique(first.names), test_share, seed)


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Return names that differ in more than case: the number of the class is added to those that do not. ImageNet has
    two classes `crane`."""
    counts = Counter(name.lower() for name in names)
    return tuple(name if counts[name.lower()] == 1 else f"{name} ({number})" for number, name in enumerate(names))


def _pyarrow() -> Any:
    """Return the module `pyarrow.parquet`.

    Raises:
        DataError: if it is missing or too old; names the command.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise DataError(f"Parquet files need pyarrow; install it with {INSTALL}") from error
    except ImportError as error:  # pyarrow 26 with NumPy 1
        raise DataError(f"pyarrow cannot be imported ({_reason(error)}); install another version with {INSTALL}"
                        ) from error
    if tuple(int(number) for number in pyarrow.__version__.split(".")[:3] if number.isdigit()) < OLDEST:
        raise DataError(f"pyarrow {pyarrow.__version__} can run code from a Parquet file; upgrade it with {INSTALL}")
    return parquet


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """Raise the faults of a file as ValueError or OSError."""
    import pyarrow

    try:
        yield
    except (ValueError, OSError):
        raise
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _opened(path: Path) -> Any:
    return _pyarrow().ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)


def _reason(error: Exception) -> str:
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


@dataclass(frozen=True, eq=False)
class _Table:
    """Columns of one file, without its pictures."""

    path: Path
    state: tuple[int, int]
    """Size of the file and time of its last change, in nanoseconds."""
    image: str
    """Path of the column of pictures in the schema."""
    codes: NDArray[np.int64]
    groups: NDArray[np.int64]
    """First row of each row group, and the number of all rows."""
    sizes: NDArray[np.int64]
    """Approximate size of a picture, by row group."""
    names: tuple[str, ...] | None
    """Names of the classes, from the file's metadata."""

    @classmethod
    def read(cls, path: Path, labels: Labels) -> _Table:
        """Read the schema, the metadata and the labels of a file.

        Raises:
            DataError: if it is damaged, or has no label in a row; names it.
        """
        try:
            facts = path.stat()
            with _faults(), _opened(path) as file:
                image, label = _image_column(file.schema_arrow), _label_column(file.schema_arrow)
                names = _class_names(file.schema_arrow, label)
                starts, sizes = _groups(file.metadata)
                codes = _codes(file, label, labels)
                if not len(codes):
                    raise DataError(f"{path}: has no rows; remove it")
                if len(codes) != starts[-1]:
                    raise ValueError(f"{starts[-1]:,} rows, but {len(codes):,} labels")
        except _ContentError as error:
            raise DataError(f"{path}: {error}") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: is damaged or no Parquet file ({_reason(error)}); replace it") from error
        return cls(path, (facts.st_size, facts.st_mtime_ns), image, codes, starts, sizes, names)


class _ContentError(ValueError):
    """Contents that cannot be used, though the file is not damaged; the message lacks the file's name."""


def _image_column(schema: Any) -> str:
    """Return the path of the column of pictures: `image.bytes`, or `image`."""
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    paths = []
    for column in schema:
        if is_bytes(column.type):
            paths.append((column.name, column.name))
        elif types.is_struct(column.type) and any(part.name == "bytes" and is_bytes(part.type) for part in column.type):
            paths.append((column.name, f"{column.name}.bytes"))
    by_name = [pair for pair in paths if pair[0].lower() in IMAGES]
    candidates = by_name or paths
    name = _only(schema, "pictures (bytes, or a struct with `bytes`)", [name for name, _ in candidates])
    return dict(candidates)[name]


def _label_column(schema: Any) -> str:
    """Return the name of the column of labels: by its name, else the only one whose values have names."""
    from pyarrow import types

    def is_label(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)

    features = _features(schema)
    usable = [column.name for column in schema if is_label(column.type)]
    by_name = [name for name in usable if name.lower() in LABELS]
    return _only(schema, f"labels (whole numbers or texts named {', '.join(LABELS)})",
                 by_name or [name for name in usable if _names_of(features.get(name))])


def _only(schema: Any, what: str, columns: Sequence[str]) -> str:
    """Return the only column.

    Raises:
        _ContentError: if there is none, or several are possible; lists them.
    """
    if len(columns) > 1:
        raise _ContentError(f"has several columns of {what}: {_listed(columns)}; keep or rename one of them")
    if not columns:
        raise _ContentError(f"has no column of {what}, but {_listed(schema.names) or 'no columns'}; rename or add one")
    return columns[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{one_line(name)}`" for name in names[:20]) + (" and more" if len(names) > 20 else "")


def _features(schema: Any) -> dict[str, Any]:
    """Return the features that `datasets` has written to the schema's metadata; none if they are not as it writes
    them."""
    try:
        features = files.parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _names_of(feature: Any) -> tuple[str, ...] | None:
    """Return the names of the classes of a feature; None if it has none."""
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        return None
    return tuple(one_line(name.strip()) for name in names)


def _class_names(schema: Any, label: str) -> tuple[str, ...] | None:
    return _names_of(_features(schema).get(label))


def _groups(metadata: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first row of each row group, with the number of all rows at the end, and the sizes of pictures: of all
    columns. What the metadata state of each column ends the process in pyarrow if it is damaged.

    Raises:
        _ContentError: if a row group is too large.
    """
    rows, sizes = [], []
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        if group.total_byte_size > MOST_IN_GROUP:
            raise _ContentError(f"has {group.total_byte_size / 1e9:.1f} GB in one row group, more than "
                                f"{MOST_IN_GROUP / 1e9:g} GB; write it again with smaller groups, such as of 100 rows")
        if group.num_rows < 0:
            raise ValueError("a row group has fewer than no rows")
        rows.append(group.num_rows)
        sizes.append(max(1, group.total_byte_size // max(1, group.num_rows)))
    return np.cumsum([0, *rows], dtype=np.int64), np.array(sizes, np.int64)


def _codes(file: Any, name: str, labels: Labels) -> NDArray[np.int64]:
    """Return the codes of the labels.

    Raises:
        _ContentError: if one is missing, or there are too many.
    """
    codes, row = [np.zeros(0, np.int64)], 0
    for chunk in file.read([name], use_threads=False).column(0).chunks:
        values = chunk.dictionary_decode() if hasattr(chunk, "dictionary_decode") else chunk
        if values.null_count:
            row += int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            raise _ContentError(f"row {row:,} has no label in `{name}`; add it or remove the row")
        encoded = values.cast("string").dictionary_encode()
        try:
            places = [labels.code(text.strip()) for text in encoded.dictionary.to_pylist()]
        except ValueError as error:
            raise _ContentError(f"a label in `{name}` {error}; correct it") from error
        codes.append(np.array(places, np.int64)[encoded.indices.to_numpy(zero_copy_only=False)])
        row += len(values)
    return np.concatenate(codes)


def _batches(file: Any, image: str, group: int, rows: int) -> Iterator[Any]:
    """Yield the column of pictures of a row group, some rows at a time."""
    for batch in file.iter_batches(rows, row_groups=[group], columns=[image], use_threads=False):
        yield batch.column(0)


def _content(value: Any) -> bytes | None:
    """Return the picture of a value; None if it is missing."""
    content = value.as_py()
    return content.get("bytes") if isinstance(content, dict) else content


class _Reader:
    """Open file of a thread, and the place from which it continues."""

    def __init__(self) -> None:
        self.table: _Table | None = None
        self.file: Any = None
        self.group = -1
        self.batches: Iterator[Any] = iter(())
        self.batch: Any = ()
        self.first = 0
        """Row of the batch in the row group."""

    def read(self, table: _Table, row: int) -> bytes | None:
        """Return the picture of a row; None if it is missing.

        Raises:
            ValueError: if the file is damaged or has changed.
            OSError: if it cannot be read.
        """
        group = int(np.searchsorted(table.groups, row, "right")) - 1
        row -= int(table.groups[group])
        if table is not self.table:
            self.close()
            facts = table.path.stat()
            if (facts.st_size, facts.st_mtime_ns) != table.state:
                raise ValueError("it has changed since it was listed")
            self.file, self.table = _opened(table.path), table
        if group != self.group or row < self.first:
            rows = max(1, min(NEIGHBORS, NEIGHBOR_BYTES // int(table.sizes[group])))
            self.batches, self.batch = _batches(self.file, table.image, group, rows), ()
            self.group, self.first = group, 0
        while row >= self.first + len(self.batch):
            self.first += len(self.batch)
            self.batch = ()
            self.batch = next(self.batches, None)
            if self.batch is None:
                raise ValueError("a row group ends early")
        return _content(self.batch[row - self.first])

    def close(self) -> None:
        """Close the file."""
        file = self.file
        self.__init__()  # type: ignore[misc]
        if file is not None:
            file.close()


@dataclass(eq=False)
class ParquetPictures(PicturesInFolder):
    """Pictures in Parquet files. A name is the path of a file, and the number of the row in it, from 0."""

    tables: Sequence[_Table]
    starts: NDArray[np.int64]
    """Number of each file's first picture, and of all pictures."""
    _local: threading.local = field(default_factory=threading.local, repr=False)

    def read(self, number: int) -> bytes:
        which = int(np.searchsorted(self.starts, number, "right")) - 1
        reader = self._local.__dict__.setdefault("reader", _Reader())
        try:
            with _faults():
                content = reader.read(self.tables[which], number - int(self.starts[which]))
        except (OSError, ValueError) as error:
            reader.close()
            raise DataError(f"cannot be read ({_reason(error)})") from error
        if content is None:
            raise DataError("has no bytes of a picture in its row")
        if not 0 < len(content) <= MOST_BYTES:
            raise DataError(f"cannot be read (larger than {MOST_BYTES / 1e6:g} MB)" if content else "is empty")
        return content


def _part(folder: Path, tables: Sequence[_Table]) -> LabeledPictures:
    """Return the pictures of one part, with the codes of their labels."""
    counts = [len(table.codes) for table in tables]
    names = [Names(f"{table.path.relative_to(folder)}/{row}" for row in range(count))
             for table, count in zip(tables, counts)]
    stamps = [np.stack([np.repeat(table.sizes, np.diff(table.groups)), sum(table.state) + np.arange(count)], 1)
              for table, count in zip(tables, counts)]
    pictures = ParquetPictures(folder, Names.joined(names), np.concatenate(stamps), tables,
                               np.cumsum([0, *counts], dtype=np.int64))
    return LabeledPictures(pictures, np.concatenate([table.codes for table in tables]))
