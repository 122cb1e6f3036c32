"""Detections and ground truth as columns: what every metric is computed from.

Shapes: D detections, G boxes of ground truth, over all images. Boxes here are COCO's
``(x, y, width, height)`` in pixels, float64, as they stand in a results file: nothing is rounded or clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msbal.data import DetectionData


@dataclass(frozen=True)
class Detections:
    """What a detector found.

    Attributes:
        image: ``[D]`` int64, indices into ``DetectionData.images``.
        label: ``[D]`` int64, indices into ``DetectionData.classes``.
        box: ``[D, 4]`` float64.
        score: ``[D]`` float64, finite; between equal scores of an image the order here decides.
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    box: NDArray[np.float64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.score)

    def reaching(self, threshold: float) -> Detections:
        """Return those of at least this score, the best first."""
        order = np.argsort(-self.score, kind="stable")
        order = order[self.score[order] >= threshold]
        return Detections(self.image[order], self.label[order], self.box[order], self.score[order])


@dataclass(frozen=True)
class GroundTruth:
    """What is there.

    Attributes:
        image: ``[G]`` int64, indices into ``DetectionData.images``.
        label: ``[G]`` int64, indices into ``DetectionData.classes``.
        box: ``[G, 4]`` float64.
        area: ``[G]`` float64, square pixels.
        crowd, difficult: ``[G]`` bool.
        image_id: ``[images]`` int64, COCO's ids; equal scores in different images are ranked by them.
        class_count: how many classes there are.
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    box: NDArray[np.float64]
    area: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    image_id: NDArray[np.int64]
    class_count: int

    def __len__(self) -> int:
        return len(self.label)


def ground_truth(data: DetectionData) -> GroundTruth:
    """Return the boxes of a split as columns, in the order of ``data.to_coco()``."""
    counts = [len(image.boxes) for image in data.images]
    # An empty first entry keeps the shapes and types where there is no image at all.
    corners = np.concatenate([np.zeros((0, 4)), *(image.boxes.reshape(-1, 4) for image in data.images)])
    corners = corners.astype(np.float64)
    return GroundTruth(
        image=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
        label=np.concatenate([np.zeros(0, np.int64), *(image.labels for image in data.images)]),
        box=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
        area=np.concatenate([np.zeros(0), *(image.area for image in data.images)]).astype(np.float64),
        crowd=np.concatenate([np.zeros(0, np.bool_), *(image.crowd for image in data.images)]),
        difficult=np.concatenate([np.zeros(0, np.bool_), *(image.difficult for image in data.images)]),
        image_id=np.array([image.id for image in data.images], dtype=np.int64),
        class_count=len(data.classes),
    )
