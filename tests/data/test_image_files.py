"""Pictures of every kind become what a network takes; whatever is no picture is told, and the others go on."""

from __future__ import annotations

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

from alexnet_mf.data import image_files
from alexnet_mf.data.image_files import Picture, Unreadable, read, read_all
from alexnet_mf.data.preprocessing import PIXEL_SCALE, Preparation
from alexnet_mf.errors import DataError

GREY = Preparation(28, 28)
GARMENT = np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)


def saved(path: Path, image: Image.Image | np.ndarray, **options) -> Path:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


def test_a_data_sets_own_image_passes_as_it_is(tmp_path):
    path = saved(tmp_path / "a.png", GARMENT)
    found = read(path, GREY)
    assert found.dtype == np.uint8 and (found == GARMENT).all()
    assert (read(path, Preparation(28, 28, invert=True)) == 255 - GARMENT).all()


def test_it_passes_in_any_mode_that_can_hold_it(tmp_path):
    grey = Image.fromarray(GARMENT)
    sixteen = GARMENT.astype(np.uint16) * 257
    for number, image in enumerate([grey.convert("RGB"), grey.convert("RGBA"), grey.convert("LA"), grey.convert("P"),
                                    Image.fromarray(sixteen)]):
        assert (read(saved(tmp_path / f"{number}.png", image), GREY) == GARMENT).all(), image.mode
    black = Image.fromarray(GARMENT > 127)
    assert black.mode == "1"
    assert (read(saved(tmp_path / "1.png", black), GREY) == np.where(GARMENT > 127, 255, 0)).all()


def test_a_jpeg_is_read_whatever_its_name(tmp_path):
    flat = Image.new("RGB", (40, 40), (200, 100, 50))
    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)  # ITU-R 601
    for name, image in (("a.jpg", flat), ("b.png", flat), ("c", flat.convert("CMYK")), ("d.JPEG", flat.convert("L"))):
        found = read(saved(tmp_path / name, image, format="JPEG", quality=100), GREY)
        assert np.abs(found.astype(int) - grey).max() <= 2, name


def test_a_picture_keeps_its_proportions_in_the_middle_of_black(tmp_path):
    found = read(saved(tmp_path / "wide.png", np.full((50, 100), 255, np.uint8)), GREY)
    assert (found[7:21] == 255).all() and found[:7].max() == found[21:].max() == 0
    found = read(saved(tmp_path / "small.png", np.full((4, 2), 255, np.uint8)), GREY)
    assert (found[:, 7:21] == 255).all() and found[:, :7].max() == found[:, 21:].max() == 0


def test_dark_on_light_stays_so_unless_inverting_is_asked_for(tmp_path):
    dark = np.full((28, 14), 255, np.uint8)
    dark[10:18] = 0
    path = saved(tmp_path / "dark.png", dark)
    assert (read(path, GREY)[:, 7:21] == dark).all()
    inverted = read(path, Preparation(28, 28, invert=True))
    assert (inverted[10:18, 7:21] == 255).all() and inverted.sum() == 255 * 8 * 14  # the margin is black still


def test_what_is_transparent_is_background(tmp_path):
    image = Image.new("RGBA", (28, 28), (90, 200, 30, 0))
    image.paste((128, 128, 128, 255), (0, 0, 28, 10))
    path = saved(tmp_path / "a.png", image)
    assert (read(path, GREY)[:10] == 128).all() and read(path, GREY)[10:].max() == 0
    inverted = read(path, Preparation(28, 28, invert=True))
    assert (inverted[:10] == 127).all() and inverted[10:].max() == 0


def test_a_camera_held_sideways_is_turned(tmp_path):
    upright = np.zeros((28, 28), np.uint8)
    upright[:5] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = saved(tmp_path / "a.png", np.ascontiguousarray(np.rot90(upright)), exif=exif)
    assert (read(path, GREY) == upright).all()


def test_a_network_of_another_size_takes_scaled_grey(tmp_path):
    found = read(saved(tmp_path / "a.png", np.full((64, 48), 51, np.uint8)), Preparation(64, 48, levels=False))
    assert found.dtype == np.float32 and found.shape == (1, 64, 48)
    np.testing.assert_allclose(found, 0.2, rtol=1e-6)


def test_a_network_in_colour_takes_imagenets_convention(tmp_path):
    picture = np.full((100, 300, 3), (255, 0, 51), np.uint8)
    picture[:, :105] = picture[:, 195:] = picture[:5] = picture[95:] = 0  # only the middle is seen: 7/8 of 100 pixels
    found = read(saved(tmp_path / "a.png", picture), Preparation(32, 32, color=True, levels=False))
    assert found.dtype == np.float32 and found.shape == (3, 32, 32)
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(found, np.broadcast_to(np.reshape(expected, (3, 1, 1)), found.shape), rtol=1e-5)
    shown = Preparation(32, 32, color=True, levels=False).visible(found)
    assert shown.shape == (32, 32, 3) and (shown == (255, 0, 51)).all()


def test_a_network_that_normalizes_by_itself_takes_colours_as_they_are(tmp_path):
    preparation = Preparation(32, 32, color=True, levels=False, normalize=False)
    found = read(saved(tmp_path / "a.png", np.full((40, 40, 3), (255, 0, 51), np.uint8)), preparation)
    np.testing.assert_allclose(found[:, 0, 0], [1, 0, 0.2], rtol=1e-6)
    assert (preparation.visible(found) == (255, 0, 51)).all()
    assert "ImageNet" not in preparation.describe()


def test_the_description_says_what_is_done():
    description = Preparation(28, 28, invert=True).describe()
    assert description.startswith("gray, inverted; resized to fit 28x28, centered on black")
    assert "ImageNet's mean" in Preparation(224, 224, color=True, levels=False).describe()


# What is no picture


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, content: bytes, bits: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def gif() -> bytes:
    content = io.BytesIO()
    Image.fromarray(GARMENT).save(content, "GIF")
    return content.getvalue()


def jpeg() -> bytes:
    content = io.BytesIO()
    Image.fromarray(GARMENT).resize((300, 300)).save(content, "JPEG")
    return content.getvalue()


def jpeg_bomb() -> bytes:
    """It says of itself that it is as large as a JPEG can be."""
    content = bytearray(jpeg())
    at = content.index(b"\xff\xc0") + 5  # after the marker, the length and the bits
    content[at:at + 4] = struct.pack(">2H", 65_535, 65_535)
    return bytes(content)


FAULTS = {
    "text": (b"this is not a picture", "neither a PNG nor a JPEG image, whatever its name"),
    "empty": (b"", "is empty"),
    "gif": (gif(), "neither a PNG nor a JPEG image"),
    "cut png": (png(28, 28, zlib.compress(bytes(28) + GARMENT.tobytes()))[:400], "is damaged"),
    "cut jpeg": (jpeg()[:600], "is damaged"),
    "pixels are missing": (png(28, 28, zlib.compress(bytes(100))), "is damaged"),
    "no zlib": (png(28, 28, b"abcdefgh"), "is damaged"),
    "large": (png(8000, 8000, zlib.compress(bytes(8001 * 8000))), "is too large: 8000x8000 pixels"),
    "a size that cannot be": (png(2**31 - 1, 2**31 - 1, b""), "is too large: 2147483647x2147483647 pixels"),
    "long": (png(70_000, 1, zlib.compress(bytes(70_001))), "is too large: 70000x1 pixels; at most .* 65,535 on a side"),
    "jpeg bomb": (jpeg_bomb(), "is too large: 65535x65535 pixels; at most 50,000,000 pixels"),
    "bomb": (png(30_000, 30_000, zlib.compress(bytes(10**6)), bits=1), "is too large: 30000x30000 pixels; at most 50,"),
}


@pytest.mark.parametrize("content, told", FAULTS.values(), ids=FAULTS)
def test_a_file_that_is_no_picture_is_told_and_costs_little(tmp_path, content, told):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=told) as caught:
            read(path, GREY)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_the_others_go_on(tmp_path):
    good = [saved(tmp_path / "1.png", GARMENT), saved(tmp_path / "3.png", GARMENT)]
    (tmp_path / "2.png").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "labels").write_bytes(struct.pack(">II", 0x801, 3) + bytes(3))
    found = list(read_all([good[0], tmp_path / "2.png", tmp_path / "empty", tmp_path / "gone", tmp_path / "labels",
                           good[1]], GREY))
    assert [type(each) for each in found] == [Picture, Unreadable, Unreadable, Unreadable, Unreadable, Picture]
    assert [each.name for each in found if isinstance(each, Picture)] == list(map(str, good))
    reasons = [each.reason for each in found if isinstance(each, Unreadable)]
    assert reasons[0].startswith("is neither a PNG")
    assert reasons[1].startswith("has no .png, .jpg or .jpeg file")
    assert reasons[2] == "cannot be read (No such file or directory)"
    assert reasons[3].startswith("wrong magic number 0x00000801") and reasons[3].endswith("idx files of 28x28 images")


def test_a_folder_is_its_pictures_by_name(tmp_path):
    for name in ("b.JPG", "a.png", ".hidden.png", "c.jpeg"):
        saved(tmp_path / name, GARMENT, format="PNG")
    (tmp_path / "d.txt").write_text("no picture")
    (tmp_path / "e.png").mkdir()
    assert [each.name for each in read_all([tmp_path], GREY)] == [str(tmp_path / name) for name in
                                                                 ("a.png", "b.JPG", "c.jpeg")]
    assert len(list(read_all([tmp_path], GREY, limit=2))) == 2


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_an_idx_file_is_its_images(tmp_path, pack):
    images = np.random.default_rng(1).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    (tmp_path / "x").write_bytes(pack(struct.pack(">4I", 0x803, 5, 28, 28) + images.tobytes()))
    found = list(read_all([tmp_path / "x"], GREY, limit=3))
    assert [each.name for each in found] == [f"{tmp_path / 'x'}[{i}]" for i in range(3)]
    assert all((each.pixels == image).all() for each, image in zip(found, images))
    inverted = list(read_all([tmp_path / "x"], Preparation(56, 28, levels=False, invert=True)))
    assert len(inverted) == 5 and inverted[0].pixels.shape == (1, 56, 28)
    assert (inverted[0].pixels[0, 14:42] == (255 - images[0]) * PIXEL_SCALE).all()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    start = time.monotonic()
    for source in (tmp_path, tmp_path / "a.png"):
        (found,) = read_all([source], GREY)
        assert isinstance(found, Unreadable) and found.reason == "cannot be read (it is not a file)"
    assert time.monotonic() - start < 5


def test_a_file_that_never_ends_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MOST_BYTES", 1000)
    (tmp_path / "a.png").write_bytes(bytes(1001))
    with pytest.raises(DataError, match=r"cannot be read \(it is larger than 0.001 MB\)"):
        read(tmp_path / "a.png", GREY)
    if Path("/dev/zero").exists():
        with pytest.raises(DataError, match="it is not a file"):
            read(Path("/dev/zero"), GREY)
    with pytest.raises(DataError, match="no path can be like that"):
        read(Path("a\0b"), GREY)
