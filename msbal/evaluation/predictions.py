"""Reads predictions in COCO results format; damage is counted and never raises a traceback.

An entry that is no detection (a missing key, a wrong type, NaN, an unknown image or class) is left out and
counted by reason. A *bad* detection (a box outside its image) stays: it is a false positive, and leaving it
out would flatter the detector.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msbal.data import DetectionData
from msbal.data.coco.coco_entries import id_of
from msbal.errors import DataError
from msbal.evaluation.detections import Detections

KEYS = ("image_id", "category_id", "bbox", "score")
_NEVER = np.iinfo(np.int64).min  # stands for an id that no data set has


@dataclass(frozen=True)
class Remarks:
    """What was odd about a set of predictions.

    Attributes:
        total: entries looked at.
        dropped: how many were left out, by reason in words.
        kept: how many are odd and count all the same, by reason in words.
        notes: sentences about them as a whole.
        damage: what is wrong with the file as a whole, or an empty string.
    """

    total: int
    dropped: dict[str, int]
    kept: dict[str, int]
    notes: tuple[str, ...] = ()
    damage: str = ""

    def lines(self) -> list[str]:
        """Return one sentence per kind of oddity."""
        found = [self.damage] if self.damage else []
        found += [
            f"{count:,} of {self.total:,} predictions left out: {reason}"
            for reason, count in self.dropped.items()
        ]
        found += [f"{count:,} of {self.total:,} predictions {reason}" for reason, count in self.kept.items()]
        return [*found, *self.notes]


def read_predictions(path: Path, data: DetectionData) -> tuple[list[dict[str, Any]], Detections, Remarks]:
    """Read a results file, in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    A file that breaks off, or that holds one JSON object a line, gives what is whole in it.

    Returns:
        the usable entries as they stand in the file, the same as columns, and what was odd.

    Raises:
        DataError: where the file cannot be read, is no list of predictions, or none of them belongs
            to `data`.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(str(path), error.strerror or str(error), "a predictions file") from error
    entries, damage = _parse(raw.decode(json.detect_encoding(raw), errors="replace"), path)
    detections, keep, remarks = sift(entries, data)
    remarks = replace(remarks, damage=damage)
    if entries and not len(detections):
        raise DataError(
            str(path),
            f"none of its {len(entries):,} predictions can be used ({'; '.join(remarks.dropped)})",
            f"predictions for the images of `{data.name}`",
            *(remarks.notes or ("check that predictions and annotations belong together",)),
        )
    return [entries[i] for i in keep.tolist()], detections, remarks


def sift(entries: Sequence[Any], data: DetectionData) -> tuple[Detections, NDArray[np.int64], Remarks]:
    """Turn results entries into columns and leave out what is no detection.

    Returns:
        D detections, the index in `entries` of each (``[D]``), and what was odd.
    """
    dropped: dict[str, int] = {}
    kept: dict[str, int] = {}
    columns = _columns_at_once(entries)
    index: NDArray[np.int64] = np.arange(len(entries), dtype=np.int64)
    if columns is None:
        index, columns = _columns_one_by_one(entries, data, dropped)
        ids = ((entries[i]["image_id"], entries[i]["category_id"]) for i in index.tolist())
        texts = sum(str in map(type, pair) for pair in ids)
        if texts:
            kept["have ids that are texts: they are read as those of the ground truth are"] = texts
    image_id, category_id, box, score = columns
    image = _lookup(image_id, [record.id for record in data.images])
    label = _lookup(category_id, data.category_ids)
    good = np.ones(len(score), dtype=np.bool_)

    def leave_out(bad: NDArray[np.bool_], reason: str) -> None:
        count = int((bad & good).sum())
        if count:
            dropped[reason] = dropped.get(reason, 0) + count
            good[bad] = False

    leave_out(~np.isfinite(score), "the score is NaN or infinite")
    leave_out(np.logical_not(np.isfinite(box).all(axis=1)), "the box is NaN or infinite")
    leave_out(box[:, 2:].min(axis=1, initial=0.0) < 0, "the box has a negative width or height")
    leave_out(image < 0, "the image is unknown")
    notes = _other_numbers(category_id[good], data)
    leave_out(label < 0, "the category is unknown")
    detections = Detections(image[good], label[good], box[good], score[good])
    size = np.array([(i.width, i.height) for i in data.images], dtype=np.float64).reshape(-1, 2)[
        detections.image
    ]
    # A data set that does not know the size of an image says 0: then nothing can be said.
    outside = (detections.box[:, :2] >= size) | (detections.box[:, :2] + detections.box[:, 2:] <= 0)
    beyond = int((outside & (size > 0)).any(axis=1).sum())
    if beyond:
        kept["lie outside their image: they count as false positives"] = beyond
    return detections, index[good], Remarks(len(entries), dropped, kept, notes)


def _other_numbers(category_id: NDArray[np.int64], data: DetectionData) -> tuple[str, ...]:
    """Return a question where numbers of classes seem to stand in place of category ids."""
    known = sorted(data.category_ids)
    if not len(category_id) or not known:
        return ()
    low, high = int(category_id.min()), int(category_id.max())
    from_zero = low == 0 < known[0] and high < len(known)
    from_one = low > 0 and high == len(known) and known == list(range(len(known)))
    if not (from_zero or from_one):
        return ()
    found = f"its category ids go from {low} to {high}, those of `{data.name}` from {known[0]} to {known[-1]}"
    return (f"{found}: are they numbers of classes, counted from {0 if from_zero else 1}?",)


Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _columns_at_once(entries: Sequence[Any]) -> Columns | None:
    """Return the four columns where every entry is of the right form, else None."""
    if len(entries) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0)
    try:
        listed = [[entry[key] for entry in entries] for key in KEYS]
        image_id, category_id, box, score = map(np.array, listed)
    except (TypeError, KeyError, ValueError, IndexError, OverflowError):
        return None
    whole = image_id.dtype.kind == category_id.dtype.kind == "i"
    flat = image_id.ndim == category_id.ndim == score.ndim == 1 and box.shape == (len(entries), 4)
    if not (whole and flat and box.dtype.kind in "if" and score.dtype.kind in "if"):
        return None
    # NumPy takes True for 1.
    values = chain(listed[0], listed[1], listed[3], chain.from_iterable(listed[2]))
    if not {bool, np.bool_}.isdisjoint(map(type, values)):
        return None
    ids = image_id.astype(np.int64), category_id.astype(np.int64)
    return *ids, box.astype(np.float64), score.astype(np.float64)


def _columns_one_by_one(
    entries: Sequence[Any], data: DetectionData, dropped: dict[str, int]
) -> tuple[NDArray[np.int64], Columns]:
    """Return the columns of the entries of the right form, and where they stand; count the others."""
    index: list[int] = []
    rows: list[tuple[int, int, list[float], float]] = []
    for position, entry in enumerate(entries):
        row = _row(entry, data)
        if isinstance(row, str):
            dropped[row] = dropped.get(row, 0) + 1
        else:
            index.append(position)
            rows.append(row)
    columns = (
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row[3] for row in rows], dtype=np.float64),
    )
    return np.array(index, dtype=np.int64), columns


def _row(entry: Any, data: DetectionData) -> tuple[int, int, list[float], float] | str:
    """Return one entry, or what is wrong with it."""
    if not isinstance(entry, dict):
        return "the entry is not an object"
    for key in KEYS:
        if key not in entry:
            return f"`{key}` is missing"
    box = entry["bbox"]
    if not isinstance(box, (list, tuple, np.ndarray)) or len(box) != 4:
        return "`bbox` is not a list of four numbers"
    numbers = [_number(value) for value in box]
    image_id = _identity(entry["image_id"], data.image_numbers)
    category_id = _identity(entry["category_id"], data.category_numbers)
    score = _number(entry["score"])
    if isinstance(image_id, str):
        return f"`image_id` {image_id}"
    if isinstance(category_id, str):
        return f"`category_id` {category_id}"
    if any(value is None for value in numbers):
        return "`bbox` is not a list of four numbers"
    if score is None:
        return "`score` is not a number"
    return image_id, category_id, [value or 0.0 for value in numbers], score


def _number(value: Any) -> float | None:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        return None
    try:
        return float(value)
    except (OverflowError, TypeError):
        return None


def _identity(value: Any, by_text: Mapping[str, int]) -> int | str:
    """Return a whole number, or what is wrong with it; one beyond 64 bits becomes an id that nothing has."""
    if isinstance(value, str):
        id_ = id_of(value)
        if by_text:
            return by_text.get(str(id_), _NEVER)
        value = id_
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        whole = int(value)
    else:
        number = _number(value)
        if number is None or not math.isfinite(number) or number != math.floor(number):
            return "is not a whole number"
        if abs(number) >= 2**53:
            return "is written as a float and beyond 2^53, where digits are lost"
        whole = int(number)
    return whole if -(2**63) < whole < 2**63 else _NEVER


def _lookup(values: NDArray[np.int64], known: Sequence[int]) -> NDArray[np.int64]:
    """Return the index in `known` of each value, or -1."""
    if len(known) == 0:
        return np.full(len(values), -1, dtype=np.int64)
    names = np.asarray(known, dtype=np.int64)
    order = np.argsort(names, kind="stable")
    place = np.searchsorted(names[order], values).clip(max=len(names) - 1)
    found = order[place].astype(np.int64)
    return np.where(names[found] == values, found, -1)


def _parse(text: str, path: Path) -> tuple[list[Any], str]:
    """Return the entries of a results file, and what is wrong with it as a whole."""
    expected = "a JSON list of {image_id, category_id, bbox, score}"
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        entries, rest = _salvage(text)
        if not entries:
            found = "is empty" if not text.strip() else f"is not JSON ({error})"
            raise DataError(str(path), found, expected) from error
        if not rest:
            return entries, ""
        return entries, f"{path} is damaged: read up to entry {len(entries):,}, the rest is lost"
    if isinstance(whole, dict) and set(KEYS) <= set(whole):
        return [whole], ""  # a file of one object a line that has one line
    if not isinstance(whole, list):
        raise DataError(str(path), f"holds a JSON {_kind(whole)}", expected)
    return whole, ""


def _salvage(text: str) -> tuple[list[Any], str]:
    """Return the whole objects at the start of a broken list, or of one object a line, and what is left over."""
    decoder = json.JSONDecoder()
    listed = text.lstrip().startswith("[")
    position = text.find("[") + 1 if listed else 0
    entries: list[Any] = []
    while True:
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        try:
            entry, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            # A list that closes is not damaged here; one that breaks off after a comma is, with nothing left.
            return entries, text[position:] or ("]" if listed else "")
        if not isinstance(entry, dict):
            return entries, text[position:] or " "
        entries.append(entry)


def _kind(value: Any) -> str:
    return {dict: "object", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
