"""Names that other programs give to a network's layers in their files, and the parts of a parameter's name.

A scheme maps each layer with parameters to the name of its module, as `features.0` for conv1.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from alexnet_mf import spec
from alexnet_mf.spec import Network, arithmetic, zoo
from alexnet_mf.spec.layers import AvgPool2d, BatchNorm, Flatten, Layer, Normalize

PARTS = {"weight": ("weight", "weights", "kernel", "w", "gamma"), "bias": ("bias", "biases", "b", "beta"),
         "running_mean": ("running_mean", "moving_mean"), "running_var": ("running_var", "moving_var",
                                                                        "moving_variance")}
"""Last component of a parameter's name in other programs, by the canonical one."""
CANONICAL = {theirs: part for part, names in PARTS.items() for theirs in names}
"""Canonical parts, by those of other programs."""
BY_NUMBER = tuple(PARTS)
"""Parts of Keras's `vars/0`, `vars/1` and so on."""
WRAPPERS = ("module", "_orig_mod", "_forward_module")
"""Components that DataParallel, `torch.compile` and Lightning's engines insert anywhere."""

WITHIN = "relu", "sigmoid", "tanh"
"""Activations that Gluon's layers take as an argument; others are blocks of their own."""
MODEL_ZOO = {"conv1": "features.0", "conv2": "features.2", "conv3": "features.4", "conv4": "features.5",
             "conv5": "features.6", "fc6": "features.9", "fc7": "features.11", "fc8": "output"}
"""Names in the AlexNet of MXNet's model zoo, which is `alexnet-owt`."""


def split(name: str) -> tuple[str, str] | None:
    """Return the module and the canonical part of a parameter's name, or None if its last component is no part.

    `features.0.weight`, `conv1/kernel:0`, `arg:conv0_bias` and `layers/dense/vars/1` are examples.
    """
    name = re.sub(r":\d+$", "", name)
    name = re.sub(r"^(arg|aux):", "", name)
    if numbered := re.fullmatch(r"(.*)/vars/(\d)", name):
        number = int(numbered[2])
        return (numbered[1], BY_NUMBER[number]) if number < len(BY_NUMBER) else None
    for part, theirs in PARTS.items():
        ending = re.fullmatch(rf"(.+)[./_](?:{'|'.join(theirs)})", name, re.IGNORECASE | re.DOTALL)
        if ending:
            return ending[1], part
    return None


def rename(name: str, modules: Mapping[str, str]) -> str:
    """Return a parameter's name with its layer replaced by the module of that layer, if there is one."""
    layer, _, part = name.partition(".")
    return f"{modules.get(layer, layer)}.{part}"


def components(module: str) -> list[str]:
    """Return the components of a module's name without wrappers."""
    return [word for word in re.split(r"[./]", module) if word not in WRAPPERS]


def numbered(network: Network) -> dict[str, str]:
    """Return PyTorch's names in a flat `Sequential`, which numbers its modules, activations and paddings included."""
    result, position = {}, 0
    padded = padded_apart(network)
    for layer in without_normalization(network):
        position += layer.name in padded
        if isinstance(layer, spec.LEARNERS):
            result[layer.name] = str(position)
        position += 1 + bool(getattr(layer, "activation", None))
    return result


def torchvision(network: Network) -> dict[str, str]:
    """Return torchvision's names: `features` and, after the flattening, `classifier`, each numbered from 0."""
    names = numbered(network)
    layers, padded = without_normalization(network), padded_apart(network)
    flatten = next((i for i, layer in enumerate(layers) if isinstance(layer, Flatten)), len(layers))
    first = sum(1 + bool(getattr(layer, "activation", None)) + (layer.name in padded)
                for layer in layers[:flatten + 1])
    return {layer: f"features.{number}" if int(number) < first else f"classifier.{int(number) - first}"
            for layer, number in names.items()}


def blocks(network: Network) -> dict[str, str]:
    """Return Gluon's names in a flat `Sequential`: blocks contain most activations, and Dense flattens by itself. Batch
    normalization does neither."""
    result, position = {}, 0
    padded, flattened = padded_apart(network), flattened_by_dense(network)
    for layer in without_normalization(network):
        means_pixels = isinstance(layer, AvgPool2d) and not layer.count_padding  # a block that pads by itself
        position += layer.name in padded and not means_pixels
        contained = () if isinstance(layer, BatchNorm) else WITHIN
        if isinstance(layer, spec.LEARNERS):
            result[layer.name] = str(position)
        activation = getattr(layer, "activation", None)
        position += (layer.name not in flattened) + (activation not in (None, *contained))
    return result


def flattened_by_dense(network: Network) -> set[str]:
    """Return the Flatten layers that are no block in Gluon, because the next layer with parameters is Dense."""
    following = {layer.name: next(other for other in network.layers[i:] if isinstance(other, spec.LEARNERS))
                 for i, layer in enumerate(network.layers) if isinstance(layer, Flatten)}
    return {name for name, layer in following.items() if isinstance(layer, spec.Dense)}


def padded_apart(network: Network) -> set[str]:
    """Return the layers with paddings that only a module of its own before the layer can add."""
    inputs = arithmetic.input_shapes(network)
    return {layer.name for layer in network.layers if arithmetic.padded_values(layer, inputs[layer.name])}


def model_zoo(network: Network) -> dict[str, str]:
    """Return the names in MXNet's model zoo; {} for another network than `alexnet-owt`."""
    return dict(MODEL_ZOO) if is_alexnet_owt(network) else {}


SCHEMES = {"torchvision": torchvision, "numbered": numbered, "blocks": blocks, "model_zoo": model_zoo}


def is_alexnet_owt(network: Network) -> bool:
    """Return True for the layers of torchvision's AlexNet, with any number of classes."""
    plain = dataclasses.replace(network, layers=without_normalization(network))
    return spec.digest(spec.with_classes(plain, zoo.ALEXNET_OWT.classes)) == spec.digest(zoo.ALEXNET_OWT)


def without_normalization(network: Network) -> tuple[Layer, ...]:
    """Return the layers without `Normalize`: in other programs it is a transform of the data, not a module."""
    return tuple(layer for layer in network.layers if not isinstance(layer, Normalize))
