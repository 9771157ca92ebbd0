"""A parity case: the network, parameters and labeled inputs that every backend computes."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import data, datasets
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.data import DataSource
from alexnet_mf.data.preprocessing import enlarged, upsampling_factor
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Network
from alexnet_mf.weights import parameters
from alexnet_mf.weights.parameters import Parameters


@dataclass(frozen=True, eq=False)
class Case:
    """A network, a seed, labeled inputs, and the amount of work.

    The first `batch` inputs pass through every layer forward and backward. The next batches serve `steps` SGD steps,
    and the ones after those `continued` further steps. All inputs are classified. Momentum and weight decay are large
    enough that a wrong update rule shows within a few steps.
    """

    network: Network
    seed: int
    inputs: NDArray[Any]
    """uint8 levels (n, height, width) or (n, height, width, channels), or float32 (n, channels, height, width)."""
    labels: NDArray[np.int64]
    origin: str
    batch: int = 4
    steps: int = 6
    continued: int = 2
    sgd: Sgd = field(default=Sgd(learning_rate=0.01, momentum=0.9, weight_decay=0.01))

    def __post_init__(self) -> None:
        needed = self.batch * (1 + self.steps + self.continued)
        if len(self.inputs) < needed:
            raise DataError(f"{1 + self.steps + self.continued} batches of {self.batch} (layers, {self.steps} steps, "
                            f"{self.continued} continued steps) need {needed} images, but there are "
                            f"{len(self.inputs)}; use more `images`, or a smaller `batch_size` or `steps`")

    def parameters(self) -> Parameters:
        """Return the initial parameters of every backend. No bias is zero, so a lost bias is detected."""
        return dict(_parameters(self.network, self.seed))

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of the inputs in one SGD step, counted from 0."""
        return np.arange(self.batch * (step + 1), self.batch * (step + 2))

    def digest(self) -> str:
        """Return the SHA-256 of everything that two traces must share, except the network."""
        total = hashlib.sha256(repr((self.seed, self.batch, self.steps, self.continued, self.sgd)).encode())
        for array in (self.inputs, self.labels):
            total.update(f"{array.dtype.str} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()


@functools.lru_cache(maxsize=1)  # a comparison needs them a dozen times, drawing takes half a second
def _parameters(network: Network, seed: int) -> Parameters:
    drawn = parameters.initialize(network, seed, random_biases=True)
    for value in drawn.values():
        value.setflags(write=False)
    return drawn


def make_case(network: Network, seed: int, source: DataSource, count: int = 64, **options: Any) -> Case:
    """Return a case of `count` test images.

    NumPy chooses the images by the seed. A network for which a built-in dataset's images cannot be enlarged exactly
    gets seeded normal float32 inputs instead. Images of the user's own give the network their classes and channels.

    Args:
        options: fields of `Case`.

    Raises:
        DataError: if the images cannot be read, or are fewer.
    """
    if source.is_built_in and (network.input[0] != 1 or upsampling_factor((28, 28), network) is None):
        return random_case(network, seed, count, **options)
    opened = datasets.open_source(source, quiet=True)
    if not source.is_built_in:
        network = datasets.adapted(network, opened)
    images = datasets.prepare(opened, datasets.choose(opened, network), source, quiet=True, parts=("test",))
    if count > len(images.test):
        raise DataError(f"{images.origin}: has {len(images.test):,} test images, not {count:,}; use a smaller `images`")
    chosen = data.epoch_order(len(images.test), seed, 0)[:count]
    levels = np.stack([images.test.images[row] for row in chosen.tolist()])
    return Case(network, seed, enlarged(levels, network), images.test.labels[chosen] % network.classes,
                images.name if source.is_built_in else images.origin, **options)


def random_case(network: Network, seed: int, count: int = 64, **options: Any) -> Case:
    """Return a case of standard normal float32 inputs and random labels, drawn from the seed."""
    stream = np.random.default_rng(seed)
    inputs = stream.standard_normal((count, *network.input), dtype=np.float32)
    return Case(network, seed, inputs, stream.integers(0, network.classes, count), "random", **options)
