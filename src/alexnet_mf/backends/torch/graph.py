"""A function of tensors as one CUDA graph: the GPU runs its kernels without waiting for Python between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from alexnet_mf.errors import BackendUnavailable

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: Tensors
    """Where the graph reads its arguments."""
    outputs: Tensors
    """Where it leaves its results; the next replay overwrites them."""


class Graphed:
    """Call a function directly the first time that it gets arguments of some shapes, and replay its graph from then on.

    The function must compute the same for the same arguments and memory: it may update weights in place and draw from
    the GPU's default generator, whose seed a replay reads anew, but its Python code runs at the first call only.
    """

    def __init__(self, function: Callable[..., Tensors], device: torch.device) -> None:
        self._function = function
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}

    def __call__(self, *arguments: torch.Tensor) -> Tensors:
        """Return the function's results; the next call overwrites them."""
        shapes = tuple(argument.shape for argument in arguments)
        if shapes not in self._recordings:
            results = self._directly(arguments)  # a real call, which also loads, chooses and compiles the kernels
            self._recordings[shapes] = self._record(arguments)
            return results
        recording = self._recordings[shapes]
        for place, argument in zip(recording.inputs, arguments):
            place.copy_(argument, non_blocking=True)
        recording.graph.replay()
        return recording.outputs

    def _directly(self, arguments: Tensors) -> Tensors:
        """Call the function on a stream of its own, as PyTorch asks before a recording."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            results = self._function(*arguments)
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return results

    def _record(self, arguments: Tensors) -> _Recording:
        """Record one call without running it.

        Raises:
            BackendUnavailable: if something in it cannot be recorded. PyTorch's allocator and generators may be in any
                state then, so there is no going on without a graph.
        """
        inputs = tuple(argument.clone() for argument in arguments)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                outputs = self._function(*inputs)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise BackendUnavailable(f"backend torch: cannot be recorded as a CUDA graph ({error}); use `graph=False` "
                                     "in a new process") from error
        return _Recording(graph, inputs, outputs)
