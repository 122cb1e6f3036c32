"""A COCO annotation file by column, read in the one way that training and evaluation share.

Source: the format's page, https://cocodataset.org/#format-data. Used instead of ``pycocotools.coco.COCO``,
which checks nothing. Exporters deviate from the format; where their meaning is clear, it is accepted:

- Numbers may be written as texts; null or an empty text counts as missing.
- Ids that are texts are replaced by the numbers 1, 2, ... in the texts' order, as pycocotools ranks them.
- An ``area`` of 0 or less, or larger than any image, counts as missing, and the box's is used. (pycocotools keeps 0
  and counts the object as small.)
- ``ignore`` turns an object into a crowd: not trained, and detections of it are not false. (pycocotools overwrites it.)
- Ids of annotations are not used. (pycocotools mixes up annotations with one id, and takes 0 for "not found".)
- Class names lose line breaks, and blanks around them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msbal.data.assembly import class_name
from msbal.data.coco.coco_entries import LARGEST_SIDE, WHAT, Entries, Ids
from msbal.data.coco.coco_json import read_json
from msbal.data.files import listed, named, printable, shown


@dataclass(frozen=True)
class CocoFile:
    """The content of a file: I images, M annotations in the file's order.

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
        image_numbers, category_numbers: see `msbal.data.DetectionData`.
        notes: what was read differently from how it is written.
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
    notes: tuple[str, ...]

    def annotation(self, index: int) -> str:
        """Return an annotation's id, or its index where it has none."""
        id_ = self.annotation_ids[index]
        return f"annotations[{index}]" if id_ is None else printable(str(id_)[:60])

    @property
    def corners(self) -> NDArray[np.float64]:
        """``[M, 4]`` x1, y1, x2, y2."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], axis=1)


def read_coco_file(path: Path, *, needs_names: bool = True) -> CocoFile:
    """Read an annotation file, without the masks and keypoints in it.

    Args:
        path: the JSON file.
        needs_names: refuse images without ``file_name`` and ``coco_url``.

    Raises:
        DataError: one line that names the entry at fault and what should stand there.
    """
    return parse_coco(read_json(path, WHAT), named(path), needs_names=needs_names)


def parse_coco(document: Any, where: str, *, needs_names: bool = True) -> CocoFile:
    """Read what `read_json` returns; `where` names the file. Otherwise as `read_coco_file`."""
    images, categories, annotations = (
        Entries(document, key, where) for key in ("images", "categories", "annotations")
    )
    image_ids = images.ids("an id of its own for every image")
    category_ids = categories.ids("an id of its own for every category")
    file_names = _file_names(images, needs_names)
    class_names, of_names = _class_names(categories, category_ids)
    rows = annotations.references("image_id", image_ids, "belongs to image", "the id of an entry in `images`")
    ids_known = listed(map(str, category_ids.row_of), len(category_ids.row_of), 10)
    category = annotations.references(
        "category_id", category_ids, "has category", f"one of the ids in `categories`: {ids_known}"
    )
    boxes, area = annotations.boxes(), annotations.numbers("area")
    crowd, ignored = annotations.flags("iscrowd"), annotations.flags("ignore")
    difficult, ids, sizes = annotations.flags("difficult"), annotations.column("id"), images.sizes()
    notes = [
        *image_ids.notes, *category_ids.notes, *of_names, *_texts(images, categories, annotations),
        *_of_annotations(annotations, ids, boxes, area, ignored & ~crowd),
    ]  # fmt: skip
    return CocoFile(
        where, image_ids.numbers, file_names, sizes, list(zip(category_ids.numbers, class_names, strict=True)),
        ids, rows, category, boxes, _trusted(area), crowd | ignored, difficult,
        image_ids.by_text, category_ids.by_text, tuple(notes),
    )  # fmt: skip


def _file_names(images: Entries, needed: bool) -> list[str]:
    """Return file names, or addresses where there are no names, as in LVIS."""
    names = []
    for index, entry in enumerate(images.entries):
        key = "coco_url" if "file_name" not in entry and "coco_url" in entry else "file_name"
        names.append(images.text(index, key) if needed or entry.get(key) else "")
    return names


def _class_names(categories: Entries, ids: Ids) -> tuple[list[str], list[str]]:
    names: list[str] = []
    unnamed, mended = [], []
    for index, (entry, id_) in enumerate(zip(categories.entries, ids.row_of, strict=True)):
        value = entry.get("name")
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is int:
            names.append(shown(value))
            continue
        if value is None or (isinstance(value, str) and not class_name(value)):
            names.append(class_name(printable(str(id_))))
            unnamed.append(names[-1])
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


def _texts(*groups: Entries) -> list[str]:
    found = [
        f"`{key}` of {count} {group.key}" for group in groups for key, count in group.texts.items() if count
    ]
    return [f"numbers that are written as texts are read as numbers: {', '.join(found)}"] if found else []


def _of_annotations(
    annotations: Entries,
    ids: list[Any],
    boxes: NDArray[np.float64],
    area: NDArray[np.float64],
    ignored: NDArray[np.bool_],
) -> list[str]:
    """Return what to say about annotations, mostly where pycocotools differs."""
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
    except TypeError:  # e.g. lists, which nobody can use as ids
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
