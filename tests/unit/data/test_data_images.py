"""Image files: which way up they are, how deep they are, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_makers import coco_document, save_image, write_coco
from numpy.typing import NDArray
from PIL import Image, ImageOps

from msbal.data import load, read_pixels
from msbal.data.images.image_files import decode, image_size, read_header, turn
from msbal.errors import DataError
from msbal.spec.data import CocoData

RANDOM = np.random.default_rng(0)


def oriented(path: Path, orientation: int, width: int = 6, height: int = 4) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def pixels_of(path: Path, turned: bool) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image) if turned else image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_rule_of_orientation(tmp_path: Path, orientation: int) -> None:
    path = oriented(tmp_path / "a.png", orientation)
    shown = pixels_of(path, turned=True)
    height, width = shown.shape[:2]
    assert image_size(path) == (width, height)
    assert np.array_equal(read_pixels(path), shown)
    assert np.array_equal(read_pixels(path, width, height), shown)
    if orientation > 4:
        assert np.array_equal(read_pixels(path, 6, 4), pixels_of(path, turned=False)), "annotated as stored"
    assert np.array_equal(turn(pixels_of(path, turned=False), orientation), shown)


def test_an_orientation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    content = oriented(tmp_path / "a.png", 6).read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    without = content[:start] + content[end:]
    at = without.index(b"IEND") - 4
    (tmp_path / "late.png").write_bytes(without[:at] + content[start:end] + without[at:])
    assert read_header(tmp_path / "late.png").orientation == 6
    assert np.array_equal(read_pixels(tmp_path / "late.png"), read_pixels(tmp_path / "a.png"))


DEEP = {
    "grey16.png": RANDOM.integers(0, 2**16, (4, 6)).astype(np.uint16),
    "grey16.tif": RANDOM.integers(0, 2**12, (4, 6)).astype(np.uint16),
    "int32.tif": RANDOM.integers(0, 2**20, (4, 6)).astype(np.int32),
    "float.tif": RANDOM.random((4, 6)).astype(np.float32),
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits_are_refused(tmp_path: Path, name: str) -> None:
    Image.fromarray(DEEP[name]).save(tmp_path / name)
    with pytest.raises(
        DataError, match=rf"{name}: has (16 bits|32 bits|floating-point numbers) a channel .*; save "
    ):
        read_pixels(tmp_path / name)


def png(width: int, height: int, depth: int, colour: int, row: bytes) -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    lines = zlib.compress((b"\0" + row) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4)])
def test_16_bits_a_channel_in_colour_are_refused(tmp_path: Path, colour: int, channels: int) -> None:
    """Pillow calls such a file RGB and cuts off the lower half: of 12 bits in 16, all but black is left."""
    (tmp_path / "deep.png").write_bytes(png(6, 4, 16, colour, b"\x0f\xff" * 6 * channels))
    with pytest.raises(DataError, match="has 16 bits a channel"):
        read_pixels(tmp_path / "deep.png")
    (tmp_path / "flat.png").write_bytes(png(6, 4, 8, colour, b"\x0f" * 6 * channels))
    assert read_pixels(tmp_path / "flat.png").tolist() == [[[15] * 3] * 6] * 4


def test_half_an_image_is_found_by_decoding_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    decode(path)
    path.write_bytes(path.read_bytes()[:-600])
    assert read_header(path).size == (64, 64)
    with pytest.raises(DataError, match="truncated"):
        decode(path)


def spec(folder: Path) -> CocoData:
    return CocoData.model_validate(
        {"format": "coco", "root": folder, "train": {"annotations": "instances.json", "images": "images"}}
    )


def test_orientations_are_said_once(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_document(("a.png", "b.png", "c.png", "d.png")))
    oriented(tmp_path / "images" / "a.png", 3, 40, 30)
    oriented(tmp_path / "images" / "b.png", 6, 30, 40)
    assert load(spec(tmp_path), "train").notes == (
        "2 of 4 images carry an EXIF orientation and are turned as it says; of 1 the size cannot tell whether they "
        "were annotated so, e.g. a.png: if not, remove the orientation from the files",
    )
    oriented(tmp_path / "images" / "c.png", 6, 40, 30)
    (note,) = load(spec(tmp_path), "train").notes
    assert "3 of 4 images" in note and "except 1 that are annotated as stored, e.g. c.png" in note
    for name in "ab":
        save_image(tmp_path / "images" / f"{name}.png")
    (note,) = load(spec(tmp_path), "train").notes
    assert note == "1 of 4 images carry an EXIF orientation and are annotated as stored: they are not turned"


def test_deep_images_are_counted(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_document(("a.png", "b.png", "c.png")))
    for name in "bc":
        Image.fromarray(np.zeros((30, 40), np.uint16)).save(tmp_path / "images" / f"{name}.png")
    with pytest.raises(
        DataError, match=r"b.png has 16 bits .*\(2 of 3 images looked at are wrong, also c.png\); save "
    ):
        load(spec(tmp_path), "train")
