"""Turn pictures into a network's input, as a `Preprocessing` states. Pillow is imported when there is a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.errors import DataError
from alexnet_mf.spec import Network, Normalize, Preprocessing
from alexnet_mf.spec.preprocessing import UNIT, center

if TYPE_CHECKING:
    from PIL.Image import Image

PIXEL_SCALE = np.float32(UNIT)
"""Gray levels to [0, 1] by one float32 multiplication: frameworks and compilers divide differently."""
MOST_PIXELS = 50_000_000
"""Largest size of a picture, stored or resized: 200 MB once decoded, at four bytes per pixel."""
REDUCING_GAP = 4.0
"""Ratio of a picture's size to the size it is to fit in, above which Pillow first reduces it by a whole factor."""


EXACT_FACTORS = (1, 2, 4, 8)
"""Enlargements whose bilinear interpolation of levels is exact in float32."""


def input_size(network: Network) -> tuple[int, int]:
    """Return the (height, width) of the network's input."""
    _, height, width = network.input
    return height, width


def center_slices(stored: Sequence[int], size: Sequence[int]) -> tuple[slice, slice]:
    """Return the rows and columns of the center that larger images are cropped to; all of them for smaller images."""
    return _center_slice(stored[0], size[0]), _center_slice(stored[1], size[1])


def _center_slice(stored: int, size: int) -> slice:
    kept = min(stored, size)
    first = center(stored, kept)
    return slice(first, first + kept)


def levels_channels(shape: Sequence[int]) -> int:
    """Return the number of channels of levels (n, height, width) or (n, height, width, channels)."""
    return shape[3] if len(shape) == 4 else 1


def upsampling_factor(size: Sequence[int], network: Network) -> int | None:
    """Return how many times larger than this (height, width) the network's input is, in both directions. None unless it
    is 1, 2, 4 or 8: only then are the interpolated levels exact in float32."""
    height, width = input_size(network)
    return next((factor for factor in EXACT_FACTORS if (size[0] * factor, size[1] * factor) == (height, width)), None)


def is_exact(size: Sequence[int], network: Network) -> bool:
    """Return True if backends make the network's input from levels of this (height, width): by a crop, or by an exact
    enlargement."""
    height, width = input_size(network)
    return (size[0] >= height and size[1] >= width) or upsampling_factor(size, network) is not None


def check_inputs(inputs: NDArray[Any], labels: NDArray[np.int64], network: Network) -> None:
    """Check that `Model.place` accepts these images and labels.

    Raises:
        DataError: states the input and what the network takes.
    """
    channels, *size = network.input
    takes = f"network {network.name} takes {channels}x{size[0]}x{size[1]}"
    if inputs.dtype == np.uint8 and inputs.ndim in (3, 4):
        if levels_channels(inputs.shape) != channels:
            has = _channels(levels_channels(inputs.shape))
            raise DataError(f"{takes}, and these images have {has}; give inputs of the network's own shape")
        if not is_exact(inputs.shape[1:3], network):
            factors = f"{', '.join(map(str, EXACT_FACTORS[:-1]))} or {EXACT_FACTORS[-1]}"
            raise DataError(f"{takes}: images of {inputs.shape[1]}x{inputs.shape[2]} can be enlarged exactly by "
                            f"{factors} only; give inputs of the network's own shape")
    elif inputs.dtype != np.float32 or inputs.shape[1:] != network.input:
        raise DataError(f"{takes}: float32 inputs (n, {', '.join(map(str, network.input))}), or uint8 images (n, "
                        "height, width) or (n, height, width, channels), not "
                        f"{inputs.dtype} {inputs.shape}")
    if labels.shape != inputs.shape[:1]:
        raise DataError(f"{len(inputs)} images need as many labels, not {labels.shape}")
    if labels.size and not 0 <= labels.min() <= labels.max() < network.classes:
        raise DataError(f"labels must lie in 0..{network.classes - 1}, not {labels.min()}..{labels.max()}: network "
                        f"{network.name} has {network.classes} classes; use data with as many")


def enlarged(levels: NDArray[Any], network: Network) -> NDArray[Any]:
    """Return levels that the network's backends take: as they are, or enlarged to the network's input if they cannot be
    enlarged exactly on the device. Inputs that are ready for the network stay as they are.

    Args:
        levels: (n, height, width) or (n, height, width, channels).
    """
    if levels.dtype != np.uint8 or is_exact(levels.shape[1:3], network):
        return levels
    from PIL import Image

    height, width = input_size(network)
    return np.stack([np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
                     for image in levels])


def within(side: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) with the proportions of `size`, rounded, whose longer side is `side`."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _channels(count: int) -> str:
    return "one channel" if count == 1 else f"{count} channels"


def check_fits(preprocessing: Preprocessing, network: Network) -> None:
    """Check that the network takes what the preprocessing gives.

    Raises:
        DataError: if channels or size differ, or both normalize.
    """
    channels, height, width = network.input
    takes = f"network {network.name} takes {channels}x{height}x{width}"
    if preprocessing.channels != channels:
        raise DataError(f"{takes}, but the preprocessing gives {preprocessing.channels} channels; use weights for "
                        "this network")
    if isinstance(network.layers[0], Normalize) and not preprocessing.is_unit:
        raise DataError(f"network {network.name} begins with a Normalize layer, which takes pixels in [0, 1], but the "
                        f"preprocessing gives {preprocessing.describe_numbers()}; use the network without that layer")
    if preprocessing.size is None:
        raise DataError(f"{takes}, but the preprocessing gives pictures of any size; name one with `crop`")
    if preprocessing.size == (height, width):
        return
    gives = f"{takes}, but the preprocessing gives {'x'.join(map(str, preprocessing.size))} pixels"
    if preprocessing.size[0] > height or preprocessing.size != within(max(preprocessing.size), (height, width)):
        raise DataError(f"{gives}; use `resize` and `crop`")
    if not preprocessing.is_unit:
        raise DataError(f"{gives}, which are enlarged only if they lie in [0, 1]; use `resize` and `crop`")


def prepare(image: Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return a picture resized and cropped: gray levels (height, width), or red, green and blue (height, width, 3).

    The pixels are those of torchvision's transforms `Resize` and `CenterCrop`. Transparent pixels are background.

    Raises:
        DataError: if the resized picture would be too large; the message lacks the picture's name.
    """
    width, height = image.size
    size = _resized(image.size, preprocessing)
    if size[0] * max(size[1], height) > MOST_PIXELS:  # Pillow resizes the rows first
        raise DataError(f"is too long: {width}x{height} pixels cannot be resized to {size[0]}x{size[1]}; crop it")
    image = flat(_resize(to_eight_bits(image), size, preprocessing.fit), preprocessing)
    for center_size in dict.fromkeys((preprocessing.patch or preprocessing.size, preprocessing.size)):
        if center_size:
            image = _center(image, *center_size)
    return np.asarray(image)


def to_inputs(levels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[Any]:
    """Return prepared pictures, (n, height, width) or (n, height, width, 3), in the form that `enlarged` takes.

    Levels that are only to be scaled to [0, 1] stay levels: the backend scales them. All others become float32
    (n, channels, height, width).
    """
    if preprocessing.color == "gray" and not preprocessing.is_unit:
        levels = levels[..., np.newaxis]
    elif preprocessing.color == "bgr":
        levels = levels[..., ::-1]
    if preprocessing.is_unit:
        return levels
    values = levels.astype(np.float32) * np.float32(preprocessing.scale)
    if preprocessing.mean:
        values -= np.array(preprocessing.mean, np.float32)
    if preprocessing.std:
        values /= np.array(preprocessing.std, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def to_eight_bits(image: Image) -> Image:
    """Return the image in mode `L`, `RGB`, or `RGBa` (multiplied by its opacity), with eight bits per channel.

    Raises:
        DataError: if its levels are no bytes and no 16 bits; the message lacks the picture's name.
    """
    from PIL import Image

    if image.mode == "RGBa":
        return image
    if image.mode.startswith(("I", "F")):  # 16 bits of gray, which Pillow itself would clip at 255
        levels = np.asarray(image)
        if image.mode == "F" or levels.min() < 0 or levels.max() > 65_535:
            raise DataError("has levels that are neither of 8 nor of 16 bits; convert it to PNG")
        return Image.fromarray((levels >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return (image if image.mode == "RGBA" else image.convert("RGBA")).convert("RGBa")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _resized(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the (width, height) to which a picture of this (width, height) is resized."""
    width, height = size
    match preprocessing.resize:
        case None:
            return size
        case int(shorter):  # rounded down, as in torchvision
            return (shorter, int(shorter * height / width)) if width <= height else \
                (int(shorter * width / height), shorter)
        case (rows, columns) if preprocessing.fit:
            scale = min(columns / width, rows / height)
            return max(1, round(width * scale)), max(1, round(height * scale))
        case (rows, columns):
            return columns, rows


def _resize(image: Image, size: tuple[int, int], fit: bool) -> Image:
    """Resize the image to (width, height); antialias if it shrinks."""
    from PIL import Image

    if image.size == size:
        return image
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP if fit else None)


def flat(image: Image, preprocessing: Preprocessing) -> Image:
    """Return the image in mode `L` or `RGB`, on a black background, or on a white one if it is to be inverted."""
    from PIL import Image, ImageOps

    if image.mode == "RGBa":
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white" if preprocessing.invert else "black")
        image = Image.alpha_composite(background, image)
    mode = "L" if preprocessing.color == "gray" else "RGB"
    converted = image if image.mode == mode else image.convert(mode)  # a copy, in the same mode too
    return ImageOps.invert(converted) if preprocessing.invert else converted


def _center(image: Image, height: int, width: int) -> Image:
    """Return the center of an image, with black margins if it is smaller."""
    left, top = map(center, image.size, (width, height))
    return image.crop((left, top, left + width, top + height))
