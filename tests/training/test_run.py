"""`train` from Python: a wrong value gives a one-line error that names the argument, before any work."""

from __future__ import annotations

import errno
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_folders import make_run, record

import alexnet_mf
from alexnet_mf.backends import loading
from alexnet_mf.errors import AlexnetMfError, Notice, RunError, TrainingDiverged
from alexnet_mf.training import checkpoint, run
from alexnet_mf.training import folder as run_folder
from alexnet_mf.training.display import Watcher
from alexnet_mf.training.lock import is_in_use
from alexnet_mf.training.loop import Progress
from alexnet_mf.weights import parameters

SHORT: dict[str, Any] = {"data": "synthetic", "epochs": 1, "batch_size": 8, "train_images": 24, "test_images": 8,
                         "checkpoint_minutes": 1e-9}


def fail_with(error: BaseException | type[BaseException]) -> Callable[..., Any]:
    def fail(*arguments: Any) -> None:
        raise error
    return fail


class Failing(Watcher):
    """Watcher that fails after the second step."""

    def progress(self, now: Progress) -> None:
        if now.step == 2:
            raise ZeroDivisionError


@pytest.mark.parametrize(("change", "message"), [
    ({"net": "nothing"}, "unknown network 'nothing'"),
    ({"data": 3}, "`data` must be the name of a dataset, a path or a DataSource, not 3"),
    ({"seed": -1}, "`seed` must be at least 0, not -1"),
    ({"seed": 1.5}, "`seed` must be an integer, not 1.5"),
    ({"execution": "bfloat16"}, "`execution` must be of type Execution, not 'bfloat16'"),
    ({"backend": ["numpy"]}, "`backend` must be of type str, not ['numpy']"),
    ({"progress": "x"}, "`progress` must be of type bool, not 'x'"),
    ({"tensorboard": "x"}, "`tensorboard` must be of type bool, not 'x'"),
    ({"checkpoint_minutes": 0}, "`checkpoint_minutes` must be a number greater than 0, not 0"),
    ({"checkpoint_minutes": float("nan")}, "`checkpoint_minutes` must be a number greater than 0, not nan"),
    ({"data_dir": 3}, "`data_dir` must be a path, not 3"),
    ({"out": 3}, "`out` must be a path, not 3"),
    ({"out": ""}, "`out` must be a path, not ''"),
    ({"weights": 3}, "`weights` must be a file or a run folder"),
    ({"recipe": []}, "unknown recipe []; known: book, quick"),
    ({"epochs": 0}, "`epochs` must be at least 1, not 0"),
    ({"momentum": 1.0}, "`momentum` must be less than 1, not 1.0"),
    ({"test_images": -1}, "`test_images` must be at least 1, not -1"),
    ({"augment": 3}, "`augment` must be a list of names, not 3"),
    ({"dropout": "x"}, "`dropout` must be a number of at least 0, not 'x'"),
    ({"net": "lenet5", "dropout": 0.5}, "`dropout` has no effect: lenet5 has no dropout layer; leave it out"),
    ({"epoch": 3}, "unexpected argument `epoch`; a recipe has epochs, batch_size"),
])
def test_a_wrong_value_is_refused(small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: dict[str, Any],
                                  message: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run.datasets, "open_source", None)
    monkeypatch.setattr(loading, "load", None)
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
    with warnings.catch_warnings(), pytest.raises(AlexnetMfError, match=r"file/run: cannot be created|nowhere"):
        warnings.simplefilter("error")
        alexnet_mf.train(small, **{"data": "synthetic", **change})
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_checking_a_folder_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        run.check_new(folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_a_diverging_training_gives_no_overflow_warning(small: Any, monkeypatch: pytest.MonkeyPatch,
                                                        tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(), pytest.raises(TrainingDiverged, match="try a smaller `learning_rate`"):
        warnings.simplefilter("error", RuntimeWarning)
        alexnet_mf.train(small, "numpy", **{**SHORT, "epochs": 9}, progress=False, learning_rate=1e38,
                         weight_decay=1e38)


@pytest.mark.parametrize("event", ["built", "begin", "__enter__", "should_stop"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_an_error_before_the_first_step_leaves_no_folder(small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                         event: str, error: type[BaseException]) -> None:
    monkeypatch.chdir(tmp_path)
    watcher = type("Failing", (Watcher,), {event: fail_with(error)})()
    with pytest.raises(error):
        alexnet_mf.train(small, "numpy", data="synthetic", progress=watcher)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_after_the_first_reading_leaves_the_folder(small: Any, monkeypatch: pytest.MonkeyPatch,
                                                                tmp_path: Path) -> None:
    monkeypatch.setattr(run.RunFolder, "epoch", fail_with(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        alexnet_mf.train(small, "numpy", **SHORT, progress=False, out=tmp_path / "run")
    assert alexnet_mf.load_run(tmp_path / "run").state == "interrupted"


@pytest.mark.parametrize(("place", "name", "error"), [
    (run_folder, "lock", RunError("no")), (run_folder, "lock", KeyboardInterrupt()),
    (run_folder.importlib, "import_module", KeyboardInterrupt()),
    (run_folder.record, "write", RunError("no")), (run_folder.record, "write", KeyboardInterrupt()),
])
def test_a_folder_is_removed_if_its_run_cannot_start(small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                     place: Any, name: str, error: BaseException) -> None:
    (tmp_path / "runs").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(place, name, fail_with(error))
        with pytest.raises(type(error)):
            run_folder.RunFolder.create(tmp_path / "runs" / "a" / "b", make_run(small))
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]
    run_folder.RunFolder.create(tmp_path / "runs" / "a" / "b", make_run(small)).close()


def test_a_run_that_another_process_started_meanwhile_is_kept(small: Any, monkeypatch: pytest.MonkeyPatch,
                                                              tmp_path: Path) -> None:
    """The other run starts and ends between the check and the lock of the folder."""
    lock = run_folder.lock

    def lock_late(path: Path) -> Any:
        (path / "run.json").write_text("theirs")
        return lock(path)

    monkeypatch.setattr(run_folder, "lock", lock_late)
    with pytest.raises(RunError, match="holds a run"):
        run_folder.RunFolder.create(tmp_path / "run", make_run(small))
    assert (tmp_path / "run" / "run.json").read_text() == "theirs"
    assert not is_in_use(tmp_path / "run")


def test_the_training_continues_while_a_checkpoint_is_written(small: Any, monkeypatch: pytest.MonkeyPatch,
                                                              tmp_path: Path) -> None:
    """The first checkpoint waits for the second step, and contains the weights of the first."""
    second_step, save = threading.Event(), checkpoint.save
    saved: list[str] = []

    def save_late(folder: Path, late: checkpoint.Checkpoint) -> Path:
        assert second_step.wait(20)
        saved.append(parameters.digest(late.snapshot.state.parameters))
        return save(folder, late)

    class Waited(Watcher):
        def progress(self, now: Progress) -> None:
            if now.step == 2:
                second_step.set()

    def train(name: str) -> list[str]:
        saved.clear()
        alexnet_mf.train(small, "numpy", **SHORT, progress=Waited(), out=tmp_path / name)
        return saved[:]

    monkeypatch.setattr(checkpoint, "save", save_late)
    late = train("late")
    assert train("at once") == late  # `second_step` is set already
    assert len(set(late)) == 3


def test_a_run_is_in_use_until_its_checkpoint_is_written(small: Any, monkeypatch: pytest.MonkeyPatch,
                                                         tmp_path: Path) -> None:
    in_use, save = [], checkpoint.save

    def save_slowly(*arguments: Any) -> Path:
        time.sleep(0.5)
        in_use.append(is_in_use(tmp_path / "run"))
        return save(*arguments)

    monkeypatch.setattr(checkpoint, "save", save_slowly)
    with pytest.raises(ZeroDivisionError):
        alexnet_mf.train(small, "numpy", **SHORT, progress=Failing(), out=tmp_path / "run")
    assert in_use == [True]
    assert [checkpoint.step_of(path) for path in checkpoint.paths(tmp_path / "run" / "checkpoint")] == [1]


def test_a_checkpoint_error_is_reported_beside_another_error(small: Any, monkeypatch: pytest.MonkeyPatch,
                                                             tmp_path: Path) -> None:
    monkeypatch.setattr(checkpoint, "save", fail_with(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(ZeroDivisionError), pytest.warns(Notice, match="checkpoint: cannot be written .Input"):
        alexnet_mf.train(small, "numpy", **SHORT, progress=Failing(), out=tmp_path / "run")


def test_a_run_is_released_even_if_the_wait_for_its_checkpoint_is_interrupted(small: Any, tmp_path: Path) -> None:
    folder = run_folder.RunFolder.create(tmp_path / "run", make_run(small))
    folder._thread.shutdown = fail_with(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        folder.close()
    assert not is_in_use(tmp_path / "run")


@pytest.mark.parametrize("options", [
    {"train_images": 8, "checkpoint_minutes": 10}, {"train_images": 16}], ids=["an epoch's end", "within an epoch"])
def test_weights_beyond_float32_count_as_divergence(small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                    options: dict[str, Any]) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(), pytest.raises(TrainingDiverged, match=r"infinite weights in float32 after step 1;"):
        warnings.simplefilter("error", RuntimeWarning)
        alexnet_mf.train(small, "numpy", **{**SHORT, **options}, progress=False, learning_rate=3e38, weight_decay=1e3,
                         out="run")
    values = record(Path("run"))
    assert values["state"] == "failed" and "learning rate" in values["reason"]
    assert not list(Path("run").rglob("*.safetensors"))
