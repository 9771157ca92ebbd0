"""Photographs inside the wheel of scikit-image, as pictures of many sizes in class folders."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png",
               "retina.jpg", "rocket.jpg")
"""Files of the folder `skimage/data` that are photographs in color."""


@functools.cache
def photograph(name: str) -> Image.Image:
    """Return a photograph. The package is not imported, which takes a second."""
    spec = importlib.util.find_spec("skimage")
    assert spec and spec.submodule_search_locations, "pip install scikit-image"
    with Image.open(Path(spec.submodule_search_locations[0]) / "data" / name) as image:
        return image.convert("RGB")


def write(folder: Path, count: int, sides: tuple[int, int] = (40, 400), classes: int = 4,
          parts: tuple[str, ...] = ("train", "test"), seed: int = 0) -> Path:
    """Write this many JPEG files for each part: random parts of photographs, of random sizes between two sides.

    A class is a photograph. Training and test pictures come from different halves of it.
    """
    generator = np.random.default_rng(seed)
    for place, part in enumerate(parts):
        for number in range(count):
            image = photograph(PHOTOGRAPHS[number % classes])
            half = image.crop((place * image.width // len(parts), 0, (place + 1) * image.width // len(parts),
                               image.height))
            width, height = (int(side) for side in generator.integers(*sides, 2, endpoint=True))
            share = generator.uniform(0.5, 1, 2)
            box = [int(side * part) for side, part in zip(half.size, share)]
            left, top = (int(generator.integers(0, side - inner + 1)) for side, inner in zip(half.size, box))
            picture = half.resize((width, height), Image.Resampling.BICUBIC,
                                  box=(left, top, left + box[0], top + box[1]))
            path = folder / part / PHOTOGRAPHS[number % classes].partition(".")[0] / f"{number:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, quality=90)
    return folder
