"""How large the images and how long the training of a starter spec should be."""

from __future__ import annotations

import statistics
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msbal.data.detection_data import DetectionData

MIN_SIDE = 6.0
"""Pixels: smaller boxes are lost on the finest level, whose cells have 8."""


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


def size_up(
    data: DetectionData, *, sides: tuple[int, int] = (128, 800), batch: int = 4, iterations: int = 1500
) -> Sizing:
    """Choose them: images keep about their own size; a small data set gets more epochs than the usual 12.

    Args:
        data: at least one image.
        sides: bounds of the shorter side, multiples of 32.
        batch: images in a batch, fewer where the data set is smaller.
        iterations: about the least.
    """
    shorter = statistics.median(min(image.width, image.height) for image in data.images)
    side = int(min(sides[1], max(sides[0], 32 * round(shorter / 32))))
    batch = min(batch, len(data))
    steps = -(-len(data) // batch)
    epochs = max(12, -(-iterations // steps))
    return Sizing(
        side=side,
        longest=max(side, round(side * 5 / 3)),
        batch=batch,
        epochs=epochs,
        iterations=epochs * steps,
        warmup=min(500, epochs * steps // 5),
    )


def box_sides(data: DetectionData, side: float, longest: float) -> NDArray[np.float64]:
    """Return the side in pixels of each box, made square, once its image has been resized; crowds are left out.

    Args:
        side, longest: as in `Sizing`.
    """
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(i.boxes[~i.crowd] for i in data.images)])
    sizes = np.array([(image.width, image.height) for image in data.images], np.float64).reshape(-1, 2)
    scales = np.minimum(side / sizes.min(axis=1), longest / sizes.max(axis=1))
    counts = [int(np.count_nonzero(~image.crowd)) for image in data.images]
    extents = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    sides: NDArray[np.float64] = np.sqrt(extents.prod(axis=1)) * np.repeat(scales, counts)
    return sides


def size_range(data: DetectionData, side: float, longest: float) -> tuple[float, float] | None:
    """Return the 5th and the 95th percentile of `box_sides`, as if each class had equally many boxes.

    So a few odd boxes decide nothing, and a class with few boxes counts.

    Returns:
        None without boxes.
    """
    sides = box_sides(data, side, longest)
    if not len(sides):
        return None
    labels = np.concatenate([image.labels[~image.crowd] for image in data.images])
    order = np.argsort(sides, kind="stable")
    share = np.cumsum((1 / np.bincount(labels)[labels])[order])
    low, high = np.searchsorted(share, [0.05 * share[-1], 0.95 * share[-1]])
    return float(sides[order[low]]), float(sides[order[high]])
