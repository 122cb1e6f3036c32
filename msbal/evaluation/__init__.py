"""From predictions to metrics: COCO's and VOC's, the same for every backend."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from msbal.data import DetectionData
from msbal.evaluation.coco_metrics import accumulate, class_metrics, metrics
from msbal.evaluation.detections import Detections, ground_truth
from msbal.evaluation.predictions import sift
from msbal.evaluation.voc_metrics import voc_average_precision

__all__ = ["evaluate", "usable_detections"]


def evaluate(data: DetectionData, predictions: Sequence[dict[str, Any]] | Detections) -> dict[str, Any]:
    """Return COCO's and VOC's metrics of predictions on a split.

    Args:
        data: the ground truth.
        predictions: a list in COCO results format, or the same as columns. Entries that are no detections
            of `data` are left out; a warning in the log counts them.

    Returns:
        ``AP, AP50, AP75, AP_S, AP_M, AP_L, AR1, AR10, AR100, AR_S, AR_M, AR_L``, ``voc`` (``mAP``, by area,
        and ``mAP_11``) and ``per_class``: by class name ``AP, AP50, AP75, AP_S, AP_M, AP_L, AR100``, ``voc``
        (``AP``, ``AP_11``), ``boxes`` and ``detections`` (how many there are). Metrics are in 0..1, and None
        where there is nothing to find.
    """
    detections = predictions if isinstance(predictions, Detections) else usable_detections(data, predictions)
    truth = ground_truth(data)
    result = accumulate(data, truth, detections)
    area, eleven = voc_average_precision(truth, detections)
    boxes = np.bincount(truth.label, minlength=truth.class_count).tolist()
    counts = np.bincount(detections.label, minlength=truth.class_count).tolist()
    per_class: dict[str, dict[str, Any]] = {}
    for label, (name, found) in enumerate(class_metrics(result, data).items()):
        voc = {"AP": _defined(area[label]), "AP_11": _defined(eleven[label])}
        per_class[name] = {**found, "voc": voc, "boxes": boxes[label], "detections": counts[label]}
    return {
        **metrics(result),
        "voc": {"mAP": _mean(area), "mAP_11": _mean(eleven)},
        "per_class": per_class,
    }


def usable_detections(data: DetectionData, predictions: Sequence[dict[str, Any]]) -> Detections:
    """Return predictions in COCO results format as columns; a warning in the log counts those that are left out."""
    detections, _, remarks = sift(predictions, data)
    for line in remarks.lines():
        logging.getLogger(__name__).warning("%s: %s", data.name, line)
    return detections


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
