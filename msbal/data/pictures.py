"""Looking at image files without decoding them: their size, and whether they are images at all."""

from __future__ import annotations

import warnings
from pathlib import Path

from msbal.data.files import kind_of, named
from msbal.errors import DataError

_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 lie on their side


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as stored, from the file's header.

    Raises:
        DataError: where it is not an image that Pillow can open.
    """
    return _open(path)[0]


def size_matches(path: Path, width: int, height: int) -> str | None:
    """What is wrong with an image that should be `width` x `height`; None where nothing is.

    An image that its EXIF orientation lays on its side may be given in either way: some tools annotate
    what is stored, some what is shown.
    """
    try:
        size, sideways = _open(path)
    except DataError as error:
        return error.found
    if (width, height) == size or (sideways and (height, width) == size):
        return None
    return f"is {size[0]} x {size[1]} pixels, its annotation says {width} x {height}"


def _open(path: Path) -> tuple[tuple[int, int], bool]:
    from PIL import Image, UnidentifiedImageError

    if kind_of(path) != "file":
        raise DataError(named(path), "is not a file", "an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "possible decompression bomb", damaged EXIF
            with Image.open(path) as image:
                size = image.size
                sideways = image.getexif().get(_ORIENTATION, 1) in {5, 6, 7, 8}
        return size, sideways
    except UnidentifiedImageError as error:
        raise DataError(named(path), "is not an image that can be read", "a JPEG or PNG") from error
    except Exception as error:  # Pillow's readers raise anything on damaged headers
        found = f"is not an image that can be read: {type(error).__name__}: {error}"
        raise DataError(named(path), found, "a JPEG or PNG") from error
