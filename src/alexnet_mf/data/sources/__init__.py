"""Sources of datasets: the built-in sets by their names, and what a path holds, recognized by its content.

A source of a built-in set is a module with a function `load` as in `BuiltIn`: one module here and one line in
`BUILT_IN`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from alexnet_mf.data.collection import PictureSet
from alexnet_mf.data.dataset import Dataset
from alexnet_mf.data.downloads import Progress, named_folder
from alexnet_mf.data.sources import cifar, fashion_mnist, folder, idx, parquet, parts, shards, synthetic
from alexnet_mf.errors import DataError, one_line


class BuiltIn(Protocol):
    """A module that provides a dataset."""

    def load(self, data_dir: Path | None = None, *, seed: int = 0, progress: Progress | None = None) -> Dataset:
        """Return the dataset.

        Args:
            data_dir: folder that holds the files; a source that reads no files refuses it.
            seed: for sources that draw their images; the others ignore it.
            progress: shown during downloads.

        Raises:
            DataError: if the dataset is not available; states the reason and the remedy.
        """


BUILT_IN: dict[str, BuiltIn] = {"fashion-mnist": fashion_mnist, "synthetic": synthetic}
"""The source of each built-in dataset, by its name."""
AUTO = "auto"
DATASETS = (AUTO, *BUILT_IN)
"""Names that `DataSource` knows."""


@dataclass(frozen=True)
class DataSource:
    """Place of a dataset, and how it is read."""

    name: str = AUTO
    """A name in `DATASETS`, or a path: a folder of class folders, of WebDataset's shards (tar), of Parquet files as
    Hugging Face publishes them, of idx files, or one of CIFAR's binary version. A path may also name one shard or
    Parquet file, or several by braces such as `train-{000..146}.tar`. `auto` is Fashion-MNIST, or the synthetic set
    with a notice if Fashion-MNIST is not available."""
    data_dir: str | None = None
    """Folder of Fashion-MNIST's files; without it ALEXNET_MF_DATA_DIR's, or the user's cache."""
    test_share: float | None = None
    """Share of the pictures that are tested on, from 0 to 1, of a folder that has no test pictures. With 1 none is
    left to train on."""
    classes: tuple[str, ...] | None = None
    """Other names of the classes, in their order."""
    skip_damaged: bool = False
    """Leave out pictures that cannot be decoded, with a notice for each."""
    store: str | bool | None = None
    """Folder of prepared pictures; without it one in the user's cache. False keeps none, and decodes pictures whenever
    they are used."""

    def __post_init__(self) -> None:
        if not self.name:
            raise DataError("`data` is empty; give a folder, or leave it out")
        if self.classes is not None:  # a list if it was read from JSON
            object.__setattr__(self, "classes", tuple(self.classes))
        if self.test_share is not None and not 0 < self.test_share <= 1:
            raise DataError(f"`test_share` must be more than 0 and at most 1, not {self.test_share:g}")
        if self.is_built_in:
            for name in ("test_share", "skip_damaged", "store"):
                if getattr(self, name) not in (None, False) or (name == "store" and self.store is not None):
                    raise DataError(f"`{name}` is for pictures of your own; leave it out, or name their folder with "
                                    "`data`")
        elif self.data_dir is not None:
            raise DataError(f"`data_dir` is for the built-in sets; leave it out, since `data` is {self.name}")

    @property
    def is_built_in(self) -> bool:
        """Return True if it is a built-in set."""
        return self.name in DATASETS

    def check(self) -> None:
        """Check that there is such a dataset, before anything slow.

        Raises:
            DataError: if its name is neither a built-in set's nor a path.
        """
        if self.is_built_in:
            return
        path = self._path()
        with _readable(path):
            if not path.exists() and not parts.expanded(path) and not _arrays(path):
                raise DataError(f"{self.name}: is neither a built-in dataset ({', '.join(DATASETS)}) nor a file or "
                                "folder; correct the path")

    def _path(self) -> Path:
        """Return the path.

        Raises:
            DataError: if it cannot be one.
        """
        if "\0" in self.name:
            raise DataError(f"{self.name}: the path has a null byte; remove it")
        try:
            return Path(self.name).expanduser()
        except RuntimeError as error:
            raise DataError(f"{self.name}: there is no such user; give the whole path") from error

    def resolved(self) -> DataSource:
        """Return the source as it is known from every folder, for a record."""
        if self.is_built_in:
            return dataclasses.replace(self, data_dir=None)
        return dataclasses.replace(self, name=str(self._path().resolve()),
                                   store=self.store and str(Path(str(self.store)).expanduser().resolve()))

    def open(self, progress: Progress | None = None,
             notice: Callable[[str], None] = lambda line: None) -> Dataset | PictureSet:
        """Return the dataset; pictures are listed, but not decoded.

        Args:
            progress: shown during downloads.
            notice: receives lines about what was assumed or left out.

        Raises:
            DataError: if it is not available; states the reason and the remedy.
        """
        data = self._open_built_in(progress, notice) if self.is_built_in else self._open_path()
        for line in getattr(data, "notices", ()):
            notice(line)
        if self.classes is None:
            return data
        if len(self.classes) != len(data.classes):
            raise DataError(f"`classes` has {len(self.classes)} names, but {data.origin} has {len(data.classes)} "
                            "classes; give a name for each")
        classes = tuple(map(one_line, self.classes))  # as weights files name them
        if twice := [name for name, count in Counter(classes).items() if count > 1]:
            raise DataError(f"`classes` has {twice[0]!r} more than once; give each class a name of its own")
        return dataclasses.replace(data, classes=classes)

    def _open_built_in(self, progress: Progress | None, notice: Callable[[str], None]) -> Dataset:
        """Return a built-in set. A folder that the user names, by `data_dir` or ALEXNET_MF_DATA_DIR, is final: it is an
        error if Fashion-MNIST cannot be read from it."""
        data_dir = None if self.data_dir is None else Path(self.data_dir).expanduser()
        if Path(self.name).exists():
            notice(f"`data` is the built-in set {self.name}; name the folder here as ./{self.name}")
        try:
            name = "fashion-mnist" if self.name == AUTO else self.name
            return BUILT_IN[name].load(data_dir, progress=progress)
        except DataError as error:
            if self.name != AUTO or named_folder(data_dir) is not None:
                raise
            notice(f"using the synthetic set: {error}")
            return synthetic.load()

    def _open_path(self) -> Dataset | PictureSet:
        path = self._path()
        self.check()
        with _readable(path):
            if arrays := _arrays(path):
                for name in ("test_share", "skip_damaged", "store"):
                    if getattr(self, name) not in (None, False) or (name == "store" and self.store is not None):
                        raise DataError(f"{path}: `{name}` is for pictures that are files; leave it out")
                return fashion_mnist.named(arrays.load())
            if files := parts.find(path, shards.ENDINGS):
                return shards.load(files, self.test_share)
            if files := parquet.find(path):
                return parquet.load(files, self.test_share)
            if path.is_dir() and folder.is_class_folders(path):
                return folder.load(path, self.test_share)
            is_folder = path.is_dir()
        holds = "holds no dataset" if is_folder else "is a file that is no dataset; unpack an archive, or"
        raise DataError(f"{path}: {holds}{';' * is_folder} give a folder with train/CLASS/ and test/CLASS/ of "
                        "pictures, WebDataset's shards train-*.tar and test-*.tar, train-*.parquet and "
                        "test-*.parquet, idx files, or CIFAR's binary files")


def _arrays(path: Path) -> idx.IdxSet | cifar.CifarSet | None:
    return idx.find_sets(path) or cifar.find(path)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn errors of the file system into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read ({error.strerror or error}); change its "
                        "permissions, or name another path") from error
