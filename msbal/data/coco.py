"""Reading COCO annotation files; everything wrong with one is found here, before training.

Source: the format's page, https://cocodataset.org/#format-data. Stands in for ``pycocotools.coco.COCO``
(which believes what it reads). Official category ids are kept; labels are indices into the classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from msbal.data.boxes import box_area, clip_boxes, describe
from msbal.data.files import listed, locate, named, printable, require_folder, shown
from msbal.data.jsonfile import read_json
from msbal.data.model import DetectionData, DroppedBox, ImageRecord
from msbal.errors import DataError, suggest

WHAT = "a COCO annotation file (JSON with images, annotations and categories)"
_LARGEST_ID = 2**63 - 1
_LARGEST_SIDE = 2**20  # pixels; float32 holds box edges up to here to 1/16 pixel


def read_coco(
    annotations: Path,
    images: Path,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    *,
    partial: bool = False,
) -> DetectionData:
    """Read one split and check all of it.

    Args:
        annotations: the JSON file.
        images: the folder that its ``file_name`` entries are relative to.
        classes: names to train on, in the order of their labels; None takes every category, in the
            file's order. Boxes of other categories are counted in `DetectionData.other_classes`.
        name: what to call the split; the file's stem by default.
        partial: let some of `classes` be absent from the file, as long as one is there: for a
            validation file that is read with the training file's classes.

    Boxes that reach over the image's edge are clipped. Boxes without extent, outside their image or
    with NaN in them are left out and named in `DetectionData.dropped`. ``area`` is kept where it is
    given and positive. ``difficult`` (no COCO key, but `DetectionData.to_coco` writes it) is read.

    Raises:
        DataError: one line that names the file, the entry at fault and what should stand there.
    """
    where = named(annotations)
    document = read_json(annotations, WHAT)
    table = _images(document, where)
    categories = _categories(document, where)
    columns = _annotations(document, where, table, categories)
    chosen = _choose(categories, columns, classes, where, partial)
    paths = _files(table, images, where)
    return _assemble(name or annotations.stem, table, paths, categories, columns, chosen)


def read_categories(annotations: Path) -> tuple[str, ...]:
    """The class names that `read_coco` takes from a file by default.

    Raises:
        DataError: as `read_coco` does.
    """
    where = named(annotations)
    document = read_json(annotations, WHAT)
    categories = _categories(document, where)
    columns = _annotations(document, where, _images(document, where), categories)
    return _choose(categories, columns, None, where, False).names


@dataclass(frozen=True)
class _Images:
    ids: list[int]
    names: list[str]
    sizes: NDArray[np.int64]  # [I, 2] width, height


@dataclass(frozen=True)
class _Columns:
    """Annotations by column, M of them; `ids` are for messages only."""

    ids: list[Any]
    rows: NDArray[np.int64]  # [M] index into the images
    categories: NDArray[np.int64]  # [M] category ids
    boxes: NDArray[np.float64]  # [M, 4] x, y, width, height
    area: NDArray[np.float64]  # [M] NaN where not given
    crowd: NDArray[np.bool_]  # [M]
    difficult: NDArray[np.bool_]  # [M]


@dataclass(frozen=True)
class _Classes:
    names: tuple[str, ...]
    ids: tuple[int, ...]


def _entries(document: Any, key: str, where: str) -> list[dict[str, Any]]:
    """The list under `key`, of which every element is an object."""
    if not isinstance(document, dict):
        raise DataError(where, f"holds {_kind(document)}", WHAT)
    if key not in document:
        found = f"has no `{key}` (it has {listed(map(str, document), len(document), 6) or 'nothing'})"
        raise DataError(where, found, WHAT)
    entries = document[key]
    if not isinstance(entries, list):
        raise DataError(where, f"`{key}` is {_kind(entries)}", "a list of objects")
    for index, entry in enumerate(entries):
        if type(entry) is not dict:
            raise DataError(where, f"{key}[{index}] is {_kind(entry)}: {shown(entry)}", "an object")
    return entries


def _images(document: Any, where: str) -> _Images:
    entries = _entries(document, "images", where)
    if not entries:
        raise DataError(where, "lists zero images", "at least one")
    ids, names, sizes = [], [], []
    for index, entry in enumerate(entries):
        spot = _Spot(where, "images", index)
        ids.append(spot.integer(entry, "id"))
        names.append(spot.text(entry, "file_name"))
        size = [spot.integer(entry, "width"), spot.integer(entry, "height")]
        if not all(0 < side <= _LARGEST_SIDE for side in size):
            found = f"{spot.name(entry)} is {shown(size[0])} x {shown(size[1])} pixels"
            raise DataError(where, found, f"a width and height from 1 to {_LARGEST_SIDE}")
        sizes.append(size)
    _unique(ids, where, "images", "an id of its own for every image")
    return _Images(ids, names, np.array(sizes, dtype=np.int64).reshape(-1, 2))


def _categories(document: Any, where: str) -> list[tuple[int, str]]:
    entries = _entries(document, "categories", where)
    if not entries:
        raise DataError(where, "lists zero categories", "at least one")
    categories = []
    for index, entry in enumerate(entries):
        spot = _Spot(where, "categories", index)
        categories.append((spot.integer(entry, "id"), spot.text(entry, "name")))
    _unique([id_ for id_, _ in categories], where, "categories", "an id of its own for every category")
    return categories


def _annotations(document: Any, where: str, table: _Images, categories: list[tuple[int, str]]) -> _Columns:
    entries = _entries(document, "annotations", where)
    row_of = {id_: row for row, id_ in enumerate(table.ids)}
    known = {id_ for id_, _ in categories}
    ids: list[Any] = []
    rows: list[int] = []
    labels: list[int] = []
    boxes: list[tuple[float, float, float, float]] = []
    areas: list[float] = []
    crowd: list[bool] = []
    difficult: list[bool] = []
    for index, entry in enumerate(entries):
        spot = _Spot(where, "annotations", index)
        ids.append(spot.integer(entry, "id") if "id" in entry else None)
        image = spot.integer(entry, "image_id")
        if image not in row_of:
            found = f"{spot.name(entry)} belongs to image {image}"
            raise DataError(where, found, "the id of an entry in `images`")
        category = spot.integer(entry, "category_id")
        if category not in known:
            found = f"{spot.name(entry)} has category {category}"
            ids_known = listed((str(id_) for id_, _ in categories), len(categories), 10)
            raise DataError(where, found, f"one of the ids in `categories`: {ids_known}")
        rows.append(row_of[image])
        labels.append(category)
        boxes.append(spot.box(entry))
        areas.append(spot.area(entry))
        crowd.append(spot.flag(entry, "iscrowd"))
        difficult.append(spot.flag(entry, "difficult"))
    _unique([id_ for id_ in ids if id_ is not None], where, "annotations", "an id of its own for each")
    return _Columns(
        ids,
        np.array(rows, dtype=np.int64),
        np.array(labels, dtype=np.int64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(areas, dtype=np.float64),
        np.array(crowd, dtype=np.bool_),
        np.array(difficult, dtype=np.bool_),
    )


def _choose(
    categories: list[tuple[int, str]],
    columns: _Columns,
    classes: Sequence[str] | None,
    where: str,
    partial: bool,
) -> _Classes:
    """Which categories are the classes, in which order.

    Roboflow exports a project's name as an unused category 0, which may be a real class's name too: of
    two categories of one name, the one with annotations counts.
    """
    used = set(columns.categories.tolist())
    by_name: dict[str, list[int]] = {}
    for id_, category in categories:
        by_name.setdefault(category, []).append(id_)
    id_of: dict[str, int] = {}
    for category, ids in by_name.items():
        in_use = [id_ for id_ in ids if id_ in used]
        if len(in_use) > 1:
            found = f"categories {in_use[0]} and {in_use[1]} are both named `{printable(category)}`"
            raise DataError(where, found, "a name of its own for every category")
        id_of[category] = (in_use or ids)[0]
    if classes is None:
        kept = {id_of[category] for category in id_of}
        pairs = [(category, id_) for id_, category in categories if id_ in kept]
        return _Classes(tuple(category for category, _ in pairs), tuple(id_ for _, id_ in pairs))
    check_class_list(classes)
    absent = [category for category in classes if category not in id_of]
    if absent and (not partial or len(absent) == len(classes)):
        raise DataError(
            "classes",
            f"`{printable(absent[0])}` is no category of {where}"
            + (f" (nor are {len(absent) - 1} more of the {len(classes)} names)" if len(absent) > 1 else ""),
            fix=suggest(absent[0], list(id_of)[:100]),
        )
    free = max(id_ for id_, _ in categories) + 1
    ids = []
    for category in classes:
        ids.append(id_of.get(category, free))
        free += category not in id_of
    return _Classes(tuple(classes), tuple(ids))


def check_class_list(classes: Sequence[str]) -> None:
    """Raise a DataError where a list of class names is empty or names one twice."""
    if not classes:
        raise DataError("classes", "is an empty list", "at least one name, or no `classes` at all")
    twice = [category for category, count in Counter(classes).items() if count > 1]
    if twice:
        raise DataError("classes", f"`{printable(twice[0])}` is listed twice", "every name once")


def _files(table: _Images, images: Path, where: str) -> list[Path]:
    require_folder(images, f"the folder of the images that {where} lists")
    found = locate(images, table.names)
    missing = [name for name, path in zip(table.names, found, strict=True) if path is None]
    if missing:
        count = "all" if len(missing) == len(found) else str(len(missing))
        raise DataError(
            named(images),
            f"{count} of the {len(found)} images in {where} are missing: {listed(missing, len(missing))}",
            fix="is this the folder that the `file_name` entries are relative to?",
        )
    return [path for path in found if path is not None]


def _assemble(
    name: str,
    table: _Images,
    paths: list[Path],
    categories: list[tuple[int, str]],
    columns: _Columns,
    chosen: _Classes,
) -> DetectionData:
    label_of = {id_: label for label, id_ in enumerate(chosen.ids)}
    labels = np.array([label_of.get(id_, -1) for id_ in columns.categories.tolist()], dtype=np.int64)

    with np.errstate(over="ignore", invalid="ignore"):
        corners = columns.boxes.copy()
        corners[:, 2:] += corners[:, :2]
    boxes, reasons = clip_boxes(corners, table.sizes[columns.rows])

    usable = np.ones(len(labels), dtype=np.bool_)
    usable[list(reasons)] = False
    dropped = tuple(
        DroppedBox(
            image=printable(table.names[columns.rows[index]]),
            annotation=f"annotations[{index}]" if columns.ids[index] is None else str(columns.ids[index]),
            reason=describe(columns.boxes[index], reason),
        )
        for index, reason in sorted(reasons.items())
        if labels[index] >= 0
    )
    names = dict(categories)
    others = Counter(names[id_] for id_ in columns.categories[labels < 0].tolist())
    wanted = np.flatnonzero(usable & (labels >= 0))
    wanted = wanted[np.argsort(columns.rows[wanted], kind="stable")]
    boxes, labels = boxes[wanted], labels[wanted]
    given = columns.area[wanted]
    with np.errstate(invalid="ignore"):
        trusted = (given > 0) & (given <= float(_LARGEST_SIDE) ** 2)
    area = np.where(trusted, np.where(trusted, given, 0).astype(np.float32), box_area(boxes))
    crowd, difficult = columns.crowd[wanted], columns.difficult[wanted]

    bounds = np.searchsorted(columns.rows[wanted], np.arange(len(paths) + 1)).tolist()
    sizes = table.sizes.tolist()
    images = tuple(
        ImageRecord(
            id=table.ids[row],
            path=path,
            width=sizes[row][0],
            height=sizes[row][1],
            boxes=boxes[bounds[row] : bounds[row + 1]],
            labels=labels[bounds[row] : bounds[row + 1]],
            area=area[bounds[row] : bounds[row + 1]],
            crowd=crowd[bounds[row] : bounds[row + 1]],
            difficult=difficult[bounds[row] : bounds[row + 1]],
        )
        for row, path in enumerate(paths)
    )
    return DetectionData(name, chosen.names, chosen.ids, images, dropped, others)


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where in the file an entry stands; names itself only when something is wrong with it."""

    where: str
    group: str
    index: int

    def name(self, entry: dict[str, Any]) -> str:
        id_ = entry.get("id")
        return f"{self.group}[{self.index}]" + ("" if id_ is None else f" (id {shown(id_)})")

    def integer(self, entry: dict[str, Any], key: str) -> int:
        value = entry.get(key)
        if type(value) is float and value.is_integer():
            value = int(value)  # pandas turns a column of ids with a gap in it into floats
        if type(value) is not int:
            self._refuse(entry, key, "a whole number")
        if not -_LARGEST_ID <= value <= _LARGEST_ID:
            self._refuse(entry, key, "a number of 64 bits")
        return value

    def text(self, entry: dict[str, Any], key: str) -> str:
        value = entry.get(key)
        if type(value) is not str or not value.strip():
            self._refuse(entry, key, "a text that is not empty")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # half of a surrogate pair
            self._refuse(entry, key, "text in valid Unicode")
        return value

    def flag(self, entry: dict[str, Any], key: str) -> bool:
        value = entry.get(key)
        if value is not None and value not in (0, 1):
            self._refuse(entry, key, "0 or 1")
        return bool(value)

    def area(self, entry: dict[str, Any]) -> float:
        """NaN where not given."""
        value = entry.get("area")
        if value is None:
            return math.nan
        if type(value) is not float and type(value) is not int:
            self._refuse(entry, "area", "a number")
        return self._float(entry, "area", value)

    def box(self, entry: dict[str, Any]) -> tuple[float, float, float, float]:
        value = entry.get("bbox")
        if type(value) is not list or len(value) != 4:
            self._refuse(entry, "bbox", "[x, y, width, height]")
        for side in value:
            if type(side) is not float and type(side) is not int:
                self._refuse(entry, "bbox", "four numbers [x, y, width, height]")
        x, y, width, height = (self._float(entry, "bbox", side) for side in value)
        return x, y, width, height

    def _float(self, entry: dict[str, Any], key: str, value: float) -> float:
        try:
            return float(value)
        except OverflowError:  # an integer beyond 1e308
            self._refuse(entry, key, "numbers of a size that pixels can have")

    def _refuse(self, entry: dict[str, Any], key: str, expected: str) -> NoReturn:
        if key not in entry:
            raise DataError(self.where, f"{self.name(entry)} has no `{key}`", expected)
        found = f"{self.name(entry)}: `{key}` is {shown(entry[key])}"
        raise DataError(self.where, found, expected)


def _unique(ids: list[int], where: str, group: str, expected: str) -> None:
    if len(set(ids)) != len(ids):
        id_, count = next((id_, count) for id_, count in Counter(ids).items() if count > 1)
        raise DataError(where, f"{count} {group} have the id {id_}", expected, "renumber them")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
