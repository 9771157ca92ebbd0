"""The network as PyTorch users write it: one flat `nn.Sequential`."""

from __future__ import annotations

import math

from torch import nn

from alexnet_mf import spec
from alexnet_mf.backends.torch.layers import BatchNorm1d, BatchNorm2d, Normalize, PixelAvgPool2d
from alexnet_mf.spec import Network, arithmetic
from alexnet_mf.spec.layers import Windowed, even_padding, image_pixels, sides


def build(network: Network) -> nn.Sequential:
    """Build the network with PyTorch's own initial values; each module has its layer's name."""
    inputs = arithmetic.input_shapes(network)
    net = nn.Sequential()
    for layer in network.layers:
        modules = native(layer, inputs[layer.name])
        for name, module in zip(names(layer)[-len(modules):], modules):
            net.add_module(name, module)
    return net


def native(layer: spec.Layer, inputs: spec.Shape) -> list[nn.Module]:
    """Return PyTorch's modules for a layer whose input has shape `inputs`, without the batch."""
    match layer:
        case spec.Conv2d():
            even = even_padding(layer, inputs)
            return [*([] if even else [nn.ZeroPad2d(around(layer))]),
                    nn.Conv2d(in_channels=inputs[0], out_channels=layer.channels, kernel_size=layer.kernel,
                              stride=layer.stride, padding=even[0] if even else 0, groups=layer.groups,
                              bias=layer.bias),
                    *activation(layer)]
        case spec.MaxPool2d():
            if even := even_padding(layer, inputs):
                return [nn.MaxPool2d(kernel_size=layer.kernel, stride=layer.stride, padding=single(even[0]),
                                     ceil_mode=even[1])]
            return [nn.ConstantPad2d(around(layer), -math.inf),
                    nn.MaxPool2d(kernel_size=layer.kernel, stride=layer.stride)]
        case spec.AvgPool2d():
            if even := even_padding(layer, inputs):
                return [nn.AvgPool2d(kernel_size=layer.kernel, stride=layer.stride, padding=single(even[0]),
                                     ceil_mode=even[1], count_include_pad=layer.count_padding)]
            return [nn.ZeroPad2d(around(layer)),
                    nn.AvgPool2d(kernel_size=layer.kernel, stride=layer.stride) if layer.count_padding else
                    PixelAvgPool2d(layer.kernel, layer.stride, image_pixels(layer, inputs))]
        case spec.AdaptiveAvgPool2d():
            return [nn.AdaptiveAvgPool2d(output_size=layer.size)]
        case spec.LocalResponseNorm():
            # PyTorch takes the mean over `size` channels where the paper takes the sum: it divides alpha by n.
            return [nn.LocalResponseNorm(size=layer.size, alpha=layer.alpha * layer.size, beta=layer.beta, k=layer.k)]
        case spec.Normalize():
            return [Normalize(mean=layer.mean, std=layer.std)]
        case spec.Flatten():
            return [nn.Flatten()]
        case spec.Dense():
            return [nn.Linear(in_features=inputs[0], out_features=layer.units, bias=layer.bias), *activation(layer)]
        case spec.BatchNorm():
            kind = BatchNorm2d if len(inputs) == 3 else BatchNorm1d
            return [kind(num_features=inputs[0], eps=layer.epsilon, momentum=layer.momentum), *activation(layer)]
        case spec.Dropout():
            return [nn.Dropout(p=layer.rate)]
    raise TypeError(f"{layer!r} has no PyTorch module")


def around(layer: Windowed) -> tuple[int, int, int, int]:
    """Return a layer's padding in PyTorch's order: from the last axis to the first."""
    height, width = sides(layer.padding)
    return (*width, *height)


def single(padding: tuple[int, int]) -> int | tuple[int, int]:
    """Return two equal numbers as one."""
    height, width = padding
    return height if height == width else padding


def activation(layer: spec.Learner) -> list[nn.Module]:
    """Return PyTorch's module for a layer's activation, or nothing."""
    match layer.activation, layer.alpha:
        case "relu", _:
            return [nn.ReLU(inplace=True)]  # no other module reads its input, and the backward pass uses its output
        case "sigmoid", _:
            return [nn.Sigmoid()]
        case "tanh", _:
            return [nn.Tanh()]
        case "elu", float(alpha):
            return [nn.ELU(alpha, inplace=True)]
        case "leaky_relu", float(alpha):
            return [nn.LeakyReLU(alpha, inplace=True)]
        case "gelu", _:
            return [nn.GELU()]
        case "gelu_tanh", _:
            return [nn.GELU(approximate="tanh")]
    return []


def names(layer: spec.Layer) -> list[str]:
    """Return the names of a layer's modules; the first one, a padding, only some layers have."""
    activation = getattr(layer, "activation", None)
    return [f"{layer.name}_padding", layer.name, *([f"{layer.name}_{activation}"] if activation else [])]


def modules(layer: spec.Layer, net: nn.Sequential) -> list[nn.Module]:
    """Return the modules of a built network that make up one layer; the last one gives its output."""
    children = dict(net.named_children())
    return [children[name] for name in names(layer) if name in children]
