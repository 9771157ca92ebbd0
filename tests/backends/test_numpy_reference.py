"""The NumPy reference against numbers computed by hand and finite differences, without any framework."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from alexnet_mf import spec
from alexnet_mf.backends import load
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.backends.numpy import layers, trainer, weights
from alexnet_mf.backends.numpy.layers import softmax_cross_entropy
from alexnet_mf.backends.numpy.network import NumpyNetwork, build
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network, arithmetic, with_dropout
from alexnet_mf.spec.zoo import ALEXNET
from alexnet_mf.weights import parameters as canonical

# Every layer type, a stride that does not divide, padding, overlapping windows, an odd and non-square input.
SMALL = Network("small", (2, 13, 11), (
    spec.Normalize("norm0", mean=(0.4, 0.6), std=(0.5, 0.3)),
    spec.Conv2d("conv1", channels=3, kernel=3, stride=2, padding=1, activation="gelu"),
    spec.MaxPool2d("pool1", kernel=3, stride=2),
    spec.Conv2d("conv2", channels=4, kernel=2, padding=((1, 0), (1, 2)), activation="sigmoid"),
    spec.LocalResponseNorm("norm2", size=3, alpha=0.4, beta=0.75, k=2.0),
    spec.Conv2d("conv3", channels=6, kernel=1, activation="leaky_relu", alpha=0.2, groups=2, bias=False),
    spec.BatchNorm("bn3", epsilon=0.1, momentum=0.3, activation="elu", alpha=0.6),
    spec.MaxPool2d("pool3", kernel=2, stride=1, padding=((1, 0), (0, 1))),
    spec.AvgPool2d("average3", kernel=2, stride=1, padding=1, count_padding=True),
    spec.AdaptiveAvgPool2d("areas3", size=2),
    spec.Flatten("flatten"),
    spec.BatchNorm("bn4", epsilon=0.5),
    spec.Dense("fc4", units=6, activation="relu"),
    spec.Dropout("drop4", rate=0.5),
    spec.Dense("fc5", units=5, activation="tanh"),
    spec.Dense("fc6", units=5, activation="gelu_tanh", bias=False),
    spec.Dense("fc7", units=5, activation="elu", alpha=0.7),
    spec.Dense("fc8", units=4),
))
# One layer with parameters: its steps can be written out.
TINY = Network("tiny", (1, 16, 16), (spec.Flatten("flatten"), spec.Dense("fc1", units=3)))


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def small_data(images: int = 3, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.random((images, *SMALL.input), np.float32), generator.integers(0, SMALL.classes, images)


def small_model(dtype=np.float64, seed: int = 0):
    return load("numpy").build(SMALL, canonical.initialize(SMALL, seed, random_biases=True), dtype=dtype)


def slopes(loss: Callable[[], float], values: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Return the gradient of `loss()` in `values` by central differences, one value at a time, in place."""
    result = np.zeros_like(values)
    for index in np.ndindex(values.shape):
        original = values[index]
        values[index] = original + step
        above = loss()
        values[index] = original - step
        below = loss()
        values[index] = original
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
    # 1*1 + 2*2 + 4*3 + 5*4 = 37, and so on; the kernel is not flipped
    assert_array_equal(output, [[[[37.5, 47.5], [67.5, 77.5]]]])


def test_convolution_gradients_by_hand():
    x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    weight = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    gradient = np.array([[[[1.0, 0.0], [0.0, 10.0]]]])
    weight_gradient, bias_gradient = layers.conv2d_backward_parameters(gradient, x, kernel=2, stride=1, padding=0)
    # The window at (0, 0) holds 1 2 / 4 5 and counts once, the one at (1, 1) holds 5 6 / 8 9 and counts ten times.
    assert_array_equal(weight_gradient, [[[[1 + 50, 2 + 60], [4 + 80, 5 + 90]]]])
    assert_array_equal(bias_gradient, [11])
    input_gradient = layers.conv2d_backward_input(gradient, weight, x.shape, stride=1, padding=0)
    # Both windows cover the center: as their last pixel (weight 4) and as their first (weight 1, ten times).
    assert_array_equal(input_gradient, [[[[1, 2, 0], [3, 4 + 10, 20], [0, 30, 40]]]])


CONVOLUTIONS = [  # input channels, output channels, groups, height, width, kernel, stride, padding
    (2, 3, 1, 5, 5, 3, 1, 0), (2, 3, 1, 5, 5, 3, 1, 1), (2, 3, 1, 7, 5, 3, 2, 1), (2, 3, 1, 8, 7, 3, 2, 0),
    (2, 3, 1, 9, 6, 4, 3, 2), (2, 3, 1, 6, 7, 2, 3, 0), (2, 3, 1, 4, 3, 1, 2, 0), (2, 3, 1, 4, 6, 1, 1, 1),
    (2, 3, 1, 3, 3, 3, 1, 0), (2, 3, 1, 11, 12, 5, 4, 2),
    (2, 3, 1, 6, 5, 3, 2, ((0, 1), (0, 1))), (2, 3, 1, 5, 6, 4, 3, ((3, 0), (1, 2))),
    (4, 6, 2, 4, 4, 2, 1, ((0, 0), (2, 1))),
    (4, 6, 2, 5, 6, 3, 1, 1), (6, 3, 3, 7, 5, 3, 2, 1), (4, 4, 4, 6, 5, 2, 1, 0), (2, 8, 2, 4, 3, 1, 2, 0),
]


@pytest.mark.parametrize("inputs, outputs, groups, height, width, kernel, stride, padding", CONVOLUTIONS)
def test_convolution_equals_its_defining_sum(inputs, outputs, groups, height, width, kernel, stride, padding):
    """Outputs equal the defining sum, and gradients equal finite differences."""
    x, bias = random(2, inputs, height, width), random(outputs, seed=2)
    weight = random(outputs, inputs // groups, kernel, kernel, seed=1)

    def forward() -> np.ndarray:
        return layers.conv2d_forward(x, weight, bias, stride, padding, groups)

    output = forward()
    (top, bottom), (left, right) = ((padding,) * 2,) * 2 if isinstance(padding, int) else padding
    assert output.shape == (2, outputs, (height + top + bottom - kernel) // stride + 1,
                            (width + left + right - kernel) // stride + 1)
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    for image, channel, row, column in np.ndindex(output.shape):
        first = channel * groups // outputs * inputs // groups  # input channel of its group
        window = padded[image, first:first + inputs // groups, row * stride:, column * stride:][:, :kernel, :kernel]
        expected = math.fsum((window * weight[channel]).ravel()) + bias[channel]
        assert output[image, channel, row, column] == pytest.approx(expected, rel=1e-13, abs=1e-13)

    upstream = random(*output.shape, seed=3)

    def loss() -> float:
        return float((forward() * upstream).sum())

    weight_gradient, bias_gradient = layers.conv2d_backward_parameters(upstream, x, kernel, stride, padding, groups)
    assert_is_gradient(weight_gradient, loss, weight)
    assert_is_gradient(bias_gradient, loss, bias)
    assert_is_gradient(layers.conv2d_backward_input(upstream, weight, x.shape, stride, padding, groups), loss, x)


# Layers without parameters


@pytest.mark.parametrize("k, n, alpha, beta", [
    (2.0, 5, 1e-4, 0.75), (1.0, 1, 0.3, 0.5), (0.5, 3, 0.2, 1.0), (2.0, 9, 0.1, 0.75)], ids=["the paper's", "", "", ""])
def test_local_response_norm_follows_the_paper(k, n, alpha, beta):
    """Section 3.3: b_i = a_i / (k + alpha sum_j a_j^2)^beta over j from max(0, i - n/2) to min(N - 1, i + n/2)."""
    a = random(2, 7, 2, 3) * 50
    output = layers.local_response_norm_forward(a, n, alpha, beta, k)
    for image, i, row, column in np.ndindex(a.shape):
        neighbors = range(max(0, i - n // 2), min(7 - 1, i + n // 2) + 1)
        total = math.fsum(a[image, j, row, column] ** 2 for j in neighbors)
        expected = a[image, i, row, column] / (k + alpha * total) ** beta
        assert output[image, i, row, column] == pytest.approx(expected, rel=1e-14)


def test_normalization_by_hand():
    """Each channel has its own mean and standard deviation."""
    x = np.array([[0.5, 1.0], [0.25, 0.75]]).reshape(1, 2, 1, 2)
    output = layers.normalize_forward(x, mean=(0.5, 0.25), std=(0.25, 2.0))
    assert_array_equal(output[0, :, 0], [[0, 2], [0, 0.25]])
    gradient = layers.normalize_backward(np.array([[1.0, 10], [100, 1000]]).reshape(x.shape), std=(0.25, 2.0))
    assert_array_equal(gradient[0, :, 0], [[4, 40], [50, 500]])


POOLS = [((2, 3, 5, 5), 3, 2), ((2, 3, 7, 6), 3, 2), ((2, 3, 6, 5), 2, 2), ((2, 3, 5, 7), 2, 3), ((2, 3, 4, 5), 2, 1),
         ((2, 3, 4, 5), 1, 1), ((2, 3, 7, 6), 3, 2, 1), ((2, 3, 6, 4), 3, 2, ((0, 1), (0, 2))),
         ((2, 3, 4, 5), 3, 1, ((2, 0), (1, 2))), ((2, 3, 1, 2), 4, 3, ((3, 2), (0, 3)))]


def test_batch_normalization_by_hand():
    """A channel's statistics are those of all its pixels in the batch."""
    x = np.array([[[[1.0, 3]], [[7, 7]]], [[[3, 5]], [[7, 7]]]])  # two images of two channels of 1x2 pixels
    mean, variance = layers.batch_statistics(x)
    assert_array_equal(mean, [3, 7])
    assert_array_equal(variance, [2, 0])
    y = layers.batch_norm_forward(x, np.array([6.0, 5]), np.array([10.0, 20]), mean, variance, epsilon=2)
    assert_allclose(y, [[[[4, 10]], [[20, 20]]], [[[10, 16]], [[20, 20]]]])  # 10 + 6 (x - 3) / sqrt(2 + 2)
    flat = x.transpose(0, 2, 3, 1).reshape(4, 2)  # an image's pixels are as good as further images of features
    assert_array_equal(layers.batch_statistics(flat), layers.batch_statistics(x))
    assert_array_equal(layers.batch_norm_forward(flat, np.array([6.0, 5]), np.array([10.0, 20]), mean, variance, 2),
                       y.transpose(0, 2, 3, 1).reshape(4, 2))


def test_training_moves_the_running_statistics_and_inference_uses_them():
    network = Network("one", (1, 1, 1), (spec.Flatten("flatten"), spec.BatchNorm("bn", epsilon=1.0, momentum=0.25),
                                         spec.Dense("fc1", units=2)))
    start = canonical.initialize(network, 0) | {
        "bn.running_mean": np.array([2], np.float32), "bn.running_var": np.array([8], np.float32)}
    model = load("numpy").build(network, start)
    data = model.place(np.array([2, 6], np.float32).reshape(2, 1, 1, 1), np.array([0, 1]))
    assert_allclose(model.outputs(data)["bn"], [[0], [4 / 3]])  # (x - 2) / sqrt(8 + 1)
    assert_allclose(model.outputs(data, dropout=(0, 0))["bn"], [[-2 / math.sqrt(5)], [2 / math.sqrt(5)]])
    assert_array_equal(model.export()["bn.running_mean"], [2], "outputs move nothing")
    model.trainer(Sgd(learning_rate=0.0), seed=0).step(data, np.array([0, 1]), 0)
    assert_allclose(model.export()["bn.running_mean"], [0.75 * 2 + 0.25 * 4])
    assert_allclose(model.export()["bn.running_var"], [0.75 * 8 + 0.25 * 4])  # 4 is the mean square of -2 and 2
    assert set(model.gradients(data)[1]) == {"bn.weight", "bn.bias", "fc1.weight", "fc1.bias"}


@pytest.mark.parametrize("shape, kernel, stride, padding", [(*case, 0)[:4] for case in POOLS])
def test_pooling_takes_the_mean_or_the_first_of_the_largest_in_each_window(shape, kernel, stride, padding):
    """Windows that do not fit are omitted. The means are over the image's pixels, or over these and zeros."""
    x = np.random.default_rng(0).integers(-3, 0, shape).astype(np.float64)  # ties everywhere, and below the padding
    means, largest = (pool(x, kernel, stride, padding) for pool in (layers.avg_pool_forward, layers.max_pool_forward))
    choice = layers.max_pool_choice(x, kernel, stride, padding)
    counted = layers.avg_pool_forward(x, kernel, stride, padding, count_padding=True)
    (top, bottom), (left, right) = ((padding,) * 2,) * 2 if isinstance(padding, int) else padding
    steps = [(size - kernel) // stride + 1 for size in (shape[2] + top + bottom, shape[3] + left + right)]
    assert choice.shape == largest.shape == means.shape == counted.shape == (2, 3, *steps)
    for place in np.ndindex(choice.shape):
        image, channel, row, column = place
        pixels = {(i, j): x[image, channel, row * stride - top + i, column * stride - left + j]
                  for i, j in np.ndindex(kernel, kernel)
                  if 0 <= row * stride - top + i < shape[2] and 0 <= column * stride - left + j < shape[3]}
        first = max(pixels, key=lambda position: pixels[position])  # the first of equal ones, row by row
        assert divmod(int(choice[place]), kernel) == first
        assert largest[place] == pixels[first]
        assert means[place] == pytest.approx(math.fsum(pixels.values()) / len(pixels), rel=1e-13)
        assert counted[place] == pytest.approx(math.fsum(pixels.values()) / kernel**2, rel=1e-13)


def test_adaptive_avg_pool_by_hand():
    """Five rows in two areas share the third; three columns in two share the second."""
    x = np.arange(15.0).reshape(1, 1, 5, 3)
    output = layers.adaptive_avg_pool_forward(x, size=2)
    assert_array_equal(output[0, 0], [[x[0, 0, :3, :2].mean(), x[0, 0, :3, 1:].mean()],
                                      [x[0, 0, 2:, :2].mean(), x[0, 0, 2:, 1:].mean()]])
    gradient = layers.adaptive_avg_pool_backward(np.array([[[[6.0, 60], [600, 6000]]]]), x.shape, size=2)
    assert_array_equal(gradient[0, 0], [[1, 11, 10], [1, 11, 10], [101, 1111, 1010], [100, 1100, 1000],
                                        [100, 1100, 1000]])


WITHOUT_PARAMETERS: dict[str, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray], list[Any]]] = {
    "relu": (layers.relu_forward, lambda gradient, x: layers.relu_backward(gradient, x > 0), [((4, 5),)]),
    "sigmoid": (layers.sigmoid_forward, lambda gradient, x: layers.sigmoid_backward(
        gradient, layers.sigmoid_forward(x)), [((4, 5),)]),
    "elu": (layers.elu_forward, lambda gradient, x, alpha: layers.elu_backward(
        gradient, layers.elu_forward(x, alpha), x > 0, alpha), [((4, 5), 1.0), ((4, 5), 0.3)]),
    "leaky_relu": (layers.leaky_relu_forward, lambda gradient, x, alpha: layers.leaky_relu_backward(
        gradient, x > 0, alpha), [((4, 5), 0.01), ((4, 5), 0.3)]),
    "gelu": (layers.gelu_forward, layers.gelu_backward, [((4, 5),)]),
    "gelu_tanh": (layers.gelu_tanh_forward, layers.gelu_tanh_backward, [((4, 5),)]),
    "tanh": (layers.tanh_forward, lambda gradient, x: layers.tanh_backward(
        gradient, layers.tanh_forward(x)), [((4, 5),)]),
    "normalize": (layers.normalize_forward, lambda gradient, x, mean, std: layers.normalize_backward(gradient, std),
                  [((2, 3, 4, 5), (0.4, -0.2, 3.0), (0.2, 1.5, 0.7))]),
    "local_response_norm": (layers.local_response_norm_forward, layers.local_response_norm_backward, [
        ((2, 6, 2, 3), 5, 0.3, 0.75, 2.0), ((2, 4, 2, 3), 3, 1.0, 0.5, 1.0), ((2, 3, 2, 3), 7, 0.2, 1.0, 0.5),
        ((2, 4, 2, 3), 1, 0.7, 0.75, 2.0), ((2, 5, 2, 3), 5, 0.0, 0.75, 2.0), ((2, 5, 2, 3), 3, 0.4, 0.0, 2.0)]),
    "avg_pool": (layers.avg_pool_forward, lambda gradient, x, *numbers: layers.avg_pool_backward(
        gradient, x.shape, *numbers), [*POOLS, *((*case, True) for case in POOLS if len(case) == 4)]),
    "adaptive_avg_pool": (layers.adaptive_avg_pool_forward, lambda gradient, x, size: layers.adaptive_avg_pool_backward(
        gradient, x.shape, size), [((2, 3, 6, 6), 6), ((2, 3, 6, 4), 2), ((2, 3, 5, 7), 3), ((2, 3, 2, 3), 5),
                                   ((2, 3, 4, 9), 1)]),
    "max_pool": (layers.max_pool_forward, lambda gradient, x, *numbers: layers.max_pool_backward(
        gradient, layers.max_pool_choice(x, *numbers), x.shape, *numbers), POOLS),
}
"""Function and gradient of each layer, and cases: an input's shape and the layer's numbers."""


@pytest.mark.parametrize("name, shape, numbers", [
    (name, shape, numbers) for name, (_, _, cases) in WITHOUT_PARAMETERS.items() for shape, *numbers in cases])
def test_gradients_in_the_input_by_finite_differences(name, shape, numbers):
    forward, backward, _ = WITHOUT_PARAMETERS[name]
    x = random(*shape)
    upstream = random(*forward(x, *numbers).shape, seed=1)
    assert_is_gradient(backward(upstream, x, *numbers), lambda: float((forward(x, *numbers) * upstream).sum()), x)


# Dense layers, activations, the loss


def test_dense_by_hand():
    x, weight, bias = np.array([[1.0, 2]]), np.array([[3.0, 4], [5, 6], [7, 8]]), np.array([0.0, 100, 1000])
    assert_array_equal(layers.dense_forward(x, weight, bias), [[11, 117, 1023]])
    weight_gradient, bias_gradient = layers.dense_backward_parameters(np.array([[1.0, 10, 100]]), x)
    assert_array_equal(weight_gradient, [[1, 2], [10, 20], [100, 200]])
    assert_array_equal(bias_gradient, [1, 10, 100])
    assert_array_equal(layers.dense_backward_input(np.array([[1.0, 10, 100]]), weight), [[753, 864]])


def test_flatten_runs_over_channels_then_rows_then_columns():
    x = np.arange(24.0).reshape(2, 3, 2, 2)
    assert_array_equal(layers.flatten_forward(x), np.arange(24.0).reshape(2, 12))
    assert_array_equal(layers.flatten_backward(layers.flatten_forward(x), x.shape), x)


def test_relu_passes_nothing_at_zero():
    x = np.array([-2.0, 0.0, 3.0])
    output = layers.relu_forward(x)
    assert_array_equal(output, [0, 0, 3])
    assert_array_equal(layers.relu_backward(np.array([5.0, 6, 7]), output > 0), [0, 0, 7])


def test_sigmoid_by_hand_and_far_out():
    output = layers.sigmoid_forward(np.array([0.0, math.log(3), -math.log(3), 1000, -1000]))
    assert_allclose(output, [0.5, 0.75, 0.25, 1, 0], rtol=1e-15)
    assert_allclose(layers.sigmoid_backward(np.ones(3), output[:3]), [0.25, 0.1875, 0.1875], rtol=1e-15)


def test_elu_and_leaky_relu_by_hand():
    """The derivative at zero is that of negative values."""
    x = np.array([-1000.0, -math.log(4), 0.0, 3.0])
    output = layers.elu_forward(x, 0.5)
    assert_allclose(output, [-0.5, 0.5 * (1 / 4 - 1), 0, 3], rtol=1e-15)
    assert_allclose(layers.elu_backward(np.full(4, 2.0), output, output > 0, 0.5), [0, 2 * 0.5 / 4, 1, 2], rtol=1e-15)
    output = layers.leaky_relu_forward(x, 0.25)
    assert_array_equal(output, [-250, -math.log(4) / 4, 0, 3])
    assert_array_equal(layers.leaky_relu_backward(np.full(4, 2.0), output > 0, 0.25), [0.5, 0.5, 0.5, 2])


def test_gelu_by_hand():
    """One standard deviation has 68.27 % of a normal distribution on its two sides, two have 95.45 %."""
    one, two = 0.6826894921370859, 0.9544997361036416
    x = np.array([0.0, 1, -1, 2, -2, 1000, -1000])
    expected = [0, (1 + one) / 2, -(1 - one) / 2, 1 + two, -(1 - two), 1000, 0]
    assert_allclose(layers.gelu_forward(x), expected, rtol=1e-14)
    assert_allclose(layers.gelu_tanh_forward(x), expected, atol=4e-4)
    assert np.abs(layers.gelu_tanh_forward(x) - expected).max() > 1e-4
    y = 0.5 + 0.044715 * 0.5**3
    by_tanh = 0.5 / (1 + math.exp(-2 * math.sqrt(2 / math.pi) * y))
    assert layers.gelu_tanh_forward(np.array(0.5)) == pytest.approx(by_tanh, rel=1e-14)
    for backward in (layers.gelu_backward, layers.gelu_tanh_backward):
        assert_allclose(backward(np.full(3, 2.0), np.array([0.0, 1000, -1000])), [1, 2, 0], atol=1e-14)


def test_tanh_by_hand():
    output = layers.tanh_forward(np.array([0.0, math.log(2), -math.log(3), 1000]))
    assert_allclose(output, [0, 3 / 5, -4 / 5, 1], rtol=1e-15)
    assert_allclose(layers.tanh_backward(np.ones(4), output), [1, 16 / 25, 9 / 25, 0], rtol=1e-14)


def test_softmax_cross_entropy_by_hand():
    logits = np.log([[1.0, 2, 5], [4, 4, 8]])  # softmax 1/8 2/8 5/8 and 1/4 1/4 1/2
    loss, gradient = layers.softmax_cross_entropy(logits, np.array([2, 0]))
    assert loss == pytest.approx((math.log(8 / 5) + math.log(4)) / 2, rel=1e-15)
    assert_allclose(gradient, [[1 / 16, 2 / 16, -3 / 16], [-3 / 8, 1 / 8, 1 / 4]], rtol=1e-14)


def test_softmax_cross_entropy_does_not_overflow():
    loss, gradient = layers.softmax_cross_entropy(np.array([[1e4, 0.0]]), np.array([1]))
    assert loss == 1e4
    assert_array_equal(gradient, [[1, -1]])


# A whole network


def native_small() -> NumpyNetwork:
    """Return a network with tripled parameters, which lift its gradients well above the rounding of a difference."""
    drawn = canonical.initialize(SMALL, 0, random_biases=True)
    return build(SMALL, weights.load({name: value * np.float32(3) for name, value in drawn.items()}, np.float64))


@pytest.mark.parametrize("dropout", [None, (0, 3)])
@pytest.mark.parametrize("name", canonical.trained(SMALL))
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
    "elu_backward": lambda right, gradient, output, positive, alpha: right(gradient, output, positive, 1.0),
    "leaky_relu_backward": lambda right, gradient, positive, alpha: right(gradient, positive, 0.01),
    "gelu_backward": lambda right, gradient, x: layers.gelu_tanh_backward(gradient, x),
    "gelu_tanh_backward": lambda right, gradient, x: gradient * layers.gelu_tanh_forward(x) / x,
    "tanh_backward": lambda right, gradient, output: gradient * (1 - output),
    "batch_norm_backward": lambda right, gradient, x, weight, epsilon, *sums: (  # mean and variance as constants
        gradient * layers._by_channel(weight / np.sqrt(layers.batch_statistics(x)[1] + epsilon), x),
        *right(gradient, x, weight, epsilon)[1:]),
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


# Branches of another run


def test_a_models_own_branch_changes_nothing():
    model = small_model()
    data = model.place(*small_data())
    loss, gradients = model.gradients(data)
    same_loss, same = model.gradients(data, branch=model.training_outputs(data))
    assert same_loss == loss
    for name in gradients:
        assert_array_equal(same[name], gradients[name])


def model_of_ones(image: list[Any], *convolutions: spec.Conv2d | spec.MaxPool2d) -> tuple[Any, Any]:
    """Return a model whose convolutions multiply by 1 and whose logits are their outputs, and an image of class 0."""
    network = Network("tie", np.shape(image), (*convolutions, spec.Flatten("flatten"), spec.Dense("last", units=2)))
    ones = {name: np.full(shape, name.endswith("weight"), np.float32)
            for name, shape in canonical.shapes(network).items()}
    model = load("numpy").build(network, {**ones, "last.weight": np.eye(2, dtype=np.float32)})
    return model, model.place(np.array([image], np.float32), np.array([0]))


def test_a_branch_decides_where_relu_passes_the_gradient():
    model, data = model_of_ones([[[2, 3]]], spec.Conv2d("conv1", channels=1, kernel=1),
                                spec.Conv2d("conv2", channels=1, kernel=1, activation=None))
    p = 1 / (1 + math.exp(2 - 3))  # of class 1: logits 2 and 3; the gradient in them is (-p, p)
    loss, own = model.gradients(data)
    assert own["conv1.weight"].item() == pytest.approx(-2 * p + 3 * p)
    branch = model.outputs(data) | {"conv1": np.array([[[[0, 3]]]], np.float32)}  # its first pixel is off
    same_loss, imposed = model.gradients(data, branch)
    assert same_loss == loss, "a branch changes no forward value"
    assert imposed["conv1.weight"].item() == pytest.approx(3 * p)
    assert imposed["conv2.weight"].item() == own["conv2.weight"].item(), "above the switch nothing changes"


def test_a_branch_decides_which_pixel_pooling_chooses():
    model, data = model_of_ones([[[1, 2, 8, 7], [3, 4, 6, 5]]],
                                spec.Conv2d("conv1", channels=1, kernel=1, activation=None),
                                spec.MaxPool2d("pool1", kernel=2, stride=2))
    p = 1 / (1 + math.exp(4 - 8))  # of class 1: logits 4 and 8; the gradient in them is (-p, p)
    loss, own = model.gradients(data)
    assert own["conv1.weight"].item() == pytest.approx(-4 * p + 8 * p)
    other = np.array([[[[1, 2, 6, 7], [3, 2, 8, 5]]]], np.float32)  # largest where the image has 3 and 6
    same_loss, imposed = model.gradients(data, model.outputs(data) | {"conv1": other})
    assert imposed["conv1.weight"].item() == pytest.approx(-3 * p + 6 * p)
    assert same_loss == loss


# Training


def test_two_steps_of_one_weight_by_hand():
    """Both classes have the same input, so that each gradient can be computed by hand."""
    network = Network("one", (1, 1, 1), (spec.Flatten("flatten"), spec.Dense("fc1", units=2)))
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


# The backend


def test_the_model_keeps_copies():
    values = canonical.initialize(SMALL, 0)
    model = load("numpy").build(SMALL, values, dtype=np.float32)
    inputs, labels = small_data()
    data = model.place(inputs, labels)
    before = model.logits(data, 8)
    inputs[:] = 0
    for value in (*values.values(), *model.export().values()):
        value[:] = 0
    assert_array_equal(model.logits(data, 8), before)


def test_other_parameters_are_refused():
    with pytest.raises(ParametersError, match=r"missing conv1\.weight"):
        load("numpy").build(SMALL, {})


def test_describe_names_the_functions_of_each_layer():
    assert [row.native for row in small_model().describe()] == [
        "normalize", "conv2d + gelu", "max_pool", "conv2d + sigmoid", "local_response_norm", "conv2d + leaky_relu",
        "batch_norm + elu", "max_pool", "avg_pool", "adaptive_avg_pool", "flatten", "batch_norm", "dense + relu",
        "dropout", "dense + tanh", "dense + gelu_tanh", "dense + elu", "dense"]


@pytest.mark.exhaustive
def test_a_step_along_alexnets_gradient_lowers_the_loss_as_predicted():
    network = with_dropout(ALEXNET, 0)
    model = load("numpy").build(network, canonical.initialize(network, 0, random_biases=True))
    data = model.place(np.random.default_rng(0).integers(0, 256, (1, 28, 28), dtype=np.uint8), np.array([3]))
    assert {name: output.shape[1:] for name, output in model.outputs(data).items()} == arithmetic.output_shapes(network)
    before, gradients = model.gradients(data)
    assert {name: gradient.shape for name, gradient in gradients.items()} == canonical.shapes(network)
    trainer = model.trainer(Sgd(learning_rate=1e-7), seed=0)
    trainer.step(data, np.array([0]), 0)
    after, _ = softmax_cross_entropy(model.logits(data, 1), np.array([3]))
    predicted = 1e-7 * sum(float((gradient**2).sum()) for gradient in gradients.values())
    assert before - after == pytest.approx(predicted, rel=1e-3)
