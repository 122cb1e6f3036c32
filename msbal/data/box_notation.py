"""Signs in the boxes of a split that they are written in another way than their format says.

Shapes: N boxes as written, ``(x1, y1, x2, y2)`` before clipping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MANY = 0.2  # of the boxes, and three at least: a few that reach beyond their image are in every data set
_NEARLY_ALL = 0.9


def odd_boxes(
    boxes: NDArray[np.float64],
    sizes: NDArray[Any],
    name: Callable[[int], str],
    *,
    from_extent: bool = False,
) -> list[str]:
    """What is to be said where many boxes reach more than a pixel beyond their image.

    Args:
        boxes: ``[N, 4]``.
        sizes: ``[N, 2]``, width and height of each box's image; 0 where nobody knows.
        name: what to call the box of a row.
        from_extent: the file gives x, y, width and height: ask whether they are something else.
    """
    known = np.isfinite(boxes).all(axis=1) & (sizes > 0).all(axis=1)
    beyond = (boxes[:, 2:] > sizes + 1).any(axis=1) | (boxes[:, :2] < -1).any(axis=1)
    rows = np.flatnonzero(known & beyond)
    total = int(known.sum())
    if len(rows) < max(3, _MANY * total):
        return []
    text = f"{len(rows)} of {total} boxes reach beyond their image, the first {name(int(rows[0]))}"
    meant = _meant(boxes[known], sizes[known] + 1) if from_extent else ""
    return [f"{text}: {meant}" if meant else f"{text}: they are cut at its edge"]


def _meant(boxes: NDArray[np.float64], limits: NDArray[Any]) -> str:
    start, extent = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    if ((start >= -1) & (extent > start) & (extent <= limits)).all(axis=1).mean() >= _NEARLY_ALL:
        return "are they x1 y1 x2 y2 instead of x y width height?"
    half = extent / 2
    if ((start - half >= -1) & (start + half <= limits)).all(axis=1).mean() >= _NEARLY_ALL:
        return "are they centre x, centre y, width, height instead of x y width height?"
    return ""


def are_fractions(boxes: NDArray[np.float64], sizes: NDArray[Any]) -> bool:
    """Whether no box reaches beyond the first pixel: such boxes are fractions of their images, not pixels.

    Args:
        boxes, sizes: as for `odd_boxes`.
    """
    with np.errstate(invalid="ignore"):
        extent = boxes[:, 2:] - boxes[:, :2]
        real = np.isfinite(boxes).all(axis=1) & (extent > 0).all(axis=1)
        small = (boxes[:, :2] <= 1).all(axis=1) & (extent <= 1).all(axis=1)
    in_large = (sizes > 4).all(axis=1) | (sizes == 0).all(axis=1)
    return bool(real.any() and (small & in_large)[real].all())
