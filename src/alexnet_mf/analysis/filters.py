"""The filters of a network's first convolution, from a run or a file of weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from alexnet_mf import parameters, spec
from alexnet_mf.errors import ParametersError, RunError
from alexnet_mf.specfile import find_network
from alexnet_mf.training.run import WEIGHTS, is_run

SHOWN_CHANNELS = (1, 3)
"""A filter of one channel is shown in grey, one of three in colour."""


@dataclass(frozen=True)
class Filters:
    """A convolution's weights, to be shown."""

    network: str
    layer: str
    weights: NDArray[np.float32]
    """(filters, channels, height, width), of one channel or three."""


def read(path: Path, net: str | None = None) -> Filters:
    """The first convolution's filters.

    Args:
        path: a run folder, whose last weights are taken, or a file of weights in canonical layout.
        net: whose weights they are, where the file does not say so.

    Raises:
        RunError: for a folder without a run, or a run without weights yet.
        ParametersError: for a file that cannot be read, is another network's, or does not say whose it is; and where
            there is no convolution, or its filters cannot be shown.
    """
    if path.is_dir():
        if not is_run(path):
            raise RunError(f"{path}: there is no run here; `list runs` shows those that there are")
        path = path / WEIGHTS
        if not path.exists():
            raise RunError(f"{path}: there are no weights yet; wait for the end of an epoch")
    network = find_network(net) if net else _network(path)
    layer = next((layer for layer in network.layers if isinstance(layer, spec.Conv2d)), None)
    if layer is None:
        raise ParametersError(f"{path}: network {network.name} has no convolution, and so no filters to draw")
    weights = parameters.load(path, network)[f"{layer.name}.weight"]
    if weights.shape[1] not in SHOWN_CHANNELS:
        raise ParametersError(f"{path}: the filters of {layer.name} have {weights.shape[1]} channels; one can be drawn "
                              f"in grey, three in colour")
    return Filters(network.name, layer.name, weights)


def _network(path: Path) -> spec.Network:
    """Whose weights a file holds, as it says itself."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get("alexnet_mf", "null")
        said: Any = json.loads(header)
        return spec.from_dict(said["network"])
    except (OSError, SafetensorError) as error:
        raise ParametersError(f"{path}: cannot be read as safetensors ({error}); give a run folder, or a file that "
                              f"this program or the safetensors library wrote") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ParametersError(f"{path}: does not say which network's weights it holds; name it: --net NAME") from error
