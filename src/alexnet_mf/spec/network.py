"""A network as data: a tuple of frozen layers, with its dictionaries and digests.

`layers.py` defines the layers, `zoo.py` the networks by name. This module imports nothing outside the standard library.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from alexnet_mf.errors import SpecError
from alexnet_mf.spec.layers import (
    ACTIVATIONS,
    KINDS,
    LARGEST_TENSOR,
    AvgPool2d,
    BatchNorm,
    Dense,
    Dropout,
    Layer,
    MaxPool2d,
    Normalize,
    Shape,
    explicit,
    output_shape,
)

BiasInitialisation: TypeAlias = Literal["zeros", "uniform_fan_in"]
BIAS_INITIALISATIONS: tuple[BiasInitialisation, ...] = ("zeros", "uniform_fan_in")

Output: TypeAlias = Literal["logits", "softmax"]
OUTPUTS: tuple[Output, ...] = ("logits", "softmax")

PARTS = "padding", "cropping", *ACTIVATIONS
"""Parts of a layer that are modules of their own in some backends, named after it: `conv1_relu`."""

MOST_LAYERS = 1000
"""Largest number of layers; each costs time in the frameworks and in the search for a diverging layer."""

LATER_FIELDS: dict[str, Any] = {"groups": 1, "learning_rate": None, "alpha": None, "bias": True,
                                "output": "logits"}
"""Fields added after the first networks, with their defaults. A description leaves out a field that has its
default, so the digests of those networks stay the same."""
LATER_POOLING_FIELDS: dict[str, Any] = {"padding": 0, "count_padding": False}
"""Such fields of the poolings; convolutions have had their padding from the start."""


@dataclass(frozen=True)
class Network:
    """A network: the shape of one input image and the layers that follow. A padding "same" becomes numbers.

    Raises:
        SpecError: if two layers have the same name, or a layer does not fit its input; names the layer and numbers.
    """

    name: str
    input: tuple[int, int, int]
    layers: tuple[Layer, ...]
    source: str = ""
    bias_initialisation: BiasInitialisation = "zeros"
    learning_rate: float | None = None
    """Learning rate for plain SGD; None to use the recipe's."""
    output: Output = "logits"
    """`softmax` for a network whose users get probabilities: an exported graph then ends in a softmax. Everything else
    uses the logits, so `digest` leaves this field out."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            raise SpecError(f"{self.name!r} cannot name a network; use letters, digits, _, . and -")
        if not isinstance(self.source, str):
            raise SpecError(f"network {self.name}: source must be text, not {self.source!r}")
        if len(self.input) != 3 or any(not isinstance(size, int) or isinstance(size, bool) or size < 1
                                       for size in self.input):
            raise SpecError(f"network {self.name}: input must be (channels, height, width), not {self.input!r}")
        if self.learning_rate is not None:
            rate = self.learning_rate
            if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 < rate <= sys.float_info.max:
                raise SpecError(f"network {self.name}: learning_rate must be a number above 0, not {rate!r}")
            object.__setattr__(self, "learning_rate", float(rate))
        if self.bias_initialisation not in BIAS_INITIALISATIONS:
            raise SpecError(f"network {self.name}: bias_initialisation must be one of "
                            f"{', '.join(BIAS_INITIALISATIONS)}, not {self.bias_initialisation!r}")
        if self.output not in OUTPUTS:
            raise SpecError(f"network {self.name}: output must be one of {', '.join(OUTPUTS)}, not {self.output!r}")
        if len(self.layers) > MOST_LAYERS:
            raise SpecError(f"network {self.name}: {len(self.layers):,} layers; at most {MOST_LAYERS:,} are allowed")
        shape: Shape = self.input
        names: set[str] = set()
        layers: list[Layer] = []
        for number, layer in enumerate(self.layers, 1):
            with _in_layer(number):
                if not isinstance(layer.name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", layer.name):
                    raise SpecError(f"network {self.name}: {layer.name!r} cannot name a layer; "
                                    "use letters, digits and _")
                if layer.name in names:
                    raise SpecError(f"layer {number} is named {layer.name!r}, like another; names must differ")
                if isinstance(layer, Normalize) and number > 1:
                    raise SpecError(f"layer {layer.name}: a Normalize layer takes the pixels, so it must be "
                                    f"the first layer, not layer {number}")
                layers.append(explicit(layer, shape))
                shape = output_shape(layer, shape)
            names.add(layer.name)
        object.__setattr__(self, "layers", tuple(layers))
        for number, layer in enumerate(layers, 1):
            for owner in (layer.name.removesuffix(f"_{part}") for part in PARTS):
                if owner != layer.name and owner in names:
                    with _in_layer(number):
                        raise SpecError(f"layer {number} is named {layer.name!r}, as a backend names a part of {owner}"
                                        "; use another name")
        if math.prod(self.input) > LARGEST_TENSOR:
            raise SpecError(f"network {self.name}: an input of {'x'.join(map(str, self.input))} is too large: "
                            f"no tensor may have more than {LARGEST_TENSOR:,} numbers")
        last = "the last layer must be a Dense layer with one unit for each class"
        if not self.layers:
            raise SpecError(f"network {self.name}: {last}")
        if not isinstance(self.layers[-1], Dense):
            with _in_layer(len(self.layers)):
                raise SpecError(f"network {self.name}: {last}, not {self.layers[-1].name}")

    @property
    def classes(self) -> int:
        """Number of classes: the units of the last layer."""
        last = self.layers[-1]
        assert isinstance(last, Dense)
        return last.units


@contextmanager
def _in_layer(number: int) -> Iterator[None]:
    """Add the number of the faulty layer, from 1, to an error."""
    try:
        yield
    except SpecError as error:
        error.layer = number
        raise


def with_dropout(network: Network, rate: float) -> Network:
    """Return the network with every dropout rate replaced."""
    layers = tuple(dataclasses.replace(layer, rate=rate) if isinstance(layer, Dropout) else layer
                   for layer in network.layers)
    return dataclasses.replace(network, layers=layers)


def with_classes(network: Network, classes: int) -> Network:
    """Return the network with another number of classes; its name contains the number."""
    if classes == network.classes:
        return network
    last = network.layers[-1]
    assert isinstance(last, Dense)
    last = dataclasses.replace(last, units=classes)
    return dataclasses.replace(network, name=f"{network.name}-{classes}-classes", layers=(*network.layers[:-1], last))


def with_channels(network: Network, channels: int) -> Network:
    """Return the network for pictures of one channel or three; its name says which."""
    if channels == network.input[0]:
        return network
    return dataclasses.replace(network, name=f"{network.name}-{'gray' if channels == 1 else 'color'}",
                               input=(channels, *network.input[1:]))


def as_dict(network: Network) -> dict[str, Any]:
    """Return the network as plain JSON values; each layer has its kind."""
    fields = _describe(network)
    fields["layers"] = [{"kind": type(layer).__name__, **_describe(layer)} for layer in network.layers]
    return fields


def _describe(item: Network | Layer) -> dict[str, Any]:
    """Return the fields, except later ones that have their default; tuples become lists, as in JSON."""
    later = LATER_FIELDS | (LATER_POOLING_FIELDS if isinstance(item, (MaxPool2d, AvgPool2d)) else {})
    return {key: _plain(value)
            for key, value in dataclasses.asdict(item).items()
            if key not in later or value != later[key]}


def _plain(value: Any) -> Any:
    """Return a value with lists for tuples, at every depth."""
    return list(map(_plain, value)) if isinstance(value, tuple) else value


def from_dict(fields: dict[str, Any]) -> Network:
    """Return the network that `as_dict` described.

    Raises:
        SpecError: if a key is missing, unknown or has a wrong value; names the layer.
    """
    try:
        if not isinstance(fields, dict):
            raise TypeError(f"{fields!r}")
        _check_keys("network description", Network, fields)
        if not isinstance(fields["input"], (list, tuple)):
            raise SpecError(f"input must be [channels, height, width], not {fields['input']!r}")
        layers: list[Layer] = []
        for number, entry in enumerate(fields["layers"], 1):
            with _in_layer(number):
                layers.append(_layer(number, entry))
        rest = {key: value for key, value in fields.items() if key not in ("layers", "input")}
        return Network(input=tuple(fields["input"]), layers=tuple(layers), **rest)
    except SpecError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise SpecError(f"not a network description: {error}") from error


def _layer(number: int, entry: dict[str, Any]) -> Layer:
    values = dict(entry)
    where = f"layer {values.get('name', number)}"
    if "kind" not in values:
        raise SpecError(f"{where}: its kind is missing; known: {', '.join(KINDS)}")
    kind = values.pop("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise SpecError(f"{where}: unknown kind {kind!r}; known: {', '.join(KINDS)}")
    _check_keys(where, KINDS[kind], values)
    layer: Layer = KINDS[kind](**values)
    return layer


def _check_keys(where: str, kind: type[Network] | type[Layer], values: dict[str, Any]) -> None:
    """Check that a description has the keys that its class needs, and no others."""
    required = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(kind)}
    for key in values:
        if key not in required:
            near = difflib.get_close_matches(str(key), required, 1, cutoff=0.75)
            raise SpecError(f"{where}: unknown key {key!r}{f', perhaps {near[0]!r}' if near else ''}; "
                            f"{kind.__name__} has {', '.join(required)}")
    missing = [key for key, needed in required.items() if needed and key not in values]
    if missing:
        raise SpecError(f"{where}: {', '.join(missing)} missing; {kind.__name__} needs "
                        f"{', '.join(key for key, needed in required.items() if needed)}")


def digest(network: Network) -> str:
    """Return the SHA-256 of the architecture: networks with equal digests compute the same from the same weights.

    Learning rate, initial biases, dropout rates and the momentum of batch normalization are left out: only training
    uses them. So is a softmax after the logits.
    """
    layers = tuple(dataclasses.replace(layer, momentum=0) if isinstance(layer, BatchNorm) else layer
                   for layer in with_dropout(network, 0).layers)
    fields = as_dict(dataclasses.replace(network, layers=layers))
    return _sha256({key: fields[key] for key in ("input", "layers")})


def fingerprint(network: Network) -> str:
    """Return the SHA-256 of the whole network except its name and source, for records."""
    return _sha256({key: value for key, value in as_dict(network).items() if key not in ("name", "source")})


def _sha256(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
