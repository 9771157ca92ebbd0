"""The network that an ONNX graph computes, as far as its image has been followed through the nodes.

A node with weights becomes a layer. Axes keep their names when nodes permute or merge them, and a function between two
layers is recognized by its values. So layouts, shapes and the many spellings of an activation need no patterns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto

from alexnet_mf.spec import Network, layers
from alexnet_mf.spec.layers import Shape
from alexnet_mf.spec.network import Output
from alexnet_mf.weights import parameters
from alexnet_mf.weights.formats.description import activate, canonical_name, in_unit_range, network_name
from alexnet_mf.weights.formats.onnx.signals import (
    MEANS,
    PROBES,
    TOLERANCE,
    Array,
    Axis,
    Part,
    Signal,
    Value,
    activation_of,
    axes_of,
    decimal,
    is_close,
    is_linear,
    slope_of,
    weight_of,
)
from alexnet_mf.weights.formats.onnx.tensors import Tensors, Unreadable, constant, view
from alexnet_mf.weights.stored import StoredTensor

MANY = 2**31 - 1
"""Number of images where the graph leaves it free: a prime, so that no other sizes multiply to it."""
WEIGHTED = (layers.Conv2d, layers.Dense)


class Walk:
    """Layers and tensors so far, and the results of the nodes."""

    def __init__(self, source: Tensors, image: Shape, is_own: bool, opset: int) -> None:
        """Begin with an image of this shape, in the graph's own order; 0 stands for any number of images."""
        self.source, self.is_own, self.opset = source, is_own, opset
        self.batch, *self.pixels = ("N", image[0] or MANY), *zip("123", image[1:])
        self.values: dict[str, Any] = {"": None}
        """Results by name. A tensor of the file is checked at its first use."""
        self.layers: list[layers.Layer] = []
        self.tensors: dict[str, StoredTensor] = {}
        self.notes: tuple[str, ...] = ()
        self.input: tuple[int, int, int] = (0, 0, 0)
        self.shape: Shape = ()
        """Shape of the last layer's output; () until the first layer shows the order of the input's axes."""
        self.parts: tuple[Part, ...] = ()
        """Axes of that output; after a Flatten layer still channels, height and width."""
        self.linear: tuple[Any, Any, Part | None] | None = None
        """Factor and summand, by channel, that belong to no layer yet, and the channels' axis."""
        self.stage = 0
        self.rows = 0
        """Size of an adaptive pooling of which only the rows are complete."""
        self.end: Signal | None = None
        """The result after a softmax."""
        self.output: Output = "logits"
        """The network's field for it."""

    @property
    def image(self) -> Signal:
        """The graph's input."""
        return Signal(0, axes_of(self.batch, *self.pixels))

    def compute_in(self, dtype: str) -> None:
        """Note that the graph computes in this type, if it is less exact than float32."""
        note = f"the file computes in {dtype}, this program in float32"
        if dtype in ("float16", "bfloat16") and note not in self.notes:
            self.notes += (note,)

    def value(self, name: str) -> Value:
        """Return the result of that name."""
        if name not in self.values:
            raise Unreadable(f"no node before it gives {name[:80]!r}")
        if isinstance(self.values[name], TensorProto):
            self.values[name] = self.source.stored(self.values[name])
        return self.values[name]

    def settle(self, value: Value, may_pad: bool = False) -> Signal:
        """Return a signal that is the last layer's output: a function of it becomes the layer's activation."""
        if not isinstance(value, Signal):
            raise Unreadable("its input does not depend on the image")
        if value.stage != self.stage or self.rows:
            raise Unreadable("it takes the output of an earlier layer; only sequences of layers are supported")
        if self.end:
            raise Unreadable("it follows the softmax")
        if value.pads and not may_pad:
            raise Unreadable("its input is padded")
        if value.curve is PROBES:
            return value
        if value.window:
            self._normalize_responses(value)
        elif is_linear(value.curve):
            self.scale(slope_of(value.curve), value.curve[0])
        else:
            self._activate(value.curve)
        return Signal(self.stage, value.axes, pads=value.pads, fill=value.fill)

    def scale(self, factor: Any, summand: Any, part: Part | None = None) -> None:
        """Apply a linear function, whose layer `flush` decides."""
        before, shift, other = self.linear or (1.0, 0.0, part)
        if part and other and part != other:
            raise Unreadable("it scales along another axis than the node before")
        self.linear = before * factor, shift * factor + summand, other or part
        self.stage += 1

    def _activate(self, curve: Array) -> None:
        if not self.layers:
            raise Unreadable("an activation comes before the first layer")
        self.flush()
        fields = activation_of(curve)
        if fields is None:
            raise Unreadable("the nodes before it compute a function that is no activation of the spec")
        if not activate(self.layers, **fields):
            raise Unreadable(f"{fields['activation']} cannot follow {self.layers[-1].name}")
        self.stage += 1

    def _normalize_responses(self, signal: Signal) -> None:
        """Add the normalization that PyTorch writes as squares, a pooling over channels and a power."""
        alpha, k, beta = signal.constants if len(signal.constants) == 3 else (0.0, 1.0, 0.0)
        if not alpha or not is_close(signal.curve, PROBES / (k + alpha * MEANS) ** beta):
            raise Unreadable("the nodes before it are no local response normalization")
        self.add_response_norm(signal.window, alpha, k, beta)

    def add_response_norm(self, size: int, alpha: float, k: float, beta: float) -> Signal:
        """Add a normalization of local responses, whose alpha is for a mean in ONNX and for a sum in the spec."""
        return self.add("LocalResponseNorm", size=size, alpha=decimal(decimal(alpha) / size),
                        beta=decimal(beta), k=decimal(k))

    def add(self, kind: str, **fields: Any) -> Signal:
        """Add a layer, and return its output in canonical order."""
        self.flush()
        layer = layers.KINDS[kind](canonical_name(self.layers, kind), **fields)
        self.shape = layers.output_shape(layer, self.shape)
        self.layers.append(layer)
        self.stage += 1
        if kind not in ("Flatten", "BatchNorm", "Dropout", "LocalResponseNorm"):
            self.parts = tuple(zip("CHW" if len(self.shape) == 3 else "F", self.shape))
        return Signal(self.stage, axes_of(self.batch, *self.parts))

    def add_weights(self, kind: str, weight: StoredTensor, bias: Value, **fields: Any) -> Signal:
        """Add a convolution or dense layer, whose weight has the canonical layout."""
        result, size = self.add(kind, activation=None, **fields), weight.shape[0]
        name = self.layers[-1].name
        self.tensors[f"{name}.weight"] = weight
        if bias is not None:
            tensor = weight_of(bias)
            if tensor.shape[-1:] not in ((), (1,), (size,)) or max(tensor.shape[:-1], default=1) > 1:
                raise Unreadable(f"its bias has the shape {tensor.shape}")
            self.tensors[f"{name}.bias"] = view(tensor, (size,), lambda array: np.broadcast_to(array.ravel(), (size,)))
        return result

    def flush(self) -> None:
        """Make a linear function part of a layer: a normalization of the pixels, a bias, or a batch normalization."""
        if self.linear is None:
            return
        (factor, summand, part), self.linear = self.linear, None
        if part and part != self.parts[0]:
            raise Unreadable("the values before it are scaled along an axis that is not the channels'")
        factor, summand = (np.broadcast_to(each, self.parts[0][1:]) for each in (factor, summand))
        last = self.layers[-1] if self.layers else None
        if last is None:
            self._normalize(-summand / factor, 1 / factor)
        elif isinstance(last, WEIGHTED) and not last.activation:
            self._fold(last.name, factor, summand)
        elif self.parts[0][1:] == self.shape[:1]:
            self._normalize_batches(factor, summand)
        else:
            raise Unreadable(f"a multiplication or addition follows {last.name}, which is no layer of the spec")

    def _fold(self, name: str, factor: Array, summand: Array) -> None:
        """Make a linear function of a layer's output, such as a batch normalization that is written so, part of its
        weights."""
        weight, bias = self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias")
        if not np.allclose(factor, 1, 1e-12, 0):
            self.notes += (f"a multiplication after {name} is part of its weights",)
            self.tensors[f"{name}.weight"] = view(weight, weight.shape, lambda array: (
                array * factor.reshape(-1, *[1] * (array.ndim - 1))).astype(array.dtype))
        if bias is not None:
            summand = summand + factor * bias.load()
        dtype = "float32" if weight.dtype == "bfloat16" else weight.dtype
        self.tensors[f"{name}.bias"] = constant(np.asarray(summand, dtype))

    def _normalize_batches(self, factor: Array, summand: Array) -> None:
        """Add a batch normalization with mean 0 and variance 1, as an exporter may write one that has others."""
        before = self.layers[-1].name
        self.add("BatchNorm")
        norm = self.layers[-1]
        assert isinstance(norm, layers.BatchNorm)
        self.notes += (f"a multiplication after {before} is a batch normalization with mean 0 and variance 1",)
        zeros = np.zeros_like(summand)
        for part, value in zip(parameters.parts(norm), (factor * np.sqrt(1 + norm.epsilon), summand, zeros, zeros + 1)):
            self.tensors[f"{norm.name}.{part}"] = constant(np.asarray(value, np.float32))

    def _normalize(self, mean: Array, std: Array) -> None:
        """Add a normalization of the pixels. The spec's are from 0 to 1; the file's may be from 0 to 255."""
        if not self.is_own:
            scaled = in_unit_range(mean, std)
            if scaled is None:
                raise Unreadable("its scaling of the pixels does not show their range", "export the network without it")
            mean, std, takes_levels = scaled
            self.notes += ("the file takes pixels from 0 to 255",) * takes_levels
        if self.is_own or not np.allclose(mean, 0, atol=TOLERANCE) or not np.allclose(std, 1, TOLERANCE):
            self.layers.append(layers.Normalize("normalize", *(tuple(map(decimal, each)) for each in (mean, std))))

    def arrange(self, axes: tuple[Axis, ...]) -> None:
        """Decide the order of the input's axes, by what the first layer takes."""
        if self.shape:
            return
        first, second, third = self.pixels
        orders = [(first, second, third), (third, first, second)]
        scaled = self.linear and self.linear[2]
        fits = [order for order in orders if (
            axes == axes_of(self.batch, *order) if len(axes) == 4 else  # else merged, in the file's own order
            order[0] == scaled if scaled else order[0][1] in (1, 3))]
        if self.is_own:
            fits = orders[:1]
        if not fits or (len(fits) > 1 and len(axes) != 4):
            raise Unreadable("its input's order is neither N, C, H, W nor N, H, W, C")
        self.parts = fits[0]
        self.shape = self.input = self.parts[0][1], self.parts[1][1], self.parts[2][1]
        if self.parts == orders[1]:
            self.notes += ("the file takes images in N, H, W, C order",)

    def maps(self, value: Value, may_pad: bool = False) -> Signal:
        """Return the last layer's output, as images in N, C, H, W order."""
        signal = self.settle(value, may_pad)
        self.arrange(signal.axes)
        self.flush()
        pads = signal.pads or ((0, 0),) * 4
        if signal.axes != axes_of(self.batch, *self.parts) or len(self.shape) != 3 or any(map(any, pads[:2])):
            raise Unreadable("it does not take images in N, C, H, W order")
        return replace(signal, pads=pads)

    def features(self, value: Value) -> Axis:
        """Add a Flatten layer where one is due, and return the order in which the graph merges the axes."""
        signal = self.settle(value)
        self.arrange(signal.axes)
        wanted = sorted(part for part in self.parts if part[1] > 1)
        if len(signal.axes) != 2 or signal.axes[:1] != axes_of(self.batch) or sorted(signal.axes[1]) != wanted:
            raise Unreadable("it does not take (images, features)")
        if len(self.shape) == 3:
            self.add("Flatten")
        return signal.axes[1]

    def finish(self, value: Value, name: str) -> Network:
        """Return the network that ends with this result."""
        signal = self.end if self.end and value is self.end else self.settle(value)
        if len(self.shape) != 1 or signal.axes != axes_of(self.batch, *self.parts):
            raise Unreadable("its output is not (images, classes) after a layer with weights")
        self.flush()
        self.layers = [replace(layer, bias=f"{layer.name}.bias" in self.tensors) if isinstance(layer, WEIGHTED) else
                       layer for layer in self.layers]
        network = Network(network_name(name, "onnx"), self.input, tuple(self.layers), output=self.output)
        shapes = parameters.shapes(network)
        for name, shape in shapes.items():
            if self.tensors[name].shape != shape:
                raise Unreadable(f"{name} is {self.tensors[name].shape}, not {shape}")
        self.tensors = {name: self.tensors[name] for name in shapes}
        return network
