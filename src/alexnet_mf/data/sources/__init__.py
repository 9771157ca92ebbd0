"""Sources of datasets: one module for each, and the registry of their names.

A source is a module with a function `load` as in `Source`. A new one is one module here and one line in `SOURCES`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from alexnet_mf.data.dataset import Dataset
from alexnet_mf.data.sources import fashion_mnist, synthetic
from alexnet_mf.data.store import Progress, named_folder
from alexnet_mf.errors import DataError


class Source(Protocol):
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


DatasetName: TypeAlias = Literal["auto", "fashion-mnist", "synthetic"]
SOURCES: dict[str, Source] = {"fashion-mnist": fashion_mnist, "synthetic": synthetic}
"""The source of each dataset, by its name."""
DATASETS = ("auto", *SOURCES)
"""Names that `load` accepts."""


def load(name: DatasetName, data_dir: Path | None = None, seed: int = 0,
         progress: Progress | None = None) -> tuple[Dataset, str | None]:
    """Return a dataset, and a notice for the user if it is not the preferred one.

    `auto` is Fashion-MNIST, or the synthetic set and a notice if Fashion-MNIST is not available. A folder that the user
    names, by `data_dir` or ALEXNET_MF_DATA_DIR, is final: it is an error if Fashion-MNIST cannot be read from it.

    Args:
        data_dir, seed, progress: as for `Source.load`.

    Raises:
        DataError: if the name is unknown, and as `Source.load`.
    """
    if name not in DATASETS:
        raise DataError(f"unknown dataset {name!r}; known: {', '.join(DATASETS)}")
    try:
        return SOURCES["fashion-mnist" if name == "auto" else name].load(data_dir, seed=seed, progress=progress), None
    except DataError as error:
        if name != "auto" or named_folder(data_dir) is not None:
            raise
        return synthetic.load(seed=seed), f"using the synthetic set: {error}"
