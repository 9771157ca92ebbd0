"""Augmentation of a batch, on its device."""

from __future__ import annotations

import torch
from torch.nn import functional

from alexnet_mf.data.augmentation import LUMA, Draws
from alexnet_mf.data.preprocessing import center_slices


def augment(images: torch.Tensor, draws: Draws, drawn: tuple[torch.Tensor, ...], white: float) -> torch.Tensor:
    """Flip, crop, then change the colors.

    Args:
        images: (n, channels, height, width).
        draws: draws of any step; values that change from step to step are in `drawn`, where a graph reads them.
        white: the largest value of a pixel; the smallest is 0.
    """
    if draws.moved:
        images = move(images, draws, *drawn[:2])
    else:
        rows, columns = center_slices(draws.stored, draws.size)
        images = images[..., rows, columns]
    if draws.colored:
        images = color(images, drawn[-2 if draws.shifted else -1], white)
    return shift(images, drawn[-1], white) if draws.shifted else images


def move(images: torch.Tensor, draws: Draws, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Flip and crop: gather rows of the padded images, then columns."""
    above, left = draws.padding
    height, width = rows.shape[1], columns.shape[1]
    padded = functional.pad(images, (left, left, above, above))
    channels, padded_width = padded.shape[1], padded.shape[3]
    padded = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, padded_width))
    return padded.gather(3, columns[:, None, None, :].expand(-1, channels, height, width))


def color(images: torch.Tensor, factors: torch.Tensor, white: float) -> torch.Tensor:
    """Change brightness, contrast and saturation."""
    brightness, contrast, saturation = factors.T.reshape(3, -1, 1, 1, 1)
    images = (brightness * images).clamp(0, white)
    images = (contrast * images + (1 - contrast) * gray(images).mean((1, 2, 3), keepdim=True)).clamp(0, white)
    if images.shape[1] == 3:
        images = (saturation * images + (1 - saturation) * gray(images)).clamp(0, white)
    return images


def shift(images: torch.Tensor, shifts: torch.Tensor, white: float) -> torch.Tensor:
    """Add a number to each channel."""
    return (images + white * shifts[:, :, None, None]).clamp(0, white)


def gray(images: torch.Tensor) -> torch.Tensor:
    """Return the gray images, (n, 1, height, width)."""
    if images.shape[1] == 1:
        return images
    return sum(share * images[:, i:i + 1] for i, share in enumerate(LUMA))  # type: ignore[return-value]


def tensors(draws: Draws, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Return the draws that change from step to step: rows and columns if pixels move, factors and shifts if colors
    change."""
    moves = (draws.rows(), draws.columns()) if draws.moved else ()
    colors = (draws.factors,) * draws.colored + (draws.shifts,) * draws.shifted
    indices = tuple(torch.from_numpy(index).to(device, torch.int64, non_blocking=True) for index in moves)
    return (*indices, *(torch.from_numpy(each).to(device) for each in colors))
