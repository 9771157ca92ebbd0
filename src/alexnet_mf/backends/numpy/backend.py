"""NumPy behind the contract of `backends/contract.py`."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from alexnet_mf.backends.common import random_bytes, random_matrices
from alexnet_mf.backends.contract import Backend, Ceiling, Device, Model, NativeLayer, Sgd, find_device, find_precision
from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.backends.numpy import files, training, weights
from alexnet_mf.backends.numpy.layers import Array
from alexnet_mf.backends.numpy.network import NumpyNetwork, build, native_name
from alexnet_mf.backends.numpy.training import NumpyTrainer, PlacedData
from alexnet_mf.data.augmentation import Draws
from alexnet_mf.spec import Network
from alexnet_mf.weights.parameters import Parameters, check

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
MATRIX_SIZE = 1536
"""Rows and columns of the matrices whose product is the ceiling: 57 MB in all, more than caches hold."""
COPIED_BYTES = 2**26


class NumpyModel(Model[PlacedData]):
    """A network on the processor, in one dtype."""

    def __init__(self, native: NumpyNetwork) -> None:
        self.network = native.spec
        self.device = "cpu"
        self.item_bytes = native.dtype.itemsize
        self._native = native

    @property
    def parameters(self) -> dict[str, Array]:
        """The parameters themselves, in the dtype of the computation: to be updated in place by one's own rule."""
        return self._native.parameters

    def describe(self) -> list[NativeLayer]:
        """Every layer's functions and measured output shape."""
        one_image = np.zeros((1, *self.network.input), self._native.dtype)
        counts = dict.fromkeys((layer.name for layer in self.network.layers), 0)
        for name, value in self._native.parameters.items():
            counts[name.rpartition(".")[0]] += value.size
        return [NativeLayer(layer.name, native_name(layer), output.shape, output.shape, counts[layer.name])
                for layer, (_, output) in zip(self.network.layers, self._native.forward(one_image))]

    def export(self) -> Parameters:
        """The parameters as they are now, in float32."""
        return weights.to_canonical(self._native.parameters)

    def place(self, inputs: NDArray[Any], labels: NDArray[np.int64]) -> PlacedData:
        """Keep a copy of the images: uint8 is upsampled a batch at a time."""
        return training.place(inputs, labels, self.network)

    def pixels(self, data: PlacedData, draws: Draws | None = None) -> NDArray[np.float32]:
        """What the network is fed, before it is cast to the dtype of the computation."""
        return training.pixels(data, self.network, draws)

    def outputs(self, data: PlacedData, dropout: tuple[int, int] | None = None) -> dict[str, Array]:
        """Every layer's output after its activation, in the dtype of the computation."""
        return dict(self._native.forward(training.network_input(data, self._native), dropout))

    def logits(self, data: PlacedData, batch_size: int) -> Array:
        """(n, classes), dropout off; of each batch only one layer's output is held at a time."""
        result = np.empty((len(data), self.network.classes), self._native.dtype)
        for start in range(0, len(data), batch_size):
            batch = slice(start, start + batch_size)
            for _, output in self._native.forward(training.network_input(data.rows(batch), self._native)):
                logits = output  # once the loop ends, the last layer's
            result[batch] = logits
        return result

    def gradients(
        self, data: PlacedData, branch: Mapping[str, Array] | None = None
    ) -> tuple[float, dict[str, Array]]:
        """Mean cross entropy of the whole data, and its gradient in every parameter, dropout off.

        Args:
            branch: layer outputs of another run on the same data, whose choices in ReLU and max pooling the gradient
                follows; see `NumpyNetwork.backward`.
        """
        loss, _, gradients = training.loss_and_gradients(self._native, data, branch=branch)
        return loss, gradients

    def pull_back(self, data: PlacedData, gradient: Array) -> dict[str, Array]:
        """What any gradient at the logits (n, classes) is in every parameter, dropout off."""
        x = training.network_input(data, self._native)
        return self._native.backward(gradient, x, dict(self._native.forward(x)))

    def trainer(self, sgd: Sgd, seed: int, augment: tuple[str, ...] = ()) -> NumpyTrainer:
        """A trainer whose dropout masks and augmentation are a function of (seed, step number)."""
        return NumpyTrainer(self._native, sgd, seed, augment)

    def phases(
        self, data: PlacedData, indices: NDArray[np.int64], sgd: Sgd, seed: int
    ) -> dict[str, Callable[[int], None]]:
        """The parts of a training step, each to be timed alone."""
        return training.phases(self._native, data, indices, sgd, seed)

    def synchronize(self) -> None:
        """Nothing to wait for: NumPy returns when it is done."""


class NumpyBackend(Backend):
    """NumPy, with whatever BLAS it was built on."""

    name = "numpy"

    def versions(self) -> dict[str, str]:
        """NumPy's version, and its BLAS library's where NumPy tells (1.25 and later)."""
        show_config: Any = np.show_config  # NumPy's annotations do not know that it can return something
        try:
            blas = show_config(mode="dicts")["Build Dependencies"]["blas"]
            return {"numpy": np.__version__, str(blas["name"]): str(blas["version"])}
        except (TypeError, KeyError):
            return {"numpy": np.__version__}

    def devices(self) -> list[Device]:
        """The processor."""
        return [Device("cpu", f"{platform.machine()}, {os.cpu_count()} cores")]

    def settings(self) -> dict[str, Any]:
        """The thread limits that NumPy's BLAS reads when it is loaded; none set means one thread per core."""
        return {variable: os.environ.get(variable) for variable in THREAD_VARIABLES}

    def precisions(self, device: str) -> list[str]:
        """The referee's own alone."""
        return ["float64"]

    def build(
        self,
        network: Network,
        parameters: Mapping[str, NDArray[np.float32]],
        device: str = "cpu",
        execution: Execution = AS_IT_COMES,
        dtype: DTypeLike = np.float64,
    ) -> NumpyModel:
        """Build the network, holding a copy of these canonical parameters.

        Args:
            dtype: what to compute in: float64 for the referee; float32 shows what float32 costs it.

        Raises:
            BackendUnavailable: for a device other than the processor, another precision, or a setting to leave out.
            ParametersError: where the parameters are not this network's.
        """
        find_precision(self, find_device(self, device), execution.precision)
        execution.settings(self.name, {"cpu": {}}, "cpu")
        check(parameters, network)
        return NumpyModel(build(network, weights.to_native(parameters, dtype)))

    def encode_weights(self, kind: str, network: Network, parameters: Parameters) -> bytes:
        """NumPy's own .npz."""
        return files.encode(parameters)

    def decode_weights(self, content: bytes, network: Network) -> dict[str, NDArray[Any]]:
        """The arrays of an .npz."""
        return files.decode(content)

    def ceilings(self, device: str, execution: Execution) -> dict[str, Ceiling]:
        """A product of two large matrices, and a copy of 64 MB."""
        a, b = (matrix.astype(np.float64) for matrix in random_matrices(MATRIX_SIZE))
        product, source = np.zeros_like(a), random_bytes(COPIED_BYTES)
        target = np.zeros_like(source)

        def multiply() -> None:
            np.dot(a, b, out=product)

        return {"matrix product": Ceiling(multiply, 2.0 * MATRIX_SIZE**3),
                "copy": Ceiling(lambda: np.copyto(target, source), 2.0 * COPIED_BYTES)}

    def book(self, device: str, batch_size: int) -> dict[str, Callable[[], None]]:
        """Nothing: the chapter has no NumPy tab."""
        return {}

    def synchronize(self, device: str) -> None:
        """Nothing to wait for."""

    def peak_memory(self, device: str) -> int | None:
        """None: the processor's memory is the process's own."""
        return None
