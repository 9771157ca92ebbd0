"""What augmentation does to a batch, on its device."""

from __future__ import annotations

import tensorflow as tf

from alexnet_mf.data.augmentation import LUMA, Draws

SPECIFICATION = (tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.int32),
                 tf.TensorSpec([None, 3], tf.float32))
"""Of the tensors that `tensors` gives."""


def tensors(draws: Draws) -> tuple[tf.Tensor, ...]:
    """What of the draws is another in each step: rows, columns and factors."""
    return tf.constant(draws.rows()), tf.constant(draws.columns()), tf.constant(draws.factors)


def augment(images: tf.Tensor, draws: Draws, drawn: tuple[tf.Tensor, ...], white: float) -> tf.Tensor:
    """Flip, crop, then colour.

    Args:
        images: (n, height, width, channels).
        draws: of any step; what is another in each step comes from `drawn`, for the sake of the graph.
        white: the largest value of a pixel; the least is 0.
    """
    rows, columns, factors = drawn
    if draws.moved:
        (above, left) = draws.padding
        images = tf.pad(images, [[0, 0], [above, above], [left, left], [0, 0]])
        images = tf.gather(images, rows, axis=1, batch_dims=1)
        images = tf.gather(images, columns, axis=2, batch_dims=1)
    return colour(images, factors, white) if draws.coloured else images


def colour(images: tf.Tensor, factors: tf.Tensor, white: float) -> tf.Tensor:
    """Brightness, contrast and saturation."""
    brightness, contrast, saturation = tf.unstack(tf.reshape(tf.transpose(factors), [3, -1, 1, 1, 1]))
    images = tf.clip_by_value(brightness * images, 0, white)
    mean = tf.reduce_mean(grey(images), [1, 2, 3], keepdims=True)
    images = tf.clip_by_value(contrast * images + (1 - contrast) * mean, 0, white)
    if images.shape[3] == 3:
        images = tf.clip_by_value(saturation * images + (1 - saturation) * grey(images), 0, white)
    return images


def grey(images: tf.Tensor) -> tf.Tensor:
    """(n, height, width, 1)."""
    if images.shape[3] == 1:
        return images
    return tf.add_n([share * images[..., i:i + 1] for i, share in enumerate(LUMA)])
