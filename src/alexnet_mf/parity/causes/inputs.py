"""Faults of parameters and pixels on their way into a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from alexnet_mf.backends.numpy import layers
from alexnet_mf.parity.causes import Array, Cause, first_of, reproduce, verdict
from alexnet_mf.parity.ladder import Comparison, Rung
from alexnet_mf.parity.tolerances import relative_l2
from alexnet_mf.weights.parameters import digest, is_trained

LAST_BITS = 3e-7
"""Largest relative L2 difference of pixels that rounding alone explains."""
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Means and standard deviations of red, green and blue in [0, 1], as torchvision's weights expect them."""


# Parameters


def diagnose_parameters(c: Comparison, names: list[str]) -> str:
    """Name the faults that give the exported parameters, of which a trace has only the digests."""
    mine, start = c.subject.meta["exported_sha256"], c.reference.case.parameters()
    explained = [[cause for cause, value in parameter_causes(name, start[name])
                  if mine[name] == digest({name: np.ascontiguousarray(value)})] if name in start else []
                 for name in names]
    common = [cause for cause in explained[0] if all(cause in causes for causes in explained)]
    return verdict(f"parameters after loading and exporting, {first_of(names)}", " or ".join(common) or None)


def parameter_causes(name: str, value: Array) -> Iterator[Cause]:
    """Yield the usual faults of a tensor on its way in or out, each with the tensor that it gives."""
    if is_trained(name):
        yield "zero", np.zeros_like(value)
    else:
        yield "as before training, 0 and 1", np.full_like(value, name.endswith("var"))
    yield "in float64", value.astype(np.float64)
    yield "rounded to half precision", value.astype(np.float16).astype(np.float32)
    yield "cut to bfloat16", (value.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    if value.ndim == 2:
        yield "transposed", value.T
        if value.shape[0] != value.shape[1]:
            yield "its numbers read in another layout (in, out)", value.reshape(value.shape[::-1]).T
    if value.ndim == 4:
        out, inputs, height, width = value.shape
        yield "height and width swapped", value.swapaxes(2, 3)
        yield "input and output channels swapped", value.swapaxes(0, 1)
        yield "flipped", value[:, :, ::-1, ::-1]
        yield "its numbers read in another layout (height, width, in, out)", \
            value.reshape(height, width, inputs, out).transpose(3, 2, 0, 1)


# Pixels


def diagnose_pixels(c: Comparison, rung: Rung) -> str:
    """Name the faults that give the pixels that the network received."""
    mine, theirs = c.subject.tensors["pixels"], c.reference.trace.tensors["pixels"]
    if mine.shape == theirs.shape and relative_l2(mine, theirs) < LAST_BITS:
        gray = np.round(theirs.astype(np.float64) * 255 * 256) / 256  # exact in 1/256
        divided = np.array_equal(mine, gray.astype(np.float32) / np.float32(255))
        return "pixels: " + ("a division by 255 instead of a multiplication by float32(1/255)" if divided else
                             "only the last bits differ: scaled or interpolated in another order")
    return verdict("pixels", reproduce(mine, theirs, pixel_causes(c.reference.case.inputs[:len(theirs)], theirs)))


def pixel_causes(images: Array, pixels: Array) -> Iterator[Cause]:
    """Yield other conventions of cropping and upsampling levels and scaling them to [0, 1], each with its pixels."""
    yield "channels last instead of first", pixels.transpose(0, 2, 3, 1)
    yield "not scaled to [0, 1]", pixels * 255
    yield "scaled twice", pixels / 255
    yield "height and width swapped", pixels.swapaxes(2, 3)
    yield "inverted (1 - pixel)", 1 - pixels
    for mean, deviation in ((0.5, 0.5), (0.2860, 0.3530), (0.1307, 0.3081)):
        yield f"normalized by mean {mean} and deviation {deviation}", (pixels - mean) / deviation
    if pixels.shape[1] == 3:
        yield "normalized by ImageNet's means and deviations", layers.normalize_forward(pixels, *IMAGENET)
        yield "blue, green, red instead of red, green, blue", pixels[:, ::-1]
    if images.dtype != np.uint8:
        return
    gray = images.astype(np.float64)
    gray = gray[:, np.newaxis] if gray.ndim == 3 else gray.transpose(0, 3, 1, 2)
    height, width = pixels.shape[2:]
    if gray.shape[2:] != (height, width) and gray.shape[2] >= height and gray.shape[3] >= width:
        yield "cropped at the top left corner instead of the center", gray[:, :, :height, :width] / 255
        top, left = (-((after - before) // 2) for before, after in zip(gray.shape[2:], (height, width)))
        yield "cropped half a pixel beside the center", gray[:, :, top:top + height, left:left + width] / 255
        yield "resized instead of cropped", _bilinear(gray, (height, width), _half_pixel) / 255
        return
    factor = height // gray.shape[2]
    yield "nearest pixel instead of bilinear", gray.repeat(factor, 2).repeat(factor, 3) / 255
    for name, positions in (("aligned corners instead of half-pixel centers", _aligned),
                            ("pixel corners (no half-pixel shift) instead of half-pixel centers", _asymmetric)):
        yield f"bilinear with {name}", _bilinear(gray, pixels.shape[2:], positions) / 255
    levels = np.round(pixels.astype(np.float64) * 255 * 256) / 256  # exact in 1/256
    yield "rounded to whole gray levels, halves up (resized as uint8)", np.floor(levels + 0.5) / 255
    yield "rounded to whole gray levels, halves to even (resized as uint8)", np.round(levels) / 255
    yield "rounded down to whole gray levels (resized as uint8)", np.floor(levels) / 255
    wide = np.floor(_bilinear(gray, (gray.shape[2], pixels.shape[3]), _half_pixel) + 0.5)
    yield "rounded to whole gray levels in each direction (resized as uint8)", \
        np.floor(_bilinear(wide, pixels.shape[2:], _half_pixel) + 0.5) / 255


def _half_pixel(size: int, larger: int) -> Array:
    return (np.arange(larger) + 0.5) * size / larger - 0.5


def _aligned(size: int, larger: int) -> Array:
    return np.arange(larger) * (size - 1) / max(larger - 1, 1)


def _asymmetric(size: int, larger: int) -> Array:
    return np.arange(larger) * size / larger


def _bilinear(x: Array, shape: tuple[int, ...], positions: Callable[[int, int], Array]) -> Array:
    for axis, larger in zip((2, 3), shape):
        size = x.shape[axis]
        position = np.clip(positions(size, larger), 0, size - 1)
        low = np.floor(position).astype(int)
        share = (position - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, size - 1), axis) * share
    return x
