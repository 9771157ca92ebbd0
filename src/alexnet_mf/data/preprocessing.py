"""Turn pictures into a network's input, as a `Preprocessing` states. Pillow is imported when there is a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.errors import DataError
from alexnet_mf.spec import Network, Normalize, Preprocessing
from alexnet_mf.spec.preprocessing import UNIT

if TYPE_CHECKING:
    from PIL.Image import Image

PIXEL_SCALE = np.float32(UNIT)
"""Gray levels to [0, 1] by one float32 multiplication: frameworks and compilers divide differently."""
MOST_PIXELS = 50_000_000
"""Largest size of a picture, stored or resized: 200 MB once decoded, at four bytes per pixel."""
REDUCING_GAP = 4.0
"""Ratio of a picture's size to the size it is to fit in, above which Pillow first reduces it by a whole factor."""


def upsampling_factor(image: tuple[int, ...], network: Network) -> int:
    """Return how many times larger the network's input is than a gray image (height, width), in both directions.

    Raises:
        DataError: unless it is 1, 2, 4 or 8: only then are the interpolated pixels exact in float32.
    """
    channels, height, width = network.input
    if channels != 1:
        raise DataError(f"network {network.name} takes {channels}x{height}x{width}, and gray images have one channel; "
                        f"give inputs of the network's own shape")
    factor = height // image[0]
    if (height, width) != (image[0] * factor, image[1] * factor) or factor not in (1, 2, 4, 8):
        raise DataError(f"network {network.name} takes {channels}x{height}x{width}: {image[0]}x{image[1]} gray images "
                        f"can be upsampled exactly by 1, 2, 4 or 8 only; give inputs of the network's own shape")
    return factor


def check_takes_gray_images(network: Network) -> None:
    """Check, before anything slow, that the network takes the datasets' 28x28 gray images.

    Raises:
        DataError: if not; names the network's input and the verbs that take the network.
    """
    try:
        upsampling_factor((28, 28), network)
    except DataError as error:
        raise DataError(f"{str(error).partition(';')[0]}; the datasets have 28x28 gray images; this network "
                        f"works only in shapes, parity, bench, analyze, predict, convert and plot filters") from error


def check_inputs(inputs: NDArray[Any], labels: NDArray[np.int64], network: Network) -> None:
    """Check that `Model.place` accepts these images and labels.

    Raises:
        DataError: states the input and what the network takes.
    """
    if inputs.ndim == 3 and inputs.dtype == np.uint8:
        upsampling_factor(inputs.shape[1:], network)
    elif inputs.dtype != np.float32 or inputs.shape[1:] != network.input:
        raise DataError(f"network {network.name} takes float32 inputs (n, {', '.join(map(str, network.input))}) or "
                        f"uint8 images (n, height, width), not {inputs.dtype} {inputs.shape}")
    if labels.shape != inputs.shape[:1]:
        raise DataError(f"{len(inputs)} images need as many labels, not {labels.shape}")
    if labels.size and not 0 <= labels.min() <= labels.max() < network.classes:
        raise DataError(f"labels must lie in 0..{network.classes - 1}, not {labels.min()}..{labels.max()}")


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
    if not preprocessing.is_unit:
        raise DataError(f"{gives}, which are enlarged only if they lie in [0, 1]; use `resize` and `crop`")
    try:
        upsampling_factor(preprocessing.size, network)
    except DataError as error:
        raise DataError(f"{gives}; use `resize` and `crop`") from error


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
    image = _flatten(_resize(_to_eight_bits(image), size, preprocessing.fit), preprocessing)
    if preprocessing.size:
        image = _center(image, *preprocessing.size)
    return np.asarray(image)


def to_inputs(levels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[Any]:
    """Return prepared pictures, (n, height, width) or (n, height, width, 3), in the form that `Model.place` takes.

    Gray levels that are only to be scaled to [0, 1] stay as they are: the backend enlarges and scales them. All others
    become float32 (n, channels, height, width).
    """
    if preprocessing.color == "gray":
        if preprocessing.is_unit:
            return levels
        levels = levels[..., np.newaxis]
    elif preprocessing.color == "bgr":
        levels = levels[..., ::-1]
    values = levels.astype(np.float32) * np.float32(preprocessing.scale)
    if preprocessing.mean:
        values -= np.array(preprocessing.mean, np.float32)
    if preprocessing.std:
        values /= np.array(preprocessing.std, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def _to_eight_bits(image: Image) -> Image:
    """Return the image in mode `L`, `RGB`, or `RGBa` (multiplied by its opacity), with eight bits per channel."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of gray, which Pillow itself would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
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


def _flatten(image: Image, preprocessing: Preprocessing) -> Image:
    """Return the image in mode `L` or `RGB`, on a black background, or on a white one if it is to be inverted."""
    from PIL import Image, ImageOps

    if image.mode == "RGBa":
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white" if preprocessing.invert else "black")
        image = Image.alpha_composite(background, image)
    flat = image.convert("L" if preprocessing.color == "gray" else "RGB")
    return ImageOps.invert(flat) if preprocessing.invert else flat


def _center(image: Image, height: int, width: int) -> Image:
    """Return the center of an image, with black margins if it is smaller. Offsets are rounded as in torchvision."""
    left, top = (round((size - wanted) / 2) if size > wanted else -((wanted - size) // 2)
                 for size, wanted in zip(image.size, (width, height)))
    return image.crop((left, top, left + width, top + height))
