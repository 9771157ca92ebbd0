"""Train and resume: from the arguments to the run folder."""

from __future__ import annotations

import dataclasses
import json
import platform
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import alexnet_mf
from alexnet_mf import backends, conversion, datasets, models, spec
from alexnet_mf.backends.contract import Model
from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.checks import check_integer, check_number, check_path, check_type
from alexnet_mf.conversion import Which
from alexnet_mf.data import Dataset, DataSource
from alexnet_mf.data.collection import PictureSet
from alexnet_mf.errors import AlexnetMfError, Notice, RunError, TrainingDiverged
from alexnet_mf.instruments import records
from alexnet_mf.instruments.machine import conditions
from alexnet_mf.models import LoadedModel
from alexnet_mf.spec import Network, Preprocessing
from alexnet_mf.spec.layers import Dropout
from alexnet_mf.training import checkpoint as checkpoints
from alexnet_mf.training import loop, metrics, record, resuming, tensorboard
from alexnet_mf.training.checkpoint import Checkpoint
from alexnet_mf.training.display import TrainingDisplay, Watcher
from alexnet_mf.training.folder import RunFolder
from alexnet_mf.training.interrupt import Interrupt
from alexnet_mf.training.loop import Epoch, Result
from alexnet_mf.training.new_folder import RUNS, check_new, new_folder
from alexnet_mf.training.recipe import PAPERS_AUGMENTATION, Recipe, choose_recipe
from alexnet_mf.training.record import Run, RunRecord, Session, StartingWeights, how_to_resume
from alexnet_mf.weights import parameters
from alexnet_mf.weights.parameters import Parameters

CHECKPOINT_MINUTES = 10.0


@dataclass(frozen=True)
class TrainedRun:
    """A run, as read from its folder."""

    folder: Path
    network: Network
    recipe: Recipe
    seed: int
    session: Session = field(compare=False, repr=False)
    """The last session that computed it: backend, versions, machine."""
    state: str
    """`finished`, `stopped`, `failed`, `interrupted`, `running`, or `damaged` if run.json is."""
    epochs: list[Epoch]
    """Closing figures of each finished epoch."""
    record: Run = field(compare=False, repr=False)
    """The content of run.json, or of the checkpoint that replaces it."""
    result: Result | None = field(default=None, compare=False, repr=False)
    """Losses and times of the training that has just ended; None for a run that was read from its folder."""

    @property
    def backend(self) -> str:
        """Return the backend that computed it last."""
        return self.session.backend

    def parameters(self, which: Which = "last") -> Parameters:
        """Return its canonical weights: the last, or those of the best test accuracy.

        Raises:
            RunError: if there are no such weights yet.
            ParametersError: if they are damaged.
        """
        return conversion.read(self.folder, None, which).parameters

    def build(self, backend: str | None = None, device: str = "auto", which: Which = "last", *,
              execution: Execution = AS_IT_COMES) -> Model[Any]:
        """Build the network with these weights, in the run's own backend or another; see the function `build`."""
        return models.build(self.network, backend or self.backend, weights=self.parameters(which), device=device,
                            execution=execution)

    def resume(self, epochs: int | None = None, backend: str | None = None, **options: Any) -> TrainedRun:
        """Resume the run; see the function `resume`."""
        return resume(self.folder, epochs, backend, **options)


@dataclass(frozen=True)
class Training:
    """A training that is ready to start. Its run folder belongs to this process until it ends."""

    folder: RunFolder
    loaded: LoadedModel
    data: Dataset
    start: loop.Snapshot | None = None
    """Snapshot to resume from; None starts from the first step."""

    @property
    def recipe(self) -> Recipe:
        """Return the recipe of the run."""
        return self.folder.record.recipe

    @property
    def steps_taken(self) -> int:
        """Return the number of steps before this training."""
        return self.start.position.number if self.start else 0

    @property
    def is_finished(self) -> bool:
        """Return True if nothing is left to train."""
        return self.folder.is_finished


def train(net: Network | str | None = None, backend: str | None = None, *, recipe: Recipe | str | None = None,
          dropout: float | None = None, weights: Path | str | None = None, which: Which = "last", seed: int = 0,
          device: str = "auto", execution: Execution = AS_IT_COMES, data: DataSource | Path | str = "auto",
          data_dir: Path | str | None = None,
          out: Path | str | None = None, checkpoint_minutes: float = CHECKPOINT_MINUTES, tensorboard: bool = False,
          progress: Watcher | bool = True, command: Sequence[str] = ("alexnet_mf.train",),
          **changes: Any) -> TrainedRun:
    """Train a network and write a run folder. The command line's `train` calls this function.

    Args:
        net, backend, which, seed, device, execution: as for `build`.
        weights: starting weights: a run folder, or a file of any format that `convert` reads. They
            name the network if `net` does not. Without them, the weights are drawn from `seed`.
        recipe: `book`, `quick` or a `Recipe`; without it `book` on a GPU, `quick` on a CPU.
        dropout: rate of every dropout layer; without it the network's own.
        data: `fashion-mnist`, `synthetic`, or `auto`: Fashion-MNIST, or the synthetic set with a notice. Or the path of
            images of your own, or a `DataSource`, which has further options. Without `weights` the network gets the
            classes and the channels of the images.
        data_dir: folder with the four files of Fashion-MNIST.
        out: run folder, new or empty; without it runs/DATE-TIME-BACKEND-NET.
        checkpoint_minutes: time between two checkpoints within an epoch. There is one after each epoch anyway.
        tensorboard: also write TensorBoard events into the run folder.
        progress: True shows the training, with the run folder first; False shows nothing; a `Watcher` receives it.
        command: recorded in run.json as the command that started the run.
        changes: other values for the recipe: epochs, batch_size, learning_rate, momentum, weight_decay, train_images,
            test_images, augment, annealed, held_out; as for `Recipe.with_changes`. The dataset must have that many
            images.

    An interrupt (Ctrl-C, or a notebook's stop button) ends the step, writes a checkpoint and the weights, and raises
    KeyboardInterrupt, whose message names the call that resumes the run. A second one stops at once.

    Raises:
        TrainingDiverged: if the loss or a weight is NaN or infinite.
        AlexnetMfError: if something cannot be done as asked; names the remedy. No run folder is left if no step was
            taken.
    """
    watcher = _check_options(checkpoint_minutes, tensorboard, progress)
    source = datasets.source_of(data, data_dir)
    seed = check_integer("seed", seed, least=0)
    if weights is not None and not isinstance(weights, (str, Path)):
        raise AlexnetMfError("`weights` must be a file or a run folder, so that run.json can name it; write arrays "
                             "to a file first, with `alexnet_mf.weights.parameters.save`")
    name = backends.default() if backend is None else check_type("backend", backend, str)
    stored = conversion.read(weights, net, which) if weights is not None else None
    if stored and which != "last":  # a resumed run reads the file that it names
        weights = conversion.file_of_run(Path(str(weights)), which)
    network = stored.network if stored else models.find_weights(net, which=which)[0]
    if dropout is not None:
        network = _with_dropout(network, dropout)

    def recipe_on(device: str, network: Network, images: int | None = None) -> Recipe:
        return (recipe if isinstance(recipe, Recipe) else choose_recipe(recipe, network, device, images)
                ).with_changes(**changes)

    def run_folder(network: Network) -> Path:
        return new_folder(RUNS, name, network.name) if out is None else check_path("out", out)

    recipe_on("cpu", network)  # check the values before anything slow
    check_new(run_folder(network))
    framework, execution = models.load_backend(name, execution)
    opened = datasets.open_source(source, watcher.quiet)
    if stored:
        opened = datasets.with_classes_of(opened, stored.classes, str(stored.path))
    else:
        network = datasets.adapted(network, opened)
    values = stored.parameters if stored else parameters.initialize(network, seed)
    loaded = models.build_in(framework, execution, network, values, device)
    preprocessing = datasets.choose(opened, network, training_preprocessing(stored) if stored else None)
    images = datasets.prepare(opened, preprocessing, source, watcher.quiet)
    final = recipe_on(loaded.model.device, network, None if source.is_built_in else len(images.train))
    if preprocessing.patch and not isinstance(recipe, Recipe) and changes.get("augment") is None:
        final = final.with_changes(augment=PAPERS_AUGMENTATION)
    if "resized-crop" in final.augment and isinstance(opened, PictureSet) and source.store is not False:
        raise AlexnetMfError("augmentation resized-crop needs pictures at their full size, and prepared ones are "
                             "cropped; use `store=False`, or crop")
    without_held_out = images.hold_out(final.held_out)
    without_held_out.check_limits(train_images=changes.get("train_images"), test_images=changes.get("test_images"))
    final = final.fitted(without_held_out)
    if backend is None:
        models.default_backend()  # its notice, now that every argument has been checked
    start = StartingWeights(str(Path(str(weights)).resolve()), parameters.digest(values)) if stored else None
    folder = RunFolder.create(run_folder(network), Run(
        network=spec.as_dict(network), spec_sha256=spec.fingerprint(network), seed=seed,
        recipe=final, data=images.origin, source=recorded_source(source, images), classes=list(images.classes),
        preprocessing=preprocessing.as_dict(), data_sha256=images.digest(), test_sha256=images.digest("test"),
        stores=images.stores, weights=start, **record.fields(describe_session(loaded, command), Session)))
    return _carry_out(Training(folder, loaded, without_held_out), watcher, checkpoint_minutes, tensorboard)


def training_preprocessing(stored: conversion.Weights) -> Preprocessing | None:
    """Return the preprocessing that weights state.

    Raises:
        AlexnetMfError: if it normalizes pixels, which training does not.
    """
    preprocessing = stored.preprocessing
    if preprocessing and not (preprocessing.is_unit and preprocessing.color != "bgr"):
        raise AlexnetMfError(f"{stored.path}: takes {preprocessing.describe_numbers()}, in the order "
                             f"{preprocessing.color}; training takes only pixels scaled to [0, 1]; use other weights")
    return preprocessing


def recorded_source(source: DataSource, images: Dataset) -> DataSource:
    """Return the source for a record: `auto` by the name of the dataset that it was."""
    return dataclasses.replace(source, name=images.name if source.is_built_in else source.name).resolved()


def resume(run: Path | str, epochs: int | None = None, backend: str | None = None, *, device: str = "auto",
           execution: Execution | None = None, data: DataSource | Path | str | None = None,
           data_dir: Path | str | None = None, checkpoint_minutes: float = CHECKPOINT_MINUTES,
           tensorboard: bool = False, progress: Watcher | bool = True,
           command: Sequence[str] = ("alexnet_mf.resume",), **expected: Any) -> TrainedRun:
    """Resume a run from its last good checkpoint. The command line's `train` calls this function too.

    Args:
        run: run folder.
        epochs: total number of epochs; a larger number prolongs the run.
        backend: another backend continues from the weights; a notice names what is not carried over.
        device, execution: for another backend, as for `build`; the run's own backend keeps its own.
        data: another place of the same images; without it the run's own.
        data_dir, checkpoint_minutes, tensorboard, progress, command: as for `train`.
        expected: other arguments of `train`. Each must have the run's own value.

    Raises:
        RunError: if there is nothing to resume from, another process has the run, the images have changed, or an
            argument contradicts the run.
    """
    watcher = _check_options(checkpoint_minutes, tensorboard, progress)
    if epochs is not None:
        check_integer("epochs", epochs)
    if execution is not None:
        check_type("execution", execution, Execution)
    folder = RunFolder.open(check_path("run", run))
    try:
        run_record, before = folder.record, folder.last_session
        resuming.check_expected(folder, expected)
        source = resuming.source(folder, data, data_dir)
        name = backend or before.backend
        if name == before.backend:
            execution = resuming.same_execution(folder, execution)
            device = before.device if device == "auto" else device
        loaded = models.load(name, run_record.net, resuming.starting_weights(folder), device, execution or AS_IT_COMES)
        images = resuming.same_images(folder, source, watcher.quiet)
        run_record.source, run_record.stores = recorded_source(source, images), images.stores
        images = images.hold_out(run_record.recipe.held_out)
        if epochs is not None:
            resuming.change_epochs(folder, epochs, images)
        if folder.is_finished and tensorboard:
            raise RunError(f"{folder.path}: is finished and writes no more events; leave out `tensorboard`")
        start = folder.resume(describe_session(loaded, command))
        training = Training(folder, loaded, images, start)
    except BaseException:
        folder.close()
        raise
    return _carry_out(training, watcher, checkpoint_minutes, tensorboard)


def load_run(folder: Path | str) -> TrainedRun:
    """Read a run folder in any state.

    If run.json or metrics.jsonl is damaged, a notice says that the last good checkpoint replaces it. Nothing is
    written; `resume` repairs the files.

    Raises:
        RunError: if there is no run, or no checkpoint to replace a damaged file.
    """
    folder = check_path("folder", folder)
    if not record.is_run(folder):
        raise record.no_run(folder)
    run, session = read_record(folder)
    closing = run.closing if isinstance(run, RunRecord) else None
    state = record.state_of(folder, run) if isinstance(run, RunRecord) else "damaged"
    try:
        epochs = metrics.epochs(metrics.read(folder))
        if closing and len(epochs) < closing.epochs:
            raise RunError(f"{folder / metrics.NAME}: is damaged: its last epochs are missing")
    except RunError as fault:
        epochs = _checkpoint(folder, fault).snapshot.position.epochs
    return TrainedRun(folder, run.net, run.recipe, run.seed, session, state, epochs, run)


def read_record(folder: Path) -> tuple[Run, Session]:
    """Return the record of a run and its last session: from run.json or, with a notice, from the last good checkpoint.

    Raises:
        RunError: if both are damaged.
    """
    try:
        run = record.read(folder)
    except RunError as fault:
        checkpoint = _checkpoint(folder, fault)
        return checkpoint.run, checkpoint.session
    return run, run.sessions[-1]


def _carry_out(training: Training, watcher: Watcher, checkpoint_minutes: float, wants_events: bool) -> TrainedRun:
    """Train, write the run folder during the training, and close it."""
    folder = training.folder
    try:
        if not training.is_finished:
            watcher.built(training.loaded)
        for line in folder.notices:
            warnings.warn(line, Notice, stacklevel=3)
        with watcher, Interrupt(watcher.stopping) as interrupt:
            watcher.begin(training)
            result = _train(training, watcher, interrupt, checkpoint_minutes, wants_events)
            if result.finished:
                folder.finish(result)
            else:
                folder.stop(training.loaded.model.export(), result)
    except BaseException as error:
        is_interrupt = not isinstance(error, Exception)
        has_steps = folder.has_begun if is_interrupt else folder.has_steps or isinstance(error, TrainingDiverged)
        if folder.is_new and not has_steps:
            folder.discard()
        elif not is_interrupt:
            folder.fail(str(error) if isinstance(error, AlexnetMfError) else repr(error))
        raise
    finally:
        folder.close()
    if interrupt.requested:
        steps = f"after {len(result.losses)} steps"
        raise KeyboardInterrupt(f"{folder.path}: finished {steps}" if result.finished else
                                f"{folder.path}: stopped {steps}; resume with {how_to_resume(folder.path)}")
    run = folder.record
    return TrainedRun(folder.path, run.net, run.recipe, run.seed, folder.session, run.state, result.epochs, run, result)


def _train(training: Training, watcher: Watcher, interrupt: Interrupt, checkpoint_minutes: float,
           wants_events: bool) -> Result:
    """Take the steps that are left. The run folder and the watcher learn of each reading and each epoch."""
    folder = training.folder
    if training.start and training.is_finished:
        return loop.result_at(training.start.position)
    if wants_events or ((folder.path / tensorboard.FOLDER).is_dir() and tensorboard.is_installed()):
        folder.write_events(training.steps_taken)

    show_progress, show_epoch = interrupt.deferred(watcher.progress), interrupt.deferred(watcher.epoch)

    def on_progress(now: loop.Progress) -> None:
        folder.progress(now)
        show_progress(now)

    def on_epoch(done: Epoch) -> None:
        folder.epoch(done)
        show_epoch(done)

    def stop() -> bool:
        is_requested = watcher.should_stop() or interrupt.requested
        folder.has_begun = True  # the loop asks before its first step
        return is_requested

    hooks = loop.Hooks(on_progress, on_epoch, interrupt.deferred(watcher.evaluation), save=folder.save,
                       save_seconds=60 * checkpoint_minutes, stop=stop)
    return loop.train(training.loaded.model, training.data.train, training.data.test, training.recipe,
                      folder.record.seed, hooks, start=training.start)


def describe_session(loaded: LoadedModel, command: Sequence[str]) -> Session:
    """Return the backend and the machine that compute a run."""
    values = {**conditions(command), **loaded.session()}
    values["versions"] |= {"alexnet_mf": alexnet_mf.__version__, "python": platform.python_version()}
    return records.parse(json.loads(json.dumps(values)), Session)  # as it will be when it is read: lists for tuples


def _check_options(minutes: float, wants_events: bool, progress: Watcher | bool) -> Watcher:
    """Check the options that `train` and `resume` share, and return the watcher."""
    check_number("checkpoint_minutes", minutes, above=True)
    if check_type("tensorboard", wants_events, bool):
        tensorboard.check_installed()
    if isinstance(progress, Watcher):
        return progress
    return TrainingDisplay() if check_type("progress", progress, bool) else Watcher()


def _with_dropout(network: Network, rate: float) -> Network:
    """Return the network with this rate in every dropout layer. It must have one."""
    if check_number("dropout", rate) >= 1:
        raise AlexnetMfError(f"`dropout` must be at least 0 and less than 1, not {rate:g}")
    if not any(isinstance(layer, Dropout) for layer in network.layers):
        raise AlexnetMfError(f"`dropout` has no effect: {network.name} has no dropout layer; leave it out")
    return spec.with_dropout(network, rate)


def _checkpoint(folder: Path, fault: RunError) -> Checkpoint:
    """Return the last good checkpoint, with a notice, or raise the fault if there is none."""
    latest = checkpoints.latest(folder / record.CHECKPOINTS)
    if latest is None:
        raise fault
    warnings.warn(f"{fault}; the checkpoint {latest[0].name} replaces it", Notice, stacklevel=3)
    return latest[1]
