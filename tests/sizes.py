"""Networks of AlexNet's size take seconds and gigabytes: they are for `tox -e exhaustive`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from alexnet_mf.spec import Network, arithmetic, zoo
from alexnet_mf.spec.layers import Conv2d, Dense


def by_size(names: Iterable[str]) -> list[Any]:
    """Return pytest parameters for networks, those with more than ten million parameters marked `exhaustive`."""
    sizes = {name: sum(arithmetic.parameter_counts(zoo.get_network(name)).values()) for name in names}
    return [pytest.param(name, marks=pytest.mark.exhaustive if size > 10**7 else ()) for name, size in sizes.items()]


def narrower(network: Network) -> Network:
    """Return the network with a sixteenth of the channels and units; the classes stay."""
    return replace(network, layers=tuple(
        replace(layer, channels=layer.channels // 16) if isinstance(layer, Conv2d) else
        replace(layer, units=layer.units // 16) if isinstance(layer, Dense) and layer != network.layers[-1] else layer
        for layer in network.layers))
