"""Run a function of tensors as one CUDA graph: the GPU does not wait for Python between the kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from alexnet_mf.errors import BackendUnavailable

MOST_RECORDINGS = 8
"""Largest number of graphs of one function; the oldest is dropped."""

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: Tensors
    """Tensors from which the graph reads its arguments."""
    outputs: Tensors
    """Tensors to which it writes its results; the next replay overwrites them."""


@functools.cache
def recording_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the process's one stream for recordings: cuBLAS keeps 32 MB for every stream that it was called on."""
    return torch.cuda.Stream(device)


class GraphMemory:
    """Stream and memory of the graphs of one model, which never run at the same time.

    A replay overwrites the results of the other graphs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = recording_stream(device)
        self.pool = torch.cuda.graph_pool_handle()


class Graphed:
    """Call a function directly the first two times for each set of argument shapes; then replay its graph.

    A shape that comes once, such as a last batch's in prediction, is not worth a recording. The function must compute
    the same for the same arguments and memory: it may update weights in place and draw from the GPU's default
    generator, whose seed each replay reads again. A replay does not run its Python code.
    """

    def __init__(self, function: Callable[..., Tensors], memory: GraphMemory) -> None:
        self._function = function
        self._memory = memory
        self._called: set[tuple[torch.Size, ...]] = set()
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}

    def __call__(self, *arguments: torch.Tensor) -> Tensors:
        """Return the function's results; the next call of any graph of the same memory overwrites them."""
        shapes = tuple(argument.shape for argument in arguments)
        if shapes not in self._recordings:
            results = self._directly(arguments)  # the first call also loads, chooses and compiles the kernels
            if shapes in self._called:
                if len(self._recordings) == MOST_RECORDINGS:
                    del self._recordings[next(iter(self._recordings))]
                self._recordings[shapes] = self._record(arguments)
            self._called.add(shapes)
            return results
        recording = self._recordings[shapes]
        for place, argument in zip(recording.inputs, arguments):
            place.copy_(argument, non_blocking=True)
        recording.graph.replay()
        return recording.outputs

    def _directly(self, arguments: Tensors) -> Tensors:
        """Call the function on a stream of its own, as PyTorch asks before a recording."""
        mine, callers = self._memory.stream, torch.cuda.current_stream(self._memory.device)
        mine.wait_stream(callers)
        with torch.cuda.stream(mine):
            results = self._function(*arguments)
        callers.wait_stream(mine)
        return results

    def _record(self, arguments: Tensors) -> _Recording:
        """Record one call without running it.

        Raises:
            BackendUnavailable: if the function cannot be recorded. PyTorch's allocator and generators are then in an
                unknown state, so the process cannot continue without a graph.
        """
        inputs = tuple(argument.clone() for argument in arguments)
        torch.cuda.empty_cache()  # the direct call's memory, which PyTorch cannot reuse while recording
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._memory.pool, stream=self._memory.stream):
                outputs = self._function(*inputs)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if isinstance(error.__context__, torch.cuda.OutOfMemoryError):  # ending the recording failed because of it
                raise error.__context__ from None
            raise BackendUnavailable(f"backend torch: cannot be recorded as a CUDA graph ({error}); use `graph=False` "
                                     "in a new process") from error
        return _Recording(graph, inputs, outputs)
