"""Networks of AlexNet's size take seconds and gigabytes: they are for `tox -e exhaustive`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from alexnet_mf.spec import arithmetic, zoo


def by_size(names: Iterable[str]) -> list[Any]:
    """Return pytest parameters for networks, those with more than ten million parameters marked `exhaustive`."""
    sizes = {name: sum(arithmetic.parameter_counts(zoo.get_network(name)).values()) for name in names}
    return [pytest.param(name, marks=pytest.mark.exhaustive if size > 10**7 else ()) for name, size in sizes.items()]
