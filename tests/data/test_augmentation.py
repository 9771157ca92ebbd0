"""The random draws of augmentations. `backends/test_augmentation.py` tests the changes to the images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from alexnet_mf.data import augmentation
from alexnet_mf.data.augmentation import AREA, PROPORTIONS, draw, part
from alexnet_mf.data.batches import read_batch
from alexnet_mf.errors import AlexnetMfError, DataError
from alexnet_mf.spec import Dense, Flatten, Network
from alexnet_mf.training.recipe import BOOK, Recipe

GRAY = (1, 28, 28)
KINDS = ("flip", "crop", "color")


def test_names_are_unique_and_in_order_of_application():
    assert augmentation.check(["color", "flip", "color"]) == ("flip", "color")
    assert augmentation.check([]) == ()


@pytest.mark.parametrize("name", ["flips", "", "none", "colour"])
def test_an_unknown_name_lists_the_known_ones(name):
    all_kinds = "known: flip, crop, resized-crop, color, pca, or none"
    with pytest.raises(AlexnetMfError, match=f"unknown augmentation '{name}'; {all_kinds}"):
        augmentation.check(["flip", name])


def test_a_recipe_checks_its_augmentations():
    recipe = Recipe("mine", 1, 1, BOOK.sgd, augment=["crop", "flip"])  # a list, as it comes from JSON
    assert recipe.augment == ("flip", "crop")
    assert BOOK.augment == ()
    with pytest.raises(AlexnetMfError, match="known: flip, crop, resized-crop, color, pca"):
        Recipe("mine", 1, 1, BOOK.sgd, augment=("blur",))


def test_without_augmentation_nothing_is_drawn():
    assert draw((), 0, 0, 8, GRAY) is None


def test_draws_are_a_function_of_seed_and_step():
    def bits(seed: int, step: int) -> bytes:
        drawn = draw(KINDS, seed, step, 64, GRAY)
        return drawn.flip.tobytes() + drawn.corner.tobytes() + drawn.factors.tobytes()

    assert bits(3, 5) == bits(3, 5)
    assert len({bits(seed, step) for seed in range(4) for step in range(4)}) == 16


def test_draws_are_pinned():
    """A run of another version of this program resumes with the same images."""
    drawn = draw(KINDS, seed=1, step=2, count=4, image=GRAY)
    assert drawn.flip.tolist() == [True, False, False, False]
    assert drawn.corner.tolist() == [[1, 3], [0, 2], [0, 2], [1, 1]]
    assert_array_equal(drawn.factors, np.array([
        [1.10750412940979, 1.2153129577636719, 0.610072135925293],
        [1.1422888040542603, 1.2886842489242554, 1.2812457084655762],
        [0.8938615322113037, 0.9063846468925476, 0.7823361158370972],
        [0.7446144819259644, 0.9237275719642639, 1.069726586341858]], np.float32))


def test_draws_of_one_augmentation_do_not_change_with_the_others():
    every = draw(KINDS, 0, 0, 64, GRAY)
    for kind in KINDS:
        alone = draw((kind,), 0, 0, 64, GRAY)
        assert_array_equal(alone.flip, every.flip if kind == "flip" else False)
        assert_array_equal(alone.corner, every.corner if kind == "crop" else 0)
        assert alone.padding == ((2, 2) if kind == "crop" else (0, 0))


def test_draws_are_uniform_and_uncorrelated():
    """Three standard deviations of the flip's share are 1 % at 20,000 images."""
    drawn = draw(KINDS, 0, 0, 20_000, (3, 28, 14))
    assert drawn.flip.mean() == pytest.approx(0.5, abs=0.011)
    for corners, choices in zip(drawn.corner.T, (5, 3)):  # 2 zeros above and below, 1 left and right
        assert_array_equal(np.unique(corners), np.arange(choices))
        assert np.bincount(corners) / 20_000 == pytest.approx(1 / choices, abs=0.011)
    assert (drawn.rows().shape, drawn.columns().shape) == ((20_000, 28), (20_000, 14))
    assert 0.6 <= drawn.factors.min() < 0.601
    assert 1.399 < drawn.factors.max() <= 1.4
    assert drawn.factors.mean(axis=0) == pytest.approx(1, abs=0.006)
    assert np.abs(np.corrcoef(np.column_stack([drawn.flip, drawn.corner, drawn.factors]).T) - np.eye(6)).max() < 0.03


def test_a_crop_is_the_papers_share_of_the_image():
    """224x224 out of 256x256: 16 pixels either way."""
    assert draw(("crop",), 0, 0, 1, (3, 224, 224)).padding == (16, 16)
    assert draw(("crop",), 0, 0, 1, (3, 5, 224)).padding == (1, 16), "and at least one pixel"


def test_the_papers_noise_has_its_own_numbers():
    colors = np.diag([0.2, 0.02, 0.004])
    drawn = draw(("flip", "pca"), 1, 2, 20_000, (3, 28, 28), colors=colors)
    assert_array_equal(drawn.flip, draw(("flip",), 1, 2, 20_000, (3, 28, 28)).flip)
    assert drawn.shifts.std(axis=0) == pytest.approx(0.1 * np.diag(colors), rel=0.02)
    assert drawn.shifts.mean(axis=0) == pytest.approx([0, 0, 0], abs=4e-4)
    assert_array_equal(drawn.shifts, draw(("pca",), 1, 2, 20_000, (3, 28, 28), colors=colors).shifts)
    assert not np.array_equal(drawn.shifts, draw(("pca",), 1, 3, 20_000, (3, 28, 28), colors=colors).shifts)
    with pytest.raises(DataError, match="pca takes images of three channels, not of 1"):
        draw(("pca",), 0, 0, 1, GRAY)


def test_two_ways_to_crop_are_refused():
    with pytest.raises(AlexnetMfError, match="crop and resized-crop are two ways to crop; use one"):
        augmentation.check(["crop", "resized-crop"])


def test_parts_of_a_picture_are_those_of_torchvision(requires):
    """The same shares of areas and proportions over 4,000 draws, in pictures that are wide, narrow and square."""
    requires("torch")
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    draws = draw(("resized-crop",), 0, 0, 4000, (3, 64, 64))
    torch.manual_seed(0)
    for width, height in ((300, 200), (60, 400), (64, 64)):
        ours = np.array([part(drawn, width, height) for drawn in draws.parts])
        assert (ours[:, :2] >= 0).all() and (ours[:, 2] <= width).all() and (ours[:, 3] <= height).all()
        chosen = [transforms.RandomResizedCrop.get_params(torch.empty(1, height, width), AREA, PROPORTIONS)
                  for _ in range(4000)]
        for mine, theirs in (((ours[:, 3] - ours[:, 1]), [high for _, _, high, _ in chosen]),
                             ((ours[:, 2] - ours[:, 0]), [wide for _, _, _, wide in chosen]),
                             (ours[:, 0], [left for _, left, _, _ in chosen]),
                             (ours[:, 1], [top for top, _, _, _ in chosen])):
            deciles = np.linspace(0.1, 0.9, 9)
            np.testing.assert_allclose(np.quantile(mine, deciles), np.quantile(theirs, deciles),
                                       atol=0.03 * max(width, height))


def test_a_resized_part_has_the_pixels_of_torchvision(requires):
    requires("torch")
    functional = pytest.importorskip("torchvision.transforms.functional")
    levels = np.random.default_rng(0).integers(0, 256, (3, 90, 130, 3), np.uint8)
    network = Network("color", (3, 40, 50), (Flatten("flatten"), Dense("fc1", units=2)))
    draws = draw(("flip", "resized-crop"), 3, 1, 3, (3, 90, 130), (40, 50))
    for image, row, drawn in zip(read_batch(levels, np.array([2, 0, 1]), network, draws), (2, 0, 1), draws.parts):
        left, top, right, bottom = part(drawn, 130, 90)
        theirs = functional.resized_crop(Image.fromarray(levels[row]), top, left, bottom - top, right - left, [40, 50])
        assert image.tobytes() == np.asarray(theirs).tobytes()
    assert draws.after_crop().kinds == ("flip",)


def test_color_takes_gray_or_three_channels():
    with pytest.raises(DataError, match="color takes images of one channel or three, not of 2"):
        draw(("color",), 0, 0, 1, (2, 28, 28))
    assert draw(("flip",), 0, 0, 1, (2, 28, 28)) is not None
