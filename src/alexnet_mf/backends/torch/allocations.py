"""What a training step holds on a GPU by PyTorch's allocator, without what cuDNN and cuBLAS borrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

STEPS = 2
"""The second has the gradients of the first, and the velocity."""


class AfterEachOperation(TorchDispatchMode):
    """Reads a counter after each operation, forward and backward, and keeps the largest reading.

    cuDNN gives its workspace back at the end of the operation that it was for.
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
    """The most bytes that training steps hold.

    Args:
        step: takes the step of that number, with a trainer that has not taken one.
        weights: bytes of the parameters, which were there before.
        allocated: bytes that the allocator has given out at this moment.
        release_workspaces: gives back what cuBLAS keeps for good once it has been used.
    """
    release_workspaces()
    before = allocated()
    with AfterEachOperation(allocated) as seen:
        for number in range(STEPS):
            step(number)
    after = allocated()
    release_workspaces()
    return weights + seen.largest - before - (after - allocated())
