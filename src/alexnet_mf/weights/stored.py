"""Contents of a weights file before they are matched to a network: the contract between file formats and `matching`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Layer, Network, Shape
from alexnet_mf.weights.parameters import COUNTER

Layout: TypeAlias = Literal["OIHW", "HWIO"]
"""Order of a convolution's axes. OIHW goes with dense weights (out, in) flattened from channels, height, width; HWIO
with (in, out) flattened from height, width, channels."""

FLOATS = ("float32", "float16", "bfloat16", "float64")
"""Dtypes of weights."""


def widen(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 numbers from their bits in float32: the same bits with 16 zeros after them."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def filled(value: float, shape: Shape) -> StoredTensor:
    """Return a tensor that a file leaves out because all its numbers are `value`."""
    return StoredTensor("float32", shape, lambda: np.full(shape, value, np.float32))


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file. It is read only after its shape and dtype have been checked."""

    dtype: str
    """NumPy's name, or `bfloat16`."""
    shape: Shape
    load: Callable[[], NDArray[Any]]
    """Reads the values, while the file is open. bfloat16 comes as float32, which is exact."""


@dataclass(frozen=True)
class StoredWeights:
    """The tensors in a weights file, and the file's own description of its network."""

    tensors: Mapping[str, StoredTensor]
    """By the file's own names, in the model's order. Optimizer state and counters are left out."""
    layout: Layout | None = "OIHW"
    """None if the format allows both."""
    is_ordered: bool = True
    """False if the file does not give the order of its layers."""
    network: Network | None = None
    """The network that the file describes; None if it has tensors alone."""
    layers: tuple[Layer, ...] | None = None
    """The layers under canonical names, if the file describes them without the shape of their input; then `network` is
    None."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The file's name by each canonical name of the parameters of `network` or `layers`."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Entries of a canonical file's header; from other formats `preprocessing` and `classes`, if they have them."""
    notes: tuple[str, ...] = ()
    """One clause for each choice that the reader made, such as `weights of the entry state_dict`."""

    def __post_init__(self) -> None:
        tensors = {name: tensor for name, tensor in self.tensors.items() if not name.endswith(COUNTER)}
        object.__setattr__(self, "tensors", tensors)


def from_mapping(tensors: Mapping[str, Any]) -> StoredWeights:
    """Return tensors of any framework, by name, like those of a file.

    PyTorch and MXNet store convolutions as OIHW, TensorFlow as HWIO. NumPy arrays may have either layout.

    Raises:
        ParametersError: if a value is no tensor; names it.
    """
    layouts_of = {"torch": "OIHW", "mxnet": "OIHW", "tensorflow": "HWIO", "keras": "HWIO"}
    orders: set[Any] = set()
    result = {}
    for name, value in tensors.items():
        if str(name) in result:
            raise ParametersError(f"two tensors are named {name}; give each a name of its own")
        orders.add(layouts_of.get(type(value).__module__.partition(".")[0]))
        array = _array(name, value)
        result[str(name)] = StoredTensor(array.dtype.name, array.shape, lambda array=array: array)  # type: ignore[misc]
    return StoredWeights(result, orders.pop() if len(orders) == 1 else None)


def _array(name: str, value: Any) -> NDArray[Any]:
    for method in ("detach", "cpu", "float" if "bfloat16" in str(getattr(value, "dtype", "")) else "", "asnumpy"):
        if not isinstance(value, np.ndarray) and hasattr(value, method):
            value = getattr(value, method)()
    array = np.asarray(value) if hasattr(value, "__array__") else None
    if array is None or array.dtype == object:
        raise ParametersError(f"{name} is a {type(value).__name__}, not a tensor; give arrays by their names")
    return array
