"""What a COCO annotation file says, by column: the one reading of it that training and evaluation share.

Source: the format's page, https://cocodataset.org/#format-data. Stands in for ``pycocotools.coco.COCO`` (which
believes what it reads); exporters write many things otherwise, and where it is plain what they mean, it is read:

- Numbers may be written as texts, and null or an empty text is as good as missing.
- Ids that are texts give way to the numbers 1, 2, ... in the order of the texts, as pycocotools ranks them.
- ``area`` of 0 or less, or larger than any image, is as good as missing: then it is the box's. (pycocotools takes
  0 as it is, and counts the object as small.)
- ``ignore`` makes a crowd of an object: not trained, not held against a model. (pycocotools overwrites it.)
- Ids of annotations are not used. (pycocotools confuses annotations of one id, and takes 0 for "not found".)
- Names of classes are read without line breaks and blanks around them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from types import NoneType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from msbal.data.files import listed, printable, shown
from msbal.data.jsonfile import OutlineBox
from msbal.errors import DataError

WHAT = "a COCO annotation file (JSON with images, annotations and categories)"
LARGEST_SIDE = 2**20  # pixels; float32 holds box edges up to here to 1/16 pixel
_LARGEST_ID = 2**63 - 1
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"(-?\d{1,19})(\.0+)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufeff]")
_FLAGS = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True)
class CocoFile:
    """A file's content: I images, M annotations in the file's order.

    Attributes:
        where: the file, for messages.
        image_ids, file_names: ``[I]``; a name is empty where there is none.
        sizes: ``[I, 2]`` width, height; 0 where not given.
        categories: id and name of each.
        annotation_ids: ``[M]``, anything; for messages only.
        rows: ``[M]`` index into the images.
        category: ``[M]`` index into the categories.
        boxes: ``[M, 4]`` float64, x, y, width, height as written.
        area: ``[M]`` float64, square pixels; NaN where not given.
        crowd, difficult: ``[M]`` bool.
        image_numbers, category_numbers: see `msbal.data.model.DetectionData`.
        notes: what was read otherwise than it is written.
    """

    where: str
    image_ids: list[int]
    file_names: list[str]
    sizes: NDArray[np.int64]
    categories: list[tuple[int, str]]
    annotation_ids: list[Any]
    rows: NDArray[np.int64]
    category: NDArray[np.int64]
    boxes: NDArray[np.float64]
    area: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    image_numbers: Mapping[str, int]
    category_numbers: Mapping[str, int]
    notes: list[str]

    def annotation(self, index: int) -> str:
        """An annotation's id, or its place where it has none."""
        id_ = self.annotation_ids[index]
        return f"annotations[{index}]" if id_ is None else printable(str(id_)[:60])

    @property
    def corners(self) -> NDArray[np.float64]:
        """``[M, 4]`` x1, y1, x2, y2."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], axis=1)


def parse_coco(document: Any, where: str, *, needs_names: bool = True) -> CocoFile:
    """Read what `msbal.data.jsonfile.read_json` gives.

    Args:
        where: the file, for messages.
        needs_names: refuse images without ``file_name`` and ``coco_url``.

    Raises:
        DataError: one line that names the entry at fault and what should stand there.
    """
    images, categories, annotations = (
        _Group(document, key, where) for key in ("images", "categories", "annotations")
    )
    image_ids = images.ids("an id of its own for every image")
    category_ids = categories.ids("an id of its own for every category")
    file_names = _file_names(images, needs_names)
    class_names, of_names = _class_names(categories, category_ids)
    notes = [*image_ids.notes, *category_ids.notes, *of_names]
    rows = annotations.references("image_id", image_ids, "belongs to image", "the id of an entry in `images`")
    ids_known = listed(map(str, category_ids.row_of), len(category_ids.row_of), 10)
    category = annotations.references(
        "category_id", category_ids, "has category", f"one of the ids in `categories`: {ids_known}"
    )
    boxes, area = annotations.boxes(), annotations.numbers("area")
    crowd, ignored = annotations.flags("iscrowd"), annotations.flags("ignore")
    ids = annotations.column("id")
    file = CocoFile(
        where, image_ids.numbers, file_names, images.sizes(), list(zip(category_ids.numbers, class_names, strict=True)),
        ids, rows, category, boxes, _trusted(area), crowd | ignored, annotations.flags("difficult"),
        image_ids.by_text, category_ids.by_text, notes,
    )  # fmt: skip
    notes += [
        *_texts(images, categories, annotations),
        *_of_annotations(annotations, ids, boxes, area, ignored & ~crowd),
    ]
    return file


def id_of(text: str) -> int | str:
    """What an id that is written as a text stands for: a number of 64 bits if it is one, else the text itself."""
    text = text.strip()
    found = _WHOLE.fullmatch(text)
    number = int(found.group(1)) if found else _LARGEST_ID + 1
    return number if -_LARGEST_ID <= number <= _LARGEST_ID else text


def class_name(text: str) -> str:
    """A class's name without line breaks, other control characters, and blanks around it."""
    return " ".join(_CONTROL.sub(" ", text).split())


@dataclass(frozen=True)
class _Ids:
    """The ids of a group's entries: `row_of` finds each, by its number or by its text."""

    numbers: list[int]
    row_of: Mapping[Any, int]
    by_text: Mapping[str, int]
    notes: list[str]


class _Group:
    """The objects under one key. Columns are read at once where all is as it should be, else value by value.

    Attributes:
        texts: of how many entries a number is written as a text, by key.
        outlined: how many boxes are those around an outline.
    """

    def __init__(self, document: Any, key: str, where: str) -> None:
        self.where, self.key = where, key
        self.texts: Counter[str] = Counter()
        self.outlined = 0
        if not isinstance(document, dict):
            raise DataError(where, f"holds {_kind(document)}", WHAT)
        if key not in document:
            found = f"has no `{key}` (it has {listed(map(str, document), len(document), 6) or 'nothing'})"
            raise DataError(where, found, WHAT)
        entries = document[key]
        if not isinstance(entries, list):
            expected = f"a list of objects{', each with `id` and `name`' if key == 'categories' else ''}"
            raise DataError(where, f"`{key}` is {_kind(entries)}", expected)
        if not set(map(type, entries)) <= {dict}:
            index, entry = next((i, e) for i, e in enumerate(entries) if type(e) is not dict)
            raise DataError(where, f"{key}[{index}] is {_kind(entry)}: {shown(entry)}", "an object")
        if not entries and key != "annotations":
            raise DataError(where, f"lists zero {key}", "at least one")
        self.entries: list[dict[str, Any]] = entries

    def column(self, key: str) -> list[Any]:
        return [entry.get(key) for entry in self.entries]

    def ids(self, expected: str) -> _Ids:
        values = self.column("id")
        keys = self._identities("id", values)
        row_of = {key: row for row, key in enumerate(keys)}
        if len(row_of) < len(keys):
            twice, count = Counter(keys).most_common(1)[0]
            found = f"{count} {self.key} have the id {printable(str(twice))}"
            raise DataError(self.where, found, expected, "renumber them")
        if str not in map(type, keys):
            return _Ids(keys, row_of, {}, [])
        texts = list(map(str, keys))
        by_text = {text: number for number, text in enumerate(sorted(texts), 1)}
        first = printable(next(key for key in keys if type(key) is str)[:60])
        found = f"the ids of {self.key} are texts (`{first}`): numbers from 1, in the texts' order, stand for them"
        return _Ids(
            [by_text[text] for text in texts], {text: row for row, text in enumerate(texts)}, by_text, [found]
        )

    def references(self, key: str, ids: _Ids, found: str, expected: str) -> NDArray[np.int64]:
        """``[M]``: the row of the entry that each names."""
        names = self._identities(key, self.column(key))
        if ids.by_text:
            names = list(map(str, names))
        rows = np.array([ids.row_of.get(name, -1) for name in names], dtype=np.int64)
        if len(rows) and rows.min() < 0:
            index = int(np.argmin(rows))
            raise DataError(self.where, f"{self.name(index)} {found} {shown(names[index])}", expected)
        return rows

    def _identities(self, key: str, values: list[Any]) -> list[Any]:
        """Whole numbers, and texts where something else is written in one."""
        if set(map(type, values)) <= {int}:
            with suppress(OverflowError):
                np.array(values, dtype=np.int64)
                return values
        return [self._identity(index, key, value) for index, value in enumerate(values)]

    def _identity(self, index: int, key: str, value: Any) -> int | str:
        if type(value) is str and value.strip():
            id_ = id_of(value)
            self.texts[key] += type(id_) is int
            return id_
        if type(value) is float and value.is_integer():
            value = int(value)  # pandas turns a column of ids with a gap in it into floats
        if type(value) is not int:
            self.refuse(index, key, "a whole number, or a text")
        if not -_LARGEST_ID <= value <= _LARGEST_ID:
            self.refuse(index, key, "a number of 64 bits")
        return value

    def numbers(self, key: str) -> NDArray[np.float64]:
        """NaN where not given."""
        values = self.column(key)
        if set(map(type, values)) <= {int, float, NoneType}:
            with suppress(OverflowError):
                return np.array(values, dtype=np.float64)
        found = []
        for index, value in enumerate(values):
            is_given = value is not None and value != ""
            found.append(self._number(index, key, value, "a number") if is_given else math.nan)
            self.texts[key] += is_given and type(value) is str
        return np.array(found, dtype=np.float64)

    def _number(self, index: int, key: str, value: Any, expected: str) -> float:
        if type(value) is str and _NUMBER.fullmatch(value.strip()):
            return float(value)
        if type(value) is not float and type(value) is not int:
            self.refuse(index, key, expected)
        try:
            return float(value)
        except OverflowError:  # an integer beyond 1e308
            self.refuse(index, key, "numbers of a size that pixels can have")

    def sizes(self) -> NDArray[np.int64]:
        """``[I, 2]``, 0 where not given."""
        sides = np.stack([self.numbers(key) for key in ("width", "height")], axis=1)
        sides[np.isnan(sides)] = 0
        bad = (sides < 0) | (sides > LARGEST_SIDE) | (sides != np.floor(sides))
        if bad.any():
            index, side = np.argwhere(bad)[0].tolist()
            self.refuse(index, ("width", "height")[side], f"a whole number from 1 to {LARGEST_SIDE}")
        return sides.astype(np.int64)

    def boxes(self) -> NDArray[np.float64]:
        values = self.column("bbox")
        if (
            set(map(type, values)) == {list}
            and set(map(len, values)) == {4}
            and set(map(type, chain.from_iterable(values))) <= {int, float}
        ):
            with suppress(OverflowError):
                flat = np.fromiter(chain.from_iterable(values), np.float64, 4 * len(values))
                return flat.reshape(-1, 4)
        boxes = [self._box(index, value) for index, value in enumerate(values)]
        return np.array(boxes, dtype=np.float64).reshape(-1, 4)

    def _box(self, index: int, value: Any) -> list[float]:
        if not isinstance(value, list) or len(value) != 4:
            self.refuse(index, "bbox", "[x, y, width, height], or polygons as `segmentation`")
        self.outlined += type(value) is OutlineBox
        self.texts["bbox"] += str in map(type, value)
        return [self._number(index, "bbox", side, "four numbers [x, y, width, height]") for side in value]

    def flags(self, key: str) -> NDArray[np.bool_]:
        values = self.column(key)
        try:
            plain = set(values) <= {0, 1, None}
        except TypeError:  # a list
            plain = False
        if not plain:
            values = [self._flag(index, key, value) for index, value in enumerate(values)]
        return np.array(values, dtype=np.bool_)

    def _flag(self, index: int, key: str, value: Any) -> bool:
        if type(value) is str and value.strip().casefold() in _FLAGS:
            self.texts[key] += 1
            return _FLAGS[value.strip().casefold()]
        if value is None or value != value:  # pandas writes NaN for null
            return False
        if isinstance(value, int | float) and value in (0, 1):
            return bool(value)
        self.refuse(index, key, "0 or 1")

    def text(self, index: int, key: str) -> str:
        value = self.entries[index].get(key)
        if type(value) is not str or not value.strip():
            self.refuse(index, key, "a text that is not empty")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # half of a surrogate pair
            self.refuse(index, key, "text in valid Unicode")
        return value

    def name(self, index: int) -> str:
        """An entry, as a message calls it."""
        id_ = self.entries[index].get("id")
        return f"{self.key}[{index}]" + ("" if id_ is None else f" (id {shown(id_)})")

    def refuse(self, index: int, key: str, expected: str) -> NoReturn:
        entry = self.entries[index]
        if key not in entry:
            raise DataError(self.where, f"{self.name(index)} has no `{key}`", expected)
        raise DataError(self.where, f"{self.name(index)}: `{key}` is {shown(entry[key])}", expected)


def _file_names(images: _Group, needed: bool) -> list[str]:
    """The names; addresses where there are no others, as in LVIS."""
    names = []
    for index, entry in enumerate(images.entries):
        key = "coco_url" if "file_name" not in entry and "coco_url" in entry else "file_name"
        names.append(images.text(index, key) if needed or entry.get(key) else "")
    return names


def _class_names(categories: _Group, ids: _Ids) -> tuple[list[str], list[str]]:
    names: list[str] = []
    unnamed, mended = [], []
    for index, (entry, id_) in enumerate(zip(categories.entries, ids.row_of, strict=True)):
        value = entry.get("name")
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is int:
            value = shown(value)
        if value is None or (isinstance(value, str) and not class_name(value)):
            names.append(class_name(str(id_)))
            unnamed.append(names[-1])
            continue
        if value is not entry.get("name"):
            names.append(value)
            continue
        names.append(class_name(categories.text(index, "name")))
        if names[-1] != value:
            mended.append(f"`{value}`")
    notes = []
    if unnamed:
        notes.append(
            f"{len(unnamed)} of {len(names)} categories have no `name`, and are called by their id: "
            f"{listed(unnamed, len(unnamed))}"
        )
    if mended:
        notes.append(
            f"names of classes are read without line breaks and blanks around them: {listed(mended, len(mended))}"
        )
    return names, notes


def _trusted(area: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where((area.astype(np.float32) > 0) & (area <= float(LARGEST_SIDE) ** 2), area, np.nan)


def _texts(*groups: _Group) -> list[str]:
    found = [
        f"`{key}` of {count} {group.key}" for group in groups for key, count in group.texts.items() if count
    ]
    return [f"numbers that are written as texts are read as numbers: {', '.join(found)}"] if found else []


def _of_annotations(
    annotations: _Group,
    ids: list[Any],
    boxes: NDArray[np.float64],
    area: NDArray[np.float64],
    ignored: NDArray[np.bool_],
) -> list[str]:
    """What is to be said of annotations, most of it because pycocotools differs."""
    notes, total = [], len(ids)
    if annotations.outlined:
        notes.append(
            f"{annotations.outlined} of {total} annotations have no `bbox`: the box around their `segmentation` "
            "is taken"
        )
    count = int(ignored.sum())
    if count:
        notes.append(
            f"{count} of {total} boxes are marked `ignore` and treated as crowds: not trained, not held against a "
            "model (pycocotools would count them as objects)"
        )
    with np.errstate(invalid="ignore"):
        flat = int(((area <= 0) & (boxes[:, 2:] > 0).all(axis=1)).sum())
    if flat:
        notes.append(
            f"{flat} of {total} boxes have an `area` of 0 or less: that of the box is taken (pycocotools would count "
            "them as small)"
        )
    return [*notes, *_of_ids([id_ for id_ in ids if id_ is not None])]


def _of_ids(ids: Sequence[Any]) -> list[str]:
    try:
        distinct = set(ids)
    except TypeError:  # a list, say: nobody can go by these
        return []
    notes = []
    if len(distinct) < len(ids):
        twice, count = Counter(ids).most_common(1)[0]
        notes.append(
            f"{len(ids) - len(distinct)} of {len(ids)} annotations repeat the id of another ({count} have the id "
            f"{shown(twice)}): each counts here (pycocotools would count the last of an id for all of them)"
        )
    if 0 in distinct:
        notes.append(
            "an annotation has the id 0: it counts here (pycocotools takes a detection that finds it for a false one)"
        )
    return notes


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
