"""The question that every backend is asked: one network, its parameters, and a few labelled inputs."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import data
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.data.preprocessing import upsampling_factor
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Network
from alexnet_mf.weights import parameters
from alexnet_mf.weights.parameters import Parameters


@dataclass(frozen=True, eq=False)
class Case:
    """A network, a seed and labelled inputs, and how much is asked of them.

    The first `batch` inputs go through every layer and back; `steps` SGD steps take the following batches in turn, and
    `continued` further steps those after them; every input is classified. Momentum and weight decay are large enough
    that a wrong rule shows within a few steps.
    """

    network: Network
    seed: int
    inputs: NDArray[Any]
    """uint8 grey images (n, height, width), or float32 (n, channels, height, width)."""
    labels: NDArray[np.int64]
    origin: str
    batch: int = 4
    steps: int = 6
    continued: int = 2
    sgd: Sgd = field(default=Sgd(learning_rate=0.01, momentum=0.9, weight_decay=0.01))

    def __post_init__(self) -> None:
        needed = self.batch * (1 + self.steps + self.continued)
        if len(self.inputs) < needed:
            raise DataError(f"batches of {self.batch} for {self.steps} steps take {needed} images, and there are "
                            f"{len(self.inputs)}: take more `images`, or a smaller `batch_size` or `steps`")

    def parameters(self) -> Parameters:
        """The parameters that every backend starts from; no bias is zero, so that none can be lost unseen."""
        return dict(_parameters(self.network, self.seed))

    def rows(self, step: int) -> NDArray[np.int64]:
        """The inputs of one SGD step, counted from 0."""
        return np.arange(self.batch * (step + 1), self.batch * (step + 2))

    def digest(self) -> str:
        """SHA-256 of all that must be the same in two traces, the network apart."""
        total = hashlib.sha256(repr((self.seed, self.batch, self.steps, self.continued, self.sgd)).encode())
        for array in (self.inputs, self.labels):
            total.update(f"{array.dtype.str} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()


@functools.lru_cache(maxsize=1)  # asked for a dozen times in a comparison, and half a second to draw
def _parameters(network: Network, seed: int) -> Parameters:
    drawn = parameters.initialise(network, seed, random_biases=True)
    for value in drawn.values():
        value.setflags(write=False)
    return drawn


def make_case(network: Network, seed: int, data_name: data.DatasetName = "auto", data_dir: Path | None = None,
              count: int = 64, **options: Any) -> tuple[Case, str | None]:
    """A case of `count` test images, and a line to show where they are not those hoped for.

    Which images is NumPy's choice, by the seed. A network that 28x28 images cannot be upsampled to gets seeded normal
    float32 inputs instead.

    Args:
        options: fields of `Case`.
    """
    try:
        upsampling_factor((28, 28), network)
    except DataError:
        return random_case(network, seed, count, **options), None
    dataset, notice = data.load(data_name, data_dir)
    chosen = data.epoch_order(len(dataset.test), seed, 0)[:count]
    images, labels = dataset.test.images[chosen], dataset.test.labels[chosen]
    return Case(network, seed, images, labels, dataset.name, **options), notice


def random_case(network: Network, seed: int, count: int = 64, **options: Any) -> Case:
    """A case of standard normal float32 inputs and random labels, from the seed."""
    stream = np.random.default_rng(seed)
    inputs = stream.standard_normal((count, *network.input), dtype=np.float32)
    return Case(network, seed, inputs, stream.integers(0, network.classes, count), "random", **options)
