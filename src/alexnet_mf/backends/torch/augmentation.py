"""What augmentation does to a batch, on its device."""

from __future__ import annotations

import torch
from torch.nn import functional

from alexnet_mf.data.augmentation import LUMA, Draws


def augment(images: torch.Tensor, draws: Draws, white: float) -> torch.Tensor:
    """Flip, crop, then colour.

    Args:
        images: (n, channels, height, width).
        white: the largest value of a pixel; the least is 0.
    """
    if draws.moved:
        images = move(images, draws)
    return colour(images, torch.from_numpy(draws.factors).to(images.device), white) if draws.coloured else images


def move(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Flip and crop: of the padded images some rows, and of these some columns."""
    (above, left), (height, width) = draws.padding, draws.size
    padded = functional.pad(images, (left, left, above, above))
    rows, columns = (torch.from_numpy(index).to(images.device, torch.int64)
                     for index in (draws.rows(), draws.columns()))
    channels, padded_width = padded.shape[1], padded.shape[3]
    padded = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, padded_width))
    return padded.gather(3, columns[:, None, None, :].expand(-1, channels, height, width))


def colour(images: torch.Tensor, factors: torch.Tensor, white: float) -> torch.Tensor:
    """Brightness, contrast and saturation."""
    brightness, contrast, saturation = factors.T.reshape(3, -1, 1, 1, 1)
    images = (brightness * images).clamp(0, white)
    images = (contrast * images + (1 - contrast) * grey(images).mean((1, 2, 3), keepdim=True)).clamp(0, white)
    if images.shape[1] == 3:
        images = (saturation * images + (1 - saturation) * grey(images)).clamp(0, white)
    return images


def grey(images: torch.Tensor) -> torch.Tensor:
    """(n, 1, height, width)."""
    if images.shape[1] == 1:
        return images
    return sum(share * images[:, i:i + 1] for i, share in enumerate(LUMA))  # type: ignore[return-value]
