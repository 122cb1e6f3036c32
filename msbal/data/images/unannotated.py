"""Images that nobody has annotated, as a data set for predictions."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msbal.data.assembly import make_records
from msbal.data.detection_data import DetectionData
from msbal.data.files import named
from msbal.data.folders import file_names, folders_below, is_image
from msbal.data.images.image_check import refuse
from msbal.data.images.image_files import read_header, without_warnings
from msbal.errors import DataError

WHERE = "IMAGES"
_DEPTH = 20  # of folders in folders


def find_unannotated(names: Sequence[str]) -> list[Path]:
    """Return the images that are named by files, folders (with all below them) and patterns.

    Raises:
        DataError: where a name matches nothing, or no image.
    """
    found: dict[str, Path] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            listed = [
                folder / file
                for folder in folders_below(path, _DEPTH)
                for file in sorted(file_names(folder))
                if is_image(file)
            ]
        elif path.exists():
            listed = [path]
        elif glob.has_magic(name):
            matching = map(Path, sorted(glob.glob(name, recursive=True)))  # noqa: PTH207 - takes absolute patterns
            listed = [file for file in matching if is_image(file.name) and file.is_file()]
        else:
            raise DataError(
                WHERE, f"{named(name)}: no such file or folder", "images, folders of images or patterns"
            )
        if not listed:
            kind = "folder without" if path.is_dir() else "pattern that matches no"
            raise DataError(WHERE, f"{named(name)}: a {kind} images", "files such as .jpg or .png")
        found.update((os.path.abspath(file), file) for file in listed)  # noqa: PTH100 - keeps the name of a link
    return list(found.values())


def read_unannotated(
    paths: Sequence[Path], classes: Sequence[str], category_ids: Sequence[int]
) -> DetectionData:
    """Return images without boxes, as they are shown: turned by their EXIF orientation.

    Raises:
        DataError: where images cannot be read, naming the first, with how many there are.
    """
    sizes: list[tuple[int, int]] = []
    wrong: list[tuple[Path, str, str]] = []
    with without_warnings():
        for path in paths:
            try:
                sizes.append(read_header(path).shown)
            except DataError as error:
                wrong.append((path, error.found, "leave it out"))
    refuse(wrong, len(paths), WHERE)
    none = np.zeros(0, np.int64)
    records = make_records(
        paths, np.array(sizes, np.int64), none, np.zeros((0, 4), np.float32), none, np.zeros(0, np.bool_)
    )
    return DetectionData("the images", tuple(classes), tuple(category_ids), records)
