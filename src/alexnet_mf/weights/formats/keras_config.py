"""The network that the layers of a Keras model stand for. Whatever the spec cannot express exactly is refused by the
layer's name and class."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np

from alexnet_mf import spec
from alexnet_mf.errors import ParametersError, SpecError
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import KINDS, Shape, output_shape, same_padding
from alexnet_mf.spec.network import MOST_LAYERS, Output
from alexnet_mf.weights.formats.description import activate, batch_share, canonical_name, in_unit_range, network_name
from alexnet_mf.weights.formats.keras_layers import KerasLayer, Sides, config_of, is_unset, layers_of

IDENTITIES = frozenset(f"Random{what}" for what in (
    "Brightness", "ColorJitter", "Contrast", "Erasing", "Flip", "GaussianBlur", "Grayscale", "Hue", "Perspective",
    "Rotation", "Saturation", "Sharpness", "Shear", "Translation", "Zoom")) | {
    "ActivityRegularization", "AlphaDropout", "GaussianDropout", "GaussianNoise", "Identity", "SpatialDropout2D"}
"""Layers that change values in training alone."""

POOL = ("pool_size", "strides", "padding")
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "Conv2D": ("filters", "kernel_size", "strides", "padding", "dilation_rate", "groups", "activation", "use_bias"),
    "Dense": ("units", "activation", "use_bias"),
    "BatchNormalization": ("axis", "momentum", "epsilon", "center", "scale", "renorm_momentum", "synchronized"),
    "MaxPooling2D": POOL, "AveragePooling2D": POOL, "GlobalAveragePooling2D": ("keepdims",),
    "AdaptiveAveragePooling2D": ("output_size", "size"), "LocalResponseNormalization": ("size", "alpha", "beta", "k"),
    "Flatten": (), "Dropout": ("rate", "seed"), "ZeroPadding2D": ("padding",), "Cropping2D": ("cropping",),
    "Rescaling": ("scale", "offset"), "Normalization": ("axis", "mean", "variance"), "Activation": ("activation",),
    "ReLU": ("threshold", "max_value", "negative_slope"), "LeakyReLU": ("negative_slope", "alpha"), "ELU": ("alpha",),
    "Softmax": ("axis",)}
"""The layers that are read, and their arguments in Keras 3 and Keras 2. Another argument is refused if it is set."""
OTHER_ARGUMENTS = re.compile("name|trainable|dtype|data_format|batch_input_shape|.*_initializer|.*_regularizer|"
                             ".*_constraint")
"""Arguments of any layer that are checked elsewhere or used in training alone."""
WINDOWS = ("Conv2D", "MaxPooling2D", "AveragePooling2D")

ACTIVATIONS: dict[str, tuple[str, float | None]] = {
    "relu": ("relu", None), "sigmoid": ("sigmoid", None), "tanh": ("tanh", None), "gelu": ("gelu", None),
    "elu": ("elu", 1.0), "leaky_relu": ("leaky_relu", 0.2), "softmax": ("softmax", None)}
"""The spec's name and `alpha` of Keras's functions with their default arguments."""

Activation: TypeAlias = "tuple[str, float | None] | None"
Statistics: TypeAlias = Callable[[KerasLayer], "list[Any]"]
"""Reads the mean and the variance that a Normalization layer has as variables if it was adapted to data."""
NO_ZEROS: Sides = ((0, 0), (0, 0))


@dataclass(frozen=True)
class Description:
    """Network that a model's description stands for."""

    network: Network
    layers: Mapping[str, KerasLayer]
    """The layers that have the network's parameters, by the names of its own layers."""
    notes: tuple[str, ...]
    """One clause for each difference from Keras's model."""


def describe(model: dict[str, Any], statistics: Statistics) -> Description:
    """Return the network that a model's description stands for.

    Raises:
        ParametersError: if the spec cannot express it; names the layer.
    """
    name, layers = config_of(model).get("name"), list(itertools.islice(layers_of(model), MOST_LAYERS + 1))
    if len(layers) > MOST_LAYERS:
        raise ParametersError(f"describes a model of more than {MOST_LAYERS:,} layers; build a smaller one")
    sources = [*(layer.config for layer in layers[:1]), config_of(model), model.get("build_config") or {}]
    keys = ("batch_shape", "batch_input_shape", "build_input_shape", "input_shape")
    shape = next((source[key] for source in sources for key in keys if source.get(key)), None)
    if not isinstance(shape, list) or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        raise ParametersError(f"describes a model with the input shape {repr(shape)[:80]}; build it with "
                              "keras.Input((height, width, channels)) and save it again")
    builder = _Builder((shape[3], shape[1], shape[2]), statistics)
    for layer in layers:
        try:
            builder.add(layer)
        except ParametersError:
            raise
        except SpecError as error:
            layer.refuse(f"is not supported ({error})")
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            layer.refuse(f"has arguments that cannot be read ({str(error)[:200]})", "save the model again")
    return builder.finish(network_name(str(name or ""), "keras"))


@dataclass
class _Builder:
    """A network that grows by one layer of Keras at a time."""

    input: tuple[int, int, int]
    statistics: Statistics
    layers: list[Any] = field(default_factory=list)
    weighted: dict[str, KerasLayer] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    scaling: tuple[Any, Any, KerasLayer] | None = None
    """Mean and standard deviation of the pixels, until the first other layer."""
    border: KerasLayer | None = None
    """The layer that pads or crops, until the layer that it does that for."""
    zeros: Sides = NO_ZEROS
    cropping: tuple[int, int] = (0, 0)
    softmax: KerasLayer | None = None
    is_nonnegative: bool = False
    """True if all values are at least 0 so far."""

    def __post_init__(self) -> None:
        self.shape: Shape = self.input

    def add(self, layer: KerasLayer) -> None:
        """Add the spec's layers for one of Keras's."""
        config = layer.config
        if layer.kind in IDENTITIES:
            self.notes.append(f"{layer.kind} is left out: it changes nothing in inference")
            return
        if layer.kind == "InputLayer":
            return
        self._check(layer)
        match layer.kind:
            case "Rescaling" | "Normalization":
                self._scale(layer)
            case "ZeroPadding2D" | "Cropping2D":
                self._set_border(layer)
            case "Conv2D":
                if layer.equal("dilation_rate") != 1:
                    layer.refuse_argument("dilation_rate")
                kernel, stride = layer.equal("kernel_size"), layer.equal("strides")
                self._append(layer, "Conv2d", channels=config["filters"], kernel=kernel, stride=stride,
                             padding=self._padding(layer, kernel, stride), groups=config.get("groups", 1),
                             bias=config.get("use_bias", True), activation=None)
                self._activate(layer, _activation(layer, config.get("activation")))
            case "Dense":
                self._append(layer, "Dense", units=config["units"], bias=config.get("use_bias", True))
                self._activate(layer, _activation(layer, config.get("activation")))
            case "BatchNormalization":
                self._append(layer, "BatchNorm", epsilon=config["epsilon"], momentum=batch_share(config["momentum"]))
            case "MaxPooling2D" | "AveragePooling2D":
                self._pool(layer)
            case "GlobalAveragePooling2D":
                self._append(layer, "AdaptiveAvgPool2d", size=1)
                if not config.get("keepdims"):
                    self._append(layer, "Flatten")
            case "AdaptiveAveragePooling2D":
                size = layer.equal("size" if "size" in config else "output_size")
                self._append(layer, "AdaptiveAvgPool2d", size=size)
            case "LocalResponseNormalization":
                self._append(layer, "LocalResponseNorm", **{key: config[key] for key in ARGUMENTS[layer.kind]})
            case "Flatten":
                if len(self.shape) > 1:
                    self._append(layer, "Flatten")
            case "Dropout":
                self._append(layer, "Dropout", rate=config["rate"])
            case _:
                self._activate(layer, _activation_of(layer))

    def finish(self, name: str) -> Description:
        """Return the network of the layers so far."""
        if self.border:
            self.border.refuse("is not directly before a convolution or pooling")
        output: Output = "softmax" if self.softmax else "logits"
        try:
            network = Network(name, self.input, tuple(self.layers), "a file of Keras", output=output)
        except SpecError as error:
            raise ParametersError(f"describes a model that is not supported ({error}); build one that ends in a Dense "
                                  "layer") from error
        return Description(network, self.weighted, tuple(self.notes))

    def _check(self, layer: KerasLayer) -> None:
        """Refuse a class or an argument that is not read, or a layer at this place."""
        if layer.kind not in ARGUMENTS:
            layer.refuse("is not supported", f"supported: {', '.join(ARGUMENTS)}")
        for key, value in layer.config.items():
            if key not in ARGUMENTS[layer.kind] and not OTHER_ARGUMENTS.fullmatch(key) and not is_unset(value):
                layer.refuse_argument(key)
        if layer.config.get("data_format") not in (None, "channels_last"):
            layer.refuse_argument("data_format", "build the model with channels_last")
        if layer.kind.endswith("Normalization") and layer.config.get("axis") not in (
                None, [], -1, [-1], len(self.shape), [len(self.shape)]):
            layer.refuse_argument("axis", "normalize each channel")
        if re.search("uantized|_from_", str(layer.config.get("dtype"))):
            layer.refuse_argument("dtype", "save the model before it is quantized")
        if self.softmax:
            self.softmax.refuse("applies softmax before the end of the model")
        if self.border and layer.kind not in (*WINDOWS, "ZeroPadding2D", "Cropping2D"):
            self.border.refuse("is not directly before a convolution or pooling")
        if layer.kind not in ("Rescaling", "Normalization"):
            self._finish_scaling()

    def _append(self, layer: KerasLayer, kind: str, **fields: Any) -> None:
        """Append a layer of the spec, with the number of the layer with weights before it, or its own."""
        name = canonical_name(self.layers, kind)
        self.layers.append(KINDS[kind](name=name, **fields))
        self.shape = output_shape(self.layers[-1], self.shape)
        if kind in ("Conv2d", "Dense", "BatchNorm"):
            self.weighted[name], self.is_nonnegative = layer, False

    def _activate(self, layer: KerasLayer, activation: Activation) -> None:
        """Give the last layer with parameters its activation, if that computes the same."""
        if activation is None or (activation[0] == "relu" and self.is_nonnegative):
            return
        name, alpha = activation
        is_at_end = not self.border and len(self.shape) == 1 and getattr(self.layers[-1], "activation", "none") is None
        if name == "softmax" and is_at_end:
            self.softmax = layer
            return
        if self.border or name == "softmax" or not activate(self.layers, cast(spec.Activation, name), alpha):
            layer.refuse(f"applies {name} to something else than a layer with parameters and no activation",
                         "put activations directly after a Conv2D, Dense or BatchNormalization layer")
        self.is_nonnegative = name in ("relu", "sigmoid")

    def _set_border(self, layer: KerasLayer) -> None:
        if self.border and (layer.kind, self.border.kind) != ("Cropping2D", "ZeroPadding2D"):
            layer.refuse(f"comes directly after a {self.border.kind}", "build the model with one of them")
        if layer.kind == "ZeroPadding2D":
            self.zeros = layer.sides("padding")
        else:
            (top, bottom), (left, right) = layer.sides("cropping")
            if top or left:
                layer.refuse_argument("cropping")
            self.cropping = (bottom, right)
        self.border = layer

    def _padding(self, layer: KerasLayer, kernel: int, stride: int) -> Sides:
        """Return the padding of a layer: the zeros before it and its own, as TensorFlow computes them."""
        border, is_same = self.border, layer.config.get("padding") == "same"
        if layer.config.get("padding", "valid") not in ("valid", "same"):
            layer.refuse_argument("padding")
        sizes = tuple(size + sum(zeros) for size, zeros in zip(self.shape[1:], self.zeros))
        own = same_padding(sizes, kernel, stride) if is_same else NO_ZEROS
        for size, crop in zip(sizes, self.cropping):
            if border and crop and (is_same or (size - kernel) % stride < crop):
                border.refuse("crops pixels that a window of the next layer reaches")
        height, width = ((zeros[0] + same[0], zeros[1] + same[1]) for zeros, same in zip(self.zeros, own))
        self.border, self.zeros, self.cropping = None, NO_ZEROS, (0, 0)
        return height, width

    def _pool(self, layer: KerasLayer) -> None:
        is_mean, border = layer.kind == "AveragePooling2D", self.border
        kernel = layer.equal("pool_size", 2)
        stride, zeros = layer.equal("strides", kernel), max(map(max, self.zeros))
        if border and zeros:
            if is_mean and layer.config.get("padding") == "same":
                border.refuse("adds zeros before a pooling with padding='same'")
            if not is_mean and (not self.is_nonnegative or zeros >= kernel):
                border.refuse("adds zeros that can be the maximum of the next layer")
        padding = self._padding(layer, kernel, stride)
        self._append(layer, "AvgPool2d" if is_mean else "MaxPool2d", kernel=kernel, stride=stride, padding=padding,
                     **({"count_padding": zeros > 0} if is_mean else {}))

    def _scale(self, layer: KerasLayer) -> None:
        """Combine the layers that scale the pixels to one (x - mean) / std."""
        if self.layers:
            layer.refuse("is not at the beginning of the model")
        channels = self.input[0]
        mean, std, _ = self.scaling or (np.zeros(channels), np.ones(channels), layer)
        with np.errstate(all="raise"):
            if layer.kind == "Rescaling":
                std = std / _numbers(layer.config["scale"], channels)
                mean = mean - _numbers(layer.config.get("offset", 0), channels) * std
            else:
                values = [layer.config.get("mean"), layer.config.get("variance")]
                values = self.statistics(layer) if values[0] is None else values
                own_mean, variance = (_numbers(value, channels) for value in values)
                mean, std = mean + own_mean * std, std * np.sqrt(variance)
        self.scaling = mean, std, layer

    def _finish_scaling(self) -> None:
        """Append the scaling as a layer. Its size shows whether the model takes pixels in [0, 1] or in [0, 255].

        A network takes pixels in [0, 1], so Rescaling(1 / 255) vanishes.
        """
        if self.scaling is None:
            return
        (mean, std, layer), self.scaling = self.scaling, None
        scaled = in_unit_range(mean, std)
        if scaled is None:
            layer.refuse("does not show whether the model takes pixels in [0, 1] or in [0, 255]")
        mean, std, takes_levels = scaled
        if takes_levels:
            self.notes.append("the network takes pixels in [0, 1], where Keras's model takes [0, 255]")
        if not (np.allclose(mean, 0, atol=1e-6) and np.allclose(std, 1, atol=1e-6)):
            self._append(layer, "Normalize", mean=[float(f"{value:.12g}") for value in mean],
                         std=[float(f"{value:.12g}") for value in std])


def _numbers(value: Any, channels: int) -> Any:
    """Return a number for each channel. Keras describes arrays of NumPy as a dictionary."""
    numbers = np.asarray(value["config"]["value"] if isinstance(value, dict) else value, np.float64)
    return np.broadcast_to(numbers.reshape(-1), channels)


def _activation(layer: KerasLayer, value: Any) -> Activation:
    """Return the activation that an argument names, or describes as a layer."""
    if value is None or value == "linear":
        return None
    if isinstance(value, dict) and value.get("class_name") in ("ReLU", "LeakyReLU", "ELU", "Softmax"):
        return _activation_of(dataclasses.replace(layer, kind=value["class_name"], config=config_of(value)))
    if not isinstance(value, str) or value not in ACTIVATIONS:
        layer.refuse_argument("activation", f"supported: {', '.join(ACTIVATIONS)}, linear")
    return ACTIVATIONS[value]


def _activation_of(layer: KerasLayer) -> Activation:
    """Return the activation that a layer applies."""
    config = layer.config
    if layer.kind == "Activation":
        return _activation(layer, config.get("activation"))
    if layer.kind == "Softmax":
        if config.get("axis", -1) not in (-1, 1, [-1]):
            layer.refuse_argument("axis")
        return ACTIVATIONS["softmax"]
    if config.get("max_value") is not None or config.get("threshold"):
        layer.refuse("has max_value or threshold")
    slope = config["alpha"] if "alpha" in config else config["negative_slope"]
    if slope == np.float32(slope):  # 0.30000001192092896, as Keras 2 writes 0.3
        slope = float(str(np.float32(slope)))
    if layer.kind == "ELU":
        return "elu", slope
    return ("leaky_relu", slope) if slope or layer.kind == "LeakyReLU" else ACTIVATIONS["relu"]
