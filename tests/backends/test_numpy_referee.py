"""The referee, held to numbers worked out by hand and to finite differences. No framework is needed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from alexnet_mf.backends import load
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.backends.numpy import layers, trainer, weights
from alexnet_mf.backends.numpy.layers import softmax_cross_entropy
from alexnet_mf.backends.numpy.network import NumpyNetwork, build
from alexnet_mf.data.preprocessing import PIXEL_SCALE
from alexnet_mf.errors import BackendUnavailable, DataError, ParametersError
from alexnet_mf.spec import Network, arithmetic, with_dropout
from alexnet_mf.spec.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    LocalResponseNorm,
    MaxPool2d,
    Normalize,
)
from alexnet_mf.spec.zoo import ALEXNET
from alexnet_mf.weights import parameters as canonical

# Every layer type, a stride that does not divide, padding, overlapping windows, an odd and non-square input.
SMALL = Network("small", (2, 13, 11), (
    Normalize("norm0", mean=(0.4, 0.6), std=(0.5, 0.3)),
    Conv2d("conv1", channels=3, kernel=3, stride=2, padding=1),
    MaxPool2d("pool1", kernel=3, stride=2),
    Conv2d("conv2", channels=4, kernel=2, padding=1, activation="sigmoid"),
    LocalResponseNorm("norm2", size=3, alpha=0.4, beta=0.75, k=2.0),
    Conv2d("conv3", channels=6, kernel=1, activation=None, groups=2),
    MaxPool2d("pool3", kernel=2, stride=1),
    AvgPool2d("average3", kernel=2, stride=1),
    AdaptiveAvgPool2d("areas3", size=2),
    Flatten("flatten"),
    Dense("fc4", units=6, activation="relu"),
    Dropout("drop4", rate=0.5),
    Dense("fc5", units=5, activation="sigmoid"),
    Dense("fc6", units=4),
))
# One layer with parameters: its steps can be written out.
TINY = Network("tiny", (1, 16, 16), (Flatten("flatten"), Dense("fc1", units=3)))


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def small_data(images: int = 3, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.random((images, *SMALL.input), np.float32), generator.integers(0, SMALL.classes, images)


def small_model(dtype=np.float64, seed: int = 0):
    return load("numpy").build(SMALL, canonical.initialise(SMALL, seed, random_biases=True), dtype=dtype)


def slopes(loss: Callable[[], float], values: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The gradient of `loss()` in `values` by central differences, changing one value in place at a time."""
    result = np.zeros_like(values)
    for index in np.ndindex(values.shape):
        kept = values[index]
        values[index] = kept + step
        above = loss()
        values[index] = kept - step
        below = loss()
        values[index] = kept
        result[index] = (above - below) / (2 * step)
    return result


def assert_is_gradient(gradient: np.ndarray, loss: Callable[[], float], values: np.ndarray) -> None:
    measured = slopes(loss, values)
    assert gradient.shape == values.shape
    assert np.abs(measured).max() > 1e-3, "the loss hardly depends on these values: the test would show nothing"
    assert_allclose(gradient, measured, rtol=1e-6, atol=2e-8)


# Convolution


def test_convolution_by_hand():
    x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)  # 1 2 3 / 4 5 6 / 7 8 9
    weight = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    output = layers.conv2d_forward(x, weight, np.array([0.5]), stride=1, padding=0)
    # 1*1 + 2*2 + 4*3 + 5*4 = 37, and so on; the filter is not turned round
    assert_array_equal(output, [[[[37.5, 47.5], [67.5, 77.5]]]])


def test_convolution_by_hand_with_stride_and_padding():
    x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    weight = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    # Padded to 5x5; windows begin at rows and columns 0 and 2, and the last row and column are left out.
    output = layers.conv2d_forward(x, weight, np.zeros(1), stride=2, padding=1)
    assert_array_equal(output, [[[[4 * 1, 3 * 2 + 4 * 3], [2 * 4 + 4 * 7, 1 * 5 + 2 * 6 + 3 * 8 + 4 * 9]]]])


def test_convolution_sums_over_channels():
    x = np.array([[[[1.0]], [[10.0]]]])
    weight = np.array([[2.0, 3.0], [5.0, 7.0]]).reshape(2, 2, 1, 1)
    output = layers.conv2d_forward(x, weight, np.array([0.0, 100.0]), stride=1, padding=0)
    assert_array_equal(output.ravel(), [2 + 30, 5 + 70 + 100])


def test_convolution_gradients_by_hand():
    x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    weight = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    gradient = np.array([[[[1.0, 0.0], [0.0, 10.0]]]])
    weight_gradient, bias_gradient = layers.conv2d_backward_parameters(gradient, x, kernel=2, stride=1, padding=0)
    # The window at (0, 0) holds 1 2 / 4 5 and counts once, the one at (1, 1) holds 5 6 / 8 9 and counts ten times.
    assert_array_equal(weight_gradient, [[[[1 + 50, 2 + 60], [4 + 80, 5 + 90]]]])
    assert_array_equal(bias_gradient, [11])
    input_gradient = layers.conv2d_backward_input(gradient, weight, x.shape, stride=1, padding=0)
    # Both windows cover the centre: as their last pixel (weight 4) and as their first (weight 1, ten times).
    assert_array_equal(input_gradient, [[[[1, 2, 0], [3, 4 + 10, 20], [0, 30, 40]]]])


CONVOLUTIONS = [  # height, width, kernel, stride, padding
    (5, 5, 3, 1, 0), (5, 5, 3, 1, 1), (7, 5, 3, 2, 1), (8, 7, 3, 2, 0), (9, 6, 4, 3, 2),
    (6, 7, 2, 3, 0), (4, 3, 1, 2, 0), (4, 6, 1, 1, 1), (3, 3, 3, 1, 0), (11, 12, 5, 4, 2),
]


@pytest.mark.parametrize("height, width, kernel, stride, padding", CONVOLUTIONS)
def test_convolution_gradients_by_finite_differences(height, width, kernel, stride, padding):
    x, weight, bias = random(2, 2, height, width), random(3, 2, kernel, kernel, seed=1), random(3, seed=2)
    upstream = random(*layers.conv2d_forward(x, weight, bias, stride, padding).shape, seed=3)

    def loss() -> float:
        return float((layers.conv2d_forward(x, weight, bias, stride, padding) * upstream).sum())

    weight_gradient, bias_gradient = layers.conv2d_backward_parameters(upstream, x, kernel, stride, padding)
    assert_is_gradient(weight_gradient, loss, weight)
    assert_is_gradient(bias_gradient, loss, bias)
    assert_is_gradient(layers.conv2d_backward_input(upstream, weight, x.shape, stride, padding), loss, x)


@pytest.mark.parametrize("height, width, kernel, stride, padding", CONVOLUTIONS)
def test_convolution_is_the_sum_that_defines_it(height, width, kernel, stride, padding):
    x, weight, bias = random(2, 2, height, width), random(3, 2, kernel, kernel, seed=1), random(3, seed=2)
    output = layers.conv2d_forward(x, weight, bias, stride, padding)
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    for image, channel, row, column in np.ndindex(output.shape):
        top, left = row * stride, column * stride
        window = padded[image, :, top : top + kernel, left : left + kernel]
        expected = math.fsum((window * weight[channel]).ravel()) + bias[channel]
        assert output[image, channel, row, column] == pytest.approx(expected, rel=1e-13, abs=1e-13)


# Groups


def test_groups_by_hand():
    """Two channels in each of two groups, one filter for each: no filter sees the other group."""
    x = np.array([1.0, 10, 100, 1000]).reshape(1, 4, 1, 1)
    weight = np.array([[2.0, 3], [5, 7]]).reshape(2, 2, 1, 1)
    output = layers.conv2d_forward(x, weight, np.array([0.5, 0]), stride=1, padding=0, groups=2)
    assert_array_equal(output.ravel(), [2 * 1 + 3 * 10 + 0.5, 5 * 100 + 7 * 1000])
    gradient = np.array([1.0, 10]).reshape(1, 2, 1, 1)
    weight_gradient, bias_gradient = layers.conv2d_backward_parameters(gradient, x, 1, 1, 0, groups=2)
    assert_array_equal(weight_gradient.reshape(2, 2), [[1, 10], [1000, 10_000]])
    assert_array_equal(bias_gradient, [1, 10])
    input_gradient = layers.conv2d_backward_input(gradient, weight, x.shape, 1, 0, groups=2)
    assert_array_equal(input_gradient.ravel(), [2, 3, 50, 70])


GROUPS = [  # input channels, output channels, groups; then as above
    (4, 6, 2, 5, 6, 3, 1, 1), (6, 3, 3, 7, 5, 3, 2, 1), (4, 4, 4, 6, 5, 2, 1, 0), (2, 8, 2, 4, 3, 1, 2, 0),
]


@pytest.mark.parametrize("inputs, outputs, groups, height, width, kernel, stride, padding", GROUPS)
def test_groups_are_convolutions_side_by_side(inputs, outputs, groups, height, width, kernel, stride, padding):
    x, weight, bias = random(2, inputs, height, width), random(outputs, inputs // groups, kernel, kernel, seed=1), \
        random(outputs, seed=2)
    output = layers.conv2d_forward(x, weight, bias, stride, padding, groups)
    for group in range(groups):
        seen = slice(group * inputs // groups, (group + 1) * inputs // groups)
        made = slice(group * outputs // groups, (group + 1) * outputs // groups)
        alone = layers.conv2d_forward(x[:, seen], weight[made], bias[made], stride, padding)
        assert_allclose(output[:, made], alone, rtol=1e-13)


@pytest.mark.parametrize("inputs, outputs, groups, height, width, kernel, stride, padding", GROUPS)
def test_group_gradients_by_finite_differences(inputs, outputs, groups, height, width, kernel, stride, padding):
    x, weight, bias = random(2, inputs, height, width), random(outputs, inputs // groups, kernel, kernel, seed=1), \
        random(outputs, seed=2)
    upstream = random(*layers.conv2d_forward(x, weight, bias, stride, padding, groups).shape, seed=3)

    def loss() -> float:
        return float((layers.conv2d_forward(x, weight, bias, stride, padding, groups) * upstream).sum())

    weight_gradient, bias_gradient = layers.conv2d_backward_parameters(upstream, x, kernel, stride, padding, groups)
    assert_is_gradient(weight_gradient, loss, weight)
    assert_is_gradient(bias_gradient, loss, bias)
    assert_is_gradient(layers.conv2d_backward_input(upstream, weight, x.shape, stride, padding, groups), loss, x)


# Local response normalisation


def test_local_response_norm_by_hand():
    """Channels 1, 2, 3, 4: the first and the last have one neighbour less, and alpha is not divided by the size."""
    x = np.array([1.0, 2, 3, 4]).reshape(1, 4, 1, 1)
    output = layers.local_response_norm_forward(x, size=3, alpha=0.5, beta=1.0, k=2.0)
    assert_allclose(output.ravel(), [1 / (2 + 0.5 * (1 + 4)), 2 / (2 + 0.5 * (1 + 4 + 9)), 3 / (2 + 0.5 * (4 + 9 + 16)),
                                     4 / (2 + 0.5 * (9 + 16))], rtol=1e-15)
    output = layers.local_response_norm_forward(x, size=1, alpha=3.0, beta=0.5, k=1.0)
    assert_allclose(output.ravel(), [1 / 2, 2 / math.sqrt(13), 3 / math.sqrt(28), 4 / 7], rtol=1e-15)


def test_local_response_norm_with_the_papers_numbers():
    """Section 3.3: b_i = a_i / (k + alpha sum_j a_j^2)^beta over j from max(0, i - n/2) to min(N - 1, i + n/2)."""
    k, n, alpha, beta = 2.0, 5, 1e-4, 0.75
    a = random(2, 7, 2, 3) * 50
    output = layers.local_response_norm_forward(a, n, alpha, beta, k)
    for image, i, row, column in np.ndindex(a.shape):
        neighbours = range(max(0, i - n // 2), min(7 - 1, i + n // 2) + 1)
        total = math.fsum(a[image, j, row, column] ** 2 for j in neighbours)
        expected = a[image, i, row, column] / (k + alpha * total) ** beta
        assert output[image, i, row, column] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("channels, size, alpha, beta, k", [
    (6, 5, 0.3, 0.75, 2.0), (4, 3, 1.0, 0.5, 1.0), (3, 7, 0.2, 1.0, 0.5), (4, 1, 0.7, 0.75, 2.0),
    (5, 5, 0.0, 0.75, 2.0), (5, 3, 0.4, 0.0, 2.0),
])
def test_local_response_norm_gradient_by_finite_differences(channels, size, alpha, beta, k):
    x = random(2, channels, 2, 3)
    upstream = random(*x.shape, seed=1)
    gradient = layers.local_response_norm_backward(upstream, x, size, alpha, beta, k)
    assert_is_gradient(gradient, lambda: float(
        (layers.local_response_norm_forward(x, size, alpha, beta, k) * upstream).sum()), x)


# Normalisation


def test_normalisation_by_hand():
    """Each channel has its own mean and deviation."""
    x = np.array([[0.5, 1.0], [0.25, 0.75]]).reshape(1, 2, 1, 2)
    output = layers.normalize_forward(x, mean=(0.5, 0.25), std=(0.25, 2.0))
    assert_array_equal(output[0, :, 0], [[0, 2], [0, 0.25]])
    gradient = layers.normalize_backward(np.array([[1.0, 10], [100, 1000]]).reshape(x.shape), std=(0.25, 2.0))
    assert_array_equal(gradient[0, :, 0], [[4, 40], [50, 500]])


def test_normalisation_makes_mean_0_and_deviation_1():
    x = random(4, 3, 5, 6) * np.array([2.0, 0.1, 7.0])[:, None, None] + np.array([1.0, -3.0, 0.2])[:, None, None]
    output = layers.normalize_forward(x, tuple(x.mean(axis=(0, 2, 3))), tuple(x.std(axis=(0, 2, 3))))
    assert_allclose(output.mean(axis=(0, 2, 3)), 0, atol=1e-13)
    assert_allclose(output.std(axis=(0, 2, 3)), 1, rtol=1e-13)


def test_normalisation_in_float32_stays_there():
    x = np.ones((1, 1, 2, 2), np.float32)
    assert layers.normalize_forward(x, (0.1,), (0.3,)).dtype == layers.normalize_backward(x, (0.3,)).dtype == np.float32


def test_normalisation_gradient_by_finite_differences():
    x, upstream, mean, std = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1), (0.4, -0.2, 3.0), (0.2, 1.5, 0.7)
    gradient = layers.normalize_backward(upstream, std)
    assert_is_gradient(gradient, lambda: float((layers.normalize_forward(x, mean, std) * upstream).sum()), x)


# Pooling


def test_avg_pool_by_hand_leaves_out_what_does_not_fit():
    x = np.array([[1.0, 2, 90], [3, 6, 90], [90, 90, 90]]).reshape(1, 1, 3, 3)
    assert_array_equal(layers.avg_pool_forward(x, kernel=2, stride=2), [[[[3]]]])
    gradient = layers.avg_pool_backward(np.array([[[[8.0]]]]), x.shape, kernel=2, stride=2)
    assert_array_equal(gradient[0, 0], [[2, 2, 0], [2, 2, 0], [0, 0, 0]])
    gradient = layers.avg_pool_backward(np.array([[[[4.0, 40], [400, 4000]]]]), x.shape, kernel=2, stride=1)
    assert_array_equal(gradient[0, 0], [[1, 11, 10], [101, 1111, 1010], [100, 1100, 1000]])


@pytest.mark.parametrize("height, width, kernel, stride", [
    (5, 5, 3, 2), (7, 6, 3, 2), (6, 5, 2, 2), (5, 7, 2, 3), (4, 5, 1, 1),
])
def test_avg_pool_and_its_gradient_by_finite_differences(height, width, kernel, stride):
    x = random(2, 3, height, width)
    output = layers.avg_pool_forward(x, kernel, stride)
    for image, channel, row, column in np.ndindex(output.shape):
        window = x[image, channel, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
        assert output[image, channel, row, column] == pytest.approx(window.mean(), rel=1e-13)
    upstream = random(*output.shape, seed=1)
    gradient = layers.avg_pool_backward(upstream, x.shape, kernel, stride)
    assert_is_gradient(gradient, lambda: float((layers.avg_pool_forward(x, kernel, stride) * upstream).sum()), x)


def test_adaptive_avg_pool_by_hand():
    """Five rows in two areas share the third; three columns in two share the second."""
    x = np.arange(15.0).reshape(1, 1, 5, 3)
    output = layers.adaptive_avg_pool_forward(x, size=2)
    assert_array_equal(output[0, 0], [[x[0, 0, :3, :2].mean(), x[0, 0, :3, 1:].mean()],
                                      [x[0, 0, 2:, :2].mean(), x[0, 0, 2:, 1:].mean()]])
    gradient = layers.adaptive_avg_pool_backward(np.array([[[[6.0, 60], [600, 6000]]]]), x.shape, size=2)
    assert_array_equal(gradient[0, 0], [[1, 11, 10], [1, 11, 10], [101, 1111, 1010], [100, 1100, 1000],
                                        [100, 1100, 1000]])


@pytest.mark.parametrize("height, width, size", [(6, 6, 6), (6, 4, 2), (5, 7, 3), (2, 3, 5), (4, 9, 1)])
def test_adaptive_avg_pool_gradient_by_finite_differences(height, width, size):
    x = random(2, 3, height, width)
    upstream = random(2, 3, size, size, seed=1)
    gradient = layers.adaptive_avg_pool_backward(upstream, x.shape, size)
    assert_is_gradient(gradient, lambda: float((layers.adaptive_avg_pool_forward(x, size) * upstream).sum()), x)


def test_adaptive_avg_pool_changes_nothing_where_there_is_nothing_to_average():
    x = random(2, 3, 6, 6)
    assert_array_equal(layers.adaptive_avg_pool_forward(x, 6), x)


def test_max_pool_by_hand_leaves_out_what_does_not_fit():
    x = np.array([[1.0, 2, 9], [3, 4, 9], [9, 9, 9]]).reshape(1, 1, 3, 3)
    assert_array_equal(layers.max_pool_forward(x, kernel=2, stride=2), [[[[4]]]])


def test_max_pool_gives_a_tie_to_the_first_in_row_major_order():
    x = np.array([[0.0, 0, 5], [5, 0, 0], [0, 0, 5]]).reshape(1, 1, 3, 3)
    choice = layers.max_pool_choice(x, kernel=3, stride=1)
    assert_array_equal(choice, [[[[2]]]])  # (0, 2), and not (1, 0), which comes first by columns
    gradient = layers.max_pool_backward(np.full((1, 1, 1, 1), 7.0), choice, x.shape, kernel=3, stride=1)
    assert_array_equal(gradient, [[[[0, 0, 7], [0, 0, 0], [0, 0, 0]]]])


@pytest.mark.parametrize("value", [0.0, -1.0, 3.0])
def test_max_pool_of_a_flat_area_chooses_each_window_s_first_pixel(value):
    x = np.full((1, 1, 5, 5), value)
    choice = layers.max_pool_choice(x, kernel=3, stride=2)
    gradient = layers.max_pool_backward(np.array([[[[1.0, 2], [3, 4]]]]), choice, x.shape, kernel=3, stride=2)
    expected = np.zeros((5, 5))
    expected[0, 0], expected[0, 2], expected[2, 0], expected[2, 2] = 1, 2, 3, 4
    assert_array_equal(gradient[0, 0], expected)


def test_max_pool_adds_up_where_windows_overlap():
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 2, 2] = 1  # the corner that all four windows share
    choice = layers.max_pool_choice(x, kernel=3, stride=2)
    assert_array_equal(choice, [[[[8, 6], [2, 0]]]])
    gradient = layers.max_pool_backward(np.array([[[[1.0, 2], [3, 4]]]]), choice, x.shape, kernel=3, stride=2)
    assert_array_equal(gradient, x * 10)


@pytest.mark.parametrize("height, width, kernel, stride", [
    (5, 5, 3, 2), (7, 6, 3, 2), (6, 5, 2, 2), (5, 7, 2, 3), (4, 5, 1, 1),
])
def test_max_pool_gradient_by_finite_differences(height, width, kernel, stride):
    x = random(2, 3, height, width)
    choice = layers.max_pool_choice(x, kernel, stride)
    upstream = random(*choice.shape, seed=1)
    gradient = layers.max_pool_backward(upstream, choice, x.shape, kernel, stride)
    assert_is_gradient(gradient, lambda: float((layers.max_pool_forward(x, kernel, stride) * upstream).sum()), x)


@pytest.mark.parametrize("kernel, stride", [(3, 2), (2, 2), (2, 1), (3, 4)])
def test_max_pool_choice_is_the_first_argmax_of_each_window(kernel, stride):
    x = np.random.default_rng(0).integers(0, 3, (2, 3, 9, 10)).astype(np.float64)  # ties everywhere
    choice = layers.max_pool_choice(x, kernel, stride)
    output = layers.max_pool_forward(x, kernel, stride)
    for image, channel, row, column in np.ndindex(choice.shape):
        top, left = row * stride, column * stride
        window = x[image, channel, top : top + kernel, left : left + kernel].ravel()
        assert choice[image, channel, row, column] == window.argmax()
        assert output[image, channel, row, column] == window.max()


# Dense layers, activations, the loss


def test_dense_by_hand():
    x, weight, bias = np.array([[1.0, 2]]), np.array([[3.0, 4], [5, 6], [7, 8]]), np.array([0.0, 100, 1000])
    assert_array_equal(layers.dense_forward(x, weight, bias), [[11, 117, 1023]])
    weight_gradient, bias_gradient = layers.dense_backward_parameters(np.array([[1.0, 10, 100]]), x)
    assert_array_equal(weight_gradient, [[1, 2], [10, 20], [100, 200]])
    assert_array_equal(bias_gradient, [1, 10, 100])
    assert_array_equal(layers.dense_backward_input(np.array([[1.0, 10, 100]]), weight), [[753, 864]])


def test_dense_gradients_by_finite_differences():
    x, weight, bias, upstream = random(4, 5), random(3, 5, seed=1), random(3, seed=2), random(4, 3, seed=3)

    def loss() -> float:
        return float((layers.dense_forward(x, weight, bias) * upstream).sum())

    weight_gradient, bias_gradient = layers.dense_backward_parameters(upstream, x)
    assert_is_gradient(weight_gradient, loss, weight)
    assert_is_gradient(bias_gradient, loss, bias)
    assert_is_gradient(layers.dense_backward_input(upstream, weight), loss, x)


def test_flatten_runs_over_channels_then_rows_then_columns():
    x = np.arange(24.0).reshape(2, 3, 2, 2)
    assert_array_equal(layers.flatten_forward(x), np.arange(24.0).reshape(2, 12))
    assert_array_equal(layers.flatten_backward(layers.flatten_forward(x), x.shape), x)


def test_relu_passes_nothing_at_zero():
    x = np.array([-2.0, 0.0, 3.0])
    output = layers.relu_forward(x)
    assert_array_equal(output, [0, 0, 3])
    assert_array_equal(layers.relu_backward(np.array([5.0, 6, 7]), output > 0), [0, 0, 7])


def test_relu_gradient_by_finite_differences():
    x, upstream = random(4, 5), random(4, 5, seed=1)
    gradient = layers.relu_backward(upstream, layers.relu_forward(x) > 0)
    assert_is_gradient(gradient, lambda: float((layers.relu_forward(x) * upstream).sum()), x)


def test_sigmoid_by_hand_and_far_out():
    output = layers.sigmoid_forward(np.array([0.0, math.log(3), -math.log(3), 1000, -1000]))
    assert_allclose(output, [0.5, 0.75, 0.25, 1, 0], rtol=1e-15)
    assert_allclose(layers.sigmoid_backward(np.ones(3), output[:3]), [0.25, 0.1875, 0.1875], rtol=1e-15)


def test_sigmoid_gradient_by_finite_differences():
    x, upstream = random(4, 5), random(4, 5, seed=1)
    gradient = layers.sigmoid_backward(upstream, layers.sigmoid_forward(x))
    assert_is_gradient(gradient, lambda: float((layers.sigmoid_forward(x) * upstream).sum()), x)


def test_softmax_cross_entropy_by_hand():
    logits = np.log([[1.0, 2, 5], [4, 4, 8]])  # softmax 1/8 2/8 5/8 and 1/4 1/4 1/2
    loss, gradient = layers.softmax_cross_entropy(logits, np.array([2, 0]))
    assert loss == pytest.approx((math.log(8 / 5) + math.log(4)) / 2, rel=1e-15)
    assert_allclose(gradient, [[1 / 16, 2 / 16, -3 / 16], [-3 / 8, 1 / 8, 1 / 4]], rtol=1e-14)


def test_softmax_cross_entropy_does_not_overflow():
    loss, gradient = layers.softmax_cross_entropy(np.array([[1e4, 0.0]]), np.array([1]))
    assert loss == 1e4
    assert_array_equal(gradient, [[1, -1]])


def test_softmax_cross_entropy_gradient_by_finite_differences():
    logits, labels = random(4, 5), np.array([0, 4, 2, 2])
    _, gradient = layers.softmax_cross_entropy(logits, labels)
    assert_is_gradient(gradient, lambda: layers.softmax_cross_entropy(logits, labels)[0], logits)


# Dropout


def test_dropout_drops_its_share_and_rescales():
    kept = layers.dropout_kept((100, 1000), 0.25, seed=0, step=0, name="drop6")
    assert kept.mean() == pytest.approx(0.75, abs=5 * math.sqrt(0.25 * 0.75 / kept.size))
    output = layers.dropout_forward(np.full(kept.shape, 3.0), kept, 0.25)
    assert set(np.unique(output)) == {0.0, 4.0}
    assert_array_equal(layers.dropout_backward(np.full(kept.shape, 3.0), kept, 0.25), output)


def test_dropout_is_a_function_of_seed_step_and_layer():
    def kept(**changed) -> np.ndarray:
        return layers.dropout_kept((8, 64), 0.5, **{"seed": 1, "step": 2, "name": "drop6"} | changed)

    assert_array_equal(kept(), kept())
    for changed in ({"seed": 2}, {"step": 3}, {"name": "drop7"}):
        assert (kept(**changed) != kept()).mean() > 0.3


def test_outputs_apply_dropout_only_when_asked():
    model = small_model()
    data = model.place(*small_data())
    assert_array_equal(model.outputs(data)["drop4"], model.outputs(data)["fc4"])
    dropped = model.outputs(data, dropout=(0, 5))
    kept = layers.dropout_kept(dropped["fc4"].shape, 0.5, 0, 5, "drop4")
    assert_array_equal(dropped["drop4"], dropped["fc4"] * kept * 2)
    assert_array_equal(dropped["fc6"], model.outputs(data, dropout=(0, 5))["fc6"])
    assert (dropped["drop4"] != model.outputs(data, dropout=(0, 6))["drop4"]).any()


# A whole network


def native_small() -> NumpyNetwork:
    """Parameters three times as large as usual: gradients well above the rounding of a difference."""
    drawn = canonical.initialise(SMALL, 0, random_biases=True)
    return build(SMALL, weights.load({name: value * np.float32(3) for name, value in drawn.items()}, np.float64))


@pytest.mark.parametrize("dropout", [None, (0, 3)])
@pytest.mark.parametrize("name", canonical.shapes(SMALL))
def test_network_gradients_by_finite_differences(name, dropout):
    native = native_small()
    data = trainer.place(SMALL, *small_data())
    _, _, gradients = trainer.loss_and_gradients(native, data, dropout)
    assert_is_gradient(gradients[name], lambda: trainer.loss_and_gradients(native, data, dropout)[0],
                       native.parameters[name])


FAULTS: dict[str, Callable[..., Any]] = {
    "conv2d_backward_parameters": lambda right, *args: (np.roll(right(*args)[0], 1, axis=-1), right(*args)[1]),
    "conv2d_backward_input": lambda right, gradient, weight, *rest: right(gradient, weight[:, :, ::-1], *rest),
    "max_pool_backward": lambda right, gradient, choice, *rest: right(gradient, np.zeros_like(choice), *rest),
    "relu_backward": lambda right, gradient, positive: gradient,
    "sigmoid_backward": lambda right, gradient, output: gradient * output,
    "dense_backward_parameters": lambda right, gradient, x: (right(gradient, x)[0], gradient.mean(axis=0)),
    "dense_backward_input": lambda right, *args: right(*args) * 1.00001,
    "softmax_cross_entropy": lambda right, logits, labels: (right(logits, labels)[0], right(logits, labels)[1] * 3),
}


@pytest.mark.parametrize("function", FAULTS)
def test_finite_differences_catch_a_wrong_gradient(function, monkeypatch):
    native = native_small()
    data = trainer.place(SMALL, *small_data())
    right = trainer.loss_and_gradients(native, data)[2]
    module = trainer if function == "softmax_cross_entropy" else layers
    monkeypatch.setattr(module, function, functools.partial(FAULTS[function], getattr(module, function)))
    wrong = trainer.loss_and_gradients(native, data)[2]
    changed = next(name for name in right if not np.array_equal(right[name], wrong[name]))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_is_gradient(wrong[changed], lambda: trainer.loss_and_gradients(native, data)[0],
                           native.parameters[changed])


def test_pooling_before_the_first_parameters_is_no_obstacle():
    network = Network("pool-first", (1, 4, 4), (MaxPool2d("pool0", 2, 2), Flatten("flatten"), Dense("fc1", units=2)))
    native = build(network, weights.load(canonical.initialise(network, 0), np.float64))
    data = trainer.place(network, random(3, 1, 4, 4).astype(np.float32), np.array([0, 1, 1]))
    _, _, gradients = trainer.loss_and_gradients(native, data)
    for name, value in native.parameters.items():
        assert_is_gradient(gradients[name], lambda: trainer.loss_and_gradients(native, data)[0], value)


def test_the_loss_is_a_mean_whatever_the_batch():
    model = small_model()
    inputs, labels = small_data(4)
    loss, gradients = model.gradients(model.place(inputs, labels))
    twice, same = model.gradients(model.place(np.concatenate([inputs] * 2), np.concatenate([labels] * 2)))
    assert twice == pytest.approx(loss, rel=1e-14)
    for name, gradient in gradients.items():
        assert_allclose(same[name], gradient, rtol=1e-10, atol=1e-14)


def test_float32_agrees_to_its_precision_and_stays_float32():
    exact, single = small_model(), small_model(np.float32)
    data = exact.place(*small_data())
    outputs = single.outputs(data, dropout=(0, 1))
    for name, expected in exact.outputs(data, dropout=(0, 1)).items():
        assert outputs[name].dtype == np.float32 and expected.dtype == np.float64
        assert np.linalg.norm(outputs[name] - expected) < 1e-6 * np.linalg.norm(expected)
    _, gradients = single.gradients(data)
    for name, expected in exact.gradients(data)[1].items():
        assert gradients[name].dtype == np.float32 and expected.dtype == np.float64
        assert np.linalg.norm(gradients[name] - expected) < 1e-5 * np.linalg.norm(expected)


# Another run's branch


def test_its_own_branch_changes_nothing():
    model = small_model()
    data = model.place(*small_data())
    loss, gradients = model.gradients(data)
    same_loss, same = model.gradients(data, branch=model.outputs(data))
    assert same_loss == loss
    for name in gradients:
        assert_array_equal(same[name], gradients[name])


def test_a_branch_decides_where_relu_passes_the_gradient():
    network = Network("tie", (1, 1, 2), (
        Conv2d("conv1", channels=1, kernel=1),
        Conv2d("conv2", channels=1, kernel=1, activation=None),
        Flatten("flatten"),
        Dense("fc3", units=2),
    ))
    one, zero = np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    model = load("numpy").build(network, {
        "conv1.weight": one, "conv1.bias": zero, "conv2.weight": one, "conv2.bias": zero,
        "fc3.weight": np.array([[1, 0], [0, 1]], np.float32), "fc3.bias": np.zeros(2, np.float32),
    })
    data = model.place(np.array([[[[2, 3]]]], np.float32), np.array([0]))
    p = 1 / (1 + math.exp(2 - 3))  # of class 1: logits 2 and 3; the gradient in them is (-p, p)
    loss, own = model.gradients(data)
    assert own["conv1.weight"].item() == pytest.approx(-2 * p + 3 * p)
    branch = model.outputs(data) | {"conv1": np.array([[[[0, 3]]]], np.float32)}  # its first pixel is off
    same_loss, imposed = model.gradients(data, branch)
    assert same_loss == loss, "forward values are the run's own"
    assert imposed["conv1.weight"].item() == pytest.approx(3 * p)
    assert imposed["conv2.weight"].item() == own["conv2.weight"].item(), "above the switch nothing changes"


def test_a_branch_decides_which_pixel_won_in_pooling():
    network = Network("tie", (1, 2, 4), (
        Conv2d("conv1", channels=1, kernel=1, activation=None),
        MaxPool2d("pool1", kernel=2, stride=2),
        Flatten("flatten"),
        Dense("fc2", units=2),
    ))
    model = load("numpy").build(network, {
        "conv1.weight": np.ones((1, 1, 1, 1), np.float32), "conv1.bias": np.zeros(1, np.float32),
        "fc2.weight": np.array([[1, 0], [0, 1]], np.float32), "fc2.bias": np.zeros(2, np.float32),
    })
    data = model.place(np.array([[[[1, 2, 8, 7], [3, 4, 6, 5]]]], np.float32), np.array([0]))
    p = 1 / (1 + math.exp(4 - 8))  # of class 1: logits 4 and 8; the gradient in them is (-p, p)
    _, own = model.gradients(data)
    assert own["conv1.weight"].item() == pytest.approx(-4 * p + 8 * p)
    other = np.array([[[[1, 2, 6, 7], [3, 2, 8, 5]]]], np.float32)  # its left winner holds 3 here, its right one 6
    loss, imposed = model.gradients(data, model.outputs(data) | {"conv1": other})
    assert imposed["conv1.weight"].item() == pytest.approx(-3 * p + 6 * p)
    assert loss == model.gradients(data)[0]


# Pixels


@pytest.mark.parametrize("size, factor", [((28, 28), 8), ((7, 5), 4), ((3, 4), 2), ((6, 6), 1)])
def test_pixels_are_the_exact_fraction_times_one_float32(size, factor):
    grey = np.random.default_rng(0).integers(0, 256, (4, *size), dtype=np.uint8)
    grey[0], grey[1] = 255, 0
    network = Network("pixels", (1, size[0] * factor, size[1] * factor), (Flatten("flatten"), Dense("fc1", units=2)))
    pixels = trainer.place(network, grey, np.zeros(4, np.int64)).pixels()
    assert pixels.dtype == np.float32 and pixels.shape == (4, *network.input)

    # In whole numbers: output i lies (2 i + 1 - factor) / (2 factor) input pixels from the first input's centre.
    def along(values: np.ndarray) -> np.ndarray:
        offset = 2 * np.arange(values.shape[-1] * factor) + 1 - factor
        below, share = offset // (2 * factor), offset % (2 * factor)
        last = values.shape[-1] - 1
        return (values[..., below.clip(0, last)] * (2 * factor - share)
                + values[..., (below + 1).clip(0, last)] * share)

    whole = along(along(grey.astype(np.int64)).swapaxes(1, 2)).swapaxes(1, 2)  # in units of 1 / (2 factor)^2
    exact = (whole / (2 * factor) ** 2).astype(np.float32)
    assert_array_equal(exact.astype(np.float64) * (2 * factor) ** 2, whole)  # float32 holds it exactly
    assert_array_equal(pixels[:, 0].view(np.uint32), (exact * PIXEL_SCALE).view(np.uint32))


def test_upsampling_by_hand():
    network = Network("pixels", (1, 2, 4), (Flatten("flatten"), Dense("fc1", units=2)))
    grey = np.array([[[0, 100]]], np.uint8)
    pixels = trainer.place(network, grey, np.zeros(1, np.int64)).pixels()
    expected = np.array([[0, 25, 75, 100]] * 2, np.float32) * np.float32(1 / 255)
    assert_array_equal(pixels[0, 0], expected)


def test_float32_inputs_are_fed_as_they_are():
    model = small_model()
    inputs, labels = small_data()
    assert_array_equal(model.pixels(model.place(inputs, labels)), inputs)


@pytest.mark.parametrize("inputs, labels", [
    (np.zeros((2, 5, 5), np.uint8), [0, 1]),  # 16 / 5 is not whole
    (np.zeros((2, 1, 1), np.uint8), [0, 1]),  # a factor of 16 is not exact
    (np.zeros((2, 1, 16, 15), np.float32), [0, 1]),
    (np.zeros((2, 1, 16, 16), np.float64), [0, 1]),
    (np.zeros((2, 16, 16), np.float32), [0, 1]),
    (np.zeros((2, 8, 8), np.uint8), [0]),
    (np.zeros((2, 8, 8), np.uint8), [0, 3]),
    (np.zeros((2, 8, 8), np.uint8), [0, -1]),
])
def test_images_and_labels_that_do_not_fit_are_refused(inputs, labels):
    with pytest.raises(DataError):
        trainer.place(TINY, inputs, np.array(labels))


# Training


def test_steps_follow_the_definition_of_sgd():
    """v = momentum v + g + weight_decay w, then w = w - learning_rate v: written out for a layer by hand."""
    model = load("numpy").build(TINY, canonical.initialise(TINY, 0, random_biases=True))
    inputs = np.random.default_rng(0).random((6, *TINY.input), np.float32)
    labels = np.array([0, 1, 2, 0, 1, 2])
    data = model.place(inputs, labels)
    start = {name: value.astype(np.float64) for name, value in model.export().items()}
    weight, bias = start["fc1.weight"], start["fc1.bias"]
    weight_velocity, bias_velocity = np.zeros_like(weight), np.zeros_like(bias)
    trainer = model.trainer(Sgd(learning_rate=0.1, momentum=0.9, weight_decay=0.01), seed=0)
    losses, correct = [], []
    for number, rows in enumerate(([0, 1, 2, 3], [4, 5], [5, 3, 1])):
        trainer.step(data, np.array(rows), number)
        x = inputs[rows].reshape(len(rows), -1).astype(np.float64)
        logits = x @ weight.T + bias
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses.append(-np.log(softmax[range(len(rows)), labels[rows]]).mean())
        correct.append((logits.argmax(axis=1) == labels[rows]).sum())
        error = (softmax - np.eye(3)[labels[rows]]) / len(rows)
        weight_velocity = 0.9 * weight_velocity + error.T @ x + 0.01 * weight
        bias_velocity = 0.9 * bias_velocity + error.sum(axis=0) + 0.01 * bias
        weight, bias = weight - 0.1 * weight_velocity, bias - 0.1 * bias_velocity
    metrics = trainer.read()
    assert_allclose(metrics.losses, losses, rtol=1e-12)
    assert_array_equal(metrics.correct, correct)
    assert_allclose(model.export()["fc1.weight"], weight, rtol=1e-6, atol=1e-8)
    assert_allclose(model.export()["fc1.bias"], bias, rtol=1e-6, atol=1e-8)
    assert_allclose(model.logits(data, 6), inputs.reshape(6, -1).astype(np.float64) @ weight.T + bias, rtol=1e-12)
    assert len(trainer.read().losses) == 0


def test_one_weight_and_three_steps_in_plain_numbers():
    """Both classes see the same input, so that the gradient is known at every step without a computer."""
    network = Network("one", (1, 1, 1), (Flatten("flatten"), Dense("fc1", units=2)))
    zeros = {name: np.zeros(shape, np.float32) for name, shape in canonical.shapes(network).items()}
    model = load("numpy").build(network, zeros)
    data = model.place(np.full((1, 1, 1, 1), 2, np.float32), np.array([0]))
    trainer = model.trainer(Sgd(learning_rate=0.5, momentum=0.5), seed=0)
    trainer.step(data, np.array([0]), 0)
    # softmax 1/2: gradients -1/2 * 2 = -1 in the weight and -1/2 in the bias of class 0, the opposite in class 1
    assert_array_equal(model.export()["fc1.weight"], [[0.5], [-0.5]])
    assert_array_equal(model.export()["fc1.bias"], [0.25, -0.25])
    trainer.step(data, np.array([0]), 1)
    # logits +-(0.5 * 2 + 0.25) = +-1.25; class 1 has 1 / (1 + e^2.5), and v = 0.5 * -1 - 2 p
    p = 1 / (1 + math.exp(2.5))
    assert_allclose(model.export()["fc1.weight"][0], 0.5 - 0.5 * (-0.5 - 2 * p), rtol=1e-7)
    assert_allclose(trainer.read().losses, [math.log(2), math.log(1 + math.exp(-2.5))], rtol=1e-14)


def test_training_steps_use_the_dropout_of_seed_and_step():
    inputs, labels = small_data()

    def loss(seed: int, number: int) -> float:
        model = small_model()
        trainer = model.trainer(Sgd(0.1), seed)
        trainer.step(model.place(inputs, labels), np.arange(3), number)
        return float(trainer.read().losses[0])

    native = build(SMALL, weights.load(canonical.initialise(SMALL, 0, random_biases=True), np.float64))
    expected = trainer.loss_and_gradients(native, trainer.place(SMALL, inputs, labels), dropout=(7, 4))[0]
    assert loss(7, 4) == expected
    assert len({loss(7, 4), loss(7, 5), loss(8, 4)}) == 3


def test_training_learns_what_can_be_learnt():
    network = Network("learner", (1, 8, 8), (
        Conv2d("conv1", channels=4, kernel=3, padding=1),
        MaxPool2d("pool1", kernel=2, stride=2),
        Flatten("flatten"),
        Dense("fc2", units=16, activation="relu"),
        Dropout("drop2", rate=0.2),
        Dense("fc3", units=2),
    ))
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 64)
    inputs = generator.integers(0, 100, (64, 8, 8), dtype=np.uint8)
    inputs[labels == 1, :4] += 120  # a bright upper half
    model = load("numpy").build(network, canonical.initialise(network, 0))
    data = model.place(inputs, labels)
    trainer = model.trainer(Sgd(0.1, momentum=0.9), seed=0)
    for number in range(60):
        trainer.step(data, generator.permutation(64)[:16], number)
    losses = trainer.read().losses
    assert losses[:3].mean() > 0.5 and losses[-10:].mean() < 0.1
    assert (model.logits(data, 32).argmax(axis=1) == labels).mean() > 0.98


# The backend


def test_the_registry_loads_it():
    backend = load("numpy")
    assert backend.name == "numpy"
    assert backend.versions()["numpy"] == np.__version__
    assert [device.name for device in backend.devices()] == ["cpu"]


def test_export_returns_the_bits_it_was_given():
    given = canonical.initialise(SMALL, 3, random_biases=True)
    model = load("numpy").build(SMALL, given)
    assert canonical.digest(model.export()) == canonical.digest(given)


def test_the_model_keeps_copies():
    given = canonical.initialise(SMALL, 0)
    model = load("numpy").build(SMALL, given, dtype=np.float32)
    inputs, labels = small_data()
    data = model.place(inputs, labels)
    before = model.logits(data, 8)
    inputs[:] = 0
    for value in (*given.values(), *model.export().values()):
        value[:] = 0
    assert_array_equal(model.logits(data, 8), before)


def test_other_devices_and_other_parameters_are_refused():
    with pytest.raises(BackendUnavailable, match="no device 'cuda:0' here; there is cpu"):
        load("numpy").build(SMALL, canonical.initialise(SMALL, 0), device="cuda:0")
    with pytest.raises(ParametersError, match=r"missing conv1\.weight"):
        load("numpy").build(SMALL, {})


def test_describe_measures_what_the_spec_says():
    rows = small_model().describe()
    assert [row.name for row in rows] == [layer.name for layer in SMALL.layers]
    assert {row.name: row.shape for row in rows} == {
        name: (1, *shape) for name, shape in arithmetic.output_shapes(SMALL).items()}
    assert {row.name: row.parameters for row in rows} == arithmetic.parameter_counts(SMALL)
    assert [row.native for row in rows][:9] == [
        "normalize", "conv2d + relu", "max_pool", "conv2d + sigmoid", "local_response_norm", "conv2d", "max_pool",
        "avg_pool", "adaptive_avg_pool"]


def test_logits_do_not_depend_on_the_batch_size():
    model = small_model()
    data = model.place(*small_data(7))
    expected = model.outputs(data)["fc6"]
    for batch_size in (1, 3, 7, 100):
        assert_allclose(model.logits(data, batch_size), expected, rtol=1e-12)


@pytest.mark.exhaustive
def test_a_step_along_alexnets_gradient_lowers_the_loss_as_much_as_it_promises():
    network = with_dropout(ALEXNET, 0)
    model = load("numpy").build(network, canonical.initialise(network, 0, random_biases=True))
    data = model.place(np.random.default_rng(0).integers(0, 256, (1, 28, 28), dtype=np.uint8), np.array([3]))
    assert {name: output.shape[1:] for name, output in model.outputs(data).items()} == arithmetic.output_shapes(network)
    before, gradients = model.gradients(data)
    assert {name: gradient.shape for name, gradient in gradients.items()} == canonical.shapes(network)
    trainer = model.trainer(Sgd(learning_rate=1e-7), seed=0)
    trainer.step(data, np.array([0]), 0)
    after, _ = softmax_cross_entropy(model.logits(data, 1), np.array([3]))
    promised = 1e-7 * sum(float((gradient**2).sum()) for gradient in gradients.values())
    assert before - after == pytest.approx(promised, rel=1e-3)
