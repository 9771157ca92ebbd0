"""Turn an image into a network's input. Pillow is imported when there is an image to resize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.errors import DataError
from alexnet_mf.spec import Network

if TYPE_CHECKING:
    from PIL.Image import Image

PIXEL_SCALE = np.float32(1 / 255)
"""Gray levels to [0, 1] by one float32 multiplication: frameworks and compilers divide differently."""
REDUCING_GAP = 4.0
"""Ratio of an image's size to its target size at which Pillow interpolates: a larger image is first reduced by a whole
factor, which takes no memory."""

# The published preprocessing of torchvision's AlexNet, with which the weights of color networks were trained.
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
IMAGENET_CROP = 224 / 256


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


@dataclass(frozen=True)
class Preparation:
    """The steps that turn an image into a network's input."""

    height: int
    width: int
    color: bool = False
    """True for red, green and blue by ImageNet's conventions; False for gray by Fashion-MNIST's."""
    levels: bool = True
    """True for gray levels as bytes, which the backend upsamples and scales; False for float32 scaled to [0, 1]."""
    invert: bool = False
    """True to turn dark on light into light on dark."""
    normalize: bool = True
    """True to normalize colors by ImageNet's mean and standard deviation; False if the network does so itself."""

    def describe(self) -> str:
        """Return a description in one sentence."""
        inverted = ", inverted" if self.invert else ""
        size = f"{self.height}x{self.width}"
        if self.color:
            normalized = ", normalized by ImageNet's mean and standard deviation" if self.normalize else ""
            return (f"red, green, blue{inverted}; center crop of {IMAGENET_CROP:.1%} of the largest {size}-shaped "
                    f"part, resized to {size}; scaled to [0, 1]{normalized}")
        scaled = "then upsampled and scaled as in training" if self.levels else "scaled to [0, 1]"
        return f"gray{inverted}; resized to fit {size}, centered on black; {scaled}"

    def __call__(self, image: Image) -> NDArray[Any]:
        """Return the image as uint8 (height, width), or as float32 (channels, height, width)."""
        image = _to_eight_bits(image)
        if self.color:
            middle = _flatten(_center_crop(image, self.height, self.width), "RGB", self.invert)
            scaled = np.asarray(middle, np.float32) * PIXEL_SCALE
            if self.normalize:
                scaled = (scaled - IMAGENET_MEAN) / IMAGENET_DEVIATION
            return np.ascontiguousarray(scaled.transpose(2, 0, 1))
        fitted = _flatten(_fit(image, self.height, self.width), "L", self.invert)
        left, top = (self.width - fitted.width) // 2, (self.height - fitted.height) // 2
        gray = np.zeros((self.height, self.width), np.uint8)
        gray[top:top + fitted.height, left:left + fitted.width] = fitted
        return gray if self.levels else gray[np.newaxis] * PIXEL_SCALE

    def visible(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """Return a network's input as a visible image: uint8 (height, width), or (height, width, 3)."""
        if self.levels and not self.color:
            return pixels
        shown = pixels.transpose(1, 2, 0)
        if self.color and self.normalize:
            shown = shown * IMAGENET_DEVIATION + IMAGENET_MEAN
        return np.clip(np.rint(shown * 255), 0, 255).astype(np.uint8).squeeze()


def _to_eight_bits(image: Image) -> Image:
    """Return the image in mode `L`, `RGB`, or `RGBa` (multiplied by its opacity), with eight bits per channel."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of gray, which Pillow itself would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return (image if image.mode == "RGBA" else image.convert("RGBA")).convert("RGBa")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _flatten(image: Image, mode: str, invert: bool) -> Image:
    """Return the image in mode `L` or `RGB`, on a black background, or on a white one if it is to be inverted."""
    from PIL import Image, ImageOps

    if image.mode == "RGBa":
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white" if invert else "black"), image)
    flat = image.convert(mode)
    return ImageOps.invert(flat) if invert else flat


def _fit(image: Image, height: int, width: int) -> Image:
    """Resize the image to the largest size that fits, keeping its proportions; antialias if it shrinks."""
    from PIL import Image

    scale = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)


def _center_crop(image: Image, height: int, width: int) -> Image:
    """Crop the center of the image, 7/8 of the largest part of this shape, and resize it."""
    from PIL import Image

    scale = min(image.width / width, image.height / height) * IMAGENET_CROP
    left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
    return image.resize((width, height), Image.Resampling.BILINEAR,
                        (left, top, left + width * scale, top + height * scale), REDUCING_GAP)
