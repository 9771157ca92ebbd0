"""Open a dataset for a network: displays and notices, classes by name, and the network's own number of classes."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from alexnet_mf import spec
from alexnet_mf.checks import check_path
from alexnet_mf.data import DataSource
from alexnet_mf.data import prepare as preparation
from alexnet_mf.data.collection import PictureSet
from alexnet_mf.data.dataset import Dataset
from alexnet_mf.data.preprocessing import check_fits
from alexnet_mf.errors import AlexnetMfError, DataError, Notice
from alexnet_mf.instruments.progress import DownloadDisplay, ImagesDisplay
from alexnet_mf.spec import Network, Normalize, Preprocessing

Opened: TypeAlias = Dataset | PictureSet
"""A dataset whose pictures may still be files."""
SHOWN = 20
"""Number of class names in a message."""


def source_of(data: DataSource | Path | str, data_dir: Path | str | None = None) -> DataSource:
    """Return the source that the arguments `data` and `data_dir` name.

    Raises:
        AlexnetMfError: if an argument is of a wrong type.
    """
    if data_dir is not None:
        data_dir = str(check_path("data_dir", data_dir))
    if isinstance(data, DataSource):
        return data if data_dir is None else dataclasses.replace(data, data_dir=data_dir)
    if not isinstance(data, (str, Path)):
        raise AlexnetMfError(f"`data` must be the name of a dataset, a path or a DataSource, not {data!r}")
    return DataSource(str(data), data_dir)


def moved(own: DataSource, data: DataSource | Path | str | None, data_dir: Path | str | None) -> DataSource:
    """Return the source of images that may have moved. A new path keeps the other options of the source."""
    if data is None or isinstance(data, DataSource):
        return source_of(own if data is None else data, data_dir)
    wanted = source_of(data, data_dir)
    return wanted if wanted.is_built_in or own.is_built_in else dataclasses.replace(own, name=wanted.name)


def check_place(own: DataSource, where: Path) -> None:
    """Check that the images of a run are still in their place.

    Raises:
        DataError: if they are not.
    """
    try:
        own.check()
    except DataError as error:
        raise DataError(f"{where}: its images are no longer in {own.name}; name their new place with `data`") from error


def open_source(source: DataSource, quiet: bool = False) -> Opened:
    """Open a dataset, with a download display unless quiet, and a notice of everything that was assumed."""
    return source.open(DownloadDisplay("Fashion-MNIST", quiet), _notice)


def adapted(network: Network, data: Opened) -> Network:
    """Return the network with the classes and the channels of the dataset. A notice names what has changed."""
    facts = preparation.facts(data)
    channels, classes = 3 if facts.has_color else 1, len(data.classes)
    changed = spec.with_classes(network, classes)
    if channels != network.input[0] and not isinstance(network.layers[0], Normalize):
        changed = spec.with_channels(changed, channels)
    if changed is not network:
        takes = [f"{count:,} {what}" for what, count, before in (
            ("classes", classes, network.classes), ("channels" if channels > 1 else "channel", changed.input[0],
                                                    network.input[0])) if count != before]
        _notice(f"network {network.name} gets {' and '.join(takes)}, as {data.origin}: {changed.name}")
    return changed


def with_classes_of(data: Opened, names: Sequence[str] | None, where: str) -> Opened:
    """Return the dataset with its labels in the order of the weights' classes, which are matched by their names.

    Args:
        names: the weights' classes; None if they have no names: then a notice says that the numbers are taken.
        where: the weights, for messages.

    Raises:
        DataError: if the names differ; lists both.
    """
    if names is None:
        _notice(f"{where}: does not name its classes; class 0 is taken for {data.classes[0]}, and so on, in the order "
                f"of {data.origin}")
        return data
    if tuple(names) == tuple(data.classes):
        return data
    if sorted(names) != sorted(data.classes) or len(set(names)) != len(names):
        raise DataError(f"{where}: has the classes {_listed(names)}, but {data.origin} has {_listed(data.classes)}; "
                        "use weights for these classes, or name the data's classes as the weights do with `classes`")
    places = {name: label for label, name in enumerate(names)}
    order = np.array([places[name] for name in data.classes])
    parts = {name: dataclasses.replace(part, labels=order[part.labels]) for name in ("train", "test", "validation")
             if (part := getattr(data, name, None)) is not None}
    return dataclasses.replace(data, classes=tuple(names), **parts)


def choose(data: Opened, network: Network, preprocessing: Preprocessing | None = None) -> Preprocessing:
    """Return the preprocessing of a training on this dataset: the weights' own, or as the pictures and the network need
    it.

    A notice says if colors are lost or gray pictures are repeated.
    """
    preprocessing = preprocessing or preparation.choose(data, network)
    check_fits(preprocessing, network)
    has_color = preparation.facts(data).has_color
    if has_color != (preprocessing.channels == 3):
        _notice(f"network {network.name} takes "
                f"{'gray pictures: the colors are lost' if has_color else '3 channels: gray'} "
                f"{'' if has_color else 'pictures are repeated in each'}".rstrip())
    return preprocessing


def prepare(data: Opened, preprocessing: Preprocessing, source: DataSource, quiet: bool = False,
            parts: Sequence[str] = ("train", "test")) -> Dataset:
    """Prepare the pictures of a dataset, with a display unless quiet."""
    displays: dict[str, ImagesDisplay] = {}

    def report(part: str, done: int, total: int) -> None:
        if part not in displays:
            for other in displays.values():
                other.__exit__()
            displays[part] = ImagesDisplay(f"preparing {part} pictures", total, quiet)
            displays[part].__enter__()
        displays[part].done(done)

    try:
        return preparation.prepare(
            data, preprocessing, folder=Path(str(source.store)).expanduser() if source.store else None,
            keep=source.store is not False, skip_damaged=source.skip_damaged, parts=parts, report=report,
            notice=_notice)
    finally:
        for display in displays.values():
            display.__exit__()


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _notice(line: str) -> None:
    warnings.warn(line, Notice, stacklevel=3)
