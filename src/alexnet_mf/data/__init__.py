"""The data sets: Fashion-MNIST, and a synthetic one that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from alexnet_mf.data import fashion_mnist, synthetic
from alexnet_mf.data.batches import batches, epoch_order
from alexnet_mf.data.images import FASHION_CLASSES, Dataset, LabelledImages
from alexnet_mf.errors import DataError

__all__ = ["DATASETS", "FASHION_CLASSES", "Dataset", "DatasetName", "LabelledImages", "batches", "epoch_order",
           "fashion_mnist", "load", "synthetic"]

DatasetName: TypeAlias = Literal["auto", "fashion-mnist", "synthetic"]
DATASETS: tuple[DatasetName, ...] = ("auto", "fashion-mnist", "synthetic")


def load(name: DatasetName, data_dir: Path | None = None, seed: int = 0,
         progress: fashion_mnist.Progress | None = None) -> tuple[Dataset, str | None]:
    """A data set, and a line to show the user where it is not the one hoped for.

    `auto` is Fashion-MNIST where it can be had, else the synthetic set and a notice that says why. A folder that the
    user named, by `data_dir` or ALEXNET_MF_DATA_DIR, is final: if Fashion-MNIST cannot be read from it, that is an
    error, and nothing falls back.

    Args:
        seed: of the synthetic set; any non-negative whole number.
        progress: shown during downloads; see `fashion_mnist.load`.

    Raises:
        DataError: for an unknown name (lists the known ones); for a `data_dir` given to the synthetic set, which reads
            none; and as `fashion_mnist.load`, except where `auto` falls back.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    if name == "synthetic":
        if data_dir is not None:
            raise DataError(f"the synthetic set is drawn, not read from {data_dir}; leave out `data` or `data_dir`")
        return synthetic.load(seed), None
    try:
        return fashion_mnist.load(data_dir, progress), None
    except DataError as error:
        if name == "fashion-mnist" or fashion_mnist.explicit_folder(data_dir) is not None:
            raise
        return synthetic.load(seed), f"using the synthetic set: {error}"
