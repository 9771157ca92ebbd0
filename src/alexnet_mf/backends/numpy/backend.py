"""NumPy behind the contract of `backends/contract.py`."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from alexnet_mf.backends.capabilities import Ceiling, Measurable, MeasurableModel
from alexnet_mf.backends.contract import Backend, Device, Model, NativeLayer, Sgd, find_device, find_precision
from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.backends.numpy import network as native
from alexnet_mf.backends.numpy import weights
from alexnet_mf.backends.numpy.layers import Array
from alexnet_mf.backends.numpy.trainer import NumpyTrainer, Placed, loss_and_gradients, place
from alexnet_mf.backends.randomness import random_bytes, random_matrices
from alexnet_mf.data.augmentation import Draws
from alexnet_mf.spec import Network
from alexnet_mf.weights.parameters import Parameters, check

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""Limits that NumPy's BLAS reads when it is loaded; without them it takes one thread per core."""
MATRIX_SIZE = 1536
"""Rows and columns of the matrices whose product is the ceiling: 57 MB in all, more than caches hold."""
COPIED_BYTES = 2**26


class NumpyModel(Model[Placed], MeasurableModel[Placed]):
    """A network on the processor, in one dtype."""

    def __init__(self, network: Network, parameters: Mapping[str, NDArray[np.float32]], dtype: DTypeLike) -> None:
        self.network = network
        self.device = "cpu"
        self.net = native.build(network, weights.load(parameters, dtype))
        self.item_bytes = self.net.dtype.itemsize

    @property
    def parameters(self) -> dict[str, Array]:
        """The model's own arrays, in the dtype of the computation; callers with their own update rule change them."""
        return self.net.parameters

    def describe(self) -> list[NativeLayer]:
        outputs = dict(self.net.forward(np.zeros((1, *self.network.input), self.net.dtype)))
        rows = []
        for layer in self.network.layers:
            shape = outputs[layer.name].shape
            rows.append(NativeLayer(
                name=layer.name, native=" + ".join(native.modules(layer)), shape=shape, native_shape=shape,
                parameters=sum(self.parameters[name].size for name in self.net.trained
                               if name.rpartition(".")[0] == layer.name)))
        return rows

    def export(self) -> Parameters:
        return weights.export(self.parameters)

    def place(self, inputs: NDArray[Any], labels: NDArray[np.int64]) -> Placed:
        return place(self.network, inputs, labels)

    def pixels(self, data: Placed, draws: Draws | None = None) -> NDArray[np.float32]:
        return data.pixels(draws)

    def outputs(self, data: Placed, dropout: tuple[int, int] | None = None) -> dict[str, Array]:
        return dict(self.net.forward(self.net.cast(data.pixels()), dropout))

    def training_outputs(self, data: Placed) -> dict[str, Array]:
        """Return every layer's output as `gradients` computes it: the batch's own statistics, dropout off."""
        return dict(self.net.forward(self.net.cast(data.pixels()), training=True))

    def logits(self, data: Placed, batch_size: int) -> Array:
        result = np.empty((len(data), self.network.classes), self.net.dtype)
        for rows in data.batches(batch_size):
            for _, output in self.net.forward(self.net.cast(data.rows(rows).pixels())):
                logits = output  # one layer's output at a time; after the loop the last layer's
            result[rows] = logits
        return result

    def gradients(self, data: Placed, branch: Mapping[str, Array] | None = None,
                  moving: bool = False) -> tuple[float, dict[str, Array]]:
        """Return the mean cross entropy of the whole data and the gradient of every trained parameter, dropout off.

        Args:
            branch: layer outputs of another run on the same data. The gradient follows that run's choices in ReLU and
                max pooling; see `NumpyNetwork.backward`.
            moving: move the running statistics, as a training step does.
        """
        loss, _, gradients = loss_and_gradients(self.net, data, branch=branch, moving=moving)
        return loss, gradients

    def pull_back(self, data: Placed, gradient: Array) -> dict[str, Array]:
        """Propagate any gradient at the logits (n, classes) back to every trained parameter, dropout off."""
        return self.net.backward(gradient, self.net.cast(data.pixels()), self.training_outputs(data))

    def trainer(self, sgd: Sgd, seed: int) -> NumpyTrainer:
        return NumpyTrainer(self.net, sgd, seed)

    def phases(self, data: Placed, indices: NDArray[np.int64], sgd: Sgd, seed: int) -> dict[str, Callable[[int], Any]]:
        trainer, rows = self.trainer(sgd, seed), data.rows(indices)
        ready = Placed(self.net.cast(rows.pixels()), rows.labels, rows.size)
        _, _, gradients = loss_and_gradients(self.net, ready)
        return {"input": lambda number: self.net.cast(data.rows(indices).pixels()),
                "forward": lambda number: self.logits(ready, len(ready)),
                "forward_backward": lambda number: loss_and_gradients(self.net, ready, dropout=(seed, number)),
                "optimizer": lambda number: trainer.update(gradients),
                "step": lambda number: trainer.step(data, indices, number)}

    def synchronize(self) -> None:
        """Do nothing: NumPy returns when it is done."""


class NumpyBackend(Backend, Measurable):
    """NumPy, with the BLAS it was built on."""

    name = "numpy"

    def versions(self) -> dict[str, str]:
        show_config: Any = np.show_config  # NumPy's annotations miss that it can return a value
        try:
            blas = show_config(mode="dicts")["Build Dependencies"]["blas"]
            return {"numpy": np.__version__, str(blas["name"]): str(blas["version"])}
        except (TypeError, KeyError):  # NumPy before 1.25
            return {"numpy": np.__version__}

    def devices(self) -> list[Device]:
        return [Device("cpu", f"{platform.machine()}, {os.cpu_count()} cores")]

    def settings(self) -> dict[str, Any]:
        return {variable: os.environ.get(variable) for variable in THREAD_VARIABLES}

    def precisions(self, device: str) -> list[str]:
        return ["float64"]

    def build(self, network: Network, parameters: Mapping[str, NDArray[np.float32]], device: str = "cpu",
              execution: Execution = AS_IT_COMES, dtype: DTypeLike = np.float64) -> NumpyModel:
        """Build the network from a copy of these canonical parameters.

        Args:
            dtype: dtype of the computation. The reference computes in float64; float32 shows the errors of float32.

        Raises:
            BackendUnavailable: for another device or precision, or for any speed setting.
            ParametersError: if the parameters do not fit the network.
        """
        find_precision(self, find_device(self, device), execution.precision)
        execution.settings(self.name, {"cpu": {}}, "cpu")
        check(parameters, network)
        return NumpyModel(network, parameters, dtype)

    def ceilings(self, device: str, execution: Execution) -> dict[str, Ceiling]:
        a, b = (matrix.astype(np.float64) for matrix in random_matrices(MATRIX_SIZE))
        product, source = np.zeros_like(a), random_bytes(COPIED_BYTES)
        target = np.zeros_like(source)
        return {"matrix product": Ceiling(lambda: np.dot(a, b, out=product), 2.0 * MATRIX_SIZE**3),
                "copy": Ceiling(lambda: np.copyto(target, source), 2.0 * COPIED_BYTES)}

    def synchronize(self, device: str) -> None:
        """Do nothing: NumPy returns when it is done."""
