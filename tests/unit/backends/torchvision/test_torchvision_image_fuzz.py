"""Images cut short or with bytes changed: pixels of the right size, or one line; never a traceback.

``MSBAL_FUZZ_EXAMPLES=10000`` runs this as often.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from msbal.data import ImageRecord
from msbal.data.images.image_files import misfit, read_header
from msbal.errors import DataError
from msbal_torchvision.pixels import read_image

WIDTH, HEIGHT = 40, 30


def _whole(form: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    file, image = io.BytesIO(), Image.fromarray(pixels)
    if form == "JPEG":
        exif = Image.Exif()
        exif[0x0112] = 3
        image.save(file, form, exif=exif)
    else:
        image.save(file, form)
    return file.getvalue()


WHOLE = {form: _whole(form) for form in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")}
changes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6)
early = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=4)


def record(path: Path) -> ImageRecord:
    none = np.zeros((0, 4), np.float32)
    return ImageRecord(
        1, path, WIDTH, HEIGHT, none, none[:, 0].astype(np.int64), none[:, 0], none[:, 0] > 0, none[:, 0] > 0
    )


@settings(max_examples=int(os.environ.get("MSBAL_FUZZ_EXAMPLES", "100")), deadline=None)
@given(st.sampled_from(sorted(WHOLE)), changes, early, st.none() | st.floats(0, 1))
def test_damaged_images(
    form: str, changed: list[tuple[int, int]], header: list[tuple[int, int]], kept: float | None
) -> None:
    content = bytearray(WHOLE[form])
    for at, value in (*changed, *header):
        content[at % len(content)] = value
    if kept is not None:
        del content[int(kept * len(content)) :]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "image"
        path.write_bytes(bytes(content))
        try:
            assert "\n" not in str(DataError("x", *(misfit(read_header(path), WIDTH, HEIGHT) or ("",))))
        except DataError as error:
            assert "\n" not in str(error)
        try:
            pixels = read_image(record(path))
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
        else:
            assert pixels.shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("side", [20_000, 60_000])
def test_an_image_that_swells_is_refused_before_it_is_read(tmp_path: Path, side: int) -> None:
    """A few bytes of PNG whose header speaks of gigabytes."""
    content = bytearray(WHOLE["PNG"])
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    path = tmp_path / "bomb.png"
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"bomb\.png"):
        read_image(record(path))
