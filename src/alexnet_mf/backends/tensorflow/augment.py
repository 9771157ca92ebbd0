"""Augmentation of a batch, on its device."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from alexnet_mf.data.augmentation import LUMA, Draws
from alexnet_mf.data.preprocessing import center_slices

SPECIFICATION = (tf.TensorSpec([None, None, None], tf.int32), tf.TensorSpec([None, None, None], tf.int32),
                 tf.TensorSpec([None, None, 3], tf.float32), tf.TensorSpec([None, None, 3], tf.float32))
"""Specification of the results of `arrays`, for several steps."""


def augment(images: tf.Tensor, draws: Draws, drawn: tuple[tf.Tensor, ...], white: float) -> tf.Tensor:
    """Flip, crop, then change the colors.

    Args:
        images: (n, height, width, channels).
        draws: draws of any step; values that change from step to step are in `drawn`, where a graph reads them.
        white: largest value of a pixel; the smallest is 0.
    """
    rows, columns, factors, shifts = drawn
    if draws.moved:
        images = move(images, draws, rows, columns)
    else:
        top, left = center_slices(draws.stored, draws.size)
        images = images[:, top, left]
    if draws.colored:
        images = color(images, factors, white)
    return shift(images, shifts, white) if draws.shifted else images


def move(images: tf.Tensor, draws: Draws, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Flip and crop: gather rows of the padded images, then columns."""
    (above, left) = draws.padding
    images = tf.pad(images, [[0, 0], [above, above], [left, left], [0, 0]])
    return tf.gather(tf.gather(images, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def color(images: tf.Tensor, factors: tf.Tensor, white: float) -> tf.Tensor:
    """Change brightness, contrast and saturation."""
    brightness, contrast, saturation = tf.unstack(tf.reshape(tf.transpose(factors), [3, -1, 1, 1, 1]))
    images = tf.clip_by_value(brightness * images, 0, white)
    mean = tf.reduce_mean(gray(images), [1, 2, 3], keepdims=True)
    images = tf.clip_by_value(contrast * images + (1 - contrast) * mean, 0, white)
    if images.shape[3] == 3:
        images = tf.clip_by_value(saturation * images + (1 - saturation) * gray(images), 0, white)
    return images


def shift(images: tf.Tensor, shifts: tf.Tensor, white: float) -> tf.Tensor:
    """Add a number to each channel."""
    return tf.clip_by_value(images + white * shifts[:, tf.newaxis, tf.newaxis], 0, white)


def gray(images: tf.Tensor) -> tf.Tensor:
    """Return the gray images, (n, height, width, 1)."""
    if images.shape[3] == 1:
        return images
    return tf.add_n([share * images[..., i:i + 1] for i, share in enumerate(LUMA)])


def arrays(draws: Draws) -> tuple[NDArray[Any], ...]:
    """Return the draws that change from step to step: rows, columns, factors and shifts."""
    return draws.rows(), draws.columns(), draws.factors, draws.shifts


def tensors(draws: Draws) -> tuple[tf.Tensor, ...]:
    """Return the results of `arrays` as tensors."""
    return tuple(map(tf.constant, arrays(draws)))
