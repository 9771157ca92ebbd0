"""ONNX files of sequential networks, from any exporter.

The graph describes the network, so a file gives both. Its tensors are converted on loading: they have canonical names
and layouts here, whatever the file calls them and however it stores them. ONNX Runtime takes no part.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

from alexnet_mf import files, spec
from alexnet_mf.errors import AlexnetMfError, ParametersError
from alexnet_mf.spec import Network, comparison
from alexnet_mf.weights.metadata import BAKED
from alexnet_mf.weights.stored import StoredWeights

LARGEST_FILE = 2**31 - 1
"""Largest size of a protobuf message, in bytes."""
LONGEST_TEXT = 1000
"""Largest length of a reason, in characters: names of nodes are as long as the file likes."""


def read(file: BinaryIO, path: Path) -> StoredWeights:
    """Return the network and the tensors. Tensors in other files are read only from the model's own folder.

    Dropout that the exporter removed is not in the network, unless this package wrote the file.

    Raises:
        AlexnetMfError: if onnx is not installed.
        ParametersError: if the file is damaged, or a node is not part of a network that the spec can describe.
    """
    try:
        import onnx  # an extra

        from alexnet_mf.weights.formats.onnx import graph
        from alexnet_mf.weights.formats.onnx import tensors as values
    except ImportError as error:
        raise AlexnetMfError(f"ONNX files need onnx, which cannot be imported ({error}); pip install onnx, or "
                             "install alexnet_mf[onnx]") from error
    try:
        if file.seek(0, os.SEEK_END) > LARGEST_FILE:
            raise values.Unreadable("it has more than 2 GB")
        file.seek(0)
        try:
            model = onnx.load_model_from_string(file.read())
        except Exception as error:  # protobuf's own errors have no common class
            raise values.Unreadable(str(error), "use another copy") from error
        if not model.graph.node:
            raise values.Unreadable("it has no graph", "use another copy")
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        if BAKED in metadata:
            raise ParametersError("contains its preprocessing (`bake_preprocessing`); use the file that it was "
                                  "converted from")
        network, walk = graph.read_graph(model, values.Tensors(path.parent))
    except values.Unreadable as error:
        reason = " ".join(str(error).split())[:LONGEST_TEXT]
        raise ParametersError(f"cannot be read as ONNX ({reason}); {error.remedy}") from error
    tensors = walk.tensors
    if described := _described(metadata, network):
        names = dict(zip(_weighted(network), _weighted(described)))
        tensors = {f"{names[layer]}.{part}": tensor for name, tensor in tensors.items()
                   for layer, _, part in [name.rpartition(".")]}
        network = described
    return StoredWeights(tensors, network=network, names={name: name for name in tensors},
                         metadata=_metadata(metadata), notes=walk.notes)


def _metadata(entries: dict[str, str]) -> dict[str, Any]:
    """Return the entries of this package's own files, of which `preprocessing` and `classes` are JSON."""
    if "spec_sha256" not in entries:
        return {}
    result: dict[str, Any] = {key: entries[key] for key in ("network", "spec_sha256") if key in entries}
    for key in ("preprocessing", "classes"):
        try:
            result[key] = files.parse_json(entries[key])
        except (KeyError, ValueError):  # without it, or another program's
            continue
    return result


def _described(entries: dict[str, str], network: Network) -> Network | None:
    """Return the spec that this package wrote beside the graph, with names and dropout, if the graph is one of it."""
    try:
        described = spec.from_dict(files.parse_json(entries["spec"]))
    except (KeyError, ValueError):
        return None
    is_same = network.output == described.output and not (  # one may have a Normalize that the other lacks
        comparison.differences(network, described) or comparison.differences(described, network))
    return described if is_same else None


def _weighted(network: Network) -> list[str]:
    return [layer.name for layer in network.layers if isinstance(layer, spec.LEARNERS)]
