"""Protobuf's wire format, read without a schema and without the protobuf package.

A message is a sequence of fields, each with a number, a wire type and a value. Nested messages look like strings: a
reader that knows their numbers parses them when it needs them, so no file can nest deeper than its reader looks.
Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}
MOST_FIELDS = 10_000
"""Largest number of fields in a message, and of integers in one field. Each takes a hundred times its bytes in memory;
consecutive unpacked floats count as one."""
LONGEST_VARINT = 10

Value: TypeAlias = "int | memoryview | NDArray[np.uint8]"


def fields(content: memoryview) -> Iterator[tuple[int, int, Value]]:
    """Yield the number, wire type and value of each field, without a copy.

    A varint is an unsigned integer, a length-delimited value a slice of `content`. Values of fixed size are a uint8
    array (n, size): consecutive fields of one number come together, so that millions of unpacked floats are one value.

    Raises:
        ValueError: if a field does not fit into the message, or there are more than `MOST_FIELDS`.
    """
    position = count = 0
    while position < len(content):
        if (count := count + 1) > MOST_FIELDS:
            raise ValueError(f"a message has more than {MOST_FIELDS:,} fields")
        start = position
        tag, position = _varint(content, position)
        number, wire_type = tag >> 3, tag & 7
        if not number:
            raise ValueError("a field has the number 0")
        value: Value
        if wire_type == VARINT:
            value, position = _varint(content, position)
        elif wire_type == BYTES:
            size, position = _varint(content, position)
            _check_room(content, position, size, number)
            value, position = content[position:position + size], position + size
        elif wire_type in SIZES:
            _check_room(content, position, SIZES[wire_type], number)
            value, position = _repeated(content, start, position, SIZES[wire_type])
        else:
            raise ValueError(f"field {number} has the wire type {wire_type}")
        yield number, wire_type, value


def _check_room(content: memoryview, position: int, size: int, number: int) -> None:
    if size > len(content) - position:
        raise ValueError(f"field {number} has {size:,} bytes, but {len(content) - position:,} follow")


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    """Return an unsigned integer of 64 bits at most, and the position after it."""
    if position < len(content) and content[position] < 0x80:  # nearly all have one byte
        return content[position], position + 1
    value = 0
    for index, byte in enumerate(content[position:position + LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80 and value < 2**64:
            return value, position + index + 1
    raise ValueError("an integer is cut off or has more than 64 bits")


def _repeated(content: memoryview, start: int, position: int, size: int) -> tuple[NDArray[np.uint8], int]:
    """Return the values of the fields from `start` on that have the same tag, and the position after them.

    Args:
        position: end of the first field's tag.
        size: size of a value in bytes.
    """
    tag, step = position - start, position - start + size
    if content[start:position] != content[start + step:position + step]:  # nearly all come alone
        return np.frombuffer(content, np.uint8, size, position).reshape(1, size), position + size
    most = (len(content) - start) // step
    records = np.frombuffer(content, np.uint8, most * step, start).reshape(most, step)
    count = block = 1
    while count < most:  # in blocks of doubled size: comparing all of them at every field would take quadratic time
        same = (records[count:count + block, :tag] == records[0, :tag]).all(axis=1)
        if not same.all():
            count += int(same.argmin())
            break
        count, block = count + len(same), 2 * block
    return records[:count, tag:], start + count * step


class Message:
    """Values of a message by field number.

    Every method raises ValueError if the values have another type. A field that may occur once counts with its last
    value, and nested messages with all of their fields, as protobuf defines it.
    """

    def __init__(self, content: memoryview | bytes = b"") -> None:
        self._values: defaultdict[int, list[tuple[int, Value]]] = defaultdict(list)
        for number, wire_type, value in fields(memoryview(content)):
            self._values[number].append((wire_type, value))

    def numbers(self) -> set[int]:
        """Return the numbers of the fields that occur."""
        return set(self._values)

    def contents(self, number: int) -> list[memoryview]:
        """Return the bytes of each string or nested message."""
        return [value for wire_type, value in self._typed(number, BYTES) if isinstance(value, memoryview)]

    def message(self, number: int) -> Message:
        """Return the nested message, which is empty if it is absent."""
        contents = self.contents(number)
        return Message(contents[0] if len(contents) == 1 else b"".join(contents))

    def texts(self, number: int) -> list[str]:
        """Return the strings; bytes that are not UTF-8 appear as escapes."""
        return [bytes(content).decode("utf-8", "backslashreplace") for content in self.contents(number)]

    def text(self, number: int, default: str = "") -> str:
        """Return the string."""
        return [default, *self.texts(number)][-1]

    def integers(self, number: int) -> list[int]:
        """Return the signed integers, packed or not."""
        values: list[int] = []
        for _, value in self._typed(number, VARINT, BYTES):
            position = 0
            if isinstance(value, int):
                values.append(value)
            while isinstance(value, memoryview) and position < len(value):
                integer, position = _varint(value, position)
                values.append(integer)
                if len(values) > MOST_FIELDS:
                    raise ValueError(f"field {number} has more than {MOST_FIELDS:,} integers")
        return [value - 2**64 if value >= 2**63 else value for value in values]

    def integer(self, number: int, default: int = 0) -> int:
        """Return the signed integer."""
        return [default, *self.integers(number)][-1]

    def count(self, number: int, dtype: DTypeLike) -> int:
        """Return how many floats a field has, packed or not."""
        return sum(map(len, self._fixed(number, np.dtype(dtype).itemsize)))

    def array(self, number: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return the floats of a field, packed or not. One packed field is not copied."""
        dtype = np.dtype(dtype)
        arrays = [np.ascontiguousarray(values).view(dtype)[:, 0] for values in self._fixed(number, dtype.itemsize)]
        return arrays[0] if len(arrays) == 1 else np.concatenate([np.empty(0, dtype), *arrays])

    def decimals(self, number: int) -> list[float]:
        """Return float32 numbers as the shortest decimals that round to them: 0.0001, not 0.00009999999747."""
        if self.count(number, "<f4") > MOST_FIELDS:
            raise ValueError(f"field {number} has more than {MOST_FIELDS:,} numbers")
        return [float(str(value)) for value in self.array(number, "<f4")]

    def decimal(self, number: int, default: float) -> float:
        """Return the float32 number as the shortest decimal that rounds to it."""
        return [default, *self.decimals(number)][-1]

    def _typed(self, number: int, *wire_types: int) -> list[tuple[int, Value]]:
        values = self._values.get(number, [])
        for wire_type, _ in values:
            if wire_type not in wire_types:
                raise ValueError(f"field {number} has the wire type {wire_type}, expected {wire_types[0]}")
        return values

    def _fixed(self, number: int, size: int) -> list[NDArray[np.uint8]]:
        """Return the values of a field as arrays (n, size) of bytes."""
        arrays: list[NDArray[np.uint8]] = []
        for _, value in self._typed(number, FIXED32 if size == 4 else FIXED64, BYTES):
            if isinstance(value, np.ndarray):
                arrays.append(value)
            elif isinstance(value, memoryview):
                if len(value) % size:
                    raise ValueError(f"field {number} has {len(value):,} bytes, which is no multiple of {size}")
                arrays.append(np.frombuffer(value, np.uint8).reshape(-1, size))
        return arrays
