"""TensorFlow behind the contract of `backends/contract.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from alexnet_mf.backends.allocator import collect_garbage
from alexnet_mf.backends.capabilities import Ceiling, Measurable, MeasurableModel, WeightFormats
from alexnet_mf.backends.contract import Backend, Device, Model, NativeLayer, Sgd, find_device, find_precision
from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.backends.randomness import dropout_seed, random_bytes, random_matrices
from alexnet_mf.backends.tensorflow import formats, weights
from alexnet_mf.backends.tensorflow import network as native
from alexnet_mf.backends.tensorflow.speed import SPEED
from alexnet_mf.backends.tensorflow.trainer import (
    Placed,
    TensorFlowTrainer,
    finish_steps,
    mean_loss,
    place,
    seed_dropout,
)
from alexnet_mf.data.augmentation import Draws
from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.weights import layouts
from alexnet_mf.weights.parameters import Parameters

COPIED_BYTES = 2**28
WITH_MODES = keras.layers.Dropout, keras.layers.BatchNormalization
"""Layers that compute otherwise in training."""


class TensorFlowModel(Model[Placed], MeasurableModel[Placed]):
    """A Keras `Sequential` on a device."""

    def __init__(self, network: Network, parameters: Mapping[str, NDArray[np.float32]], device: str,
                 speed: frozenset[str] = frozenset(), precision: str = "float32"):
        self.network = network
        self.device = device
        self.speed = speed
        self._tf_device = native_name(device)
        with tf.device(self._tf_device):
            self.net = native.build(network, "mixed_bfloat16" if precision == "bfloat16" else "float32")
            weights.load(self.net, network, parameters)
        self._waiting: list[TensorFlowTrainer] = []
        """Trainers with pending steps, to be taken before anything that depends on the weights."""
        channels, height, width = network.input
        self._logits: Any = lambda x: self.net(x, training=False)
        if "compile" in speed:
            shape = [None, height, width, channels]
            self._logits = tf.function(self._logits, input_signature=[tf.TensorSpec(shape, tf.float32)])

    def describe(self) -> list[NativeLayer]:
        channels, height, width = self.network.input
        native_outputs = self._run(tf.zeros((1, height, width, channels)))
        outputs = self._to_canonical(native_outputs)
        rows = []
        for layer in self.network.layers:
            modules = native.modules(layer, self.net)
            rows.append(NativeLayer(
                name=layer.name, native=" + ".join(type(module).__name__ for module in modules),
                shape=outputs[layer.name].shape, native_shape=tuple(native_outputs[layer.name].shape),
                parameters=sum(math.prod(variable.shape) for module in modules
                               for variable in module.trainable_variables)))
        return rows

    def export(self) -> Parameters:
        finish_steps(self._waiting)
        return weights.export(self.net, self.network)

    def place(self, inputs: NDArray[Any], labels: NDArray[np.int64]) -> Placed:
        return place(self.network, inputs, labels, self._tf_device)

    def pixels(self, data: Placed, draws: Draws | None = None) -> NDArray[np.float32]:
        return np.ascontiguousarray(self._batch(data, slice(None), draws)[0].numpy().transpose(0, 3, 1, 2))

    def outputs(self, data: Placed, dropout: tuple[int, int] | None = None) -> dict[str, NDArray[Any]]:
        finish_steps(self._waiting)
        if dropout is not None:
            seed_dropout(self.net, tf.constant(dropout_seed(*dropout), tf.uint32))
        with weights.keeping_statistics(self.net):
            return self._to_canonical(self._run(self._batch(data, slice(None))[0], training=dropout is not None))

    def logits(self, data: Placed, batch_size: int) -> NDArray[Any]:
        finish_steps(self._waiting)
        return np.concatenate([tf.cast(self._logits(self._batch(data, rows)[0]), tf.float32).numpy()
                               for rows in data.batches(batch_size)])

    def gradients(self, data: Placed) -> tuple[float, dict[str, NDArray[Any]]]:
        finish_steps(self._waiting)
        pixels, labels = self._batch(data, slice(None))
        variables = weights.trained(self.net)
        with weights.keeping_statistics(self.net), tf.device(self._tf_device), tf.GradientTape() as tape:
            logits = pixels
            for layer in self.net.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    logits = layer(logits, training=True)
                else:
                    logits = layer(logits)
            loss = mean_loss(logits, labels)
        gradients = tape.gradient(loss, [variable.value for variable in variables.values()])
        return float(loss), weights.export_values(dict(zip(variables, gradients)), self.network)

    def trainer(self, sgd: Sgd, seed: int) -> TensorFlowTrainer:
        return TensorFlowTrainer(self.net, self.network, sgd, seed, self._tf_device, "compile" in self.speed,
                                 self._waiting)

    def phases(self, data: Placed, indices: NDArray[np.int64], sgd: Sgd, seed: int) -> dict[str, Callable[[int], Any]]:
        trainer = self.trainer(sgd, seed)
        rows = tf.constant(indices)
        enlarge, forward_backward, update = trainer.gather, trainer.forward_backward, trainer.update
        if "compile" in self.speed:
            enlarge, forward_backward, update = (tf.function(call) for call in (enlarge, forward_backward, update))
        with tf.device(self._tf_device):
            pixels, labels = trainer.gather(data.inputs, data.labels, rows)
        gradients: list[tf.Tensor] = []

        def on_device(call: Callable[[int], Any]) -> Callable[[int], Any]:
            def placed(number: int) -> Any:
                with tf.device(self._tf_device):
                    return call(number)
            return placed

        def seed_of(number: int) -> tf.Tensor:
            return tf.constant(dropout_seed(seed, number), tf.uint32)

        def optimizer(number: int) -> None:
            if not gradients:
                gradients.extend(forward_backward(pixels, labels, seed_of(number))[2])
            update(gradients)

        return {"input": on_device(lambda number: enlarge(data.inputs, data.labels, rows)),
                "forward": on_device(lambda number: self._logits(pixels)),
                "forward_backward": on_device(lambda number: forward_backward(pixels, labels, seed_of(number))),
                "optimizer": on_device(optimizer),
                "step": lambda number: trainer.step(data, indices, number)}

    def out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, tf.errors.ResourceExhaustedError)

    def synchronize(self) -> None:
        finish_steps(self._waiting)
        tf.test.experimental.sync_devices()

    def _batch(self, data: Placed, rows: slice, draws: Draws | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.device(self._tf_device):
            return data.batch(rows, draws)

    def _run(self, x: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Return every canonical layer's native output."""
        outputs = {}
        with tf.device(self._tf_device):
            for layer in self.network.layers:
                for module in native.modules(layer, self.net):
                    x = module(x, training=training) if isinstance(module, WITH_MODES) else module(x)
                outputs[layer.name] = x
        return outputs

    def _to_canonical(self, outputs: Mapping[str, tf.Tensor]) -> dict[str, NDArray[Any]]:
        """Return native outputs as NCHW; values after a Flatten layer are put in channel, height, width order."""
        images = {**arithmetic.output_shapes(self.network), **layouts.flattened_outputs(self.network)}
        return {name: weights.activations_to_canonical(tf.cast(output, tf.float32).numpy(), images[name])
                for name, output in outputs.items()}


class TensorFlowBackend(Backend, Measurable, WeightFormats):
    """TensorFlow with Keras, training as a graph."""

    name = "tensorflow"

    def __init__(self) -> None:
        for gpu in tf.config.list_physical_devices("GPU"):  # otherwise it takes all of the GPU's memory at once
            tf.config.experimental.set_memory_growth(gpu, True)

    def versions(self) -> dict[str, str]:
        versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
        build = tf.sysconfig.get_build_info()
        if tf.config.list_physical_devices("GPU"):
            versions |= {"cuda": build.get("cuda_version", ""), "cudnn": build.get("cudnn_version", "")}
        return versions

    def devices(self) -> list[Device]:
        gpus = tf.config.list_physical_devices("GPU")
        return [*(Device(f"cuda:{i}", tf.config.experimental.get_device_details(gpu).get("device_name", ""))
                  for i, gpu in enumerate(gpus)), Device("cpu")]

    def settings(self) -> dict[str, Any]:
        build = tf.sysconfig.get_build_info()
        return {"built_for_cuda": build.get("cuda_version"), "built_for_cudnn": build.get("cudnn_version"),
                "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
                "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
                "tensor_float_32": tf.config.experimental.tensor_float_32_execution_enabled()}

    def precisions(self, device: str) -> list[str]:
        return ["float32", "bfloat16"] if device == "cpu" else ["float32", "tf32", "bfloat16"]

    def build(self, network: Network, parameters: Mapping[str, NDArray[np.float32]], device: str = "cpu",
              execution: Execution = AS_IT_COMES) -> TensorFlowModel:
        device = find_device(self, device)
        precision = find_precision(self, device, execution.precision)
        speed = execution.settings(self.name, SPEED, device)
        collect_garbage(parameters)
        # float32 means IEEE float32; TensorFlow's default on GPUs that have TF32 is TF32. The switch is process-wide.
        tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
        return TensorFlowModel(network, parameters, device, speed, precision)

    def encode_weights(self, file_format: str, network: Network, parameters: Parameters) -> bytes:
        return formats.encode(file_format, network, parameters)

    def ceilings(self, device: str, execution: Execution) -> dict[str, Ceiling]:
        size = 2048 if device == "cpu" else 8192
        dtype = tf.bfloat16 if execution.precision == "bfloat16" else tf.float32
        with tf.device(native_name(device)):
            a, b = (tf.cast(matrix, dtype) for matrix in random_matrices(size))
            source = tf.constant(random_bytes(COPIED_BYTES))

        def multiply() -> Any:
            with tf.device(native_name(device)):
                return tf.matmul(a, b)

        def copy() -> Any:
            with tf.device(native_name(device)):
                return tf.raw_ops.DeepCopy(x=source)

        return {"matrix product": Ceiling(multiply, 2.0 * size**3), "copy": Ceiling(copy, 2.0 * COPIED_BYTES)}

    def book(self, device: str, batch_size: int) -> dict[str, Callable[[], Any]]:
        from alexnet_mf.backends.tensorflow import book

        with tf.device(native_name(device)):
            return book.calls(batch_size)

    def synchronize(self, device: str) -> None:
        tf.test.experimental.sync_devices()

    def peak_memory(self, device: str) -> int | None:
        return None if device == "cpu" else tf.config.experimental.get_memory_info(native_name(device))["peak"]


def native_name(device: str) -> str:
    """Return TensorFlow's name for the device."""
    return device.replace("cuda", "GPU").upper()
