"""How large the images and how long the training of a starter spec should be."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from msbal.data.detection_data import DetectionData


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
