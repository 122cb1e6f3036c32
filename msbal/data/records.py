"""From columns over all boxes of a split to its images; where a format has neither crowds nor areas of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msbal.data.boxes import box_area
from msbal.data.model import ImageRecord


def make_records(
    paths: Sequence[Path],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    difficult: NDArray[np.bool_],
) -> tuple[ImageRecord, ...]:
    """The images, with ids from 1 in their order.

    Args:
        paths: of I images.
        sizes: ``[I, 2]``, width and height.
        rows: ``[M]``, ascending: which image each box belongs to.
        boxes: ``[M, 4]``; `labels`, `difficult`: ``[M]``.
    """
    bounds = np.searchsorted(rows, np.arange(len(paths) + 1)).tolist()
    area, crowd = box_area(boxes), np.zeros(len(boxes), dtype=np.bool_)
    return tuple(
        ImageRecord(
            id=row + 1,
            path=path,
            width=width,
            height=height,
            boxes=boxes[start:end],
            labels=labels[start:end],
            area=area[start:end],
            crowd=crowd[start:end],
            difficult=difficult[start:end],
        )
        for row, (path, (width, height), start, end) in enumerate(
            zip(paths, sizes.tolist(), bounds[:-1], bounds[1:], strict=True)
        )
    )
