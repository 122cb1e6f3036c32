"""Predictions as a whole COCO document, which other tools read: images, detections with scores, categories."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msbal.data import DetectionData


def prediction_document(
    data: DetectionData, entries: Sequence[dict[str, Any]], description: str
) -> dict[str, Any]:
    """Return a COCO document whose ``annotations`` are detections: each has a ``score``, and its box's area.

    An image's ``file_name`` is its path in the folder that holds them all, ``info.image_folder``.

    Args:
        entries: in COCO results format.
    """
    document = data.to_coco()
    folder, names = names_in_common_folder([image.path for image in data.images])
    for image, name in zip(document["images"], names, strict=True):
        image["file_name"] = name
    document["info"] = {"description": description, "image_folder": str(folder)}
    document["annotations"] = [
        {"id": number, "area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0, **entry}
        for number, entry in enumerate(entries, start=1)
    ]
    return document


def names_in_common_folder(paths: Sequence[Path]) -> tuple[Path, list[str]]:
    """Return the deepest folder that holds all files, absolute, and their paths in it, with ``/``."""
    whole = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - unlike resolve, it keeps the names of links
    folder = Path(os.path.commonpath([path.parent for path in whole]))
    return folder, [path.relative_to(folder).as_posix() for path in whole]
