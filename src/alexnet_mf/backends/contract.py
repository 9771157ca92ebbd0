"""The contract of a backend, the only part of a framework that shared code sees.

A `Backend` builds a `Model`: one network, built natively, on one device. Everything crosses this border as NumPy arrays
in canonical layout (NCHW activations, OIHW weights); native layouts stay inside the backend. Shared code computes
numbers; a backend allocates and runs. Another framework is one folder with these two classes and one line in the
registry. `capabilities.py` declares what only some commands need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.data.augmentation import Draws
from alexnet_mf.errors import BackendUnavailable
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import Shape
from alexnet_mf.weights.parameters import Parameters


@dataclass(frozen=True)
class NativeLayer:
    """One canonical row of the layer table, measured on the native network with a batch of one."""

    name: str
    native: str
    """The framework's own class or classes for this layer."""
    shape: Shape
    """Output shape in NCHW."""
    native_shape: Shape
    """Output shape in the framework's own layout (TensorFlow: NHWC)."""
    parameters: int
    """Trained weights and biases, counted on the native network."""


@dataclass(frozen=True)
class Device:
    """A device that a backend can use: `cpu`, `cuda:0`, `mps`, ..."""

    name: str
    description: str = ""


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent: v = momentum v + g + weight_decay w; w = w - learning_rate v."""

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0


@dataclass(frozen=True)
class StepMetrics:
    """Metrics of the steps since the last reading, one entry per step."""

    losses: NDArray[np.float64]
    """Mean cross entropy of the step's batch, dropout on, before its update."""
    correct: NDArray[np.int64]
    """Number of images whose largest logit was their label's."""


@dataclass(frozen=True)
class TrainerState:
    """Everything that a training step changes, as arrays in canonical layout and in the dtype of the computation."""

    parameters: dict[str, NDArray[Any]]
    """Parameters and running statistics."""
    velocity: dict[str, NDArray[Any]]
    """Velocity by the name of the trained parameter; {} without momentum and before the first step."""
    rule: UpdateRule
    """The update rule that defines the velocity: one of the two below."""


UpdateRule = Literal["v = momentum v + g; w = w - learning_rate v", "v = momentum v - learning_rate g; w = w + v"]
RATE_OUTSIDE: UpdateRule = "v = momentum v + g; w = w - learning_rate v"
RATE_INSIDE: UpdateRule = "v = momentum v - learning_rate g; w = w + v"
"""The two update rules of the frameworks."""


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class PlacedImages:
    """Images and labels on a device: uint8 levels, or float32 inputs ready for the network."""

    inputs: Any
    labels: Any
    size: tuple[int, int]
    """The network's (height, width)."""

    def batches(self, size: int) -> list[slice]:
        """Return all rows in order, `size` at a time."""
        count = len(self.labels)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]


Placed = TypeVar("Placed", bound=PlacedImages)
"""A backend's own images and labels on its device."""


class Trainer(ABC, Generic[Placed]):
    """SGD steps on a model, in place, without waiting for the device."""

    @abstractmethod
    def step(self, data: Placed, indices: NDArray[np.int64] | None, number: int, draws: Draws | None = None) -> None:
        """Take one step of mean softmax cross entropy on these rows of the data.

        Args:
            indices: numbers of the rows; None for all, of data that serves one step.
            number: the step's number since the start of training; with the seed it determines the dropout masks.
            draws: changes of the images; None for none.
        """

    def prepare(self, data: Placed, size: int) -> None:
        """Compile the step for this batch size, if the backend compiles for each size. Nothing is trained."""
        return None

    @abstractmethod
    def read(self) -> StepMetrics:
        """Return the metrics of the steps since the last reading; waits for the device."""

    @abstractmethod
    def export_state(self) -> TrainerState:
        """Return the state after the steps so far; waits for the device."""

    @abstractmethod
    def load_state(self, state: TrainerState) -> None:
        """Resume from the state that a trainer of this backend with the same SGD exported, bit for bit."""


class Model(ABC, Generic[Placed]):
    """A network built natively on a device."""

    network: Network
    device: str
    item_bytes = 4
    """Size of one number in the model, in bytes."""

    @abstractmethod
    def describe(self) -> list[NativeLayer]:
        """Run a batch of one and return every layer's native class and measured output shape."""

    @abstractmethod
    def export(self) -> Parameters:
        """Return the current parameters and running statistics in canonical layout."""

    @abstractmethod
    def place(self, inputs: NDArray[Any], labels: NDArray[np.int64]) -> Placed:
        """Copy images to the device, once.

        Args:
            inputs: uint8 levels, gray (n, height, width) or (n, height, width, channels), cropped, upsampled and scaled
                a batch at a time; or float32 (n, channels, height, width), ready for the network.

        Raises:
            DataError: if the network does not take these images; see `preprocessing.check_inputs`.
        """

    @abstractmethod
    def pixels(self, data: Placed, draws: Draws | None = None) -> NDArray[np.float32]:
        """Return the network's input, NCHW: levels are cropped as drawn or at the center, augmented, upsampled and
        scaled to [0, 1]; ready inputs only augmented."""

    @abstractmethod
    def outputs(self, data: Placed, dropout: tuple[int, int] | None = None) -> dict[str, NDArray[Any]]:
        """Return every layer's output after its activation, by layer name, in canonical layout.

        The running statistics stay as they are.

        Args:
            dropout: (seed, step) of the masks to apply, as in a training step: batch normalization takes the batch's
                statistics. Without it dropout is off, and batch normalization takes the running statistics.
        """

    @abstractmethod
    def logits(self, data: Placed, batch_size: int) -> NDArray[Any]:
        """Return the logits (n, classes) in evaluation, as the last of `outputs`, `batch_size` images at a time."""

    @abstractmethod
    def gradients(self, data: Placed) -> tuple[float, dict[str, NDArray[Any]]]:
        """Return the mean cross entropy of the whole data and the gradient of every trained parameter.

        As in a training step, batch normalization takes the batch's statistics. But dropout is off, and the running
        statistics stay as they are.
        """

    @abstractmethod
    def trainer(self, sgd: Sgd, seed: int) -> Trainer[Placed]:
        """Return a trainer whose dropout masks are a function of (seed, step number)."""

    def out_of_memory(self, error: Exception) -> bool:
        """Return True if the framework reports with this error that the device's memory is exhausted."""
        return isinstance(error, MemoryError)

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has finished all work."""


class Backend(ABC):
    """A framework."""

    name: str

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the versions of the framework and of the libraries it computes with."""

    @abstractmethod
    def devices(self) -> list[Device]:
        """Return the devices that this installation can use, best first."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return precision switches, thread counts and build options, read back from the framework."""

    @abstractmethod
    def precisions(self, device: str) -> list[str]:
        """Return the precisions of this device; the first is the default."""

    @abstractmethod
    def build(self, network: Network, parameters: Mapping[str, NDArray[np.float32]], device: str = "cpu",
              execution: Execution = AS_IT_COMES) -> Model[Any]:
        """Build the network on a device from a copy of these canonical parameters.

        Raises:
            BackendUnavailable: if the device is missing, or does not support `execution`.
        """


def find_device(backend: Backend, wanted: str) -> str:
    """Return the device's name; `auto` is the backend's best device, `cuda` its first GPU.

    Raises:
        BackendUnavailable: if there is no such device; lists the existing ones.
    """
    names = [device.name for device in backend.devices()]
    name = {"auto": names[0], "cuda": "cuda:0"}.get(wanted, wanted)
    if name.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise BackendUnavailable(f"backend {backend.name}: unknown device {wanted!r}; use auto, cpu, cuda, cuda:N or "
                                 "mps")
    if name not in names:
        raise BackendUnavailable(f"backend {backend.name}: no device {wanted!r} here; available: {', '.join(names)}")
    return name


def find_precision(backend: Backend, device: str, wanted: str | None) -> str:
    """Return the wanted precision, or the device's default.

    Raises:
        BackendUnavailable: if the device does not support it; lists those that it supports.
    """
    names = backend.precisions(device)
    if wanted is None:
        return names[0]
    if wanted not in names:
        raise BackendUnavailable(f"backend {backend.name}: no precision {wanted} on {device}; available: "
                                 f"{', '.join(names)} (`precision`)")
    return wanted
