"""Pictures from anywhere, made into what a network was trained on.

Whatever a picture's file says of itself is checked before anything is decoded, and no picture can take more memory than
`MOST_PIXELS` allow. Pillow is imported when there is something to read.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import files
from alexnet_mf.data import idx
from alexnet_mf.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG")
SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_BYTES = 100_000_000
MOST_PIXELS = 50_000_000
"""Of a picture as it is stored: 200 MB when it is decoded, four bytes each."""
MOST_ON_A_SIDE = 65_535
"""As many as a JPEG can have. Pillow keeps a pointer for each row, and lines of millions cost it far more than that."""
LIMITS = f"at most {MOST_PIXELS:,} pixels, and {MOST_ON_A_SIDE:,} on a side, are decoded"
SHRUNK_FIRST = 4.0
"""How many times larger than it will be a picture is when it is interpolated: down to that it shrinks by whole factors,
which takes no memory."""
IDX_REMEDY = "give PNG, JPEG or idx files of 28x28 images"

# The published preprocessing of torchvision's AlexNet: what the weights for networks in colour were trained with.
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
IMAGENET_CROP = 224 / 256
PIXEL_SCALE = np.float32(1 / 255)


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes a network's input."""

    height: int
    width: int
    colour: bool = False
    """Red, green and blue by ImageNet's conventions; else grey by Fashion-MNIST's."""
    levels: bool = True
    """Grey levels as bytes, which the network's backend enlarges and scales; else float32, scaled to [0, 1]."""
    invert: bool = False
    """Dark on light becomes light on dark."""
    normalise: bool = True
    """Colours: less ImageNet's mean, by its standard deviation; not for a network that does so itself."""

    def describe(self) -> str:
        """In a sentence."""
        inverted = ", inverted" if self.invert else ""
        size = f"{self.height}x{self.width}"
        if self.colour:
            normalised = ", less ImageNet's mean, by its standard deviation" if self.normalise else ""
            return (f"red, green, blue{inverted}; the middle {IMAGENET_CROP:.3g} of the largest {size}-shaped part, "
                    f"resized to {size}; scaled to [0, 1]{normalised}")
        scaled = "then enlarged and scaled as in training" if self.levels else "scaled to [0, 1]"
        return f"grey{inverted}; fitted into {size}, centred on black; {scaled}"

    def __call__(self, image: Image) -> NDArray[Any]:
        """Uint8 (height, width), or float32 (channels, height, width)."""
        image = _plain(image)
        if self.colour:
            middle = _flat(_middle(image, self.height, self.width), "RGB", self.invert)
            scaled = np.asarray(middle, np.float32) * PIXEL_SCALE
            if self.normalise:
                scaled = (scaled - IMAGENET_MEAN) / IMAGENET_DEVIATION
            return np.ascontiguousarray(scaled.transpose(2, 0, 1))
        fitted = _flat(_fitted(image, self.height, self.width), "L", self.invert)
        grey = np.asarray(_centred(fitted, self.height, self.width), np.uint8)
        return grey if self.levels else grey[np.newaxis] * PIXEL_SCALE

    def visible(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """A network's input as it can be looked at: uint8 (height, width), or (height, width, 3)."""
        if self.levels and not self.colour:
            return pixels
        shown = pixels.transpose(1, 2, 0)
        if self.colour and self.normalise:
            shown = shown * IMAGENET_DEVIATION + IMAGENET_MEAN
        return np.clip(np.rint(shown * 255), 0, 255).astype(np.uint8).squeeze()


@dataclass(frozen=True, eq=False)
class Picture:
    """What a network is fed."""

    name: str
    """Its path; of an idx file's images, with the number in brackets."""
    pixels: NDArray[Any]


@dataclass(frozen=True)
class Unreadable:
    """A picture, or a file or folder of them, that cannot be read."""

    name: str
    reason: str
    """What is wrong, and the remedy, in a line."""


def pictures(paths: Sequence[Path], preparation: Preparation,
             limit: int | None = None) -> Iterator[Picture | Unreadable]:
    """Every picture in these files and folders, one after the other; what cannot be read is told, and passed over.

    Args:
        paths: PNG and JPEG files, idx files, packed or not, and folders of PNG and JPEG files.
        limit: of each folder, and each idx file, so many pictures only.
    """
    for path in paths:
        try:
            if path.is_dir():
                for file in folder(path)[:limit]:
                    yield from _one(file, preparation)
            elif idx.is_idx(path):
                for number, grey in enumerate(idx.read_images(path, IDX_REMEDY)[:limit]):
                    yield Picture(f"{path}[{number}]", _prepared_idx(grey, preparation))
            else:
                yield from _one(path, preparation)
        except DataError as error:
            yield _unreadable(path, error)


def folder(path: Path) -> list[Path]:
    """A folder's pictures, by name; folders in it are left alone.

    Raises:
        DataError: where it cannot be read, or has none.
    """
    try:
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES
                       and not file.name.startswith(".") and not file.is_dir())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not found:
        raise DataError(f"{path}: has no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file; folders in it are not "
                        f"searched, and idx files are to be named")
    return found


def read(path: Path, preparation: Preparation) -> NDArray[Any]:
    """One picture as a network takes it.

    Raises:
        DataError: where it cannot be read as PNG or JPEG, or is too large; names it.
    """
    try:
        content = files.read(path, MOST_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not content:
        raise DataError(f"{path}: is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pictures that are odd, or large: the size is checked here
        return _decode(path, content, preparation)


def _one(path: Path, preparation: Preparation) -> Iterator[Picture | Unreadable]:
    try:
        yield Picture(str(path), read(path, preparation))
    except DataError as error:
        yield _unreadable(path, error)


def _unreadable(path: Path, error: DataError) -> Unreadable:
    """An error without the path that it begins with."""
    return Unreadable(str(path), str(error).removeprefix(str(DataError(f"{path}: "))))


def _decode(path: Path, content: bytes, preparation: Preparation) -> NDArray[Any]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS or max(width, height) > MOST_ON_A_SIDE:
                raise _too_large(path, width, height)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return preparation(image)
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is neither a PNG nor a JPEG picture, whatever its name, or its beginning is "
                        f"damaged") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, *_size_in_header(content)) from error
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever comes for a damaged file: SyntaxError, struct.error, ...
        raise DataError(f"{path}: is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error


def _too_large(path: Path, width: int, height: int) -> DataError:
    return DataError(f"{path}: is too large: {width}x{height} pixels; {LIMITS}; shrink it")


def _size_in_header(content: bytes) -> tuple[int, int]:
    """Width and height of what `Image.open` takes for a decompression bomb, and does not tell the size of."""
    from PIL import JpegImagePlugin, PngImagePlugin

    is_png = content.startswith(b"\x89PNG")
    with (PngImagePlugin.PngImageFile if is_png else JpegImagePlugin.JpegImageFile)(io.BytesIO(content)) as image:
        return image.size


def _plain(image: Image) -> Image:
    """Eight bits a channel: grey or red, green and blue, multiplied by the opacity where there is some (`RGBa`)."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow itself would cut off at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return (image if image.mode == "RGBA" else image.convert("RGBA")).convert("RGBa")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _flat(image: Image, mode: str, invert: bool) -> Image:
    """Grey (`L`) or `RGB`; what is transparent shows the background: black, and white before inverting."""
    from PIL import Image, ImageOps

    if image.mode == "RGBa":
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white" if invert else "black"), image)
    flat = image.convert(mode)
    return ImageOps.invert(flat) if invert else flat


def _fitted(image: Image, height: int, width: int) -> Image:
    """As large as fits, in its own proportions; smoothed where it shrinks."""
    from PIL import Image

    scale = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=SHRUNK_FIRST)


def _centred(image: Image, height: int, width: int) -> Image:
    """In the middle of a black picture of this size."""
    from PIL import Image

    result = Image.new(image.mode, (width, height))
    result.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return result


def _middle(image: Image, height: int, width: int) -> Image:
    """The middle of it: of the largest part of this shape, all but a sixteenth on each side."""
    from PIL import Image

    scale = min(image.width / width, image.height / height) * IMAGENET_CROP
    left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
    return image.resize((width, height), Image.Resampling.BILINEAR,
                        (left, top, left + width * scale, top + height * scale), SHRUNK_FIRST)


def _prepared_idx(grey: NDArray[np.uint8], preparation: Preparation) -> NDArray[Any]:
    from PIL import Image

    return preparation(Image.fromarray(grey))
