"""Members of a tar archive of the POSIX, GNU or old format, with their places in the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MOST_TEXT = 1_000_000
"""Largest size of a member with a label, and of a member's extended header, in bytes."""
_BLOCK = 512
_ZEROS = bytes(_BLOCK)
LINKS = (b"1", b"2")
_WITHOUT_DATA = (*LINKS, b"3", b"4", b"5", b"6")
FILES = (b"0", b"\0", b"7")


class Member(NamedTuple):
    """A member of an archive."""

    name: str
    kind: bytes
    """Type in its header."""
    start: int
    size: int
    is_sparse: bool


def members(file: BinaryIO, size: int) -> Iterator[Member]:
    """Yield the members of a tar archive of the POSIX, GNU or old format. Python's `tarfile` takes several times as
    long for it, and cannot tell a truncated archive from a complete one.

    Raises:
        ValueError: if it is no archive, truncated or damaged.
    """
    offset, extended = 0, dict[str, str]()
    while True:
        file.seek(offset)
        header = file.read(_BLOCK)
        if len(header) < _BLOCK:
            raise ValueError("is empty; replace or remove it" if not size else
                             f"is truncated after {size:,} bytes; download it again")
        if header == _ZEROS:
            _check_end(file)
            return
        if not _has_checksum(header):
            raise ValueError(f"is damaged at byte {offset:,}; download it again" if offset else
                             "is no tar archive; replace it by one (.tar or .tar.gz)")
        kind, start = header[156:157], offset + _BLOCK
        try:
            length = int(extended["size"]) if "size" in extended and kind not in b"xgLK" else _number(header[124:136])
            if kind == b"S":  # the list of the holes is continued in further blocks
                more = header[482]
                while more:
                    file.seek(start)
                    start, more = start + _BLOCK, file.read(_BLOCK)[504]
        except (ValueError, IndexError) as error:
            raise ValueError(f"is damaged at byte {offset:,}; download it again") from error
        if kind in _WITHOUT_DATA:
            length = 0
        if length < 0 or start + length > size:
            raise ValueError(f"is truncated after {size:,} bytes; download it again")
        offset = start + -(-length // _BLOCK) * _BLOCK
        if kind in (b"x", b"X", b"L"):
            if length > MOST_TEXT:
                raise ValueError(f"is damaged at byte {start - _BLOCK:,}; download it again")
            file.seek(start)
            content = file.read(length)
            extended |= {"path": _text(content)} if kind == b"L" else _records(content)
        elif kind not in (b"g", b"K"):
            name = extended.get("GNU.sparse.name") or extended.get("path") or _header_name(header)
            is_sparse = kind == b"S" or any(key.startswith("GNU.sparse.") for key in extended)
            yield Member(name, kind, start, length, is_sparse)
            extended = {}


def _check_end(file: BinaryIO) -> None:
    """Check that nothing but zeros follows."""
    while content := file.read(1 << 20):
        if content.count(0) != len(content):
            raise ValueError("has data after its end, perhaps another archive; pack it again as one")


def _has_checksum(header: bytes) -> bool:
    """Return True if the header has its checksum. Old programs added signed bytes."""
    try:
        checksum = _number(header[148:156])
    except ValueError:
        return False
    rest = header[:148] + b" " * 8 + header[156:]
    total = sum(rest)
    return checksum == total or checksum == total - 256 * sum(byte > 127 for byte in rest)


def _number(number: bytes) -> int:
    """Return a number of a header: octal digits, or GNU's binary form."""
    if number[0] & 0x80:
        return int.from_bytes(bytes([number[0] & 0x7F]) + number[1:], "big")
    return int(number.split(b"\0", 1)[0].strip() or b"0", 8)


def _text(text: bytes) -> str:
    return text.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _header_name(header: bytes) -> str:
    name = _text(header[:100])
    return f"{_text(header[345:500])}/{name}" if header[257:263] == b"ustar\0" and header[345] else name


def _records(content: bytes) -> dict[str, str]:
    """Return the records of an extended header, `LENGTH KEY=VALUE`."""
    records, place = {}, 0
    while place < len(content) and content[place]:
        length, space, _ = content[place:place + 20].partition(b" ")
        end = place + int(length) if length.isdigit() else 0
        key, equals, value = content[place + len(length) + 1:end - 1].partition(b"=")
        if not space or not equals or not place < end <= len(content) or content[end - 1] != ord("\n"):
            raise ValueError("has a damaged extended header; pack it again")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        place = end
    return records
