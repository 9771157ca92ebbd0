"""Contact sheets and evaluation plots: complete, legible and gray."""

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


def find_texts(figure):
    """Return every visible text and its box, in pixels."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    hidden = {label for panel in figure.findobj(lambda artist: hasattr(artist, "xaxis")) if not panel.axison
              for axis in (panel.xaxis, panel.yaxis) for label in axis.findobj(Text)}
    return [(text.get_text(), text.get_window_extent(renderer)) for text in figure.findobj(Text)
            if text.get_text() and text.get_visible() and text not in hidden]


def check_legible(figure):
    """Check that no text overlaps another text or the edge. Return the texts."""
    boxes = find_texts(figure)
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        if box.height and other_box.height:
            # Boxes of slanted texts overlap; their letters do not.
            slanted = box.height > 30 and other_box.height > 30 and "\n" not in text + other
            assert slanted or not box.overlaps(other_box), f"{text!r} lies over {other!r}"
    return [text for text, _ in boxes]


def check_gray(figure):
    """Check that every pixel is gray."""
    pixels = np.asarray(Image.open(io.BytesIO(drawing.png(figure))).convert("RGB"), int)
    assert np.ptp(pixels, axis=2).max() <= 2


def predictions(count, top=3):
    return [Prediction(f"some/folder/{i:02}-{'long' * (i % 9)}.png", [9, 0, 8][:top], [0.99999, 0.0312, 1e-6][:top],
                       IMAGES[i % 40]) for i in range(count)]


@pytest.mark.parametrize("count, top", [(1, 3), (2, 1), (6, 3), (7, 2), (90, 3)])
def test_a_contact_sheet_is_legible_and_gray(count, top):
    figure = drawing.contact_sheet(predictions(count, top), FASHION_CLASSES)
    texts = check_legible(figure)
    check_gray(figure)
    assert len(texts) == min(count, drawing.MOST_ON_SHEET)
    assert texts[0] == "\n".join(["00-.png", "ankle boot >99.9 %", "t-shirt 3.1 %", "bag <0.1 %"][:top + 1])
    assert all(len(line) <= drawing.LONGEST_NAME for text in texts for line in text.split("\n")[:1])


def test_long_names_of_classes_are_cut():
    names = ["the quick brown fox jumps over the lazy dog"] * 10
    check_legible(drawing.contact_sheet(predictions(12), names))
    assert "the quick b..." in check_legible(drawing.evaluation(make_evaluation(), IMAGES, names))


def test_a_file_name_is_drawn_as_plain_text():
    (prediction,) = predictions(1)
    name = "a$\\frac{$\x1b[2J\n.png"
    texts = find_texts(drawing.contact_sheet([Prediction(name, *list(vars(prediction).values())[1:])], FASHION_CLASSES))
    assert texts[0][0].startswith("a$\\frac{$?[2J?.png\n")


def make_evaluation(mistakes=30, classes=10):
    confusion = np.random.default_rng(0).integers(0, 30, (classes, classes)) + np.eye(classes, dtype=int) * 900
    confusion[3] = 0  # class 3 has no images
    confusion[4, 5] = 0
    return Evaluation(0.3, confusion, [Mistake(i % 40, i % classes, (i + 1) % classes, 0.99 - i / 100)
                                       for i in range(mistakes)])


@pytest.mark.parametrize("mistakes", [30, 7, 1, 0])
def test_an_evaluation_is_legible_and_gray(mistakes):
    evaluation = make_evaluation(mistakes)
    figure = drawing.evaluation(evaluation, IMAGES, FASHION_CLASSES)
    texts = check_legible(figure)
    check_gray(figure)
    assert f"accuracy {evaluation.accuracy:.3f} on {evaluation.images:,} images" in texts
    assert "dress" in texts and f"t-shirt {evaluation.class_accuracy[0] * 100:.0f} %" in texts
    assert texts.count(f"{evaluation.confusion[0, 0]:,}") >= 1
    assert sum(text.startswith("t-shirt\nnot trouser\n") for text in texts) == len(range(0, mistakes, 10))
    assert ("no mistakes" in texts) == (mistakes == 0)


def test_counts_of_many_classes_are_left_out():
    names = [f"class {i}" for i in range(30)]
    texts = check_legible(drawing.evaluation(make_evaluation(12, 30), IMAGES, names))
    assert not [text for text in texts if text.isdecimal() and int(text) > 900]
