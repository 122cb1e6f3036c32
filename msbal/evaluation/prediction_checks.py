"""Signs that usable predictions are in another format, or in a file that was written twice.

They change no metric: each is a sentence for the reader. Shapes: D detections.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msbal.data import DetectionData
from msbal.evaluation.detections import Detections

_BEYOND = 1.05  # times the image's side: more than any rounding or a detector that does not clip
_MANY = 0.1  # of the boxes


def oddities(data: DetectionData, found: Detections) -> list[str]:
    """Return sentences on what looks odd about detections of `data`."""
    silent = len(data) - len(np.unique(found.image))
    lines = [f"{silent:,} of {len(data):,} images have no prediction"] if silent > len(data) / 2 else []
    if not data.box_count:
        lines.insert(0, f"{data.name} has no boxes: no metric has a value")
    if not len(found):
        return lines
    size = np.array([(image.width, image.height) for image in data.images], dtype=np.float64)[found.image]
    lines += _places(found.box, size)
    total, copies = len(found), _copies(found)
    if copies:
        lines.append(
            f"{copies:,} of {total:,} predictions repeat another (image, class, box and score): all count"
        )
    low, high = found.score.min(), found.score.max()
    if low == high and total > 1:
        lines.append(f"all {total:,} predictions have the score {low:g}: AP needs scores to rank them by")
    if high > 1:
        lines.append(f"scores reach {high:g}, not 1: only their order counts")
    return lines


def _places(box: NDArray[np.float64], size: NDArray[np.float64]) -> list[str]:
    """Return a question where boxes seem to be written in another way; a `size` of 0 is unknown."""
    if 0 < box.max() <= 1 < size.max():
        return ["all coordinates are at most 1: are they shares of the image instead of pixels?"]
    known = (size > 0).all(axis=1)
    box, size = box[known], size[known] * _BEYOND
    far = int((box[:, :2] + box[:, 2:] > size).any(axis=1).sum())
    if not far or far < _MANY * len(box):
        return []
    corners = ((box[:, 2:] >= box[:, :2]) & (box[:, 2:] <= size)).all(axis=1).mean() > 1 - _MANY
    meant = (
        "x1, y1, x2, y2 instead of x, y, width, height" if corners else "pixels of an image of another size"
    )
    return [f"{far:,} of {len(box):,} boxes end far beyond their image: are they {meant}?"]


def _copies(found: Detections) -> int:
    """Return how many detections are exact copies of an earlier one."""
    order = np.lexsort((found.score, found.label, found.image))
    columns = (found.score, found.label, found.image, *found.box.T)
    near = np.ones(len(order) - 1, dtype=np.bool_)
    for column in columns[:3]:
        near &= np.diff(column[order]) == 0
    # Few are left of a class and image with equal scores: only these are compared as a whole.
    either = order[np.concatenate([near, [False]]) | np.concatenate([[False], near])]
    rows = np.stack([column[either].astype(np.float64) for column in columns], axis=1)
    return len(rows) - len(np.unique(rows, axis=0))
