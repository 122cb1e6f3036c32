"""Boxes as files hold them, made fit for training: clipped to the image, degenerate ones named.

Shapes: N boxes, of one image or of many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NOT_FINITE = "not finite"
NO_EXTENT = "no width or height"
OUTSIDE = "outside the image"
TOO_THIN = "thinner than a thousandth of a pixel"

_THINNEST = 1e-3  # pixels; an edge this near another would also drive the log of a regression target to -inf


def clip_boxes(boxes: NDArray[np.float64], sizes: NDArray[Any]) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Clip boxes to their images and find those that cannot be used.

    Args:
        boxes: ``[N, 4]``, ``(x1, y1, x2, y2)``, right and bottom edges exclusive.
        sizes: ``[N, 2]``, width and height of each box's image.

    Returns:
        The clipped boxes ``[N, 4]``, and for each unusable row its reason. What is not in the second
        is at least a thousandth of a pixel wide and high in float32.
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
    names = {1: NOT_FINITE, 2: NO_EXTENT, 3: OUTSIDE, 4: TOO_THIN}
    return clipped, {int(row): names[int(reasons[row])] for row in np.flatnonzero(reasons)}


def box_area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Square pixels of ``[N, 4]`` boxes, ``[N]``."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def describe(box: Any, reason: str) -> str:
    """'no width or height: 504, 337, 504, 337'."""
    return f"{reason}: {', '.join(f'{float(value):g}' for value in box)}"
