"""Outputs of layers with parameters under each of the usual faults."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from alexnet_mf.backends.numpy import layers
from alexnet_mf.backends.numpy.network import activate
from alexnet_mf.evaluation import log_probabilities
from alexnet_mf.parity.causes import FLATTENED, Array, Cause
from alexnet_mf.parity.causes.paddings import other_paddings, window_counts
from alexnet_mf.spec.layers import BatchNorm, Conv2d, Dense, Learner, Padding, sides
from alexnet_mf.weights.parameters import parts

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "a ReLU": layers.relu_forward, "a sigmoid": layers.sigmoid_forward, "a tanh": layers.tanh_forward,
    "LeCun's 1.7159 tanh(2 x / 3)": lambda sums: 1.7159 * layers.tanh_forward(2 / 3 * sums),
    "an ELU (1)": functools.partial(layers.elu_forward, alpha=1.0),
    **{f"a leaky ReLU ({alpha:g})": functools.partial(layers.leaky_relu_forward, alpha=alpha)
       for alpha in (0.01, 0.1, 0.2, 0.25, 0.3)},
    "an exact GELU": layers.gelu_forward, "an approximate GELU (tanh)": layers.gelu_tanh_forward,
    "an approximate GELU (sigmoid)": lambda sums: sums * layers.sigmoid_forward(1.702 * sums),
    "a SiLU": lambda sums: sums * layers.sigmoid_forward(sums)}
"""Activations that may have taken the place of the right one, with the numbers that are usual somewhere."""
NAMES = {"relu": "ReLU", "elu": "ELU", "leaky_relu": "leaky ReLU", "gelu": "exact GELU",
         "gelu_tanh": "approximate GELU (tanh)"}
"""Names of activations in a sentence, where they differ from the spec's."""


def _activations(layer: Learner, sums: Array) -> Iterator[Cause]:
    """Yield the layer's outputs with other activations than its own."""
    place = "that the spec does not have"
    if layer.activation is not None:
        name = NAMES.get(layer.activation, layer.activation)
        yield "the activation is missing", sums
        yield f"the {name} is applied twice", activate(layer, activate(layer, sums))
        place = f"instead of {name}" + ("" if layer.alpha is None else f" ({layer.alpha:g})")
    for other, function in ACTIVATIONS.items():
        yield f"{other} {place}", function(sums)


def _biases(layer: Conv2d | Dense, sums: Array, bias: Array) -> Iterator[Cause]:
    yield "the bias is dropped", activate(layer, sums - bias)
    yield "the bias is added twice", activate(layer, sums + bias)
    yield "the bias is subtracted", activate(layer, sums - 2 * bias)
    yield "the bias is added after the activation", activate(layer, sums - bias) + bias
    yield "the biases are in reverse order", activate(layer, sums - bias + bias[::-1])


def conv_causes(layer: Conv2d, x: Array, weight: Array, bias: Array) -> Iterator[Cause]:
    """Yield the usual faults of a convolution, each with the output that it would give."""
    right = layer.padding

    def give(weight: Array = weight, stride: int = layer.stride, padding: Padding = right) -> Array:
        return activate(layer, layers.conv2d_forward(x, weight, bias, stride, padding, layer.groups))

    for words, padding in other_paddings(layer, x.shape, 2 * max(map(max, sides(right))) + layer.stride):
        yield words, give(padding=padding)
    sums = layers.conv2d_forward(x, weight, bias, layer.stride, right, layer.groups)
    yield from _biases(layer, sums, bias[:, None, None])
    yield from _activations(layer, sums)
    yield "the kernel's height and width are swapped", give(weight.swapaxes(2, 3))
    yield "the kernel is flipped (convolution instead of cross-correlation)", give(weight[:, :, ::-1, ::-1])
    if weight.shape[0] == weight.shape[1]:
        yield "the weight's input and output channels are swapped", give(weight.swapaxes(0, 1))
    if layer.groups > 1:
        yield from _group_causes(layer, x, weight, bias)
    out, inputs, kernel, _ = weight.shape
    yield "the weight's numbers are read in another layout (height, width, in, out)", \
        give(weight.reshape(kernel, kernel, inputs, out).transpose(3, 2, 0, 1))
    yield "the input channels are in reverse order", give(weight[:, ::-1])
    yield "the output channels are in reverse order", activate(layer, sums[:, ::-1])
    windows = window_counts(x.shape, layer.kernel, layer.stride, right)
    for stride in range(1, 2 * layer.stride + 2):
        if stride != layer.stride and window_counts(x.shape, layer.kernel, stride, right) != windows:
            yield f"stride {stride} instead of {layer.stride}", give(stride=stride)


def _group_causes(layer: Conv2d, x: Array, weight: Array, bias: Array) -> Iterator[Cause]:
    def give(x: Array) -> Array:
        return layers.conv2d_forward(x, weight, bias, layer.stride, layer.padding, layer.groups)

    images, channels, *sizes = x.shape
    shares = x.reshape(images, layer.groups, channels // layer.groups, *sizes)
    turns = x.reshape(images, channels // layer.groups, layer.groups, *sizes).swapaxes(1, 2)
    yield "the input channels go to the groups in turn, not in blocks", activate(layer, give(turns.reshape(x.shape)))
    yield "the groups take their inputs in reverse order", activate(layer, give(shares[:, ::-1].reshape(x.shape)))
    sums = give(x)
    shuffled = sums.reshape(images, layer.groups, -1, *sums.shape[2:]).swapaxes(1, 2).reshape(sums.shape)
    yield "the groups' outputs are shuffled together, one channel of each in turn", activate(layer, shuffled)


def dense_causes(layer: Dense, x: Array, weight: Array, bias: Array, image: tuple[int, ...] | None,
                 last: bool) -> Iterator[Cause]:
    """Yield the usual faults of a fully connected layer, each with the output that it would give.

    Args:
        image: the shape that was flattened before it.
        last: True for the layer of the logits.
    """
    def give(weight: Array) -> Array:
        return activate(layer, layers.dense_forward(x, weight, bias))

    sums = layers.dense_forward(x, weight, bias)
    yield from _biases(layer, sums, bias)
    if last:
        yield "a softmax is applied to the logits", np.exp(log_probabilities(sums))
        yield "a log-softmax is applied to the logits", log_probabilities(sums)
    yield from _activations(layer, sums)
    if weight.shape[0] == weight.shape[1]:
        yield "the weight is transposed", give(weight.T)
    else:
        yield "the weight's numbers are read in another layout (in, out)", give(weight.reshape(weight.shape[::-1]).T)
    if image is not None and np.prod(image) == weight.shape[1]:
        for order, axes in FLATTENED.items():
            columns = weight.reshape(len(weight), *image).transpose(axes).reshape(weight.shape)
            yield f"the weight expects its input flattened as {order}", give(columns)
            inverse = np.argsort(np.arange(weight.shape[1]).reshape(image).transpose([a - 1 for a in axes[1:]]).ravel())
            if not np.array_equal(weight[:, inverse], columns):
                yield f"the weight is read as if its input were flattened as {order}", give(weight[:, inverse])
    yield "the output units are in reverse order", activate(layer, sums[:, ::-1])


def batch_norm_causes(layer: BatchNorm, x: Array, values: dict[str, Array], training: bool) -> Iterator[Cause]:
    """Yield the usual faults of a batch normalization, each with the output that it would give.

    Args:
        values: all parameters and running statistics, by name.
        training: True if the batch's own statistics are the right ones.
    """
    weight, bias, *running = (values[f"{layer.name}.{part}"] for part in parts(layer))
    batch = layers.batch_statistics(x)
    mean, variance = batch if training else running

    def give(mean: Array = mean, variance: Array = variance, weight: Array = weight, bias: Array = bias,
             epsilon: float = layer.epsilon) -> Array:
        return activate(layer, layers.batch_norm_forward(x, weight, bias, mean, variance, epsilon))

    if training:
        yield "normalized by the running statistics instead of the batch's", give(running[0], running[1])
        count = x.size // x.shape[1]
        if count > 1:
            yield "the variance is divided by n - 1", give(variance=variance * count / (count - 1))
    else:
        yield "normalized by the batch's statistics instead of the running ones", give(batch[0], batch[1])
        yield "the running statistics are 0 and 1, as before training", give(0 * mean, 0 * variance + 1)
    for epsilon in (1e-3, 1e-5, 1e-6):
        yield f"epsilon is {epsilon:g} instead of {layer.epsilon:g}", give(epsilon=epsilon)
    yield "epsilon is added to the standard deviation", give(variance=(np.sqrt(variance) + layer.epsilon)**2, epsilon=0)
    yield "the variance is taken for a standard deviation", give(variance=variance**2)
    yield "the normalization is missing", activate(layer, x)
    yield "the mean is not subtracted", give(mean=0 * mean)
    yield "it is not divided by the standard deviation", give(variance=0 * variance + 1 - layer.epsilon)
    yield "the weight is 1 (MXNet's `fix_gamma`)", give(weight=0 * weight + 1)
    yield "the bias is dropped", give(bias=0 * bias)
    yield "weight and bias are swapped", give(weight=bias, bias=weight)
    yield from _activations(layer, layers.batch_norm_forward(x, weight, bias, mean, variance, layer.epsilon))
