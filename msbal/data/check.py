"""What is in a data set, as counts that a person can check; and a look at its image files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from msbal.data.files import listed, printable
from msbal.data.model import DetectionData, DroppedBox
from msbal.data.pictures import size_matches
from msbal.errors import DataError

SIZE_EDGES = (0, 8, 16, 32, 64, 96, 128, 256, 512)  # pixels; 32 and 96 part COCO's small, medium, large
_LOOKED_AT = 1000


@dataclass(frozen=True)
class DataSummary:
    """The counts of one split.

    Attributes:
        name: of the split.
        images: how many; `images_without_boxes` of them have none.
        boxes: those that are used, crowds and difficult ones included.
        boxes_by_class: name to count, in label order, zeros included.
        crowd: boxes that are never trained on and ignored in evaluation.
        difficult: boxes that are ignored in evaluation.
        skipped: boxes of classes that were not asked for.
        dropped: boxes that cannot be used, each named.
        dropped_by_reason: reason to count.
        boxes_by_size: ``"32-64"`` to count, by the square root of the box's width x height in pixels,
            lower edge included; the last is ``"512+"``.
        image_sizes: ``"640x480"`` to count, the most frequent five.
        distinct_image_sizes: how many there are in all.
    """

    name: str
    images: int
    images_without_boxes: int
    boxes: int
    boxes_by_class: dict[str, int]
    crowd: int
    difficult: int
    skipped: int
    dropped: tuple[DroppedBox, ...]
    dropped_by_reason: dict[str, int]
    boxes_by_size: dict[str, int]
    image_sizes: dict[str, int]
    distinct_image_sizes: int


def summarise(data: DetectionData) -> DataSummary:
    """Count what `data` holds."""
    labels = np.zeros(len(data.classes), dtype=np.int64)
    sizes = np.zeros(len(SIZE_EDGES), dtype=np.int64)
    edges = np.array(SIZE_EDGES[1:], dtype=np.float64)
    crowd = difficult = empty = 0
    for image in data.images:
        labels += np.bincount(image.labels, minlength=len(labels))
        sides = image.boxes[:, 2:].astype(np.float64) - image.boxes[:, :2]
        extents = np.sqrt(sides.prod(axis=1))
        sizes += np.bincount(np.searchsorted(edges, extents, side="right"), minlength=len(sizes))
        crowd += int(image.crowd.sum())
        difficult += int(image.difficult.sum())
        empty += not len(image.boxes)
    formats = Counter(f"{image.width}x{image.height}" for image in data.images)
    bins = [f"{low}-{high}" for low, high in pairwise(SIZE_EDGES)] + [f"{SIZE_EDGES[-1]}+"]
    return DataSummary(
        name=data.name,
        images=len(data),
        images_without_boxes=empty,
        boxes=data.box_count,
        boxes_by_class=dict(zip(data.classes, labels.tolist(), strict=True)),
        crowd=crowd,
        difficult=difficult,
        skipped=data.skipped,
        dropped=data.dropped,
        dropped_by_reason=dict(Counter(box.reason.split(":", 1)[0] for box in data.dropped)),
        boxes_by_size=dict(zip(bins, sizes.tolist(), strict=True)),
        image_sizes=dict(formats.most_common(5)),
        distinct_image_sizes=len(formats),
    )


def require_boxes(data: DetectionData, where: str) -> None:
    """Raise a DataError where there is nothing in `data` to learn from or to evaluate on."""
    if all(image.crowd.all() for image in data.images):
        notes = [f"{len(data.dropped)} unusable"] if data.dropped else []
        notes += [f"{data.skipped} of other classes"] if data.skipped else []
        notes += [f"{data.box_count} crowds"] if data.box_count else []
        found = f"{printable(data.name)} has no box that counts" + (f" ({', '.join(notes)})" if notes else "")
        raise DataError(where, found, f"boxes in its {len(data)} images")


def require_readable_images(data: DetectionData, where: str, limit: int = _LOOKED_AT) -> None:
    """Look at the headers of the image files, `limit` of them spread evenly where there are more.

    Raises:
        DataError: where some are no images, or not of the size that their annotations say (the boxes
            would be in the wrong places).
    """
    count = len(data)
    chosen: Sequence[int] = range(count)
    if count > limit:
        chosen = sorted({i * count // limit for i in range(limit)})
    wrong = []
    for index in chosen:
        image = data.images[index]
        problem = size_matches(image.path, image.width, image.height)
        if problem is not None:
            wrong.append((image.path, problem))
    if wrong:
        path, problem = wrong[0]
        others = listed((other.name for other, _ in wrong[1:]), len(wrong) - 1)
        also = f", also {others}" if others else ""
        found = f"{printable(str(path))} {problem} ({len(wrong)} of {len(chosen)} images looked at are wrong{also})"
        raise DataError(where, found, fix="mend or remove these images")
