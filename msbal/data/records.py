"""From columns over all boxes of a split to its images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msbal.data.boxes import box_area
from msbal.data.detection_data import ImageRecord


def make_records(
    paths: Sequence[Path],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    difficult: NDArray[np.bool_],
    *,
    ids: Sequence[int] | None = None,
    area: NDArray[np.float32] | None = None,
    crowd: NDArray[np.bool_] | None = None,
) -> tuple[ImageRecord, ...]:
    """The images, in the order of `paths`.

    Args:
        paths: of I images.
        sizes: ``[I, 2]``, width and height.
        rows: ``[M]``, ascending: which image each box belongs to.
        boxes: ``[M, 4]``; `labels`, `difficult`: ``[M]``.
        ids: ``[I]``; from 1 by default.
        area: ``[M]``; the boxes' by default, as NaN is.
        crowd: ``[M]``; none by default.
    """
    bounds = np.searchsorted(rows, np.arange(len(paths) + 1)).tolist()
    ids = ids or range(1, len(paths) + 1)
    own = box_area(boxes)
    area = own if area is None else np.where(np.isnan(area), own, area)
    crowd = np.zeros(len(boxes), dtype=np.bool_) if crowd is None else crowd
    return tuple(
        ImageRecord(
            id=id_,
            path=path,
            width=width,
            height=height,
            boxes=boxes[start:end],
            labels=labels[start:end],
            area=area[start:end],
            crowd=crowd[start:end],
            difficult=difficult[start:end],
        )
        for id_, path, (width, height), start, end in zip(
            ids, paths, sizes.tolist(), bounds[:-1], bounds[1:], strict=True
        )
    )
