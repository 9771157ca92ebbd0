"""Keras's weights files: `.weights.h5`, and the weights in a `.keras` file; its model description is never run.

Keras does not store the names of layers. It numbers them by class, in their order: `layers/conv2d`, `layers/conv2d_1`,
..., `layers/dense`, ..., each with `vars/0`, the kernel, and `vars/1`, the bias; `layers/batch_normalization` has the
four of batch normalization. Any model with the same layers of these classes in the same order loads such a file,
whatever lies between them.
"""

from __future__ import annotations

import io
import math
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from alexnet_mf.backends.tensorflow import network as native
from alexnet_mf.backends.tensorflow import weights
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import BatchNorm, Conv2d, Dense, Layer, Shape
from alexnet_mf.weights.parameters import Parameters, shapes

IN_ARCHIVE = "model.weights.h5"
HDF5 = b"\x89HDF\r\n\x1a\n"


def encode(file_format: str, network: Network, parameters: Parameters) -> bytes:
    """Return the file that Keras's `save_weights` writes."""
    net = native.build(network)
    weights.load(net, network, parameters)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / IN_ARCHIVE
        net.save_weights(path)
        return path.read_bytes()


def decode(content: bytes, network: Network) -> dict[str, NDArray[Any]]:
    """Return the tensors in canonical layout, under their canonical names if they have one.

    Raises:
        ParametersError: if it is not such a file.
    """
    try:
        if not content.startswith(HDF5):
            content = zipfile.ZipFile(io.BytesIO(content)).read(IN_ARCHIVE)
        with h5py.File(io.BytesIO(content), "r") as file:
            variables = _variables(_layers(file))
            names = _canonical_names(network, variables)
            images = weights.flattened_shapes(network)
            largest = max(map(math.prod, shapes(network).values()))
            return {names.get(path, path): _tensor(dataset, images.get(names.get(path, path)), largest)
                    for path, dataset in variables.items()}
    except ParametersError:
        raise
    except Exception as error:  # whatever zipfile and h5py raise for a file from outside, even OverflowError
        raise ParametersError(f"cannot be read as Keras 3's weights ({' '.join(str(error).split())}); write them with "
                              f"model.save_weights('NAME.weights.h5')") from error


def _layers(file: h5py.File) -> h5py.Group:
    """Return the group of layers: a `Sequential`'s own, or those of one that a model keeps in `net`, as in the book."""
    for path in ("layers", "net/layers"):
        if path in file and isinstance(file[path], h5py.Group):
            return file[path]
    raise ParametersError("has no group 'layers': not the weights of a Sequential or functional model of Keras 3")


def _variables(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """Return every variable by its path, in the order of the numbers. No link out of the file is followed."""
    variables: dict[str, h5py.Dataset] = {}
    for name in sorted(group, key=_order):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ParametersError(f"{group.name}/{name} is a link; Keras's files have none")
        item = group[name]
        if isinstance(item, h5py.Group):
            variables |= _variables(item)
        elif item.external or item.is_virtual:
            raise ParametersError(f"{item.name} lies in another file")
        else:
            variables[item.name.lstrip("/")] = item
    return variables


def _order(name: str) -> tuple[str, int]:
    """Return a key that sorts conv2d before conv2d_1, and conv2d_9 before conv2d_10."""
    stem, separator, number = name.rpartition("_")
    return (stem, int(number)) if separator and number.isdecimal() else (name, 0)


def _canonical_names(network: Network, variables: dict[str, h5py.Dataset]) -> dict[str, str]:
    """Return the canonical name by each variable's path: the first conv2d is the network's first convolution."""
    result: dict[str, str] = {}
    kinds: tuple[tuple[type[Layer], str, tuple[str, ...]], ...] = (
        (Conv2d, "conv2d", ("weight", "bias")), (Dense, "dense", ("weight", "bias")),
        (BatchNorm, "batch_normalization", tuple(weights.NORMALIZATION)))
    for layer_type, prefix, parts in kinds:
        theirs = sorted({path.rpartition("/vars/")[0] for path in variables
                         if re.search(rf"layers/{prefix}(_\d+)?/vars/\d+$", path)}, key=_order)
        ours = [layer.name for layer in network.layers if isinstance(layer, layer_type)]
        for path, name in zip(theirs, ours):
            result |= {f"{path}/vars/{number}": f"{name}.{part}" for number, part in enumerate(parts)}
    return result


def _tensor(dataset: h5py.Dataset, image: Shape | None, largest: int) -> NDArray[Any]:
    """Return a variable in canonical layout; if its shape does not fit, only its axes are reordered.

    A compressed file may claim any size: a tensor larger than the network's largest is not one of its parameters and
    is not read. The later error names its shape.
    """
    shape = dataset.shape
    if image is not None and (len(shape) != 2 or shape[0] != math.prod(image)):
        image = None
    value = dataset[()] if math.prod(shape) <= largest else np.broadcast_to(np.float32(0), shape)
    return weights.to_canonical(value, image)
