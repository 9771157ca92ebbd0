"""Results of the nodes in an ONNX graph: constants, and functions of the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from alexnet_mf.spec.layers import Shape
from alexnet_mf.weights.formats.onnx.tensors import Unreadable, view
from alexnet_mf.weights.stored import FLOATS, StoredTensor

Array: TypeAlias = NDArray[Any]
Part: TypeAlias = tuple[str, int]
"""Name and size of an axis of the last layer's output."""
Axis: TypeAlias = tuple[Part, ...]
"""The parts that one axis of a signal merges, outermost first, without those of size 1."""

MOST_FOLDED = 2**10
"""Largest product of the sizes of the constants that a node computes with."""
PROBES: Array = np.concatenate([[0, 2.0**30, -1], np.linspace(-8, 8, 128), np.geomspace(1e-3, 1e9, 49),
                                -np.geomspace(1e-3, 1e9, 49)])
"""Values at which functions are compared. The first two show the offset and the slope of a linear one."""
MEANS: Array = 10 ** np.random.default_rng(0).uniform(-3, 6, PROBES.size)
"""Values of a second variable: the mean of squares over neighboring channels."""
TOLERANCE = 1e-6
"""Largest difference of equal functions, whose constants are float32 in files."""


@dataclass(frozen=True)
class Signal:
    """A function, number by number, of the last layer's output, with axes in any order."""

    stage: int
    """Number of the layer."""
    axes: tuple[Axis, ...]
    curve: Array = field(default_factory=lambda: PROBES)
    """The function's values at `PROBES`."""
    pads: tuple[tuple[int, int], ...] = ()
    """Numbers of values before and after each axis; () if there are none."""
    fill: float = 0
    """The value of these."""
    window: int = 0
    """Number of channels whose mean of squares is the function's second variable; 0 if it has none."""
    constants: tuple[float, ...] = ()
    """The function's constants, in the order of their nodes."""


Value: TypeAlias = Signal | StoredTensor | None


class Node:
    """A node's values and attributes. An attribute that nobody asks for is an error."""

    def __init__(self, node: NodeProto, inputs: Sequence[Value]) -> None:
        self.operator, self.inputs, self.outputs = node.op_type, inputs, [name for name in node.output if name]
        self.attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        if len(self.attributes) != len(node.attribute):
            raise Unreadable("two of its attributes have the same name")

    def attribute(self, name: str, default: Any = None) -> Any:
        value = self.attributes.pop(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return what is an input in newer opsets and an attribute in older ones."""
        value = self.inputs[position] if position < len(self.inputs) else None
        return self.attribute(name, default) if value is None else small(value).tolist()


Operator: TypeAlias = Callable[..., Value]


class Operators(dict[str, Operator]):
    """Functions by the names of operators. Each takes the walk, the node and the node's inputs, and returns its result.
    """

    def register(self, *names: str) -> Callable[[Operator], Operator]:
        """Return a decorator that enters a function under these names."""
        def enter(function: Operator) -> Operator:
            self.update(dict.fromkeys(names, function))
            return function
        return enter


def _gelu(x: Array, approximate: str = "none") -> Array:
    inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)) if approximate == "tanh" else _erf(x / math.sqrt(2))
    return x * (1 + inner) / 2


def _divide(x: Array, y: Array) -> Array:
    return x // y if np.asarray(x).dtype.kind == "i" else x / y


_erf = np.vectorize(math.erf, otypes=[float])
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Abs": np.abs, "Add": np.add, "Clip": np.clip, "Div": _divide, "Erf": _erf, "Exp": np.exp, "Gelu": _gelu,
    "Elu": lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
    "LeakyRelu": lambda x, alpha=0.01: np.where(x > 0, x, alpha * x), "Max": np.maximum, "Min": np.minimum,
    "Mul": np.multiply, "Neg": np.negative, "Pow": np.power, "PRelu": lambda x, slope: np.where(x > 0, x, slope * x),
    "Reciprocal": lambda x: 1 / x, "Relu": lambda x: np.maximum(x, 0), "Sigmoid": lambda x: (1 + np.tanh(x / 2)) / 2,
    "Sqrt": np.sqrt, "Sub": np.subtract, "Tanh": np.tanh}
"""Operators that treat each number alone."""
ACTIVATIONS: dict[str, tuple[Callable[..., Any], float]] = {
    "relu": (FUNCTIONS["Relu"], 0), "sigmoid": (FUNCTIONS["Sigmoid"], 0), "tanh": (np.tanh, 0), "gelu": (_gelu, 0),
    "gelu_tanh": (lambda x: _gelu(x, "tanh"), 0), "leaky_relu": (FUNCTIONS["LeakyRelu"], -1),
    "elu": (FUNCTIONS["Elu"], math.expm1(-1))}
"""Functions by the spec's names, and the value at -1 for an alpha of 1; 0 for those without alpha."""


def activation_of(curve: Array) -> dict[str, Any] | None:
    """Return the spec's fields for the activation with these values at `PROBES`, or None."""
    for name, (function, at_minus_one) in ACTIVATIONS.items():
        alpha = {"alpha": decimal(curve[2] / at_minus_one)} if at_minus_one else {}
        if is_close(curve, function(PROBES, **alpha)):
            return {"activation": name, **alpha}
    return None


def is_close(curve: Array, other: Array) -> bool:
    return bool(np.allclose(curve, other, TOLERANCE, TOLERANCE))


def is_linear(curve: Array) -> bool:
    """Return True for the values of a linear function at `PROBES`."""
    return is_close(curve, curve[0] + slope_of(curve) * PROBES)


def slope_of(curve: Array) -> Any:
    return (curve[1] - curve[0]) / PROBES[1]


def decimal(value: Any) -> float:
    """Return the shortest decimal of a float32: 0.2, not 0.20000000298."""
    return float(str(np.float32(value))) + 0.0  # no -0.0


def constant_of(value: Value) -> StoredTensor:
    """Return a constant."""
    if not isinstance(value, StoredTensor):
        raise Unreadable("a parameter is missing" if value is None else "it is supported for constants alone, and "
                         "this value depends on the image")
    return value


def weight_of(value: Value) -> StoredTensor:
    """Return a constant of floating-point numbers."""
    tensor = constant_of(value)
    if tensor.dtype not in FLOATS:
        raise Unreadable(f"its weight is {tensor.dtype}, not of floating-point numbers")
    return tensor


def small(value: Value) -> Array:
    """Return the values of a small constant."""
    return smalls(value)[0]


def smalls(*values: Value) -> list[Array]:
    """Return the values of small constants, whose combinations are few too."""
    tensors = [constant_of(value) for value in values]
    if math.prod(max(1, math.prod(tensor.shape)) for tensor in tensors) > MOST_FOLDED:
        raise Unreadable("its constants are too large")
    return [tensor.load() for tensor in tensors]


def sizes_of(value: Value) -> Shape:
    """Return the shape of a constant or of a signal without padding."""
    if not isinstance(value, Signal):
        return constant_of(value).shape
    if value.pads:
        raise Unreadable("its input is padded")
    return tuple(math.prod(size for _, size in axis) for axis in value.axes)


def axes_of(*parts: Part) -> tuple[Axis, ...]:
    """Return an axis for each part."""
    return tuple((part,) if part[1] > 1 else () for part in parts)


def reshape(value: Value, sizes: Sequence[int]) -> Value:
    """Return the value in another shape. Parts of a signal's axes are moved as a whole."""
    before = sizes_of(value)
    if math.prod(before) != math.prod(sizes) or min(sizes, default=1) < 1:
        raise Unreadable(f"it changes the shape {before} to {tuple(sizes)}")
    if not isinstance(value, Signal):
        return view(constant_of(value), tuple(sizes), lambda array: array.reshape(sizes))
    parts, axes = [part for axis in value.axes for part in axis], []
    for size in sizes:
        axis = []
        while size > 1 and parts and size % parts[0][1] == 0:
            axis.append(parts.pop(0))
            size //= axis[-1][1]
        if size > 1:
            raise Unreadable("it splits or mixes images, channels, height and width")
        axes.append(tuple(axis))
    return replace(value, axes=tuple(axes))
