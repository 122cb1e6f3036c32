"""Made-up ground truth and detections with everything that makes evaluation hard.

Coordinates are quarters of a pixel, which float32 holds exactly: the boxes in a `DetectionData` and those in
its COCO dictionary are then the same numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from msbal.data import DetectionData, ImageRecord

WIDTH, HEIGHT = 320, 240


def make_scenes(
    seed: int,
    images: int = 40,
    classes: int = 5,
    boxes: float = 5.0,
    detections: float = 20.0,
    ties: bool = True,
    crowds: float = 0.1,
    difficult: float = 0.1,
    flood: int = 1,
) -> tuple[DetectionData, list[dict[str, Any]]]:
    """A split and predictions on it.

    Args:
        boxes, detections: an image, on average; some images have none of either.
        ties: scores have two digits, so many are equal.
        crowds, difficult: shares of the boxes.
        flood: images that get 150 detections more, all of one class.
    """
    rng = np.random.default_rng(seed)
    # Ids neither start at 1 nor ascend, and the last class has no box anywhere.
    category_ids = tuple(int(i) for i in rng.permutation(np.arange(3, 3 + 2 * classes, 2)))
    image_ids = rng.permutation(np.arange(images) * 7 + 11).tolist()
    records, results = [], []
    for number, id_ in enumerate(image_ids):
        count = 0 if number % 9 == 4 else int(rng.poisson(boxes))
        labels = rng.integers(0, max(1, classes - 1), count)
        corners = _boxes(rng, count)
        sizes = corners[:, 2:] - corners[:, :2]
        records.append(
            ImageRecord(
                id=int(id_),
                path=Path(f"{id_:06d}.jpg"),
                width=WIDTH,
                height=HEIGHT,
                boxes=corners.astype(np.float32),
                labels=labels.astype(np.int64),
                area=(sizes.prod(axis=1) * rng.choice([0.5, 0.75, 1.0], count)).astype(np.float32),
                crowd=rng.random(count) < crowds,
                difficult=rng.random(count) < difficult,
            )
        )
        wanted = 0 if number % 9 == 7 else int(rng.poisson(detections))
        flooded = 150 if number < flood else 0
        for n in range(wanted + flooded):
            if count and rng.random() < 0.7:
                at = int(rng.integers(count))
                spread = rng.choice([0.0, 0.02, 0.1, 0.3])
                x1, y1, x2, y2 = corners[at] + rng.normal(0, spread, 4) * np.tile(sizes[at], 2)
                label = labels[at] if rng.random() < 0.85 else rng.integers(classes)
            else:
                x1, y1, x2, y2 = _boxes(rng, 1)[0]
                label = rng.integers(classes)
            if n >= wanted:
                label = 0
            box = _quarters(np.array([x1, y1, max(x2 - x1, 0), max(y2 - y1, 0)]))
            score = round(float(rng.beta(2, 3)), 2) if ties else float(rng.random())
            results.append(
                {
                    "image_id": int(id_),
                    "category_id": category_ids[int(label)],
                    "bbox": box.tolist(),
                    "score": score,
                }
            )
    names = tuple(f"class {n}" for n in range(classes))
    order = rng.permutation(len(results)).tolist()
    return DetectionData("made up", names, category_ids, tuple(records)), [results[i] for i in order]


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Corners of boxes of all sizes, COCO's borders of 32 x 32 and 96 x 96 pixels among them."""
    size = rng.choice([8, 24, 32, 64, 96, 160], (count, 2)) * rng.choice([1.0, 1.0, 1.25], (count, 2))
    start = rng.uniform(0, 1, (count, 2)) * np.maximum([WIDTH, HEIGHT] - size, 0)
    return _quarters(np.concatenate([start, start + size], axis=1))


def _quarters(values: np.ndarray) -> np.ndarray:
    return np.round(values * 4) / 4
