"""Datasets by name, and the fallback of `auto`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_mf.data import Dataset, DataSource, LabeledImages, downloads, synthetic
from alexnet_mf.errors import DataError


def load(name: str, data_dir: Path | None = None) -> tuple[Dataset, str | None]:
    """Return a built-in dataset, and the first notice about its choice."""
    notices: list[str] = []
    dataset = DataSource(name, data_dir and str(data_dir)).open(notice=notices.append)
    assert isinstance(dataset, Dataset)
    about = [line for line in notices if "by their checksum" not in line]
    return dataset, about[0] if about else None


@pytest.fixture(autouse=True)
def small_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = synthetic.draw
    monkeypatch.setattr(synthetic, "draw", lambda seed: draw(seed, train=20, test=10))


def test_auto_downloads(mirrors: Any) -> None:
    dataset, notice = load("auto")
    assert (dataset.name, notice) == ("fashion-mnist", None)
    assert len(mirrors.first.requests) == 4


def test_auto_falls_back_and_says_why(mirrors: Any) -> None:
    mirrors.first.files.clear()
    mirrors.second.files.clear()
    dataset, notice = load("auto")
    assert dataset.name == "synthetic"
    assert "seed 0" in dataset.origin
    assert notice is not None
    assert notice.startswith("using the synthetic set: ")
    assert "HTTP 404" in notice
    assert "\n" not in notice


def test_fashion_mnist_does_not_fall_back(mirrors: Any) -> None:
    mirrors.first.files.clear()
    mirrors.second.files.clear()
    with pytest.raises(DataError, match="HTTP 404"):
        load("fashion-mnist")


@pytest.mark.parametrize("name", ["auto", "fashion-mnist"])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_an_explicit_folder_is_final(name: Any, by: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = folder if by == "argument" else None
    if by == "environment":
        monkeypatch.setenv(downloads.ENVIRONMENT_VARIABLE, str(folder))
    dataset, notice = load(name, data_dir)
    assert (dataset.name, notice) == ("fashion-mnist", None)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="train-labels"):
        load(name, data_dir)


def test_the_synthetic_dataset_needs_no_files(mirrors: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(downloads.ENVIRONMENT_VARIABLE, str(tmp_path))  # names the folder of the other dataset
    dataset, notice = load("synthetic")
    assert (dataset.name, notice) == ("synthetic", None)
    assert mirrors.first.requests == []
    with pytest.raises(DataError, match="leave out"):
        load("synthetic", tmp_path)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(DataError, match=r"mnist: is neither a built-in dataset \(auto, fashion-mnist, synthetic\) nor"):
        load("mnist")


def test_first_takes_the_first_images() -> None:
    pair = LabeledImages(np.zeros((5, 28, 28), np.uint8), np.arange(5))
    assert len(pair) == 5
    assert pair.first(2).labels.tolist() == [0, 1]
    assert pair.first(2).images.shape == (2, 28, 28)
    assert [len(pair.first(n)) for n in (None, 0, 5, 99)] == [5, 0, 5, 5]
