"""Pascal VOC's metrics: average precision at IoU 0.5, as the devkit's ``VOCevaldet.m`` and ``VOCap.m`` have it.

``mAP`` is the area under the curve of best precisions (VOC 2010 and later), ``mAP_11`` the mean of the best
precision at the recalls 0, 0.1, ..., 1 (VOC 2007). The recalls are compared as fractions: where a recall is
3/10 it meets 0.3, as in MATLAB; ``np.arange(0, 1.1, 0.1)``, which Python ports use, has 0.30000000000000004.
Difficult boxes are neither to be found nor wrong to find.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msbal.evaluation.detections import Detections, GroundTruth
from msbal.evaluation.matching import voc_matches
from msbal.evaluation.precision_recall import VOC_RECALLS, Curves


def voc_average_precision(
    truth: GroundTruth, found: Detections
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the AP of each class by area and by eleven points, ``[K]`` each; NaN without a box to find."""
    return voc_metrics(Curves(voc_matches(truth, found)), np.ones(len(truth.image_id), dtype=np.int64))


def voc_metrics(curves: Curves, weight: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the same where image i counts ``weight[i]`` times."""
    totals = curves.totals(weight)
    points = curves.points(weight, totals)
    absent = totals[0] == 0
    area, eleven = curves.under(points)[0, 0], curves.interpolated(points, VOC_RECALLS)[0, 0]
    return np.where(absent, np.nan, area), np.where(absent, np.nan, eleven)
