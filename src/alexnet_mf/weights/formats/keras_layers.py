"""Layers of a Keras model as its description lists them. The description is plain JSON; nothing in it is run.

Keras 3 and Keras 2 list a model's layers, and models among them, each with its class and its arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from alexnet_mf.errors import ParametersError
from alexnet_mf.spec.network import MOST_LAYERS

MODELS = ("Sequential", "Functional", "Model")
OWN_MODULE = "alexnet_mf.backends.tensorflow.layers"
DAMAGED = "has a damaged description of its model; save the model again"
CHAIN = "build the model as one chain of layers"

VARIABLES = {"Conv2D": ("kernel", "bias"), "Dense": ("kernel", "bias"), "Normalization": ("mean", "variance", "count"),
             "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance")}
"""Names of the variables of a layer, in Keras's order."""
SWITCHES = {"bias": "use_bias", "gamma": "scale", "beta": "center"}
"""Arguments that leave out a variable where they are False."""

Sides: TypeAlias = "tuple[tuple[int, int], tuple[int, int]]"
"""Numbers of pixels: ((top, bottom), (left, right))."""


@dataclass(frozen=True)
class KerasLayer:
    """A layer in a model's description."""

    kind: str
    name: str
    config: Mapping[str, Any]
    group: str
    """Path of its group in Keras 3's files, which number the layers of each model by class."""
    top: str
    """Name of the outermost model's layer that contains it: its group in a legacy file."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of its variables, in Keras's order."""
        return tuple(name for name in VARIABLES[self.kind] if self.config.get(SWITCHES.get(name, ""), True))

    def refuse(self, problem: str, remedy: str = "build the model without it") -> NoReturn:
        raise ParametersError(f"layer `{self.name[:80]}` ({self.kind[:80]}) {problem}; {remedy}")

    def refuse_argument(self, key: str, remedy: str = "build the model without it") -> NoReturn:
        self.refuse(f"has {key[:80]}={repr(self.config.get(key))[:80]}, which is not supported", remedy)

    def equal(self, key: str, default: int = 1) -> Any:
        """Return an argument that is the same for height and width."""
        value = self.config.get(key) or default
        height, width = value if isinstance(value, list) else (value, value)
        if height != width:
            self.refuse_argument(key, "use the same for height and width")
        return height

    def sides(self, key: str) -> Sides:
        """Return an argument with numbers of pixels: one for all sides, or two, or four."""
        value = self.config[key]
        rows, columns = value if isinstance(value, list) else (value, value)
        (top, bottom), (left, right) = (side if isinstance(side, list) else (side, side) for side in (rows, columns))
        if min(top, bottom, left, right) < 0:
            self.refuse_argument(key)
        return (top, bottom), (left, right)


def is_described(model: Any) -> bool:
    """Return True if there is a model's description and it lists the layers; a subclassed model's does not.

    Raises:
        ParametersError: if it is not a description.
    """
    if not isinstance(model, (dict, type(None))):
        raise ParametersError(DAMAGED)
    return model is not None and model.get("class_name") in MODELS and _is_of_keras(model)


def _is_of_keras(entry: dict[str, Any]) -> bool:
    """Return True for a class of Keras or of this package. Legacy files do not name the module.

    Others' classes named LocalResponseNormalization divide alpha by the size, or do not.
    """
    module = str(entry.get("module", "keras"))
    return module == OWN_MODULE or (module.partition(".")[0] in ("keras", "tf_keras")
                                    and entry.get("class_name") != "LocalResponseNormalization")


def config_of(entry: Any) -> dict[str, Any]:
    """Return the arguments of a layer or a model."""
    config = entry.get("config") if isinstance(entry, dict) else None
    config = {"layers": config} if isinstance(config, list) else config  # a Sequential of Keras before 2.2.3
    if not isinstance(config, dict):
        raise ParametersError(DAMAGED)
    return config


def layers_of(model: dict[str, Any], path: str = "", top: str = "") -> Iterator[KerasLayer]:
    """Yield the layers of a model and of the models in it, in the order of computation."""
    config = config_of(model)
    counts: dict[str, int] = {}
    layers: dict[str, tuple[Any, KerasLayer]] = {}
    for entry in (config.get("layers") or [])[:MOST_LAYERS + 1]:
        kind, own = str(entry.get("class_name")) if isinstance(entry, dict) else "", config_of(entry)
        name = str(own.get("name") or entry.get("name"))
        stem = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
        stem = re.sub("([a-z])([A-Z])", r"\1_\2", stem).lower()  # as Keras's `to_snake_case`
        counts[stem] = counts.get(stem, -1) + 1
        stem += f"_{counts[stem]}" if counts[stem] else ""
        layer = KerasLayer(kind, name, own, f"{path}layers/{stem}", top or name)
        if not _is_of_keras(entry):
            layer.refuse("is not a class of Keras")
        if name in layers:
            layer.refuse("has the name of another layer, or is used twice", CHAIN)
        layers[name] = entry, layer
    for name in layers if model["class_name"] == "Sequential" else _chain(config, layers):
        entry, layer = layers[name]
        if layer.kind in MODELS:
            yield from layers_of(entry, f"{layer.group}/", layer.top)
        else:
            yield layer


def _chain(config: dict[str, Any], layers: Mapping[str, tuple[Any, KerasLayer]]) -> list[str]:
    """Return the names of a functional model's layers, from its input to its output, if they are a chain."""
    chain: list[str] = []
    references = _references(config.get("output_layers"))
    while True:
        names = [reference[0] for reference in references if reference[2] == 0]
        if len(references) != 1 or not names or names[0] not in layers or names[0] in chain:
            raise ParametersError(f"describes a model that is not a chain of layers; {CHAIN}")
        entry, layer = layers[names[0]]
        chain.insert(0, layer.name)
        if layer.kind == "InputLayer":
            break
        nodes = entry.get("inbound_nodes")
        references = _references(nodes)
        if not isinstance(nodes, list) or len(nodes) != 1 or len(references) != 1:
            layer.refuse(f"has {len(references)} inputs, not one", CHAIN)
        node = nodes[0] if isinstance(nodes[0], dict) else {"args": [None], "kwargs": references[0][3:]}
        if not is_unset([node.get("kwargs"), node["args"][1:] if isinstance(node.get("args"), list) else True]):
            layer.refuse("is called with more than its input", "call it with its input alone")
    for _, layer in layers.values():
        if layer.name not in chain:
            layer.refuse("is not on the way from the input to the output", CHAIN)
    return chain


def _references(value: Any) -> list[Any]:
    """Return all [layer, node, output] in a value, in which layers refer to their inputs."""
    if isinstance(value, list) and len(value) in (3, 4) and list(map(type, value[:3])) == [str, int, int]:
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [reference for item in items for reference in _references(item)]


def is_unset(value: Any) -> bool:
    """Return True if all values in a value are None or False."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return value is None or value is False if items is None else all(map(is_unset, items))
