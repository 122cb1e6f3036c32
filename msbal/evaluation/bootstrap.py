"""A paired bootstrap over images: how sure a difference between two runs is, given these images.

Each resample draws as many images as there are, with replacement. Both runs are evaluated on the same draw,
and every metric is recomputed from the matches as it would be from the drawn images (AP is no mean over
images). The interval is the percentile interval of the differences. It covers what other images could have
shown, not what another seed of the training could have.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13; paired as in Koehn, "Statistical
significance tests for machine translation evaluation", EMNLP 2004. It is ours because hotcoco's counts each
drawn image once, however often it was drawn, which makes its interval 0.77 times as wide.

Only differences get an interval: a class of few images may be missing from a draw, or be in it with copies of
one image, so that metrics are higher on draws than on the images themselves. The difference of two runs hardly
changes by that.

Shapes: R resamples, F = 14 metrics, K classes, I images.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msbal.evaluation.coco_metrics import METRICS
from msbal.evaluation.detections import Detections, GroundTruth
from msbal.evaluation.matching import coco_matches, voc_matches
from msbal.evaluation.precision_recall import COCO_RECALLS, Curves
from msbal.evaluation.voc_metrics import voc_metrics

ALL_METRICS = (*METRICS, "mAP", "mAP_11")


@dataclass(frozen=True)
class Difference:
    """A difference of one metric between two runs, the second less the first.

    Attributes:
        value: on the images as they are.
        low, high: the interval; None where there is nothing to resample.
        above_zero: the share of resamples in which it is above zero; a tie counts half. None likewise.
    """

    value: float
    low: float | None = None
    high: float | None = None
    above_zero: float | None = None


class Reweighted:
    """Every metric of one set of detections, for any weighting of the images.

    Args:
        truth: G boxes over I images.
        found: the detections.
    """

    def __init__(self, truth: GroundTruth, found: Detections) -> None:
        self._coco = Curves(coco_matches(truth, found))
        self._voc = Curves(voc_matches(truth, found))
        self._first_one, self._first_ten = self._coco.found_within(1), self._coco.found_within(10)

    def metrics(self, weight: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return `ALL_METRICS` and the AP of each class, ``[F + K]``, NaN where there is nothing to find.

        Args:
            weight: ``[I]`` int64, how often each image counts.
        """
        curves = self._coco
        totals = curves.totals(weight)
        points = curves.points(weight, totals)
        precision = curves.interpolated(points, COCO_RECALLS)
        found = curves.found(points)
        present = totals > 0
        everywhere = present[0]
        boxes = np.maximum(totals, 1)
        values = [
            _mean(precision[0][:, everywhere]),
            _mean(precision[0, 0, everywhere]),
            _mean(precision[0, 5, everywhere]),
            *(_mean(precision[area][:, present[area]]) for area in (1, 2, 3)),
            _mean((self._first_one(weight) / boxes[0])[:, everywhere]),
            _mean((self._first_ten(weight) / boxes[0])[:, everywhere]),
            *(_mean((found[area] / boxes[area])[:, present[area]]) for area in (0, 1, 2, 3)),
        ]
        for per_class in voc_metrics(self._voc, weight):
            values.append(_mean(per_class[~np.isnan(per_class)]))
        per_class_ap = np.where(everywhere, precision[0].mean(axis=0), np.nan)
        return np.concatenate([values, per_class_ap])


def resampled(
    truth: GroundTruth,
    found: Detections,
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> NDArray[np.float64]:
    """Return the metrics on `resamples` draws of the images, ``[R, F + K]``.

    Two calls with the same images and seed see the same draws: that pairs the runs.

    Args:
        progress: called after each resample, from any thread.
    """
    if resamples < 1:
        raise ValueError(f"Parameter `resamples` should be at least 1. Found {resamples}.")
    run = Reweighted(truth, found)
    images = len(truth.image_id)

    def one(index: int) -> NDArray[np.float64]:
        # A generator of its own per resample: the draw depends on nothing but seed and index.
        draw = np.random.Generator(np.random.Philox(key=[seed, index])).integers(0, max(images, 1), images)
        values = run.metrics(np.bincount(draw, minlength=images))
        if progress is not None:
            progress()
        return values

    # NumPy leaves the interpreter lock while it works on long arrays, so threads do help.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return np.stack(list(pool.map(one, range(resamples))))


def interval(
    value: float | None,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    confidence: float = 0.95,
) -> Difference | None:
    """Return how far two runs are apart in one metric.

    Args:
        value: the difference on the images as they are; None where it is undefined.
        first, second: ``[R]`` the metric of each run on the same draws, NaN where undefined.
        confidence: of the interval.

    Returns:
        None where the difference is undefined; without an interval where it is undefined on more than
        one draw in twenty, as for a class that stands in fewer than three images.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"Parameter `confidence` should be between 0 and 1. Found {confidence}.")
    if value is None:
        return None
    drawn = second - first
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) < 0.95 * max(len(first), 1):
        return Difference(value)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return Difference(value, low, high, float(np.mean(drawn > 0) + np.mean(drawn == 0) / 2))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
