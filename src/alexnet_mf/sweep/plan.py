"""The plan of a sweep: what to train."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

from msgspec import Struct, field

from alexnet_mf.backends.contract import Sgd
from alexnet_mf.errors import SweepError
from alexnet_mf.instruments.records import Amount, AtLeastOne, Count
from alexnet_mf.spec import Network
from alexnet_mf.training.recipe import BOOK, Recipe, for_network


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
    """Training images that it does not see and is tested on; 0 for one that counts, which is tested on the test
    images."""

    @property
    def setup(self) -> Setup:
        return Setup(self.net, self.augment, self.batch_size)


class Plan(Struct, frozen=True, forbid_unknown_fields=True, repr_omit_defaults=True):
    """Every network with every augmentation, in every batch size, with every seed.

    The recipe is the chapter's, with a learning rate of the network's own where it has one. Of a network with several
    learning rates each is tried first, with the first seed, on all training images but the last `held_out`; the one
    with the best accuracy on those is taken. The test images have no part in it.
    """

    backend: str
    nets: tuple[str, ...] = ("alexnet",)
    seeds: tuple[Count, ...] = (0,)
    batch_sizes: tuple[int, ...] = (BOOK.batch_size,)
    augments: tuple[tuple[str, ...], ...] = ((),)
    epochs: int = BOOK.epochs
    learning_rates: tuple[float, ...] = ()
    """One for all, or several to choose from; without any, each network's own."""
    learning_rates_of: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """The same for single networks, by name; those that are not in it take `learning_rates`."""
    held_out: Count = 0
    choosing_epochs: Count = 0
    """Epochs of a training that tries a learning rate; 0 for as many as all others have."""
    train_images: int | None = None
    test_images: int | None = None
    device: str = "auto"
    precision: str | None = None
    without: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    momentum: float = 0.0
    """Momentum of all trainings. The chapter's SGD has none."""

    def __post_init__(self) -> None:
        for what, values in (("network", self.nets), ("seed", self.seeds), ("batch size", self.batch_sizes),
                             ("augmentation", self.augments)):
            if not values or len(set(values)) != len(values):
                raise SweepError(f"each {what} is to be named once, and at least one")
        for net in self.learning_rates_of:
            if net not in self.nets:
                raise SweepError(f"a learning rate is named for {net}, which takes no part; the networks are "
                                 f"{', '.join(self.nets)} (`nets`)")
        if self.chooses and not self.held_out:
            raise SweepError("a learning rate is chosen on images that are held out of the training, never on the test "
                             "images: say how many in `held_out` (5000, say), or name one learning rate "
                             "(`learning_rates`)")
        if not self.chooses and (self.held_out or self.choosing_epochs):
            raise SweepError("`held_out` and `choosing_epochs` are for the choice among several learning rates "
                             "(`learning_rates`)")
        given = {setup: next(iter(self.rates_of(setup.net)), 0.0) for setup in self.setups()}
        for training in [*self.choices(), *self.trainings(given)]:
            self.recipe(training)  # refuses wrong numbers before anything slow

    def rates_of(self, net: str) -> tuple[float, ...]:
        """Return the learning rates to choose from for a network. One is no choice; none means the network's own."""
        return self.learning_rates_of.get(net, self.learning_rates)

    @property
    def choosing(self) -> list[Setup]:
        """The setups whose learning rate is to be chosen."""
        return [setup for setup in self.setups() if len(self.rates_of(setup.net)) > 1]

    @property
    def chooses(self) -> bool:
        """True if a learning rate is to be chosen."""
        return bool(self.choosing)

    def setups(self) -> list[Setup]:
        """Return the setups, in the order of the tables."""
        return [Setup(*setup) for setup in itertools.product(self.nets, self.augments, self.batch_sizes)]

    def choices(self) -> list[Training]:
        """Return the trainings that try learning rates."""
        epochs = self.choosing_epochs or self.epochs
        return [Training(setup.net, setup.augment, setup.batch_size, rate, self.seeds[0], epochs, self.held_out)
                for setup in self.choosing for rate in self.rates_of(setup.net)]

    def rates(self, networks: Mapping[str, Network]) -> dict[Setup, float]:
        """Return the learning rates of the setups that need no choice.

        Args:
            networks: by the names in the plan.
        """
        return {setup: next(iter(self.rates_of(setup.net)), for_network(BOOK, networks[setup.net]).sgd.learning_rate)
                for setup in self.setups() if setup not in self.choosing}

    def trainings(self, rates: Mapping[Setup, float]) -> list[Training]:
        """Return the trainings that count, of setups whose learning rate is known, seed by seed."""
        return [Training(setup.net, setup.augment, setup.batch_size, rates[setup], seed, self.epochs, 0)
                for seed in self.seeds for setup in self.setups() if setup in rates]

    def recipe(self, training: Training) -> Recipe:
        """Return the recipe of a training.

        Raises:
            AlexnetMfError: if the numbers make no sense.
        """
        return replace(BOOK, epochs=training.epochs, batch_size=training.batch_size, augment=training.augment,
                       sgd=Sgd(training.learning_rate, self.momentum), train_images=self.train_images,
                       test_images=None if training.held_out else self.test_images)
