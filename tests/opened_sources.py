"""Datasets of the user's own as their sources open them, and the faults of those that cannot be opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alexnet_mf.data import DataSource
from alexnet_mf.data.collection import PictureSet
from alexnet_mf.errors import DataError


def opened(path: Path | str, test_share: float | None = None, **options: Any) -> tuple[PictureSet, list[str]]:
    """Return a set of pictures, and the notices."""
    notices: list[str] = []
    data = DataSource(str(path), test_share=test_share, **options).open(notice=notices.append)
    assert isinstance(data, PictureSet)
    return data, notices


def fault_of(path: Path | str, test_share: float | None = None, **options: Any) -> str:
    """Return the message of a dataset that cannot be opened: one line with a remedy."""
    with pytest.raises(DataError) as caught:
        DataSource(str(path), test_share=test_share, **options).open()
    message = str(caught.value)
    assert message.isprintable() and ";" in message
    return message
