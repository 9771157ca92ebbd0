"""Ten classes of garments drawn by the program: a dataset that needs no download and no files.

Each image is drawn in its garment's own coordinates: u to the right and v down, both from -1 to 1 across the image,
after that image's own shift, size, slant and mirroring. A garment consists of shapes. A shape is an array of each
pixel's distance from the shape's edge (negative outside), so minimum and maximum are intersection and union.

The bits are the same on every machine and with every NumPy: random numbers come from raw words of PCG64, and arithmetic
is limited to operations that IEEE 754 rounds in one way only (+ - * /, square root, comparison, floor), element by
element, in float32. No sine, no exponential, no matrix product, no sum along an axis.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from alexnet_mf.data.dataset import Dataset, LabeledImages
from alexnet_mf.data.downloads import Progress
from alexnet_mf.data.sources.fashion_mnist import FASHION_CLASSES
from alexnet_mf.errors import DataError

SIZE = 28

_STREAM = 0x5F47  # keeps these draws apart from all others of the same seed
_BLOCK = 32  # images drawn at once: their arrays stay in the processor's cache, and below malloc's mmap threshold

Field: TypeAlias = NDArray[np.float32]
"""One number per pixel, (images, 28, 28), or per image, (images, 1, 1)."""
Number: TypeAlias = float | Field
Mask: TypeAlias = NDArray[np.bool_]


def _field(x: Number | NDArray[np.float32]) -> Field:
    """Return one number per image as an array: on float32 scalars, NumPy 1 and 2 round differently."""
    return np.asarray(x, np.float32).reshape(-1, 1, 1)


class _Draws:
    """Source of random numbers, one for each image of a block, as (images, 1, 1)."""

    def __init__(self, bits: np.random.PCG64, images: int) -> None:
        self._bits = bits
        self._images = images

    def uniform(self, low: float, high: float) -> Field:
        words = self._bits.random_raw(self._images) >> np.uint64(40)  # 24 bits: exact in float32
        unit = words.astype(np.float32) * np.float32(2**-24)
        return _field(np.float32(low) + unit * np.float32(high - low))

    def chance(self, probability: float) -> Mask:
        return self.uniform(0, 1) < np.float32(probability)

    def noise(self) -> Field:
        """Return noise for each pixel, from -1 to 1, most often near 0: the difference of two random bytes."""
        words = self._bits.random_raw(self._images * SIZE * SIZE // 4).astype("<u8")  # the same bytes on any machine
        octets = words.view(np.uint8).reshape(2, self._images, SIZE, SIZE).astype(np.float32)
        noise: Field = (octets[0] - octets[1]) / 255
        return noise


# Shapes


def _polygon(u: Field, v: Field, *corners: tuple[Number, Number]) -> Field:
    """Return a convex polygon, its corners clockwise as seen."""
    points = [(_field(x), _field(y)) for x, y in corners]
    edges = []
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        dx, dy = x1 - x0, y1 - y0
        length = np.sqrt(dx * dx + dy * dy)
        dx, dy = dx / length, dy / length
        edges.append(dx * v - dy * u - (dx * y0 - dy * x0))
    return _both(*edges)


def _box(u: Field, v: Field, left: Number, top: Number, right: Number, bottom: Number) -> Field:
    return _both(u - left, right - u, v - top, bottom - v)


def _limb(u: Field, v: Field, start: tuple[Number, Number], end: tuple[Number, Number], radius: Number) -> Field:
    """Return a thick line with round ends."""
    (x, y), dx, dy = start, _field(end[0]) - start[0], _field(end[1]) - start[1]
    from_u, from_v = u - x, v - y
    along = np.clip((from_u * dx + from_v * dy) / (dx * dx + dy * dy), 0, 1)
    off_u, off_v = from_u - along * dx, from_v - along * dy
    inside: Field = radius - np.sqrt(off_u * off_u + off_v * off_v)
    return inside


def _ellipse(u: Field, v: Field, center: tuple[Number, Number], radii: tuple[Number, Number]) -> Field:
    wide, high = _field(radii[0]), _field(radii[1])
    across, down = (u - center[0]) / wide, (v - center[1]) / high
    inside: Field = (1 - np.sqrt(across * across + down * down)) * np.minimum(wide, high)
    return inside


def _both(*shapes: Field) -> Field:
    return reduce(np.minimum, shapes)


def _any(*shapes: Field) -> Field:
    return reduce(np.maximum, shapes)


def _cut(shape: Field, hole: Field) -> Field:
    return np.minimum(shape, -hole)


def _sometimes(draw: _Draws, probability: float, shape: Field) -> Field:
    """Return the shape in some of the images, and no shape in the others."""
    return np.where(draw.chance(probability), shape, np.float32(-9))


def _covered(shape: Field) -> Field:
    """Return the share of each pixel that the shape covers, 0 to 1; the edge is one pixel wide."""
    share: Field = np.clip(shape * (SIZE / 2) + 0.5, 0, 1)
    return share


def _where(mask: Mask, yes: Number, no: Number) -> Field:
    return np.where(mask, np.asarray(yes, np.float32), np.asarray(no, np.float32))


def _wave(x: Field) -> Field:
    """Return a triangle wave of period 1, from -1 to 1."""
    wave: Field = np.abs(x - np.floor(x) - 0.5) * 4 - 1
    return wave


# Garments: each function returns the shape, and the shade of its parts relative to the cloth (1).


def _torso(u: Field, v: Field, shoulder: Number, waist: Number, hem: Number, bottom: Number, neck: Number) -> Field:
    """Return a symmetrical torso from the shoulders down, with a round neck."""
    side = np.abs(u)
    middle = bottom * 0.35
    upper = _polygon(side, v, (-0.2, -0.78), (0.14, -0.78), (shoulder, -0.62), (waist, middle), (-0.2, middle))
    lower = _polygon(side, v, (-0.2, middle - 0.05), (waist, middle - 0.05), (hem, bottom), (-0.2, bottom))
    return _cut(_any(upper, lower), _ellipse(u, v, (0.0, -0.82), (0.17, neck)))


def _sleeves(u: Field, v: Field, shoulder: Number, reach: Number, down: Number, width: Number) -> Field:
    """Return a pair of sleeves, from the shoulders to the hands at (+-reach, down)."""
    return _limb(np.abs(u), v, (shoulder - 0.06, -0.46), (reach, down), width)


def _t_shirt(draw: _Draws, u: Field, v: Field) -> tuple[Field, Field]:
    shoulder, body = draw.uniform(0.36, 0.48), draw.uniform(0.32, 0.44)
    bottom = draw.uniform(0.62, 0.9)
    torso = _torso(u, v, shoulder, body, body + draw.uniform(-0.03, 0.06), bottom, draw.uniform(0.08, 0.24))
    sleeves = _sleeves(u, v, shoulder, draw.uniform(0.6, 0.82), draw.uniform(-0.36, 0.0), draw.uniform(0.12, 0.19))
    size = draw.uniform(0.08, 0.24)
    print_ = _ellipse(u, v, (0.0, draw.uniform(-0.3, 0.0)), (size, size * draw.uniform(0.6, 1.2)))
    shade = 1 + _covered(print_) * _where(draw.chance(0.4), draw.uniform(-0.6, 0.5), 0)
    return _any(torso, sleeves), shade


def _trouser(draw: _Draws, u: Field, v: Field) -> tuple[Field, Field]:
    waist, hip, ankle = draw.uniform(0.2, 0.32), draw.uniform(0.26, 0.4), draw.uniform(0.12, 0.24)
    crotch, spread, bottom = draw.uniform(-0.4, -0.15), draw.uniform(0.0, 0.12), draw.uniform(0.75, 0.95)
    side = np.abs(u)
    top = _polygon(side, v, (-0.2, -0.9), (waist, -0.9), (hip, crotch), (-0.2, crotch + 0.08))
    leg = _polygon(side, v, (0.0, crotch), (hip, crotch - 0.02), (spread + ankle, bottom), (spread + 0.03, bottom))
    belt = 1 - _covered(_box(u, v, -1, -1, 1, -0.8)) * draw.uniform(-0.3, 0.5)
    return _any(top, leg), belt


def _pullover(draw: _Draws, u: Field, v: Field) -> tuple[Field, Field]:
    shoulder, body, bottom = draw.uniform(0.36, 0.46), draw.uniform(0.32, 0.44), draw.uniform(0.62, 0.85)
    torso = _torso(u, v, shoulder, body, body, bottom, draw.uniform(0.05, 0.14))
    reach, down = draw.uniform(0.56, 0.84), draw.uniform(0.3, 0.7)
    sleeves = _sleeves(u, v, shoulder, reach, down, draw.uniform(0.1, 0.15))
    seam = _covered(_both(0.035 - np.abs(np.abs(u) - body - 0.03), v + 0.15))
    ribs = _covered(np.maximum(v - bottom + 0.12, 0.1 + _ellipse(u, v, (0.0, -0.82), (0.17, 0.14))))
    return _any(torso, sleeves), 1 - seam * 0.5 - ribs * draw.uniform(-0.1, 0.4)


def _dress(draw: _Draws, u: Field, v: Field) -> tuple[Field, Field]:
    shoulder, waist, hem = draw.uniform(0.2, 0.34), draw.uniform(0.16, 0.27), draw.uniform(0.24, 0.56)
    bottom = draw.uniform(0.8, 0.97)
    torso = _torso(u, v, shoulder, waist, hem, bottom, draw.uniform(0.08, 0.3))
    reach, down = shoulder + draw.uniform(0.05, 0.28), draw.uniform(-0.3, 0.25)
    sleeves = _sleeves(u, v, shoulder, reach, down, draw.uniform(0.07, 0.12))
    belt = _covered(0.05 - np.abs(v - draw.uniform(-0.05, 0.3))) * draw.uniform(-0.4, 0.5)
    return _any(torso, _sometimes(draw, 0.5, sleeves)), 1 - belt


def _coat(draw: _Draws, u: Field, v: Field) -> tuple[Field, Field]:
    shoulder, body, bottom = draw.uniform(0.36, 0.48), draw.uniform(0.32, 0.44), draw.uniform(0.7, 0.96)
    torso = _torso(u, v, shoulder, body, body + draw.uniform(0.0, 0.1), bottom, draw.uniform(0.06, 0.16))
    sleeves = _sleeves(u, v, shoulder, draw.uniform(0.56, 0.8), draw.uniform(0.3, 0.7), draw.uniform(0.11, 0.16))
    opening = _covered(0.035 - np.abs(u - draw.uniform(-0.08, 0.08)))
    lapels = _covered(_polygon(np.abs(u), v, (-0.1, -0.8), (0.16, -0.8), (0.2, -0.55), (0.0, draw.uniform(-0.35, 0.1))))
    seam = _covered(_both(0.035 - np.abs(np.abs(u) - body - 0.03), v + 0.15))
    shade = 1 - opening * draw.uniform(0.3, 0.9) - lapels * draw.uniform(-0.3, 0.45) - seam * 0.5
    return _any(torso, sleeves), shade


def _shirt(draw: _Draws, u: Field, v: Field) -> tuple[Field, Field]:
    shoulder, body, bottom = draw.uniform(0.36, 0.47), draw.uniform(0.3, 0.43), draw.uniform(0.62, 0.92)
    torso = _torso(u, v, shoulder, body, body + draw.uniform(-0.03, 0.06), bottom, draw.uniform(0.06, 0.18))
    short = draw.chance(0.3)
    reach = _where(short, draw.uniform(0.6, 0.78), draw.uniform(0.54, 0.82))
    down = _where(short, draw.uniform(-0.3, 0.0), draw.uniform(0.3, 0.7))
    sleeves = _sleeves(u, v, shoulder, reach, down, draw.uniform(0.09, 0.15))
    placket = _both(0.07 - np.abs(u), v + 0.6)
    buttons = _covered(_both(placket, _wave(v * draw.uniform(3.2, 4.5)) * 0.1))
    collar = _covered(_limb(np.abs(u), v, (0.03, -0.56), (0.2, -0.76), 0.07))
    shade = 1 + _covered(placket) * draw.uniform(0.05, 0.35) - buttons * draw.uniform(0.4, 0.9)
    return _any(torso, sleeves), shade - collar * draw.uniform(0.1, 0.6)


def _sandal(draw: _Draws, u: Field, v: Field) -> tuple[Field, Field]:
    heel, thick, back = draw.uniform(0.0, 0.6), draw.uniform(0.05, 0.1), draw.uniform(0.6, 0.8)
    floor = draw.uniform(0.4, 0.6)
    arch = floor - heel
    sole = _any(_limb(u, v, (-0.85, floor), (-0.3, floor), thick), _limb(u, v, (-0.3, floor), (back, arch), thick))
    ground = floor + thick
    post = _polygon(u, v, (back - 0.16, arch), (back + 0.04, arch), (back + 0.02, ground), (back - 0.1, ground))
    rise = draw.uniform(0.25, 0.45)
    toe = _limb(u, v, (-0.75, floor), (draw.uniform(-0.5, -0.25), floor - rise), draw.uniform(0.05, 0.1))
    over = _limb(u, v, (-0.15, floor - heel * 0.25), (-0.5, floor - 0.38), draw.uniform(0.04, 0.1))
    top = arch - draw.uniform(0.3, 0.55)
    buckle = (back - 0.45, top + 0.1)
    ankle = _any(_limb(u, v, (back, arch), (back - 0.02, top), 0.05), _limb(u, v, (back, top), buckle, 0.05))
    instep = _limb(u, v, buckle, (-0.2, floor - 0.05), 0.05)
    shape = _any(sole, post, toe, _sometimes(draw, 0.7, over))
    shape = _any(shape, _sometimes(draw, 0.65, ankle), _sometimes(draw, 0.4, instep))
    return shape, 1 - _covered(sole) * draw.uniform(-0.3, 0.5)


def _sneaker(draw: _Draws, u: Field, v: Field) -> tuple[Field, Field]:
    floor, top, thick = draw.uniform(0.36, 0.5), draw.uniform(-0.38, -0.1), draw.uniform(0.08, 0.18)
    tongue = draw.uniform(-0.02, 0.2)
    toe = _ellipse(u, v, (-0.5, floor), (0.42, draw.uniform(0.28, 0.4)))
    collar = tongue + 0.2
    upper = _polygon(u, v, (-0.6, floor - 0.26), (tongue, top), (collar, top - 0.02), (0.85, floor), (-0.8, floor))
    back = top + draw.uniform(-0.06, 0.1)
    heel = _polygon(u, v, (tongue + 0.1, top + 0.12), (0.78, back), (0.88, floor), (0.0, floor))
    upper = _any(_both(toe, floor - v), upper, heel)
    sole = _box(u, v, -0.92, floor - 0.02, 0.9, floor + thick)
    front = _polygon(u, v, (-0.5, floor - 0.34), (tongue, top), (tongue + 0.05, top + 0.28), (-0.35, floor - 0.1))
    laces = _covered(_both(front, _wave(u * draw.uniform(4, 6)) * 0.1))
    flash = _covered(_limb(u, v, (-0.2, floor - 0.1), (draw.uniform(0.3, 0.6), draw.uniform(0.0, 0.2)), 0.06))
    shade = 1 - laces * draw.uniform(0.2, 0.7) + flash * draw.uniform(-0.5, 0.4)
    return _any(upper, sole), shade + _covered(sole) * draw.uniform(-0.5, 0.5)


def _bag(draw: _Draws, u: Field, v: Field) -> tuple[Field, Field]:
    top, bottom = draw.uniform(-0.4, 0.05), draw.uniform(0.5, 0.85)
    wide, narrow = draw.uniform(0.5, 0.88), draw.uniform(0.42, 0.84)
    body = _polygon(u, v, (-narrow, top), (narrow, top), (wide, bottom), (-wide, bottom))
    across, up, thick = narrow * draw.uniform(0.45, 0.95), draw.uniform(0.25, 0.6), draw.uniform(0.08, 0.13)
    handle = _cut(_ellipse(u, v, (0.0, top), (across, up)), _ellipse(u, v, (0.0, top), (across - thick, up - thick)))
    handle = _sometimes(draw, 0.85, _both(handle, top - v))
    fold = top + (bottom - top) * draw.uniform(0.25, 0.6)
    edge = _sometimes(draw, 0.6, _both(0.04 - np.abs(v - fold), body))
    flap = _covered(edge) * draw.uniform(0.2, 0.7)
    clasp = _covered(_box(u, v, -0.1, fold - 0.08, 0.1, fold + 0.08)) * draw.uniform(-0.6, 0.6)
    return _any(body, handle), 1 - flap + clasp


def _ankle_boot(draw: _Draws, u: Field, v: Field) -> tuple[Field, Field]:
    floor, heel, top = draw.uniform(0.55, 0.75), draw.uniform(0.06, 0.28), draw.uniform(-0.9, -0.45)
    front, back = draw.uniform(-0.15, 0.08), draw.uniform(0.6, 0.8)
    tilt = draw.uniform(-0.05, 0.05)
    shaft = _polygon(u, v, (front + 0.04, top), (back, top + tilt), (back, floor), (front - 0.12, floor))
    toe = _both(_ellipse(u, v, (-0.45, floor), (0.42, draw.uniform(0.26, 0.4))), floor - v)
    instep = (front, floor - 0.55)
    vamp = _polygon(u, v, (-0.5, floor - 0.24), instep, (back, floor - 0.5), (back, floor), (-0.5, floor))
    sole = _box(u, v, -0.86, floor - 0.02, back, floor + 0.08)
    block = _box(u, v, back - draw.uniform(0.16, 0.36), floor, back + 0.02, floor + 0.04 + heel)
    zipper = _covered(_both(0.035 - np.abs(u - (front + back) / 2), floor - 0.25 - v))
    shade = 1 - zipper * draw.uniform(-0.2, 0.6) + _covered(_any(sole, block)) * draw.uniform(-0.6, 0.3)
    return _any(shaft, toe, vamp, sole, block), shade


_GARMENTS: tuple[Callable[[_Draws, Field, Field], tuple[Field, Field]], ...] = (
    _t_shirt, _trouser, _pullover, _dress, _coat, _sandal, _shirt, _sneaker, _bag, _ankle_boot)


def _draw(label: int, images: int, bits: np.random.PCG64) -> NDArray[np.uint8]:
    """Draw images of one class, (images, 28, 28)."""
    draw = _Draws(bits, images)
    pixels = (np.arange(SIZE, dtype=np.float32) - np.float32((SIZE - 1) / 2)) * np.float32(2 / SIZE)
    x, y = pixels.reshape(1, 1, -1), pixels.reshape(1, -1, 1)

    size = draw.uniform(0.78, 1.06)
    y_own = (y - draw.uniform(-0.12, 0.12)) / (size * draw.uniform(0.92, 1.06))
    u = (x - draw.uniform(-0.14, 0.14)) / (size * draw.uniform(0.88, 1.08)) + draw.uniform(-0.14, 0.14) * y_own
    v = y_own + draw.uniform(-0.1, 0.1) * u
    u = u * _where(draw.chance(0.3), -1, 1)  # which way a shoe points
    shape, shade = _GARMENTS[label](draw, u, v)

    turn = draw.uniform(0, 1)
    across = _where(draw.chance(0.5), turn * u + (1 - turn) * v, v)  # half of the patterns are level stripes
    stripes = _wave(across * draw.uniform(1.5, 5)) * _where(draw.chance(0.5), draw.uniform(0.1, 0.55), 0)
    folds = _wave(u * draw.uniform(0.3, 0.9) + v * draw.uniform(-0.5, 0.5) + turn) * draw.uniform(0.0, 0.2)
    cloth = draw.uniform(0.22, 1.0) * shade * (1 + stripes) * (1 + folds) + draw.noise() * draw.uniform(0.02, 0.2)
    gray = _covered(shape) * np.clip(cloth, 0.03, 1)
    levels: NDArray[np.uint8] = np.floor(gray * 255 + 0.5).astype(np.uint8)
    return levels


def _split(seed: int, split: int, count: int) -> LabeledImages:
    """Draw `count` images in random order; the classes' counts differ by 1 at most."""
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_STREAM, split)))
    # Sorting raw words, as in batches.epoch_order: every version of NumPy shuffles alike.
    labels = (np.argsort(bits.random_raw(count), kind="stable") % len(FASHION_CLASSES)).astype(np.int64)
    images = np.empty((count, SIZE, SIZE), np.uint8)
    for label in range(len(FASHION_CLASSES)):
        rows = np.flatnonzero(labels == label)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start:start + _BLOCK]
            images[block] = _draw(label, len(block), bits)
    return LabeledImages(images, labels)


def load(data_dir: Path | None = None, *, seed: int = 0, progress: Progress | None = None) -> Dataset:
    """Return the synthetic set of this seed, in its usual size.

    Raises:
        DataError: if a folder is named, or the seed is negative.
    """
    if data_dir is not None:
        raise DataError(f"the synthetic set is drawn, not read from {data_dir}; leave out `data` or `data_dir`")
    return draw(seed)


def draw(seed: int = 0, train: int = 12_800, test: int = 2_000) -> Dataset:
    """Draw the synthetic set: the same bits for the same arguments, everywhere.

    Classes are balanced. Training and test images come from separate streams of random numbers.

    Args:
        seed: any non-negative whole number.
        train, test: number of images, at least 1.

    Raises:
        DataError: if a number is out of range.
    """
    if seed < 0 or min(train, test) < 1:
        raise DataError(f"the synthetic set needs a seed of at least 0 and at least 1 image in each part, "
                        f"not seed {seed}, {train} for training and {test} for testing")
    return Dataset("synthetic", _split(seed, 0, train), _split(seed, 1, test), FASHION_CLASSES,
                   f"synthetic garments drawn with seed {seed}")
