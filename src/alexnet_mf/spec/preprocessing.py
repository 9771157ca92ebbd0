"""Preprocessing of pictures as data: the steps between a picture and a network's input.

The record travels with the weights, which give wrong answers after any other preprocessing. `data/preprocessing.py`
applies it. This module imports nothing outside the standard library.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from alexnet_mf.errors import SpecError
from alexnet_mf.spec.layers import LARGEST_STATISTIC, LARGEST_TENSOR, SMALLEST_STD

Color: TypeAlias = Literal["gray", "rgb", "bgr"]
COLORS: dict[Color, str] = {"gray": "gray", "rgb": "red, green, blue", "bgr": "blue, green, red"}
"""Channels by color, in the network's order."""
UNIT = 1 / 255
"""Scale from levels, 0 to 255, to [0, 1]."""


@dataclass(frozen=True)
class Preprocessing:
    """Steps that turn a picture into a network's input. Resizing is bilinear and antialiased, as in Pillow.

    Raises:
        SpecError: if a field has a wrong value; names the field.
    """

    color: Color
    resize: int | tuple[int, int] | None = None
    """Pixels of the shorter side, or (height, width) of the whole picture; None keeps the size."""
    fit: bool = False
    """True keeps the proportions: the largest size that fits (height, width), centered on black."""
    patch: tuple[int, int] | None = None
    """(height, width) of the center that is kept after resizing, from which a training cuts its crops; None keeps all.
    With it `crop` is the center of this center, which rounding can shift by a pixel."""
    crop: tuple[int, int] | None = None
    """(height, width) of the center that the network sees; None keeps all."""
    invert: bool = False
    """True if pictures are dark on light, and the network takes light on dark."""
    scale: float = UNIT
    """Factor from levels, 0 to 255, to the network's numbers."""
    mean: tuple[float, ...] | None = None
    """Subtracted from each scaled channel, in the order of `color`; None subtracts nothing."""
    std: tuple[float, ...] | None = None
    """Divides each channel after that; None divides by nothing."""

    def __post_init__(self) -> None:
        if not isinstance(self.color, str) or self.color not in COLORS:
            raise _error("color", f"one of {', '.join(COLORS)}", self.color)
        for name in ("fit", "invert"):
            if not isinstance(getattr(self, name), bool):
                raise _error(name, "true or false", getattr(self, name))
        if self.resize is not None and not _is_size(self.resize):
            self._store_pair("resize", "the shorter side or (height, width), in pixels")
        for name in ("patch", "crop"):
            if getattr(self, name) is not None:
                self._store_pair(name, "(height, width) in pixels")
        if self.fit and not isinstance(self.resize, tuple):
            raise _error("resize", "the (height, width) to fit in", self.resize)
        for name, inner, outer in (("patch", self.patch, self.resize), ("crop", self.crop, self.patch or self.resize)):
            if inner and outer and not _contains(outer, inner):
                around = f"a patch of {_by(self.patch)}" if name == "crop" and self.patch else \
                    f"a picture resized to {outer if isinstance(outer, int) else _by(outer)}"
                raise SpecError(f"preprocessing: a {name} of {_by(inner)} is larger than {around}; use a smaller "
                                f"{name} or a larger size")
        if not _is_number(self.scale, SMALLEST_STD):
            raise _error("scale", "a number between 1e-6 and 1e6", self.scale)
        object.__setattr__(self, "scale", float(self.scale))
        self._store_statistics("mean", -LARGEST_STATISTIC)
        self._store_statistics("std", SMALLEST_STD)

    def _store_pair(self, name: str, allowed: str) -> None:
        """Check that the field is a height and a width. Store it as a tuple."""
        values = getattr(self, name)
        if not isinstance(values, (list, tuple)) or len(values) != 2 or not all(map(_is_size, values)):
            raise _error(name, allowed, values)
        object.__setattr__(self, name, tuple(values))

    def _store_statistics(self, name: str, least: float) -> None:
        """Check that the field is None or has a number for each channel. Store it as a tuple of floats."""
        values = getattr(self, name)
        if values is None:
            return
        if not isinstance(values, (list, tuple)) or len(values) != self.channels or \
                not all(_is_number(value, least) for value in values):
            raise _error(name, f"a list with a number from {least:g} to 1e+06 for each channel ({self.channels})",
                         values)
        object.__setattr__(self, name, tuple(map(float, values)))

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.color == "gray" else 3

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of every prepared picture; None if it depends on the picture."""
        return self.crop or self.patch or (self.resize if isinstance(self.resize, tuple) else None)

    @property
    def stored(self) -> Preprocessing:
        """The steps before a picture is stored for a training, which cuts its own crops out of the patch."""
        return dataclasses.replace(self, crop=None) if self.patch else self

    @property
    def is_unit(self) -> bool:
        """True if the network's numbers are levels scaled to [0, 1], without normalization."""
        return self.scale == UNIT and self.mean is None and self.std is None

    def describe(self, size: tuple[int, ...] | None = None) -> str:
        """Return the steps in one line.

        Args:
            size: the network's (height, width), to which smaller gray pictures are enlarged.
        """
        steps = []
        if isinstance(self.resize, int):
            steps.append(f"shorter side resized to {self.resize}")
        elif self.resize and self.fit:
            steps.append(f"resized to fit {_by(self.resize)}, centered on black")
        elif self.resize:
            steps.append(f"resized to {_by(self.resize)}")
        if self.patch:
            steps.append(f"center of {_by(self.patch)}")
        if self.crop:
            steps.append(f"center crop of {_by(self.crop)}")
        if size and self.size and size != self.size:
            steps.append(f"enlarged to {_by(size)}")
        return "; ".join([COLORS[self.color] + ", inverted" * self.invert, *filter(None, [", ".join(steps)]),
                          self.describe_numbers()])

    def describe_numbers(self) -> str:
        """Return the scale and the normalization in words."""
        scaled = {UNIT: "scaled to [0, 1]", 1: "levels 0 to 255"}.get(self.scale, f"levels times {self.scale:g}")
        mean, std = (", ".join(f"{value:g}" for value in values or ()) for values in (self.mean, self.std))
        return scaled + (f", normalized by mean {mean} and standard deviation {std}" if mean and std else
                         f", minus mean {mean}" if mean else f", divided by {std}" if std else "")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: Any) -> Preprocessing:
        """Return the record that `as_dict` described. A missing key has its default.

        Raises:
            SpecError: if a key is unknown or has a wrong value; names the key.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(fields, dict) or "color" not in fields:
            raise SpecError("preprocessing: must have a color and other fields by name")
        unknown = [key for key in fields if key not in names]
        if unknown:
            raise SpecError(f"preprocessing: unknown key {unknown[0]!r}; known: {', '.join(names)}")
        return cls(**fields)


def center(size: int, wanted: int) -> int:
    """Return where the center of `wanted` pixels begins in a side of `size`; negative if the side is shorter. Rounded
    as in torchvision's `CenterCrop`."""
    return round((size - wanted) / 2) if size > wanted else -((wanted - size) // 2)


def _contains(outer: int | tuple[int, int], inner: tuple[int, int]) -> bool:
    """Return True if the inner rectangle fits in the outer one; a number is the shorter side."""
    if isinstance(outer, int):
        return min(inner) <= outer
    return inner[0] <= outer[0] and inner[1] <= outer[1]


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_TENSOR


def _is_number(value: object, least: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= LARGEST_STATISTIC


def _by(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _error(field: str, allowed: str, value: object) -> SpecError:
    return SpecError(f"preprocessing: {field} must be {allowed}, not {value!r}")


FASHION_MNIST = Preprocessing("gray", resize=(28, 28), fit=True)
"""Pictures as the datasets have them; a network with a larger input takes them enlarged."""
IMAGENET = Preprocessing("rgb", resize=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Published preprocessing of torchvision's AlexNet (`AlexNet_Weights.IMAGENET1K_V1.transforms`)."""
CAFFE = Preprocessing("bgr", resize=(256, 256), crop=(227, 227), scale=1,
                      mean=(104.0069879317889, 116.66876761696767, 122.6789143406786))
"""Preprocessing of Caffe's reference AlexNet: the channels' means of ImageNet (`ilsvrc_2012_mean.npy`)."""
