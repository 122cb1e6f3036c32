"""Predictions in COCO results format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def coco_results(
    image_id: int, boxes: Tensor, labels: Tensor, scores: Tensor, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """One image's detections.

    Args:
        boxes: ``[N, 4]``, x1, y1, x2, y2 in pixels of the image as it is on disk.
        labels: ``[N]``, each an index into `category_ids`.
        scores: ``[N]``.
        category_ids: of the data set (`DetectionData.category_ids`).
    """
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for (x1, y1, x2, y2), label, score in zip(
            boxes.tolist(), labels.tolist(), scores.tolist(), strict=True
        )
    ]
