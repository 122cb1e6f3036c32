"""Boxes as files hold them: clipped to their images, and signs that they are written in another way than they should.

Shapes: N boxes, of one image or of many, with the width and height of each box's image, ``[N, 2]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_UNUSABLE = (
    "",
    "not finite",
    "no width or height",
    "outside the image",
    "thinner than a thousandth of a pixel",
)
_THINNEST = 1e-3  # pixels; an edge this near another would also drive the log of a regression target to -inf
_MANY = 0.2  # of the boxes, and three at least: a few that reach beyond their image are in every data set
_NEARLY_ALL = 0.9


def clip_boxes(boxes: NDArray[np.float64], sizes: NDArray[Any]) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Clip boxes to their images and find those that cannot be used.

    Args:
        boxes: ``[N, 4]``, ``(x1, y1, x2, y2)``, right and bottom edges exclusive.
        sizes: ``[N, 2]``.

    Returns:
        The clipped boxes ``[N, 4]``, and for each unusable row its reason. The others are at least a thousandth of a
        pixel wide and high in float32.
    """
    finite = np.asarray(np.isfinite(boxes).all(axis=1))
    safe = np.where(finite.reshape(-1, 1), boxes, 0.0)
    limits = np.asarray(sizes, dtype=np.float64)[:, [0, 1, 0, 1]]
    clipped = np.clip(safe, 0.0, limits).astype(np.float32)

    extent = (safe[:, 2:] > safe[:, :2]).all(axis=1)
    inside = ((safe[:, 2:] > 0) & (safe[:, :2] < limits[:, :2])).all(axis=1)
    thick = (clipped[:, 2:] - clipped[:, :2] >= _THINNEST).all(axis=1)
    # The first reason that holds; later ones follow from it.
    reasons = np.select([~finite, ~extent, ~inside, ~thick], [1, 2, 3, 4], 0)
    return clipped, {row: _UNUSABLE[reasons[row]] for row in np.flatnonzero(reasons).tolist()}


def odd_boxes(
    boxes: NDArray[np.float64],
    sizes: NDArray[Any],
    name: Callable[[int], str],
    *,
    from_extent: bool = False,
) -> list[str]:
    """Return a sentence where many boxes reach more than a pixel beyond their image; else nothing.

    Args:
        boxes: ``[N, 4]``, ``(x1, y1, x2, y2)`` before clipping.
        sizes: ``[N, 2]``; 0 where nobody knows.
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
    """Tell whether no box reaches beyond the first pixel: these are fractions of their images, not pixels.

    Args:
        boxes, sizes: as for `odd_boxes`.
    """
    with np.errstate(invalid="ignore"):
        extent = boxes[:, 2:] - boxes[:, :2]
        real = np.isfinite(boxes).all(axis=1) & (extent > 0).all(axis=1)
        small = (boxes[:, :2] <= 1).all(axis=1) & (extent <= 1).all(axis=1)
    in_large = (sizes > 4).all(axis=1) | (sizes == 0).all(axis=1)
    return bool(real.any() and (small & in_large)[real].all())
