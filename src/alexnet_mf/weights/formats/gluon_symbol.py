"""Networks as MXNet writes them beside the weights, in `NAME-symbol.json`: a graph of operators. Sequences are read."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet_mf.errors import SpecError
from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.layers import (
    LEARNERS,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LocalResponseNorm,
    MaxPool2d,
)
from alexnet_mf.spec.network import MOST_LAYERS
from alexnet_mf.weights import parameters
from alexnet_mf.weights.formats.description import activate, batch_share, canonical_name, network_name
from alexnet_mf.weights.parameters import LONGEST_NAME
from alexnet_mf.weights.stored import StoredTensor, StoredWeights, filled

PREFIX = r"^(arg|aux):"
"""Start of a tensor's name in the weights file that its name in the graph lacks."""
ACTIVATIONS = ("relu", "sigmoid", "tanh")
"""Types of the operator Activation that the spec has."""
LEAKY = {"leaky": "leaky_relu", "elu": "elu", "gelu": "gelu"}
"""Activations by the types of the operator LeakyReLU."""
SOFTMAX = ("softmax", "SoftmaxOutput")
HARMLESS = re.compile(r"__\w+__|(\w+_)?(lr|wd)_mult|ctx_group|force_mirroring|mirror_stage|workspace|cudnn_\w+")
"""Attributes for training and speed."""


@dataclass(frozen=True)
class _Node:
    operator: str
    name: str
    attributes: dict[str, str]
    inputs: list[_Node]

    def __str__(self) -> str:
        return f"node {self.name[:LONGEST_NAME]!r}"


def describe(content: Any, tensors: Mapping[str, StoredTensor], symbol: str) -> StoredWeights:
    """Return the tensors in the graph's order, with the network, or its layers if the input's shape is unknown.

    Args:
        content: the file's JSON.
        symbol: the file's name.

    Raises:
        SpecError: if the graph has an operator or attribute that the package lacks, or is not a sequence.
        ValueError: if it is not such a graph, or that of other tensors.
    """
    chain = _chain(content)
    layers, theirs = _layers(chain[1:])
    own = {re.sub(PREFIX, "", name): name for name in tensors}
    if different := {*theirs.values()} ^ {*own} or {*own.values()} ^ {*tensors}:
        raise ValueError(f"only one of them has {min(different)[:LONGEST_NAME]!r}")
    names = {name: own[other] for name, other in theirs.items()}
    shapes = {name: tensors[other].shape for name, other in names.items()}
    for layer in layers:
        if isinstance(layer, (Conv2d, Dense)):
            weight = shapes[f"{layer.name}.weight"]
            inputs = math.prod(weight[1:2]) * (layer.groups if isinstance(layer, Conv2d) else 1)
            if weight != arithmetic.weight_shape(layer, (inputs,)) or (
                    layer.bias and shapes[f"{layer.name}.bias"] != weight[:1]):
                raise ValueError(f"{names[f'{layer.name}.weight'][:LONGEST_NAME]!r} is {weight}")
    normalizations = (layer for layer in layers if isinstance(layer, BatchNorm))
    for layer, node in zip(normalizations, [node for node in chain if node.operator == "BatchNorm"]):
        if _value(node.attributes.get("fix_gamma", "True")):  # gamma counts as 1, whatever the file has
            gamma = f"{layer.name}.weight"
            tensors = {**tensors, names[gamma]: filled(1, shapes[gamma])}
    has_softmax = any(node.operator in SOFTMAX for node in chain)
    network, declared = None, _value(chain[0].attributes.get("__shape__", ""))
    if isinstance(declared, tuple) and len(declared) == 4 and min(declared[1:]) > 0:
        shape = (declared[1], declared[2], declared[3])
        name = network_name(symbol.removesuffix("-symbol.json"), "gluon")
        network = Network(name, shape, tuple(layers), output="softmax" if has_softmax else "logits")
        if parameters.shapes(network) != shapes:
            raise ValueError(f"the tensors do not fit an input of {'x'.join(map(str, shape))}")
    notes = (f"layers from {symbol}", *["without its softmax"] * (has_softmax and network is None))
    return StoredWeights({name: tensors[name] for name in names.values()}, network=network, names=names, notes=notes,
                         layers=None if network else tuple(layers))


def _chain(content: Any) -> list[_Node]:
    """Return the nodes from the input to the output, without those of parameters."""
    nodes: dict[tuple[int, int], _Node] = {}  # by the numbers of node and output
    try:
        for entry in content["nodes"]:
            attributes = {key: value for where in ("param", "attr", "attrs")  # the last since MXNet 1.0
                          for key, value in entry.get(where, {}).items()}
            inputs = [nodes[source, output] for source, output, *_ in entry["inputs"]]
            if not all(isinstance(text, str) for text in (entry["op"], entry["name"], *attributes.values())):
                raise TypeError
            nodes[len(nodes), 0] = _Node(entry["op"], entry["name"], attributes, inputs)
        chain = [nodes[source, output] for source, output, *_ in content["heads"]]
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ValueError("it is not a graph that MXNet wrote") from error
    if len(chain) != 1:
        raise SpecError(f"{len(chain)} outputs; use a network with one")
    while (node := chain[-1]).operator != "null":
        if not node.inputs or any(source.operator != "null" for source in node.inputs[1:]):
            raise SpecError(f"{node} ({node.operator[:LONGEST_NAME]}) does not have one input; use a "
                            "sequence of layers")
        chain.append(node.inputs[0])
    return chain[::-1]


def _layers(chain: Sequence[_Node]) -> tuple[list[Layer], dict[str, str]]:
    """Return the layers under canonical names, and the graph's name by the canonical name of each parameter."""
    layers: list[Layer] = []
    names: dict[str, str] = {}
    for node in chain:
        layer = _layer(node)
        is_flat = any(isinstance(earlier, (Flatten, Dense)) for earlier in layers)
        if isinstance(layer, dict):
            if not activate(layers, **layer):
                raise SpecError(f"{node}: an activation is supported only after a layer with parameters")
            continue
        if layer is None and node is not chain[-1]:
            raise SpecError(f"{node}: a softmax is supported only at the end")
        if layer is None or (isinstance(layer, Flatten) and is_flat):
            continue
        if isinstance(layer, Dense) and not is_flat:  # FullyConnected flattens its input
            layers.append(Flatten("flatten"))
        name = canonical_name(layers, type(layer).__name__)
        layers.append(dataclasses.replace(layer, name=name))
        if isinstance(layer, LEARNERS):
            parts = parameters.parts(layer)
            if len(node.inputs) != 1 + len(parts):
                raise ValueError(f"{node} has {len(node.inputs)} inputs, not {1 + len(parts)}")
            names |= {f"{name}.{part}": source.name for part, source in zip(parts, node.inputs[1:])}
        if len(layers) > MOST_LAYERS:
            raise SpecError(f"more than {MOST_LAYERS:,} layers; use a smaller network")
    return layers, names


def _layer(node: _Node) -> Layer | dict[str, Any] | None:
    """Return the operator's layer under the node's name, the changes that an activation makes to the layer before it,
    or None for a softmax.

    Raises:
        SpecError: if the package has no such layer.
    """
    match node.operator:
        case "Convolution":
            values = _values(node, num_filter=None, kernel=None, stride=1, pad=0, num_group=1, dilate=1, no_bias=False,
                             layout="NCHW")
            _require(node, values, dilate=1, layout="NCHW")
            return Conv2d(node.name, values["num_filter"], values["kernel"], values["stride"], _padding(values["pad"]),
                          None, values["num_group"], bias=not values["no_bias"])
        case "FullyConnected":
            values = _values(node, num_hidden=None, no_bias=False, flatten=True)
            _require(node, values, flatten=True)
            return Dense(node.name, values["num_hidden"], bias=not values["no_bias"])
        case "BatchNorm":
            values = _values(node, eps=1e-3, momentum=0.9, fix_gamma=True, axis=1, use_global_stats=False,
                             output_mean_var=False)
            _require(node, values, axis=1, output_mean_var=False)
            return BatchNorm(node.name, values["eps"], batch_share(values["momentum"]))
        case "Pooling":
            values = _values(node, kernel=None, stride=1, pad=0, pool_type="max", global_pool=False, layout="NCHW",
                             pooling_convention="valid", count_include_pad=True)
            if values["global_pool"]:  # MXNet ignores the window
                _require(node, values, pool_type="avg", layout="NCHW")
                return AdaptiveAvgPool2d(node.name, 1)
            _require(node, values, pooling_convention="valid", layout="NCHW")
            if values["pool_type"] == "max":
                return MaxPool2d(node.name, values["kernel"], values["stride"], _padding(values["pad"]))
            _require(node, values, pool_type="avg")
            return AvgPool2d(node.name, values["kernel"], values["stride"], _padding(values["pad"]),
                             values["count_include_pad"])
        case "_contrib_AdaptiveAvgPooling2D":
            return AdaptiveAvgPool2d(node.name, _values(node, output_size=None)["output_size"])
        case "LRN":
            values = _values(node, nsize=None, alpha=1e-4, beta=0.75, knorm=2)
            norm = LocalResponseNorm(node.name, values["nsize"], values["alpha"], values["beta"], values["knorm"])
            return dataclasses.replace(norm, alpha=norm.alpha / norm.size)  # src/operator/nn/lrn-inl.h
        case "Dropout":
            values = _values(node, p=0.5, mode="training", axes=())
            _require(node, values, mode="training", axes=())
            return Dropout(node.name, values["p"])
        case "Flatten":
            return Flatten(node.name)
        case "Activation":
            activation = str(_values(node, act_type=None)["act_type"])
            if activation not in ACTIVATIONS:
                raise SpecError(f"{node}: act_type {activation[:LONGEST_NAME]!r} is not supported, only "
                                f"{', '.join(ACTIVATIONS)}; use a network without it")
            return {"activation": activation}
        case "relu" | "_npx_relu" | "sigmoid" | "_npx_sigmoid" | "tanh" | "_npi_tanh":
            return {"activation": node.operator.rpartition("_")[2]}
        case "LeakyReLU":
            values = _values(node, act_type="leaky", slope=0.25)
            if values["act_type"] not in LEAKY:
                raise SpecError(f"{node}: act_type {values['act_type']!r} is not supported, only {', '.join(LEAKY)}; "
                                "use a network without it")
            return {"activation": LEAKY[values["act_type"]],
                    "alpha": None if values["act_type"] == "gelu" else values["slope"]}
        case "softmax":
            values = _values(node, axis=-1, temperature=1, use_length=False)
            _require(node, values, axis=1 if values["axis"] == 1 else -1, temperature=1, use_length=False)
            return None
        case "SoftmaxOutput":  # its attributes are for the loss
            return None
    raise SpecError(f"{node}: operator {node.operator[:LONGEST_NAME]!r} is not supported; use a network without it")


def _values(node: _Node, **defaults: Any) -> dict[str, Any]:
    """Return the attributes that an operator has. The defaults are MXNet's, or None where it has none."""
    values = dict(defaults)
    for key, text in node.attributes.items():
        if key in defaults and text not in ("None", "()"):
            values[key] = _value(text)
        elif key not in defaults and not HARMLESS.fullmatch(key):
            raise SpecError(f"{node}: {key[:LONGEST_NAME]!r} is not supported; use a network without it")
    return values


def _padding(value: Any) -> Any:
    """Return a padding of height and width as one of all sides, if they differ."""
    if isinstance(value, tuple) and len(value) == 2:
        height, width = value
        return (height, height), (width, width)
    return value


def _require(node: _Node, values: Mapping[str, Any], **wanted: Any) -> None:
    for key, value in wanted.items():
        if values[key] != value:
            raise SpecError(f"{node}: {key} {values[key]!r} is not supported, only {value!r}")


def _value(text: str) -> Any:
    """Return a bool, a number, a tuple, or the text itself; one number for a pair of equal ones."""
    if text.lower() in ("true", "false"):  # MXNet reads both spellings
        return text.lower() == "true"
    if re.fullmatch(r"[(\[][\d, L]*[)\]]", text):  # with L from Python 2
        sizes = tuple(int(number) for number in re.findall(r"\d+", text))
        return sizes[0] if len(sizes) == 2 and sizes[0] == sizes[1] else sizes
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
