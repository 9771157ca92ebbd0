"""Commands run in a folder of their own: `train` leaves run folders behind."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes that a test starts begin there too."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
