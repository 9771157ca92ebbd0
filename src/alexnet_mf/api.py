"""The Python API: what the command line does, for notebooks and programs. All of it is reached as `alexnet_mf.NAME`.

    run = alexnet_mf.train("lenet5", backend="torch", epochs=2)
    model = alexnet_mf.load_run(run.folder).build(backend="mxnet")
    logits = model.logits(model.place(images, labels), batch_size=128)

Frameworks are imported when a backend is first named. Errors are the package's own, of `alexnet_mf.errors`.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import backends, conversion, spec
from alexnet_mf.backends import switched
from alexnet_mf.backends.contract import Model
from alexnet_mf.data import Dataset, DatasetName
from alexnet_mf.data import load as load_data
from alexnet_mf.errors import AlexnetMfError, RunError
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.toml import find_network
from alexnet_mf.training import board, checkpoint, job, listing, loop, metrics, record
from alexnet_mf.training import folder as folders
from alexnet_mf.training.checkpoint import Checkpoint
from alexnet_mf.training.loop import Epoch, Progress
from alexnet_mf.training.opened import Which, open_weights
from alexnet_mf.training.recipe import Recipe
from alexnet_mf.training.run import Run
from alexnet_mf.weights import parameters
from alexnet_mf.weights.parameters import Parameters

convert = conversion.convert

Source = Mapping[str, NDArray[np.float32]] | str | Path
"""Weights: canonical parameters, a run folder, or a file of any kind that `convert` reads."""


Speed = Mapping[str, bool]
"""Speed settings by name: switched on, or left out."""


@dataclass(frozen=True)
class TrainedRun:
    """A run folder, as it was when it was read."""

    folder: Path
    network: Network
    recipe: Recipe
    seed: int
    backend: str
    """The one that computed it, to the last."""
    state: str
    """`finished`, `stopped`, `failed`, `interrupted`, `running`; `damaged` where run.json is."""
    epochs: list[Epoch]
    """The closing figures of each epoch that is over."""

    def parameters(self, which: Which = "last") -> Parameters:
        """Its canonical weights: the last, or those of the best test accuracy.

        Raises:
            RunError: where there are no such weights, or not yet.
            ParametersError: where they are damaged.
        """
        return open_weights(self.folder, which=which).parameters

    def build(self, backend: str | None = None, device: str = "auto", which: Which = "last", *,
              precision: str | None = None, speed: Speed | None = None) -> Model[Any]:
        """The network with these weights, in the run's own backend or another; see the function `build`."""
        return build(self.network, backend or self.backend, weights=self.parameters(which), device=device,
                     precision=precision, speed=speed)

    def resume(self, epochs: int | None = None, backend: str | None = None, *, device: str = "auto",
               precision: str | None = None, speed: Speed | None = None, data_dir: Path | str | None = None,
               checkpoint_minutes: float = job.CHECKPOINT_MINUTES, tensorboard: bool = False, progress: bool = True,
               on_progress: Callable[[Progress], None] | None = None,
               on_epoch: Callable[[Epoch], None] | None = None) -> TrainedRun:
        """Go on from the last good checkpoint, as `train --resume` does.

        Args:
            epochs: all in all; more than before prolong the run.
            backend: another than the run's goes on from its weights; a warning says what is not carried over.
            precision, speed: of another backend, as for `build`; the run's own stay as they are.
            data_dir, checkpoint_minutes, tensorboard, progress, on_progress, on_epoch: as for `train`.

        Raises:
            RunError: where there is nothing to go on from, another process has the run, the images are not its own, or
                precision and speed settings are.
        """
        _check_minutes(checkpoint_minutes)
        if tensorboard:
            board.check_installed()
        run = Run.open(self.folder)
        try:
            before = run.found.session if run.found else run.record
            same = backend in (None, before["backend"])
            if same:
                precision, speed = _its_own(run, before, precision, speed)
            framework, how = switched.load(backend or before["backend"], precision, speed)
            device = before["device"] if same and device == "auto" else device
            model = framework.build(run.network, job.starting_weights(run), device, how)
            images = _load_data(run.record["data_name"], data_dir, progress)
            session = job.describe_session(framework, model, how, ["alexnet_mf.TrainedRun.resume", str(self.folder)])
            ready = job.take_up(run, model, images, epochs, session)
        except BaseException:
            run.close()
            raise
        return _carry_out(ready, progress, on_progress, on_epoch, checkpoint_minutes, tensorboard)


def build(net: Network | str | None = None, backend: str | None = None, *, weights: Source | None = None, seed: int = 0,
          device: str = "auto", precision: str | None = None, speed: Speed | None = None) -> Model[Any]:
    """A network, built natively in a framework.

    Args:
        net: a network's name, a .toml file or a `Network`; without it the one that `weights` names, else `alexnet`.
        backend: `torch`, `tensorflow`, `mxnet` or `numpy`; without it the first framework that is installed.
        weights: to hold; without them they are drawn by `seed`.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        precision: `float32`, `tf32`, `bfloat16` or `float16`; the backend's own without it.
        speed: settings of the backend's table that are switched on or left out: `{"compile": False}` is the command
            line's `--no-compile`. The others are as the table has them (`backends/NAME/speed.py`). `threads` is settled
            when MXNet is imported, and `allocator`, once on, is the process's.

    Returns:
        the model: `place` puts images on its device, `logits` classifies them, `outputs` gives every layer's output,
        `gradients` the loss and its gradients, `export` the canonical weights. See `backends.base.Model`.

    Raises:
        BackendUnavailable: where backend, device, precision or setting is not there; names the line that installs it,
            or what there is.
        ParametersError: where the weights are damaged, or another network's; names every tensor at fault.
    """
    name = backend or backends.default()
    network, values = _network_and_weights(net, name, weights, seed)
    framework, how = switched.load(name, precision, speed)
    return framework.build(network, values, device, how)


def train(net: Network | str | None = None, backend: str | None = None, *, recipe: Recipe | str | None = None,
          epochs: int | None = None, batch_size: int | None = None, learning_rate: float | None = None,
          momentum: float | None = None, weight_decay: float | None = None, train_images: int | None = None,
          test_images: int | None = None, dropout: float | None = None, augment: tuple[str, ...] | None = None,
          data: DatasetName = "auto",
          data_dir: Path | str | None = None, weights: Path | str | None = None, seed: int = 0, device: str = "auto",
          precision: str | None = None, speed: Speed | None = None, out: Path | str | None = None,
          checkpoint_minutes: float = job.CHECKPOINT_MINUTES, tensorboard: bool = False, progress: bool = True,
          on_progress: Callable[[Progress], None] | None = None,
          on_epoch: Callable[[Epoch], None] | None = None) -> TrainedRun:
    """Train a network, and leave a run folder. The same loop, files and numbers as `alexnet-mf train`.

    Args:
        net, backend, seed, device, precision, speed: as for `build`.
        recipe: `book`, `quick` or a `Recipe`; without it `book` on a GPU, `quick` on a CPU. What follows changes it.
        train_images, test_images: the first so many only.
        dropout: rate of every dropout layer.
        augment: what is done to the training images, of `flip`, `crop` and `color`; nothing without it.
        data: `fashion-mnist`, `synthetic`, or `auto`, which takes the second where it cannot have the first, and warns.
        data_dir: folder with the four files of Fashion-MNIST.
        weights: to start from: a run folder, whose last ones they are, or a file of any kind that `convert` reads.
        out: run folder, new or empty; without it runs/DATE-TIME-BACKEND-NET.
        checkpoint_minutes: time between two checkpoints within an epoch; there is one after each epoch anyway.
        tensorboard: write TensorBoard events too, into the run folder.
        progress: show a bar on a terminal, a line now and then elsewhere.
        on_progress: called about once a second, with loss and accuracy so far, images a second and the time left.
        on_epoch: called after each epoch, with its closing figures.

    An interrupt (Ctrl-C, or a notebook's stop button) leaves a run that `load_run(FOLDER).resume()` takes up from its
    last checkpoint.

    Raises:
        TrainingDiverged: where the loss is no number any more.
        AlexnetMfError: where something cannot be had as asked; names the remedy.
    """
    _check_minutes(checkpoint_minutes)
    name = backend or backends.default()
    if tensorboard:
        board.check_installed()
    if out is not None:
        folders.check_new(Path(out))
    sgd = {"learning_rate": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
    changes = {"epochs": epochs, "batch_size": batch_size, "train_images": train_images, "test_images": test_images,
               "augment": augment}
    start_file = Path(weights) if weights is not None else None
    network, values = _network_and_weights(net, name, start_file, seed)
    if dropout is not None:
        network = spec.with_dropout(network, dropout)
    job.check_takes_grey_images(network)
    _recipe(recipe, network, "cpu", changes, sgd)  # wrong numbers are told before anything slow
    framework, how = switched.load(name, precision, speed)
    model = framework.build(network, values, device, how)
    taken = _recipe(recipe, network, model.device, changes, sgd)
    images = _load_data(data, data_dir, progress)
    folder = Path(out) if out is not None else folders.new_folder(folders.RUNS, name, network.name)
    ready = job.begin(folder, model, images, taken, seed,
                      job.describe_session(framework, model, how, ["alexnet_mf.train"]), start_file)
    return _carry_out(ready, progress, on_progress, on_epoch, checkpoint_minutes, tensorboard)


def load_run(folder: Path | str) -> TrainedRun:
    """Read a run folder, in whatever state it is.

    Where run.json or metrics.jsonl is damaged, the last good checkpoint takes its place, and a warning says so; nothing
    is written: that `resume` does.

    Raises:
        RunError: where there is no run, or no checkpoint to take the place of what is damaged.
    """
    folder = Path(folder)
    if not folders.is_run(folder):
        raise RunError(f"{folder}: there is no run here; `list runs` shows those that there are")
    try:
        told = record.read(folder)
        session = [told, *told["resumed"]][-1]
    except RunError as fault:
        found = _checkpoint(folder, fault)
        told, session = found.run, found.session
    try:
        epochs = metrics.epochs(metrics.read(folder))
        if len(epochs) < (told.get("closing") or {}).get("epochs", 0):
            raise RunError(f"{folder / metrics.NAME}: is damaged: its last epochs are missing")
    except RunError as fault:
        epochs = _checkpoint(folder, fault).snapshot.position.epochs
    return TrainedRun(folder, spec.from_dict(told["network"]), job.recipe_of(told), told["seed"],
                      session["backend"], listing.summary(folder)["state"], epochs)


def _checkpoint(folder: Path, fault: RunError) -> Checkpoint:
    """The last good one, with a warning; the fault itself where there is none."""
    found = checkpoint.latest(folder / folders.CHECKPOINTS)
    if found is None:
        raise fault
    warnings.warn(f"{fault}; the checkpoint {found[0].name} takes its place", stacklevel=3)
    return found[1]


def _check_minutes(minutes: float) -> None:
    """As the command line does."""
    if not minutes > 0:
        raise AlexnetMfError(f"checkpoint_minutes must be a number above 0, not {minutes!r}")


def _its_own(run: Run, before: Mapping[str, Any], precision: str | None,
             speed: Speed | None) -> tuple[str, dict[str, bool]]:
    """Precision and speed settings of the run's session before, as long as nothing else was asked for."""
    switches = {**dict.fromkeys(before["also"], True), **dict.fromkeys(before["without"], False)}
    if precision not in (None, before["precision"]):
        raise RunError(f"{run.folder}: its precision is {before['precision']}, not {precision}: leave it out")
    for setting, on in (speed or {}).items():
        if switches.get(setting) is not on:
            raise RunError(f"{run.folder}: its speed settings are fixed: leave out {setting}={on}")
    return before["precision"], switches


def _network_and_weights(net: Network | str | None, backend: str, weights: Source | None,
                         seed: int) -> tuple[Network, Mapping[str, NDArray[np.float32]]]:
    """What to build, and with which parameters."""
    if isinstance(weights, (str, Path)):
        found = conversion.read(Path(weights), net=net, backend=backend)
        return found.network, found.parameters
    network = net if isinstance(net, Network) else find_network(net or zoo.ALEXNET.name, backend)
    if weights is None:
        return network, parameters.initialise(network, seed)
    parameters.check(weights, network)
    return network, weights


def _load_data(name: DatasetName, folder: Path | str | None, progress: bool) -> Dataset:
    from alexnet_mf.cli.progress import DownloadDisplay

    found, why = load_data(name, Path(folder) if folder is not None else None,
                           progress=DownloadDisplay("Fashion-MNIST", quiet=not progress))
    if why:
        warnings.warn(why, stacklevel=3)
    return found


def _recipe(recipe: Recipe | str | None, network: Network, device: str, changes: Mapping[str, Any],
            sgd: Mapping[str, Any]) -> Recipe:
    """The recipe as it was asked for; see `job.choose_recipe`. Of the changes those count that are not None."""
    chosen = recipe if isinstance(recipe, Recipe) else job.choose_recipe(recipe, network, device)
    return dataclasses.replace(chosen, **_given(changes), sgd=dataclasses.replace(chosen.sgd, **_given(sgd)))


def _given(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if value is not None}


def _carry_out(ready: job.Job, progress: bool, on_progress: Callable[[Progress], None] | None,
               on_epoch: Callable[[Epoch], None] | None, checkpoint_minutes: float, tensorboard: bool) -> TrainedRun:
    """Train with a display and the caller's own functions."""
    from alexnet_mf.cli.progress import TrainingDisplay  # the command line is the one place that prints

    for line in ready.run.notices:
        warnings.warn(line, stacklevel=3)
    with TrainingDisplay(quiet=not progress) as display:
        def progressed(now: loop.Progress) -> None:
            display.progress(now)
            if on_progress:
                on_progress(now)

        def closed(done: loop.Epoch) -> None:
            display.epoch(done, ready.recipe.epochs)
            if on_epoch:
                on_epoch(done)

        job.carry_out(ready, progressed, closed, display.evaluation, save_seconds=60 * checkpoint_minutes,
                      tensorboard=tensorboard)
    return load_run(ready.run.folder)
