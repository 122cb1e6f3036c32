"""The objects in a COCO file's lists, read key by key with each value checked."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from types import NoneType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from msbal.data.coco.coco_json import OutlineBox
from msbal.data.files import listed, printable, shown
from msbal.errors import DataError

WHAT = "a COCO annotation file (JSON with images, annotations and categories)"
LARGEST_SIDE = 2**20  # pixels; float32 holds box edges up to here to 1/16 pixel
_LARGEST_ID = 2**63 - 1
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"(-?\d{1,19})(\.0+)?", re.ASCII)
_FLAGS = {"0": False, "1": True, "false": False, "true": True}


def id_of(text: str) -> int | str:
    """Return the id that a text means: a number if it is one of 64 bits, else the text itself."""
    text = text.strip()
    found = _WHOLE.fullmatch(text)
    number = int(found.group(1)) if found else _LARGEST_ID + 1
    return number if -_LARGEST_ID <= number <= _LARGEST_ID else text


@dataclass(frozen=True)
class Ids:
    """The ids of the entries under one key; `row_of` maps each, a number or a text, to its row."""

    numbers: list[int]
    row_of: Mapping[Any, int]
    by_text: Mapping[str, int]
    notes: list[str]


class Entries:
    """The objects under one key, read by column; value by value only where one is unusual.

    Attributes:
        texts: number of entries with a number written as text, by key.
        outlined: number of boxes computed from outlines.
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

    def ids(self, expected: str) -> Ids:
        values = self.column("id")
        keys = self._identities("id", values)
        row_of = {key: row for row, key in enumerate(keys)}
        if len(row_of) < len(keys):
            twice, count = Counter(keys).most_common(1)[0]
            found = f"{count} {self.key} have the id {printable(str(twice))}"
            raise DataError(self.where, found, expected, "renumber them")
        if str not in map(type, keys):
            return Ids(keys, row_of, {}, [])
        texts = list(map(str, keys))
        by_text = {text: number for number, text in enumerate(sorted(texts), 1)}
        first = printable(next(key for key in keys if type(key) is str)[:60])
        found = f"the ids of {self.key} are texts (`{first}`): numbers from 1, in the texts' order, stand for them"
        return Ids(
            [by_text[text] for text in texts], {text: row for row, text in enumerate(texts)}, by_text, [found]
        )

    def references(self, key: str, ids: Ids, found: str, expected: str) -> NDArray[np.int64]:
        """Return the row of the entry that each refers to, ``[M]``."""
        names = self._identities(key, self.column(key))
        if ids.by_text:
            names = list(map(str, names))
        rows = np.array([ids.row_of.get(name, -1) for name in names], dtype=np.int64)
        if len(rows) and rows.min() < 0:
            index = int(np.argmin(rows))
            raise DataError(self.where, f"{self.name(index)} {found} {shown(names[index])}", expected)
        return rows

    def _identities(self, key: str, values: list[Any]) -> list[Any]:
        """Return whole numbers, and texts where an id is not a number."""
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
        """Return ``[M]``, NaN where not given."""
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
        """Return ``[I, 2]``, 0 where not given."""
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
        """Name an entry for a message."""
        id_ = self.entries[index].get("id")
        return f"{self.key}[{index}]" + ("" if id_ is None else f" (id {shown(id_)})")

    def refuse(self, index: int, key: str, expected: str) -> NoReturn:
        entry = self.entries[index]
        if key not in entry:
            raise DataError(self.where, f"{self.name(index)} has no `{key}`", expected)
        raise DataError(self.where, f"{self.name(index)}: `{key}` is {shown(entry[key])}", expected)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
