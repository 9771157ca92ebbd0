"""Values that a resumed run keeps from its folder, and changes that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from alexnet_mf import conversion, datasets
from alexnet_mf.backends.execution import Execution
from alexnet_mf.data import Dataset, DataSource, store
from alexnet_mf.data.collection import SHOWN
from alexnet_mf.data.sources import AUTO
from alexnet_mf.errors import RunError
from alexnet_mf.spec.layers import Dropout
from alexnet_mf.training.folder import RunFolder
from alexnet_mf.training.recipe import CHANGES, SGD_FIELDS
from alexnet_mf.training.weight_files import WEIGHTS
from alexnet_mf.weights import parameters
from alexnet_mf.weights.parameters import Parameters


def check_expected(folder: RunFolder, expected: Mapping[str, Any]) -> None:
    """Check that arguments of `train` agree with a run. The error names the argument, both values and the remedy."""
    run, network = folder.record, folder.record.net
    allowed: dict[str, list[Any]] = {
        "net": [network.name], "seed": [run.seed], "recipe": [run.recipe.name],
        "weights": [], "which": [], "dropout": [layer.rate for layer in network.layers if isinstance(layer, Dropout)],
        **{name: [getattr(run.recipe.sgd if name in SGD_FIELDS else run.recipe, name)] for name in CHANGES}}
    for name, value in expected.items():
        value = tuple(value) if isinstance(value, list) else getattr(value, "name", value)  # a Network, a Recipe
        if name not in allowed:
            raise RunError(f"{folder.path}: `resume` takes no `{name}`; leave it out")
        if value not in allowed[name]:
            own = " or ".join(dict.fromkeys(map(_text, allowed[name])))
            remedy = "start a new run without `resume`" if name in ("net", "seed") else _how_to_start_new_run(folder)
            difference = f"is {own} in this run, not {_text(value)}" if own else "cannot change in a resumed run"
            raise RunError(f"{folder.path}: `{name}` {difference}; leave it out, or {remedy}")


def source(folder: RunFolder, data: DataSource | Path | str | None, data_dir: Path | str | None) -> DataSource:
    """Return the source of the run's images, which may have moved.

    Raises:
        RunError: if `data` names another built-in set.
    """
    own = folder.record.source
    if data is None:
        datasets.check_place(own, folder.path)
    wanted = datasets.moved(own, data, data_dir)
    if wanted.is_built_in != own.is_built_in or (own.is_built_in and wanted.name not in (own.name, AUTO)):
        raise RunError(f"{folder.path}: `data` is {own.name} in this run, not {wanted.name}; leave it out, or "
                       f"{_how_to_start_new_run(folder)}")
    return replace(own, data_dir=wanted.data_dir) if own.is_built_in else wanted


def same_images(folder: RunFolder, source: DataSource, quiet: bool) -> Dataset:
    """Return the images of the run.

    Raises:
        RunError: if they have changed.
    """
    run = folder.record
    opened = datasets.with_classes_of(datasets.open_source(source, quiet), run.classes, str(folder.path))
    images = datasets.prepare(opened, run.prepared, source, quiet)
    if images.digest() != run.data_sha256:
        if source.is_built_in:
            raise RunError(f"{folder.path}: the images differ from those of the run ({run.data}); name their folder "
                           "with `data_dir`")
        pairs = {(path, images.stores[part]): part for part, path in reversed(run.stores.items())
                 if part in images.stores}
        lines = [f"{part}: {line}" if len(pairs) > 1 else line for (before, after), part in reversed(pairs.items())
                 for line in store.changes(Path(before), Path(after))]
        more = f" and {len(lines) - SHOWN:,} more" if len(lines) > SHOWN else ""
        which = f"{', '.join(lines[:SHOWN])}{more}" if lines else run.data
        raise RunError(f"{folder.path}: the images differ from those of the run ({which}); restore them, or name "
                       "another place with `data`")
    return images


def _text(value: Any) -> str:
    return ",".join(value) or "none" if isinstance(value, tuple) else str(value)


def _how_to_start_new_run(folder: RunFolder) -> str:
    return f"start a new run with `weights={str(folder.path / WEIGHTS)!r}`"


def same_execution(folder: RunFolder, execution: Execution | None) -> Execution:
    """Return the execution of the run's last session, and refuse another."""
    before = folder.last_session
    if execution is not None:
        if execution.precision not in (None, before.precision):
            raise RunError(f"{folder.path}: `precision` is {before.precision} in this run, not {execution.precision}; "
                           "leave it out")
        for setting, on in execution.speed.items():
            if before.speed.get(setting) is not on:
                raise RunError(f"{folder.path}: the speed settings of a run are fixed; leave out `{setting}={on}`")
    return Execution(before.precision, before.speed)


def change_epochs(folder: RunFolder, epochs: int, data: Dataset) -> None:
    """Change a run's number of epochs, or refuse if steps already taken would have been different."""
    recipe = folder.record.recipe
    if folder.checkpoint and epochs != recipe.epochs:
        position = folder.checkpoint.snapshot.position
        begun = len(position.epochs) + (position.images > 0)
        if epochs < begun:
            raise RunError(f"{folder.path}: has begun epoch {begun}; `epochs` must be at least {begun}")
        steps = recipe.steps(min(len(data.train), recipe.train_images or len(data.train)))
        if recipe.annealed and position.number >= recipe.annealed_from(steps):
            raise RunError(f"{folder.path}: has begun its last steps, with a smaller learning rate, so `epochs` "
                           f"cannot change; {_how_to_start_new_run(folder)}")
    folder.record.recipe = recipe.with_changes(epochs=epochs)


def starting_weights(folder: RunFolder) -> Parameters:
    """Return the checkpoint's weights, in float32; without a checkpoint, the run's starting weights. Refuse a weights
    file that has changed."""
    run = folder.record
    if folder.checkpoint:
        weights = folder.checkpoint.snapshot.weights()
        parameters.check(weights, run.net, str(folder.last_checkpoint))
        return weights
    if run.weights is None:
        return parameters.initialize(run.net, run.seed)
    weights = conversion.read(run.weights.file, run.net).parameters
    if parameters.digest(weights) != run.weights.sha256:
        raise RunError(f"{run.weights.file}: has changed since {folder.path} started from it; start a new run")
    return weights
