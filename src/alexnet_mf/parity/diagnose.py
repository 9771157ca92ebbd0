"""Why a rung is red: the first divergent layer, and which of the usual causes reproduces what the backend computed.

A cause is never guessed. Each one is computed with the referee's functions from the backend's own input to the layer,
and named only if the result is what the backend gave, to well below the difference that it explains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import arithmetic
from alexnet_mf.backends.base import Sgd
from alexnet_mf.backends.numpy import layers
from alexnet_mf.parity.ladder import Comparison, Rung
from alexnet_mf.parity.measure import relative_l2
from alexnet_mf.parity.referee import Rule, take_steps
from alexnet_mf.spec import Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d

Array: TypeAlias = NDArray[Any]
Cause: TypeAlias = tuple[str, Array]
"""A cause in words, and what the layer would give if it were so."""

REPRODUCES = 1e-4
"""A cause reproduces a result within this relative L2 error; also at most a hundredth of the error that it explains."""


def diagnose(comparison: Comparison, rungs: list[Rung]) -> list[str]:
    """Sentences for the lowest red rung and what stands above it; none if all hold."""
    red = {rung.name: rung for rung in rungs if not rung.holds}
    sentences = [f"{failure.what}" for failure in (red["spec and parameters"].failures
                                                   if "spec and parameters" in red else [])]
    finders: dict[str, Callable[[Comparison, Rung], str]] = {
        "pixels": _pixels, "layer outputs": _forward, "shapes": _forward, "logits and loss": _loss,
        "gradients": _gradients, "SGD steps": _steps, "dropout modes": _modes, "weights": _continued}
    for name, find in finders.items():
        if name in red:
            return [*sentences, find(comparison, red[name])]
    return sentences


def _verdict(where: str, reproduced: str | None) -> str:
    return f"{where}: {reproduced}" if reproduced else f"{where}: none of the usual causes reproduces it"


def reproduce(result: Array, reference: Array, causes: Iterator[Cause]) -> str | None:
    """The first cause that gives `result`, which differs from `reference`."""
    bound = min(REPRODUCES, relative_l2(result, reference) / 100 if result.shape == reference.shape else REPRODUCES)
    for cause, candidate in causes:
        if candidate.shape == result.shape and relative_l2(candidate, result) <= max(bound, 2e-6):
            return cause
    return None


# Pixels


def _pixels(c: Comparison, rung: Rung) -> str:
    mine, theirs = c.subject.tensors["pixels"], c.referee.trace.tensors["pixels"]
    return _verdict("pixels", reproduce(mine, theirs, pixel_causes(c.referee.case.inputs[:len(theirs)], theirs)))


def pixel_causes(images: Array, pixels: Array) -> Iterator[Cause]:
    """The other conventions of enlarging grey images and scaling them to [0, 1]."""
    yield "channels last instead of first", pixels.transpose(0, 2, 3, 1)
    yield "not scaled to [0, 1]", pixels * 255
    yield "scaled twice", pixels / 255
    yield "height and width swapped", pixels.swapaxes(2, 3)
    yield "inverted (1 - pixel)", 1 - pixels
    if images.ndim != 3:
        return
    factor = pixels.shape[2] // images.shape[1]
    grey = images.astype(np.float64)[:, np.newaxis]
    yield "nearest pixel instead of bilinear", grey.repeat(factor, 2).repeat(factor, 3) / 255
    for name, positions in (("aligned corners instead of half-pixel centres", _aligned),
                            ("pixel corners (no half-pixel shift) instead of half-pixel centres", _asymmetric)):
        yield f"bilinear with {name}", _bilinear(grey, pixels.shape[2:], positions) / 255
    rounded = np.round(pixels.astype(np.float64) * 255) / 255
    yield "rounded to whole grey levels (resized as uint8)", rounded
    yield "rounded down to whole grey levels", np.floor(pixels.astype(np.float64) * 255 + 1e-6) / 255
    for mean, deviation in ((0.5, 0.5), (0.2860, 0.3530), (0.1307, 0.3081)):
        yield f"normalised by mean {mean} and deviation {deviation}", (pixels - mean) / deviation
    yield "scaled by division, or in another order: the last bit differs", pixels.astype(np.float64)


def _aligned(size: int, larger: int) -> Array:
    return np.arange(larger) * (size - 1) / max(larger - 1, 1)


def _asymmetric(size: int, larger: int) -> Array:
    return np.arange(larger) * size / larger


def _bilinear(x: Array, shape: tuple[int, ...], positions: Callable[[int, int], Array]) -> Array:
    for axis, larger in zip((2, 3), shape):
        size = x.shape[axis]
        position = np.clip(positions(size, larger), 0, size - 1)
        low = np.floor(position).astype(int)
        share = (position - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, size - 1), axis) * share
    return x


# Layers


def _forward(c: Comparison, rung: Rung) -> str:
    """The first layer that diverges, given what the backend itself fed it."""
    case = c.referee.case
    outputs, references = c.subject.group("outputs"), c.referee.trace.group("outputs")
    failing = {failure.where for failure in rung.failures}
    x: Array = c.subject.tensors["pixels"].astype(np.float64)
    for layer in case.network.layers:
        result = outputs[layer.name].astype(np.float64)
        if layer.name in failing or result.shape != references[layer.name].shape:
            reference = references[layer.name]
            causes = layer_causes(layer, x, case.parameters(), reference, case)
            return _verdict(f"first divergent layer: {layer.name}", reproduce(result, reference, causes))
        x = result
    return "the measured shapes differ, the outputs of the batch do not"


def layer_causes(layer: Layer, x: Array, parameters: dict[str, Array], reference: Array, case: Any) -> Iterator[Cause]:
    """What one layer gives on its input `x` under each of the usual faults."""
    values = {name: value.astype(np.float64) for name, value in parameters.items()}
    match layer:
        case Conv2d():
            yield from _conv_causes(layer, x, values[f"{layer.name}.weight"], values[f"{layer.name}.bias"])
        case MaxPool2d():
            yield from _pool_causes(layer, x, reference)
        case Flatten():
            yield "flattened as height, width, channel instead of channel, height, width", _flat(x, 0, 2, 3, 1)
            yield "flattened as channel, width, height instead of channel, height, width", _flat(x, 0, 1, 3, 2)
            yield "flattened as width, height, channel instead of channel, height, width", _flat(x, 0, 3, 2, 1)
        case Dense():
            image = next((arithmetic.input_shapes(case.network)[flatten.name] for flatten in case.network.layers
                          if isinstance(flatten, Flatten)), None)
            yield from _dense_causes(layer, x, values[f"{layer.name}.weight"], values[f"{layer.name}.bias"], image,
                                     layer is case.network.layers[-1])
        case Dropout():
            yield from _dropout_causes(layer, x)


def _flat(x: Array, *axes: int) -> Array:
    return x.transpose(axes).reshape(len(x), -1)


def _activations(layer: Conv2d | Dense, sums: Array) -> Iterator[Cause]:
    """The layer's weighted sums under other activations than its own."""
    if layer.activation is not None:
        yield "the activation is missing", sums
    if layer.activation != "relu":
        yield "a ReLU that the spec does not have", layers.relu_forward(sums)
    once = layers.sigmoid_forward(sums)
    if layer.activation == "sigmoid":
        yield "the sigmoid is applied twice", layers.sigmoid_forward(once)
    else:
        yield "a sigmoid that the spec does not have", once
    yield "a tanh that the spec does not have", np.tanh(sums)
    if layer.activation == "relu":
        yield "a leaky ReLU (0.01) instead of ReLU", np.where(sums > 0, sums, 0.01 * sums)
        yield "an ELU instead of ReLU", np.where(sums > 0, sums, np.expm1(np.minimum(sums, 0)))


def _activate(layer: Conv2d | Dense, sums: Array) -> Array:
    return {None: lambda v: v, "relu": layers.relu_forward, "sigmoid": layers.sigmoid_forward}[layer.activation](sums)


def _biases(layer: Conv2d | Dense, sums: Array, bias: Array) -> Iterator[Cause]:
    yield "the bias is dropped", _activate(layer, sums - bias)
    yield "the bias is added twice", _activate(layer, sums + bias)
    yield "the bias is subtracted", _activate(layer, sums - 2 * bias)
    yield "the bias is added after the activation", _activate(layer, sums - bias) + bias
    yield "the biases are in reverse order", _activate(layer, sums - bias + bias[::-1])


def _convolve(layer: Conv2d, x: Array, weight: Array, bias: Array, stride: int, sides: tuple[int, ...]) -> Array:
    top, bottom, left, right = sides
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    return layers.conv2d_forward(padded, weight, bias, stride, 0)


def _conv_causes(layer: Conv2d, x: Array, weight: Array, bias: Array) -> Iterator[Cause]:
    p = layer.padding
    shape = tuple((size + 2 * p - layer.kernel) // layer.stride + 1 for size in x.shape[2:])

    def give(weight: Array = weight, stride: int = layer.stride, sides: tuple[int, ...] = (p, p, p, p)) -> Array:
        return _convolve(layer, x, weight, bias, stride, sides)

    for q in range(2 * p + layer.stride + 1):
        if q != p and min(x.shape[2:]) + 2 * q >= layer.kernel:
            yield f"padding {q} instead of {p}", _activate(layer, give(sides=(q, q, q, q)))
    for before in range(2 * p + 1):
        after = 2 * p - before
        if before != after:
            yield f"asymmetric padding: {before} at the top and left, {after} at the bottom and right", \
                _activate(layer, give(sides=(before, after, before, after)))
    sums = give()
    planes = bias[:, None, None]
    yield from _biases(layer, sums, planes)
    yield from _activations(layer, sums)
    yield "the kernel's height and width are swapped", _activate(layer, give(weight.swapaxes(2, 3)))
    yield "the kernel is flipped (convolution instead of cross-correlation)", \
        _activate(layer, give(weight[:, :, ::-1, ::-1]))
    if weight.shape[0] == weight.shape[1]:
        yield "the weight's input and output channels are swapped", _activate(layer, give(weight.swapaxes(0, 1)))
    out, inputs, kernel, _ = weight.shape
    yield "the weight's numbers are read in another layout (height, width, in, out)", \
        _activate(layer, give(weight.reshape(kernel, kernel, inputs, out).transpose(3, 2, 0, 1)))
    yield "the input channels are in reverse order", _activate(layer, give(weight[:, ::-1]))
    yield "the output channels are in reverse order", _activate(layer, sums[:, ::-1])
    for stride in range(1, 2 * layer.stride + 2):
        sizes = tuple((size + 2 * p - layer.kernel) // stride + 1 for size in x.shape[2:])
        if stride != layer.stride and sizes != shape:
            yield f"stride {stride} instead of {layer.stride}", _activate(layer, give(stride=stride))


def _pool_causes(layer: MaxPool2d, x: Array, reference: Array) -> Iterator[Cause]:
    k, s = layer.kernel, layer.stride
    yield "average instead of maximum", np.mean(layers.window_pixels(x, k, s), axis=0)
    for kernel, stride in ((k - 1, s), (k + 1, s), (k, s - 1), (k, s + 1), (k, k), (s, s)):
        if (kernel, stride) != (k, s) and 1 <= kernel <= min(x.shape[2:]) and stride >= 1:
            yield f"kernel {kernel} and stride {stride} instead of {k} and {s}", \
                layers.max_pool_forward(x, kernel, stride)
    for rounding, before, after in (("rounded up instead of down", 0, s - 1), ("padding 1 instead of 0", 1, 1),
                                    ("asymmetric padding: 0 at the top and left, 1 at the bottom and right", 0, 1),
                                    ("asymmetric padding: 1 at the top and left, 0 at the bottom and right", 1, 0)):
        padded = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)), constant_values=-np.inf)
        yield rounding, layers.max_pool_forward(padded, k, s)
    if min(reference.shape[2:]) > 1:
        yield "minimum instead of maximum", -layers.max_pool_forward(-x, k, s)


def _dense_causes(layer: Dense, x: Array, weight: Array, bias: Array, image: tuple[int, ...] | None,
                  last: bool) -> Iterator[Cause]:
    sums = layers.dense_forward(x, weight, bias)
    yield from _biases(layer, sums, bias)
    if last:
        exponentials = np.exp(sums - sums.max(axis=1, keepdims=True))
        softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
        yield "a softmax is applied to the logits", softmax
        yield "a log-softmax is applied to the logits", np.log(softmax)
    yield from _activations(layer, sums)
    if weight.shape[0] == weight.shape[1]:
        yield "the weight is transposed", _activate(layer, layers.dense_forward(x, weight.T, bias))
    yield "the weight's numbers are read in another layout (in, out)", \
        _activate(layer, layers.dense_forward(x, weight.reshape(weight.shape[::-1]).T, bias))
    if image is not None and np.prod(image) == weight.shape[1]:
        for order, axes in (("height, width, channel", (0, 2, 3, 1)), ("channel, width, height", (0, 1, 3, 2)),
                            ("width, height, channel", (0, 3, 2, 1))):
            columns = weight.reshape(len(weight), *image).transpose(axes).reshape(weight.shape)
            yield f"the weight expects its input flattened as {order}", \
                _activate(layer, layers.dense_forward(x, columns, bias))
            inverse = np.argsort(np.arange(weight.shape[1]).reshape(image).transpose([a - 1 for a in axes[1:]]).ravel())
            yield f"the weight was stored as if its input were flattened as {order}", \
                _activate(layer, layers.dense_forward(x, weight[:, inverse], bias))
    yield "the output units are in reverse order", _activate(layer, sums[:, ::-1])


def _dropout_causes(layer: Dropout, x: Array) -> Iterator[Cause]:
    yield "scaled by 1 - rate in evaluation", x * (1 - layer.rate)
    yield "scaled by 1/(1 - rate) in evaluation", x / (1 - layer.rate)


# Loss, gradients, steps


def _loss(c: Comparison, rung: Rung) -> str:
    case, mine, theirs = c.referee.case, c.subject.meta["loss"], c.referee.trace.meta["loss"]
    if not any(failure.where == "loss" for failure in rung.failures):
        return _verdict("logits of all inputs", "the first batch's agree: another batch size or order changes them")
    last = c.referee.trace.group("outputs")[case.network.layers[-1].name].astype(np.float64)
    labels = case.labels[:case.batch]
    exponentials = np.exp(last - last.max(axis=1, keepdims=True))
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    chosen = softmax[np.arange(len(labels)), labels]
    one_hot = np.eye(case.network.classes)[labels]
    candidates = {
        "summed over the batch instead of averaged": theirs * case.batch,
        "averaged over the batch twice": theirs / case.batch,
        "softmax applied twice": layers.softmax_cross_entropy(softmax, labels)[0],
        "averaged over the classes too": theirs / case.network.classes,
        "the softmax is missing": float(-last[np.arange(len(labels)), labels].mean()),
        "mean squared error instead of cross entropy": float(((softmax - one_hot) ** 2).mean()),
        "in bits (logarithm to base 2) instead of nats": theirs / float(np.log(2)),
        "label smoothing of 0.1": float((-np.log(chosen) * 0.9 - 0.1 * np.log(softmax).mean(axis=1)).mean()),
    }
    found = next((cause for cause, value in candidates.items() if abs(mine - value) <= 1e-4 * abs(value)), None)
    return _verdict("loss", found)


def _gradients(c: Comparison, rung: Rung) -> str:
    """One factor for all, or the first wrong tensor in the direction in which gradients flow."""
    mine, theirs = c.subject.group("gradients"), c.referee.trace.group("gradients")
    factors = {}
    for name, value in mine.items():
        reference = theirs[name].astype(np.float64)
        factor = float((value * reference).sum() / max(float((reference**2).sum()), 1e-300))
        if relative_l2(value, factor * reference) < 1e-3 * max(abs(factor), 1e-30):
            factors[name] = factor
    batch = c.referee.case.batch
    first = rung.failures[0].where
    if len(factors) == len(mine) and max(factors.values()) - min(factors.values()) < 1e-3 * abs(factors[first]):
        factor = factors[first]
        cause = next((text for text, value in (("the loss is summed over the batch instead of averaged", batch),
                                               ("the loss is averaged over the batch twice", 1 / batch),
                                               ("the sign is wrong", -1)) if abs(factor / value - 1) < 1e-3), None)
        return f"all gradients: scaled by {factor:.4g}" + (f" ({cause})" if cause else "")
    value, reference = mine[first], theirs[first]
    cause = None
    if not value.any():
        cause = "no gradient reaches it (zero): frozen or detached"
    elif first in factors:
        cause = f"scaled by {factors[first]:.4g}"
    elif value.ndim == 2 and value.shape[0] == value.shape[1] and relative_l2(value.T, reference) < REPRODUCES:
        cause = "transposed"
    elif value.ndim == 4 and relative_l2(value.swapaxes(2, 3), reference) < REPRODUCES:
        cause = "height and width are swapped"
    else:
        decayed = reference + c.referee.case.sgd.weight_decay * c.referee.case.parameters()[first]
        if relative_l2(value, decayed) < REPRODUCES:
            cause = "the weight decay is in it already"
    return _verdict(f"first divergent gradient, from the loss downwards: {first}", cause)


def _steps(c: Comparison, rung: Rung) -> str:
    """Which other rule of SGD gives the backend's parameters, by taking the steps with it."""
    mine = c.subject.group("stepped")
    theirs = c.referee.trace.group("stepped")
    start = c.referee.case.parameters()
    measure = {name: relative_l2(mine[name] - start[name], theirs[name] - start[name]) for name in start}
    worst = max(measure, key=lambda name: measure[name])
    for rule, update in sgd_rules(c.referee.case.sgd, c.referee.case.batch).items():
        stepped = take_steps(c.referee.case, start, update).parameters
        errors = [relative_l2(mine[name] - start[name], stepped[name] - start[name]) for name in start]
        if max(errors) <= max(c.floors.update, measure[worst] / 10):
            return f"SGD steps: {rule}"
    wrong = [name for name in measure if measure[name] > c.floors.update]
    frozen = [name for name in wrong if np.array_equal(mine[name], start[name])]
    if frozen:
        return f"SGD steps: {', '.join(frozen)} never changed"
    return _verdict(f"SGD steps: {', '.join(wrong[:4])}{' ...' if len(wrong) > 4 else ''}", None)


def sgd_rules(sgd: Sgd, batch: int) -> dict[str, Rule]:
    """SGD by other rules than the stated one, each in words."""

    def rule(rate: float = sgd.learning_rate, momentum: float = sgd.momentum, decay: float = sgd.weight_decay,
             scale: float = 1.0, dampening: float = 0.0, nesterov: bool = False, decoupled: bool = False) -> Rule:
        def update(weight: Array, gradient: Array, state: dict[str, Array], step: int) -> None:
            g = scale * gradient + (0 if decoupled else decay * weight)
            v = state["v"] = momentum * state.get("v", 0) + (1 - dampening if step else 1) * g
            if decoupled:
                weight -= rate * decay * weight
            weight -= rate * (g + momentum * v if nesterov else v)
        return update

    def accumulated(weight: Array, gradient: Array, state: dict[str, Array], step: int) -> None:
        state["sum"] = state.get("sum", 0) + gradient
        rule()(weight, state["sum"], state, step)

    def rising(weight: Array, gradient: Array, state: dict[str, Array], step: int) -> None:
        rule(rate=-sgd.learning_rate)(weight, gradient, state, step)

    rules = {
        "the gradients are summed over the batch instead of averaged": rule(scale=batch),
        "the gradients are averaged over the batch twice": rule(scale=1 / batch),
        "the momentum is missing": rule(momentum=0),
        "the weight decay is missing": rule(decay=0),
        "Nesterov's momentum instead of the plain one": rule(nesterov=True),
        "the momentum is dampened (1 - momentum)": rule(dampening=sgd.momentum),
        "the weight decay is decoupled from the gradient": rule(decoupled=True),
        "the weight decay is doubled": rule(decay=2 * sgd.weight_decay),
        "the gradients are not cleared between steps": accumulated,
        "the learning rate is 10 times too large": rule(rate=10 * sgd.learning_rate),
        "the learning rate is 10 times too small": rule(rate=sgd.learning_rate / 10),
        "the learning rate is doubled": rule(rate=2 * sgd.learning_rate),
        "the learning rate is halved": rule(rate=sgd.learning_rate / 2),
        "the weights move up the gradient": rising,
    }
    return rules


def _modes(c: Comparison, rung: Rung) -> str:
    return "; ".join(dict.fromkeys(failure.what for failure in rung.failures if failure.what)) or "dropout modes differ"


def _continued(c: Comparison, rung: Rung) -> str:
    found = [failure.what for failure in rung.failures if failure.what]
    return "; ".join(found) or "a training that goes on from another backend's weights takes other steps"
