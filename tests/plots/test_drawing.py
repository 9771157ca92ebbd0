"""The pictures hold what they should, and nothing in them hides anything else."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from alexnet_mf.data import FASHION_CLASSES
from alexnet_mf.evaluation import Evaluation, Mistake
from alexnet_mf.plots import drawing
from alexnet_mf.predict import Prediction

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 28, 28)).astype(np.uint8)


def texts(figure):
    """Every visible text and its box, in pixels."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    hidden = {label for panel in figure.findobj(lambda artist: hasattr(artist, "xaxis")) if not panel.axison
              for axis in (panel.xaxis, panel.yaxis) for label in axis.findobj(Text)}
    return [(text.get_text(), text.get_window_extent(renderer)) for text in figure.findobj(Text)
            if text.get_text() and text.get_visible() and text not in hidden]


def check_legible(figure):
    """No text lies over another, or beyond the edge."""
    found = texts(figure)
    for text, box in found:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (text, box), (other, its) in itertools.combinations(found, 2):
        if box.height and its.height:
            # Boxes of slanted texts overlap, their letters do not.
            slanted = box.height > 30 and its.height > 30 and "\n" not in text + other
            assert slanted or not box.overlaps(its), f"{text!r} lies over {other!r}"
    return [text for text, _ in found]


def check_grey(figure):
    """Colours carry nothing: there are none."""
    pixels = np.asarray(Image.open(io.BytesIO(drawing.png(figure))).convert("RGB"), int)
    assert np.ptp(pixels, axis=2).max() <= 2


def predictions(count, top=3):
    return [Prediction(f"some/folder/{i:02}-{'long' * (i % 9)}.png", [9, 0, 8][:top], [0.99999, 0.0312, 1e-6][:top],
                       IMAGES[i % 40]) for i in range(count)]


@pytest.mark.parametrize("count, top", [(1, 3), (2, 1), (6, 3), (7, 2), (90, 3)])
def test_a_contact_sheet(count, top):
    figure = drawing.contact_sheet(predictions(count, top), FASHION_CLASSES)
    found = check_legible(figure)
    check_grey(figure)
    assert len(found) == min(count, drawing.MOST_ON_SHEET)
    assert found[0] == "\n".join(["00-.png", "ankle boot >99.9 %", "t-shirt 3.1 %", "bag <0.1 %"][:top + 1])
    assert all(len(line) <= drawing.LONGEST_NAME for text in found for line in text.split("\n")[:1])


def test_long_names_of_classes_are_cut():
    names = ["the quick brown fox jumps over the lazy dog"] * 10
    check_legible(drawing.contact_sheet(predictions(12), names))
    assert "the quick b..." in check_legible(drawing.evaluation(judged(), IMAGES, names))


def test_a_name_from_outside_is_no_formula_and_no_box():
    (given,) = predictions(1)
    name = "a$\\frac{$\x1b[2J\n.png"
    found = texts(drawing.contact_sheet([Prediction(name, *list(vars(given).values())[1:])], FASHION_CLASSES))
    assert found[0][0].startswith("a$\\frac{$?[2J?.png\n")


def judged(mistakes=30, classes=10):
    confusion = np.random.default_rng(0).integers(0, 30, (classes, classes)) + np.eye(classes, dtype=int) * 900
    confusion[3] = 0  # of one class there is no image
    confusion[4, 5] = 0
    return Evaluation(0.3, confusion, [Mistake(i % 40, i % classes, (i + 1) % classes, 0.99 - i / 100)
                                       for i in range(mistakes)])


@pytest.mark.parametrize("mistakes", [30, 7, 1, 0])
def test_an_evaluation(mistakes):
    found = judged(mistakes)
    figure = drawing.evaluation(found, IMAGES, FASHION_CLASSES)
    said = check_legible(figure)
    check_grey(figure)
    assert f"accuracy {found.accuracy:.3f} on {found.images:,} images" in said
    assert "dress" in said and f"t-shirt {found.class_accuracy[0] * 100:.0f} %" in said
    assert said.count(f"{found.confusion[0, 0]:,}") >= 1
    assert sum(text.startswith("t-shirt\nnot trouser\n") for text in said) == len(range(0, mistakes, 10))
    assert ("no mistakes" in said) == (mistakes == 0)


def test_an_evaluation_of_many_classes():
    """More names than can be read are left out."""
    names = [f"class {i}" for i in range(30)]
    said = check_legible(drawing.evaluation(judged(12, 30), IMAGES, names))
    assert not [text for text in said if text.isdecimal() and int(text) > 900]
