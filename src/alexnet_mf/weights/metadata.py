"""Preprocessing and class names in a weights file's metadata: what is needed to use the weights on pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alexnet_mf.errors import ParametersError, SpecError, one_line
from alexnet_mf.spec import Network, Preprocessing

PREPROCESSING, CLASSES = "preprocessing", "classes"
"""Keys of the entries: the value of `Preprocessing.as_dict`, and a list with a name for each class."""


BAKED = "preprocessing_in_graph"
"""Key of the entry of an ONNX graph that contains its preprocessing."""


def entries(network: Network, preprocessing: Preprocessing | None, classes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the metadata's entries. Class names of another number than the network's classes are left out."""
    return {**({PREPROCESSING: preprocessing.as_dict()} if preprocessing else {}),
            **({CLASSES: list(classes)} if len(classes) == network.classes else {})}


def read_preprocessing(metadata: Mapping[str, Any], where: str) -> Preprocessing | None:
    """Return the preprocessing in a file's metadata, or None if there is none.

    Raises:
        ParametersError: if the entry is no such record; begins with `where`.
    """
    value = metadata.get(PREPROCESSING)
    try:
        return None if value is None else Preprocessing.from_dict(value)
    except SpecError as error:
        raise ParametersError(f"{where}: has a wrong entry in its metadata ({error}); correct or remove it") from error


def read_classes(metadata: Mapping[str, Any], network: Network, where: str) -> tuple[str, ...] | None:
    """Return the class names in a file's metadata, as printable text, or None if there are none.

    Raises:
        ParametersError: if the entry is not a list with a name for each class; begins with `where`.
    """
    names = metadata.get(CLASSES)
    if names is None:
        return None
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ParametersError(f"{where}: has a wrong entry in its metadata (classes must be a list of names); correct "
                              "or remove it")
    if len(names) != network.classes:
        raise ParametersError(f"{where}: has {len(names):,} class names, but {network.name} has {network.classes:,} "
                              "classes; correct or remove the names in its metadata")
    return tuple(map(one_line, names))
