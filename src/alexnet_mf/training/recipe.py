"""Recipes: number of epochs and images, batch size and optimizer of a training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any

from alexnet_mf.backends.contract import Sgd
from alexnet_mf.checks import check_integer, check_number
from alexnet_mf.data import Dataset, augmentation
from alexnet_mf.errors import AlexnetMfError
from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.zoo import ALEXNET

LARGEST = 3.4e38
"""Largest float32: PyTorch and MXNet refuse a larger rate in the middle of a training."""

ANNEALING = 0.2
"""Factor of the learning rate in the last part of an annealed training."""


@dataclass(frozen=True)
class Recipe:
    """Epochs, images, batch size and optimizer of a training: SGD on the mean softmax cross entropy.

    `recipe.with_changes(epochs=2, learning_rate=0.1)` is the same recipe with other values.
    """

    name: str
    epochs: int
    batch_size: int
    sgd: Sgd
    train_images: int | None = None
    """Number of training images, the first of the dataset; None for all."""
    test_images: int | None = None
    annealed: float = 0.0
    """Share of all steps, at the end, with `ANNEALING` times the learning rate. Their momentum starts from zero."""
    augment: tuple[str, ...] = ()
    """Changes to the training images: names of `augmentation.KINDS`, in their order."""
    held_out: int = 0
    """Number of training images, the last of the dataset, to test on instead of training on them. A choice by their
    accuracy leaves the dataset's own test images unseen."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise AlexnetMfError(f"the name of a recipe must be a string, not {self.name!r}")
        if not isinstance(self.augment, (list, tuple)):  # a list if it was read from JSON
            raise AlexnetMfError(f"`augment` must be a list of names, not {self.augment!r}")
        checked: dict[str, Any] = {"augment": augmentation.check(self.augment),
                                   "held_out": check_integer("held_out", self.held_out, 0)}
        for field in ("epochs", "batch_size", "train_images", "test_images"):
            if getattr(self, field) is not None or not field.endswith("_images"):
                checked[field] = check_integer(field, getattr(self, field))
        checked["annealed"] = check_number("annealed", self.annealed, 0, 1)
        checked["sgd"] = Sgd(**{field: check_number(field, number, 0, LARGEST)
                                for field, number in dataclasses.asdict(self.sgd).items()})
        for field, value in checked.items():
            object.__setattr__(self, field, value)
        if self.sgd.momentum >= 1:
            raise AlexnetMfError(f"`momentum` must be less than 1, not {self.sgd.momentum}")

    def with_changes(self, **changes: Any) -> Recipe:
        """Return the recipe with other values of its fields, or of the fields of its `sgd`. None changes nothing.

        Raises:
            AlexnetMfError: for an unknown field, or a value out of range.
        """
        for name in changes:
            if name not in CHANGES:
                raise AlexnetMfError(f"unexpected argument `{name}`; a recipe has {', '.join(CHANGES)}")
        values = {name: value for name, value in changes.items() if value is not None}
        sgd = {name: values.pop(name) for name in SGD_FIELDS if name in values}
        return replace(self, **values, sgd=replace(self.sgd, **sgd))

    def fitted(self, data: Dataset) -> Recipe:
        """Return the recipe with all images in place of a limit that is larger than the dataset."""
        return replace(self, train_images=None if (self.train_images or 0) > len(data.train) else self.train_images,
                       test_images=None if (self.test_images or 0) > len(data.test) else self.test_images)

    def describe(self) -> str:
        """Return the recipe in a phrase."""
        images = f"{self.train_images:,}" if self.train_images else "all"
        annealed = (f" ({self.annealed_sgd.learning_rate:g} in the last {self.annealed:.0%} of the steps)"
                    if self.annealed else "")
        parts = [f"{self.epochs} epoch{'s' * (self.epochs > 1)} of {images} images", f"batch {self.batch_size}",
                 f"lr {self.sgd.learning_rate:g}{annealed}"]
        parts += [f"momentum {self.sgd.momentum:g}"] * bool(self.sgd.momentum)
        parts += [f"weight decay {self.sgd.weight_decay:g}"] * bool(self.sgd.weight_decay)
        parts += [f"augmented by {', '.join(self.augment)}"] * bool(self.augment)
        parts += [f"tested on the last {self.held_out:,} training images"] * bool(self.held_out)
        return ", ".join(parts)

    def steps(self, images: int) -> int:
        """Return the number of steps in an epoch of this many training images."""
        return -(-images // self.batch_size)

    def annealed_from(self, steps: int) -> int:
        """Return the number of steps before the annealed part begins, with `steps` steps per epoch."""
        return self.epochs * steps - int(self.annealed * self.epochs * steps)

    @property
    def annealed_sgd(self) -> Sgd:
        """Return the SGD of the last part."""
        return replace(self.sgd, learning_rate=ANNEALING * self.sgd.learning_rate)


SGD_FIELDS = tuple(field.name for field in dataclasses.fields(Sgd))
CHANGES = (*(field.name for field in dataclasses.fields(Recipe) if field.name not in ("name", "sgd")), *SGD_FIELDS)
"""The names that `Recipe.with_changes` takes."""

# Dive into Deep Learning, sections 8.1.3 and 7.6 (the trainer): all images, 10 epochs, batch 128, lr 0.01.
BOOK = Recipe("book", epochs=10, batch_size=128, sgd=Sgd(learning_rate=0.01))

# For two CPU cores, where BOOK takes hours. What counts in so short a training is the number of steps: batches of 16
# learn more from as many images than batches of 32. Momentum ends the plateau at the start within some 60 steps. At a
# constant rate the accuracy still jumps by several points from step to step at the end; a smaller one there settles it.
QUICK = Recipe("quick", epochs=1, batch_size=16, sgd=Sgd(learning_rate=0.02, momentum=0.9), train_images=3840,
               test_images=1000, annealed=0.2)

RECIPES = {recipe.name: recipe for recipe in (BOOK, QUICK)}

PAPERS_AUGMENTATION = ("flip", "crop")
"""Augmentation of pictures that are larger than the network's input, without `augment` (Krizhevsky et al. 2012, section
4.1)."""

ALL_IMAGES = 60_000
"""Number of Fashion-MNIST's training images."""


def choose_recipe(name: str | None, network: Network, device: str, images: int | None = None) -> Recipe:
    """Return the named recipe as the network needs it; without a name `quick` on a CPU, `book` on a GPU.

    Args:
        images: number of training images of a set of the user's own.

    Raises:
        AlexnetMfError: for an unknown name.
    """
    if name is None:
        return for_network(QUICK if device == "cpu" else BOOK, network, images)
    if not isinstance(name, str) or name not in RECIPES:
        raise AlexnetMfError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return for_network(RECIPES[name], network, images)


def for_network(recipe: Recipe, network: Network, images: int | None = None) -> Recipe:
    """Return the recipe as this network needs it.

    A network's own learning rate is meant for plain SGD with large batches, as in `BOOK`, and replaces the recipe's.
    `QUICK` costs no more multiply-accumulates than AlexNet on 3,840 images. If this budget covers whole epochs of
    `BOOK`, `QUICK` is that number of epochs; if it covers all of them, `QUICK` is `BOOK`. If it covers none, the
    network's own rate is raised by the same factor as AlexNet's; of a set of the user's own that has fewer than 3,840
    images it is several epochs, at most as many as `BOOK`.
    """
    rate = network.learning_rate or BOOK.sgd.learning_rate
    book = replace(BOOK, sgd=replace(BOOK.sgd, learning_rate=rate))
    if recipe.name != QUICK.name:
        return book
    assert QUICK.train_images is not None
    budget = QUICK.train_images * sum(arithmetic.training_macs(ALEXNET).values())
    epochs = budget // (ALL_IMAGES * sum(arithmetic.training_macs(network).values()))
    if epochs >= BOOK.epochs:
        return book
    if epochs >= 1:
        return replace(book, name=QUICK.name, epochs=epochs)
    sgd = replace(QUICK.sgd, learning_rate=QUICK.sgd.learning_rate * rate / BOOK.sgd.learning_rate)
    repeated = max(1, min(BOOK.epochs, QUICK.train_images // max(1, images or QUICK.train_images)))
    return replace(QUICK, epochs=repeated, sgd=sgd)
