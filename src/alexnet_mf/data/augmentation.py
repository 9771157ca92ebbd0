"""Augmentation: small random changes of the training images. This module holds the names and the random draws.

The chapter names "flipping, clipping, and color changes" (section 8.1.2.3). `flip` mirrors left and right, one image in
two. `crop` cuts out a random part of the network's size, as the paper does: 224x224 out of 256x256 (Krizhevsky et al.
2012, section 4.1). An image that is no larger than the network's input has no margin for that: each side is first
padded by a 14th of the height or width with zeros, which gives crops of the same range. `color` changes brightness,
contrast and saturation by factors between 0.6 and 1.4 (`ColorJitter(0.4, 0.4, 0.4)`, Dive into Deep Learning, section
14.14); a gray image has no saturation.

The order is flip, crop, color. All three come before upsampling, where the image has a 64th of the pixels. Flips and
crops move gray levels as they are stored, so every backend feeds its network the same bits, and interpolation stays
exact. A flip before upsampling equals one after it. A crop moves by whole stored pixels. Color comes last, so the zeros
that a crop adds are background and count in the mean that contrast changes around; its results are not whole numbers,
and backends agree within rounding.

NumPy draws all random numbers as a function of seed and step, so a resumed run draws the same ones. Each backend's
`augment.py` changes the images on its device; NumPy's is the specification. Images that stream to the device are
cropped before, by `cropped`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.errors import AlexnetMfError, DataError
from alexnet_mf.spec.preprocessing import center

KINDS = ("flip", "crop", "color")
"""Names of the augmentations, in the order in which they are applied."""
NONE = "none"
"""Name on the command line for no augmentation."""
MARGIN = 14
"""Largest shift in each direction of an image without a margin: its height or width divided by this number."""
JITTER = 0.4
"""Factors of brightness, contrast and saturation are uniform between 1 - JITTER and 1 + JITTER."""
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
        """Return True if pixels change their values."""
        return "color" in self.kinds

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
        kinds = tuple(kind for kind in self.kinds if kind != "crop")
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
         size: tuple[int, int] | None = None) -> Draws | None:
    """Draw how a training step changes its images; return None if `kinds` is empty.

    Each kind draws the same numbers with and without the others.

    Args:
        step: number of the step, counted from the start of training.
        count: number of images in the batch.
        image: (channels, height, width) as stored.
        size: the network's (height, width). Larger images are cropped to it: at random with `crop`, else at the center.

    Raises:
        DataError: if the images are to change color and have neither one channel nor three.
    """
    if not kinds:
        return None
    channels, *stored = image
    if "color" in kinds and channels not in (1, 3):
        raise DataError(f"augmentation color takes images of one channel or three, not of {channels}; leave it out")
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
                 factors=(1 - JITTER + 2 * JITTER * share).astype(np.float32), padding=padding,
                 stored=(stored[0], stored[1]), size=size)
