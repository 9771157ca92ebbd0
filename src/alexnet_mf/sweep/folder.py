"""The folder of a sweep: its record and the run folders of its trainings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alexnet_mf.conversion import RUN_WEIGHTS
from alexnet_mf.errors import Notice, ParametersError, RunError, SweepError
from alexnet_mf.sweep.record import NAME, Record
from alexnet_mf.training.lock import LOCK, lock
from alexnet_mf.training.record import is_run
from alexnet_mf.training.run import load_run
from alexnet_mf.weights import parameters


def check_new(folder: Path) -> None:
    """Check that a sweep can begin in a folder.

    Raises:
        SweepError: if the folder contains a sweep, or anything that is not a run.
    """
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.exists() else []
    except OSError as error:
        raise SweepError(f"{folder}: cannot be read as a folder ({error.strerror}); name another folder with `out`"
                         ) from error
    if folder / NAME in paths:
        raise SweepError(f"{folder}: holds a sweep; resume it with `resume={str(folder)!r}`, or name another folder "
                         "with `out`")
    if is_run(folder):
        raise SweepError(f"{folder}: is a run, not a sweep; name another folder with `out`")
    for path in paths:
        if not is_run(path):
            raise SweepError(f"{folder}: holds {path.name}, which is not a run; name another folder with `out`")


@contextmanager
def owned(folder: Path, new: Record | None) -> Iterator[None]:
    """Create the folder and lock it. If a new sweep fails before its first training, restore the earlier state."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    had_lock, is_ours, could_start = (folder / LOCK).exists(), False, True
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepError(f"{folder}: cannot be created ({error.strerror}); name another folder with `out`") from error
    folder_lock = lock(folder)
    runs_before = runs_in(folder)
    try:
        if new:
            check_new(folder)  # again: another process may have used it since, during a download for instance
            is_ours = True
        yield
    except Exception:
        could_start = False
        raise
    finally:
        folder_lock.release()
        runs = runs_in(folder)
        if new and is_ours and not new.trainings and (not runs or (not could_start and runs == runs_before)):
            with suppress(OSError):
                for name in (NAME,) if had_lock else (NAME, LOCK):
                    (folder / name).unlink(missing_ok=True)
                for path in made:
                    path.rmdir()


def runs_in(folder: Path) -> list[Path]:
    """Return the run folders in a folder."""
    return sorted(path for path in folder.iterdir() if is_run(path))


def forget_gone_runs(record: Record, folder: Path, keep_weights: bool) -> None:
    """Remove finished trainings without a run folder from the record, to train them again, and check the others.

    Args:
        folder: folder that contains the run folders.
        keep_weights: check the weights too; False if they will be removed.

    Raises:
        SweepError: if a run is damaged, or lacks weights that it should have.
    """
    gone = [entry for entry in record.trainings if entry.result and not (folder / entry.run).exists()]
    for entry in record.trainings:
        if entry.result is None or entry in gone:
            continue
        path = folder / entry.run
        try:
            run = load_run(path)
            if keep_weights and entry.keeps_weights:
                for name in RUN_WEIGHTS.values():
                    parameters.load(path / name, run.network)
        except (RunError, ParametersError) as error:
            raise SweepError(f"{str(error).partition(';')[0]}; move {path} away to train it again") from error
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        warnings.warn(f"{folder / gone[0].run}{more}: missing; training again", Notice, stacklevel=3)
        record.trainings, record.complete = [entry for entry in record.trainings if entry not in gone], False


def foreign(folder: Path, difference: str) -> SweepError:
    """Return the error for a run that does not belong to the plan."""
    return SweepError(f"{folder}: holds a run with {difference}; move it away, or name another folder with `out`")
