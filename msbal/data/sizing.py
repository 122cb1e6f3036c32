"""How large the images and how long the training of a starter spec should be."""

from __future__ import annotations

import statistics
from typing import NamedTuple

import numpy as np

from msbal.data.detection_data import DetectionData

MIN_ITERATIONS = 1500  # about


class Sizing(NamedTuple):
    """The numbers of a starter spec.

    Attributes:
        side, longest: pixels that images' shorter and longer sides are resized to; `side` a multiple of 32.
        batch: images in a batch.
        epochs, iterations: the same length; `warmup` iterations of them.
    """

    side: int
    longest: int
    batch: int
    epochs: int
    iterations: int
    warmup: int


def size_up(data: DetectionData, *, sides: tuple[int, int] = (128, 800), batch: int = 4) -> Sizing:
    """Choose them: images keep about their own size; a small data set gets more epochs than the usual 12.

    Args:
        data: at least one image.
        sides: bounds of the shorter side, multiples of 32.
        batch: images in a batch, fewer where the data set is smaller.
    """
    shorter = statistics.median(min(image.width, image.height) for image in data.images)
    side = int(min(sides[1], max(sides[0], 32 * round(shorter / 32))))
    batch = min(batch, len(data))
    steps = -(-len(data) // batch)
    epochs = max(12, -(-MIN_ITERATIONS // steps))
    return Sizing(
        side=side,
        longest=max(side, round(side * 5 / 3)),
        batch=batch,
        epochs=epochs,
        iterations=epochs * steps,
        warmup=min(500, epochs * steps // 5),
    )


def size_range(data: DetectionData, side: float, longest: float) -> tuple[float, float] | None:
    """Return the 5th and the 95th percentile of the boxes' sides, as if each class had equally many boxes.

    So a few odd boxes decide nothing, and a class with few boxes counts. A side is that of a square of the box's area,
    in pixels of the resized image; crowds are left out.

    Args:
        side, longest: as in `Sizing`.

    Returns:
        None without boxes.
    """
    counted = [~image.crowd for image in data.images]
    if not any(map(np.any, counted)):
        return None
    boxes = np.concatenate([image.boxes[these] for image, these in zip(data.images, counted, strict=True)])
    labels = np.concatenate([image.labels[these] for image, these in zip(data.images, counted, strict=True)])
    extents = np.array([(image.width, image.height) for image in data.images], np.float64)
    scales = np.minimum(side / extents.min(axis=1), longest / extents.max(axis=1))
    areas = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).prod(axis=1)
    sides = np.sqrt(areas) * np.repeat(scales, [np.count_nonzero(these) for these in counted])
    order = np.argsort(sides, kind="stable")
    share = np.cumsum((1 / np.bincount(labels)[labels])[order])
    low, high = np.searchsorted(share, [0.05 * share[-1], 0.95 * share[-1]])
    return float(sides[order[low]]), float(sides[order[high]])
