"""Choose images to show: some of the best, the typical and the worst, so that a drawing neither flatters nor alarms."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

KINDS = ("best", "typical", "worst")


def choose(
    score: NDArray[np.float64], boxes: NDArray[np.int64], count: int, usable: Callable[[int], bool]
) -> list[tuple[str, int]]:
    """Return the images of the best, the typical and the worst scores, a third of `count` each.

    Typical images lie nearest the median. Of equal scores, the best and the worst are those with most boxes, and the
    typical those with the usual number.

    Args:
        score: of each image, ``[I]``; NaN where there is nothing to see; these come last.
        boxes: how many each image has, ``[I]``.
        usable: whether an image can be shown; the next takes the place of one that cannot.

    Returns:
        kind and index of each.
    """
    known = ~np.isnan(score)
    median = np.median(score[known]) if known.any() else 0.0
    usual = np.median(boxes[known]) if known.any() else 0.0
    orders = (
        np.lexsort((-boxes, -score)),
        np.lexsort((np.abs(boxes - usual), np.abs(score - median))),
        np.lexsort((-boxes, score)),
    )
    count = min(count, len(score))
    outer = (count + 1) // 3
    chosen: dict[int, str] = {}
    for kind, wanted, order in zip(KINDS, (outer, count - 2 * outer, outer), orders, strict=True):
        free = (index for index in order.tolist() if index not in chosen and usable(index))
        for index in islice(free, wanted):
            chosen[index] = kind
    return [(kind, index) for index, kind in chosen.items()]
