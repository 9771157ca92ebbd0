"""Image files of every mode become network inputs; a file that is not an image is reported, and the others are read."""

from __future__ import annotations

import dataclasses
import gzip
import io
import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_mf.data import pictures
from alexnet_mf.data.image_files import Picture, Unreadable, read, read_all
from alexnet_mf.errors import DataError
from alexnet_mf.spec import Preprocessing
from alexnet_mf.spec.preprocessing import FASHION_MNIST as GRAY
from alexnet_mf.spec.preprocessing import IMAGENET

INVERTED = dataclasses.replace(GRAY, invert=True)
GARMENT = np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)


def saved(path: Path, image: Image.Image | np.ndarray, **options) -> Path:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


def test_an_image_of_the_dataset_keeps_its_pixels(tmp_path):
    path = saved(tmp_path / "a.png", GARMENT)
    pixels = read(path, GRAY)
    assert pixels.dtype == np.uint8 and (pixels == GARMENT).all()
    assert (read(path, INVERTED) == 255 - GARMENT).all()


def test_pixels_are_kept_in_every_mode_with_enough_levels(tmp_path):
    gray = Image.fromarray(GARMENT)
    sixteen = GARMENT.astype(np.uint16) * 257
    for number, image in enumerate([gray.convert("RGB"), gray.convert("RGBA"), gray.convert("LA"), gray.convert("P"),
                                    Image.fromarray(sixteen)]):
        assert (read(saved(tmp_path / f"{number}.png", image), GRAY) == GARMENT).all(), image.mode
    black = Image.fromarray(GARMENT > 127)
    assert black.mode == "1"
    assert (read(saved(tmp_path / "1.png", black), GRAY) == np.where(GARMENT > 127, 255, 0)).all()


def test_a_jpeg_is_read_under_any_file_name(tmp_path):
    flat = Image.new("RGB", (40, 40), (200, 100, 50))
    gray = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)  # ITU-R 601
    for name, image in (("a.jpg", flat), ("b.png", flat), ("c", flat.convert("CMYK")), ("d.JPEG", flat.convert("L"))):
        pixels = read(saved(tmp_path / name, image, format="JPEG", quality=100), GRAY)
        assert np.abs(pixels.astype(int) - gray).max() <= 2, name


def test_an_image_keeps_its_proportions_and_is_centered_on_black(tmp_path):
    pixels = read(saved(tmp_path / "wide.png", np.full((50, 100), 255, np.uint8)), GRAY)
    assert (pixels[7:21] == 255).all() and pixels[:7].max() == pixels[21:].max() == 0
    pixels = read(saved(tmp_path / "small.png", np.full((4, 2), 255, np.uint8)), GRAY)
    assert (pixels[:, 7:21] == 255).all() and pixels[:, :7].max() == pixels[:, 21:].max() == 0


def test_dark_on_light_stays_unless_inverted(tmp_path):
    dark = np.full((28, 14), 255, np.uint8)
    dark[10:18] = 0
    path = saved(tmp_path / "dark.png", dark)
    assert (read(path, GRAY)[:, 7:21] == dark).all()
    inverted = read(path, INVERTED)
    assert (inverted[10:18, 7:21] == 255).all() and inverted.sum() == 255 * 8 * 14  # the margin is still black


def test_transparent_pixels_are_background(tmp_path):
    image = Image.new("RGBA", (28, 28), (90, 200, 30, 0))
    image.paste((128, 128, 128, 255), (0, 0, 28, 10))
    path = saved(tmp_path / "a.png", image)
    assert (read(path, GRAY)[:10] == 128).all() and read(path, GRAY)[10:].max() == 0
    inverted = read(path, INVERTED)
    assert (inverted[:10] == 127).all() and inverted[10:].max() == 0


def test_the_orientation_of_a_camera_is_applied(tmp_path):
    upright = np.zeros((28, 28), np.uint8)
    upright[:5] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    path = saved(tmp_path / "a.png", np.ascontiguousarray(np.rot90(upright)), exif=exif)
    assert (read(path, GRAY) == upright).all()


def test_a_network_of_another_size_takes_gray_of_that_size(tmp_path):
    pixels = read(saved(tmp_path / "a.png", np.full((64, 48), 51, np.uint8)),
                  Preprocessing("gray", resize=(64, 48), fit=True))
    assert pixels.dtype == np.uint8 and pixels.shape == (64, 48) and (pixels == 51).all()


def test_a_color_picture_keeps_its_center(tmp_path):
    picture = np.full((128, 384, 3), (255, 0, 51), np.uint8)
    picture[:, :130] = picture[:, 254:] = picture[:6] = picture[122:] = 0  # cut off: the middle 7/8 of 128 pixels stay
    for name, image in (("a.png", Image.fromarray(picture)), ("b.png", Image.fromarray(picture).convert("RGBA"))):
        pixels = read(saved(tmp_path / name, image), IMAGENET)
        assert pixels.dtype == np.uint8 and pixels.shape == (224, 224, 3) and (pixels == (255, 0, 51)).all(), name


def test_transparent_pixels_of_a_color_picture_are_black_or_white_if_inverted(tmp_path):
    path = saved(tmp_path / "a.png", Image.new("RGBA", (256, 300), (90, 200, 30, 0)))
    assert read(path, IMAGENET).max() == 0
    assert read(path, dataclasses.replace(IMAGENET, invert=True)).max() == 0
    path = saved(tmp_path / "b.png", Image.new("RGBA", (256, 300), (90, 200, 30, 255)))
    assert (read(path, dataclasses.replace(IMAGENET, invert=True)) == (165, 55, 225)).all()


def test_a_picture_that_would_grow_too_large_is_reported_with_its_name(tmp_path):
    path = saved(tmp_path / "a.png", np.zeros((1, 60_000), np.uint8))
    (result,) = read_all([path], IMAGENET)
    assert result == Unreadable(str(path), "is too long: 60000x1 pixels cannot be resized to 15360000x256; crop it")


# Files that are not images


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, content: bytes, bits: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def encode(image: Image.Image, format: str) -> bytes:
    content = io.BytesIO()
    image.save(content, format)
    return content.getvalue()


JPEG = encode(Image.fromarray(GARMENT).resize((300, 300)), "JPEG")


def jpeg_bomb() -> bytes:
    """Return a small JPEG whose header states the largest size of the format."""
    content = bytearray(JPEG)
    at = content.index(b"\xff\xc0") + 5  # after the marker, the length and the bits
    content[at:at + 4] = struct.pack(">2H", 65_535, 65_535)
    return bytes(content)


FAULTS = {
    "text": (b"this is not a picture", "is no JPEG, PNG, .* picture, or its beginning"),
    "empty": (b"", "is empty"),
    "gif": (encode(Image.fromarray(GARMENT), "GIF")[:30], "is damaged"),
    "cut png": (png(28, 28, zlib.compress(bytes(28) + GARMENT.tobytes()))[:400], "is damaged"),
    "cut jpeg": (JPEG[:600], "is damaged"),
    "pixels are missing": (png(28, 28, zlib.compress(bytes(100))), "is damaged"),
    "no zlib": (png(28, 28, b"abcdefgh"), "is damaged"),
    "large": (png(8000, 8000, zlib.compress(bytes(8001 * 8000))), "is too large: 8000x8000 pixels"),
    "a size that cannot be": (png(2**31 - 1, 2**31 - 1, b""), "is too large: 2147483647x2147483647 pixels"),
    "long": (png(70_000, 1, zlib.compress(bytes(70_001))), "is too large: 70000x1 pixels; shrink it .* 65,535 on"),
    "jpeg bomb": (jpeg_bomb(), "is too large: 65535x65535 pixels; shrink it to at most 50,"),
    "bomb": (png(30_000, 30_000, zlib.compress(bytes(10**6)), bits=1), "is too large: 30000x30000 pixels; shrink it"),
}


@pytest.mark.parametrize("content, message", FAULTS.values(), ids=FAULTS)
def test_a_file_that_is_not_an_image_is_refused_and_costs_little(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message) as caught:
            read(path, GRAY)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_bad_files_do_not_stop_the_others(tmp_path):
    good = [saved(tmp_path / "1.png", GARMENT), saved(tmp_path / "3.png", GARMENT)]
    (tmp_path / "2.png").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "labels").write_bytes(struct.pack(">II", 0x801, 3) + bytes(3))
    results = list(read_all([good[0], tmp_path / "2.png", tmp_path / "empty", tmp_path / "gone", tmp_path / "labels",
                             good[1]], GRAY))
    assert [type(each) for each in results] == [Picture, Unreadable, Unreadable, Unreadable, Unreadable, Picture]
    assert [each.name for each in results if isinstance(each, Picture)] == list(map(str, good))
    reasons = [each.reason for each in results if isinstance(each, Unreadable)]
    assert reasons[0].startswith("is no JPEG, PNG")
    assert reasons[1].startswith("has no picture by the names of its files")
    assert reasons[2] == "cannot be read (No such file or directory)"
    assert reasons[3].startswith("wrong magic number 0x00000801")
    assert reasons[3].endswith("give pictures, or idx files of images")


def test_a_folder_yields_its_images_by_name(tmp_path):
    for name in ("b.JPG", "a.png", ".hidden.png", "c.jpeg"):
        saved(tmp_path / name, GARMENT, format="PNG")
    (tmp_path / "d.txt").write_text("no picture")
    (tmp_path / "e.png").mkdir()
    assert [each.name for each in read_all([tmp_path], GRAY)] == [str(tmp_path / name) for name in
                                                                 ("a.png", "b.JPG", "c.jpeg")]
    assert len(list(read_all([tmp_path], GRAY, limit=2))) == 2


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_idx_file_yields_its_images(tmp_path, pack):
    images = np.random.default_rng(1).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    (tmp_path / "x").write_bytes(pack(struct.pack(">4I", 0x803, 5, 28, 28) + images.tobytes()))
    results = list(read_all([tmp_path / "x"], GRAY, limit=3))
    assert [each.name for each in results] == [f"{tmp_path / 'x'}[{i}]" for i in range(3)]
    assert all((each.pixels == image).all() for each, image in zip(results, images))
    inverted = list(read_all([tmp_path / "x"], Preprocessing("gray", resize=(56, 28), fit=True, invert=True)))
    assert len(inverted) == 5 and inverted[0].pixels.shape == (56, 28)
    assert (inverted[0].pixels[14:42] == 255 - images[0]).all()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_reading_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    start = time.monotonic()
    for source in (tmp_path, tmp_path / "a.png"):
        (result,) = read_all([source], GRAY)
        assert isinstance(result, Unreadable) and result.reason == "cannot be read (not a file)"
    assert time.monotonic() - start < 5


def test_a_file_that_never_ends_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_BYTES", 1000)
    (tmp_path / "a.png").write_bytes(bytes(1001))
    with pytest.raises(DataError, match=r"cannot be read \(larger than 0.001 MB\)"):
        read(tmp_path / "a.png", GRAY)
    if Path("/dev/zero").exists():
        with pytest.raises(DataError, match="not a file"):
            read(Path("/dev/zero"), GRAY)
    with pytest.raises(DataError, match="the path has a null byte"):
        read(Path("a\0b"), GRAY)
