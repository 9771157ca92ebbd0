"""Augmentation of a batch, on its device."""

from __future__ import annotations

import mxnet as mx
import numpy as np

from alexnet_mf.data.augmentation import LUMA, Draws
from alexnet_mf.data.preprocessing import center_slices


def augment(images: mx.nd.NDArray, draws: Draws, white: float) -> mx.nd.NDArray:
    """Flip, crop, then change the colors.

    Args:
        images: (n, channels, height, width).
        white: largest value of a pixel; the smallest is 0.
    """
    if draws.moved:
        images = move(images, draws)
    else:
        rows, columns = center_slices(draws.stored, draws.size)
        images = images[:, :, rows, columns]
    if draws.colored:
        images = color(images, mx.nd.array(draws.factors, ctx=images.context), white)
    if draws.shifted:
        images = shift(images, mx.nd.array(draws.shifts, ctx=images.context), white)
    return images


def move(images: mx.nd.NDArray, draws: Draws) -> mx.nd.NDArray:
    """Flip and crop.

    MXNet's `take` reads along one axis, with the same indices for all images. So the padded batch becomes one row of
    values, and the index of a pixel is the sum of the offsets of its plane, row and column.
    """
    (above, left) = draws.padding
    if above or left:
        images = mx.nd.pad(images, mode="constant", constant_value=0,
                           pad_width=(0, 0, 0, 0, above, above, left, left))
    count, channels, height, width = images.shape
    planes = (np.arange(count * channels) * height * width).reshape(count, channels, 1, 1)
    parts = (planes, draws.rows()[:, np.newaxis, :, np.newaxis] * width, draws.columns()[:, np.newaxis, np.newaxis, :])
    plane, row, column = (mx.nd.array(part, ctx=images.context, dtype="int32") for part in parts)
    return mx.nd.take(images.reshape(-1), plane + row + column)


def color(images: mx.nd.NDArray, factors: mx.nd.NDArray, white: float) -> mx.nd.NDArray:
    """Change brightness, contrast and saturation."""
    brightness, contrast, saturation = factors.T.reshape((3, -1, 1, 1, 1))
    images = (brightness * images).clip(0, white)
    mean = gray(images).mean(axis=(1, 2, 3), keepdims=True)
    images = (contrast * images + (1 - contrast) * mean).clip(0, white)
    if images.shape[1] == 3:
        images = (saturation * images + (1 - saturation) * gray(images)).clip(0, white)
    return images


def shift(images: mx.nd.NDArray, shifts: mx.nd.NDArray, white: float) -> mx.nd.NDArray:
    """Add a number to each channel."""
    return (images + white * shifts.reshape((0, 0, 1, 1))).clip(0, white)


def gray(images: mx.nd.NDArray) -> mx.nd.NDArray:
    """Return the gray images, (n, 1, height, width)."""
    if images.shape[1] == 1:
        return images
    return sum(share * images.slice_axis(1, i, i + 1) for i, share in enumerate(LUMA))
