"""The network, computed straight from its spec on plain arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import spec
from alexnet_mf.backends.numpy import layers
from alexnet_mf.backends.numpy.layers import Array
from alexnet_mf.spec import Network
from alexnet_mf.weights.parameters import parts, trained


def build(network: Network, parameters: dict[str, Array]) -> NumpyNetwork:
    """Return the network with these parameters, which it does not copy; it computes in their dtype."""
    return NumpyNetwork(network, parameters)


class NumpyNetwork:
    """The layers of a spec, one after the other, and their parameters by canonical name."""

    channel_sums = staticmethod(layers.channel_sums)
    """Function that adds up each channel in batch normalization."""

    def __init__(self, network: Network, parameters: dict[str, Array]) -> None:
        self.spec = network
        self.parameters = parameters
        self.trained = trained(network)
        self.dtype: np.dtype[Any] = next(iter(parameters.values())).dtype

    def cast(self, pixels: NDArray[Any]) -> Array:
        """Return the pixels in the dtype of the computation."""
        return pixels.astype(self.dtype, copy=False)

    def forward(self, x: Array, dropout: tuple[int, int] | None = None,
                training: bool = False) -> Iterator[tuple[str, Array]]:
        """Yield each layer's name and its output after its activation; `dict()` keeps them all, for `backward`.

        Args:
            dropout: (seed, step) of the masks to apply; without it dropout is off.
            training: normalize batches by their own statistics, as with dropout on, not by the running ones.
        """
        for layer in self.spec.layers:
            match layer:
                case spec.Conv2d() | spec.Dense() | spec.BatchNorm():
                    x = self.learned(layer, x, training or dropout is not None)
                case spec.MaxPool2d():
                    x = layers.max_pool_forward(x, kernel=layer.kernel, stride=layer.stride, padding=layer.padding)
                case spec.AvgPool2d():
                    x = layers.avg_pool_forward(x, kernel=layer.kernel, stride=layer.stride, padding=layer.padding,
                                                count_padding=layer.count_padding)
                case spec.AdaptiveAvgPool2d():
                    x = layers.adaptive_avg_pool_forward(x, size=layer.size)
                case spec.LocalResponseNorm():
                    x = layers.local_response_norm_forward(x, size=layer.size, alpha=layer.alpha, beta=layer.beta,
                                                           k=layer.k)
                case spec.Normalize():
                    x = layers.normalize_forward(x, mean=layer.mean, std=layer.std)
                case spec.Flatten():
                    x = layers.flatten_forward(x)
                case spec.Dropout():
                    if dropout is not None:
                        kept = layers.dropout_kept(x.shape, layer.rate, *dropout, layer.name)
                        x = layers.dropout_forward(x, kept, rate=layer.rate)
                case _:
                    raise TypeError(f"{layer!r} has no NumPy function")
            yield layer.name, x

    def backward(
        self,
        gradient: Array,
        x: Array,
        outputs: Mapping[str, Array],
        dropout: tuple[int, int] | None = None,
        branch: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """Return the gradient of the loss in every trained parameter.

        Args:
            gradient: gradient of the loss in the last layer's output.
            x: the input of `forward`.
            outputs: the outputs of `forward` in training.
            dropout: as in `forward`.
            branch: the layer outputs of another run. ReLU and max pooling choose, and where values nearly tie, runs
                that differ by rounding alone choose differently. With a branch, ReLU passes the gradient where the
                branch's output is positive, and pooling hands it to the pixel that is largest in the branch. The
                other activations whose slope jumps at zero follow the branch like ReLU. The result is the gradient of
                the function that the other run followed, at this run's values.
        """
        chosen = outputs if branch is None else branch
        before = dict(zip(outputs, [x, *outputs.values()]))
        chosen_before = dict(zip(outputs, [x, *(chosen[name] for name in outputs)]))
        gradients: dict[str, Array] = {}

        for layer in reversed(self.spec.layers):
            name, input_shape = layer.name, before[layer.name].shape
            if isinstance(layer, spec.LEARNERS):
                gradient = self.deactivate(layer, gradient, before[name], outputs[name], chosen[name])
                if isinstance(layer, spec.BatchNorm):
                    gradient, gradients[f"{name}.weight"], gradients[f"{name}.bias"] = layers.batch_norm_backward(
                        gradient, before[name], self.parameters[f"{name}.weight"], layer.epsilon, self.channel_sums)
                else:
                    gradients |= self.parameter_gradients(layer, gradient, before[name])
                if len(gradients) == len(self.trained):
                    break  # earlier layers have no parameters, and the first convolution's input gradient is slow
            match layer:
                case spec.Conv2d():
                    weight = self.parameters[f"{name}.weight"]
                    gradient = layers.conv2d_backward_input(gradient, weight, input_shape, layer.stride, layer.padding,
                                                            layer.groups)
                case spec.MaxPool2d():
                    windows = layer.kernel, layer.stride, layer.padding
                    choice = layers.max_pool_choice(chosen_before[name], *windows)
                    gradient = layers.max_pool_backward(gradient, choice, input_shape, *windows)
                case spec.AvgPool2d():
                    gradient = layers.avg_pool_backward(gradient, input_shape, layer.kernel, layer.stride,
                                                        layer.padding, layer.count_padding)
                case spec.AdaptiveAvgPool2d():
                    gradient = layers.adaptive_avg_pool_backward(gradient, input_shape, layer.size)
                case spec.LocalResponseNorm():
                    gradient = layers.local_response_norm_backward(gradient, before[name], layer.size, layer.alpha,
                                                                   layer.beta, layer.k)
                case spec.Normalize():
                    gradient = layers.normalize_backward(gradient, layer.std)
                case spec.Flatten():
                    gradient = layers.flatten_backward(gradient, input_shape)
                case spec.Dense():
                    gradient = layers.dense_backward_input(gradient, self.parameters[f"{name}.weight"])
                case spec.Dropout() if dropout is not None:
                    kept = layers.dropout_kept(input_shape, layer.rate, *dropout, name)
                    gradient = layers.dropout_backward(gradient, kept, layer.rate)
        return {name: gradients[name] for name in self.trained}

    def batch_statistics(self, x: Array, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the statistics of the batch in each batch normalization, under the names of the running ones.

        Args:
            x: the input of `forward`.
            outputs: the outputs of `forward` in training.
        """
        statistics: dict[str, Array] = {}
        for layer, before in zip(self.spec.layers, [x, *outputs.values()]):
            if isinstance(layer, spec.BatchNorm):
                mean, variance = layers.batch_statistics(before, self.channel_sums)
                statistics |= {f"{layer.name}.running_mean": mean, f"{layer.name}.running_var": variance}
        return statistics

    def move_statistics(self, x: Array, outputs: Mapping[str, Array]) -> None:
        """Move the running statistics towards those of the batch, in place; arguments as of `batch_statistics`."""
        momenta = {layer.name: layer.momentum for layer in self.spec.layers if isinstance(layer, spec.BatchNorm)}
        for name, value in self.batch_statistics(x, outputs).items():
            running = self.parameters[name]
            running += momenta[name.rpartition(".")[0]] * (value - running)

    def learned(self, layer: spec.Learner, x: Array, training: bool) -> Array:
        """Return the output of a layer with parameters; `training` is as for `forward`."""
        return activate(layer, self._sums(layer, x, training))

    def _sums(self, layer: spec.Learner, x: Array, training: bool = True) -> Array:
        """Return a layer's output without its activation."""
        if isinstance(layer, spec.BatchNorm):
            weight, bias, *running = (self.parameters[f"{layer.name}.{part}"] for part in parts(layer))
            mean, variance = layers.batch_statistics(x, self.channel_sums) if training else running
            return layers.batch_norm_forward(x, weight, bias, mean, variance, layer.epsilon)
        if isinstance(layer, spec.Conv2d):
            return layers.conv2d_forward(x, *self._weight_and_bias(layer), stride=layer.stride,
                                         padding=layer.padding, groups=layer.groups)
        return layers.dense_forward(x, *self._weight_and_bias(layer))

    def deactivate(self, layer: spec.Learner, gradient: Array, x: Array, output: Array, chosen: Array) -> Array:
        """Propagate a gradient through a layer's activation.

        Args:
            x: the layer's input.
            output: the layer's output.
            chosen: another run's output, whose signs decide in a ReLU.
        """
        match layer.activation, layer.alpha:
            case "relu", _:
                return layers.relu_backward(gradient, chosen > 0)
            case "sigmoid", _:
                return layers.sigmoid_backward(gradient, output)
            case "tanh", _:
                return layers.tanh_backward(gradient, output)
            case "elu", float(alpha):
                return layers.elu_backward(gradient, output, chosen > 0, alpha)
            case "leaky_relu", float(alpha):
                return layers.leaky_relu_backward(gradient, chosen > 0, alpha)
            case "gelu", _:  # two inputs may have one output, so its input is computed again
                return layers.gelu_backward(gradient, self._sums(layer, x))
            case "gelu_tanh", _:
                return layers.gelu_tanh_backward(gradient, self._sums(layer, x))
        return gradient

    def _weight_and_bias(self, layer: spec.Conv2d | spec.Dense) -> tuple[Array, Array]:
        weight = self.parameters[f"{layer.name}.weight"]
        return weight, self.parameters[f"{layer.name}.bias"] if layer.bias else np.zeros(len(weight), weight.dtype)

    def parameter_gradients(self, layer: spec.Conv2d | spec.Dense, gradient: Array, x: Array) -> dict[str, Array]:
        """Return the gradients of a layer's parameters from that of its output without the activation."""
        if isinstance(layer, spec.Conv2d):
            weight, bias = layers.conv2d_backward_parameters(gradient, x, layer.kernel, layer.stride, layer.padding,
                                                             layer.groups)
        else:
            weight, bias = layers.dense_backward_parameters(gradient, x)
        return {f"{layer.name}.weight": weight} | ({f"{layer.name}.bias": bias} if layer.bias else {})


def activate(layer: spec.Learner, sums: Array) -> Array:
    """Return a layer's output from its weighted sums."""
    match layer.activation, layer.alpha:
        case "relu", _:
            return layers.relu_forward(sums)
        case "sigmoid", _:
            return layers.sigmoid_forward(sums)
        case "tanh", _:
            return layers.tanh_forward(sums)
        case "elu", float(alpha):
            return layers.elu_forward(sums, alpha)
        case "leaky_relu", float(alpha):
            return layers.leaky_relu_forward(sums, alpha)
        case "gelu", _:
            return layers.gelu_forward(sums)
        case "gelu_tanh", _:
            return layers.gelu_tanh_forward(sums)
    return sums


def modules(layer: spec.Layer) -> list[str]:
    """Return the names of the functions in `layers.py` that compute one layer."""
    kinds: dict[type[spec.Layer], str] = {
        spec.Conv2d: "conv2d", spec.MaxPool2d: "max_pool", spec.AvgPool2d: "avg_pool",
        spec.AdaptiveAvgPool2d: "adaptive_avg_pool", spec.LocalResponseNorm: "local_response_norm",
        spec.Normalize: "normalize", spec.Flatten: "flatten", spec.Dense: "dense", spec.BatchNorm: "batch_norm",
        spec.Dropout: "dropout"}
    activation = getattr(layer, "activation", None)
    return [kinds[type(layer)], activation] if activation else [kinds[type(layer)]]
