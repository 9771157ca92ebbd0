"""MXNet behind the contract of `backends/contract.py`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from numpy.typing import NDArray

from alexnet_mf.backends.allocator import collect_garbage
from alexnet_mf.backends.capabilities import Ceiling, Measurable, MeasurableModel, WeightFormats
from alexnet_mf.backends.contract import Backend, Device, Model, NativeLayer, Sgd, find_device, find_precision
from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.backends.mxnet import compat, formats, weights
from alexnet_mf.backends.mxnet import network as native
from alexnet_mf.backends.mxnet.speed import SPEED
from alexnet_mf.backends.mxnet.trainer import MXNetTrainer, Placed, place, seed_dropout
from alexnet_mf.backends.randomness import dropout_seed, random_bytes, random_matrices
from alexnet_mf.data.augmentation import Draws
from alexnet_mf.errors import BackendUnavailable
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import Flatten
from alexnet_mf.weights.parameters import Parameters

COPIED_BYTES = 2**28


class MXNetModel(Model[Placed], MeasurableModel[Placed]):
    """A Gluon `HybridSequential` on a device."""

    def __init__(self, network: Network, parameters: Mapping[str, NDArray[np.float32]], device: str,
                 speed: frozenset[str] = frozenset(), precision: str = "float32"):
        self.network = network
        self.device = device
        self.context = context_of(device)
        self.net = native.build(network, precision)
        self.net.initialize(mx.init.Zero(), ctx=self.context)
        weights.load(self.net, parameters)
        if "compile" in speed:
            self.net.hybridize(static_alloc=True, static_shape=True)

    def describe(self) -> list[NativeLayer]:
        outputs = self._run(mx.nd.zeros((1, *self.network.input), ctx=self.context))
        rows = []
        for layer in self.network.layers:
            modules = native.modules(layer, self.net)
            shape = outputs[layer.name].shape
            rows.append(NativeLayer(
                name=layer.name,
                native=" + ".join(type(module).__name__ for module in modules) or "(flattened by Dense)",
                shape=shape, native_shape=shape,
                parameters=sum(value.data().size for module in modules for value in module.collect_params().values()
                               if value.grad_req != "null")))
        return rows

    def export(self) -> Parameters:
        return weights.export(self.net)

    def place(self, inputs: NDArray[Any], labels: NDArray[np.int64]) -> Placed:
        return place(self.network, inputs, labels, self.context)

    def pixels(self, data: Placed, draws: Draws | None = None) -> NDArray[np.float32]:
        return data.batch(slice(None), draws)[0].asnumpy()

    def outputs(self, data: Placed, dropout: tuple[int, int] | None = None) -> dict[str, NDArray[Any]]:
        if dropout is not None:
            seed_dropout(dropout_seed(*dropout), self.context)
        outputs = self._run(data.batch(slice(None))[0], training=dropout is not None)
        return {name: value.asnumpy() for name, value in outputs.items()}

    def logits(self, data: Placed, batch_size: int) -> NDArray[Any]:
        return np.concatenate([self.net(data.batch(rows)[0]).asnumpy() for rows in data.batches(batch_size)])

    def gradients(self, data: Placed) -> tuple[float, dict[str, NDArray[Any]]]:
        pixels, labels = data.batch(slice(None))
        # Not record(train_mode=False): oneDNN's max pooling then keeps no workspace, and its gradients are wrong.
        with weights.keeping_statistics(self.net):
            with autograd.record():
                for block in self.net:
                    with autograd.predict_mode() if isinstance(block, gluon.nn.Dropout) else nullcontext():
                        pixels = block(pixels)
                loss = gluon.loss.SoftmaxCrossEntropyLoss()(pixels, labels).mean()
            loss.backward()  # moves the running statistics
            return float(loss.asscalar()), weights.export_gradients(self.net)

    def trainer(self, sgd: Sgd, seed: int) -> MXNetTrainer:
        return MXNetTrainer(self.net, sgd, seed, self.context)

    def phases(self, data: Placed, indices: NDArray[np.int64], sgd: Sgd, seed: int) -> dict[str, Callable[[int], Any]]:
        trainer = self.trainer(sgd, seed)
        rows = mx.nd.array(indices, ctx=self.context, dtype="int32")
        pixels, labels = data.batch(rows)
        ready: list[int] = []

        def optimizer(number: int) -> None:
            if not ready:
                trainer.forward_backward(pixels, labels, number)
                ready.append(number)
            for parameter in self.net.collect_params().values():
                parameter.data()._fresh_grad = True  # Gluon's trainer skips a gradient that it has used before
            trainer.trainer.step(len(indices))

        return {"input": lambda number: data.batch(rows), "forward": lambda number: self.net(pixels),
                "forward_backward": lambda number: trainer.forward_backward(pixels, labels, number),
                "optimizer": optimizer,
                "step": lambda number: trainer.step(data, indices, number)}

    def out_of_memory(self, error: Exception) -> bool:
        message = str(error)  # on a CPU, on a GPU, and of a tensor of 2^31 numbers or more
        return isinstance(error, mx.MXNetError) and any(
            words in message for words in ("Failed to allocate", "out of memory", "larger than 2^31 elements"))

    def synchronize(self) -> None:
        mx.nd.waitall()

    def _run(self, x: mx.nd.NDArray, training: bool = False) -> dict[str, mx.nd.NDArray]:
        """Return every canonical layer's output."""
        outputs = {}
        with autograd.train_mode() if training else autograd.predict_mode():
            for layer in self.network.layers:
                x = x.flatten() if isinstance(layer, Flatten) else x
                for module in native.modules(layer, self.net):
                    x = module(x)
                outputs[layer.name] = x
        return outputs


class MXNetBackend(Backend, Measurable, WeightFormats):
    """MXNet 1.9.1, Gluon. It reports the free memory of a GPU, but no peak."""

    name = "mxnet"

    def versions(self) -> dict[str, str]:
        return {"mxnet": mx.__version__}

    def devices(self) -> list[Device]:
        gpus = [i for i in range(mx.context.num_gpus()) if self._without_code(i) is None]
        return [*(Device(f"cuda:{i}") for i in gpus), Device("cpu", f"{os.environ.get(compat.THREADS)} threads")]

    def settings(self) -> dict[str, Any]:
        features = mx.runtime.Features()
        return {"threads": os.environ.get(compat.THREADS), "onednn": features.is_enabled("MKLDNN"),
                "built_for_cuda": features.is_enabled("CUDA"), "built_for_cudnn": features.is_enabled("CUDNN"),
                "tf32_override": os.environ.get(compat.TF32)}

    def precisions(self, device: str) -> list[str]:
        if device != "cpu":
            return ["float32", "float16"]  # no bfloat16 on a GPU; float16 has never been run on one
        return ["float32", "bfloat16"] if computes_bfloat16() else ["float32"]

    def build(self, network: Network, parameters: Mapping[str, NDArray[np.float32]], device: str = "cpu",
              execution: Execution = AS_IT_COMES) -> MXNetModel:
        if device.startswith("cuda"):
            index = int(device.partition(":")[2] or 0)
            refusal = self._without_code(index) if index < mx.context.num_gpus() else None
            if refusal:
                raise BackendUnavailable(f"backend mxnet: {refusal}; use `device='cpu'` or another backend")
        device = find_device(self, device)
        if device != "cpu" and os.environ.get(compat.TF32) != "0":
            raise BackendUnavailable(f"backend mxnet: its cuBLAS would round float32 to TF32; unset {compat.TF32}, or "
                                     f"set it to 0")
        precision = find_precision(self, device, execution.precision)
        collect_garbage(parameters)
        return MXNetModel(network, parameters, device, execution.settings(self.name, SPEED, device), precision)

    def encode_weights(self, file_format: str, network: Network, parameters: Parameters) -> bytes:
        return formats.encode(file_format, network, parameters)

    def ceilings(self, device: str, execution: Execution) -> dict[str, Ceiling]:
        size, context = (2048, mx.cpu()) if device == "cpu" else (8192, context_of(device))
        a, b = (mx.nd.amp_cast(mx.nd.array(matrix, ctx=context), dtype=execution.precision or "float32")
                for matrix in random_matrices(size))
        product = mx.nd.zeros_like(a)

        def multiply() -> None:  # not `dot`: OpenBLAS computes it, a fifth as fast on a processor that it does not know
            mx.nd.FullyConnected(a, b, num_hidden=size, no_bias=True, out=product)

        # As float32: MXNet copies uint8 seven times more slowly.
        source = mx.nd.array(random_bytes(COPIED_BYTES // 4).astype(np.float32), ctx=context)
        target = mx.nd.zeros_like(source)
        return {"matrix product": Ceiling(multiply, 2.0 * size**3),
                "copy": Ceiling(lambda: source.copyto(target), 2.0 * COPIED_BYTES)}

    def book(self, device: str, batch_size: int) -> dict[str, Callable[[], Any]]:
        from alexnet_mf.backends.mxnet import book

        mx.npx.set_np()  # for the whole process, also where it was reset since the book's import
        return book.calls(batch_size, context_of(device))

    def synchronize(self, device: str) -> None:
        mx.nd.waitall()

    @staticmethod
    def _without_code(index: int) -> str | None:
        """Return why this MXNet cannot use an existing GPU, or None if it can."""
        capability = compat.cuda_capability(index)
        if capability and capability > compat.NEWEST_CAPABILITY:
            return f"this MXNet has no code for cuda:{index}, of compute capability {capability[0]}.{capability[1]}"
        return None


def context_of(device: str) -> mx.Context:
    """Return MXNet's name for the device."""
    return mx.gpu(int(device.split(":")[1])) if device != "cpu" else mx.cpu()


@functools.cache
def computes_bfloat16() -> bool:
    """Return True if MXNet's oneDNN has bfloat16 on this processor; it needs AVX-512."""
    a, b = (mx.nd.amp_cast(mx.nd.ones((16, 16)), dtype="bfloat16") for _ in range(2))
    try:
        mx.nd.amp_cast(mx.nd.FullyConnected(a, b, num_hidden=16, no_bias=True), dtype="float32").wait_to_read()
    except mx.MXNetError:
        return False
    return True
