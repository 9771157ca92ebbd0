"""Protobuf's wire format: Google's own encoder writes, through ONNX's messages, and the reader gives the values."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from caffe_files import tagged, varint
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_mf.weights.formats import protobuf
from alexnet_mf.weights.formats.protobuf import Message

DIMS, FLOATS, STRINGS, INT64S, NAME, DOUBLES = 1, 4, 6, 7, 8, 10
"""Fields of ONNX's TensorProto."""


def message(**values: object) -> Message:
    return Message(onnx.TensorProto(**values).SerializeToString())


@settings(max_examples=40)
@given(st.lists(st.integers(-2**63, 2**63 - 1), max_size=9), st.text(max_size=9))
def test_integers_and_texts_are_those_that_google_encoded(integers, text):
    """ONNX packs `int64_data` and does not pack `dims`."""
    tensor = message(dims=integers, int64_data=integers, name=text, string_data=[b"\xff", text.encode()])
    assert tensor.integers(DIMS) == tensor.integers(INT64S) == integers
    assert tensor.integer(DIMS, 5) == [5, *integers][-1]
    assert tensor.text(NAME) == text
    assert tensor.texts(STRINGS) == ["\\xff", text]
    assert tensor.numbers() == {STRINGS, NAME, *([DIMS, INT64S] if integers else [])}


@pytest.mark.parametrize("number, dtype, field", [(FLOATS, "<f4", "float_data"), (DOUBLES, "<f8", "double_data")])
def test_packed_floats_are_the_files_own_bytes(number, dtype, field):
    values = np.random.default_rng(0).standard_normal(1000).astype(dtype)
    content = onnx.TensorProto(**{field: values.tolist()}).SerializeToString()
    tensor = Message(content)
    assert tensor.count(number, dtype) == 1000
    assert np.array_equal(tensor.array(number, dtype), values)
    assert np.shares_memory(tensor.array(number, dtype), np.frombuffer(content, np.uint8))
    assert message().array(number, dtype).shape == (0,)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 1000])
@pytest.mark.parametrize("number", [1, 5, 16, 3000])
def test_unpacked_floats_are_one_value(count, number):
    values = np.arange(count, dtype="<f4")
    content = b"".join(tagged(number, 5, value.tobytes()) for value in values)
    others = tagged(2, 5, values[:1].tobytes()), tagged(number, 2, values.tobytes())
    for before, after in ((b"", b""), (others[0], others[0]), (others[1], others[1] + others[0])):
        tensor = Message(before + content + after)
        parts = [values] * (1 + (before == others[1]) + after.startswith(others[1]))
        assert np.array_equal(tensor.array(number, "<f4"), np.concatenate(parts))
        assert tensor.count(number, "<f4") == len(np.concatenate(parts))
    assert len([*protobuf.fields(memoryview(content))]) == 1


def test_the_last_value_counts_and_messages_are_merged():
    assert Message(tagged(1, 0, b"\x01") + tagged(1, 0, b"\x02")).integer(1) == 2
    assert Message(tagged(1, 2, b"a") + tagged(1, 2, b"b")).text(1) == "b"
    parts = [tagged(1, 2, tagged(number, 0, b"\x07")) for number in (3, 4)]
    assert Message(b"".join(parts)).message(1).numbers() == {3, 4}
    assert Message().message(1).numbers() == set()


def test_float32_numbers_are_the_decimals_that_were_written():
    assert message(float_data=[0.0001, 0.75, 5, 1 / 3]).decimals(FLOATS) == [0.0001, 0.75, 5.0, 0.33333334]
    assert message().decimal(FLOATS, 0.5) == 0.5


TAG = tagged(5, 2, b"")[:-1]


@pytest.mark.parametrize("content, reason", [
    (b"\x08", "an integer is cut off"), (b"\x08" + b"\x80" * 9, "an integer is cut off"),
    (b"\x08" + b"\xff" * 11, "an integer is cut off or has more than 64 bits"),
    (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"), (b"\x00\x00", "the number 0"),
    (TAG + b"\x05abcd", "field 5 has 5 bytes, but 4 follow"), (TAG + varint(2**63), "field 5 has 9,223,372,036,854,"),
    (b"\x0d\x00\x00", "field 1 has 4 bytes, but 2 follow"), (b"\x09" + bytes(7), "field 1 has 8 bytes, but 7 follow"),
    (b"\x0b", "the wire type 3"), (b"\x0c", "the wire type 4"), (b"\x0e", "the wire type 6"),
    (b"\x08\x00" * 10_001, "more than 10,000 fields")])
def test_damage_is_an_error(content, reason):
    with pytest.raises(ValueError, match=reason):
        Message(content)


READINGS: list[Callable[[Message], object]] = [
    lambda m: m.contents(1), lambda m: m.message(1), lambda m: m.text(1), lambda m: m.integers(1),
    lambda m: m.array(1, "<f4"), lambda m: m.array(1, "<f8"), lambda m: m.decimals(1)]


@pytest.mark.parametrize("content, allowed", [
    (tagged(1, 0, b"\x01"), [3]), (tagged(1, 1, bytes(8)), [5]), (tagged(1, 5, bytes(4)), [4, 6])])
def test_a_value_of_another_type_is_an_error(content, allowed):
    for index, reading in enumerate(READINGS):
        if index in allowed:
            reading(Message(content))
        else:
            with pytest.raises(ValueError, match=r"field 1 has the wire type \d, expected \d"):
                reading(Message(content))


@pytest.mark.parametrize("content, reading, reason", [
    (b"abc", lambda m: m.array(1, "<f4"), "field 1 has 3 bytes, which is no multiple of 4"),
    (b"\x80", lambda m: m.integers(1), "cut off"), (bytes(10_001), lambda m: m.integers(1), "than 10,000 integers"),
    (bytes(40_004), lambda m: m.decimals(1), "more than 10,000 numbers")])
def test_damage_in_a_packed_field_is_an_error(content, reading, reason):
    with pytest.raises(ValueError, match=reason):
        reading(Message(tagged(1, 2, content)))


def test_alternating_fields_take_no_quadratic_time():
    content = (tagged(1, 5, bytes(4)) * 400 + tagged(2, 5, bytes(4))) * 2000  # 4 MB
    start = time.monotonic()
    assert Message(content).count(1, "<f4") == 800_000
    assert time.monotonic() - start < 5
