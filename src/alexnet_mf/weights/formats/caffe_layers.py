"""Layers of a `.caffemodel` file as they are stored: field numbers and parameters.

Field numbers and defaults are those of Caffe's `src/caffe/proto/caffe.proto`. A layer has the form of 2014 (V2, the
field `layer` of the network), or the one before it (V1, `layers`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from alexnet_mf.errors import ParametersError
from alexnet_mf.weights.formats.protobuf import Message


@dataclass(frozen=True)
class Form:
    """Field numbers of a layer in one form."""

    name: int
    type: int
    bottom: int
    top: int
    blobs: int
    rules: tuple[int, int]
    """`include` and `exclude`."""
    transform: int
    parameters: Mapping[str, int]
    """By type of layer, the message with its parameters, if they matter."""


V1 = Form(name=4, type=5, bottom=2, top=3, blobs=6, rules=(32, 33), transform=36, parameters={
    "Convolution": 10, "Data": 11, "Dropout": 12, "ImageData": 15, "InnerProduct": 17, "LRN": 18, "Pooling": 19,
    "WindowData": 20, "MemoryData": 22, "ReLU": 30, "TanH": 37, "Sigmoid": 38})
V2 = Form(name=1, type=2, bottom=3, top=4, blobs=7, rules=(8, 9), transform=100, parameters={
    "Convolution": 106, "Dropout": 108, "InnerProduct": 117, "LRN": 118, "MemoryData": 119, "Pooling": 121,
    "ReLU": 123, "Sigmoid": 124, "TanH": 127, "Flatten": 135, "BatchNorm": 139, "ELU": 140, "Scale": 142, "Input": 143})
V0_LAYER = 1
"""Field of a V1 layer that contains a layer of the form of 2013."""
V1_TYPES = ("None Accuracy BNLL Concat Convolution Data Dropout EuclideanLoss Flatten HDF5Data HDF5Output Im2col "
            "ImageData InfogainLoss InnerProduct LRN MultinomialLogisticLoss Pooling ReLU Sigmoid Softmax "
            "SoftmaxWithLoss Split TanH WindowData Eltwise Power SigmoidCrossEntropyLoss HingeLoss MemoryData ArgMax "
            "Threshold DummyData Slice MVN AbsVal Silence ContrastiveLoss Exp Deconvolution").split()
"""Types of layers by their numbers in V1."""
TEST = 1
"""Value of `phase`."""
IMAGE_FILES = ("Data", "ImageData", "WindowData")
"""Types of layers that read image files."""

PARAMETERS: dict[str, dict[str, int]] = {
    "BatchNorm": {"use_global_stats": 1, "moving_average_fraction": 2, "eps": 3},
    "Convolution": {"num_output": 1, "bias_term": 2, "pad": 3, "kernel_size": 4, "group": 5, "stride": 6,
                    "weight_filler": 7, "bias_filler": 8, "pad_h": 9, "pad_w": 10, "kernel_h": 11, "kernel_w": 12,
                    "stride_h": 13, "stride_w": 14, "engine": 15, "axis": 16, "force_nd_im2col": 17, "dilation": 18},
    "Dropout": {"dropout_ratio": 1},
    "ELU": {"alpha": 1},
    "Flatten": {"axis": 1, "end_axis": 2},
    "InnerProduct": {"num_output": 1, "bias_term": 2, "weight_filler": 3, "bias_filler": 4, "axis": 5, "transpose": 6},
    "LRN": {"local_size": 1, "alpha": 2, "beta": 3, "norm_region": 4, "k": 5, "engine": 6},
    "Pooling": {"pool": 1, "kernel_size": 2, "stride": 3, "pad": 4, "kernel_h": 5, "kernel_w": 6, "stride_h": 7,
                "stride_w": 8, "pad_h": 9, "pad_w": 10, "engine": 11, "global_pooling": 12, "round_mode": 13},
    "ReLU": {"negative_slope": 1, "engine": 2},
    "Scale": {"axis": 1, "num_axes": 2, "filler": 3, "bias_term": 4, "bias_filler": 5},
    "Sigmoid": {"engine": 1}, "TanH": {"engine": 1}}
"""All parameters, with their field numbers, of the layers that can be read."""


@dataclass(frozen=True)
class Layer:
    """A layer of the file."""

    form: Form
    message: Message
    name: str
    type: str

    @classmethod
    def read(cls, form: Form, content: memoryview) -> Layer:
        """Return the layer in a message.

        Raises:
            ParametersError: if the layer has the form of 2013.
            ValueError: if the message is damaged.
        """
        message = Message(content)
        if form is V2:
            return cls(form, message, message.text(form.name), message.text(form.type))
        if message.contents(V0_LAYER):
            raise ParametersError("has Caffe's layers of 2013 (V0); upgrade it with Caffe's `upgrade_net_proto_binary`")
        number = message.integer(form.type)
        return cls(form, message, message.text(form.name),
                   V1_TYPES[number] if 0 <= number < len(V1_TYPES) else str(number))

    def refuse(self, reason: str, remedy: str) -> NoReturn:
        """Raise the error that this layer cannot be read."""
        raise ParametersError(f"layer {self.name[:80]!r} ({self.type[:80]}) {reason}; {remedy}")

    @property
    def bottoms(self) -> list[str]:
        """Names of the blobs that the layer takes."""
        return self.message.texts(self.form.bottom)

    @property
    def tops(self) -> list[str]:
        """Names of the blobs that the layer gives."""
        return self.message.texts(self.form.top)

    @property
    def blobs(self) -> list[memoryview]:
        """Weights and biases, as BlobProto messages."""
        return self.message.contents(self.form.blobs)

    @functools.cached_property
    def parameters(self) -> Message:
        """The message with the parameters of the layer's type; empty if all have their defaults."""
        number = self.form.parameters.get(self.type)
        return self.message.message(number) if number else Message()

    @property
    def is_source(self) -> bool:
        """True for a layer that gives images or labels: it takes nothing and has no weights."""
        return not self.bottoms and not self.blobs

    @property
    def rules(self) -> list[list[bool]]:
        """For each rule that includes or excludes the layer, True if it applies to the test phase."""
        return [[Message(rule).integer(1, TEST) == TEST for rule in self.message.contents(number)]
                for number in self.form.rules]

    @property
    def is_in_test(self) -> bool:
        """True if the layer belongs to the test phase."""
        include, exclude = self.rules
        return any(include) if include else not any(exclude)

    def integers(self, name: str) -> list[int]:
        """Return the values of a parameter, in the order of the file."""
        return self.parameters.integers(PARAMETERS[self.type][name])

    def integer(self, name: str, default: int) -> int:
        """Return the value of a parameter; switches are 0 or 1."""
        return self.parameters.integer(PARAMETERS[self.type][name], default)

    def decimal(self, name: str, default: float) -> float:
        """Return the value of a parameter."""
        return self.parameters.decimal(PARAMETERS[self.type][name], default)

    def side(self, name: str, *default: int) -> int:
        """Return a size that is equal in both directions."""
        height, width = self.sides(name, *default)
        if height != width:
            self.refuse(f"has {name} {height} and {width}", "height and width must have one size")
        return height

    def sides(self, name: str, *default: int) -> tuple[int, int]:
        """Return a size for height and width: `name`, once or twice, or its variants `_h` and `_w`."""
        apart = [self.integers(f"{name.removesuffix('_size')}_{axis}")[-1:] for axis in "hw"]
        values = self.integers(name)
        if any(apart):
            values += [value for side in apart for value in side or [0]]
        values = values or [*default]
        if not 1 <= len(values) <= 2:
            self.refuse(f"has {name} {' and '.join(map(str, values[:9])) or 'missing'}",
                        "height and width must have one size each")
        return values[0], values[-1]


class Transform(NamedTuple):
    """Changes of each image in a data layer, apart from random crops and reflections."""

    scale: float
    crop: int
    mean_file: str
    means: list[float]

    @classmethod
    def of(cls, source: Layer) -> Transform:
        """Return the changes: TransformationParameter, or the layer's own parameters, as in the first V1 files."""
        new = source.message.message(source.form.transform)
        old = source.parameters if source.type in IMAGE_FILES else Message()
        return cls(old.decimal(2, new.decimal(1, 1.0)), old.integer(5, new.integer(3)), old.text(3, new.text(4)),
                   new.decimals(5))
