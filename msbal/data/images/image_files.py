"""Image files: their headers, and their pixels by the one rule that all backends, evaluation and drawing follow.

The rule: an image is turned by its EXIF orientation, unless the annotated size only fits it as stored. Where the size
cannot tell (orientations 2, 3 and 4, squares) it is turned, as browsers and annotation tools do. Only images with 8
bits a channel are read: how to scale others is not for a library to guess.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msbal.data.files import kind_of, named
from msbal.errors import DataError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_ORIENTATION = 0x0112  # the EXIF tag
_SIDEWAYS = frozenset({5, 6, 7, 8})
# What Pillow clips or cuts to 8 bits silently: by its mode, or the raw mode of the file's content.
_DEEP_MODES = {"I": "32 bits", "F": "floating-point numbers"}
_DEEP_RAW = (";32", ";16", ";12")


@dataclass(frozen=True)
class Header:
    """The header of an image file.

    Attributes:
        size: width and height as stored, in pixels.
        orientation: EXIF's, 1 to 8; 1 where there is none.
        elsewhere: whether the orientation is in XMP or a text instead, where not every reader looks.
        format, mode: Pillow's names, e.g. ``JPEG`` and ``RGB``.
        depth: of a channel, e.g. ``16 bits``; empty where it is 8 bits.
    """

    size: tuple[int, int]
    orientation: int
    elsewhere: bool
    format: str
    mode: str
    depth: str

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height when turned by the orientation."""
        return self.size[::-1] if self.orientation in _SIDEWAYS else self.size

    def is_turned(self, width: int, height: int) -> bool:
        """Tell whether an image annotated as `width` x `height` is turned; 0 x 0 if unknown."""
        fits_only_stored = (width, height) == self.size != self.shown
        return self.orientation != 1 and not fits_only_stored


def read_header(path: Path) -> Header:
    """Read the header of an image file; no pixel is decoded.

    Raises:
        DataError: where it is not an image that Pillow can open.
    """
    with _opened(path) as image:
        return _header(image)


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height in pixels as shown: turned by the EXIF orientation.

    Raises:
        DataError: where it is not an image that Pillow can open.
    """
    return read_header(path).shown


def misfit(header: Header, width: int, height: int) -> tuple[str, str] | None:
    """Return what is wrong with an image that is annotated as `width` x `height`, and what to do; None if nothing is.

    What to do is empty where it depends on the user's data.
    """
    if header.depth:
        return f"has {header.depth} a channel ({header.mode}) and would be read wrongly", (
            "save images with 8 bits a channel, scaled by one rule of your own for all of them, e.g. "
            "255 * (value - low) / (high - low) with the same low and high"
        )
    if (width, height) in (header.shown, header.size):
        return None
    return f"is {header.shown[0]} x {header.shown[1]} pixels, its annotation says {width} x {height}", ""


def read_pixels(path: Path, width: int = 0, height: int = 0) -> NDArray[np.uint8]:
    """Return the pixels of an image, ``[H, W, 3]`` RGB.

    Args:
        width, height: as annotated; 0 if unknown.

    Raises:
        DataError: where the file cannot be read, or does not fit what is annotated.
    """
    with _opened(path) as image:
        header = _header(image)
        # First, because a few bytes may announce gigabytes of pixels.
        wrong = misfit(header, *((width, height) if width and height else header.shown))
        if wrong is not None:
            problem, remedy = wrong
            raise DataError(named(path), problem, fix=remedy)
        return turn(
            np.array(image.convert("RGB")), header.orientation if header.is_turned(width, height) else 1
        )


def turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn pixels ``[H, W, 3]`` as stored by an EXIF orientation; the result is contiguous."""
    if orientation in _SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    # Mirror rows, columns or both, once rows and columns are exchanged.
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if rows else 1, :: -1 if columns else 1])


def decode(path: Path) -> None:
    """Decode an image as far as needed to know that it is complete.

    Raises:
        DataError: where it is not.
    """
    with _opened(path) as image:
        # An eighth of a JPEG's size is enough, and takes half the time.
        image.draft(image.mode, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep Pillow quiet ("possible decompression bomb", damaged EXIF); for one thread, around those that read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile]:
    from PIL import Image, UnidentifiedImageError

    if kind_of(path) != "file":
        raise DataError(named(path), "is not a file", "an image")
    try:
        with Image.open(path) as image:
            yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(named(path), "is not an image that can be read", "a JPEG or PNG") from error
    except Exception as error:  # Pillow's readers raise anything on damaged files
        found = f"is not an image that can be read: {type(error).__name__}: {error}"
        raise DataError(named(path), found, "a JPEG or PNG") from error


def _header(image: ImageFile) -> Header:
    depth = _depth(image)  # first: looking for EXIF in a PNG can decode it
    orientation = _orientation(image)
    elsewhere = orientation != 1 and not _is_in_exif(image)
    return Header(image.size, orientation, elsewhere, image.format or "", image.mode, depth)


def _orientation(image: ImageFile) -> int:
    from PIL import Image as PillowImage

    # Pillow decodes all pixels of a PNG to look behind them.
    has_none = image.format == "PNG" and not _has_exif(image.fp)
    try:
        exif = PillowImage.Image.getexif(image) if has_none else image.getexif()
        value = exif.get(_ORIENTATION, 1)
    except Exception:  # an image with damaged EXIF can be shown all the same
        return 1
    return value if type(value) is int and 1 <= value <= 8 else 1


def _has_exif(file: IO[bytes] | None) -> bool:
    """Tell whether one of a PNG file's chunks is EXIF."""
    assert file is not None
    start = file.tell()
    file.seek(len(b"\x89PNG\r\n\x1a\n"))
    while len(head := file.read(8)) == 8 and head[4:] != b"eXIf":
        file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)  # its content and checksum
    file.seek(start)
    return head[4:] == b"eXIf"


def _is_in_exif(image: ImageFile) -> bool:
    from PIL import Image as PillowImage

    exif = PillowImage.Exif()
    exif.load(image.info.get("exif", b""))
    return _ORIENTATION in exif or _ORIENTATION in getattr(image, "tag_v2", ())


def _depth(image: ImageFile) -> str:
    """Return the depth of a channel where it is more than 8 bits."""
    if image.mode in _DEEP_MODES:
        return _DEEP_MODES[image.mode]
    tiles = [tile[3] for tile in getattr(image, "tile", ())]
    if image.format == "PPM" and any(isinstance(it, tuple) and it[1:2] > (255,) for it in tiles):
        return "16 bits"
    for raw in (image.mode, *(_raw_mode(tile) for tile in tiles)):
        for mark in _DEEP_RAW:
            if mark in raw:
                return f"{mark[1:]} bits"
    return ""


def _raw_mode(arguments: Any) -> str:
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""
