"""The record of a preprocessing: it survives JSON, describes itself, and refuses wrong values by name."""

from __future__ import annotations

import dataclasses
import json

import pytest

from alexnet_mf.errors import SpecError
from alexnet_mf.spec import Preprocessing
from alexnet_mf.spec.preprocessing import CAFFE, FASHION_MNIST, IMAGENET, UNIT

STRETCHED = Preprocessing("rgb", resize=(32, 48), invert=True, scale=2, std=(1, 2, 3))


@pytest.mark.parametrize("record", [FASHION_MNIST, IMAGENET, CAFFE, STRETCHED, Preprocessing("gray")])
def test_a_record_survives_json(record):
    fields = json.loads(json.dumps(record.as_dict()))
    assert fields == record.as_dict()
    again = Preprocessing.from_dict(fields)
    assert again == record and hash(again) == hash(record)


def test_a_missing_key_has_its_default():
    assert Preprocessing.from_dict({"color": "gray", "resize": [28, 28], "fit": True}) == FASHION_MNIST


def test_the_description_names_every_step():
    assert FASHION_MNIST.describe() == "gray; resized to fit 28x28, centered on black; scaled to [0, 1]"
    assert FASHION_MNIST.describe((28, 28)) == FASHION_MNIST.describe()
    assert FASHION_MNIST.describe((224, 224)) == \
        "gray; resized to fit 28x28, centered on black, enlarged to 224x224; scaled to [0, 1]"
    assert IMAGENET.describe() == (
        "red, green, blue; shorter side resized to 256, center crop of 224x224; scaled to [0, 1], normalized by mean "
        "0.485, 0.456, 0.406 and standard deviation 0.229, 0.224, 0.225")
    assert CAFFE.describe() == ("blue, green, red; resized to 256x256, center crop of 227x227; levels 0 to 255, minus "
                                "mean 104.007, 116.669, 122.679")
    assert STRETCHED.describe() == "red, green, blue, inverted; resized to 32x48; levels times 2, divided by 1, 2, 3"
    assert Preprocessing("gray").describe() == "gray; scaled to [0, 1]"


def test_equal_values_make_equal_records():
    assert Preprocessing("rgb", [4, 5], crop=[2, 3], scale=1, mean=[1, 2, 3]) == \
        Preprocessing("rgb", (4, 5), crop=(2, 3), scale=1.0, mean=(1.0, 2.0, 3.0))


def test_size_and_unit_follow_from_the_fields():
    assert (FASHION_MNIST.size, IMAGENET.size, STRETCHED.size) == ((28, 28), (224, 224), (32, 48))
    assert Preprocessing("rgb", resize=256).size is None is Preprocessing("rgb").size
    assert FASHION_MNIST.is_unit and not IMAGENET.is_unit and not CAFFE.is_unit and UNIT == 1 / 255


@pytest.mark.parametrize("change, message", [
    ({"color": "cmyk"}, "color must be one of gray, rgb, bgr, not 'cmyk'"),
    ({"color": ["rgb"]}, "color must be one of"),
    ({"resize": 0}, r"resize must be the shorter side or \(height, width\), in pixels, not 0"),
    *(({"resize": size}, "resize must be") for size in (True, 1.5, (1, 2, 3), (8, -8), "256", 2**31)),
    ({"fit": True}, r"resize must be the \(height, width\) to fit in, not None"),
    ({"fit": True, "resize": 9}, "resize must be the"), ({"fit": 1}, "fit must be true or false, not 1"),
    ({"crop": 224}, r"crop must be \(height, width\) in pixels, not 224"), ({"crop": (0, 1)}, "crop must be"),
    ({"crop": (9, 8), "resize": 7}, "a crop of 9x8 is larger than a picture resized to 7; use a smaller crop or"),
    ({"crop": (9, 8), "resize": (8, 9)}, "a crop of 9x8 is larger than a picture resized to 8x9"),
    ({"invert": None}, "invert must be true or false"),
    ({"scale": 0}, "scale must be a number between 1e-6 and 1e6, not 0"), ({"scale": float("nan")}, "scale must be"),
    ({"scale": "1"}, "scale must be"), ({"scale": True}, "scale must be"),
    ({"mean": 0.5}, r"mean must be a list with a number from -1e\+06 to 1e\+06 for each channel \(3\), not 0.5"),
    ({"mean": (0.5,)}, "mean must be"), ({"mean": (0, 0, float("inf"))}, "mean must be"),
    ({"std": (1, 1, 0)}, "std must be a list with a number from 1e-06"), ({"std": (1, 1, "1")}, "std must be"),
    ({"std": (1, 1, 10**400)}, "std must be")], ids=str)
def test_wrong_values_are_refused_by_name(change, message):
    with pytest.raises(SpecError, match=f"preprocessing: {message}"):
        dataclasses.replace(Preprocessing("rgb"), **change)


@pytest.mark.parametrize("fields, message", [
    (None, "must have a color"), ([], "must have a color"), ({}, "must have a color"), ({"resize": 1}, "have a color"),
    ({"color": "rgb", "interpolation": "bicubic"}, "unknown key 'interpolation'; known: color, resize, fit, ")])
def test_other_dictionaries_are_refused(fields, message):
    with pytest.raises(SpecError, match=f"preprocessing: .*{message}"):
        Preprocessing.from_dict(fields)
