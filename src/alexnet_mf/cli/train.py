"""`train`: print the layer table, then train."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import Any

from alexnet_mf import api, backends, spec
from alexnet_mf.cli import arguments, output, signals
from alexnet_mf.cli.flags import add_schema, resume_command
from alexnet_mf.conversion import FORMATS
from alexnet_mf.errors import AlexnetMfError
from alexnet_mf.instruments.records import json_schema, plain
from alexnet_mf.instruments.units import duration
from alexnet_mf.models import LoadedModel
from alexnet_mf.training.display import TrainingDisplay
from alexnet_mf.training.loop import Progress
from alexnet_mf.training.recipe import BOOK, QUICK, RECIPES
from alexnet_mf.training.record import RunRecord
from alexnet_mf.training.run import CHECKPOINT_MINUTES, TrainedRun, Training
from alexnet_mf.weights import parameters
from alexnet_mf.weights.recognition import CANONICAL

RECIPE_FLAGS = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "augment", "train_images",
                "test_images")
RUN_FLAGS = ("net", "recipe", "dropout", "weights", "which", "seed")
"""Flags that define a run; a resumed run has its own values."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add = parser.add_argument
    add("--backend", choices=list(backends.BACKENDS), help="framework (default: the first installed of "
        f"{', '.join(backends.FRAMEWORKS)})")
    arguments.add_network(parser, default=None, meaning="the network that --weights names, else alexnet")
    arguments.add_execution(parser)
    recipes = (f"book: {BOOK.describe()}; quick: {QUICK.describe()}; for small "
               "networks quick is book with fewer epochs, at the same cost as alexnet; some networks have their own "
               "learning rate")
    recipes = recipes.replace("%", "%%")
    add("--recipe", choices=list(RECIPES), help=f"{recipes} (default: book on a GPU, quick on a CPU)")
    add("--epochs", type=arguments.at_least_one, help="passes over the training images (default: the recipe's)")
    add("--batch-size", type=arguments.at_least_one, help="images per step (default: the recipe's)")
    add("--lr", type=float, dest="learning_rate", help="learning rate of SGD (default: the recipe's)")
    add("--momentum", type=float, help="momentum of SGD, at least 0 and less than 1 (default: the recipe's)")
    add("--weight-decay", type=float, help="L2 penalty, added to the gradient (default: the recipe's, 0)")
    add("--dropout", type=float,
        help="rate of every dropout layer, at least 0 and less than 1 (default: the network's)")
    arguments.add_augment(parser)
    arguments.add_source(parser)
    arguments.add_classes(parser)
    add("--limit-train", type=arguments.at_least_one, dest="train_images", metavar="N",
        help="only N training images, chosen at random by the seed (default: the recipe's)")
    add("--limit-test", type=arguments.at_least_one, dest="test_images", metavar="N",
        help="only N test images, chosen at random but the same for every seed (default: the recipe's)")
    add("--weights", type=Path, metavar="RUN|WEIGHTS",
        help="start from the weights of this run folder, or from a file of any format that `convert` reads "
             "(default: drawn from the seed)")
    arguments.add_which(parser)
    add("--out", type=Path, metavar="FOLDER", help="run folder, new or empty (default: runs/DATE-TIME-BACKEND-NET)")
    add("--resume", type=Path, metavar="RUN",
        help="resume the run in this folder from its last good checkpoint, with its own settings. A larger --epochs "
             "prolongs the run; another --backend continues from its weights (default: a new run)")
    add("--checkpoint-minutes", type=arguments.positive, default=CHECKPOINT_MINUTES, metavar="MINUTES",
        help="minutes between two checkpoints within an epoch, besides the one after each epoch (default: "
             f"{CHECKPOINT_MINUTES:g})")
    add("--tensorboard", action="store_true", help="also write TensorBoard events into the run folder")
    add("--save-weights", type=Path, metavar="FILE",
        help="write the trained weights to a new file, as canonical safetensors")
    arguments.add_json(parser)
    add_schema(parser, lambda: json_schema(RunRecord), "run.json")
    add("--quiet", action="store_true", help="print only the two closing lines")


def run(options: argparse.Namespace) -> int:
    """Train or resume, and return the exit code."""
    if options.save_weights:
        check_destination(options.save_weights)
    display = Display(options)
    common: dict[str, Any] = {
        "checkpoint_minutes": options.checkpoint_minutes, "tensorboard": options.tensorboard, "progress": display,
        "command": options.command}
    if options.resume:
        flags = arguments.flags_on_line(add_arguments, options.command[2:])
        expected = {name: flags[name] for name in (*RECIPE_FLAGS, *RUN_FLAGS, "out")
                    if name in flags and name != "epochs"}
        options.data = flags.get("data")
        done = api.resume(options.resume, options.epochs, options.backend, device=options.device,
                          execution=arguments.execution(options),
                          data=arguments.data_source(options, options.resume), **common, **expected)
    else:
        done = api.train(options.net, options.backend, recipe=options.recipe, dropout=options.dropout,
                         weights=options.weights, which=options.which, seed=options.seed, device=options.device,
                         execution=arguments.execution(options), data=arguments.data_source(options) or "auto",
                         out=options.out, **common, **{name: getattr(options, name) for name in RECIPE_FLAGS})
    assert done.result is not None
    if not done.result.finished:
        assert display.stop.signal is not None
        name = signals.NAMES[signal.Signals(display.stop.signal)]
        output.notice(f"alexnet-mf: stopped by {name} after {len(done.result.losses)} steps; resume with: "
                      f"{resume_command(done.folder)}")
        return 128 + display.stop.signal
    if options.save_weights:
        parameters.save(options.save_weights, done.parameters(),
                        {"network": spec.as_dict(done.network), "seed": done.seed})
    if options.json:
        output.write_json(options.json, as_json(done))
    if options.json != "-":
        output.say(done.epochs[-1].describe())
        output.say(f"{done.result.images_per_second:.1f} examples/sec on {done.session.device}")
    return 0


def check_destination(path: Path) -> None:
    """Check that a weights file is new, and that its name has no ending of another format than canonical safetensors.

    Raises:
        AlexnetMfError: if not; names the command that writes the other format.
    """
    if path.is_file():
        raise AlexnetMfError(f"{path}: exists; name another file with --save-weights")
    for name, other in FORMATS.items():
        if name != CANONICAL and path.name.endswith(other.suffixes):
            raise AlexnetMfError(f"--save-weights writes {CANONICAL}, but {path} has the ending of {name}; convert "
                                 f"after the training: alexnet-mf convert RUN {path}")


class Display(TrainingDisplay):
    """Terminal display of a training: layer table, recipe and progress. Signals stop the training."""

    def __init__(self, options: argparse.Namespace):
        super().__init__(options.quiet or options.json == "-")
        self.stop = signals.Stop(
            lambda name: self.warn(f"{name}: finishing this step and saving; a second signal stops at once"))
        self._options = options
        self._images = 0
        """Images that the book's recipe trains on; 0 once the display has shown its duration."""

    def __enter__(self) -> Display:
        super().__enter__()
        self.stop.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.stop.__exit__(*error)
        finally:
            super().__exit__(*error)

    def should_stop(self) -> bool:
        """Return True after the first signal."""
        return self.stop()

    def built(self, loaded: LoadedModel) -> None:
        """Print the layer table."""
        if not self.quiet:
            output.layer_table(loaded.model.describe(), loaded.title())
            output.say()

    def begin(self, training: Training) -> None:
        """Print dataset, recipe and run folder, or a line if nothing is left to train."""
        if self.quiet:
            return
        if training.is_finished:
            path = training.folder.path
            longer = (f"start a new run from its weights (--weights {path})" if training.recipe.annealed
                      else "prolong it with more --epochs")
            self.line(f"{path}: finished after epoch {training.recipe.epochs}, nothing left to train; {longer}")
            return
        super().begin(training)
        if training.start:
            self.line(f"resuming after step {training.steps_taken}, from {training.folder.last_checkpoint}")
        elif self._options.recipe is None and training.recipe.name == QUICK.name:
            self.line("recipe quick, since this is a CPU (the book's recipe, for a GPU: --recipe book)")
            self._images = BOOK.epochs * len(training.data.train)

    def progress(self, now: Progress) -> None:
        """Show the progress, and once how long the book's recipe would take if the quick one was chosen by default."""
        if self._images and now.step >= 4:
            self.line(f"at {now.images_per_second:.1f} images/s, --recipe book would take about "
                      f"{duration(self._images / now.images_per_second)} here, without evaluation")
            self._images = 0
        super().progress(now)


def as_json(done: TrainedRun) -> dict[str, Any]:
    """Return the training as JSON values, with the conditions of its last session."""
    assert done.result is not None
    run = done.record
    return {**plain(done.session), "network": run.network, "spec_sha256": run.spec_sha256, "data": run.data,
            "seed": run.seed, "recipe": plain(run.recipe), "run": str(done.folder), **done.result.as_dict()}
