"""The network, run straight from its spec on plain arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from alexnet_mf.backends.numpy import layers
from alexnet_mf.backends.numpy.layers import Array
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import (
    Activation,
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LocalResponseNorm,
    MaxPool2d,
    Normalize,
)


class NumpyNetwork:
    """The layers of a spec, one after the other, and their parameters by canonical name."""

    def __init__(self, network: Network, parameters: dict[str, Array]) -> None:
        self.spec = network
        self.parameters = parameters
        self.dtype: np.dtype[Any] = next(iter(parameters.values())).dtype

    def forward(self, x: Array, dropout: tuple[int, int] | None = None) -> Iterator[tuple[str, Array]]:
        """Each layer's name and its output after its activation; `dict()` of it keeps them all, for `backward`.

        Args:
            dropout: (seed, step) of the masks to apply; without it dropout is off.
        """
        for layer in self.spec.layers:
            match layer:
                case Conv2d():
                    x = layers.conv2d_forward(x, *self._weight_and_bias(layer), layer.stride, layer.padding,
                                              layer.groups)
                    x = _activate(layer.activation, x)
                case MaxPool2d():
                    x = layers.max_pool_forward(x, layer.kernel, layer.stride)
                case AvgPool2d():
                    x = layers.avg_pool_forward(x, layer.kernel, layer.stride)
                case AdaptiveAvgPool2d():
                    x = layers.adaptive_avg_pool_forward(x, layer.size)
                case LocalResponseNorm():
                    x = layers.local_response_norm_forward(x, layer.size, layer.alpha, layer.beta, layer.k)
                case Normalize():
                    x = layers.normalize_forward(x, layer.mean, layer.std)
                case Flatten():
                    x = layers.flatten_forward(x)
                case Dense():
                    x = layers.dense_forward(x, *self._weight_and_bias(layer))
                    x = _activate(layer.activation, x)
                case Dropout() if dropout is not None:
                    kept = layers.dropout_kept(x.shape, layer.rate, *dropout, layer.name)
                    x = layers.dropout_forward(x, kept, layer.rate)
                case Dropout():
                    pass
                case _:
                    raise TypeError(f"{layer!r} has no function")
            yield layer.name, x

    def backward(
        self,
        gradient: Array,
        x: Array,
        outputs: Mapping[str, Array],
        dropout: tuple[int, int] | None = None,
        branch: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """The gradient of the loss in every parameter.

        Args:
            gradient: of the loss in the last layer's output.
            x: what `forward` took.
            outputs: what `forward` gave.
            dropout: as in `forward`.
            branch: the layer outputs of another run. ReLU and max pooling choose, and where values nearly tie, runs
                that differ by rounding alone choose differently. With a branch, ReLU passes the gradient where the
                branch's output is positive, and pooling hands it to the pixel that is largest in the branch: the
                gradient of the function that the other run followed. All values stay this run's own.
        """
        chosen = outputs if branch is None else branch
        before = dict(zip(outputs, [x, *outputs.values()]))
        chosen_before = dict(zip(outputs, [x, *(chosen[name] for name in outputs)]))
        gradients: dict[str, Array] = {}

        for layer in reversed(self.spec.layers):
            name, input_shape = layer.name, before[layer.name].shape
            if isinstance(layer, (Conv2d, Dense)):
                gradient = _deactivate(layer.activation, gradient, outputs[name], chosen[name])
                gradients |= self._parameter_gradients(layer, gradient, before[name])
                if len(gradients) == len(self.parameters):
                    break  # below there is nothing to learn, and the first convolution's input gradient is not cheap
            match layer:
                case Conv2d():
                    weight, _ = self._weight_and_bias(layer)
                    gradient = layers.conv2d_backward_input(gradient, weight, input_shape, layer.stride, layer.padding,
                                                            layer.groups)
                case MaxPool2d():
                    choice = layers.max_pool_choice(chosen_before[name], layer.kernel, layer.stride)
                    gradient = layers.max_pool_backward(gradient, choice, input_shape, layer.kernel, layer.stride)
                case AvgPool2d():
                    gradient = layers.avg_pool_backward(gradient, input_shape, layer.kernel, layer.stride)
                case AdaptiveAvgPool2d():
                    gradient = layers.adaptive_avg_pool_backward(gradient, input_shape, layer.size)
                case LocalResponseNorm():
                    gradient = layers.local_response_norm_backward(gradient, before[name], layer.size, layer.alpha,
                                                                   layer.beta, layer.k)
                case Normalize():
                    gradient = layers.normalize_backward(gradient, layer.std)
                case Flatten():
                    gradient = layers.flatten_backward(gradient, input_shape)
                case Dense():
                    weight, _ = self._weight_and_bias(layer)
                    gradient = layers.dense_backward_input(gradient, weight)
                case Dropout() if dropout is not None:
                    kept = layers.dropout_kept(input_shape, layer.rate, *dropout, name)
                    gradient = layers.dropout_backward(gradient, kept, layer.rate)
        return {name: gradients[name] for name in self.parameters}

    def _weight_and_bias(self, layer: Conv2d | Dense) -> tuple[Array, Array]:
        return self.parameters[f"{layer.name}.weight"], self.parameters[f"{layer.name}.bias"]

    def _parameter_gradients(self, layer: Conv2d | Dense, gradient: Array, x: Array) -> dict[str, Array]:
        if isinstance(layer, Conv2d):
            weight, bias = layers.conv2d_backward_parameters(gradient, x, layer.kernel, layer.stride, layer.padding,
                                                             layer.groups)
        else:
            weight, bias = layers.dense_backward_parameters(gradient, x)
        return {f"{layer.name}.weight": weight, f"{layer.name}.bias": bias}


def build(network: Network, parameters: dict[str, Array]) -> NumpyNetwork:
    """The network with these parameters, which it keeps and does not copy; their dtype is what it computes in."""
    return NumpyNetwork(network, parameters)


def native_name(layer: Layer) -> str:
    """What computes a layer, in the words of `layers.py`."""
    kinds: dict[type[Layer], str] = {
        Conv2d: "conv2d", MaxPool2d: "max_pool", AvgPool2d: "avg_pool", AdaptiveAvgPool2d: "adaptive_avg_pool",
        LocalResponseNorm: "local_response_norm", Normalize: "normalize", Flatten: "flatten", Dense: "dense",
        Dropout: "dropout"}
    activation = getattr(layer, "activation", None)
    return kinds[type(layer)] + (f" + {activation}" if activation else "")


def _activate(activation: Activation | None, x: Array) -> Array:
    match activation:
        case "relu":
            return layers.relu_forward(x)
        case "sigmoid":
            return layers.sigmoid_forward(x)
        case None:
            return x


def _deactivate(activation: Activation | None, gradient: Array, output: Array, chosen: Array) -> Array:
    """Back through an activation: `output` is this run's, `chosen` is the output whose signs decide in a ReLU."""
    match activation:
        case "relu":
            return layers.relu_backward(gradient, chosen > 0)
        case "sigmoid":
            return layers.sigmoid_backward(gradient, output)
        case None:
            return gradient
