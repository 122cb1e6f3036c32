"""A data set as the rest of msbal sees it: images, boxes, classes; no pixels, no framework.

Shapes: N boxes of one image. Boxes are ``(x1, y1, x2, y2)`` in absolute pixels, the right and bottom
edges exclusive (COCO's ``x + w``); VOC's one-based inclusive corners are converted on reading.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageRecord:
    """One image and its boxes.

    Attributes:
        id: COCO image id; for VOC a number given in reading order, from 1.
        path: the file.
        width, height: pixels.
        boxes: ``[N, 4]`` float32.
        labels: ``[N]`` int64, indices into ``DetectionData.classes``.
        area: ``[N]`` float32, square pixels: COCO's ``area`` (the mask's where given), else the box's.
        crowd: ``[N]`` bool, COCO's ``iscrowd``: never trained on, ignored in evaluation.
        difficult: ``[N]`` bool, VOC's ``difficult``: ignored in evaluation.
    """

    id: int
    path: Path
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    area: NDArray[np.float32]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]


@dataclass(frozen=True)
class DroppedBox:
    """A box that is not used, and why; `row` is the index of its image in the split as it was read."""

    image: str
    annotation: str
    reason: str
    row: int


@dataclass(frozen=True)
class DetectionData:
    """One split of a data set.

    Attributes:
        name: for people, e.g. ``train2017``.
        classes: names; index is the label.
        category_ids: COCO category id of each class.
        images: in the annotation file's order.
        dropped: boxes of these classes that were left out, and why.
        other_classes: number of boxes of each class that was not asked for.
        notes: what else to tell a user about the split, each a sentence without the split's name.
        image_numbers: the number that replaces each image id that is a text; empty where ids are numbers.
        category_numbers: the same for category ids.
    """

    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: tuple[ImageRecord, ...]
    dropped: tuple[DroppedBox, ...] = field(default=())
    other_classes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    image_numbers: Mapping[str, int] = field(default_factory=dict)
    category_numbers: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def box_count(self) -> int:
        """Number of boxes in all images, crowds included."""
        return sum(len(image.boxes) for image in self.images)

    @property
    def skipped(self) -> int:
        """Number of boxes of classes that were not asked for."""
        return sum(self.other_classes.values())

    def summary(self) -> dict[str, Any]:
        """Return how many images and boxes there are, the classes' ids by name, and a digest of the annotations.

        The digest does not depend on where the files lie.
        """
        digest = hashlib.blake2b(repr(self.classes).encode(), digest_size=16)
        for image in self.images:
            digest.update(f"{image.path.name} {image.width} {image.height}\n".encode("utf-8", "replace"))
            for column in (image.boxes, image.labels, image.crowd, image.difficult):
                digest.update(column.tobytes())
        classes = dict(zip(self.classes, self.category_ids, strict=True))
        return {
            "images": len(self),
            "boxes": self.box_count,
            "classes": classes,
            "digest": digest.hexdigest(),
        }

    def to_coco(self, difficult_as_crowd: bool = False) -> dict[str, Any]:
        """Return the split as a COCO annotation dictionary; ``file_name`` is the absolute path.

        ``difficult`` is written beside ``iscrowd``: COCO evaluators ignore it, msbal's VOC metrics read it.

        Args:
            difficult_as_crowd: mark difficult boxes as crowds too, for a framework that neither trains on crowds
                nor counts detections there as false.
        """
        annotations: list[dict[str, Any]] = []
        for image in self.images:
            for box, label, area, crowd, difficult in zip(
                image.boxes.tolist(),
                image.labels.tolist(),
                image.area.tolist(),
                image.crowd.tolist(),
                image.difficult.tolist(),
                strict=True,
            ):
                x1, y1, x2, y2 = box
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image.id,
                        "category_id": self.category_ids[label],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": area,
                        "iscrowd": int(crowd or (difficult and difficult_as_crowd)),
                        "difficult": int(difficult),
                    }
                )
        return {
            "info": {"description": self.name},
            "images": [
                {"id": i.id, "file_name": str(i.path), "width": i.width, "height": i.height}
                for i in self.images
            ],
            "annotations": annotations,
            "categories": [
                {"id": id_, "name": name} for id_, name in zip(self.category_ids, self.classes, strict=True)
            ],
        }


def subset(data: DetectionData, indices: Sequence[int]) -> DetectionData:
    """Return the split with the images at `indices` only, in that order."""
    return replace(data, images=tuple(data.images[i] for i in indices))
