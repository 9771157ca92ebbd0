"""`train` from Python: wrong values are one line that names the argument, before anything is computed or written."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

import alexnet_mf
from alexnet_mf.errors import AlexnetMfError, TrainingDiverged
from alexnet_mf.training import run


@pytest.mark.parametrize(("change", "message"), [
    ({"seed": -1}, "`seed` must be at least 0, not -1"),
    ({"seed": 1.5}, "`seed` must be an integer, not 1.5"),
    ({"execution": "bfloat16"}, "`execution` must be of type Execution, not 'bfloat16'"),
    ({"backend": ["numpy"]}, "`backend` must be of type str, not ['numpy']"),
    ({"progress": "x"}, "`progress` must be of type bool, not 'x'"),
    ({"tensorboard": "x"}, "`tensorboard` must be of type bool, not 'x'"),
    ({"checkpoint_minutes": 0}, "`checkpoint_minutes` must be a number greater than 0, not 0"),
    ({"data_dir": 3}, "`data_dir` must be a path, not 3"),
    ({"out": 3}, "`out` must be a path, not 3"),
    ({"out": ""}, "`out` must be a path, not ''"),
    ({"weights": 3}, "`weights` must be a file or a run folder"),
    ({"recipe": []}, "unknown recipe []; known: book, quick"),
    ({"epochs": 0}, "`epochs` must be at least 1, not 0"),
    ({"test_images": -1}, "`test_images` must be at least 1, not -1"),
    ({"augment": 3}, "`augment` must be a list of names, not 3"),
    ({"dropout": "x"}, "`dropout` must be a number of at least 0, not 'x'"),
    ({"net": "lenet5", "dropout": 0.5}, "`dropout` has no effect: lenet5 has no dropout layer; leave it out"),
    ({"epoch": 3}, "a recipe has no 'epoch'; it has epochs, batch_size"),
])
def test_a_wrong_value_is_refused(small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: dict[str, Any],
                                  message: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "load_images", None)
    with pytest.raises(AlexnetMfError) as caught:
        alexnet_mf.train(**{"net": small, "backend": "numpy", "data": "synthetic", **change})
    assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"out": "file/run"}, {"data_dir": "nowhere", "data": "fashion-mnist"}])
def test_nothing_is_shown_before_every_argument_is_checked(small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                           capfd: pytest.CaptureFixture[str],
                                                           change: dict[str, str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run.backends, "default", lambda: "numpy")
    Path("file").touch()
    with warnings.catch_warnings(), pytest.raises(AlexnetMfError, match=r"file/run|nowhere"):
        warnings.simplefilter("error")
        alexnet_mf.train(small, **{"data": "synthetic", **change})
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_checked_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        run.check_new(folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_a_training_that_diverges_warns_of_no_overflow(small: Any, monkeypatch: pytest.MonkeyPatch,
                                                       tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(), pytest.raises(TrainingDiverged, match="try a smaller `learning_rate`"):
        warnings.simplefilter("error", RuntimeWarning)
        alexnet_mf.train(small, "numpy", data="synthetic", progress=False, epochs=9, batch_size=8, train_images=64,
                         test_images=8, learning_rate=1e38, weight_decay=1e38)
