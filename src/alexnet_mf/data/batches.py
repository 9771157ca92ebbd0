"""Order of the images and batches, drawn by NumPy from the seed, so equal in every backend; and batches of levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data.augmentation import Draws, cropped, part
from alexnet_mf.data.dataset import Images, LabeledImages, full_size
from alexnet_mf.data.preprocessing import center_slices, enlarged, input_size
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Network
from alexnet_mf.spec.preprocessing import center

_STREAM = 0x0BDE5  # keeps these draws apart from all others of the same seed


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits the images: a permutation of 0 to n - 1, (n,).

    It depends on the arguments alone, so a resumed run needs no stored state.

    Args:
        seed: any non-negative whole number.
        epoch: counted from 0.
    """
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_STREAM, epoch)))
    # Sorting raw words, not Generator.permutation: NumPy promises the stream of a bit generator for good, but may
    # change what a Generator makes of it.
    return np.argsort(bits.random_raw(n), kind="stable").astype(np.int64)


def batches(order: NDArray[np.int64], batch_size: int) -> Sequence[NDArray[np.int64]]:
    """Cut the order into batches of `batch_size` images; the last batch may be shorter.

    Raises:
        DataError: if the batch size is below 1.
    """
    if batch_size < 1:
        raise DataError(f"the batch size must be at least 1, not {batch_size}")
    return [order[start:start + batch_size] for start in range(0, len(order), batch_size)]


@dataclass(frozen=True, eq=False)
class View:
    """The same crop of all images, read when it is used."""

    images: Images
    corner: tuple[int, int]
    """Row and column of the crop's first pixel."""
    size: tuple[int, int]
    """(height, width) of the crop."""
    is_mirrored: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, as of an array."""
        return (len(self.images), *self.size, *self.images.shape[3:])

    @property
    def dtype(self) -> Any:
        """Type of the levels."""
        return self.images.dtype

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        (top, left), (height, width) = self.corner, self.size
        levels = self.images[rows]
        first = levels.ndim - len(self.images.shape) + 1  # the axis of rows: 0 for a single image
        backward = slice(left + width - 1, left - 1 if left else None, -1)
        across = backward if self.is_mirrored else slice(left, left + width)
        return levels[(slice(None),) * first + (slice(top, top + height), across)]


def ten_crops(images: LabeledImages, network: Network) -> list[LabeledImages]:
    """Return four corners and the center of the images, and their mirror images (Krizhevsky et al. 2012, section 4.1).

    Raises:
        DataError: if the images have no margin around the network's input.
    """
    stored, size = images.images.shape[1:3], input_size(network)
    margin = stored[0] - size[0], stored[1] - size[1]
    if np.dtype(images.images.dtype) != np.uint8 or min(margin) < 0 or not any(margin):
        raise DataError(f"`ten_crop` needs pictures larger than the input of {network.name}, {size[0]}x{size[1]}; "
                        "leave it "
                        "out")
    corners = [(0, 0), (0, margin[1]), (margin[0], 0), margin,
               (center(stored[0], size[0]), center(stored[1], size[1]))]
    return [replace(images, images=View(images.images, corner, size, is_mirrored))
            for is_mirrored in (False, True) for corner in corners]


def read_batch(images: Images, rows: NDArray[np.int64], network: Network, draws: Draws | None = None) -> NDArray[Any]:
    """Return some images as the network's backends take them, cropped as drawn or at the center. Inputs that are ready
    for the network are only read.

    The device takes the changes that are left, `draws.after_crop()`.
    """
    if np.dtype(images.dtype) != np.uint8:
        return images[rows]
    if draws and "resized-crop" in draws.kinds:
        return np.stack([_resized_part(images, row, drawn, network) for row, drawn in zip(rows.tolist(), draws.parts)])
    some = (images[row] for row in rows.tolist())
    if draws and (draws.moved or draws.stored != draws.size):
        return enlarged(cropped(some, draws, images.shape[3:]), network)
    kept = center_slices(images.shape[1:3], input_size(network))
    return enlarged(np.stack([image[kept] for image in some]), network)


def _resized_part(images: Images, row: int, drawn: NDArray[np.float64], network: Network) -> NDArray[np.uint8]:
    """Return a random part of a picture, resized to the network's input."""
    from PIL import Image

    picture = full_size(images, row)
    height, width = input_size(network)
    return np.asarray(picture.crop(part(drawn, *picture.size)).resize((width, height), Image.Resampling.BILINEAR))
