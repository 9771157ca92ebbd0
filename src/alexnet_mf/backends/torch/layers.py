"""The layers that PyTorch has no module for."""

from __future__ import annotations

import torch
from torch import nn


class Normalize(nn.Module):
    """torchvision's transform of this name as a module, which moves to the device with its network.

    Its numbers are buffers that a state_dict leaves out: a state_dict has the parameters alone.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std
