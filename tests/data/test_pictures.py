"""Encoded pictures of every kind, compared with torchvision's steps on Pillow's pictures, and their names."""

from __future__ import annotations

import io
import itertools
import os
import struct
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_mf.data import pictures
from alexnet_mf.data.pictures import Names, PictureFiles, decode, read_file, size_of
from alexnet_mf.data.preprocessing import prepare
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Preprocessing

COLOR = Preprocessing("rgb", resize=32, patch=(32, 32), crop=(28, 28))
GRAY = Preprocessing("gray", resize=32, patch=(32, 32), crop=(28, 28))


def photograph(height: int = 47, width: int = 60, seed: int = 0) -> Image.Image:
    """Return gradients with noise in three channels."""
    rows, columns = np.mgrid[:height, :width]
    levels = np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) * 255 / (height + width)], axis=2)
    return Image.fromarray((levels * 0.8 + np.random.default_rng(seed).uniform(0, 50, levels.shape)).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def fault_of(content: bytes) -> str:
    with pytest.raises(DataError) as caught:
        decode(content)
    assert str(caught.value).isprintable()
    return str(caught.value)


# Names


ODD = ["", "a", "Schäfer hund/ü \U0001f600.jpg", os.fsdecode(b"caf\xe9/\xff.png"), "line\nbreak", "b"]


def test_names_come_back_as_they_were() -> None:
    names = Names(ODD)
    assert list(names) == ODD and len(names) == len(ODD) and names[-1] == "b" and names[1:3] == ODD[1:3]
    assert [os.fsencode(name) for name in names] == list(map(os.fsencode, ODD))
    assert "a" in names and "c" not in names
    for number in (len(ODD), -len(ODD) - 1):
        with pytest.raises(IndexError):
            names[number]
    assert list(Names()) == [] and list(Names(iter(ODD))) == ODD


@pytest.mark.parametrize("parts", [[], [[]], [ODD], [ODD, [], ["x"], ODD]])
def test_parts_of_names_are_joined(parts: list[list[str]]) -> None:
    assert list(Names.joined([Names(part) for part in parts])) == list(itertools.chain(*parts))


def test_names_take_little_memory() -> None:
    tracemalloc.start()
    try:
        names = Names(f"train/class {number % 100:03}/picture {number:06}.jpg" for number in range(20_000))
        assert len(names.content) / len(names) == 34
        assert tracemalloc.get_traced_memory()[0] / len(names) < 34 + 8 + 2
    finally:
        tracemalloc.stop()


# Formats


def plain_kinds() -> dict[str, bytes]:
    """Return pictures without transparency, in every format and mode."""
    image = photograph()
    gray, palette = image.convert("L"), image.quantize(32)
    return {
        "jpeg": encoded(image, "JPEG"), "gray jpeg": encoded(gray, "JPEG"), "progressive jpeg":
        encoded(image, "JPEG", progressive=True), "cmyk jpeg": encoded(image.convert("CMYK"), "JPEG"),
        "png": encoded(image, "PNG"), "gray png": encoded(gray, "PNG"), "palette png": encoded(palette, "PNG"),
        "palette png of 4 bits": encoded(image.quantize(16), "PNG", bits=4),
        "png of 1 bit": encoded(gray.convert("1"), "PNG"), "interlaced gif": encoded(palette, "GIF", interlace=1),
        "webp": encoded(image, "WEBP"), "lossless webp": encoded(image, "WEBP", lossless=True),
        "bmp": encoded(image, "BMP"), "palette bmp": encoded(palette, "BMP"), "gray bmp": encoded(gray, "BMP"),
        "gif": encoded(palette, "GIF"), "gray gif": encoded(gray, "GIF"), "tiff": encoded(image, "TIFF"),
        "packed tiff": encoded(image, "TIFF", compression="tiff_lzw"), "gray tiff": encoded(gray, "TIFF"),
        "cmyk tiff": encoded(image.convert("CMYK"), "TIFF"), "tiff of 1 bit": encoded(gray.convert("1"), "TIFF"),
        "palette tiff": encoded(palette, "TIFF"), "wide": encoded(photograph(20, 200), "PNG"),
        "high": encoded(photograph(211, 33), "PNG"), "large": encoded(photograph(300, 401), "JPEG"),
        "small": encoded(photograph(9, 11), "PNG"), "one pixel": encoded(photograph(1, 1), "PNG")}


PLAIN = plain_kinds()


@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
def test_pixels_are_those_of_torchvision(content: bytes) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    steps = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32)])
    expected = steps(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(prepare(decode(content), COLOR.stored), np.asarray(expected))
    smaller = transforms.CenterCrop(28)(steps(Image.open(io.BytesIO(content)).convert("RGB")))
    np.testing.assert_array_equal(prepare(decode(content), COLOR), np.asarray(smaller))
    in_gray = steps(Image.open(io.BytesIO(content)).convert("RGB")).convert("L")
    np.testing.assert_array_equal(prepare(decode(content), GRAY.stored), np.asarray(in_gray))


@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
def test_size_and_color_are_read_from_the_header(content: bytes) -> None:
    image = Image.open(io.BytesIO(content))
    assert size_of(content) == (min(image.size), image.mode not in ("1", "L"))


def test_gray_of_16_bits_keeps_its_upper_8() -> None:
    levels = np.arange(0, 65_536, 32, np.uint16).reshape(32, 64)
    for kind, image in (("PNG", Image.fromarray(levels)), ("TIFF", Image.fromarray(levels)),
                        ("TIFF", Image.fromarray(levels.astype(np.int32)))):
        content = encoded(image, kind)
        np.testing.assert_array_equal(np.asarray(decode(content)), levels >> 8)
        assert size_of(content) == (32, False)
    big = Image.frombytes("I;16B", (64, 32), levels.astype(">u2").tobytes())
    np.testing.assert_array_equal(np.asarray(decode(encoded(big, "TIFF"))), levels >> 8)


def test_other_levels_are_refused() -> None:
    deep = np.full((8, 8), 70_000, np.int32)
    for image in (Image.fromarray(np.ones((8, 8), np.float32)), Image.fromarray(deep), Image.fromarray(-deep)):
        assert fault_of(encoded(image, "TIFF")) == "has levels that are neither of 8 nor of 16 bits; convert it to PNG"


def transparent_kinds() -> dict[str, bytes]:
    image = photograph(32, 32)
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = 255
    alpha = Image.fromarray(mask)
    clear, gray = image.copy(), image.convert("LA")
    clear.putalpha(alpha)
    gray.putalpha(alpha)
    palette = image.quantize(16)
    palette.paste(0, (0, 16, 32, 32))
    return {"rgba png": encoded(clear, "PNG"), "gray png": encoded(gray, "PNG"), "webp": encoded(
        clear, "WEBP", lossless=True), "palette png": encoded(palette, "PNG", transparency=0),
        "palette png with alpha": encoded(clear.quantize(16, Image.Quantize.FASTOCTREE), "PNG"),
        "gif": encoded(palette, "GIF", transparency=0), "tiff": encoded(clear, "TIFF")}


CLEAR = transparent_kinds()


@pytest.mark.parametrize("content", CLEAR.values(), ids=CLEAR)
def test_transparent_pixels_are_black(content: bytes) -> None:
    for preprocessing in (COLOR, GRAY):
        levels = prepare(decode(content), preprocessing.stored)
        assert levels[17:].max() == 0 and levels[:15].max() > 0
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))[:15]
    opaque = expected[..., 3] == 255
    assert opaque.mean() > 0.5
    np.testing.assert_array_equal(prepare(decode(content), COLOR.stored)[:15][opaque], expected[opaque, :3])


def test_of_an_animation_the_first_picture_counts() -> None:
    frames = [photograph(seed=seed).quantize(32) for seed in (1, 2, 3)]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        first = encoded(frames[0].convert("RGB") if kind == "WEBP" else frames[0], kind, **options)
        content = encoded(frames[0].convert("RGB") if kind == "WEBP" else frames[0], kind, save_all=True,
                          append_images=frames[1:], **options)
        np.testing.assert_array_equal(prepare(decode(content), COLOR), prepare(decode(first), COLOR), kind)


# Cameras


TURNS: dict[int, Any] = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, -1)}
"""Levels as they are stored, of a picture that a reader is to turn."""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_pictures_are_turned_upright(kind: str, orientation: int) -> None:
    upright: NDArray[np.uint8] = np.asarray(photograph(24, 40))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    content = encoded(Image.fromarray(np.ascontiguousarray(TURNS[orientation](upright))), kind, exif=exif, **options)
    turned = np.asarray(decode(content)).astype(int)
    assert turned.shape == upright.shape and np.abs(turned - upright).max() <= (8 if kind == "JPEG" else 0)
    assert size_of(content) == (24, True)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0garbage that is no TIFF", b"Exif\0\0II*\0\xff\xff\xff\xff",
                                  b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(20)])
def test_damaged_facts_of_a_camera_do_not_matter(exif: bytes) -> None:
    image = photograph()
    plain = np.asarray(decode(encoded(image, "JPEG")))
    np.testing.assert_array_equal(np.asarray(decode(encoded(image, "JPEG", exif=exif))), plain)


def exif_of(*tags: tuple[int, int, int, bytes]) -> bytes:
    """Return EXIF data with these tags: number, type, count and value."""
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHI4s", *tag) for tag in tags) + bytes(4)


def test_a_picture_is_turned_even_if_its_other_facts_cannot_be_written_again() -> None:
    exif = exif_of((0x0112, 3, 1, b"\3"), (0x011A, 2, 1, b"7"))  # a resolution that is text
    image = photograph()
    turned = np.asarray(decode(encoded(image, "PNG", exif=exif)))
    np.testing.assert_array_equal(turned, np.asarray(image)[::-1, ::-1])


# Damage


def png(width: int, height: int, content: bytes, bits: int = 8, color: int = 0) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


FAULTS = {
    "text": (b"this is text", "is no JPEG, PNG, WebP, BMP, GIF or TIFF picture, or its beginning is damaged; convert"),
    "html": (b"<!DOCTYPE html><html>", "is no JPEG"),
    "truncated jpeg": (PLAIN["jpeg"][:700], "is damaged (image file is truncated"),
    "truncated png": (PLAIN["png"][:500], "is damaged ("),
    "truncated webp": (PLAIN["webp"][:100], "is damaged ("),
    "truncated gif": (PLAIN["gif"][:500], "is damaged ("),
    "truncated bmp": (PLAIN["bmp"][:500], "is damaged ("),
    "truncated tiff": (PLAIN["tiff"][:500], "is damaged ("),
    "beginning of a jpeg": (b"\xff\xd8\xff", "is no JPEG"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(100), "is HEIC, HEIF or AVIF, which are not read; convert it to JPEG"),
    "bomb": (png(40_000, 40_000, zlib.compress(bytes(10**6))), "is too large: 40000x40000 pixels; shrink it to at mos"),
}


@pytest.mark.parametrize(("content", "message"), FAULTS.values(), ids=FAULTS)
def test_a_damaged_picture_is_refused_and_costs_little(content: bytes, message: str) -> None:
    tracemalloc.start()
    try:
        assert fault_of(content).startswith(message)
        if message != "is damaged (":
            assert "; " in fault_of(content) or "truncated" in message
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_the_size_alone_does_not_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    for name, content in PLAIN.items():
        assert size_of(content), name
    with pytest.raises(DataError, match="is too large: 40000x40000"):
        size_of(FAULTS["bomb"][0])
    with pytest.raises(DataError, match="is damaged"):
        size_of(b"text")


def test_files_that_cannot_be_read_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    files = PictureFiles(tmp_path, Names(["a.jpg", "gone.jpg"]), np.zeros((2, 2), np.int64))
    with pytest.raises(DataError, match=r"^is empty$"):
        files.image(0)
    with pytest.raises(DataError, match=r"^cannot be read \(No such file or directory\)$"):
        files.read(1)
    monkeypatch.setattr(pictures, "MOST_BYTES", 10)
    (tmp_path / "a.jpg").write_bytes(bytes(11))
    with pytest.raises(DataError, match=r"^cannot be read \(larger than"):
        read_file(tmp_path / "a.jpg")
    assert files.name(1) == str(tmp_path / "gone.jpg")


# Warnings


def test_decoding_in_threads_leaves_the_filters_of_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`warnings.catch_warnings` would not: it restores what another thread had set."""
    both, inside = threading.Barrier(2), threading.Event()
    real = pictures._opened

    def opened(content: bytes) -> Image.Image:
        both.wait(10)
        if threading.current_thread() is not threading.main_thread():
            inside.wait(10)  # leaves after the main thread, which came later
        return real(content)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        monkeypatch.setattr(pictures, "_opened", opened)
        other = threading.Thread(target=decode, args=(PLAIN["png"],))
        other.start()
        decode(PLAIN["png"])
        warnings.warn("still shown", UserWarning, stacklevel=1)
        inside.set()
        other.join()
        assert list(warnings.filters) == before
    assert [str(each.message) for each in caught] == ["still shown"]


def test_warnings_of_pillow_are_not_shown() -> None:
    content = encoded(photograph(), "PNG", exif=exif_of((0x010E, 2, 400, b"\xff\0\0\0")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(content)
        with pytest.raises(UserWarning, match="Tag data larger than file"):
            Image.open(io.BytesIO(content)).getexif()
