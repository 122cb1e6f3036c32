"""The score from which a detector's boxes are best shown: where F1 over all images and classes is highest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msbal.evaluation.detections import Detections, GroundTruth
from msbal.evaluation.matching import voc_claims

DEFAULT_THRESHOLD = 0.5  # where there are no detections to choose it from


@dataclass(frozen=True)
class OperatingPoint:
    """A score threshold, and what the detections that reach it achieve.

    Attributes:
        threshold: has two significant digits, so that what is printed can be typed.
        f1: over all images and classes, at an IoU of 0.5 by VOC's rules; 0..1.
    """

    threshold: float
    f1: float


def best_f1_threshold(truth: GroundTruth, found: Detections) -> OperatingPoint:
    """Return the threshold of two significant digits at which F1 is highest.

    Of thresholds that are equally good, as all are where no box is found, take the one that keeps about as many
    detections as there are boxes.
    """
    if not len(found):
        return OperatingPoint(DEFAULT_THRESHOLD, 0.0)
    # What a detection finds depends only on those of higher scores: one matching serves all thresholds.
    claimed, ignored = voc_claims(truth, found)
    thresholds = np.unique(_rounded_down(found.score))

    def reaching(scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return how many of `scores` reach each threshold."""
        below: NDArray[np.int64] = np.searchsorted(np.sort(scores), thresholds, side="left")
        return len(scores) - below

    boxes = int((~(truth.crowd | truth.difficult)).sum())
    reported = reaching(found.score[~ignored])
    f1 = f1_scores(reaching(found.score[claimed >= 0]), reported, boxes)
    best = int(np.lexsort((np.abs(reported - boxes), -f1))[0])
    return OperatingPoint(float(thresholds[best]), float(f1[best]))


def f1_scores(
    right: NDArray[np.int64], reported: NDArray[np.int64], boxes: NDArray[np.int64] | int
) -> NDArray[np.float64]:
    """Return F1, the harmonic mean of precision and recall; 0 where there is neither a detection nor a box.

    Args:
        right: how many detections found a box.
        reported: how many there are.
        boxes: how many were to be found.
    """
    f1: NDArray[np.float64] = 2.0 * right / np.maximum(reported + boxes, 1)
    return f1


def _rounded_down(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest number of two significant digits that is not above each score."""
    exponent = np.floor(np.log10(np.maximum(np.abs(scores), 1e-300)))
    scale = 10.0 ** (1 - exponent)
    nearest = np.round(scores * scale)
    rounded: NDArray[np.float64] = np.where(nearest / scale > scores, nearest - 1, nearest) / scale
    return rounded
