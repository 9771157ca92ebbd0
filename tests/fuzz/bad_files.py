"""Strategies that damage good files: byte by byte, and by structure, to reach the code behind a checksum too."""

from __future__ import annotations

import copy
import gzip
import io
import json
import math
import pickletools
import struct
import warnings
import zipfile
import zlib
from typing import Any

from hypothesis import strategies as st

NUMBERS = [0, -1, 1, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**30, -(2**63), 0.5, 1e308, -0.0, math.nan, math.inf]
TEXTS = ["", "x", "\0", "a\nb", "\x1b[2J", "ü" * 10, "x" * 10_000, "../../etc/passwd", "conv1", "NaN", "\ud800"]
DEEP = "[" * 100_000
"""JSON too deep for any recursive reader or writer, as text."""

BOMB = gzip.compress(bytes(2**28), 9, mtime=0)
"""A quarter of a gigabyte, compressed. Appended to a gzip file, it becomes part of its content."""

values = st.recursive(
    st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.integers() | st.sampled_from(TEXTS) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6)


@st.composite
def of_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Flip, cut, insert or repeat a few bytes anywhere, most often near the beginning."""
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        size = len(result)
        at = draw(st.one_of(st.integers(0, min(size, 64)), st.integers(0, size)))
        length = draw(st.sampled_from([1, 1, 2, 4, 8, 100]))
        how = draw(st.sampled_from(["flip", "flip", "overwrite", "number", "cut", "insert", "repeat", "truncate"]))
        if how == "flip" and at < size:
            result[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "overwrite":
            result[at:at + length] = draw(st.binary(min_size=length, max_size=length))
        elif how == "number":
            number = draw(st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 10_000]))
            result[at:at + 4] = struct.pack(draw(st.sampled_from(["<I", ">I"])), number)
        elif how == "cut":
            del result[at:at + length]
        elif how == "insert":
            result[at:at] = draw(st.binary(max_size=16))
        elif how == "repeat":
            result[at:at] = result[at:at + length] * draw(st.sampled_from([1, 2, 1000]))
        elif how == "truncate":
            del result[at:]
    return bytes(result)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all values in a JSON value."""
    paths = [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        paths += places(each, (*path, key))
    return paths


@st.composite
def of_json(draw: st.DrawFn, value: Any) -> Any:
    """Replace, remove, add or repeat one or two entries."""
    result = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(result)))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(values)
            continue
        parent = result
        for key in path[:-1]:
            parent = parent[key]
        key = path[-1]
        how = draw(st.sampled_from(["replace", "replace", "near", "remove", "add"]))
        if how == "replace":
            parent[key] = draw(values)
        elif how == "near":  # of the same type
            old = parent[key]
            same = [number for number in NUMBERS if type(number) is type(old)] or \
                [text for text in TEXTS if type(text) is type(old)] or [[], {}, None, not old]
            parent[key] = draw(st.sampled_from(same))
        elif how == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=6))] = draw(values)
        else:
            parent.insert(key, draw(st.one_of(st.just(copy.deepcopy(parent[key])), values)))
    return result


def text_of(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def of_json_text(draw: st.DrawFn, content: bytes) -> bytes:
    """Damage the entries or the bytes of JSON text."""
    how = draw(st.sampled_from(["entries", "entries", "entries", "bytes", "deep"]))
    if how == "entries":
        return text_of(draw(of_json(json.loads(content))))
    if how == "deep":
        place = draw(st.integers(0, len(content)))
        return content[:place] + DEEP.encode() + content[place:]
    return draw(of_bytes(content))


@st.composite
def of_lines(draw: st.DrawFn, content: bytes) -> bytes:
    """Damage one of the lines of JSON, or any of the bytes."""
    if draw(st.integers(0, 3)) == 0:
        return draw(of_bytes(content))
    lines = content.splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    lines[number] = draw(of_json_text(lines[number]))
    return b"\n".join(lines) + b"\n"


LITERALS = ["0", "-1", "1.5", "1e308", "nan", "-inf", "9" * 60, "9" * 5000, '""', "'x'", "[]", "[[]]", "[1, 28]",
            "{}", "true", "1979-05-27", "0x10", '"none"', '"\\ud800"', '"""a\nb"""', f'"{"x" * 20_000}"', "[" * 5000,
            "{a.b = 1}"]


@st.composite
def of_toml(draw: st.DrawFn, content: bytes) -> bytes:
    """Replace values; remove, repeat or move lines; or damage the bytes."""
    if draw(st.integers(0, 2)) == 0:
        return draw(of_bytes(content))
    lines = content.decode().splitlines()
    for _ in range(draw(st.integers(1, 3))):
        number = draw(st.integers(0, len(lines) - 1))
        key, equals, _ = lines[number].partition(" = ")
        how = draw(st.sampled_from(["value", "value", "value", "remove", "repeat", "move"]))
        if how == "value" and equals:
            lines[number] = f"{key} = {draw(st.sampled_from(LITERALS))}"
        elif how == "remove":
            del lines[number]
        elif how == "repeat":
            lines[number:number] = [lines[number]] * draw(st.sampled_from([1, 5000]))
        else:
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(number))
        if not lines:
            break
    return "\n".join(lines).encode()


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return a safetensors file's header, and the rest."""
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8:8 + size]), content[8 + size:]


@st.composite
def of_safetensors(draw: st.DrawFn, content: bytes) -> bytes:
    """Damage the header, the JSON text inside the header, the tensors, or any of the bytes."""
    header, rest = header_of(content)
    how = draw(st.sampled_from(["header", "metadata", "metadata", "text", "tensors", "bytes"]))
    if how == "bytes":
        return draw(of_bytes(content))
    if how == "tensors":
        rest = draw(of_bytes(rest))
    elif how == "header":
        header = draw(of_json(header))
    else:
        metadata = header["__metadata__"]
        key = next(key for key, value in metadata.items() if value.startswith("{"))
        inner = json.loads(metadata[key])
        metadata[key] = json.dumps(draw(of_json(inner))) if how == "metadata" else \
            draw(of_json_text(metadata[key].encode())).decode(errors="replace")
    packed = text_of(header)
    return struct.pack("<Q", len(packed)) + packed + rest


@st.composite
def of_gzip(draw: st.DrawFn, content: bytes) -> bytes:
    """Compress damaged content, damage compressed content, or append a bomb."""
    how = draw(st.sampled_from(["inside", "outside", "bomb"]))
    if how == "outside":
        return draw(of_bytes(gzip.compress(content, 1, mtime=0)))
    packed = gzip.compress(draw(of_bytes(content)), 1, mtime=0)
    return packed + BOMB if how == "bomb" else packed


@st.composite
def of_zip(draw: st.DrawFn, content: bytes) -> bytes:
    """Damage an entry and correct its checksum, damage any of the bytes, or insert a bomb."""
    how = draw(st.sampled_from(["inside", "inside", "inside", "bytes", "name", "remove", "repeat", "pack", "bomb"]))
    if how == "bytes":
        return draw(of_bytes(content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    number = draw(st.integers(0, len(entries) - 1))
    name, inside = entries[number]
    if how == "inside":
        entries[number] = (name, draw(of_bytes(inside)))
    elif how == "name":
        entries[number] = (draw(st.sampled_from([f"x{name}", "../x", "a" * 1000, "x\0", name.upper()])), inside)
    elif how == "remove":
        del entries[number]
    elif how == "bomb":
        entries[number] = (name, bytes(2**28))
    elif how == "repeat":
        entries.append((name, draw(of_bytes(inside))))
    result = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED if how in ("pack", "bomb") else
                                                    zipfile.ZIP_STORED, compresslevel=1) as archive:
        warnings.simplefilter("ignore")  # about a duplicate name
        for each, bytes_ in entries:
            archive.writestr(each, bytes_)
    return result.getvalue()


HARMFUL = [b"0", b"1", b"2", b"(", b"t", b"l", b"d", b"e", b"u", b"s", b"a", b"R", b"b", b"o", b"Q", b")", b"]", b"}",
           b"N", b"\x81", b"\x85", b"\x86", b"\x87", b"\x8f", b"\x90", b"\x91", b"\x92", b"\x93", b"\x94", b"\x97",
           b"\x98", b"h\x00", b"h\x01", b"h\x05", b"q\x00", b"q\x01", b"J\xff\xff\xff\xff", b"K\x00", b"K\x07",
           b"\x8a\x09\0\0\0\0\0\0\0\0\x01", b"\x8b\xff\xff\xff\x7f", b"X\xff\xff\xff\xff", b"X\x01\0\0\0x", b"I9\n",
           b"\x8d\0\0\0\0\0\x01\0\0", b"\x96\0\0\0\0\0\x01\0\0", b"r\xff\xff\xff\xff", b"\x95\xff\xff\xff\0\0\0\0\0",
           b"cposix\nsystem\n", b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n",
           b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", b"ix\ny\n", b"."]
"""Opcodes that change the stack, name functions, or claim large sizes."""


@st.composite
def of_pickle(draw: st.DrawFn, content: bytes) -> bytes:
    """Replace, remove, insert, repeat or move opcodes of the first pickle, or damage any of the bytes."""
    if draw(st.integers(0, 4)) == 0:
        return draw(of_bytes(content))
    starts = [at for _, _, at in pickletools.genops(content) if at is not None]
    parts = [content[start:end] for start, end in zip(starts, [*starts[1:], starts[-1] + 1])]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(parts) - 1))
        other = draw(st.sampled_from(HARMFUL) | st.sampled_from(parts))
        how = draw(st.sampled_from(["replace", "replace", "insert", "remove", "repeat", "move"]))
        if how == "replace":
            parts[at] = other
        elif how == "insert":
            parts.insert(at, other)
        elif how == "repeat":
            parts[at:at] = [parts[at]] * draw(st.sampled_from([1, 1, 5, 5, 100, 10_000, 1_100_000]))
        elif len(parts) > 1:
            part = parts.pop(at)
            if how == "move":
                parts.insert(draw(st.integers(0, len(parts))), part)
    return b"".join(parts) + content[starts[-1] + 1:]


@st.composite
def of_torch_archive(draw: st.DrawFn, content: bytes) -> bytes:
    """Damage the opcodes of the archive's pickle, or the archive."""
    if draw(st.integers(0, 2)) == 0:
        return draw(of_zip(content))
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(result, "w") as target:
        for name in source.namelist():
            inside = source.read(name)
            target.writestr(name, draw(of_pickle(inside)) if name.endswith("/data.pkl") else inside)
    return result.getvalue()


@st.composite
def of_torch_stream(draw: st.DrawFn, content: bytes) -> bytes:
    """Damage the opcodes of one of the five pickles before the storages, or any of the bytes."""
    begin = 0
    for _ in range(draw(st.integers(0, 4))):
        begin += 1 + max(at for _, _, at in pickletools.genops(content[begin:]) if at is not None)
    return content[:begin] + draw(of_pickle(content[begin:]))


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Return type and content of a PNG's chunks."""
    result, at = [], 8
    while at < len(content):
        (size,) = struct.unpack(">I", content[at:at + 4])
        result.append((content[at + 4:at + 8], content[at + 8:at + 8 + size]))
        at += 12 + size
    return result


@st.composite
def of_png(draw: st.DrawFn, content: bytes) -> bytes:
    """Damage a chunk and correct its checksum, or damage any of the bytes."""
    if draw(st.integers(0, 2)) == 0:
        return draw(of_bytes(content))
    entries = chunks(content)
    number = draw(st.integers(0, len(entries) - 1))
    chunk_type, inside = entries[number]
    how = draw(st.sampled_from(["content", "content", "pixels", "type", "remove", "repeat"]))
    if how == "content":
        entries[number] = (chunk_type, draw(of_bytes(inside)) if inside else draw(st.binary(max_size=20)))
    elif how == "pixels":
        entries = [(name, zlib.compress(draw(of_bytes(zlib.decompress(each))), 1) if name == b"IDAT" else each)
                   for name, each in entries]
    elif how == "type":
        entries[number] = (draw(st.sampled_from([b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"eXIf", b"acTL", b"IEND"])),
                           draw(st.binary(max_size=40)))
    elif how == "remove":
        del entries[number]
    else:
        entries.insert(number, entries[number])
    return content[:8] + b"".join(struct.pack(">I", len(inside)) + chunk_type + inside +
                                  struct.pack(">I", zlib.crc32(chunk_type + inside)) for chunk_type, inside in entries)
