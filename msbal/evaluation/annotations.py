"""A COCO annotation file as ground truth, without the images it speaks of.

`msbal.data` prepares a data set for training: it looks for every image and clips boxes to them. Here the
boxes stay as they are written, and no image is needed, so that the figures are those which pycocotools
gives for the same two files.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from msbal.data.jsonfile import read_json
from msbal.data.model import DetectionData, ImageRecord
from msbal.errors import DataError

WHAT = "a COCO annotation file (JSON with images, annotations and categories)"


def read_annotations(path: Path, images: Path | None = None) -> DetectionData:
    """Read the ground truth of one split.

    Args:
        path: the JSON file.
        images: the folder that its ``file_name`` entries are relative to; the file's own by default. It is
            not looked into.

    Raises:
        DataError: where the file cannot be used; one line that names the entry at fault.
    """
    document = read_json(path, WHAT)
    if not isinstance(document, dict):
        raise DataError(str(path), "holds no JSON object", WHAT)
    categories = [
        (_whole(entry, "id", path, f"categories[{n}]"), str(entry.get("name", entry["id"])))
        for n, entry in enumerate(_list(document, "categories", path))
    ]
    label_of = {id_: label for label, (id_, _) in enumerate(categories)}
    names = [name for _, name in categories]
    if len(set(names)) < len(names):
        # Two classes of one name stay two classes, as they do in pycocotools.
        names = [f"{name} ({id_})" if names.count(name) > 1 else name for id_, name in categories]
    entries = _list(document, "images", path)
    ids = [_whole(entry, "id", path, f"images[{n}]") for n, entry in enumerate(entries)]
    for what, found in (("categories", [id_ for id_, _ in categories]), ("images", ids)):
        if not found:
            raise DataError(str(path), f"lists no {what}", "at least one")
        if len(set(found)) < len(found):
            raise DataError(str(path), f"two {what} have the same id", "an id of its own for each")

    rows: dict[int, list[tuple[list[float], int, float, bool, bool]]] = {id_: [] for id_ in ids}
    for n, entry in enumerate(_list(document, "annotations", path)):
        where = f"annotations[{n}]"
        image, category = (_whole(entry, key, path, where) for key in ("image_id", "category_id"))
        if image not in rows:
            raise DataError(str(path), f"{where} belongs to image {image}", "the id of an entry in `images`")
        if category not in label_of:
            raise DataError(str(path), f"{where} has category {category}", "an id in `categories`")
        x, y, width, height = _box(entry, path, where)
        area = entry.get("area", width * height)
        if not _is_number(area):
            raise DataError(str(path), f"{where}: `area` is {area!r}", "a number of square pixels")
        box = [x, y, x + width, y + height]
        crowd, difficult = bool(entry.get("iscrowd", 0)), bool(entry.get("difficult", 0))
        rows[image].append((box, label_of[category], float(area), crowd, difficult))

    folder = images if images is not None else path.parent
    records = []
    for id_, entry in zip(ids, entries, strict=True):
        mine = rows[id_]
        sides = [int(value) if _is_number(value := entry.get(key)) else 0 for key in ("width", "height")]
        records.append(
            ImageRecord(
                id=id_,
                path=folder / str(entry.get("file_name", id_)),
                width=sides[0],
                height=sides[1],
                boxes=np.array([row[0] for row in mine], dtype=np.float32).reshape(-1, 4),
                labels=np.array([row[1] for row in mine], dtype=np.int64),
                area=np.array([row[2] for row in mine], dtype=np.float32),
                crowd=np.array([row[3] for row in mine], dtype=np.bool_),
                difficult=np.array([row[4] for row in mine], dtype=np.bool_),
            )
        )
    return DetectionData(path.stem, tuple(names), tuple(id_ for id_, _ in categories), tuple(records))


def _list(document: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    entries = document.get(key)
    if not isinstance(entries, list):
        raise DataError(str(path), f"has no list `{key}`", WHAT)
    for n, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(str(path), f"{key}[{n}] is no object", WHAT)
    return entries


def _whole(entry: dict[str, Any], key: str, path: Path, where: str) -> int:
    value = entry.get(key)
    if not _is_number(value) or value != int(value) or abs(value) >= 2**63:
        raise DataError(str(path), f"{where}: `{key}` is {value!r}", "a whole number")
    return int(value)


def _box(entry: dict[str, Any], path: Path, where: str) -> list[float]:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise DataError(str(path), f"{where}: `bbox` is {box!r}", "four numbers: x, y, width, height")
    return [float(value) for value in box]


def _is_number(value: Any) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and abs(value) < 1e38
