"""`train`: the layer table, then the training. The main job."""

from __future__ import annotations

import argparse
import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet_mf import backends, spec
from alexnet_mf.backends.contract import Backend, find_precision
from alexnet_mf.backends.execution import SPEED_SETTINGS
from alexnet_mf.cli import output, progress, signals
from alexnet_mf.cli.arguments import (
    add_augment,
    add_execution,
    add_json,
    add_network,
    add_source,
    execution,
    first_installed,
    given_flags,
    minutes,
    switched,
)
from alexnet_mf.data import Dataset, augmentation, load
from alexnet_mf.errors import RunError
from alexnet_mf.spec import layers
from alexnet_mf.spec.toml import find_network
from alexnet_mf.training import board, job, loop
from alexnet_mf.training.folder import RUNS, WEIGHTS, check_new, new_folder
from alexnet_mf.training.recipe import BOOK, QUICK, RECIPES, Recipe
from alexnet_mf.training.run import Run
from alexnet_mf.weights import parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    add = parser.add_argument
    add("--backend", choices=list(backends.BACKENDS), help="framework (default: the first installed of "
        f"{', '.join(backends.FRAMEWORKS)})")
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
        help="rate of every dropout layer, 0 up to but not including 1 (default: the network's)")
    add_augment(parser)
    add_source(parser)
    add("--limit-train", type=int, metavar="N", help="the first N training images only (default: the recipe's)")
    add("--limit-test", type=int, metavar="N", help="the first N test images only (default: the recipe's)")
    add("--weights", type=Path, metavar="FILE",
        help="start from these canonical weights, safetensors (default: drawn by seed)")
    add("--out", type=Path, metavar="FOLDER", help="run folder, new or empty (default: runs/DATE-TIME-BACKEND-NET)")
    add("--resume", type=Path, metavar="RUN",
        help="go on with the run in this folder, from its last good checkpoint; all that decides its numbers is taken "
             "from there. More --epochs prolong it; another --backend goes on from the weights (default: a new run)")
    add("--checkpoint-minutes", type=minutes, default=job.CHECKPOINT_MINUTES, metavar="MINUTES",
        help="time between two checkpoints within an epoch; there is one after each epoch anyway (default: "
             f"{job.CHECKPOINT_MINUTES:g})")
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
    augmented = f", augmented by {', '.join(recipe.augment)}" if recipe.augment else ""
    return f"{epochs} of {images} images, batch {recipe.batch_size}, {rate}{momentum}{augmented}"


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
    network = find_network(options.net)
    job.check_takes_grey_images(network)
    if options.dropout is not None:
        network = spec.with_dropout(network, options.dropout)
    start = (parameters.load(options.weights, network) if options.weights
             else parameters.initialise(network, options.seed))
    model = backend.build(network, start, options.device, how)
    recipe = with_options(job.choose_recipe(options.recipe, network, model.device), options)
    show_layers(backend, model, options)
    data = load_data(options.data, options)
    ready = job.begin(options.out or new_folder(RUNS, name, network.name), model, data, recipe, options.seed,
                      job.describe_session(backend, model, how, ["alexnet-mf", *options.words]), options.weights)
    return carry_out(ready, backend, options)


def resume(options: argparse.Namespace) -> int:
    """Go on with a run."""
    folder = Run.open(options.resume)
    try:
        given = given_flags(add_arguments, options.words[1:])
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
        model = backend.build(network, job.starting_weights(folder), options.device, how)
        data = load_data(folder.record["data_name"], options)
        ready = job.take_up(folder, model, data, given.get("epochs", recipe.epochs),
                            job.describe_session(backend, model, how, ["alexnet-mf", *options.words]))
        if not ready.is_over:
            show_layers(backend, model, options)
    except BaseException:
        folder.close()
        raise
    return carry_out(ready, backend, options)


def check_flags(folder: Run, given: dict[str, Any], options: argparse.Namespace, same_backend: bool) -> Recipe:
    """The run's recipe, once nothing that was asked for contradicts the run.

    Raises:
        RunError: where a flag contradicts the run.
    """
    if options.out:
        raise RunError("--resume goes on in the run's own folder: leave out --out")
    recipe = job.recipe_of(folder.record)
    rates = {layer.rate for layer in folder.network.layers if isinstance(layer, layers.Dropout)}
    before = folder.found.session if folder.found else folder.record
    has = {"net": {folder.network.name}, "seed": {folder.record["seed"]}, "recipe": {recipe.name},
           "data": {folder.record["data_name"], "auto"}, "batch_size": {recipe.batch_size},
           "lr": {recipe.sgd.learning_rate}, "momentum": {recipe.sgd.momentum},
           "weight_decay": {recipe.sgd.weight_decay}, "augment": {recipe.augment}, "limit_train": {recipe.train_images},
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
            known = " or ".join(map(shown, values)) or "its own"
            raise RunError(f"{folder.folder}: {flag} is {known} there, not {shown(given[name])}: leave it out, or "
                           f"start a new run from these weights (--weights {folder.folder / WEIGHTS})")
    return recipe


def shown(value: Any) -> str:
    """A flag's value as it is written on the command line."""
    return ",".join(value) or augmentation.NONE if isinstance(value, tuple) else str(value)


def show_layers(backend: Backend, model: Any, options: argparse.Namespace) -> None:
    """The layer table."""
    if not options.quiet and options.json != "-":
        versions = " ".join(f"{library} {version}" for library, version in backend.versions().items())
        output.layer_table(model.describe(), f"{model.network.name} in {versions} on {model.device}")
        output.say()


def load_data(name: Any, options: argparse.Namespace) -> Dataset:
    """The data set; where it is not the one hoped for, the user is told."""
    data, why = load(name, options.data_dir, progress=progress.DownloadDisplay("Fashion-MNIST", options.quiet))
    if why:
        output.notice(why)
    return data


def carry_out(ready: job.Job, backend: Backend, options: argparse.Namespace) -> int:
    """Train in a run folder, from the beginning or from where it stands, and tell the end."""
    folder, model = ready.run, ready.model
    for line in folder.notices:
        output.notice(line)
    with progress.TrainingDisplay(options.quiet or options.json == "-") as display, signals.Stop(
            lambda name: display.warn(f"{name}: ending this step and saving; once more leaves at once")) as stop:
        announce(ready, options, display)
        result = job.carry_out(ready, watcher(ready, options, display),
                               lambda done: display.epoch(done, ready.recipe.epochs), display.evaluation,
                               save_seconds=60 * options.checkpoint_minutes, stop=stop, tensorboard=options.tensorboard)
    if not result.finished:
        assert stop.signal is not None
        output.notice(f"alexnet-mf: stopped by {signals.NAMES[signal.Signals(stop.signal)]} after "
                      f"{len(result.losses)} steps; go on with: {folder.how_to_resume()}")
        return 128 + stop.signal
    if options.save_weights:
        parameters.save(options.save_weights, model.export(),
                        {"network": spec.as_dict(model.network), "seed": options.seed})
    if options.json:
        output.write_json(options.json, report(ready, backend, result, options))
    if options.json != "-":
        output.say(output.closing_figures(result.epochs[-1]))
        output.say(f"{result.images_per_second:.1f} examples/sec on {model.device}")
    return 0


def with_options(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe with what the command line changes."""
    sgd = {"learning_rate": options.lr, "momentum": options.momentum, "weight_decay": options.weight_decay}
    changes: dict[str, Any] = {"epochs": options.epochs, "batch_size": options.batch_size,
                               "train_images": options.limit_train, "test_images": options.limit_test,
                               "augment": options.augment,
                               "sgd": dataclasses.replace(recipe.sgd, **given(sgd))}
    return dataclasses.replace(recipe, **given(changes))


def given(changes: dict[str, Any]) -> dict[str, Any]:
    """What the user did name."""
    return {key: value for key, value in changes.items() if value is not None}


def unasked(ready: job.Job, options: argparse.Namespace) -> bool:
    """Whether the quick recipe was our choice."""
    return options.recipe is None and ready.recipe.name == QUICK.name and not options.resume


def announce(ready: job.Job, options: argparse.Namespace, display: progress.TrainingDisplay) -> None:
    """What will be done."""
    if display.quiet:
        return
    if ready.is_over:
        longer = (f"start a new run from its weights (--weights {ready.run.folder / WEIGHTS})" if ready.recipe.annealed
                  else "prolong it with more --epochs")
        display.line(f"{ready.run.folder}: finished after epoch {ready.recipe.epochs}, nothing is left to train; "
                     f"{longer}")
        return
    display.line(f"{ready.data.origin}: {describe(ready.recipe)}")
    if unasked(ready, options):
        display.line("on a CPU, so taking --recipe quick (the chapter's own, made for a GPU: --recipe book)")
    display.line(f"run folder: {ready.run.folder}")
    if ready.start:
        display.line(f"going on after step {ready.start.position.number}, from {ready.run.last_checkpoint}")


def watcher(ready: job.Job, options: argparse.Namespace,
            display: progress.TrainingDisplay) -> Callable[[loop.Progress], None]:
    """What shows the progress; where the quick recipe was our choice, it says how long the book's would take here."""
    told = display.quiet or not unasked(ready, options)

    def on_progress(now: loop.Progress) -> None:
        nonlocal told
        if not told and now.step >= 4:
            told = True
            images = BOOK.epochs * len(ready.data.train)
            display.line(f"at {now.images_per_second:.1f} images/s, as these steps show, --recipe book would take "
                         f"about {output.duration(images / now.images_per_second)} here, evaluation left out")
        display.progress(now)
    return on_progress


def report(ready: job.Job, backend: Backend, result: loop.Result, options: argparse.Namespace) -> dict[str, Any]:
    """The training as JSON values."""
    model = ready.model
    return {"backend": backend.name, "versions": backend.versions(), "settings": backend.settings(),
            "device": model.device, "precision": find_precision(backend, model.device, options.precision),
            "without": switched(options, False), "also": switched(options, True),
            "network": spec.as_dict(model.network), "spec_sha256": spec.fingerprint(model.network),
            "data": ready.data.origin, "seed": options.seed, "recipe": dataclasses.asdict(ready.recipe),
            "run": str(ready.run.folder), "epochs": [dataclasses.asdict(epoch) for epoch in result.epochs],
            "losses": result.losses, "images_timed": result.images, "seconds": result.seconds,
            "images_per_second": result.images_per_second}
