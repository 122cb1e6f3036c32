"""What the readers of all formats end with: which classes are asked for, and images from columns over all boxes.

Shapes: I images, M boxes of a split, in any order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msbal.data.box_checks import clip_boxes, odd_boxes
from msbal.data.detection_data import DetectionData, DroppedBox, ImageRecord
from msbal.data.files import listed, printable
from msbal.data.remarks import spellings
from msbal.errors import DataError, suggest

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufeff]")


def class_name(text: str) -> str:
    """Return a class's name without line breaks, other control characters, and blanks around it."""
    return " ".join(_CONTROL.sub(" ", text).split())


def choose_classes(
    known: Sequence[str],
    classes: Sequence[str] | None,
    where: str,
    kind: str = "class",
    *,
    partial: bool = False,
) -> tuple[str, ...]:
    """Return the names of the classes in the order of their labels.

    Args:
        known: names in the data set.
        classes: those asked for; None takes all that are known.
        where: the data set, for messages.
        kind: what its format calls a class.
        partial: let some of `classes` be unknown, as long as one is known.

    Raises:
        DataError: where a class is unknown or listed twice, or none is listed.
    """
    if classes is None:
        return tuple(known)
    if not classes:
        raise DataError("data.classes", "is an empty list", "at least one name, or no `classes` at all")
    names = [class_name(name) for name in classes]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError("data.classes", f"`{printable(twice[0])}` is listed twice", "every name once")
    absent = [name for name in names if name not in known]
    if partial and known and len(absent) == len(names):
        kinds = {"class": "classes", "category": "categories"}[kind]
        found = f"its {kinds} ({listed(known, len(known), 5)}) are none of those trained"
        raise DataError(where, found, listed(names, len(names), 5))
    if absent and not partial:
        more = f" (nor are {len(absent) - 1} more of the {len(names)} names)" if len(absent) > 1 else ""
        found = f"`{printable(absent[0])}` is no {kind} of {where}{more}"
        raise DataError("data.classes", found, fix=suggest(absent[0], list(known)[:100]))
    return tuple(names)


@dataclass(frozen=True)
class Boxes:
    """The boxes of a split by column.

    Attributes:
        rows: ``[M]``, which image each belongs to.
        known: names of classes; `category`, ``[M]``, are indices into them.
        corners: ``[M, 4]``, ``(x1, y1, x2, y2)`` in pixels, right and bottom edges exclusive, not yet clipped.
        written: ``[M, 4]``, as the file has them, for messages; x, y, width and height if `are_extents`.
        difficult: ``[M]``.
        name: what to call one in a message.
        image_names: ``[I]``, what to call an image; None where the name of a box says it.
        area: ``[M]``, NaN where not given; None where none is.
        crowd: ``[M]``; None where none is one.
    """

    rows: NDArray[np.int64]
    known: Sequence[str]
    category: NDArray[np.int64]
    corners: NDArray[np.float64]
    written: NDArray[np.float64]
    difficult: NDArray[np.bool_]
    name: Callable[[int], str]
    image_names: Sequence[str] | None = None
    are_extents: bool = False
    area: NDArray[np.float64] | None = None
    crowd: NDArray[np.bool_] | None = None


def assemble(
    name: str,
    classes: tuple[str, ...],
    paths: Sequence[Path],
    sizes: NDArray[np.int64],
    boxes: Boxes,
    notes: Sequence[str],
    *,
    image_ids: Sequence[int] | None = None,
    category_ids: Sequence[int] | None = None,
) -> DetectionData:
    """Make a split of what a format's reader has read.

    Boxes are clipped to their images; those that cannot be used are left out and named.

    Args:
        classes: names in the order of their labels; boxes of others are counted.
        paths: of the images.
        sizes: ``[I, 2]``, width and height.
        image_ids, category_ids: from 1 by default.
    """
    label_of = {class_: label for label, class_ in enumerate(classes)}
    labels = np.array([label_of.get(known, -1) for known in boxes.known], dtype=np.int64)[boxes.category]
    others: Counter[str] = Counter()
    for index, count in enumerate(np.bincount(boxes.category[labels < 0]).tolist()):
        if count:
            others[boxes.known[index]] += count
    limits = sizes[boxes.rows]
    clipped, reasons = clip_boxes(boxes.corners, limits)
    usable = labels >= 0
    dropped = []
    for index, reason in sorted(reasons.items()):
        if usable[index]:
            written = ", ".join(f"{float(value):g}" for value in boxes.written[index])
            row = int(boxes.rows[index])
            image = printable(paths[row].name if boxes.image_names is None else boxes.image_names[row])
            dropped.append(DroppedBox(image, boxes.name(index), f"{reason}: {written}", row))
    usable[list(reasons)] = False

    def spot(index: int) -> str:
        image = "" if boxes.image_names is None else f" of {printable(boxes.image_names[boxes.rows[index]])}"
        return boxes.name(index) + image

    return DetectionData(
        name=name,
        classes=classes,
        category_ids=tuple(category_ids or range(1, len(classes) + 1)),
        images=make_records(
            paths,
            sizes,
            boxes.rows[usable],
            clipped[usable],
            labels[usable],
            boxes.difficult[usable],
            ids=image_ids,
            area=None if boxes.area is None else boxes.area[usable],
            crowd=None if boxes.crowd is None else boxes.crowd[usable],
        ),
        dropped=tuple(dropped),
        other_classes=others,
        notes=(
            *notes,
            *odd_boxes(boxes.corners, limits, spot, from_extent=boxes.are_extents),
            *spellings(classes),
        ),
    )


def make_records(
    paths: Sequence[Path],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    difficult: NDArray[np.bool_],
    *,
    ids: Sequence[int] | None = None,
    area: NDArray[np.float64] | None = None,
    crowd: NDArray[np.bool_] | None = None,
) -> tuple[ImageRecord, ...]:
    """Return the images, in the order of `paths`.

    Args:
        paths: of the images.
        sizes: ``[I, 2]``, width and height.
        rows: ``[M]``, which image each box belongs to.
        boxes: ``[M, 4]``; `labels`, `difficult`: ``[M]``.
        ids: ``[I]``; from 1 by default.
        area: ``[M]``; NaN, or None, stands for that of the box.
        crowd: ``[M]``; none by default.
    """
    order = np.argsort(rows, kind="stable")
    boxes, labels, difficult = boxes[order], labels[order], difficult[order]
    bounds = np.searchsorted(rows[order], np.arange(len(paths) + 1)).tolist()
    ids = ids or range(1, len(paths) + 1)
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    given = own if area is None else area[order].astype(np.float32)
    areas = np.where(np.isnan(given), own, given)
    crowd = np.zeros(len(boxes), dtype=np.bool_) if crowd is None else crowd[order]
    return tuple(
        ImageRecord(
            id=id_,
            path=path,
            width=width,
            height=height,
            boxes=boxes[start:end],
            labels=labels[start:end],
            area=areas[start:end],
            crowd=crowd[start:end],
            difficult=difficult[start:end],
        )
        for id_, path, (width, height), start, end in zip(
            ids, paths, sizes.tolist(), bounds[:-1], bounds[1:], strict=True
        )
    )
