"""VOC's metrics against mmdet's own."""

from __future__ import annotations

import numpy as np
import pytest
from detection_scenes import make_scenes

from msbal.evaluation import evaluate, voc_metrics

functional = pytest.importorskip("mmdet.evaluation.functional", reason="mmdet is not installed")


@pytest.mark.parametrize("mode", ["area", "11points"])
def test_agrees_with_mmdet(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its sort is not stable, so no ties; and with its recalls, 0.30000000000000004 and so on, it agrees.
    monkeypatch.setattr(voc_metrics, "VOC_RECALLS", np.arange(0, 1 + 1e-3, 0.1))
    data, predictions = make_scenes(11, images=30, ties=False, difficult=0.3, crowds=0)
    annotations = [
        {
            "bboxes": image.boxes[~image.difficult],
            "labels": image.labels[~image.difficult],
            "bboxes_ignore": image.boxes[image.difficult],
            "labels_ignore": image.labels[image.difficult],
        }
        for image in data.images
    ]
    results = []
    for image in data.images:
        mine = [p for p in predictions if p["image_id"] == image.id]
        per_class = []
        for id_ in data.category_ids:
            rows = [[*p["bbox"], p["score"]] for p in mine if p["category_id"] == id_]
            table = np.array(rows, dtype=np.float64).reshape(-1, 5)
            table[:, 2:4] += table[:, :2]
            per_class.append(table)
        results.append(per_class)
    expected, _ = functional.eval_map(
        results, annotations, iou_thr=0.5, eval_mode=mode, logger="silent", nproc=1
    )
    found = evaluate(data, predictions)["voc"]["mAP" if mode == "area" else "mAP_11"]
    assert found == pytest.approx(expected, abs=1e-6)  # its arithmetic is float32
