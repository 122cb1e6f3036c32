"""AP and recall by level: against COCO's own by area, against pycocotools with levels for areas, and by hand."""

from __future__ import annotations

import contextlib
import copy
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_scenes import make_scenes
from test_coco_metrics import SCENES

from msbal.data import DetectionData, ImageRecord
from msbal.evaluation import evaluate
from msbal.evaluation.detections import ground_truth
from msbal.evaluation.level_metrics import LevelMetrics, detection_levels, level_metrics, metrics_of
from msbal.evaluation.matching import AREA_RANGES
from msbal.evaluation.predictions import sift


def by_area(area: np.ndarray) -> np.ndarray:
    return np.digitize(area, AREA_RANGES[2:, 0])


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"seed{scene['seed']}")
def test_where_levels_are_ranges_of_area_it_is_cocos_ap_by_area(scene: dict[str, Any]) -> None:
    data, predictions = make_scenes(**scene)
    # COCO counts a box at the limit on both sides.
    records = tuple(replace(r, area=np.nextafter(r.area, np.float32(0))) for r in data.images)
    data, truth = replace(data, images=records), ground_truth(replace(data, images=records))
    found = sift(
        [p | {"bbox": [*p["bbox"][:2], p["bbox"][2] * 0.999, p["bbox"][3]]} for p in predictions], data
    )[0]
    levels = metrics_of(truth, found, by_area(truth.area), by_area(found.box[:, 2] * found.box[:, 3]), 3)
    coco = evaluate(data, found)
    for letter, level in zip("SML", levels, strict=True):
        assert level.ap == pytest.approx(coco[f"AP_{letter}"], abs=1e-12)
        assert level.recall == pytest.approx(coco[f"AR_{letter}"], abs=1e-12)
    assert sum(level.boxes for level in levels) == int((~truth.crowd).sum())


def neighbours(data: DetectionData, truth: Any, found: Any, levels: np.ndarray) -> np.ndarray:
    """The rule, box by box: nearest in log width and log height, in shares of the image; the finest of equals."""

    def shape(box: np.ndarray, image: int) -> np.ndarray:
        return np.log(
            np.maximum(box[2:], 1e-3) / np.sqrt(data.images[image].width * data.images[image].height)
        )

    chosen = []
    for box, image in zip(found.box, found.image, strict=True):
        best = (float("inf"), -1)
        for other, place, level in zip(truth.box, truth.image, levels.tolist(), strict=True):
            if level >= 0:
                distance = ((shape(box, image) - shape(other, place)) ** 2).sum()
                best = min(best, (float(distance), level))
        chosen.append(best[1])
    return np.array(chosen, np.int64)


@pytest.mark.parametrize("scene", SCENES[:3], ids=lambda scene: f"seed{scene['seed']}")
def test_it_is_pycocotools_with_levels_in_place_of_areas(scene: dict[str, Any]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    data, predictions = make_scenes(**scene)
    truth, (found, kept, _) = ground_truth(data), sift(predictions, data)
    assert len(kept) == len(predictions)
    draw = np.random.default_rng(scene["seed"])
    levels = draw.choice([-1, 0, 1, 3], len(truth), p=[0.1, 0.3, 0.3, 0.3])  # level 2 has no box
    levels[truth.crowd] = -1
    of_found = detection_levels(data, truth, found, levels)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = data.to_coco()
        coco.createIndex()
        results = coco.loadRes(copy.deepcopy(predictions))
        for annotation, level in zip(coco.dataset["annotations"], levels.tolist(), strict=True):
            annotation["area"] = level
        for annotation, level in zip(results.dataset["annotations"], of_found.tolist(), strict=True):
            annotation["area"] = level
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.params.areaRng = [[k - 0.5, k + 0.5] for k in range(4)]
        evaluation.params.areaRngLbl = list("0123")
        evaluation.evaluate()
        evaluation.accumulate()
    metrics = level_metrics(data, predictions, levels[~truth.crowd], 4)
    for level, mine in enumerate(metrics):
        precision = evaluation.eval["precision"][:, :, :, level, -1]
        recall = evaluation.eval["recall"][:, :, level, -1]
        assert mine.boxes == int((levels == level).sum())
        if level == 2:
            assert mine == LevelMetrics(None, None, 0) and (precision == -1).all()
            continue
        assert mine.ap == pytest.approx(precision[precision > -1].mean(), abs=1e-12)
        assert mine.recall == pytest.approx(recall[recall > -1].mean(), abs=1e-12)


def test_a_detection_goes_to_the_level_of_the_box_most_like_it() -> None:
    data, predictions = make_scenes(5, images=15, detections=8, flood=0)
    sizes = [(320, 240), (640, 480), (100, 400)]
    data = replace(
        data, images=tuple(replace(r, width=w, height=h) for r, (w, h) in zip(data.images, sizes * 5, strict=True))
    )  # fmt: skip
    truth, (found, *_) = ground_truth(data), sift(predictions, data)
    levels = np.random.default_rng(5).integers(-1, 4, len(truth))
    assert np.array_equal(
        detection_levels(data, truth, found, levels), neighbours(data, truth, found, levels)
    )
    assert (detection_levels(data, truth, found, np.full(len(truth), -1)) == -1).all()


def scene_of(boxes: list[list[float]], crowd: int = 0) -> DetectionData:
    """One image of 100 x 100 pixels; the last `crowd` boxes are crowds."""
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    sizes, count = corners[:, 2:] - corners[:, :2], len(corners)
    flags = np.arange(count) >= count - crowd
    record = ImageRecord(
        1, Path("a.png"), 100, 100, corners, np.zeros(count, np.int64), sizes.prod(axis=1), flags, np.zeros(count, bool)
    )  # fmt: skip
    return DetectionData("some", ("cell",), (1,), (record,))


def detection(x: float, y: float, w: float, h: float, score: float) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "score": score}


def test_a_false_positive_costs_its_own_level_alone() -> None:
    data = scene_of([[0, 0, 10, 10], [40, 40, 80, 80]])
    right = [detection(0, 0, 10, 10, 0.5), detection(40, 40, 40, 40, 0.5)]
    small, large = level_metrics(data, [*right, detection(20, 20, 12, 9, 0.9)], np.array([0, 1]), 2)
    assert (small.ap, small.recall, small.boxes) == (pytest.approx(0.5), 1.0, 1)
    assert (large.ap, large.recall, large.boxes) == (pytest.approx(1.0), 1.0, 1)
    small, large = level_metrics(data, right[:1], np.array([0, 1]), 2)
    assert (small.ap, large.ap, large.recall) == (pytest.approx(1.0), 0.0, 0.0)


def test_a_box_without_level_and_a_crowd_neither_help_nor_harm() -> None:
    data = scene_of([[0, 0, 10, 10], [20, 0, 30, 10], [60, 60, 100, 100]], crowd=1)
    found = [detection(0, 0, 10, 10, 0.5), detection(20, 0, 10, 10, 0.9), detection(62, 62, 10, 10, 0.9)]
    (level,) = level_metrics(data, found, np.array([0, -1]), 1)
    assert (level.ap, level.boxes) == (pytest.approx(1.0), 1)


@pytest.mark.parametrize("boxes", [[], [[0, 0, 10, 10]]])
def test_nothing_to_find_and_nothing_found(boxes: list[list[float]]) -> None:
    data = scene_of(boxes, crowd=len(boxes))
    assert level_metrics(data, [], np.zeros(0, np.int64), 2) == [LevelMetrics(None, None, 0)] * 2
