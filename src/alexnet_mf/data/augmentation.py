"""Augmentation: training images that are a little different each time. Here are the names and the random draws.

The chapter says: "flipping, clipping, and color changes" (section 8.1.2.3). `flip` mirrors left and right, for one
image in two. `crop` moves the image: zeros are added on each side, a 14th of its height and width, and a piece of the
image's own size is cut out at random. That is the paper's freedom, 224x224 out of 256x256 (Krizhevsky et al. 2012,
section 4.1), without its larger images. `color` changes brightness, contrast and saturation by factors between 0.6 and
1.4 (`ColorJitter(0.4, 0.4, 0.4)`, Dive into Deep Learning, section 14.14); a grey image has no saturation.

The order is flip, crop, color, and all three come before the image is enlarged: there it has a 64th of the pixels.
What is flipped or cropped are grey levels as they are stored, so that every backend feeds its network the same bits,
and interpolation stays exact. A flip is the same on either side of the enlargement. A crop is by whole stored pixels.
Colour comes last, so that the zeros that a crop brings in are those of a background, and count in the mean that
contrast is about; its results are no whole numbers any more, and backends agree within rounding.

All draws are NumPy's, a function of seed and step: a run that is resumed draws what it would have drawn. How the images
are changed is each backend's `augmentation.py`; NumPy's is the specification.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.errors import AlexnetMfError, DataError

KINDS = ("flip", "crop", "color")
"""In the order in which they are applied."""
NONE = "none"
"""What no augmentation is called on the command line."""
MARGIN = 14
"""The part of its height and width by which an image can move either way."""
JITTER = 0.4
"""Factors of brightness, contrast and saturation are drawn evenly from 1 - JITTER to 1 + JITTER."""
LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue are of the grey that saturation and contrast are about (ITU-R BT.601)."""

_STREAM = 0xA0661  # keeps these draws apart from all others of the same seed


def check(names: Iterable[str]) -> tuple[str, ...]:
    """The kinds of augmentation that are named, each once and in the order in which they are applied.

    Raises:
        AlexnetMfError: for an unknown one; lists the known ones.
    """
    names = list(names)
    for name in names:
        if name not in KINDS:
            raise AlexnetMfError(f"unknown augmentation {name!r}; known: {', '.join(KINDS)}, or {NONE}")
    return tuple(kind for kind in KINDS if kind in names)


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class Draws:
    """What is done to each image of a batch."""

    kinds: tuple[str, ...]
    flip: NDArray[np.bool_]
    """(n,): whether it is mirrored."""
    corner: NDArray[np.int64]
    """(n, 2): where the piece begins that is cut out of the padded image, row and column."""
    factors: NDArray[np.float32]
    """(n, 3): of brightness, contrast and saturation."""
    padding: tuple[int, int]
    """Zeros above and below, and left and right."""
    size: tuple[int, int]
    """Height and width of the image."""

    @property
    def moved(self) -> bool:
        """Whether pixels change their places."""
        return "flip" in self.kinds or "crop" in self.kinds

    @property
    def colored(self) -> bool:
        """Whether pixels change their values."""
        return "color" in self.kinds

    def rows(self) -> NDArray[np.int32]:
        """(n, height): the row of the padded, unflipped image that each row comes from."""
        return (self.corner[:, :1] + np.arange(self.size[0])).astype(np.int32)

    def columns(self) -> NDArray[np.int32]:
        """(n, width): the column of the padded, unflipped image that each column comes from."""
        forward = self.corner[:, 1:] + np.arange(self.size[1])
        last = self.size[1] + 2 * self.padding[1] - 1
        return np.where(self.flip[:, np.newaxis], last - forward, forward).astype(np.int32)


def draw(kinds: tuple[str, ...], seed: int, step: int, count: int, image: tuple[int, ...]) -> Draws | None:
    """What a training step does to its images; None where it does nothing.

    An image's flip, say, is the same whatever other kinds there are.

    Args:
        step: its number since the start of training.
        count: images in the batch.
        image: (channels, height, width).

    Raises:
        DataError: for color on images that have neither one channel nor three.
    """
    if not kinds:
        return None
    channels, height, width = image
    if "color" in kinds and channels not in (1, 3):
        raise DataError(f"augmentation color takes images of one channel or three, not of {channels}; leave it out")
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_STREAM, step)))
    # Raw words, as for the order of the images: NumPy promises these for good, but not what a Generator makes of them.
    words = bits.random_raw((count, 6))
    padding = (_margin(height), _margin(width)) if "crop" in kinds else (0, 0)
    choices = np.array([2 * side + 1 for side in padding], np.uint64)
    share = (words[:, 3:] >> np.uint64(11)).astype(np.float64) * 2.0**-53  # 53 bits: in [0, 1)
    return Draws(kinds, flip=(words[:, 0] >> np.uint64(63) == 1) & ("flip" in kinds),
                 corner=(words[:, 1:3] % choices).astype(np.int64),
                 factors=(1 - JITTER + 2 * JITTER * share).astype(np.float32), padding=padding, size=(height, width))


def _margin(side: int) -> int:
    return max(1, side // MARGIN)
