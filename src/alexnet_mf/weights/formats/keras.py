"""Keras's files: `.keras`, `.weights.h5` and the older `.h5`, of Keras 3 and Keras 2. Nothing in them is run.

Keras 3 numbers the layers of each model by class, in the model's order: `layers/conv2d`, `layers/conv2d_1`, ...,
`layers/dense`, each with its variables in `vars/0`, `vars/1`. A legacy file has the names of its layers, and of their
weights, in attributes. Sources: saving/saving_lib.py and legacy/saving/legacy_h5_format.py of Keras 3.15.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.errors import AlexnetMfError, ParametersError
from alexnet_mf.weights.formats import keras_config
from alexnet_mf.weights.formats.keras_layers import VARIABLES, KerasLayer, is_described
from alexnet_mf.weights.names import CANONICAL
from alexnet_mf.weights.parameters import shapes
from alexnet_mf.weights.stored import StoredTensor, StoredWeights, filled, widen

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
OWN = "alexnet_mf.json"
"""Member of the files that this package writes: preprocessing and class names. Keras ignores it."""
UNCHECKED = "the model is a class of its own, so its activations, padding and order of layers could not be checked"
ALONE = "weights alone: activations, padding and order of flattening could not be checked"
SAVE_AGAIN = "save it again with model.save('NAME.keras')"
SMALL, LARGEST_RATIO = 2**26, 4
"""Largest size of a compressed member of an archive, in bytes, and of a larger one the largest ratio to its compressed
size. Keras does not compress, and weights barely shrink."""
MOST_TEXTS = 1_000
"""Largest number of texts of any length in an attribute: all could be one long text, stored once."""
MOST_OBJECTS, DEEPEST = 100_000, 32
"""Largest number of objects in a file, and of groups within groups: hard links can form cycles."""
MOST_CHANNELS = 2**16
NOT_LAYERS = ("optimizer", "metrics", "seed_generator")
"""Groups whose variables are not weights."""
Locate: TypeAlias = "Callable[[KerasLayer], dict[str, Any]]"
"""Returns a layer's datasets by their names in the file, in the order of its variables."""


def read(file: BinaryIO, path: Path) -> StoredWeights:
    """Read a file of Keras. It describes its network, unless it has weights alone or a subclassed model.

    Raises:
        ParametersError: if it is damaged or not such a file, or the spec cannot express its network.
        AlexnetMfError: if h5py is missing.
    """
    try:
        import h5py
    except ImportError as error:
        raise AlexnetMfError("files of Keras need h5py: pip install h5py") from error
    try:
        file.seek(0)
        if file.read(2) != b"PK":
            return _read_h5(h5py.File(file, "r"))
        with files.open_zip(file) as archive:
            model = files.parse_json(_member(archive, CONFIG, files.MOST_JSON))
            stored = _read_keras_3(h5py.File(io.BytesIO(_member(archive, WEIGHTS)), "r"), model)
            if OWN not in archive.namelist():
                return stored
            metadata = files.parse_json(_member(archive, OWN, files.MOST_JSON))
            return replace(stored, metadata=metadata if isinstance(metadata, dict) else {})
    except AlexnetMfError:
        raise
    except Exception as error:  # whatever zipfile, json and h5py raise for a file from outside
        _refuse(error)


def with_metadata(content: bytes, metadata: Mapping[str, Any]) -> bytes:
    """Return a `.keras` file with this package's metadata in it."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(OWN, json.dumps(metadata))
    return file.getvalue()


def _refuse(error: Exception) -> NoReturn:
    reason = " ".join(str(error).split())[:300]
    raise ParametersError(f"cannot be read as a file of Keras ({reason}); {SAVE_AGAIN}") from error


def _member(archive: zipfile.ZipFile, name: str, most: float = math.inf) -> bytes:
    if name not in archive.namelist():
        raise ParametersError(f"has no {name}; {SAVE_AGAIN}")
    info, size = archive.getinfo(name), archive.fp.seek(0, io.SEEK_END) if archive.fp else 0
    if info.file_size > min(most, max(SMALL, LARGEST_RATIO * min(info.compress_size, size))):
        raise ParametersError(f"claims {info.file_size:,} bytes for {name}, more than it can have; use another copy")
    return archive.read(name)


def _read_keras_3(file: Any, model: Any) -> StoredWeights:
    def locate(layer: KerasLayer) -> dict[str, Any]:
        path = f"{layer.group}/vars"
        if "layers" not in file:  # Keras 2.12 and 2.13
            path = path.replace("layers", "_layer_checkpoint_dependencies")
        group = _child(file, path)
        if len(group) != len(layer.variables) or group.attrs.get("name", layer.name) != layer.name:
            layer.refuse(f"has another name or number of variables in {WEIGHTS}", "save the model again")
        return {f"{path}/{number}": _child(group, str(number)) for number in range(len(layer.variables))}

    if is_described(model):
        return _described(model, locate)
    tensors = {name: _tensor(dataset) for name, dataset in _variables(file, [0]) if dataset.dtype.kind in "fV"}
    owners = {tuple(name.rpartition("/vars/")[0].split("/")) for name in tensors}
    for owner in owners:
        count = sum(name.startswith("/".join((*owner, "vars/"))) for name in tensors)
        if _order(owner[-1])[0] == "batch_normalization" and count != len(VARIABLES["BatchNormalization"]):
            raise ParametersError(f"has batch normalization with {count} variables and without their names, of which "
                                  f"gamma or beta is not one; {SAVE_AGAIN}")
    # A subclassed model may call its own layers in any order, those of its only Sequential in one.
    is_ordered = _are_ordered(owners) and (model is None or len({owner[:2] for owner in owners}) == 1)
    return _weights_alone(tensors, is_ordered, () if model is None else (UNCHECKED,))


def _read_h5(file: Any) -> StoredWeights:
    weights = _child(file, "model_weights") if "model_weights" in file else file
    if not {"layer_names", "layer_names0"} & {*weights.attrs}:
        return _read_keras_3(file, None)

    def locate(layer: KerasLayer) -> dict[str, Any]:
        group, result = _child(weights, layer.top), {}
        names = [name.split("/") for name in _texts(group, "weight_names")]
        for variable in layer.variables:
            matches = ["/".join(name) for name in names if name[-1].partition(":")[0] == variable
                       and (layer.name == layer.top or name[-2:-1] == [layer.name])]
            if len(matches) != 1:
                layer.refuse(f"has {len(matches)} variables named {variable}, not one", "save the model again")
            result[f"{layer.top}/{matches[0]}"] = _child(group, matches[0])
        return result

    model = files.parse_json("".join(_texts(file, "model_config"))) if "model_config" in file.attrs else None
    if is_described(model):
        return _described(model, locate)
    tensors: dict[str, StoredTensor] = {}
    is_ordered = True
    for layer in _texts(weights, "layer_names"):
        group = _child(weights, layer)
        datasets = {f"{layer}/{name}": _child(group, name) for name in _texts(group, "weight_names")}
        tensors |= {name: _tensor(dataset) for name, dataset in datasets.items() if dataset.dtype.kind in "fV"}
        # Of a nested model, Keras writes the layers that are not frozen first.
        is_ordered = is_ordered and sum(len(dataset.shape) > 1 for dataset in datasets.values()) < 2
    return _weights_alone(tensors, is_ordered)


def _weights_alone(tensors: dict[str, StoredTensor], is_ordered: bool, notes: tuple[str, ...] = ()) -> StoredWeights:
    if not tensors:
        raise ParametersError(f"has no weights of layers; {SAVE_AGAIN}")
    return StoredWeights(tensors, "HWIO", is_ordered, notes=notes or (ALONE,))


def _described(model: Any, locate: Locate) -> StoredWeights:
    """Return the weights of a model whose description lists its layers."""
    def statistics(layer: KerasLayer) -> list[Any]:
        mean, variance, _ = locate(layer).values()
        if max(mean.size, variance.size) > MOST_CHANNELS:
            layer.refuse("has statistics of more than the channels")
        return [_tensor(dataset).load() for dataset in (mean, variance)]

    description = keras_config.describe(model, statistics)
    wanted = shapes(description.network)
    tensors: dict[str, StoredTensor] = {}
    names: dict[str, str] = {}
    for own_name, layer in description.layers.items():
        for variable, (name, dataset) in zip(layer.variables, locate(layer).items()):
            canonical = f"{own_name}.{CANONICAL[variable]}"
            names[canonical], tensors[name] = name, _tensor(dataset)
            shape = wanted[canonical]
            shape = (*shape[2:], *shape[1::-1]) if len(shape) == 4 else shape[::-1]
            if dataset.shape != shape:
                layer.refuse(f"has a {variable} of shape {dataset.shape}, not {shape}", "save the model again")
    for canonical in wanted.keys() - names.keys():  # batch normalization without scale or center
        names[canonical] = canonical
        tensors[canonical] = filled(canonical.endswith(".weight"), wanted[canonical])
    return StoredWeights(tensors, "HWIO", network=description.network, names=names, notes=description.notes)


def _child(group: Any, path: str) -> Any:
    """Return what lies at a path in a group. Links out of the file are not followed."""
    import h5py

    for name in path.split("/"):
        link = group.get(name, getlink=True) if isinstance(group, h5py.Group) and name else None
        if link is None:
            raise ParametersError(f"has no {path[:80]!r}; {SAVE_AGAIN}")
        if not isinstance(link, h5py.HardLink):
            raise ParametersError(f"has a link at {path[:80]!r}, unlike Keras's files; use another copy")
        group = group[name]
    if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
        raise ParametersError(f"has {path[:80]!r} in another file; use another copy")
    return group


def _texts(group: Any, key: str) -> list[str]:
    """Return the texts in an attribute. Keras splits a long list into `key0`, `key1`, ..."""
    keys = [key] if key in group.attrs else []
    while not keys or (keys[-1] != key and f"{key}{len(keys)}" in group.attrs):
        keys.append(f"{key}{len(keys)}")
    texts: list[Any] = []
    for each in keys:
        attribute = group.attrs.get_id(each)
        count = math.prod(attribute.shape)
        most = MOST_TEXTS if attribute.dtype.kind == "O" else MOST_OBJECTS
        if count > most:
            raise ParametersError(f"has more than {most:,} texts in {each}; use another copy")
        texts.extend(np.asarray(group.attrs[each], object).reshape(-1))
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]


def _tensor(dataset: Any) -> StoredTensor:
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise ParametersError(f"has no array at {dataset.name[:80]!r}; use another copy")
    dtype, is_filtered = dataset.dtype, dataset.id.get_create_plist().get_nfilters() > 0
    if dataset.id.get_storage_size() < (1 if is_filtered else dataset.size * dtype.itemsize):
        raise ParametersError(f"has only a part of {dataset.name[:80]!r}; use another copy")
    is_bfloat16 = dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None

    def load() -> NDArray[Any]:
        try:
            value = np.asarray(dataset[()])
        except Exception as error:  # whatever h5py raises for a damaged file
            _refuse(error)
        if is_bfloat16:  # the upper half of a float32
            return widen(value.view("<u2"))
        return value.astype(dtype.newbyteorder("="), copy=False)

    return StoredTensor("bfloat16" if is_bfloat16 else dtype.name, dataset.shape, load)


def _variables(group: Any, count: list[int], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the variables of all layers by their paths, in the order of the numbers in these."""
    import h5py

    for name in sorted(group, key=_order):
        count[0] += 1
        if count[0] > MOST_OBJECTS or path.count("/") > DEEPEST:
            raise ParametersError("has too many groups for a file of Keras; use another copy")
        item = _child(group, name) if name not in NOT_LAYERS else None
        if isinstance(item, h5py.Group):
            yield from _variables(item, count, f"{path}{name}/")
        elif item is not None and path.endswith("/vars/"):
            yield f"{path}{name}", item


def _order(name: str) -> tuple[str, int]:
    """Return a key that sorts conv2d before conv2d_1, and conv2d_9 before conv2d_10."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number)) if number.isdecimal() else (name, 0)


def _are_ordered(owners: set[tuple[str, ...]], parent: str = "") -> bool:
    """Return True if the paths of all layers with weights show the order of those with kernels of the same kind.

    Numbers by class do not show the order of a convolution and a nested model. Attributes have no order.
    """
    heads = {owner[0] for owner in owners}
    stems = {_order(head)[0] for head in heads}
    inner = {head: {owner[1:] for owner in owners if owner[0] == head and len(owner) > 1} for head in heads}
    if len(heads) > 1 and parent != "layers":
        return False
    if not any(inner.values()):
        return len(heads) == 1 or stems <= {"conv2d", "dense", "batch_normalization"}
    return len(stems) == 1 and all(each and _are_ordered(each, head) for head, each in inner.items())
