"""Capabilities of a backend beyond the contract: measurement by `bench`, and its framework's own weights files.

A backend declares a capability by inheriting from it. Commands that need one use the functions below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.backends.contract import Backend, Model, Placed, Sgd
from alexnet_mf.backends.execution import Execution
from alexnet_mf.errors import BackendUnavailable
from alexnet_mf.spec import Network
from alexnet_mf.weights.parameters import Parameters


@dataclass(frozen=True)
class Ceiling:
    """An operation that a device performs at its own limit, to compare other work with."""

    call: Callable[[], Any]
    """Performs the operation once, without waiting for the device."""
    amount: float
    """Amount of work in one call: floating-point operations of a matrix product; bytes read and written of a copy."""


class Measurable(ABC):
    """A backend whose device `bench` can measure."""

    @abstractmethod
    def ceilings(self, device: str, execution: Execution) -> dict[str, Ceiling]:
        """Return the device's own limits: a large `matrix product` in this precision, and a large `copy`."""

    def book(self, device: str, batch_size: int) -> dict[str, Callable[[], Any]]:
        """Return the book's own code (`book.py`) on one batch: `forward` and `step`; {} if the book has no tab.

        Call it in a process of its own, with `all` left out (see `left_out`): it runs the framework as it is shipped.
        """
        return {}

    @abstractmethod
    def synchronize(self, device: str) -> None:
        """Wait until the device has finished all work, whether a model's or not."""

    def peak_memory(self, device: str) -> int | None:
        """Return this process's peak use of the device's memory, in bytes; None if unknown, as on a CPU."""
        return None


class MeasurableModel(ABC, Generic[Placed]):
    """A model whose training step `bench` can measure in parts."""

    @abstractmethod
    def phases(self, data: Placed, indices: NDArray[np.int64], sgd: Sgd, seed: int) -> dict[str, Callable[[int], Any]]:
        """Return the parts of a training step on these rows of the data, each to be timed alone.

        `input` (gather, upsample, scale), `forward` (inference on ready pixels), `forward_backward` (likewise),
        `optimizer` (one update from existing gradients) and `step` (`Trainer.step`, input included). None of them
        waits for the device. The argument is the number of the call; with the seed it determines the dropout masks.
        """

    def step_memory(self, data: Placed, indices: NDArray[np.int64], sgd: Sgd, seed: int) -> int | None:
        """Return the peak bytes of the device's allocator in training steps on these rows.

        They include weights, gradients, velocity, a batch's pixels and the tensors for the backward pass, but no
        workspaces of libraries. None if the framework does not report them, as on a CPU.
        """
        return None

    def kernels(self) -> dict[str, list[str]]:
        """Return the special kernels of each convolution, by layer name, as far as they change the memory.

        `fold`: a strided convolution of few channels becomes one of many; `pool`: ReLU and max-pooling are included;
        `ieee`: the weight gradient is computed with a wider kernel.
        """
        return {}


class WeightFormats(ABC):
    """A backend that writes its framework's own weights files. `weights.formats` reads them."""

    @abstractmethod
    def encode_weights(self, file_format: str, network: Network, parameters: Parameters) -> bytes:
        """Return a file that the framework's users load without this package, as they would write it.

        Args:
            file_format: one of the backend's own formats in `conversion.FORMATS`.

        Raises:
            ParametersError: if this network has no such file.
        """


def measurable(backend: Backend) -> Measurable:
    """Return the backend as one that can be measured."""
    if isinstance(backend, Measurable):
        return backend
    raise BackendUnavailable(f"backend {backend.name}: cannot be measured; choose another backend")


def measurable_model(model: Model[Placed]) -> MeasurableModel[Placed]:
    """Return the model as one that can be measured."""
    if isinstance(model, MeasurableModel):
        return model
    raise BackendUnavailable(f"{type(model).__name__}: cannot be measured; choose another backend")


def weight_formats(backend: Backend) -> WeightFormats:
    """Return the backend as one that writes weights files."""
    if isinstance(backend, WeightFormats):
        return backend
    raise BackendUnavailable(f"backend {backend.name}: has no weights files of its own; use safetensors")
