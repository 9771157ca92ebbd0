"""Networks of AlexNet's size take seconds and gigabytes: they are for `tox -e exhaustive`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from alexnet_mf.spec import Network, arithmetic, zoo
from alexnet_mf.spec.layers import Conv2d, Dense


def is_large(network: Network) -> bool:
    """Return True for a network with more than ten million parameters."""
    return sum(arithmetic.parameter_counts(network).values()) > 10**7


def by_size(networks: Iterable[str | Network]) -> list[Any]:
    """Return pytest parameters for networks, the large ones marked `exhaustive`."""
    return [pytest.param(network, marks=pytest.mark.exhaustive if is_large(
        zoo.get_network(network) if isinstance(network, str) else network) else ()) for network in networks]


def narrower(network: Network) -> Network:
    """Return the network with a sixteenth of the channels and units; the classes stay."""
    return replace(network, name=f"narrow-{network.name}", layers=tuple(
        replace(layer, channels=layer.channels // 16) if isinstance(layer, Conv2d) else
        replace(layer, units=layer.units // 16) if isinstance(layer, Dense) and layer != network.layers[-1] else layer
        for layer in network.layers))
