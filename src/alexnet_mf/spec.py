"""The networks, as data: every hyperparameter once, with its source beside it.

A network is a tuple of frozen layers. An activation belongs to its layer, padding is an explicit number of pixels on
each side, and pooling rounds down. Nothing here imports a framework, or anything outside the standard library.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from alexnet_mf.errors import SpecError

Shape: TypeAlias = tuple[int, ...]
"""One image's shape: (channels, height, width), or (features,) once flattened."""

Activation: TypeAlias = Literal["relu", "sigmoid"]
ACTIVATIONS: tuple[Activation, ...] = ("relu", "sigmoid")

BiasInitialisation: TypeAlias = Literal["zeros", "uniform_fan_in"]
BIAS_INITIALISATIONS: tuple[BiasInitialisation, ...] = ("zeros", "uniform_fan_in")


def _check_integer(layer: Layer, field: str, least: int) -> None:
    value = getattr(layer, field)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SpecError(f"layer {layer.name}: {field} must be a whole number of at least {least}, not {value!r}")


def _check_activation(layer: Conv2d | Dense) -> None:
    if layer.activation is not None and layer.activation not in ACTIVATIONS:
        raise SpecError(f"layer {layer.name}: activation must be one of {', '.join(ACTIVATIONS)} or none, "
                        f"not {layer.activation!r}")


@dataclass(frozen=True)
class Conv2d:
    """A square convolution (cross-correlation) with a bias, then its activation."""

    name: str
    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    activation: Activation | None = "relu"

    def __post_init__(self) -> None:
        for field, least in (("channels", 1), ("kernel", 1), ("stride", 1), ("padding", 0)):
            _check_integer(self, field, least)
        _check_activation(self)


@dataclass(frozen=True)
class MaxPool2d:
    """The largest value in each square window; windows that do not fit are left out."""

    name: str
    kernel: int
    stride: int

    def __post_init__(self) -> None:
        for field in ("kernel", "stride"):
            _check_integer(self, field, 1)


@dataclass(frozen=True)
class Flatten:
    """(channels, height, width) to (features,), in that order."""

    name: str


@dataclass(frozen=True)
class Dense:
    """A fully connected layer with a bias, then its activation."""

    name: str
    units: int
    activation: Activation | None = None

    def __post_init__(self) -> None:
        _check_integer(self, "units", 1)
        _check_activation(self)


@dataclass(frozen=True)
class Dropout:
    """In training, zeroes a share `rate` of the values and scales the others by 1 / (1 - rate)."""

    name: str
    rate: float

    def __post_init__(self) -> None:
        if not isinstance(self.rate, (int, float)) or not 0 <= self.rate < 1:
            raise SpecError(f"layer {self.name}: rate must be at least 0 and below 1, not {self.rate!r}")
        object.__setattr__(self, "rate", float(self.rate))  # 0 and 0.0 are one rate, and must have one digest


Layer: TypeAlias = Conv2d | MaxPool2d | Flatten | Dense | Dropout


@dataclass(frozen=True)
class Network:
    """A network: the shape of one input image and the layers that follow.

    Raises:
        SpecError: on duplicate names, or where a layer does not fit what reaches it; names the layer and the numbers.
    """

    name: str
    input: tuple[int, int, int]
    layers: tuple[Layer, ...]
    source: str = ""
    bias_initialisation: BiasInitialisation = "zeros"

    def __post_init__(self) -> None:
        if len(self.input) != 3 or any(not isinstance(size, int) or size < 1 for size in self.input):
            raise SpecError(f"network {self.name}: input must be (channels, height, width), not {self.input!r}")
        if self.bias_initialisation not in BIAS_INITIALISATIONS:
            raise SpecError(f"network {self.name}: bias_initialisation must be one of "
                            f"{', '.join(BIAS_INITIALISATIONS)}, not {self.bias_initialisation!r}")
        names = [layer.name for layer in self.layers]
        for name in names:
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                raise SpecError(f"network {self.name}: {name!r} cannot name a layer; use letters, digits and _")
        for name in names:
            if names.count(name) > 1:
                raise SpecError(f"network {self.name}: {names.count(name)} layers are named {name!r}; "
                                f"names must differ")
        shape: Shape = self.input
        for layer in self.layers:
            shape = output_shape(layer, shape)
        if not self.layers or not isinstance(self.layers[-1], Dense):
            raise SpecError(f"network {self.name}: the last layer must be a Dense layer, one unit a class")

    @property
    def classes(self) -> int:
        """The number of classes: the units of the last layer."""
        last = self.layers[-1]
        assert isinstance(last, Dense)
        return last.units


def output_shape(layer: Layer, shape: Shape) -> Shape:
    """The shape of one image after `layer`, given its shape before; (size + 2 padding - kernel) // stride + 1.

    Raises:
        SpecError: where the layer cannot take that shape.
    """
    if isinstance(layer, Dropout):
        return shape
    if isinstance(layer, Dense):
        if len(shape) != 1:
            raise SpecError(f"layer {layer.name}: a Dense layer takes flat features, not {shape}; "
                            f"put a Flatten before it")
        return (layer.units,)
    if len(shape) != 3:
        raise SpecError(f"layer {layer.name}: takes (channels, height, width), not the flat {shape}")
    channels, *sizes = shape
    if isinstance(layer, Flatten):
        return (channels * sizes[0] * sizes[1],)
    padding = layer.padding if isinstance(layer, Conv2d) else 0
    padded = [size + 2 * padding for size in sizes]
    if layer.kernel > min(padded):
        raise SpecError(f"layer {layer.name}: kernel {layer.kernel} is larger than its padded input "
                        f"{padded[0]}x{padded[1]} ({sizes[0]}x{sizes[1]}, padding {padding})")
    height, width = ((size - layer.kernel) // layer.stride + 1 for size in padded)
    return (layer.channels if isinstance(layer, Conv2d) else channels, height, width)


def with_dropout(network: Network, rate: float) -> Network:
    """The same network with every dropout rate replaced."""
    layers = tuple(dataclasses.replace(layer, rate=rate) if isinstance(layer, Dropout) else layer
                   for layer in network.layers)
    return dataclasses.replace(network, layers=layers)


def as_dict(network: Network) -> dict[str, Any]:
    """The network as plain JSON values; each layer says its kind."""
    fields = dataclasses.asdict(network)
    fields["input"] = list(network.input)
    fields["layers"] = [{"kind": type(layer).__name__, **dataclasses.asdict(layer)} for layer in network.layers]
    return fields


def from_dict(fields: dict[str, Any]) -> Network:
    """The network that `as_dict` wrote.

    Raises:
        SpecError: where a key is missing, unknown or of the wrong kind.
    """
    kinds = {kind.__name__: kind for kind in (Conv2d, MaxPool2d, Flatten, Dense, Dropout)}
    try:
        layers = []
        for entry in fields["layers"]:
            values = dict(entry)
            kind = values.pop("kind")
            if kind not in kinds:
                raise SpecError(f"layer {values.get('name')}: unknown kind {kind!r}; known: {', '.join(kinds)}")
            layers.append(kinds[kind](**values))
        rest = {key: value for key, value in fields.items() if key not in ("layers", "input")}
        return Network(input=tuple(fields["input"]), layers=tuple(layers), **rest)
    except SpecError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise SpecError(f"not a network description: {error}") from error


def digest(network: Network) -> str:
    """SHA-256 of the network's numbers: equal digests, equal networks. Names of networks and sources do not count."""
    fields = as_dict(network)
    for label in ("name", "source"):
        del fields[label]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _alexnet(name: str, source: str, conv1_padding: int, bias_initialisation: BiasInitialisation) -> Network:
    return Network(
        name=name,
        input=(1, 224, 224),  # Fashion-MNIST, upsampled from 28x28: section 8.1.3
        layers=(
            # Krizhevsky et al. 2012, section 3.5, as simplified in section 8.1.2: one tower, no normalisation, and
            # "overlapping" 3x3 pooling with stride 2.
            Conv2d("conv1", channels=96, kernel=11, stride=4, padding=conv1_padding),
            MaxPool2d("pool1", kernel=3, stride=2),
            Conv2d("conv2", channels=256, kernel=5, padding=2),
            MaxPool2d("pool2", kernel=3, stride=2),
            Conv2d("conv3", channels=384, kernel=3, padding=1),
            Conv2d("conv4", channels=384, kernel=3, padding=1),
            Conv2d("conv5", channels=256, kernel=3, padding=1),
            MaxPool2d("pool5", kernel=3, stride=2),
            Flatten("flatten"),
            Dense("fc6", units=4096, activation="relu"),
            Dropout("drop6", rate=0.5),  # section 8.1.2.3
            Dense("fc7", units=4096, activation="relu"),
            Dropout("drop7", rate=0.5),
            Dense("fc8", units=10),  # ten classes here, 1000 in the paper
        ),
        source=source,
        bias_initialisation=bias_initialisation,
    )


ALEXNET = _alexnet("alexnet", "Dive into Deep Learning, section 8.1 (after Krizhevsky et al. 2012)", 1, "zeros")

# What each tab of section 8.1 prints. PyTorch pads conv1 by 1, the others by 0; both give 54x54. The PyTorch tab sets
# weights alone and keeps that framework's default biases.
TABS = {
    "torch": _alexnet("alexnet-tab", "Dive into Deep Learning, section 8.1, PyTorch tab", 1, "uniform_fan_in"),
    "tensorflow": _alexnet("alexnet-tab", "Dive into Deep Learning, section 8.1, TensorFlow tab", 0, "zeros"),
    "mxnet": _alexnet("alexnet-tab", "Dive into Deep Learning, section 8.1, MXNet tab", 0, "zeros"),
}
TABS["numpy"] = TABS["torch"]  # the referee has no tab: it takes the one that the default network follows

NETWORKS = ("alexnet", "alexnet-tab")


def get_network(name: str, backend: str = "torch") -> Network:
    """The network of that name; `alexnet-tab` differs from backend to backend.

    Raises:
        SpecError: for an unknown name, or a backend whose tab is not known; lists the known ones.
    """
    if name == "alexnet":
        return ALEXNET
    if name == "alexnet-tab":
        if backend not in TABS:
            raise SpecError(f"network alexnet-tab: no tab is known for {backend!r}; known: {', '.join(TABS)}")
        return TABS[backend]
    raise SpecError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
