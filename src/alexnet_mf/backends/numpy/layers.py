"""Forward and backward of every layer type, as pure functions of plain arrays.

Names follow one rule. `gradient` is the derivative of the loss in a layer's output; each `..._backward` function turns
it into the derivative in that layer's input or parameters by the chain rule. Activations are (n, channels, height,
width), convolution weights (out, in, kernel, kernel), dense weights (out, in). The dtype follows the arguments: in
float64 this is the reference; the same code in float32 measures the errors of float32.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.spec.layers import Padding, sides

Array: TypeAlias = NDArray[Any]
"""Floating-point numbers, all of one dtype."""
Sums: TypeAlias = Callable[[Array], Array]
"""Function that adds up each channel."""

GELU_SCALE, GELU_CUBE = math.sqrt(2 / math.pi), 0.044715
"""Numbers of the approximation of GELU (Hendrycks and Gimpel 2016)."""


def window_pixels(x: Array, kernel: int, stride: int) -> list[Array]:
    """Return, for each position in the sliding window, row by row, the pixels of all windows there.

    A window moves over the last two axes of `x`, `stride` pixels at a time. Its pixel at (row, column) runs over
    every `stride`-th pixel of `x`, beginning at (row, column): a plain slice. So all windows together are kernel x
    kernel slices, and they are views: reading them gathers from `x`, adding to them scatters into `x`. Convolution
    and pooling, forward and backward, rest on this one function.

    Returns:
        kernel * kernel views (..., output height, output width) of `x`.
    """
    height, width = ((size - kernel) // stride + 1 for size in x.shape[-2:])
    return [x[..., row : row + stride * height : stride, column : column + stride * width : stride]
            for row in range(kernel) for column in range(kernel)]


def conv2d_forward(x: Array, weight: Array, bias: Array, stride: int, padding: Padding, groups: int = 1) -> Array:
    """Return the cross-correlation: products of windows and filters, summed over channels and the window's pixels.

    Groups are convolutions side by side: each share of the filters sees its own share of the channels. `weight` is
    (out, in / groups, kernel, kernel).
    """
    kernel = weight.shape[-1]
    # An image at a time, here and below: its patches take kernel^2 / stride^2 times the memory of its pixels.
    images = []
    for image in pad(x, padding):
        shares = zip(np.split(weight, groups), np.split(_patches(image, kernel, stride), groups))
        images.append(np.concatenate([np.tensordot(filters, patches, axes=3) for filters, patches in shares]))
    return np.stack(images) + bias[:, None, None]


def conv2d_backward_parameters(
    gradient: Array, x: Array, kernel: int, stride: int, padding: Padding, groups: int = 1
) -> tuple[Array, Array]:
    """Return the gradients in the weight and the bias.

    A weight is used once in every window: it multiplies one pixel there, and the product is added to one output. So
    its gradient is the sum, over all windows, of that pixel times the gradient in that output. The bias multiplies 1.
    """
    channels = gradient.shape[1]
    weight_gradient = np.zeros((channels, x.shape[1] // groups, kernel, kernel), gradient.dtype)
    for image, image_gradient in zip(pad(x, padding), gradient):
        shares = zip(np.split(weight_gradient, groups), np.split(image_gradient, groups),
                     np.split(_patches(image, kernel, stride), groups))
        for share, share_gradient, patches in shares:
            share += np.tensordot(share_gradient, patches, axes=((1, 2), (3, 4)))
    return weight_gradient, gradient.sum(axis=(0, 2, 3))


def conv2d_backward_input(
    gradient: Array, weight: Array, input_shape: tuple[int, ...], stride: int, padding: Padding, groups: int = 1
) -> Array:
    """Return the gradient in the input.

    A pixel is used once for every window that covers it and every filter: it multiplies one weight there. So each
    window hands the weights times its output's gradient back to its pixels, and where windows overlap, they add up.
    """
    kernel = weight.shape[-1]
    padded, inside = _padded_zeros(input_shape, padding, gradient)
    for image, image_gradient in zip(padded, gradient):
        patches = np.concatenate([np.tensordot(filters, share, axes=(0, 0)) for filters, share
                                  in zip(np.split(weight, groups), np.split(image_gradient, groups))])
        positions = patches.reshape(len(image), kernel * kernel, *patches.shape[-2:])
        for position, pixels in enumerate(window_pixels(image, kernel, stride)):
            pixels += positions[:, position]
    return inside


def pad(x: Array, padding: Padding, value: float = 0) -> Array:
    """Return the images (n, channels, height, width) surrounded by a number."""
    return np.pad(x, ((0, 0), (0, 0), *sides(padding)), constant_values=value) if padding else x


def _padded_zeros(shape: tuple[int, ...], padding: Padding, like: Array) -> tuple[Array, Array]:
    """Return zeros for padded images, and the view of them without their padding, which has this shape."""
    (top, bottom), (left, right) = sides(padding)
    *outer, height, width = shape
    zeros = np.zeros((*outer, top + height + bottom, left + width + right), like.dtype)
    return zeros, zeros[..., top : top + height, left : left + width]


def _patches(image: Array, kernel: int, stride: int) -> Array:
    """Return every window of one padded image: (channels, kernel, kernel, output height, output width)."""
    pixels = np.stack(window_pixels(image, kernel, stride), axis=1)
    return pixels.reshape(len(image), kernel, kernel, *pixels.shape[-2:])


def relu_forward(x: Array) -> Array:
    """Keep positive values, and set the others to zero."""
    return np.maximum(x, 0)


def relu_backward(gradient: Array, positive: NDArray[np.bool_]) -> Array:
    """Pass the gradient where the output is `positive`; nothing passes at exactly zero, as in every framework."""
    return gradient * positive


def sigmoid_forward(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) without overflow: the exponents are never positive."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def sigmoid_backward(gradient: Array, output: Array) -> Array:
    """Return the gradient in the input, from the sigmoid's output."""
    return gradient * output * (1 - output)


def tanh_forward(x: Array) -> Array:
    """Return the hyperbolic tangent."""
    return np.tanh(x)


def tanh_backward(gradient: Array, output: Array) -> Array:
    """Return the gradient in the input, from the tangent's output."""
    return gradient * (1 - output**2)


def elu_forward(x: Array, alpha: float) -> Array:
    """Keep positive values, and return alpha (exp(x) - 1) for the others."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_backward(gradient: Array, output: Array, positive: NDArray[np.bool_], alpha: float) -> Array:
    """Pass the gradient where the output is `positive`; elsewhere multiply it by alpha exp(x) = output + alpha.

    The derivative at exactly zero is alpha, as in every framework.
    """
    return np.where(positive, gradient, gradient * (output + alpha))


def leaky_relu_forward(x: Array, alpha: float) -> Array:
    """Keep positive values, and multiply the others by alpha."""
    return np.where(x > 0, x, alpha * x)


def leaky_relu_backward(gradient: Array, positive: NDArray[np.bool_], alpha: float) -> Array:
    """Pass the gradient where the output is `positive`; elsewhere, zero included, multiply it by alpha."""
    return np.where(positive, gradient, alpha * gradient)


def gelu_forward(x: Array) -> Array:
    """Return x times the share of a standard normal distribution that lies below x."""
    return x * _share_below(x)


def gelu_backward(gradient: Array, x: Array) -> Array:
    """Return the gradient in the input: the derivative of the share is the normal density."""
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return gradient * (_share_below(x) + x * density)


def _share_below(x: Array) -> Array:
    return (1 + _ERF(x / math.sqrt(2)).astype(x.dtype)) / 2


_ERF = np.frompyfunc(math.erf, 1, 1)  # NumPy has no error function


def gelu_tanh_forward(x: Array) -> Array:
    """Return GELU's approximation x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    return x * (1 + np.tanh(GELU_SCALE * (x + GELU_CUBE * x**3))) / 2


def gelu_tanh_backward(gradient: Array, x: Array) -> Array:
    """Return the gradient in the input, by the product rule."""
    tanh = np.tanh(GELU_SCALE * (x + GELU_CUBE * x**3))
    slope = GELU_SCALE * (1 + 3 * GELU_CUBE * x**2) * (1 - tanh**2)
    return gradient * (1 + tanh + x * slope) / 2


def max_pool_forward(x: Array, kernel: int, stride: int, padding: Padding = 0) -> Array:
    """Return the largest value in each window; windows that do not fit are left out.

    Padding is minus infinity. No window has padding alone, so it is never the largest.
    """
    return functools.reduce(np.maximum, window_pixels(pad(x, padding, -np.inf), kernel, stride))


def max_pool_choice(x: Array, kernel: int, stride: int, padding: Padding = 0) -> NDArray[np.int64]:
    """Return the position of the largest value in each window, counted row by row, (n, channels, height, width).

    Exact ties are common (upsampled images have flat areas, ReLU gives zeros). The first of the tied positions, row by
    row, is chosen. As tested on the CPU in 2026-11, torch 2.15.0, TensorFlow 2.21.0 (eager, tf.function, XLA) and mxnet
    1.9.1 (imperative, hybridized) all do the same.
    """
    pixels = window_pixels(pad(x, padding, -np.inf), kernel, stride)
    largest = pixels[0].copy()
    choice = np.zeros(largest.shape, np.int64)
    for position, candidate in enumerate(pixels):
        larger = candidate > largest  # not >=: an equal value that comes later does not displace the first
        np.copyto(largest, candidate, where=larger)
        choice[larger] = position
    return choice


def max_pool_backward(
    gradient: Array, choice: NDArray[np.int64], input_shape: tuple[int, ...], kernel: int, stride: int,
    padding: Padding = 0
) -> Array:
    """Pass each window's gradient to its chosen pixel; a pixel that several windows chose gets the sum."""
    padded, inside = _padded_zeros(input_shape, padding, gradient)
    for position, pixels in enumerate(window_pixels(padded, kernel, stride)):
        np.add(pixels, gradient, out=pixels, where=choice == position)
    return inside


def avg_pool_forward(x: Array, kernel: int, stride: int, padding: Padding = 0, count_padding: bool = False) -> Array:
    """Return the mean of each window; windows that do not fit are left out.

    Padding is zeros, which count in the mean with `count_padding`; else it is the mean over the image's own pixels.
    """
    sums = functools.reduce(np.add, window_pixels(pad(x, padding), kernel, stride))
    return sums / _pixel_counts(x.shape, kernel, stride, padding, count_padding, x)


def avg_pool_backward(gradient: Array, input_shape: tuple[int, ...], kernel: int, stride: int, padding: Padding = 0,
                      count_padding: bool = False) -> Array:
    """Pass each window's gradient to its pixels in equal shares; shares of several windows add up."""
    padded, inside = _padded_zeros(input_shape, padding, gradient)
    share = gradient / _pixel_counts(input_shape, kernel, stride, padding, count_padding, gradient)
    for pixels in window_pixels(padded, kernel, stride):
        pixels += share
    return inside


def _pixel_counts(shape: tuple[int, ...], kernel: int, stride: int, padding: Padding, count_padding: bool,
                  like: Array) -> Array | int:
    """Return the number of pixels that count in the mean of each window."""
    if count_padding or not padding:
        return kernel**2
    ones, inside = _padded_zeros(shape[-2:], padding, like)
    inside += 1
    return functools.reduce(np.add, window_pixels(ones, kernel, stride))


def adaptive_avg_pool_forward(x: Array, size: int) -> Array:
    """Return the mean of each of size x size areas."""
    output = np.empty((*x.shape[:2], size, size), x.dtype)
    for position, area in areas(x, size):
        output[position] = area.mean(axis=(2, 3))
    return output


def adaptive_avg_pool_backward(gradient: Array, input_shape: tuple[int, ...], size: int) -> Array:
    """Pass each area's gradient to its pixels in equal shares; areas differ in their number of pixels."""
    result = np.zeros(input_shape, gradient.dtype)
    for position, area in areas(result, size):
        area += (gradient[position] / area[0, 0].size)[:, :, None, None]
    return result


def areas(x: Array, size: int) -> Iterator[tuple[tuple[Any, ...], Array]]:
    """Yield the index of each output pixel, and the area of `x` (a view) that it averages."""
    height, width = x.shape[2:]
    for i, j in np.ndindex(size, size):
        rows = slice(i * height // size, -(-(i + 1) * height // size))  # rounded down, and up
        columns = slice(j * width // size, -(-(j + 1) * width // size))
        yield (slice(None), slice(None), i, j), x[:, :, rows, columns]


def local_response_norm_forward(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """Divide each value by (k + alpha s) ** beta, s being the sum of squares over the neighboring channels there."""
    return x * (k + alpha * _channel_sums(x**2, size)) ** -beta


def local_response_norm_backward(gradient: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """Return the gradient in the input.

    With b_i = x_i d_i^-beta and d_i = k + alpha sum_j x_j^2, the value x_j is a factor of its own b_j, and a term in
    the d_i of each neighbor i: d b_i / d x_j = -beta x_i d_i^(-beta - 1) 2 alpha x_j. The neighbor relation is mutual,
    so the sum over the i that have j as a neighbor runs over the neighbors of j.
    """
    d = k + alpha * _channel_sums(x**2, size)
    return gradient * d**-beta - 2 * alpha * beta * x * _channel_sums(gradient * x * d ** (-beta - 1), size)


def _channel_sums(values: Array, size: int) -> Array:
    """Return the sums over each channel and up to size // 2 channels on either side."""
    reach = size // 2
    padded = np.pad(values, ((0, 0), (reach, reach), (0, 0), (0, 0)))
    return functools.reduce(np.add, (padded[:, first : first + values.shape[1]] for first in range(size)))


def normalize_forward(x: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """Return (x - mean) / std, with one mean and std for each channel."""
    return (x - _planes(mean, x)) / _planes(std, x)


def normalize_backward(gradient: Array, std: tuple[float, ...]) -> Array:
    """Return the gradient in the input: divide by std; the mean is a constant."""
    return gradient / _planes(std, gradient)


def _planes(values: tuple[float, ...], x: Array) -> Array:
    """Return one number for each channel, to broadcast with (n, channels, height, width)."""
    return np.array(values, x.dtype)[:, None, None]


def channel_sums(x: Array) -> Array:
    """Return the sum of each channel, over the batch and its pixels."""
    return x.sum(axis=(0, 2, 3) if x.ndim == 4 else 0)


def batch_statistics(x: Array, sums: Sums = channel_sums) -> tuple[Array, Array]:
    """Return mean and variance of each channel, over the batch and its pixels. The variance is divided by their number.

    Args:
        sums: function like `channel_sums`, with rounding of its own.
    """
    count = x.dtype.type(x.size // x.shape[1])
    mean = sums(x) / count
    return mean, sums((x - _by_channel(mean, x)) ** 2) / count


def batch_norm_forward(x: Array, weight: Array, bias: Array, mean: Array, variance: Array, epsilon: float) -> Array:
    """Return weight (x - mean) / sqrt(variance + epsilon) + bias, with one of each for every channel.

    The linear function is computed as the frameworks do: in float32 it loses digits if the mean is far from 0.
    """
    scale = weight / np.sqrt(variance + epsilon)
    return x * _by_channel(scale, x) + _by_channel(bias - mean * scale, x)


def batch_norm_backward(gradient: Array, x: Array, weight: Array, epsilon: float,
                        sums: Sums = channel_sums) -> tuple[Array, Array, Array]:
    """Return the gradients in the input, the weight and the bias, for the batch's own statistics; `sums` is as for
    `batch_statistics`.

    With z = (x - mean) / sqrt(variance + epsilon), an input moves its own z, and through mean and variance all z of its
    channel: dz_j / dx_i = (1{i = j} - 1/n - z_i z_j / n) / sqrt(variance + epsilon).
    """
    mean, variance = batch_statistics(x, sums)
    std = np.sqrt(variance + epsilon)
    z = (x - _by_channel(mean, x)) / _by_channel(std, x)
    weight_gradient, bias_gradient = sums(gradient * z), sums(gradient)
    through_statistics = _by_channel(bias_gradient, x) + z * _by_channel(weight_gradient, x)
    count = x.dtype.type(x.size // x.shape[1])
    return (gradient - through_statistics / count) * _by_channel(weight / std, x), weight_gradient, bias_gradient


def _by_channel(values: Array, x: Array) -> Array:
    """Return one number for each channel or feature, to broadcast with `x`."""
    return values[:, None, None] if x.ndim == 4 else values


def flatten_forward(x: Array) -> Array:
    """Reshape (n, channels, height, width) to (n, features), in that order."""
    return x.reshape(len(x), -1)


def flatten_backward(gradient: Array, input_shape: tuple[int, ...]) -> Array:
    """Reshape the gradient to the input's shape."""
    return gradient.reshape(input_shape)


def dense_forward(x: Array, weight: Array, bias: Array) -> Array:
    """Return the product of every input with every unit's weights, plus the bias."""
    return x @ weight.T + bias


def dense_backward_parameters(gradient: Array, x: Array) -> tuple[Array, Array]:
    """Return the gradients in the weight and the bias, summed over the batch."""
    return gradient.T @ x, gradient.sum(axis=0)


def dense_backward_input(gradient: Array, weight: Array) -> Array:
    """Return the gradient in the input: every unit hands back its weights times its gradient."""
    return gradient @ weight


def dropout_kept(shape: tuple[int, ...], rate: float, seed: int, step: int, name: str) -> NDArray[np.bool_]:
    """Return True for the values of the layer `name` that stay at this step, determined by the arguments alone."""
    stream = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()), step))
    return np.random.Generator(np.random.PCG64(stream)).random(shape) >= rate


def dropout_forward(x: Array, kept: NDArray[np.bool_], rate: float) -> Array:
    """Set dropped values to zero and scale the others, so that the expected value stays the same."""
    return x * kept * (1 / (1 - rate))


def dropout_backward(gradient: Array, kept: NDArray[np.bool_], rate: float) -> Array:
    """Multiply by the same factors: dropout is a multiplication by constants."""
    return gradient * kept * (1 / (1 - rate))


def softmax_cross_entropy(logits: Array, labels: NDArray[np.int64]) -> tuple[float, Array]:
    """Return the batch's mean -log softmax(logits)[label], and its gradient in the logits: (softmax - one hot) / n."""
    images = np.arange(len(logits))
    shifted = logits - logits.max(axis=1, keepdims=True)  # changes no ratio, and exp cannot overflow
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1)
    losses = np.log(sums) - shifted[images, labels]
    gradient = exponentials / sums[:, None]
    gradient[images, labels] -= 1
    return float(losses.mean()), gradient / len(logits)
