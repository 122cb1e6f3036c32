"""The outlines in a COCO annotation file, for mask heads; `DetectionData` has none."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

import numpy as np

from msbal.data.coco.coco_columns import parse_coco
from msbal.data.coco.coco_entries import WHAT
from msbal.data.coco.coco_json import read_json
from msbal.data.detection_data import ImageRecord
from msbal.errors import DataError

_MAX_DIFFERENCE = 0.05  # pixels, between two readings of one box


class Outlines:
    """The segmentations of a file, looked up by image, category and box.

    Args:
        annotations: a COCO annotation file that msbal has read, and so checked, before.
        category_ids: COCO category id of each label.

    Attributes:
        instead: how to train without; for the error.
        has_rle: whether any object is given as a run-length encoded mask, not as polygons.

    Raises:
        DataError: where no object has an outline.
    """

    instead: ClassVar[str] = "choose a model without a mask head"

    def __init__(self, annotations: Path, category_ids: tuple[int, ...]) -> None:
        self.path, self.category_ids = annotations, category_ids
        self.has_rle = False
        self._objects: dict[tuple[int, int], list[tuple[list[float], Any]]] = {}
        document = read_json(annotations, WHAT, masks=True)
        file = parse_coco(document, str(annotations), needs_names=False)
        for entry, row, category, box, crowd in zip(
            document["annotations"],
            file.rows.tolist(),
            file.category.tolist(),
            file.boxes.tolist(),
            file.crowd.tolist(),
            strict=True,
        ):
            if crowd:
                continue
            outline = entry.get("segmentation")
            self.has_rle |= isinstance(outline, dict)
            key = (file.image_ids[row], file.categories[category][0])
            self._objects.setdefault(key, []).append((box, outline))
        if not any(outline for found in self._objects.values() for _, outline in found):
            raise DataError(
                str(annotations),
                "no object has a `segmentation`",
                "the outlines that a mask head learns from",
                self.instead,
            )

    def of(self, record: ImageRecord) -> list[Any]:
        """Return the outline of each box of an image: polygons, a run-length encoding, or None for a crowd.

        Raises:
            DataError: where an object has none, or what it has is no outline.
        """
        found: list[Any] = []
        for number, (box, label) in enumerate(
            zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
        ):
            if record.crowd[number]:
                found.append(None)
                continue
            outline = self._find(record, box, self.category_ids[label])
            if not outline:
                raise DataError(
                    str(self.path),
                    f"the object at {[round(v, 1) for v in box]} in {record.path.name} has no `segmentation`",
                    "one for every object that a mask head learns from",
                )
            if not _is_outline(outline):
                raise DataError(
                    str(self.path),
                    f"the `segmentation` of the object at {[round(v, 1) for v in box]} in {record.path.name} is "
                    f"{str(outline)[:60]}",
                    "polygons, each a list of x and y in turn, or run lengths: size and counts",
                )
            found.append(outline)
        return found

    def check(self, images: Iterable[ImageRecord]) -> None:
        """Look up every outline.

        Raises:
            DataError: as `of`, for the first object.
        """
        for image in images:
            self.of(image)

    def _find(self, record: ImageRecord, box: list[float], category: int) -> Any:
        limits = np.array([record.width, record.height] * 2)
        for (x, y, w, h), outline in self._objects.get((record.id, category), ()):
            clipped = np.clip([x, y, x + w, y + h], 0, limits)
            if np.abs(clipped - box).max() < _MAX_DIFFERENCE:
                return outline
        return None


def _is_outline(outline: Any) -> bool:
    if isinstance(outline, dict):
        size, counts = outline.get("size"), outline.get("counts")
        lengths = isinstance(counts, str) or (_is_numbers(counts) and all(n >= 0 for n in counts))
        return lengths and _is_numbers(size) and len(size) == 2
    return isinstance(outline, list) and all(_is_numbers(polygon) for polygon in outline)


def _is_numbers(values: Any) -> TypeGuard[list[float]]:
    return isinstance(values, list) and all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    )
