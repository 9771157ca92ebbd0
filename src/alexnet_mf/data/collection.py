"""Sets of pictures that are not decoded yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data.dataset import split
from alexnet_mf.data.pictures import Pictures
from alexnet_mf.errors import DataError, one_line

SHOWN = 5
"""Number of names in a message."""


@dataclass(frozen=True, eq=False)
class LabeledPictures:
    """Pictures and their labels."""

    pictures: Pictures
    labels: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None
    """Numbers of the pictures that belong to this part; None for all."""

    def __len__(self) -> int:
        return len(self.labels)

    def number(self, row: int) -> int:
        """Return the number that a row has among the pictures."""
        return row if self.rows is None else int(self.rows[row])


@dataclass(frozen=True, eq=False)
class PictureSet:
    """A training and a test set of pictures over the same classes."""

    name: str
    train: LabeledPictures
    test: LabeledPictures
    classes: tuple[str, ...]
    origin: str
    validation: LabeledPictures | None = None
    notices: tuple[str, ...] = ()
    """Lines about files that were left out, and assumptions."""


def check_classes(where: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the classes.

    Raises:
        DataError: if there are fewer than two, or two differ in case only.
    """
    if len(names) < 2:
        has = f"one class, {one_line(names[0])!r}" if names else "no folders of classes"
        raise DataError(f"{where}: has {has}; a network needs at least two, each a folder with its pictures")
    lower: dict[str, str] = {}
    for name in names:
        if name.lower() in lower:
            raise DataError(f"{where}: has the classes {lower[name.lower()]!r} and {name!r}, which differ in case "
                            "only; rename or join them")
        lower[name.lower()] = name
    return tuple(names)


def split_off(where: Path, pictures: LabeledPictures, share: float | None,
              seed: int) -> tuple[LabeledPictures, LabeledPictures]:
    """Return the training and the test part of pictures that are not divided. Both have the classes in the same shares.
    A share of 1 leaves nothing to train on.

    Raises:
        DataError: if no share is named, or a part would be empty or lack a class to train on.
    """
    if share == 1:
        return replace(pictures, labels=pictures.labels[:0], rows=np.zeros(0, np.int64)), pictures
    if share is None:
        raise DataError(f"{where}: has no test pictures; name the share of the pictures to test on, such as "
                        "`test_share=0.2`, or 1 to test on all, or add a folder test")
    count = round(share * len(pictures))
    if not 0 < count < len(pictures):
        raise DataError(f"{where}: has {len(pictures)} pictures, of which {share:g} are {count}; use another "
                        "`test_share`")
    rest, tested = split(pictures.labels, count, seed)
    lacking = np.setdiff1d(pictures.labels, pictures.labels[rest])
    if len(lacking):
        number = int(np.flatnonzero(pictures.labels == lacking[0])[0])
        raise DataError(f"{pictures.pictures.name(pictures.number(number))}: no picture of its class is left to train "
                        f"on if {share:g} are tested on; add pictures, or use a smaller `test_share`")
    return tuple(LabeledPictures(pictures.pictures, pictures.labels[rows], rows)  # type: ignore[return-value]
                 for rows in (rest, tested))
