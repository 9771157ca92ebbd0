"""The filters of a network's first convolution, from a run or a weights file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import conversion
from alexnet_mf.conversion import Which
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network, layers

SHOWN_CHANNELS = (1, 3)
"""Numbers of channels that can be drawn: 1 in gray, 3 in color."""


@dataclass(frozen=True)
class Filters:
    """Weights of a convolution."""

    network: str
    layer: str
    weights: NDArray[np.float32]
    """(filters, channels, height, width), of one channel or three."""


def read(path: Path | str, net: Network | Path | str | None = None, which: Which = "last") -> Filters:
    """Return the first convolution's filters.

    Args:
        path: a weights file of any format, or a run folder.
        net: the network; by default the one that the file names or describes.
        which: the weights to take from a run folder.

    Raises:
        ParametersError: if there is no convolution, or its filters cannot be drawn; and as `conversion.read`.
    """
    source = conversion.read(path, net, which)
    network = source.network
    layer = next((layer for layer in network.layers if isinstance(layer, layers.Conv2d)), None)
    if layer is None:
        raise ParametersError(f"{path}: network {network.name} has no convolution, so there are no filters to draw")
    weights = source.parameters[f"{layer.name}.weight"]
    if weights.shape[1] not in SHOWN_CHANNELS:
        raise ParametersError(f"{path}: the filters of {layer.name} have {weights.shape[1]} channels; only 1 (gray) or "
                              "3 (color) can be drawn")
    return Filters(network.name, layer.name, weights)
