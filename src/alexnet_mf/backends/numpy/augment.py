"""What augmentation does to a batch: the specification, image by image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data.augmentation import LUMA, Draws


def augment(images: NDArray[np.float32], draws: Draws, white: float) -> NDArray[np.float32]:
    """Flip, crop, then colour.

    Args:
        images: (n, channels, height, width).
        white: the largest value of a pixel: 255 for grey levels, 1 for inputs that are ready. The least is 0.
    """
    return np.stack([augment_one(image, draws, i, np.float32(white)) for i, image in enumerate(images)])


def augment_one(image: NDArray[np.float32], draws: Draws, i: int, white: np.float32) -> NDArray[np.float32]:
    """Image i of the batch, (channels, height, width)."""
    if draws.flip[i]:
        image = image[:, :, ::-1]
    (above, left), (row, column) = draws.padding, draws.corner[i]
    padded = np.pad(image, ((0, 0), (above, above), (left, left)))
    image = padded[:, row:row + draws.size[0], column:column + draws.size[1]]
    return colour(image, draws.factors[i], white) if draws.coloured else image


def colour(image: NDArray[np.float32], factors: NDArray[np.float32], white: np.float32) -> NDArray[np.float32]:
    """Brightness: nearer to black or farther from it. Contrast: the same about the image's mean grey. Saturation: the
    same about each pixel's own grey. What leaves the range of a pixel is cut off after each.
    """
    brightness, contrast, saturation = factors
    one = np.float32(1)  # beside Python's own, NumPy 1 takes these scalars to float64
    image = np.clip(brightness * image, 0, white)
    image = np.clip(contrast * image + (one - contrast) * grey(image).mean(), 0, white)
    if len(image) == 3:
        image = np.clip(saturation * image + (one - saturation) * grey(image), 0, white)
    return image


def grey(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(1, height, width)."""
    if len(image) == 1:
        return image
    red, green, blue = image
    return (np.float32(LUMA[0]) * red + np.float32(LUMA[1]) * green + np.float32(LUMA[2]) * blue)[np.newaxis]
