from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_scenes import make_scenes

from msbal.data import DetectionData, ImageRecord
from msbal.evaluation import evaluate
from msbal.evaluation.detections import Detections, ground_truth
from msbal.evaluation.voc_metrics import voc_average_precision


def devkit_average_precision(data: DetectionData, found: Detections, label: int) -> tuple[float, float]:
    """VOCevaldet.m and VOCap.m step by step, with inclusive corners as the devkit has them."""
    boxes: dict[int, list[tuple[float, float, float, float]]] = {}
    difficult: dict[int, list[bool]] = {}
    detected: dict[int, list[bool]] = {}
    positives = 0
    for index, image in enumerate(data.images):
        chosen = np.flatnonzero(image.labels == label)
        boxes[index] = [
            (x1 + 1, y1 + 1, x2, y2) for x1, y1, x2, y2 in image.boxes[chosen].astype(float).tolist()
        ]
        difficult[index] = (image.difficult | image.crowd)[chosen].tolist()
        detected[index] = [False] * len(chosen)
        positives += difficult[index].count(False)
    mine = [d for d in range(len(found)) if found.label[d] == label]
    ids = [data.images[found.image[d]].id for d in mine]
    ranking = [d for _, _, d in sorted(zip([-found.score[d] for d in mine], ids, mine, strict=True))]
    tp, fp = [], []
    for d in ranking:
        index = int(found.image[d])
        x, y, width, height = found.box[d].tolist()
        bb = (x + 1, y + 1, x + width, y + height)
        ovmax, jmax = -np.inf, -1
        for j, bbgt in enumerate(boxes[index]):
            iw = min(bb[2], bbgt[2]) - max(bb[0], bbgt[0]) + 1
            ih = min(bb[3], bbgt[3]) - max(bb[1], bbgt[1]) + 1
            if iw > 0 and ih > 0:
                ua = (
                    (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1)
                    + (bbgt[2] - bbgt[0] + 1) * (bbgt[3] - bbgt[1] + 1)
                    - iw * ih
                )
                if iw * ih / ua > ovmax:
                    ovmax, jmax = iw * ih / ua, j
        right = wrong = 0
        if ovmax >= 0.5:
            if not difficult[index][jmax]:
                if not detected[index][jmax]:
                    right, detected[index][jmax] = 1, True
                else:
                    wrong = 1
        else:
            wrong = 1
        tp.append(right)
        fp.append(wrong)
    if positives == 0:
        return float("nan"), float("nan")
    rec, prec, t, f = [], [], 0, 0
    for right, wrong in zip(tp, fp, strict=True):
        t, f = t + right, f + wrong
        rec.append(t / positives)
        prec.append(t / (t + f) if t + f else 0.0)
    mrec, mpre = [0.0, *rec, 1.0], [0.0, *prec, 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    area = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))
    eleven = sum(
        max((p for r, p in zip(rec, prec, strict=True) if r >= k / 10), default=0.0) for k in range(11)
    )
    return area, eleven / 11


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_the_devkit_step_by_step(seed: int) -> None:
    data, predictions = make_scenes(
        seed, images=25, ties=seed % 2 == 0, difficult=0.3, crowds=0.1 * (seed % 3), detections=25
    )
    truth = ground_truth(data)
    index_of = {image.id: n for n, image in enumerate(data.images)}
    label_of = {id_: n for n, id_ in enumerate(data.category_ids)}
    found = Detections(
        np.array([index_of[p["image_id"]] for p in predictions]),
        np.array([label_of[p["category_id"]] for p in predictions]),
        np.array([p["bbox"] for p in predictions]),
        np.array([p["score"] for p in predictions]),
    )
    area, eleven = voc_average_precision(truth, found)
    expected = np.array([devkit_average_precision(data, found, label) for label in range(len(data.classes))])
    np.testing.assert_allclose(area, expected[:, 0], atol=1e-12)
    np.testing.assert_allclose(eleven, expected[:, 1], atol=1e-12)
    assert np.nanmax(area) > 0.1 and np.isnan(area[-1])
    metrics = evaluate(data, predictions)
    assert metrics["voc"]["mAP"] == pytest.approx(np.nanmean(expected[:, 0]), abs=1e-12)
    assert metrics["voc"]["mAP_11"] == pytest.approx(np.nanmean(expected[:, 1]), abs=1e-12)
    assert metrics["per_class"]["class 0"]["voc"]["AP"] == pytest.approx(expected[0, 0], abs=1e-12)


def scene(boxes: list[list[float]], difficult: list[bool]) -> DetectionData:
    count = len(boxes)
    record = ImageRecord(
        id=1, path=Path("1.jpg"), width=1000, height=100,
        boxes=np.array(boxes, np.float32), labels=np.zeros(count, np.int64), area=np.full(count, 100, np.float32),
        crowd=np.zeros(count, np.bool_), difficult=np.array(difficult),
    )  # fmt: skip
    return DetectionData("one", ("thing",), (1,), (record,))


def predicted(*rows: tuple[float, float]) -> list[dict[str, Any]]:
    """Boxes of 10 x 10 at (x, 0) with a score."""
    return [{"image_id": 1, "category_id": 1, "bbox": [x, 0, 10, 10], "score": s} for x, s in rows]


def test_by_hand() -> None:
    data = scene([[0, 0, 10, 10], [100, 0, 110, 10]], [False, False])
    # right, wrong, right: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1
    found = evaluate(data, predicted((0, 0.9), (500, 0.8), (100, 0.7)))["voc"]
    assert found["mAP"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found["mAP_11"] == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


def test_a_second_detection_of_a_box_is_wrong_and_a_difficult_box_is_neither() -> None:
    data = scene([[0, 0, 10, 10], [100, 0, 110, 10]], [False, True])
    twice = evaluate(data, predicted((0, 0.9), (0, 0.95)))["voc"]["mAP"]
    assert twice == pytest.approx(1.0)
    assert evaluate(data, predicted((500, 0.95), (0, 0.9)))["voc"]["mAP"] == pytest.approx(0.5)
    # found twice and difficult: as if never said
    assert evaluate(data, predicted((100, 0.95), (100, 0.94), (0, 0.9)))["voc"]["mAP"] == pytest.approx(1.0)


def test_a_box_already_claimed_is_not_left_for_the_next_best() -> None:
    """COCO gives the second detection the second box; VOC does not look past the best overlap."""
    data = scene([[0, 0, 10, 10], [2, 0, 12, 10]], [False, False])
    found = evaluate(data, predicted((0, 0.9), (0.5, 0.8)))
    assert found["voc"]["mAP"] == pytest.approx(0.5)
    assert found["AP50"] == pytest.approx(1.0)


def test_iou_of_exactly_one_half_is_enough() -> None:
    data = scene([[0, 0, 10, 10]], [False])
    half = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 5], "score": 0.9}]
    assert evaluate(data, half)["voc"]["mAP"] == pytest.approx(1.0)


def test_a_recall_of_three_tenths_meets_0_3() -> None:
    """np.arange(0, 1.1, 0.1)[3] is 0.30000000000000004, which 3/10 would miss."""
    data = scene([[100 * n, 0, 100 * n + 10, 10] for n in range(10)], [False] * 10)
    found = evaluate(data, predicted((0, 0.9), (100, 0.8), (200, 0.7)))["voc"]
    assert found["mAP_11"] == pytest.approx(4 / 11)
    assert found["mAP"] == pytest.approx(0.3)
