"""PyTorch behind the contract of `backends/contract.py`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_mf.backends.allocator import collect_garbage, keep_large_blocks
from alexnet_mf.backends.capabilities import Ceiling, Measurable, MeasurableModel, WeightFormats
from alexnet_mf.backends.contract import Backend, Device, Model, NativeLayer, Sgd, find_device, find_precision
from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.backends.randomness import dropout_seed, random_bytes, random_matrices
from alexnet_mf.backends.torch import allocations, formats, weights
from alexnet_mf.backends.torch import network as native
from alexnet_mf.backends.torch.augment import tensors
from alexnet_mf.backends.torch.graph import Graphed, GraphMemory
from alexnet_mf.backends.torch.layers import FoldedConv2d, IeeeConv2d, can_pool, fold, keep_to_ieee, normalize_by_batch
from alexnet_mf.backends.torch.openmp import spins
from alexnet_mf.backends.torch.speed import SPEED
from alexnet_mf.backends.torch.trainer import (
    Placed,
    TorchTrainer,
    autocast,
    compiled,
    has_compiler,
    mean_loss,
    place,
    seed_dropout,
)
from alexnet_mf.data.augmentation import Draws
from alexnet_mf.errors import BackendUnavailable, Notice
from alexnet_mf.spec import Network
from alexnet_mf.weights.parameters import Parameters

COPIED_BYTES = 2**28
TRITONS_OLDEST = (7, 0)
"""Lowest compute capability that Triton compiles for."""


class TorchModel(Model[Placed], MeasurableModel[Placed]):
    """A `nn.Sequential` on a device."""

    def __init__(self, network: Network, parameters: Mapping[str, NDArray[np.float32]], device: str,
                 speed: frozenset[str] = frozenset(), precision: str = "float32"):
        self.network = network
        self.device = device
        self.speed = speed
        self.precision = precision
        self.net = native.build(network).to(device)
        if "layout" in speed:
            self.net.to(memory_format=torch.channels_last)
        if "fold" in speed:
            fold(self.net)
        if precision == "float32" and device.startswith("cuda"):
            keep_to_ieee(self.net)
        weights.load(self.net, parameters)
        self.call: Callable[[torch.Tensor], torch.Tensor] = self.net
        """The network as it computes batches; `net` holds the parameters."""
        if "pool" in speed:
            from alexnet_mf.backends.torch.pooling import pooled  # imports Triton

            self.call = pooled(self.net)
        if "compile" in speed:
            self.call = compiled(self.call)
        forward = inference(self.call, device, precision)
        self.graphs = GraphMemory(torch.device(device)) if "graph" in speed else None
        self._infer = Graphed(forward, self.graphs) if self.graphs else forward

    def describe(self) -> list[NativeLayer]:
        x = torch.zeros(1, *self.network.input, device=self.device)
        outputs = self._run(x)
        rows = []
        for layer in self.network.layers:
            modules = native.modules(layer, self.net)
            shape = tuple(outputs[layer.name].shape)
            rows.append(NativeLayer(
                name=layer.name, native=" + ".join(type(module).__name__ for module in modules),
                shape=shape, native_shape=shape,
                parameters=sum(value.numel() for module in modules for value in module.parameters())))
        return rows

    def export(self) -> Parameters:
        return weights.export(self.net)

    def place(self, inputs: NDArray[Any], labels: NDArray[np.int64]) -> Placed:
        return place(self.network, inputs, labels, torch.device(self.device))

    def pixels(self, data: Placed, draws: Draws | None = None) -> NDArray[np.float32]:
        drawn = tensors(draws, data.labels.device) if draws else ()
        return data.batch(slice(None), draws, drawn)[0].cpu().numpy()

    def outputs(self, data: Placed, dropout: tuple[int, int] | None = None) -> dict[str, NDArray[Any]]:
        if dropout is not None:
            seed_dropout(torch.device(self.device), dropout_seed(*dropout))
        with weights.keeping_statistics(self.net):
            outputs = self._run(data.batch(slice(None))[0], training=dropout is not None)
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}

    def logits(self, data: Placed, batch_size: int) -> NDArray[Any]:
        logits = [self.infer(data.batch(rows)[0]).clone() for rows in data.batches(batch_size)]
        return torch.cat(logits).float().cpu().numpy()

    def gradients(self, data: Placed) -> tuple[float, dict[str, NDArray[Any]]]:
        normalize_by_batch(self.net)
        self.net.zero_grad()
        pixels, labels = data.batch(slice(None))
        with weights.keeping_statistics(self.net):
            with autocast(self.device, self.precision):
                logits = self.call(pixels)
            loss = mean_loss(logits, labels)
            loss.backward()
        return loss.item(), weights.export_gradients(self.net)

    def trainer(self, sgd: Sgd, seed: int) -> TorchTrainer:
        return TorchTrainer(self.net, self.call, sgd, seed, self.speed, self.precision, self.graphs)

    def phases(self, data: Placed, indices: NDArray[np.int64], sgd: Sgd, seed: int) -> dict[str, Callable[[int], Any]]:
        trainer = self.trainer(sgd, seed)
        rows = torch.from_numpy(indices).to(self.device)
        pixels, labels = data.batch(rows)

        def optimizer(number: int) -> None:
            if any(parameter.grad is None for parameter in self.net.parameters()):
                trainer.forward_backward(pixels, labels, number)
            trainer.update.step()

        return {"input": lambda number: data.batch(rows), "forward": lambda number: self.infer(pixels),
                "forward_backward": lambda number: trainer.forward_backward(pixels, labels, number),
                "optimizer": optimizer,
                "step": lambda number: trainer.step(data, indices, number)}

    def step_memory(self, data: Placed, indices: NDArray[np.int64], sgd: Sgd, seed: int) -> int | None:
        if not self.device.startswith("cuda"):
            return None
        # Without a graph: the allocator cannot be observed in one.
        trainer = TorchTrainer(self.net, self.call, sgd, seed, self.speed, self.precision)
        clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)  # in no public module
        parameter_bytes = sum(value.numel() * value.element_size() for value in self.net.parameters())
        return allocations.step_memory(lambda number: trainer.step(data, indices, number), parameter_bytes,
                                       lambda: torch.cuda.memory_allocated(self.device), clear)

    def kernels(self) -> dict[str, list[str]]:
        kernels: dict[str, list[str]] = {}
        modules = [native.modules(layer, self.net) for layer in self.network.layers]
        for layer, own, following in zip(self.network.layers, modules, modules[1:]):
            names = [name for kind, name in ((FoldedConv2d, "fold"), (IeeeConv2d, "ieee"))
                     if any(isinstance(module, kind) for module in own)]
            if "pool" in self.speed and can_pool([*own[-2:], *following]):
                names.append("pool")
            if names:
                kernels[layer.name] = names
        return kernels

    def out_of_memory(self, error: Exception) -> bool:
        on_a_cpu_or_mac = any(words in str(error) for words in ("can't allocate memory", "MPS backend out of memory"))
        return on_a_cpu_or_mac or isinstance(error, torch.cuda.OutOfMemoryError)

    def synchronize(self) -> None:
        synchronize(self.device)

    def infer(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits, dropout off, with the parameters as they are now; the next call may overwrite them."""
        self.net.eval()
        return self._infer(pixels)[0]

    @torch.no_grad()
    def _run(self, x: torch.Tensor, training: bool = False) -> dict[str, torch.Tensor]:
        """Return every canonical layer's output, computed module by module: without `pool`, `graph` and `compile`."""
        self.net.train(training)
        outputs = {}
        with autocast(self.device, self.precision):
            for layer in self.network.layers:
                for module in native.modules(layer, self.net):
                    x = module(x)
                outputs[layer.name] = x
        return outputs


class TorchBackend(Backend, Measurable, WeightFormats):
    """PyTorch, eager."""

    name = "torch"

    def versions(self) -> dict[str, str]:
        versions = {"torch": torch.__version__}
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions["torchvision"] = importlib.metadata.version("torchvision")
        if torch.cuda.is_available():
            versions |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
        return versions

    def devices(self) -> list[Device]:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        gpus = [Device(f"cuda:{i}", torch.cuda.get_device_name(i)) for i in range(count)]
        if torch.backends.mps.is_available():
            gpus.append(Device("mps", "Apple GPU, untested"))
        return [*gpus, Device("cpu", f"{torch.get_num_threads()} threads")]

    def settings(self) -> dict[str, Any]:
        onednn = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
        gpu = {"pool_lacks": missing_for_triton("cuda:0")} if torch.cuda.is_available() else {}
        return {"threads": torch.get_num_threads(), "spins": spins(), **gpu,
                "onednn": onednn[1] if onednn else None,
                "cpu_capability": torch.backends.cpu.get_cpu_capability(),
                "built_for_cuda": torch.version.cuda,
                "float32_matmul_precision": torch.get_float32_matmul_precision(),
                "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
                "cudnn_benchmark": torch.backends.cudnn.benchmark}

    def precisions(self, device: str) -> list[str]:
        if device == "cpu":
            return ["float32", "bfloat16"]
        if device == "mps":
            return ["float32"]
        tensor_cores = torch.cuda.get_device_capability(device) >= (8, 0)
        return ["float32", "tf32", "bfloat16"] if tensor_cores else ["float32"]

    def build(self, network: Network, parameters: Mapping[str, NDArray[np.float32]], device: str = "cpu",
              execution: Execution = AS_IT_COMES) -> TorchModel:
        device = find_device(self, device)
        precision = find_precision(self, device, execution.precision)
        speed = execution.settings(self.name, SPEED, device)
        if "pool" in speed and (missing := missing_for_triton(device)):
            if execution.speed.get("pool"):
                raise BackendUnavailable(f"backend torch: `pool=True` needs {missing}")
            warnings.warn(f"PyTorch's own pooling is used; the faster kernel needs {missing}", Notice, stacklevel=2)
            speed -= {"pool"}
        # float32 means IEEE float32: TF32 is on by default in cuDNN's convolutions. The switches are process-wide.
        tf32 = precision == "tf32"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = "autotune" in speed
        if "allocator" in speed:
            keep_large_blocks()
        collect_garbage(parameters)
        return TorchModel(network, parameters, device, speed, precision)

    def encode_weights(self, file_format: str, network: Network, parameters: Parameters) -> bytes:
        return formats.encode(file_format, network, parameters)

    def ceilings(self, device: str, execution: Execution) -> dict[str, Ceiling]:
        size = 2048 if device == "cpu" else 8192
        dtype = torch.bfloat16 if execution.precision == "bfloat16" else torch.float32
        a, b = (torch.from_numpy(matrix).to(device, dtype) for matrix in random_matrices(size))
        product = torch.empty(size, size, dtype=dtype, device=device)
        source = torch.from_numpy(random_bytes(COPIED_BYTES)).to(device)
        target = torch.empty_like(source)
        return {"matrix product": Ceiling(lambda: torch.mm(a, b, out=product), 2.0 * size**3),
                "copy": Ceiling(lambda: target.copy_(source), 2.0 * COPIED_BYTES)}

    def book(self, device: str, batch_size: int) -> dict[str, Callable[[], Any]]:
        from alexnet_mf.backends.torch import book

        return book.calls(batch_size, device)

    def synchronize(self, device: str) -> None:
        synchronize(device)

    def peak_memory(self, device: str) -> int | None:
        return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else None


def inference(call: Callable[[torch.Tensor], torch.Tensor], device: str,
              precision: str) -> Callable[..., tuple[torch.Tensor, ...]]:
    """Return the forward pass as a function of pixels. It refers to no model: see `TorchTrainer._step_on`."""
    def forward(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode(), autocast(device, precision):
            return (call(pixels),)
    return forward


def missing_for_triton(device: str) -> str | None:
    """Return the requirement of Triton's kernels that this machine lacks, or None."""
    if importlib.util.find_spec("triton") is None:
        return "Triton, which PyTorch brings on Linux"
    if not has_compiler("CC", "gcc", "clang"):
        return "a C compiler: install gcc or set CC"
    if torch.cuda.get_device_capability(device) < TRITONS_OLDEST:
        return "a GPU of the Volta generation or later"
    return None


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "mps":
        torch.mps.synchronize()
    elif device != "cpu":
        torch.cuda.synchronize(device)
