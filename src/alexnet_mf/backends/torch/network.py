"""The network as PyTorch users write it: one flat `nn.Sequential`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from alexnet_mf.spec import Network, arithmetic, layers
from alexnet_mf.spec.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LocalResponseNorm,
    MaxPool2d,
    Shape,
)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),  # its input is read by nobody else, and backward takes its output
    "sigmoid": nn.Sigmoid,
}


class Normalize(nn.Module):
    """torchvision's transform of this name as a module of the network, which it moves to the device with.

    Its numbers are buffers that a state_dict leaves out: it has the parameters alone.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


def build(network: Network) -> nn.Sequential:
    """The spec's layers, with PyTorch's own initial values; each module bears its layer's name."""
    inputs = arithmetic.input_shapes(network)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in network.layers:
        modules[layer.name] = native(layer, inputs[layer.name])
        if isinstance(layer, (Conv2d, Dense)) and layer.activation:
            modules[activation_name(layer)] = ACTIVATIONS[layer.activation]()
    return nn.Sequential(modules)


def native(layer: Layer, inputs: Shape) -> nn.Module:
    """PyTorch's module for one layer, its activation apart."""
    match layer:
        case Conv2d():
            return nn.Conv2d(inputs[0], layer.channels, layer.kernel, layer.stride, layer.padding, groups=layer.groups)
        case MaxPool2d():
            return nn.MaxPool2d(layer.kernel, layer.stride)
        case AvgPool2d():
            return nn.AvgPool2d(layer.kernel, layer.stride)
        case AdaptiveAvgPool2d():
            return nn.AdaptiveAvgPool2d(layer.size)
        case LocalResponseNorm():
            # PyTorch takes the mean over `size` where the paper takes the sum: it divides alpha by n.
            return nn.LocalResponseNorm(layer.size, layer.alpha * layer.size, layer.beta, layer.k)
        case layers.Normalize():
            return Normalize(layer.mean, layer.std)
        case Flatten():
            return nn.Flatten()
        case Dense():
            return nn.Linear(inputs[0], layer.units)
        case Dropout():
            return nn.Dropout(layer.rate)
        case _:
            raise TypeError(f"{layer!r} has no module")


def activation_name(layer: Conv2d | Dense) -> str:
    """The name of the module that follows this layer's own."""
    return f"{layer.name}_{layer.activation}"


def modules(layer: Layer, net: nn.Sequential) -> list[nn.Module]:
    """The modules of a built network that make up one canonical layer; the last one gives its output."""
    result = [net.get_submodule(layer.name)]
    if isinstance(layer, (Conv2d, Dense)) and layer.activation:
        result.append(net.get_submodule(activation_name(layer)))
    return result
