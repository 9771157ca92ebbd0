"""Caffe's files for tests: a network of the spec, or a list of layers, as `.caffemodel` and as `.prototxt`.

Layers are dictionaries with the field names of `caffe.proto`. Field numbers stand here once more, so that the reader's
are not compared with themselves.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from alexnet_mf import spec
from alexnet_mf.spec import Network
from alexnet_mf.weights.parameters import Parameters

RULE = {"phase": (1, "varint")}
SHAPE = {"dim": (1, "packed varint")}
BLOB = {"num": (1, "varint"), "channels": (2, "varint"), "height": (3, "varint"), "width": (4, "varint"),
        "data": (5, "packed float"), "diff": (6, "packed float"), "shape": (7, SHAPE),
        "double_data": (8, "packed double")}
TRANSFORM = {"scale": (1, "float"), "mirror": (2, "varint"), "crop_size": (3, "varint"), "mean_file": (4, "string"),
             "mean_value": (5, "float")}
DATA = {"source": (1, "string"), "scale": (2, "float"), "mean_file": (3, "string"), "batch_size": (4, "varint"),
        "crop_size": (5, "varint"), "mirror": (6, "varint"), "backend": (8, "varint")}
CONVOLUTION = {name: (number, "varint") for number, name in enumerate(
    "num_output bias_term pad kernel_size group stride - - pad_h pad_w kernel_h kernel_w stride_h stride_w engine axis "
    "force_nd_im2col dilation".split(), 1)}
POOLING = {name: (number, "varint") for number, name in enumerate(
    "pool kernel_size stride pad kernel_h kernel_w stride_h stride_w pad_h pad_w engine global_pooling "
    "round_mode".split(), 1)}
INNER_PRODUCT = {"num_output": (1, "varint"), "bias_term": (2, "varint"), "axis": (5, "varint"),
                 "transpose": (6, "varint")}
LRN = {"local_size": (1, "varint"), "alpha": (2, "float"), "beta": (3, "float"), "norm_region": (4, "varint"),
       "k": (5, "float")}
MEMORY_DATA = {"batch_size": (1, "varint"), "channels": (2, "varint"), "height": (3, "varint"), "width": (4, "varint")}
COMMON = {"convolution_param": CONVOLUTION, "data_param": DATA, "dropout_param": {"dropout_ratio": (1, "float")},
          "inner_product_param": INNER_PRODUCT, "lrn_param": LRN, "memory_data_param": MEMORY_DATA,
          "batch_norm_param": {"use_global_stats": (1, "varint"), "moving_average_fraction": (2, "float"),
                               "eps": (3, "float")},
          "elu_param": {"alpha": (1, "float")},
          "scale_param": {"axis": (1, "varint"), "num_axes": (2, "varint"), "bias_term": (4, "varint")},
          "pooling_param": POOLING, "relu_param": {"negative_slope": (1, "float")}, "transform_param": TRANSFORM,
          "flatten_param": {"axis": (1, "varint"), "end_axis": (2, "varint")}, "input_param": {"shape": (1, SHAPE)},
          "blobs": BLOB, "include": RULE, "exclude": RULE}


def numbered(**numbers: int) -> dict[str, Any]:
    return {name: (number, COMMON.get(name, "string")) for name, number in numbers.items()}


V1_LAYER = numbered(bottom=2, top=3, name=4, blobs=6, include=32, exclude=33, convolution_param=10, data_param=11,
                    dropout_param=12, inner_product_param=17, lrn_param=18, pooling_param=19, memory_data_param=22,
                    relu_param=30, transform_param=36) | {"type": (5, "varint")}
V2_LAYER = numbered(name=1, type=2, bottom=3, top=4, blobs=7, include=8, exclude=9, transform_param=100,
                    convolution_param=106, data_param=107, dropout_param=108, inner_product_param=117, lrn_param=118,
                    memory_data_param=119, pooling_param=121, relu_param=123, flatten_param=135,
                    batch_norm_param=139, elu_param=140, scale_param=142, input_param=143) | {"phase": (10, "varint")}
NET = {"name": (1, "string"), "layers": (2, V1_LAYER), "input": (3, "string"), "input_dim": (4, "varint"),
       "input_shape": (8, SHAPE), "layer": (100, V2_LAYER)}
V1_TYPES = {"Accuracy": 1, "BNLL": 2, "Concat": 3, "Convolution": 4, "Data": 5, "Dropout": 6, "Flatten": 8,
            "ImageData": 12, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18, "Sigmoid": 19, "Softmax": 20,
            "SoftmaxWithLoss": 21, "Split": 22, "TanH": 23, "Eltwise": 25, "MemoryData": 29}


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    content = b""
    while value > 0x7F:
        content += bytes([value & 0x7F | 0x80])
        value >>= 7
    return content + bytes([value])


def tagged(number: int, wire_type: int, content: bytes) -> bytes:
    length = varint(len(content)) if wire_type == 2 else b""
    return varint(number << 3 | wire_type) + length + content


def encode(message: dict[str, Any], fields: dict[str, Any], is_packed: bool = True) -> bytes:
    """Return a message. A list is a repeated field; an array is one of numbers, unpacked if `is_packed` is False."""
    content = b""
    for name, values in message.items():
        number, kind = fields[name]
        if isinstance(kind, str) and kind.startswith("packed "):
            kind = kind.removeprefix("packed ")
            dtype, wire_type = {"varint": (None, 0), "float": ("<f4", 5), "double": ("<f8", 1)}[kind]
            items = [varint(value) for value in values] if dtype is None else np.asarray(values, dtype).reshape(-1)
            if is_packed:
                content += tagged(number, 2, b"".join(items) if dtype is None else items.tobytes())
            else:
                content += b"".join(tagged(number, wire_type, bytes(item)) for item in items)
            continue
        for value in values if isinstance(values, list) else [values]:
            if isinstance(kind, dict):
                content += tagged(number, 2, encode(value, kind, is_packed))
            elif kind == "varint":
                content += tagged(number, 0, varint(int(value)))
            elif kind == "float":
                content += tagged(number, 5, struct.pack("<f", value))
            else:
                content += tagged(number, 2, value if isinstance(value, bytes) else value.encode())
    return content


def blob(values: np.ndarray, is_legacy: bool = False) -> dict[str, Any]:
    """Return an array as BlobProto, whose first form has four axes always."""
    data = {"double_data" if values.dtype == np.float64 else "data": values}
    if not is_legacy:
        return {**data, "shape": {"dim": list(values.shape)}}
    sizes = (1,) * (4 - values.ndim) + values.shape
    return {**dict(zip(("num", "channels", "height", "width"), sizes)), **data}


def caffemodel(layers: list[dict[str, Any]], v1: bool = False, is_legacy: bool | None = None, is_packed: bool = True,
               **net: Any) -> bytes:
    """Return a `.caffemodel` file of layers, whose `blobs` are arrays.

    Args:
        v1: write the form before 2014, `layers`.
        is_legacy: give blobs four axes, as was usual in that form.
        net: further fields of NetParameter.
    """
    is_legacy = v1 if is_legacy is None else is_legacy
    written = [{**layer, **({"blobs": [blob(values, is_legacy) for values in layer["blobs"]]} if "blobs" in layer else
                            {}), "type": V1_TYPES[layer["type"]] if v1 else layer["type"]} for layer in layers]
    return encode({"name": "net", **net, "layers" if v1 else "layer": written}, NET, is_packed)


NAMES = {"pool": ("MAX", "AVE", "STOCHASTIC"), "phase": ("TRAIN", "TEST"),
         "norm_region": ("ACROSS_CHANNELS", "WITHIN_CHANNEL"), "round_mode": ("CEIL", "FLOOR"),
         **dict.fromkeys(("bias_term", "transpose", "use_global_stats", "global_pooling", "mirror"), ("false", "true"))}
"""Values that the text format spells out."""


def prototxt(layers: list[dict[str, Any]], **net: Any) -> bytes:
    """Return the same network as text, without blobs."""
    return "".join(text({"name": "net", **net, "layer": [
        {name: value for name, value in layer.items() if name != "blobs"} for layer in layers]})).encode()


def text(message: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, values in message.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, dict):
                lines += [f"{name} {{\n", *text(value), "}\n"]
            else:
                lines.append(f"{name}: {NAMES[name][value] if name in NAMES else repr(value)}\n".replace("'", '"'))
    return lines


def chain(*layers: tuple[str, str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return layers (name, type, fields) that take each other's output, beginning with the blob `data`."""
    blobs = ["data", *(name for name, _, _ in layers)]
    return [{"name": name, "type": kind, "bottom": [bottom], "top": [name], **fields}
            for bottom, (name, kind, fields) in zip(blobs, layers)]


def layers_of(network: Network, weights: Parameters) -> list[dict[str, Any]]:
    """Return a network's layers as Caffe's, each activation in place, with a softmax at the end."""
    layers: list[dict[str, Any]] = []
    last = "data"

    def add(name: str, kind: str, **fields: Any) -> None:
        layers.append({"name": name, "type": kind, "bottom": [last], "top": [name], **fields})

    for layer in network.layers:
        match layer:
            case spec.Conv2d() | spec.Dense():
                blobs = [weights[f"{layer.name}.{part}"] for part in ("weight", "bias")]
                if isinstance(layer, spec.Conv2d):
                    add(layer.name, "Convolution", blobs=blobs, convolution_param={
                        "num_output": layer.channels, "pad": layer.padding, "kernel_size": layer.kernel,
                        "group": layer.groups, "stride": layer.stride})
                else:
                    add(layer.name, "InnerProduct", blobs=blobs, inner_product_param={"num_output": layer.units})
                last = layer.name
                if layer.activation:
                    add(f"{layer.activation}_{layer.name}", {"relu": "ReLU", "sigmoid": "Sigmoid"}[layer.activation])
                    layers[-1]["top"] = [last]
            case spec.MaxPool2d() | spec.AvgPool2d():
                add(layer.name, "Pooling", pooling_param={"pool": int(isinstance(layer, spec.AvgPool2d)),
                                                          "kernel_size": layer.kernel, "stride": layer.stride})
                last = layer.name
            case spec.LocalResponseNorm():
                add(layer.name, "LRN", lrn_param={"local_size": layer.size, "alpha": layer.alpha * layer.size,
                                                  "beta": layer.beta, "k": layer.k})
                last = layer.name
            case spec.Dropout():
                add(layer.name, "Dropout", dropout_param={"dropout_ratio": layer.rate})
                layers[-1]["top"] = [last]
            case spec.Flatten():
                pass  # InnerProduct flattens its input
            case _:
                raise TypeError(f"{layer!r} is not one of Caffe's layers")
    add("prob", "Softmax")
    return layers


def inputs_of(network: Network, batch: int = 1) -> dict[str, Any]:
    """Return the fields of NetParameter that give the input's size."""
    return {"input": "data", "input_shape": {"dim": [batch, *network.input]}}
