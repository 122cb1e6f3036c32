"""A paired bootstrap over images: how sure a difference between two runs is, given these images.

Each resample draws as many images as there are, with replacement. Both runs are evaluated on the same draw,
and every metric is recomputed from the matches as it would be from the drawn images (AP is no mean over
images). The interval covers what other images could have shown, not what another seed of the training could have.

It reaches as far as Student's t says, in standard errors from the bootstrap (Hesterberg, "What teachers should know
about the bootstrap", 2015). Draws of I images vary by only ``(I - 1) / I`` of the variance there is, which few images
show but roughly, and images without boxes hardly count in I: percentiles of the draws see none of that. Coverage of
their 95 % and of these, by real matching on made-up detections, AP and AP50:

    =================  ===========  ========
    images with boxes  percentiles  these
    =================  ===========  ========
    5                  82 to 83     94 to 95
    7                  85 to 86     94 to 95
    10                 88 to 90     93 to 95
    16                 90 to 94     92 to 95
    40                 91 to 95     91 to 96
    =================  ===========  ========

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
from msbal.evaluation.matching import AREA_RANGES, coco_matches, voc_matches
from msbal.evaluation.precision_recall import COCO_RECALLS, Curves
from msbal.evaluation.voc_metrics import voc_metrics

ALL_METRICS = (*METRICS, "mAP", "mAP_11")
MIN_IMAGES = 5  # fewer show too little of what others could


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


def images_with_boxes(truth: GroundTruth) -> NDArray[np.int64]:
    """Return for each metric and class how many images have boxes that it is of, ``[F + K]``.

    An image without any hardly moves the metric, drawn or not.
    """

    def having(boxes: NDArray[np.bool_]) -> int:
        return len(np.unique(truth.image[boxes & ~truth.crowd]))

    by_area = {"": having(np.ones(len(truth), np.bool_))}
    for letter, (low, high) in zip("SML", AREA_RANGES[1:], strict=True):
        by_area[letter] = having((truth.area >= low) & (truth.area <= high))
    of_metrics = [by_area[name.partition("_")[2] if name in METRICS else ""] for name in ALL_METRICS]
    of_classes = [having(truth.label == label) for label in range(truth.class_count)]
    return np.array(of_metrics + of_classes, np.int64)


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
    images: int,
    confidence: float = 0.95,
) -> Difference | None:
    """Return how far two runs are apart in one metric.

    Args:
        value: the difference on the images as they are; None where it is undefined.
        first, second: ``[R]`` the metric of each run on the same draws, NaN where undefined.
        images: how many have boxes that the metric is of.
        confidence: of the interval.

    Returns:
        None where the difference is undefined; without an interval where it is undefined on more than
        one draw in twenty, or the images are fewer than `MIN_IMAGES`.
    """
    from scipy import stats

    if not 0 < confidence < 1:
        raise ValueError(f"Parameter `confidence` should be between 0 and 1. Found {confidence}.")
    if value is None:
        return None
    drawn = second - first
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) < max(2, 0.95 * len(first)) or images < MIN_IMAGES:
        return Difference(value)
    variance = float(drawn.var(ddof=1)) * images / (images - 1)
    reach = float(stats.t.isf((1 - confidence) / 2, images - 1)) * variance**0.5
    above = float(np.mean(drawn > 0) + np.mean(drawn == 0) / 2)
    return Difference(value, value - reach, value + reach, above)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
