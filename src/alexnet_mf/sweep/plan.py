"""The plan of a sweep: what to train."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_type_hints

from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr

from alexnet_mf import backends
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.backends.execution import SPEED_SETTINGS
from alexnet_mf.checks import check_choice
from alexnet_mf.data import augmentation
from alexnet_mf.errors import SweepError
from alexnet_mf.instruments.records import Amount, AtLeastOne, Count, cut, parse, plain
from alexnet_mf.spec import Network
from alexnet_mf.training.recipe import BOOK, Recipe, for_network

NAME_LETTERS = 40
"""Most letters of a network's name in the name of a run folder."""
AtLeast1 = Meta(min_length=1)


class Setup(Struct, frozen=True):
    """A setup to compare. Each is trained with every seed."""

    net: str
    augment: tuple[str, ...]
    batch_size: int


class Training(Struct, frozen=True, forbid_unknown_fields=True):
    """One training."""

    net: str
    augment: tuple[str, ...]
    batch_size: AtLeastOne
    learning_rate: Amount
    seed: Count
    epochs: AtLeastOne
    held_out: Count
    """Number of training images to test on, which it does not train on; 0 for a final training, which uses the test
    images."""

    @property
    def setup(self) -> Setup:
        return Setup(self.net, self.augment, self.batch_size)


class Plan(Struct, frozen=True, forbid_unknown_fields=True, repr_omit_defaults=True):
    """Every network with every augmentation, in every batch size, with every seed.

    The recipe is the book's, with the network's own learning rate if it has one. If a network has several learning
    rates, each is tried first, with the first seed, on all training images but the last `held_out`. The final trainings
    use the rate with the best accuracy on those. The test images have no part in the choice.

    Raises:
        AlexnetMfError: if a value has the wrong type, is out of range or comes twice, or if two contradict each other.
    """

    backend: str
    nets: Annotated[tuple[str, ...], AtLeast1] = ("alexnet",)
    seeds: Annotated[tuple[Count, ...], AtLeast1] = (0,)
    batch_sizes: Annotated[tuple[int, ...], AtLeast1] = (BOOK.batch_size,)
    augments: Annotated[tuple[tuple[str, ...], ...], AtLeast1] = ((),)
    epochs: int = BOOK.epochs
    learning_rates: tuple[float, ...] = ()
    """One rate for all, or several to choose from; without any, each network's own rate."""
    learning_rates_of: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Rates of single networks, by name; the other networks use `learning_rates`."""
    held_out: Count = 0
    choosing_epochs: Count = 0
    """Epochs of a training that tries a learning rate; 0 means `epochs`."""
    train_images: int | None = None
    test_images: int | None = None
    device: str = "auto"
    precision: str | None = None
    speed: dict[str, bool] = field(default_factory=dict)
    """Speed settings to switch on or off, as in `Execution`."""
    momentum: float = 0.0
    """Momentum of all trainings. The chapter's SGD has none."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Plan, include_extras=True).items():
            value = getattr(self, name)
            try:
                typed = parse(plain(value), kind)
            except (ValueError, TypeError) as error:
                raise SweepError(f"`{name}` cannot be {cut(repr(value))}: {error}") from error
            if typed != value:  # lists for tuples
                force_setattr(self, name, typed)
        check_choice("backend", self.backend, backends.BACKENDS)
        for name in self.speed:
            check_choice("speed", name, SPEED_SETTINGS)
        for name in ("nets", "seeds", "batch_sizes", "augments", "learning_rates"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise SweepError(f"`{name}` has a value twice in {cut(repr(values))}; name each once")
        for net in self.learning_rates_of:
            if net not in self.nets:
                raise SweepError(f"{net} has learning rates, but is not trained; the networks are "
                                 f"{', '.join(self.nets)} (`nets`)")
        if self.choosing and not self.held_out:
            raise SweepError("the choice among several learning rates needs held-out training images; set their number "
                             "with `held_out` (5000, for instance), or name one learning rate (`learning_rates`)")
        if not self.choosing and (self.held_out or self.choosing_epochs):
            raise SweepError("`held_out` and `choosing_epochs` need several learning rates to choose from "
                             "(`learning_rates`)")
        first = {setup: next(iter(self.rates_of(setup.net)), 0.0) for setup in self.setups()}
        for training in [*self.choices(), *self.trainings(first)]:
            self.recipe(training)  # refuses wrong numbers before anything slow

    def rates_of(self, net: str) -> tuple[float, ...]:
        """Return a network's learning rates to choose from. One needs no choice; none means the network's own rate."""
        return self.learning_rates_of.get(net, self.learning_rates)

    @property
    def choosing(self) -> list[Setup]:
        """Return the setups with several learning rates to choose from."""
        return [setup for setup in self.setups() if len(self.rates_of(setup.net)) > 1]

    def setups(self) -> list[Setup]:
        """Return the setups, in the order of the tables."""
        return [Setup(*setup) for setup in itertools.product(self.nets, self.augments, self.batch_sizes)]

    def choices(self) -> list[Training]:
        """Return the trainings that try learning rates."""
        epochs = self.choosing_epochs or self.epochs
        return [Training(setup.net, setup.augment, setup.batch_size, rate, self.seeds[0], epochs, self.held_out)
                for setup in self.choosing for rate in self.rates_of(setup.net)]

    def rates(self, networks: Mapping[str, Network]) -> dict[Setup, float]:
        """Return the learning rate of each setup that needs no choice.

        Args:
            networks: networks by their names in the plan.
        """
        return {setup: next(iter(self.rates_of(setup.net)), for_network(BOOK, networks[setup.net]).sgd.learning_rate)
                for setup in self.setups() if setup not in self.choosing}

    def trainings(self, rates: Mapping[Setup, float]) -> list[Training]:
        """Return the final trainings, seed by seed, of the setups that have a learning rate in `rates`."""
        return [Training(setup.net, setup.augment, setup.batch_size, rates[setup], seed, self.epochs, 0)
                for seed in self.seeds for setup in self.setups() if setup in rates]

    def recipe(self, training: Training) -> Recipe:
        """Return the recipe of a training.

        Raises:
            AlexnetMfError: if a number is out of range.
        """
        return replace(BOOK, epochs=training.epochs, batch_size=training.batch_size, augment=training.augment,
                       sgd=Sgd(training.learning_rate, self.momentum), train_images=self.train_images,
                       test_images=None if training.held_out else self.test_images, held_out=training.held_out)

    def run_name(self, training: Training) -> str:
        """Return the name of a training's run folder: alexnet-28-torch-lr0.1-seed0.

        The name includes augmentation and batch size if the plan has several.
        """
        names = [re.sub(r"[^\w.-]", "_", Path(net).stem)[:NAME_LETTERS] for net in self.nets]
        place = self.nets.index(training.net)
        earlier = names[:place].count(names[place])
        parts = [f"{names[place]}-{earlier + 1}" if earlier else names[place], self.backend]
        parts += [augment_text(training.augment)] if len(self.augments) > 1 else []
        parts += [f"batch{training.batch_size}"] if len(self.batch_sizes) > 1 else []
        parts += [f"lr{training.learning_rate:.12g}", f"seed{training.seed}"]
        return "-".join(parts) + ("-held-out" if training.held_out else "")


def augment_text(kinds: tuple[str, ...]) -> str:
    """Return the augmentations as text: flip+crop."""
    return "+".join(kinds) or augmentation.NONE
