"""Augmentation: small random changes of the training images. This module holds the names and the random draws.

The chapter names "flipping, clipping, and color changes" (section 8.1.2.3). `flip` mirrors left and right, one image in
two. `crop` cuts out a random part of the network's size, as the paper does: 224x224 out of 256x256 (Krizhevsky et al.
2012, section 4.1). An image that is no larger than the network's input has no margin for that: each side is first
padded by a 14th of the height or width with zeros, which gives crops of the same range. `color` changes brightness,
contrast and saturation by factors between 0.6 and 1.4 (`ColorJitter(0.4, 0.4, 0.4)`, Dive into Deep Learning, section
14.14); a gray image has no saturation. `pca` adds the paper's noise along the principal colors of the training images
(section 4.1), the same to all pixels of an image.

`resized-crop` is torchvision's `RandomResizedCrop` in place of `crop`: a part of 8 % to 100 % of the picture's area,
with proportions of 3:4 to 4:3, resized to the network's input. It needs pictures at their full size.

The order is flip, crop, color, pca. All come before upsampling, where the image has a 64th of the pixels. Flips and
crops move gray levels as they are stored, so every backend feeds its network the same bits, and interpolation stays
exact. A flip before upsampling equals one after it. A crop moves by whole stored pixels. Colors come last, so the zeros
that a crop adds are background and count in the mean that contrast changes around; its results are not whole numbers,
and backends agree within rounding.

NumPy draws all random numbers as a function of seed and step, so a resumed run draws the same ones. Each backend's
`augment.py` changes the images on its device; NumPy's is the specification. Images that stream to the device are
cropped before, by `cropped`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data.dataset import Images
from alexnet_mf.errors import AlexnetMfError, DataError
from alexnet_mf.spec.preprocessing import center

KINDS = ("flip", "crop", "resized-crop", "color", "pca")
"""Names of the augmentations, in the order in which they are applied."""
NONE = "none"
"""Name on the command line for no augmentation."""
MARGIN = 14
"""Largest shift in each direction of an image without a margin: its height or width divided by this number."""
JITTER = 0.4
"""Factors of brightness, contrast and saturation are uniform between 1 - JITTER and 1 + JITTER."""
AREA = (0.08, 1.0)
"""Share of the picture's area that `resized-crop` takes."""
PROPORTIONS = (3 / 4, 4 / 3)
"""Width of that part divided by its height, before it is resized."""
TRIES = 10
"""Number of parts that are drawn until one fits in the picture."""
NOISE = 0.1
"""Standard deviation of the paper's random numbers, which multiply the principal colors."""
SAMPLE = 1000
"""Number of training images whose pixels give the principal colors."""
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the gray that saturation and contrast change around (ITU-R BT.601)."""

_STREAM = 0xA0661  # keeps these draws apart from all others of the same seed


def check(names: Iterable[str]) -> tuple[str, ...]:
    """Return the named augmentations, each once, in the order in which they are applied.

    Raises:
        AlexnetMfError: if a name is unknown; lists the known ones.
    """
    names = list(names)
    for name in names:
        if name not in KINDS:
            raise AlexnetMfError(f"unknown augmentation {name!r}; known: {', '.join(KINDS)}, or {NONE}")
    if "crop" in names and "resized-crop" in names:
        raise AlexnetMfError("augmentations crop and resized-crop are two ways to crop; use one of them")
    return tuple(kind for kind in KINDS if kind in names)


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class Draws:
    """Random numbers for the augmentation of a batch."""

    kinds: tuple[str, ...]
    flip: NDArray[np.bool_]
    """(n,): True if the image is mirrored."""
    corner: NDArray[np.int64]
    """(n, 2): row and column of the crop's corner in the padded image."""
    factors: NDArray[np.float32]
    """(n, 3): factors of brightness, contrast and saturation."""
    shifts: NDArray[np.float32]
    """(n, 3): what is added to red, green and blue in [0, 1]."""
    parts: NDArray[np.float64]
    """(n, TRIES, 4): area, proportions, and place of the parts that `resized-crop` tries, in [0, 1)."""
    padding: tuple[int, int]
    """Number of zeros above and below, and left and right."""
    stored: tuple[int, int]
    """Height and width of the image before the crop, without the padding."""
    size: tuple[int, int]
    """Height and width after the crop."""

    @property
    def moved(self) -> bool:
        """Return True if pixels change their positions."""
        return "flip" in self.kinds or "crop" in self.kinds

    @property
    def colored(self) -> bool:
        """Return True if brightness, contrast and saturation change."""
        return "color" in self.kinds

    @property
    def shifted(self) -> bool:
        """Return True if red, green and blue are shifted."""
        return "pca" in self.kinds

    def rows(self) -> NDArray[np.int32]:
        """Return the row of the padded, unflipped image that each row comes from, (n, height)."""
        return (self.corner[:, :1] + np.arange(self.size[0])).astype(np.int32)

    def columns(self) -> NDArray[np.int32]:
        """Return the column of the padded, unflipped image that each column comes from, (n, width)."""
        forward = self.corner[:, 1:] + np.arange(self.size[1])
        last = self.stored[1] + 2 * self.padding[1] - 1
        return np.where(self.flip[:, np.newaxis], last - forward, forward).astype(np.int32)

    def after_crop(self) -> Draws | None:
        """Return the changes that are left for images that `cropped` returned; None if there are none."""
        kinds = tuple(kind for kind in self.kinds if kind not in ("crop", "resized-crop"))
        none = np.zeros_like(self.corner)
        return replace(self, kinds=kinds, corner=none, padding=(0, 0), stored=self.size) if kinds else None


def cropped(images: Iterable[NDArray[np.uint8]], draws: Draws, channels: tuple[int, ...] = ()) -> NDArray[np.uint8]:
    """Return the crops of stored images, each (height, width, *channels), not yet mirrored."""
    (height, width), (above, left) = draws.size, draws.padding
    crops = np.zeros((len(draws.flip), height, width, *channels), np.uint8)
    columns = np.where(draws.flip, draws.stored[1] + 2 * left - width - draws.corner[:, 1], draws.corner[:, 1])
    for image, crop, top, start in zip(images, crops, (draws.corner[:, 0] - above).tolist(), (columns - left).tolist()):
        # A negative place lies in the padding, which stays zero.
        part = image[max(0, top):top + height, max(0, start):start + width]
        crop[max(0, -top):max(0, -top) + part.shape[0], max(0, -start):max(0, -start) + part.shape[1]] = part
    return crops


def draw(kinds: tuple[str, ...], seed: int, step: int, count: int, image: tuple[int, ...],
         size: tuple[int, int] | None = None, colors: NDArray[np.float64] | None = None) -> Draws | None:
    """Draw how a training step changes its images; return None if `kinds` is empty.

    Each kind draws the same numbers with and without the others.

    Args:
        step: number of the step, counted from the start of training.
        count: number of images in the batch.
        image: (channels, height, width) as stored.
        size: the network's (height, width). Larger images are cropped to it: at random with `crop`, else at the center.
        colors: the value of `principal_colors`, for `pca`.

    Raises:
        DataError: if the images are to change color and have neither one channel nor three, for `pca` not three.
    """
    if not kinds:
        return None
    channels, *stored = image
    if "color" in kinds and channels not in (1, 3):
        raise DataError(f"augmentation color takes images of one channel or three, not of {channels}; leave it out")
    if "pca" in kinds and channels != 3:
        raise DataError(f"augmentation pca takes images of three channels, not of {channels}; leave it out")
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_STREAM, step)))
    # Raw words, as for the order of the images: NumPy guarantees them, but not the numbers of a Generator.
    words = bits.random_raw((count, 6))
    size = (min(stored[0], size[0]), min(stored[1], size[1])) if size else (stored[0], stored[1])
    margin = stored[0] - size[0], stored[1] - size[1]
    padding = (0, 0)
    if "crop" in kinds:
        if not any(margin):
            padding = max(1, stored[0] // MARGIN), max(1, stored[1] // MARGIN)
        choices = [free + 2 * side + 1 for free, side in zip(margin, padding)]
        corner = (words[:, 1:3] % np.array(choices, np.uint64)).astype(np.int64)
    else:
        corner = np.tile(np.array([center(*sides) for sides in zip(stored, size)]), (count, 1))
    share = (words[:, 3:] >> np.uint64(11)).astype(np.float64) * 2.0**-53  # 53 bits: in [0, 1)
    return Draws(kinds, flip=(words[:, 0] >> np.uint64(63) == 1) & ("flip" in kinds), corner=corner,
                 factors=(1 - JITTER + 2 * JITTER * share).astype(np.float32),
                 shifts=_shifts(seed, step, count, colors),
                 parts=_parts(seed, step, count if "resized-crop" in kinds else 0), padding=padding,
                 stored=(stored[0], stored[1]), size=size)


def principal_colors(images: Images) -> NDArray[np.float64]:
    """Return the principal colors of training images, each times its variance: (3, 3), a color in each row.

    As in the paper (Krizhevsky et al. 2012, section 4.1): the eigenvectors and eigenvalues of the covariance of red,
    green and blue, for pixels in [0, 1]. The images are a sample of `SAMPLE`, evenly spaced.
    """
    rows = np.unique(np.linspace(0, len(images) - 1, SAMPLE).round().astype(np.int64))
    count, total, squares = 0, np.zeros(3), np.zeros((3, 3))
    for row in rows.tolist():  # sums of whole numbers below 2^53: exact in any order
        pixels = images[row].reshape(-1, 3).astype(np.float64)
        count, total, squares = count + len(pixels), total + pixels.sum(axis=0), squares + pixels.T @ pixels
    covariance = (squares / count - np.outer(total, total) / count**2) / 255**2
    variances, vectors = np.linalg.eigh(covariance)
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), range(3)])  # an eigenvector has no sign of its own
    return np.asarray((vectors * signs * variances).T)


def part(drawn: NDArray[np.float64], width: int, height: int) -> tuple[int, int, int, int]:
    """Return the part of a picture that these numbers choose, (TRIES, 4), as left, top, right and bottom.

    As torchvision's `RandomResizedCrop.get_params` chooses it. If no part fits, it is the largest center with allowed
    proportions.
    """
    least, most = PROPORTIONS
    for area, proportion, down, across in drawn.tolist():
        area = width * height * (AREA[0] + (AREA[1] - AREA[0]) * area)
        ratio = least * (most / least) ** proportion
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(across * (width - wide + 1)), int(down * (height - high + 1))
            return left, top, left + wide, top + high
    wide, high = min(width, round(height * most)), min(height, round(width / least))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _parts(seed: int, step: int, count: int) -> NDArray[np.float64]:
    """Draw the parts that `resized-crop` tries, by numbers of their own stream."""
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_STREAM, step, 2)))
    words = bits.random_raw((count, TRIES, 4))
    return np.asarray((words >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _shifts(seed: int, step: int, count: int, colors: NDArray[np.float64] | None) -> NDArray[np.float32]:
    """Draw the shifts of red, green and blue, by numbers of their own stream: (count, 3)."""
    if colors is None:
        return np.zeros((count, 3), np.float32)
    words = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_STREAM, step, 1))).random_raw((2, count, 3))
    first, second = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1)
    normal = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)  # Box and Muller
    return np.asarray((NOISE * normal @ colors).astype(np.float32))
