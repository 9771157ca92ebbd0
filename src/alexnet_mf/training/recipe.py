"""How long, on what and how fast to learn."""

from __future__ import annotations

from dataclasses import dataclass, replace

from alexnet_mf.backends.contract import Sgd
from alexnet_mf.data import augmentation
from alexnet_mf.errors import AlexnetMfError
from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.zoo import ALEXNET

LARGEST = 3.4e38
"""What float32 can hold: PyTorch and MXNet refuse a larger rate in the middle of a training."""


ANNEALING = 0.2
"""What is left of the learning rate in the last part of an annealed training."""


@dataclass(frozen=True)
class Recipe:
    """A training: epochs over images in batches, with SGD on the mean softmax cross entropy."""

    name: str
    epochs: int
    batch_size: int
    sgd: Sgd
    train_images: int | None = None
    """The first so many training images; all without it."""
    test_images: int | None = None
    annealed: float = 0.0
    """The share of all steps, at the end, that take `ANNEALING` times the learning rate, their momentum from zero."""

    augment: tuple[str, ...] = ()
    """What is done to the training images: names of `augmentation.KINDS`, in their order."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "augment", augmentation.check(self.augment))  # a list, where it was read from JSON
        if not isinstance(self.name, str):
            raise AlexnetMfError(f"the name must be a text, not {self.name!r}")
        for field, value, needed in (("epochs", self.epochs, True), ("batch size", self.batch_size, True),
                                     ("number of training images", self.train_images, False),
                                     ("number of test images", self.test_images, False)):
            if value is None and not needed:
                continue
            if not isinstance(value, int):
                raise AlexnetMfError(f"the {field} must be a whole number, not {value!r}")
            if value < 1:
                raise AlexnetMfError(f"the {field} must be at least 1, not {value}")
        for field, number in (("learning rate", self.sgd.learning_rate), ("momentum", self.sgd.momentum),
                              ("weight decay", self.sgd.weight_decay)):
            if not isinstance(number, (int, float)) or not 0 <= number <= LARGEST:
                raise AlexnetMfError(f"the {field} must be a number from 0 to {LARGEST:g}, not {number}")
        if not isinstance(self.annealed, (int, float)) or not 0 <= self.annealed <= 1:
            raise AlexnetMfError(f"the annealed share must be a number from 0 to 1, not {self.annealed!r}")
        if self.sgd.momentum >= 1:
            raise AlexnetMfError(f"the momentum must be below 1, not {self.sgd.momentum}")

    def annealed_from(self, steps: int) -> int:
        """The number of steps taken before the annealed part begins, `steps` an epoch."""
        return self.epochs * steps - int(self.annealed * self.epochs * steps)

    @property
    def annealed_sgd(self) -> Sgd:
        """SGD in the last part."""
        return replace(self.sgd, learning_rate=ANNEALING * self.sgd.learning_rate)


# Dive into Deep Learning, sections 8.1.3 and 7.6 (the trainer): all images, 10 epochs, batch 128, lr 0.01.
BOOK = Recipe("book", epochs=10, batch_size=128, sgd=Sgd(learning_rate=0.01))

# For two CPU cores, where BOOK takes hours. What counts in so short a training is the number of steps: batches of 16
# learn more from as many images than batches of 32. Momentum ends the plateau at the start within some 60 steps. At a
# constant rate the accuracy still jumps by several points from step to step at the end; a smaller one there settles it.
QUICK = Recipe("quick", epochs=1, batch_size=16, sgd=Sgd(learning_rate=0.02, momentum=0.9), train_images=3840,
               test_images=1000, annealed=0.2)

RECIPES = {recipe.name: recipe for recipe in (BOOK, QUICK)}

ALL_IMAGES = 60_000
"""Fashion-MNIST's training images."""


def for_network(recipe: Recipe, network: Network) -> Recipe:
    """The recipe as this network asks for it.

    A learning rate of the network's own is one of plain SGD with large batches, as in `BOOK`, and takes the place of
    the recipe's. What makes `QUICK` quick is that it costs no more multiply-accumulates than AlexNet on 3,840 images.
    Where as much is enough for whole epochs of `BOOK`, it is so many of these, and where it is enough for all of them,
    it is `BOOK`. Where it is not, the rate rises from the network's own as AlexNet's does.
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
    return replace(QUICK, sgd=replace(QUICK.sgd, learning_rate=QUICK.sgd.learning_rate * rate / BOOK.sgd.learning_rate))
