"""Sources of datasets: the built-in sets by their names, and what a path holds, recognized by its content.

A source of a built-in set is a module with a function `load` as in `BuiltIn`: one module here and one line in
`BUILT_IN`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from alexnet_mf.data.collection import PictureSet, check_classes
from alexnet_mf.data.dataset import Dataset
from alexnet_mf.data.downloads import Progress, named_folder
from alexnet_mf.data.sources import cifar, fashion_mnist, folder, idx, synthetic
from alexnet_mf.errors import DataError


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
    """A name in `DATASETS`, or a path: a folder of class folders, a folder of idx files, or one of CIFAR's binary
    version. `auto` is Fashion-MNIST, or the synthetic set with a notice if Fashion-MNIST is not available."""
    data_dir: str | None = None
    """Folder of Fashion-MNIST's files; without it ALEXNET_MF_DATA_DIR's, or the user's cache."""
    test_share: float | None = None
    """Share of the pictures that are tested on, from 0 to 1, of a folder that has no test pictures."""
    classes: tuple[str, ...] | None = None
    """Other names of the classes, in their order."""
    skip_damaged: bool = False
    """Leave out pictures that cannot be decoded, with a notice for each."""
    store: str | None = None
    """Folder of prepared pictures; without it one in the user's cache."""
    keep: bool = True
    """Keep prepared pictures on disk; False decodes them whenever they are used."""

    def __post_init__(self) -> None:
        if self.classes is not None:  # a list if it was read from JSON
            object.__setattr__(self, "classes", tuple(self.classes))
        if self.test_share is not None and not 0 < self.test_share < 1:
            raise DataError(f"`test_share` must be between 0 and 1, not {self.test_share:g}")
        if self.is_built_in:
            for name in ("test_share", "skip_damaged", "store"):
                if getattr(self, name):
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
        if not self.is_built_in and not Path(self.name).expanduser().exists() and not self._arrays():
            raise DataError(f"{self.name}: is neither a built-in dataset ({', '.join(DATASETS)}) nor a file or folder")

    def _arrays(self) -> idx.IdxSet | cifar.CifarSet | None:
        path = Path(self.name).expanduser()
        return idx.find_sets(path) or cifar.find(path)

    def resolved(self) -> DataSource:
        """Return the source as it is known from every folder, for a record."""
        if self.is_built_in:
            return dataclasses.replace(self, data_dir=None)
        return dataclasses.replace(self, name=str(Path(self.name).expanduser().resolve()),
                                   store=self.store and str(Path(self.store).expanduser().resolve()))

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
            raise DataError(f"{len(self.classes)} names of classes were given, but {data.origin} has "
                            f"{len(data.classes)} "
                            "classes; give a name for each")
        return dataclasses.replace(data, classes=check_classes(Path(data.origin), self.classes))

    def _open_built_in(self, progress: Progress | None, notice: Callable[[str], None]) -> Dataset:
        """Return a built-in set. A folder that the user names, by `data_dir` or ALEXNET_MF_DATA_DIR, is final: it is an
        error if Fashion-MNIST cannot be read from it."""
        data_dir = None if self.data_dir is None else Path(self.data_dir).expanduser()
        try:
            name = "fashion-mnist" if self.name == AUTO else self.name
            return BUILT_IN[name].load(data_dir, progress=progress)
        except DataError as error:
            if self.name != AUTO or named_folder(data_dir) is not None:
                raise
            notice(f"using the synthetic set: {error}")
            return synthetic.load()

    def _open_path(self) -> Dataset | PictureSet:
        path = Path(self.name).expanduser()
        try:
            if arrays := self._arrays():
                if self.test_share is not None or self.skip_damaged:
                    raise DataError(f"{path}: `test_share` and `skip_damaged` are for folders of pictures; leave them "
                                    "out")
                return fashion_mnist.named(arrays.load())
            self.check()
            if path.is_dir() and folder.is_class_folders(path):
                return folder.load(path, self.test_share)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        raise DataError(f"{path}: holds no dataset; give a folder with train/CLASS/ and test/CLASS/ of pictures, idx "
                        "files, "
                        "or CIFAR's binary files")
