"""Caffe's `.caffemodel` files, read without Caffe and without the protobuf package.

Such a file is a protobuf message, NetParameter: the layers of a network, with their parameters as blobs. It describes
the network, except that a file saved in training may lack the size of the images.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import spec
from alexnet_mf.errors import ParametersError, SpecError
from alexnet_mf.spec import Preprocessing
from alexnet_mf.spec.layers import Activation, Shape, ceil_padding
from alexnet_mf.spec.preprocessing import Color
from alexnet_mf.weights import parameters
from alexnet_mf.weights.formats import protobuf
from alexnet_mf.weights.formats.caffe_layers import IMAGE_FILES, PARAMETERS, V1, V2, Layer, Transform
from alexnet_mf.weights.formats.description import activate, batch_share, canonical_name, network_name
from alexnet_mf.weights.formats.protobuf import BYTES, VARINT, Message
from alexnet_mf.weights.stored import StoredTensor, StoredWeights, filled

NAME, V1_LAYERS, INPUT, INPUT_DIM, INPUT_SHAPE, V2_LAYERS = 1, 2, 3, 4, 8, 100
"""Fields of NetParameter."""
NET_FIELDS = {(NAME, BYTES), (V1_LAYERS, BYTES), (INPUT, BYTES), (INPUT_DIM, VARINT), (5, VARINT), (6, BYTES),
              (7, VARINT), (INPUT_SHAPE, BYTES), (V2_LAYERS, BYTES)}
"""All fields of NetParameter and their wire types, as Caffe writes them."""
FLOATS, SHAPE, DOUBLES = 5, 7, 8
"""Fields of BlobProto."""
LEGACY_SHAPE = (1, 2, 3, 4)
"""Fields of BlobProto in the first files: `num`, `channels`, `height`, `width`."""

ENDS = {"Accuracy", "ArgMax", "InfogainLoss", "MultinomialLogisticLoss", "Silence", "Softmax", "SoftmaxWithLoss"}
"""Types of layers that use the logits and have no part in computing them."""
NONLINEARITIES: dict[str, Activation] = {"ReLU": "relu", "Sigmoid": "sigmoid", "TanH": "tanh", "ELU": "elu"}
MAX, AVERAGE = 0, 1
"""Values of `pool`."""
COLORS: dict[int, Color] = {1: "gray", 3: "bgr"}
"""Colors of images by their number of channels."""
STORED = (256, 256)
"""Height and width to which Caffe's scripts resize ImageNet's pictures before they store them."""


def is_net(file: BinaryIO) -> bool:
    """Return True for a file whose fields are all NetParameter's, with a layer among them."""
    try:
        occurring = {(number, wire_type) for number, wire_type, _ in protobuf.fields(_content(file))}
    except ValueError:
        return False
    return occurring <= NET_FIELDS and not occurring.isdisjoint({(V1_LAYERS, BYTES), (V2_LAYERS, BYTES)})


def read(file: BinaryIO, path: Path, input_shape: Shape | None = None) -> StoredWeights:
    """Return the weights in a `.caffemodel` file and the network that it describes.

    The tensors are called `NAME[0]` and `NAME[1]` after their layers, as in pycaffe's `net.params`. Dense weights are
    (out, in), whichever way the file has them. The metadata `preprocessing` is that of the data layer. Caffe subtracts
    the mean before it scales; in the record the mean is scaled too.

    Args:
        input_shape: shape of one image, for files that do not give it.

    Raises:
        ParametersError: if the file is damaged or not Caffe's, does not give the size of the images, or has a layer
            that the spec cannot express; names the layer. The message follows the file's name.
    """
    try:
        return _read(_content(file), path, input_shape)
    except SpecError as error:
        raise ParametersError(f"describes a network that cannot be built ({error}); name another file") from error
    except ParametersError:
        raise
    except ValueError as error:
        raise ParametersError(f"cannot be read as .caffemodel ({error}); copy or download it again") from error


def _content(file: BinaryIO) -> memoryview:
    """Return a file's bytes. A file on a disk is mapped, so that nothing is read before it is needed."""
    try:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):  # not on a disk, or empty
        file.seek(0)
        return memoryview(file.read())


def _read(content: memoryview, path: Path, input_shape: Shape | None) -> StoredWeights:
    net = Message(content)
    v1, v2 = net.contents(V1_LAYERS), net.contents(V2_LAYERS)
    if bool(v1) == bool(v2):
        raise ValueError("has layers of two forms" if v1 else "has no layers")
    layers = [Layer.read(V1 if v1 else V2, layer) for layer in v1 or v2]
    start, chain = _chain(layers)
    sources = [layer for layer in layers if layer.is_source and start in layer.tops]
    source = next((layer for layer in sources if layer.is_in_test), sources[0] if sources else None)
    shape = _input_shape(net, source, start, chain) or input_shape
    if shape is None:
        raise ParametersError("does not give the size of its images; name its network with `net`")
    builder = Builder(shape)
    for layer in chain:
        builder.add(layer)
    name = network_name(net.text(NAME) or path.stem, "caffe")
    network = spec.Network(name, cast("tuple[int, int, int]", shape), tuple(builder.layers), f"Caffe's network {name}",
                           output="softmax" if any(layer.type == "Softmax" for layer in layers) else "logits")
    metadata, notes = ({}, []) if source is None else _preprocessing(source, shape[0])
    return StoredWeights(builder.tensors, network=network, names=builder.names, metadata=metadata,
                         notes=(*builder.notes, *notes))


def _chain(layers: list[Layer]) -> tuple[str, list[Layer]]:
    """Return the name of the blob of images, and the layers that lead from it to the logits, one after the other."""
    outputs: dict[str, str | int] = {}
    """By blob, the index in the chain of the layer that it is the output of; for a blob of images, its own name."""
    start, chain = "", list[Layer]()
    for layer in layers:
        inputs = [outputs.get(name, name) for name in layer.bottoms]
        if layer.is_source:
            outputs.update({name: name for name in layer.tops})
        elif layer.type in ENDS:
            outputs.update(dict.fromkeys(layer.tops, -1))
        elif layer.type == "Split" and inputs:
            outputs.update(dict.fromkeys(layer.tops, inputs[0]))
        else:
            _check(layer)
            if not chain and isinstance(inputs[0], str):
                start = inputs[0]
            elif not chain or inputs[0] != len(chain) - 1:
                layer.refuse(f"takes {layer.bottoms[0][:80]!r}, which is not the output of the layer before it",
                             "only a chain of layers can be read")
            outputs[layer.tops[0]] = len(chain)
            chain.append(layer)
    return start, chain


def _check(layer: Layer) -> None:
    """Check that a layer can be part of a chain."""
    if layer.type not in PARAMETERS:
        layer.refuse("is of a type that is not supported", f"supported: {', '.join(PARAMETERS)}")
    unknown = layer.parameters.numbers() - set(PARAMETERS[layer.type].values())
    if unknown:
        layer.refuse(f"has a parameter that BVLC's Caffe does not define, field {min(unknown)}", "remove it")
    if any(layer.rules) and layer.type != "Dropout":
        layer.refuse("belongs to some phases only (`include`, `exclude`)", "save the network of the test phase")
    if len(layer.bottoms) != 1 or len(layer.tops) != 1:
        layer.refuse(f"has {len(layer.bottoms)} inputs and {len(layer.tops)} outputs",
                     "only a chain of layers can be read")


def _input_shape(net: Message, source: Layer | None, start: str, chain: list[Layer]) -> Shape | None:
    """Return the shape of one image, or None if the file does not give it."""
    inputs, index = net.texts(INPUT), 0
    shapes, sizes = list[memoryview](), list[int]()
    if start in inputs:
        index = inputs.index(start)
        shapes, sizes = net.contents(INPUT_SHAPE), net.integers(INPUT_DIM)[4 * index:4 * index + 4]
    elif source is not None and source.type == "Input":
        shapes = source.parameters.contents(1)
        index = source.tops.index(start) if len(shapes) > 1 else 0
    elif source is not None and source.type == "MemoryData":
        sizes = [source.parameters.integer(number) for number in (1, 2, 3, 4)]
    elif source is not None and (crop := Transform.of(source).crop):
        first = next((layer for layer in chain if layer.blobs), None)
        if first is not None and first.type == "Convolution" and len(weight := _sizes(Message(first.blobs[0]))) == 4:
            sizes = [1, weight[1] * first.integer("group", 1), crop, crop]
    for shape in shapes[index:index + 1]:
        sizes = Message(shape).integers(1)
    if sizes and len(sizes) != 4:
        raise ValueError(f"its images have {len(sizes)} axes, not 4")
    return tuple(sizes[1:]) or None


def _preprocessing(source: Layer, channels: int) -> tuple[dict[str, Any], list[str]]:
    """Return the metadata on a data layer's preprocessing, and notes on what is missing."""
    if source.type not in (*IMAGE_FILES, "MemoryData") or channels not in COLORS:
        return {}, []
    transform = Transform.of(source)
    if transform.mean_file:
        return {}, [f"preprocessing unknown: training subtracted the mean image {transform.mean_file[-80:]!r}, which "
                    "the file does not contain"]
    means = transform.means or [0.0]
    if len(means) not in (1, channels):
        source.refuse(f"has {len(means)} mean values for {channels} channels", "copy or download the file again")
    crop = (transform.crop, transform.crop) if transform.crop else None
    is_stored_larger = crop is not None and transform.crop <= min(STORED)
    record = Preprocessing(COLORS[channels], resize=STORED if is_stored_larger else None, crop=crop,
                           scale=transform.scale, mean=tuple(mean * transform.scale for mean in means * (
                               channels // len(means))) if any(means) else None)
    size = "x".join(map(str, STORED))
    note = f"pictures resized to {size} before the crop, as by Caffe's scripts; the file does not state it"
    return {"preprocessing": record.as_dict()}, [note] * is_stored_larger


class Builder:
    """The spec's layers and the tensors, built from the file's layers one after the other."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        """Shape of one image after the layers so far."""
        self.layers: list[spec.Layer] = []
        self.tensors: dict[str, StoredTensor] = {}
        self.names: dict[str, str] = {}
        self.notes: list[str] = []

    def add(self, layer: Layer) -> None:
        """Add the spec's layers for one of the file's."""
        match layer.type:
            case "Convolution":
                self._add_convolution(layer)
            case "InnerProduct":
                self._add_dense(layer)
            case "BatchNorm":
                self._add_batch_norm(layer)
            case "Scale":
                self._add_scale(layer)
            case "Pooling":
                self._add_pooling(layer)
            case "LRN":
                if layer.integer("norm_region", 0):
                    layer.refuse("normalizes within channels", "only normalization across channels can be read")
                size = layer.integer("local_size", 5)
                name = canonical_name(self.layers, "LocalResponseNorm")
                self._append(spec.LocalResponseNorm(  # Caffe divides alpha by the size, the spec does not
                    name, size, layer.decimal("alpha", 1.0) / (size or 1), layer.decimal("beta", 0.75),
                    layer.decimal("k", 1.0)))
            case "Dropout":
                self._append(spec.Dropout(canonical_name(self.layers, "Dropout"), layer.decimal("dropout_ratio", 0.5)))
            case "Flatten":
                self._check_axis(layer, "axis", 1, -len(self.shape))
                self._check_axis(layer, "end_axis", -1, len(self.shape))
                self._flatten()
            case _:
                self._activate(layer)

    def _append(self, layer: spec.Layer) -> None:
        self.shape = spec.output_shape(layer, self.shape)
        self.layers.append(layer)

    def _check_axis(self, layer: Layer, name: str, *allowed: int) -> None:
        axis = layer.integer(name, allowed[0])
        if axis not in allowed:
            layer.refuse(f"has {name} {axis}", f"only {allowed[0]} can be read")

    def _flatten(self) -> None:
        if len(self.shape) == 3:
            self._append(spec.Flatten("flatten"))

    def _add_convolution(self, layer: Layer) -> None:
        self._check_axis(layer, "axis", 1, -3)
        if set(layer.integers("dilation")) - {1}:
            layer.refuse("is dilated", "only dilation 1 can be read")
        name = canonical_name(self.layers, "Conv2d")
        self._append(spec.Conv2d(name, layer.integer("num_output", 0), layer.side("kernel_size"),
                                 layer.side("stride", 1), _padding(layer), None, layer.integer("group", 1),
                                 bias=bool(layer.integer("bias_term", 1))))
        self._add_tensors(layer, name, axes=4)

    def _add_dense(self, layer: Layer) -> None:
        self._check_axis(layer, "axis", 1, -len(self.shape))
        self._flatten()
        name = canonical_name(self.layers, "Dense")
        self._append(spec.Dense(name, layer.integer("num_output", 0), bias=bool(layer.integer("bias_term", 1))))
        self._add_tensors(layer, name, axes=2, is_transposed=bool(layer.integer("transpose", 0)))

    def _add_batch_norm(self, layer: Layer) -> None:
        """Add a normalization without weight and bias, which Caffe has in a layer of its own."""
        if layer.integer("use_global_stats", 1) == 0:
            self.notes.append(f"{layer.name[:80]} normalizes by its running statistics, in training by the batch")
        name = canonical_name(self.layers, "BatchNorm")
        self._append(spec.BatchNorm(name, layer.decimal("eps", 1e-5),
                                    batch_share(layer.decimal("moving_average_fraction", 0.999))))
        if len(layer.blobs) != 3:
            layer.refuse(f"has {len(layer.blobs)} blobs, expected 3", "copy or download the file again")
        mean, variance, weight_of_sums = (_tensor(layer, Message(blob), 1) for blob in layer.blobs)
        total = float(weight_of_sums.load()[0])
        factor = 1 / total if total else 0.0  # Caffe keeps sums of the statistics, and the sum of their weights
        for index, (part, tensor) in enumerate(zip(parameters.STATE, (mean, variance))):
            self._add_tensor(layer, index, f"{name}.{part}", _multiplied(tensor, factor))
        for part, value in (("weight", 1), ("bias", 0)):
            self.names[f"{name}.{part}"] = f"{name}.{part}"
            self.tensors[f"{name}.{part}"] = filled(value, self.shape[:1])

    def _add_scale(self, layer: Layer) -> None:
        """Give weight and bias to the normalization before it."""
        self._check_axis(layer, "axis", 1, -len(self.shape))
        self._check_axis(layer, "num_axes", 1)
        last = self.layers[-1] if self.layers else None
        own = f"{last.name}.weight" if isinstance(last, spec.BatchNorm) and not last.activation else ""
        if self.tensors.pop(own, None) is None:
            layer.refuse("does not follow a BatchNorm", "only a scale that does can be read")
        has_bias = bool(layer.integer("bias_term", 0))
        if len(layer.blobs) != 1 + has_bias:
            layer.refuse(f"has {len(layer.blobs)} blobs, expected {1 + has_bias}", "copy or download the file again")
        self._add_tensor(layer, 0, own, _tensor(layer, Message(layer.blobs[0]), 1))
        if has_bias:
            bias = own.replace(".weight", ".bias")
            del self.tensors[bias]
            self._add_tensor(layer, 1, bias, _tensor(layer, Message(layer.blobs[1]), 1))

    def _add_pooling(self, layer: Layer) -> None:
        is_max = layer.integer("pool", MAX) == MAX
        if not is_max and layer.integer("pool", MAX) != AVERAGE:
            layer.refuse("pools neither maxima nor means", "only MAX and AVE can be read")
        name = canonical_name(self.layers, "MaxPool2d")
        _, height, width = self.shape if len(self.shape) == 3 else (0, 1, 1)
        pad = _padding(layer)
        if layer.integer("global_pooling", 0):
            if any(pad[0] + pad[1]):
                layer.refuse("pads its input", "all of an image can only be pooled without padding")
            if is_max and height != width:
                layer.refuse(f"pools all of {height}x{width} pixels", "only squares can be read")
            self._append(spec.MaxPool2d(name, height, 1) if is_max else spec.AdaptiveAvgPool2d(name, 1))
            return
        kernel, stride = layer.side("kernel_size"), layer.side("stride", 1)
        padding, has_zeros = pad, any(pad[0] + pad[1])
        if not layer.integer("round_mode", 0) and any(
                (size + sum(zeros) - kernel) % stride for size, zeros in zip((height, width), pad)):
            if stride > kernel or (has_zeros and not is_max):  # a mean counts `pad`, and not the pixels beyond it
                layer.refuse(f"has windows that reach beyond its {height}x{width} pixels: Caffe rounds their number up",
                             "means with padding can only be read if all windows fit")
            padding = ceil_padding((height, width), kernel, stride, pad)
        self._append(spec.MaxPool2d(name, kernel, stride, padding) if is_max else
                     spec.AvgPool2d(name, kernel, stride, padding, count_padding=has_zeros))

    def _activate(self, layer: Layer) -> None:
        """Give a nonlinearity to the layer that it belongs to."""
        activation, alpha = NONLINEARITIES[layer.type], cast("float | None", None)
        if layer.type == "ReLU" and layer.decimal("negative_slope", 0.0) != 0:
            activation, alpha = "leaky_relu", layer.decimal("negative_slope", 0.0)
        elif layer.type == "ELU":
            alpha = layer.decimal("alpha", 1.0)
        if not activate(self.layers, activation, alpha):
            layer.refuse("does not follow a Convolution, InnerProduct or BatchNorm",
                         "only a nonlinearity that does can be read")

    def _add_tensors(self, layer: Layer, name: str, axes: int, is_transposed: bool = False) -> None:
        """Add the weights and biases of a layer."""
        has_bias = bool(layer.integer("bias_term", 1))
        if not layer.blobs:
            layer.refuse("has no weights", "name a file that Caffe saved in training")
        if len(layer.blobs) != 1 + has_bias:
            layer.refuse(f"has {len(layer.blobs)} blobs, expected {1 + has_bias}", "copy or download the file again")
        tensors = [_tensor(layer, Message(layer.blobs[0]), axes, is_transposed)]
        if has_bias:
            tensors.append(_tensor(layer, Message(layer.blobs[1]), 1))
        for index, (part, tensor) in enumerate(zip(("weight", "bias"), tensors)):
            self._add_tensor(layer, index, f"{name}.{part}", tensor)

    def _add_tensor(self, layer: Layer, index: int, name: str, tensor: StoredTensor) -> None:
        """Add a blob as the tensor of that canonical name."""
        key = f"{layer.name}[{index}]"
        if key in self.tensors:
            layer.refuse("has the name of another layer", "rename one of them")
        self.tensors[key] = tensor
        self.names[name] = key


def _padding(layer: Layer) -> tuple[tuple[int, int], tuple[int, int]]:
    height, width = layer.sides("pad", 0)
    return (height, height), (width, width)


def _sizes(blob: Message) -> list[int]:
    if not blob.numbers().isdisjoint(LEGACY_SHAPE):
        return [blob.integer(number) for number in LEGACY_SHAPE]
    return blob.message(SHAPE).integers(1)


def _tensor(layer: Layer, blob: Message, axes: int, is_transposed: bool = False) -> StoredTensor:
    """Return a blob as a tensor. In the first files (out, in) is (1, 1, out, in), and (out,) is (1, 1, 1, out)."""
    sizes = _sizes(blob)
    while len(sizes) > axes and sizes[0] == 1:
        del sizes[0]
    number, dtype = (DOUBLES, "float64") if blob.count(DOUBLES, "float64") else (FLOATS, "float32")
    count = blob.count(number, dtype)
    if len(sizes) != axes or min(sizes) < 1 or math.prod(sizes) != count:
        layer.refuse(f"has a blob of shape {tuple(_sizes(blob)[:9])} with {count:,} values, expected {axes} axes",
                     "copy or download the file again")
    shape = tuple(sizes)
    return StoredTensor(dtype, shape[::-1] if is_transposed else shape,
                        partial(_load, blob, number, dtype, shape, is_transposed))


def _multiplied(tensor: StoredTensor, factor: float) -> StoredTensor:
    return replace(tensor, load=lambda: (tensor.load() * np.float64(factor)).astype(tensor.dtype))


def _load(blob: Message, number: int, dtype: str, shape: Shape, is_transposed: bool) -> NDArray[Any]:
    values = blob.array(number, np.dtype(dtype).newbyteorder("<")).reshape(shape)
    return values.T if is_transposed else values
