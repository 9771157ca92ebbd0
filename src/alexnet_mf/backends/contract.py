"""The contract of a backend: all that shared code knows of a framework.

A `Backend` builds a `Model`: one network, built natively, on one device. Everything crosses this border as NumPy arrays
in canonical layout (NCHW activations, OIHW weights); native layouts stay behind it. Shared code computes numbers; a
backend allocates and runs. A further framework is one folder with these two classes and one line in the registry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

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
    """One canonical row of the layer table, as measured on the native network with a batch of one."""

    name: str
    native: str
    """The framework's own class or classes for this layer."""
    shape: Shape
    """Output shape in NCHW."""
    native_shape: Shape
    """Output shape as the framework has it (TensorFlow: NHWC)."""
    parameters: int
    """Weights and biases, counted on the native network."""


@dataclass(frozen=True)
class Device:
    """A device that a backend can use: `cpu`, `cuda:0`, ..."""

    name: str
    description: str = ""


@dataclass(frozen=True)
class Ceiling:
    """Something that a device does as fast as it can, to hold other work against."""

    call: Callable[[], Any]
    """Does it once, without waiting for the device."""
    amount: float
    """What one call does: floating-point operations of a matrix product; of a copy, bytes read and bytes written."""


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent: v = momentum v + g + weight_decay w; w = w - learning_rate v."""

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0


@dataclass(frozen=True)
class StepMetrics:
    """What the steps since the last reading showed, one entry a step."""

    losses: NDArray[np.float64]
    """Mean cross entropy of the step's batch, dropout on, before its update."""
    correct: NDArray[np.int64]
    """Images of the batch whose largest logit was their label's."""


@dataclass(frozen=True)
class TrainerState:
    """All that a training step changes, copied to arrays in canonical layout and in the dtype of the computation."""

    parameters: dict[str, NDArray[Any]]
    velocity: dict[str, NDArray[Any]]
    """By the parameters' names; {} without momentum, and where there is none yet."""
    rule: str
    """What a velocity is, as the update that uses it: one of the two below."""


RATE_OUTSIDE = "v = momentum v + g; w = w - learning_rate v"
RATE_INSIDE = "v = momentum v - learning_rate g; w = w + v"
"""The two update rules that frameworks have."""


Placed = TypeVar("Placed")
"""A backend's own handle to images and labels on its device."""


class Trainer(ABC, Generic[Placed]):
    """Takes SGD steps on a model, in place, without waiting for the device."""

    @abstractmethod
    def step(self, data: Placed, indices: NDArray[np.int64], number: int) -> None:
        """One step of mean softmax cross entropy on these rows of the data.

        Args:
            number: the step's number since the start of training; with the seed it decides the dropout masks.
        """

    @abstractmethod
    def read(self) -> StepMetrics:
        """The metrics of the steps since the last reading; waits for the device."""

    @abstractmethod
    def export_state(self) -> TrainerState:
        """What the steps so far have made; waits for the device."""

    @abstractmethod
    def load_state(self, state: TrainerState) -> None:
        """Go on from what a trainer of this backend with the same SGD exported, with the same numbers bit for bit."""


class Model(ABC, Generic[Placed]):
    """A network built natively on a device."""

    network: Network
    device: str
    item_bytes = 4
    """Of one number, as the model keeps it."""

    @abstractmethod
    def describe(self) -> list[NativeLayer]:
        """Every layer's native class and measured output shape, by running a batch of one through the network."""

    @abstractmethod
    def export(self) -> Parameters:
        """The parameters as they are now, in canonical layout."""

    @abstractmethod
    def place(self, inputs: NDArray[Any], labels: NDArray[np.int64]) -> Placed:
        """Put images on the device, once.

        Args:
            inputs: uint8 grey levels (n, height, width), which stay small and are upsampled a batch at a time; or
                float32 (n, channels, height, width), which the network takes as they are.
        """

    @abstractmethod
    def pixels(self, data: Placed, draws: Draws | None = None) -> NDArray[np.float32]:
        """What the network is fed: augmented as drawn, upsampled, scaled to [0, 1], NCHW."""

    @abstractmethod
    def outputs(self, data: Placed, dropout: tuple[int, int] | None = None) -> dict[str, NDArray[Any]]:
        """Every layer's output after its activation, by layer name, in canonical layout.

        Args:
            dropout: (seed, step) of the masks to apply; without it dropout is off.
        """

    @abstractmethod
    def logits(self, data: Placed, batch_size: int) -> NDArray[Any]:
        """(n, classes), dropout off, `batch_size` images at a time."""

    @abstractmethod
    def gradients(self, data: Placed) -> tuple[float, dict[str, NDArray[Any]]]:
        """Mean cross entropy of the whole data, and its gradient in every parameter, dropout off."""

    @abstractmethod
    def trainer(self, sgd: Sgd, seed: int, augment: tuple[str, ...] = ()) -> Trainer[Placed]:
        """A trainer whose dropout masks and augmentation are a function of (seed, step number).

        Args:
            augment: kinds of augmentation, as `augmentation.check` gives them.
        """

    @abstractmethod
    def phases(self, data: Placed, indices: NDArray[np.int64], sgd: Sgd, seed: int) -> dict[str, Callable[[int], Any]]:
        """The parts of a training step on these rows of the data, each to be timed alone.

        `input` (gather, upsample, scale), `forward` (inference on pixels that are ready), `forward_backward`
        (likewise), `optimizer` (one update from gradients that are there) and `step` (`Trainer.step`, input included).
        None of them waits for the device. The argument is the number of the call; with the seed it decides the dropout
        masks.
        """

    def step_memory(self, data: Placed, indices: NDArray[np.int64], sgd: Sgd, seed: int) -> int | None:
        """The most bytes that training steps on these rows hold, by the allocator of the model's device: weights,
        gradients, velocity, a batch's pixels and what backward needs, without the workspaces of libraries. None where
        the framework does not tell, as on a CPU."""
        return None

    def out_of_memory(self, error: Exception) -> bool:
        """Whether this is how the framework says that the device's memory does not suffice."""
        return isinstance(error, MemoryError)

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""


class Backend(ABC):
    """A framework."""

    name: str

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """The framework's version, and those of the libraries it computes with."""

    @abstractmethod
    def devices(self) -> list[Device]:
        """The devices that this installation can use, best first."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Precision switches, thread counts and how it was built, read back from the framework."""

    @abstractmethod
    def precisions(self, device: str) -> list[str]:
        """How this device can compute; the first is the default."""

    @abstractmethod
    def build(self, network: Network, parameters: Mapping[str, NDArray[np.float32]], device: str = "cpu",
              execution: Execution = AS_IT_COMES) -> Model[Any]:
        """Build the network on a device, holding a copy of these canonical parameters.

        Raises:
            BackendUnavailable: where the device is not there, or cannot compute like that.
        """

    @abstractmethod
    def encode_weights(self, kind: str, network: Network, parameters: Parameters) -> bytes:
        """A file that the framework's users load without this package, written as they would.

        Args:
            kind: one of the backend's own in `conversion.KINDS`.

        Raises:
            ParametersError: where this network has no such file.
        """

    @abstractmethod
    def decode_weights(self, content: bytes, network: Network) -> dict[str, NDArray[Any]]:
        """The tensors of such a file, of whatever origin: in canonical layout and under canonical names, those that are
        none of the network's under their own. Whether they fit is for `parameters.check` to say. Nothing is unpickled.

        Raises:
            ParametersError: where it is no such file; the message goes on from the file's name.
        """

    @abstractmethod
    def ceilings(self, device: str, execution: Execution) -> dict[str, Ceiling]:
        """The device's own limits: a large `matrix product` in this precision, and a large `copy`."""

    @abstractmethod
    def book(self, device: str, batch_size: int) -> dict[str, Callable[[], Any]]:
        """The book's own code (`book.py`) on one batch that is ready: `forward` and `step`; {} where there is none.

        For a process of its own, with `all` left out (see `left_out`): the framework as it is shipped.
        """

    @abstractmethod
    def synchronize(self, device: str) -> None:
        """Wait until the device has done all that was asked of it, be it a model's work or not."""

    @abstractmethod
    def peak_memory(self, device: str) -> int | None:
        """The most bytes of the device's memory that this process has held; None on a CPU."""


def find_device(backend: Backend, wanted: str) -> str:
    """The device of that name; `auto` is the backend's best, `cuda` its first GPU.

    Raises:
        BackendUnavailable: where there is none; lists those that there are.
    """
    names = [device.name for device in backend.devices()]
    name = {"auto": names[0], "cuda": "cuda:0"}.get(wanted, wanted)
    if name not in names:
        raise BackendUnavailable(f"backend {backend.name}: no device {wanted!r} here; there is {', '.join(names)}")
    return name


def find_precision(backend: Backend, device: str, wanted: str | None) -> str:
    """The precision asked for, or the backend's own.

    Raises:
        BackendUnavailable: where the device cannot compute so; lists what it can.
    """
    names = backend.precisions(device)
    if wanted is None:
        return names[0]
    if wanted not in names:
        raise BackendUnavailable(f"backend {backend.name}: no precision {wanted} on {device}; there is "
                                 f"{', '.join(names)} (--precision)")
    return wanted
