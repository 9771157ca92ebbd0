"""`train`: the layer table, then the training. The main job."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import signal
from pathlib import Path
from typing import Any

import numpy as np

import alexnet_mf
from alexnet_mf import backends, parameters, spec
from alexnet_mf.backends.base import SPEED_SETTINGS, Backend, Sgd, find_precision
from alexnet_mf.bench.conditions import conditions
from alexnet_mf.cli import output, signals
from alexnet_mf.cli.arguments import (
    add_execution,
    add_json,
    add_network,
    add_source,
    check_takes_grey_images,
    execution,
    minutes,
    switched,
)
from alexnet_mf.data import Dataset, load
from alexnet_mf.errors import AlexnetMfError, BackendUnavailable, RunError
from alexnet_mf.specfile import find_network
from alexnet_mf.training import board, loop
from alexnet_mf.training.recipe import BOOK, QUICK, RECIPES, Recipe, for_network
from alexnet_mf.training.run import RUNS, WEIGHTS, Run, check_new, new_folder

FRAMEWORKS = ("torch", "tensorflow", "mxnet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    add = parser.add_argument
    add("--backend", choices=list(backends.BACKENDS), help="framework (default: the first installed of "
        f"{', '.join(FRAMEWORKS)})")
    add_network(parser)
    add_execution(parser)
    recipes = (f"book: {describe(BOOK)}; quick: {describe(QUICK)}, or as many epochs of book as cost no more; some "
               f"networks have a learning rate of their own").replace("%", "%%")
    add("--recipe", choices=list(RECIPES), help=f"{recipes} (default: book on a GPU, quick on a CPU)")
    add("--epochs", type=int, help="passes over the training images (default: the recipe's)")
    add("--batch-size", type=int, help="images a step (default: the recipe's)")
    add("--lr", type=float, help="learning rate of SGD (default: the recipe's)")
    add("--momentum", type=float, help="momentum of SGD, 0 up to but not including 1 (default: the recipe's)")
    add("--weight-decay", type=float, help="L2 penalty, added to the gradient (default: the recipe's, 0)")
    add("--dropout", type=float,
        help="rate of every dropout layer, 0 up to but not including 1 (default: the network's, 0.5)")
    add_source(parser)
    add("--limit-train", type=int, metavar="N", help="the first N training images only (default: the recipe's)")
    add("--limit-test", type=int, metavar="N", help="the first N test images only (default: the recipe's)")
    add("--weights", type=Path, metavar="FILE",
        help="start from these canonical weights, safetensors (default: drawn by seed)")
    add("--out", type=Path, metavar="FOLDER", help="run folder, new or empty (default: runs/DATE-TIME-BACKEND-NET)")
    add("--resume", type=Path, metavar="RUN",
        help="go on with the run in this folder, from its last good checkpoint; all that decides its numbers is taken "
             "from there. More --epochs prolong it; another --backend goes on from the weights (default: a new run)")
    add("--checkpoint-minutes", type=minutes, default=10.0, metavar="MINUTES",
        help="time between two checkpoints within an epoch; there is one after each epoch anyway (default: 10)")
    add("--tensorboard", action="store_true", help="write TensorBoard events too, into the run folder")
    add("--save-weights", type=Path, metavar="FILE", help="write the trained weights as canonical safetensors")
    add_json(parser)
    add("--quiet", action="store_true", help="the two closing lines only")


def describe(recipe: Recipe) -> str:
    """A recipe in a phrase."""
    epochs = f"{recipe.epochs} epoch{'s' * (recipe.epochs > 1)}"
    images = f"{recipe.train_images:,}" if recipe.train_images else "all"
    momentum = f", momentum {recipe.sgd.momentum:g}" if recipe.sgd.momentum else ""
    annealed = (f" ({recipe.annealed_sgd.learning_rate:g} in the last {recipe.annealed:.0%} of the steps)"
                if recipe.annealed else "")
    rate = f"lr {recipe.sgd.learning_rate:g}{annealed}"
    return f"{epochs} of {images} images, batch {recipe.batch_size}, {rate}{momentum}"


def run(options: argparse.Namespace) -> int:
    """Carry it out; the exit code."""
    if options.tensorboard:
        board.check_installed()
    if options.resume:
        return resume(options)
    name = options.backend or first_installed()
    recipe = with_options(BOOK, options)  # wrong numbers are told before anything slow
    if options.out:
        check_new(options.out)
    how = execution(options)
    backend = backends.load(name)
    network = find_network(options.net, name)
    check_takes_grey_images(network)
    if options.dropout is not None:
        network = spec.with_dropout(network, options.dropout)
    start = (parameters.load(options.weights, network) if options.weights
             else parameters.initialise(network, options.seed))
    model = backend.build(network, start, options.device, how)
    recipe = with_options(for_network(choose_recipe(options.recipe, model.device), network), options)
    show_layers(backend, model, options)
    data = load_data(options.data, options)
    weights = {"file": str(options.weights), "sha256": parameters.digest(start)} if options.weights else None
    folder = Run.create(options.out or new_folder(RUNS, name, network.name), {
        "network": spec.as_dict(network), "spec_sha256": spec.digest(network), "seed": options.seed,
        "recipe": dataclasses.asdict(recipe), "data": data.origin, "data_name": data.name,
        "data_sha256": data.digest(), "weights": weights}, session(backend, model, options))
    return carry_out(folder, None, backend, model, data, recipe, options)


def resume(options: argparse.Namespace) -> int:
    """Go on with a run."""
    folder = Run.open(options.resume)
    try:
        given = given_flags(options.words[1:])
        before = folder.found.session if folder.found else folder.record
        name = options.backend or before["backend"]
        network = folder.network
        recipe = check_flags(folder, given, options, name == before["backend"])
        if name == before["backend"]:
            options.precision = before["precision"]
            for setting in SPEED_SETTINGS:
                setattr(options, setting, True if setting in before["also"] else
                        False if setting in before["without"] else None)
            options.device = given.get("device", before["device"])
        options.seed, options.net = folder.record["seed"], network.name
        how = execution(options)
        backend = backends.load(name)
        model = backend.build(network, starting_weights(folder), options.device, how)
        data = load_data(folder.record["data_name"], options)
        if data.digest() != folder.record["data_sha256"]:
            raise RunError(f"{folder.folder}: these are not the images it was begun with ({folder.record['data']}); "
                           "name their folder with --data-dir")
        recipe = with_epochs(folder, recipe, given.get("epochs", recipe.epochs), steps_of(recipe, data))
        folder.record["recipe"] = dataclasses.asdict(recipe)
        snapshot = folder.go_on(session(backend, model, options))
        show_layers(backend, model, options)
    except BaseException:
        folder.close()
        raise
    return carry_out(folder, snapshot, backend, model, data, recipe, options)


def given_flags(words: list[str]) -> dict[str, Any]:
    """Flags that were named, be it with their default."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser)
    missing = object()
    parser.set_defaults(**dict.fromkeys(vars(parser.parse_args([])), missing))
    return {name: value for name, value in vars(parser.parse_args(words)).items() if value not in (missing, None)}


def check_flags(folder: Run, given: dict[str, Any], options: argparse.Namespace, same_backend: bool) -> Recipe:
    """The run's recipe, once nothing that was asked for contradicts the run.

    Raises:
        RunError: where a flag contradicts the run.
    """
    if options.out:
        raise RunError("--resume goes on in the run's own folder: leave out --out")
    recipe = run_recipe(folder)
    rates = {layer.rate for layer in folder.network.layers if isinstance(layer, spec.Dropout)}
    before = folder.found.session if folder.found else folder.record
    has = {"net": {folder.network.name}, "seed": {folder.record["seed"]}, "recipe": {recipe.name},
           "data": {folder.record["data_name"], "auto"}, "batch_size": {recipe.batch_size},
           "lr": {recipe.sgd.learning_rate}, "momentum": {recipe.sgd.momentum},
           "weight_decay": {recipe.sgd.weight_decay}, "limit_train": {recipe.train_images},
           "limit_test": {recipe.test_images}, "dropout": rates, "weights": set()}
    if same_backend:
        has |= {"precision": {before["precision"]}}
        switches = {**dict.fromkeys(before["also"], True), **dict.fromkeys(before["without"], False)}
        other = [f"--{'' if given[name] else 'no-'}{name}" for name in SPEED_SETTINGS
                 if name in given and given[name] is not switches.get(name)]
        if other:
            raise RunError(f"{folder.folder}: its speed settings are fixed: leave out {', '.join(other)}")
    for name, values in has.items():
        if name in given and given[name] not in values:
            flag = f"--{name.replace('_', '-')}"
            known = " or ".join(map(str, values)) or "its own"
            raise RunError(f"{folder.folder}: {flag} is {known} there, not {given[name]}: leave it out, or start a new "
                           f"run from these weights (--weights {folder.folder / WEIGHTS})")
    return recipe


def with_epochs(folder: Run, recipe: Recipe, epochs: int, steps: int) -> Recipe:
    """The recipe with so many epochs, of so many steps.

    Raises:
        RunError: where the steps that were taken do not belong to that.
    """
    if epochs == recipe.epochs or folder.found is None:
        return dataclasses.replace(recipe, epochs=epochs)
    position = folder.found.snapshot.position
    begun = len(position.epochs) + (position.images > 0)
    if epochs < begun:
        raise RunError(f"{folder.folder}: has begun epoch {begun}: --epochs must be at least that")
    if recipe.annealed and position.number >= recipe.annealed_from(steps):
        raise RunError(f"{folder.folder}: has taken steps at the smaller learning rate of its end, so --epochs cannot "
                       f"change; start a new run from its weights (--weights {folder.folder / WEIGHTS})")
    return dataclasses.replace(recipe, epochs=epochs)


def steps_of(recipe: Recipe, data: Dataset) -> int:
    """Steps of an epoch."""
    return -(-len(data.train.first(recipe.train_images)) // recipe.batch_size)


def run_recipe(folder: Run) -> Recipe:
    """The recipe that the run was begun with."""
    fields = folder.record["recipe"]
    return Recipe(**{**fields, "sgd": Sgd(**fields["sgd"])})


def starting_weights(folder: Run) -> parameters.Parameters:
    """The checkpoint's weights, in float32; without one those that the run began with.

    Raises:
        RunError: where these came from a file that has changed.
        ParametersError: where that file cannot be read.
    """
    if folder.found:
        found = folder.found.snapshot.state.parameters
        weights = {name: value.astype(np.float32) for name, value in found.items()}
        parameters.check(weights, folder.network, str(folder.last_checkpoint))
        return weights
    given = folder.record["weights"]
    if given is None:
        return parameters.initialise(folder.network, folder.record["seed"])
    weights = parameters.load(Path(given["file"]), folder.network)
    if parameters.digest(weights) != given["sha256"]:
        raise RunError(f"{given['file']}: has changed since {folder.folder} was begun with it: start a new run")
    return weights


def show_layers(backend: Backend, model: Any, options: argparse.Namespace) -> None:
    """The layer table."""
    if not options.quiet and options.json != "-":
        versions = " ".join(f"{library} {version}" for library, version in backend.versions().items())
        output.layer_table(model.describe(), f"{model.network.name} in {versions} on {model.device}")
        output.say()


def load_data(name: Any, options: argparse.Namespace) -> Dataset:
    """The data set; where it is not the one hoped for, the user is told."""
    data, why = load(name, options.data_dir, progress=output.DownloadDisplay("Fashion-MNIST"))
    if why:
        output.notice(why)
    return data


def session(backend: Backend, model: Any, options: argparse.Namespace) -> dict[str, Any]:
    """What computes a run, and where, as JSON values."""
    versions = {**backend.versions(), "alexnet_mf": alexnet_mf.__version__, "python": platform.python_version()}
    values = {**conditions(["alexnet-mf", *options.words]), "backend": backend.name, "versions": versions,
              "settings": backend.settings(), "device": model.device,
              "precision": find_precision(backend, model.device, options.precision),
              "without": switched(options, False), "also": switched(options, True)}
    return dict(json.loads(json.dumps(values)))  # as it will be when it is read again: lists for tuples


def carry_out(folder: Run, start: loop.Snapshot | None, backend: Backend, model: Any, data: Dataset, recipe: Recipe,
              options: argparse.Namespace) -> int:
    """Train in a run folder, from the beginning or from where it stands, and tell the end."""
    quiet = options.quiet or options.json == "-"
    for line in folder.notices:
        output.notice(line)
    with output.TrainingDisplay(quiet) as display, signals.Stop(lambda name: display.warn(
            f"{name}: ending this step and saving; once more leaves at once")) as stop:
        try:
            if options.tensorboard:
                folder.write_events(start.position.number if start else 0)
            result = train(folder, start, model, data, recipe, options, display, stop)
            if result.finished:
                folder.finish(result)
            else:
                folder.stop(model.export(), result)
        except Exception as error:
            folder.fail(str(error) if isinstance(error, AlexnetMfError) else repr(error))
            raise
        finally:
            folder.close()
    if not result.finished:
        assert stop.signal is not None
        output.notice(f"alexnet-mf: stopped by {signals.NAMES[signal.Signals(stop.signal)]} after "
                      f"{len(result.losses)} steps; go on with: {folder.how_to_resume()}")
        return 128 + stop.signal
    if options.save_weights:
        parameters.save(options.save_weights, model.export(),
                        {"network": spec.as_dict(model.network), "seed": options.seed})
    if options.json:
        output.write_json(options.json, report(folder, backend, model, data, recipe, result, options))
    if options.json != "-":
        output.say(output.closing_figures(result.epochs[-1]))
        output.say(f"{result.images_per_second:.1f} examples/sec on {model.device}")
    return 0


def first_installed() -> str:
    """The backend for those who name none."""
    for name in FRAMEWORKS:
        if backends.is_installed(name):
            output.notice(f"taking --backend {name}, the first installed of {', '.join(FRAMEWORKS)}")
            return name
    raise BackendUnavailable("none of torch, tensorflow and mxnet is installed; "
                             f"{backends.BACKENDS['torch'].install} (or see: list backends), or take --backend numpy, "
                             "slow but without a framework")


def choose_recipe(name: str | None, device: str) -> Recipe:
    """The recipe asked for, or the device's."""
    if name:
        return RECIPES[name]
    return QUICK if device == "cpu" else BOOK


def with_options(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe with what the command line changes."""
    sgd = {"learning_rate": options.lr, "momentum": options.momentum, "weight_decay": options.weight_decay}
    changes: dict[str, Any] = {"epochs": options.epochs, "batch_size": options.batch_size,
                               "train_images": options.limit_train, "test_images": options.limit_test,
                               "sgd": dataclasses.replace(recipe.sgd, **given(sgd))}
    return dataclasses.replace(recipe, **given(changes))


def given(changes: dict[str, Any]) -> dict[str, Any]:
    """What the user did name."""
    return {key: value for key, value in changes.items() if value is not None}


def train(folder: Run, start: loop.Snapshot | None, model: Any, data: Dataset, recipe: Recipe,
          options: argparse.Namespace, display: output.TrainingDisplay, stop: signals.Stop) -> loop.Result:
    """Train with a display; where the quick recipe was our choice, say so, and how long the book's would take here."""
    unasked = options.recipe is None and recipe.name == "quick" and not options.resume
    told = not unasked
    if not display.quiet:
        display.line(f"{data.origin}: {describe(recipe)}")
        if unasked:
            display.line("on a CPU, so taking --recipe quick (the chapter's own, made for a GPU: --recipe book)")
        display.line(f"run folder: {folder.folder}")
        if start:
            display.line(f"going on after step {start.position.number}, from {folder.last_checkpoint}")

    def on_progress(now: loop.Progress) -> None:
        nonlocal told
        folder.progress(now)
        if not told and now.step >= 4:
            told = True
            images = BOOK.epochs * len(data.train)
            if not display.quiet:
                display.line(f"at {now.images_per_second:.1f} images/s, as these steps show, --recipe book would take "
                             f"about {output.duration(images / now.images_per_second)} here, evaluation left out")
        display.progress(now)

    def on_epoch(done: loop.Epoch) -> None:
        folder.epoch(done, model.export(), done.epoch * steps_of(recipe, data))
        display.epoch(done, recipe.epochs)

    return loop.train(model, data.train, data.test, recipe, options.seed, on_progress, on_epoch, start=start,
                      save=folder.save, save_seconds=60 * options.checkpoint_minutes, stop=stop)


def report(folder: Run, backend: Backend, model: Any, data: Dataset, recipe: Recipe, result: loop.Result,
           options: argparse.Namespace) -> dict[str, Any]:
    """The training as JSON values."""
    return {"backend": backend.name, "versions": backend.versions(), "settings": backend.settings(),
            "device": model.device, "precision": find_precision(backend, model.device, options.precision),
            "without": switched(options, False), "also": switched(options, True),
            "network": spec.as_dict(model.network), "spec_sha256": spec.digest(model.network), "data": data.origin,
            "seed": options.seed, "recipe": dataclasses.asdict(recipe), "run": str(folder.folder),
            "epochs": [dataclasses.asdict(epoch) for epoch in result.epochs], "losses": result.losses,
            "images_timed": result.images, "seconds": result.seconds, "images_per_second": result.images_per_second}
