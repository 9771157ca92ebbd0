"""A training from its first line to its last: made ready in a run folder, carried out, and told there.

The command line and the Python API are two doors to these functions.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import alexnet_mf
from alexnet_mf import conversion, spec
from alexnet_mf.backends.contract import Backend, Model, Sgd, find_precision
from alexnet_mf.backends.execution import Execution
from alexnet_mf.backends.inputs import upsampling_factor
from alexnet_mf.data import Dataset
from alexnet_mf.errors import AlexnetMfError, DataError, RunError
from alexnet_mf.instruments.machine import conditions
from alexnet_mf.spec import Network
from alexnet_mf.training import board, loop
from alexnet_mf.training.folder import WEIGHTS
from alexnet_mf.training.recipe import BOOK, QUICK, RECIPES, Recipe, for_network
from alexnet_mf.training.run import Run
from alexnet_mf.weights import parameters

CHECKPOINT_MINUTES = 10.0


@dataclass(frozen=True)
class Job:
    """A training that is ready: its run folder belongs to this process until it is carried out."""

    run: Run
    model: Model[Any]
    data: Dataset
    recipe: Recipe
    seed: int
    start: loop.Snapshot | None = None
    """Where to go on; None for the very beginning."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be trained."""
        return self.start is not None and len(self.start.position.epochs) >= self.recipe.epochs

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return steps_of(self.recipe, self.data)


def check_takes_grey_images(network: Network) -> None:
    """Make sure, before anything slow, that the network can be fed the data sets' 28x28 grey images.

    Raises:
        DataError: says what it takes, and which verbs take it nevertheless.
    """
    try:
        upsampling_factor((28, 28), network)
    except DataError as error:
        raise DataError(f"{str(error).partition(';')[0]}; all data here are 28x28 grey images: only shapes, "
                        f"parity, analyze, predict, convert and plot filters take this network") from error


def begin(folder: Path, model: Model[Any], data: Dataset, recipe: Recipe, seed: int, session: dict[str, Any],
          start_file: Path | None = None) -> Job:
    """Make a training ready in a new or empty folder.

    Args:
        model: holding the weights to start from.
        session: what `describe_session` gave.
        start_file: the file or run folder that these weights came from, of any kind that `conversion.read` reads;
            run.json keeps it with its whole path. Without it they are the seed's.

    Raises:
        RunError: where the folder cannot be made, or holds something.
    """
    weights = {"file": str(start_file.resolve()), "sha256": parameters.digest(model.export())} if start_file else None
    run = Run.create(folder, {
        "network": spec.as_dict(model.network), "spec_sha256": spec.fingerprint(model.network), "seed": seed,
        "recipe": dataclasses.asdict(recipe), "data": data.origin, "data_name": data.name,
        "data_sha256": data.digest(), "weights": weights}, session)
    return Job(run, model, data, recipe, seed)


def take_up(run: Run, model: Model[Any], data: Dataset, epochs: int | None, session: dict[str, Any]) -> Job:
    """Make a run ready that is open, to go on in a model that holds `starting_weights`.

    Args:
        epochs: all in all; the recipe's without it.

    Raises:
        RunError: where these are other images, or so many epochs cannot be.
    """
    if data.digest() != run.record["data_sha256"]:
        raise RunError(f"{run.folder}: these are not the images it was begun with ({run.record['data']}); name their "
                       "folder with --data-dir")
    recipe = recipe_of(run.record)
    recipe = with_epochs(run, recipe, recipe.epochs if epochs is None else epochs,
                         steps_of(recipe, data))
    run.record["recipe"] = dataclasses.asdict(recipe)
    over = run.found is not None and len(run.found.snapshot.position.epochs) >= recipe.epochs
    return Job(run, model, data, recipe, run.record["seed"], run.go_on(session, over))


def carry_out(job: Job, on_progress: Callable[[loop.Progress], None], on_epoch: Callable[[loop.Epoch], None],
              on_evaluation: Callable[[int, int], None] = lambda done, images: None, *,
              save_seconds: float = 60 * CHECKPOINT_MINUTES, stop: Callable[[], bool] = lambda: False,
              tensorboard: bool = False) -> loop.Result:
    """Train, writing the run folder all the while, and leave it.

    Args:
        on_progress, on_epoch, on_evaluation, stop: see `loop.train`; what is told has been written before.
        tensorboard: write events too; a run that has some goes on with them, where it can.

    Raises:
        AlexnetMfError: as `loop.train`, and where the folder cannot be written; run.json says so then.
    """
    run = job.run

    def progress(now: loop.Progress) -> None:
        run.progress(now)
        on_progress(now)

    def epoch(done: loop.Epoch) -> None:
        run.epoch(done, job.model.export(), done.epoch * job.steps)
        on_epoch(done)

    try:
        events = tensorboard or ((run.folder / board.FOLDER).is_dir() and board.is_installed())
        if events and not job.is_over:
            run.write_events(job.start.position.number if job.start else 0)
        result = loop.train(job.model, job.data.train, job.data.test, job.recipe, job.seed, progress, epoch,
                            start=job.start, save=run.save, save_seconds=save_seconds, stop=stop,
                            on_evaluation=on_evaluation)
        if result.finished:
            run.finish(result)
        else:
            run.stop(job.model.export(), result)
    except Exception as error:
        run.fail(str(error) if isinstance(error, AlexnetMfError) else repr(error))
        raise
    finally:
        run.close()
    return result


def describe_session(backend: Backend, model: Model[Any], execution: Execution,
                     command: Sequence[str]) -> dict[str, Any]:
    """What computes a run, and where, as JSON values."""
    versions = {**backend.versions(), "alexnet_mf": alexnet_mf.__version__, "python": platform.python_version()}
    values = {**conditions(command), "backend": backend.name, "versions": versions, "settings": backend.settings(),
              "device": model.device, "precision": find_precision(backend, model.device, execution.precision),
              "without": sorted(execution.without), "also": sorted(execution.also)}
    return dict(json.loads(json.dumps(values)))  # as it will be when it is read again: lists for tuples


def choose_recipe(name: str | None, network: Network, device: str) -> Recipe:
    """The recipe of that name, or the device's, as the network asks for it.

    Raises:
        AlexnetMfError: for an unknown name.
    """
    if name is None:
        return for_network(QUICK if device == "cpu" else BOOK, network)
    if name not in RECIPES:
        raise AlexnetMfError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return for_network(RECIPES[name], network)


def steps_of(recipe: Recipe, data: Dataset) -> int:
    """Steps of an epoch."""
    return -(-len(data.train.first(recipe.train_images)) // recipe.batch_size)


def recipe_of(record: Mapping[str, Any]) -> Recipe:
    """The recipe that a run was begun with, by its record.

    Raises:
        RunError: where it is none.
    """
    fields = record["recipe"]
    try:
        return Recipe(**{**fields, "sgd": Sgd(**fields["sgd"])})
    except (TypeError, AlexnetMfError) as error:
        raise RunError(f"run.json: its recipe is damaged, or another version's ({error}); start a new run") from error


def with_epochs(run: Run, recipe: Recipe, epochs: int, steps: int) -> Recipe:
    """The recipe with so many epochs, of so many steps.

    Raises:
        RunError: where the steps that were taken do not belong to that.
    """
    if epochs == recipe.epochs or run.found is None:
        return dataclasses.replace(recipe, epochs=epochs)
    position = run.found.snapshot.position
    begun = len(position.epochs) + (position.images > 0)
    if epochs < begun:
        raise RunError(f"{run.folder}: has begun epoch {begun}: --epochs must be at least that")
    if recipe.annealed and position.number >= recipe.annealed_from(steps):
        raise RunError(f"{run.folder}: has taken steps at the smaller learning rate of its end, so --epochs cannot "
                       f"change; start a new run from its weights (--weights {run.folder / WEIGHTS})")
    return dataclasses.replace(recipe, epochs=epochs)


def starting_weights(run: Run) -> parameters.Parameters:
    """The checkpoint's weights, in float32; without one those that the run began with.

    Raises:
        RunError: where these came from a file, or run folder, that has changed.
        AlexnetMfError: where that file cannot be read any more.
    """
    if run.found:
        found = run.found.snapshot.state.parameters
        weights = {name: value.astype(np.float32) for name, value in found.items()}
        parameters.check(weights, run.network, str(run.last_checkpoint))
        return weights
    given = run.record["weights"]
    if given is None:
        return parameters.initialise(run.network, run.record["seed"])
    weights = conversion.read(Path(given["file"]), net=run.network).parameters
    if parameters.digest(weights) != given["sha256"]:
        raise RunError(f"{given['file']}: has changed since {run.folder} was begun with it: start a new run")
    return weights
