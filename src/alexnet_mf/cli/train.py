"""`train`: the layer table, then the training. The main job."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from alexnet_mf import backends, parameters, spec
from alexnet_mf.backends.base import Backend, find_precision
from alexnet_mf.cli import output
from alexnet_mf.cli.arguments import (
    add_execution,
    add_json,
    add_network,
    add_source,
    check_takes_grey_images,
    execution,
    switched,
)
from alexnet_mf.data import Dataset, load
from alexnet_mf.errors import BackendUnavailable
from alexnet_mf.specfile import find_network
from alexnet_mf.training import loop
from alexnet_mf.training.recipe import BOOK, QUICK, RECIPES, Recipe, for_network

FRAMEWORKS = ("torch", "tensorflow", "mxnet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    name = options.backend or first_installed()
    recipe = with_options(BOOK, options)  # wrong numbers are told before anything slow
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
    if not options.quiet and options.json != "-":
        versions = " ".join(f"{library} {version}" for library, version in backend.versions().items())
        output.layer_table(model.describe(), f"{network.name} in {versions} on {model.device}")
        output.say()
    data, why = load(options.data, options.data_dir, progress=output.DownloadDisplay("Fashion-MNIST"))
    if why:
        output.notice(why)
    result = train(model, data, recipe, options)
    if options.save_weights:
        parameters.save(options.save_weights, model.export(), {"network": spec.as_dict(network), "seed": options.seed})
    if options.json:
        output.write_json(options.json, report(backend, model.device, network, data, recipe, result, options))
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


def train(model: Any, data: Dataset, recipe: Recipe, options: argparse.Namespace) -> loop.Result:
    """Train with a display; where the quick recipe was our choice, say so, and how long the book's would take here."""
    quiet = options.quiet or options.json == "-"
    unasked = options.recipe is None and recipe.name == "quick"
    told = not unasked
    with output.TrainingDisplay(quiet) as display:
        if not quiet:
            display.line(f"{data.origin}: {describe(recipe)}")
            if unasked:
                display.line("on a CPU, so taking --recipe quick (the chapter's own, made for a GPU: --recipe book)")

        def on_progress(now: loop.Progress) -> None:
            nonlocal told
            if not told and now.step >= 4:
                told = True
                images = BOOK.epochs * len(data.train)
                display.line(f"at {now.images_per_second:.1f} images/s, as these steps show, --recipe book would take "
                             f"about {output.duration(images / now.images_per_second)} here, evaluation left out")
            display.progress(now)

        return loop.train(model, data.train, data.test, recipe, options.seed,
                          on_progress if not quiet else lambda now: None,
                          lambda done: display.epoch(done, recipe.epochs))


def report(backend: Backend, device: str, network: spec.Network, data: Dataset, recipe: Recipe, result: loop.Result,
           options: argparse.Namespace) -> dict[str, Any]:
    """The training as JSON values."""
    return {"backend": backend.name, "versions": backend.versions(), "settings": backend.settings(), "device": device,
            "precision": find_precision(backend, device, options.precision),
            "without": switched(options, False), "also": switched(options, True),
            "network": spec.as_dict(network), "spec_sha256": spec.digest(network), "data": data.origin,
            "seed": options.seed, "recipe": dataclasses.asdict(recipe),
            "epochs": [dataclasses.asdict(epoch) for epoch in result.epochs], "losses": result.losses,
            "images_timed": result.images, "seconds": result.seconds, "images_per_second": result.images_per_second}
