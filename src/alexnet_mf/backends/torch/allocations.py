"""Memory of a training step in PyTorch's GPU allocator, without the workspaces of cuDNN and cuBLAS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

STEPS = 2
"""Number of steps to observe; the second one has gradients and velocity from the start."""


class AfterEachOperation(TorchDispatchMode):
    """Read a counter after each operation, forward and backward, and keep the largest value.

    cuDNN frees its workspace at the end of each operation.
    """

    def __init__(self, read: Callable[[], int]) -> None:
        super().__init__()
        self.read = read
        self.largest = read()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.largest = max(self.largest, self.read())
        return result


def step_memory(step: Callable[[int], None], weights: int, allocated: Callable[[], int],
                release_workspaces: Callable[[], None]) -> int:
    """Return the largest number of bytes that training steps hold.

    Args:
        step: takes the step of that number, with a trainer that has not taken one.
        weights: bytes of the parameters, allocated before.
        allocated: returns the number of bytes that are allocated now.
        release_workspaces: frees the memory that cuBLAS keeps after its first use.
    """
    release_workspaces()
    before = allocated()
    with AfterEachOperation(allocated) as observer:
        for number in range(STEPS):
            step(number)
    after = allocated()
    release_workspaces()
    return weights + observer.largest - before - (after - allocated())
