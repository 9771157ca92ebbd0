"""Augmentation of a batch: the specification, image by image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data.augmentation import LUMA, Draws


def augment(images: NDArray[np.float32], draws: Draws, white: float) -> NDArray[np.float32]:
    """Flip, crop, then change the colors.

    Args:
        images: (n, channels, height, width).
        white: largest value of a pixel: 255 for levels, 1 for ready inputs. The smallest is 0.
    """
    moved = [move(image, draws, i) for i, image in enumerate(images)]  # the center, if nothing is drawn
    if draws.colored:
        moved = [color(image, draws.factors[i], np.float32(white)) for i, image in enumerate(moved)]
    if draws.shifted:
        moved = [shift(image, draws.shifts[i], np.float32(white)) for i, image in enumerate(moved)]
    return np.stack(moved)


def move(image: NDArray[np.float32], draws: Draws, i: int) -> NDArray[np.float32]:
    """Flip and crop image i of the batch, (channels, height, width)."""
    if draws.flip[i]:
        image = image[:, :, ::-1]
    (above, left), (row, column) = draws.padding, draws.corner[i]
    padded = np.pad(image, ((0, 0), (above, above), (left, left)))
    return padded[:, row:row + draws.size[0], column:column + draws.size[1]]


def color(image: NDArray[np.float32], factors: NDArray[np.float32], white: np.float32) -> NDArray[np.float32]:
    """Change brightness, contrast and saturation.

    Each moves the pixels nearer to a gray level or farther from it: to black, to the image's mean gray, and to each
    pixel's own gray. Values outside a pixel's range are clipped after each.
    """
    brightness, contrast, saturation = factors
    one = np.float32(1)  # with a Python float, NumPy 1 promotes these scalars to float64
    image = np.clip(brightness * image, 0, white)
    image = np.clip(contrast * image + (one - contrast) * gray(image).mean(), 0, white)
    if len(image) == 3:
        image = np.clip(saturation * image + (one - saturation) * gray(image), 0, white)
    return image


def shift(image: NDArray[np.float32], shifts: NDArray[np.float32], white: np.float32) -> NDArray[np.float32]:
    """Add a number to each channel; values outside a pixel's range are clipped."""
    return np.clip(image + white * shifts[:, np.newaxis, np.newaxis], 0, white)


def gray(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the gray image, (1, height, width)."""
    if len(image) == 1:
        return image
    red, green, blue = image
    return (np.float32(LUMA[0]) * red + np.float32(LUMA[1]) * green + np.float32(LUMA[2]) * blue)[np.newaxis]
