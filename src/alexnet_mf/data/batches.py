"""Order of the images and batches, drawn by NumPy from the seed, so equal in every backend; and batches of levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data.augmentation import Draws, cropped
from alexnet_mf.data.dataset import Images
from alexnet_mf.data.preprocessing import center_slices, enlarged, input_size
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Network

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


def read_batch(images: Images, rows: NDArray[np.int64], network: Network, draws: Draws | None = None) -> NDArray[Any]:
    """Return some images as the network's backends take them, cropped as drawn or at the center. Inputs that are ready
    for the network are only read.

    The device takes the changes that are left, `draws.after_crop()`.
    """
    if np.dtype(images.dtype) != np.uint8:
        return images[rows]
    some = (images[row] for row in rows.tolist())
    if draws and (draws.moved or draws.stored != draws.size):
        return enlarged(cropped(some, draws, images.shape[3:]), network)
    center = center_slices(images.shape[1:3], input_size(network))
    return enlarged(np.stack([image[center] for image in some]), network)
