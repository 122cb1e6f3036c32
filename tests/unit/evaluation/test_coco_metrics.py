from __future__ import annotations

import contextlib
import copy
import io
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from detection_scenes import make_scenes
from needed import need_packages

from msbal.data import DetectionData, subset
from msbal.errors import BackendError
from msbal.evaluation import evaluate
from msbal.evaluation.coco_metrics import (
    CLASS_METRICS,
    EVALUATORS,
    METRICS,
    accumulate,
    class_metrics,
    metrics,
)
from msbal.evaluation.detections import ground_truth
from msbal.evaluation.predictions import sift

pycocotools = pytest.importorskip("pycocotools", reason="pycocotools is the cross-check")


def by_pycocotools(
    data: DetectionData, predictions: list[dict[str, Any]], category: int | None = None
) -> tuple[Any, str]:
    """pycocotools as anybody would call it, and what it prints."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        truth = COCO()
        truth.dataset = data.to_coco()
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(predictions)), "bbox")
        if category is not None:
            evaluation.params.catIds = [category]
        evaluation.evaluate()
        evaluation.accumulate()
        printed.truncate(0)
        evaluation.summarize()
    return evaluation, printed.getvalue()


def installed(evaluator: str) -> str:
    need_packages(evaluator)
    return evaluator


SCENES = [
    {"seed": 1},
    {"seed": 2, "ties": False, "crowds": 0.4},
    {"seed": 3, "images": 12, "classes": 2, "boxes": 12, "detections": 60, "flood": 4},
    {"seed": 4, "images": 60, "classes": 9, "boxes": 2, "detections": 5, "flood": 0},
]


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"seed{scene['seed']}")
def test_every_evaluator_is_pycocotools_to_the_last_printed_digit(
    evaluator: str, scene: dict[str, Any]
) -> None:
    data, predictions = make_scenes(**scene)
    reference, printed = by_pycocotools(data, predictions)
    detections, _, remarks = sift(predictions, data)
    assert not remarks.dropped
    result = accumulate(data, ground_truth(data), detections, installed(evaluator))
    assert result.evaluator == evaluator
    np.testing.assert_allclose(result.stats, reference.stats, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.precision, reference.eval["precision"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.recall, reference.eval["recall"], rtol=0, atol=1e-12)
    assert [f"= {value:0.3f}" for value in result.stats] == [
        line[-7:] for line in printed.strip("\0\n").splitlines()
    ]
    if evaluator == "hotcoco":
        assert np.array_equal(result.stats, reference.stats)
        assert np.array_equal(result.precision, reference.eval["precision"])


STAMP = 1_717_171_717_171_717_171  # nanoseconds; as float64, neighbours are the same number
RENUMBERED = {
    "image ids that are time stamps": (lambda id_: STAMP + id_, int),
    "category ids that are hashes": (int, lambda id_: 2**63 - 1 - id_),
    "both negative, around 0 and large": (lambda id_: (id_ - 60) * 2**55, lambda id_: (id_ - 5) * 2**60),
}


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("case", RENUMBERED)
def test_ids_of_any_size_give_pycocotools_metrics(evaluator: str, case: str) -> None:
    image_id, category_id = RENUMBERED[case]
    data, predictions = make_scenes(seed=9, images=20)
    data = replace(
        data,
        category_ids=tuple(category_id(id_) for id_ in data.category_ids),
        images=tuple(replace(image, id=image_id(image.id)) for image in data.images),
    )
    for entry in predictions:
        entry["image_id"], entry["category_id"] = (
            image_id(entry["image_id"]),
            category_id(entry["category_id"]),
        )
    reference, _ = by_pycocotools(data, predictions)
    assert reference.stats[0] > 0.1
    detections, _, remarks = sift(predictions, data)
    assert not remarks.lines()
    result = accumulate(data, ground_truth(data), detections, installed(evaluator))
    np.testing.assert_allclose(result.stats, reference.stats, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.precision, reference.eval["precision"], rtol=0, atol=1e-12)
    for number, (name, found) in enumerate(class_metrics(result, data).items()):
        alone, _ = by_pycocotools(data, predictions, category=data.category_ids[number])
        assert (-1 if found["AP"] is None else found["AP"]) == pytest.approx(alone.stats[0], abs=1e-12), name


def test_the_scenes_are_hard() -> None:
    data, predictions = make_scenes(seed=1)
    truth = ground_truth(data)
    detections, _, _ = sift(predictions, data)
    assert truth.crowd.any()
    assert any(len(image.boxes) == 0 for image in data.images)
    assert len(set(detections.image.tolist())) < len(data)
    assert len(set(detections.score.tolist())) < len(detections) / 3
    assert np.bincount(detections.image * len(data.classes) + detections.label).max() > 100
    assert sorted(data.category_ids) != list(data.category_ids)


def test_metrics_per_class_are_those_of_the_class_alone() -> None:
    data, predictions = make_scenes(seed=5)
    found = evaluate(data, predictions)
    for name, id_ in zip(data.classes, data.category_ids, strict=True):
        reference, _ = by_pycocotools(data, predictions, category=id_)
        expected = dict(zip(METRICS, reference.stats.tolist(), strict=True))
        for metric in CLASS_METRICS:
            value = found["per_class"][name][metric]
            assert (-1 if value is None else value) == pytest.approx(expected[metric], abs=1e-12)
    empty = found["per_class"][data.classes[-1]]
    assert empty["AP"] is None and empty["boxes"] == 0 and empty["voc"]["AP"] is None
    boxes = sum(entry["boxes"] for entry in found["per_class"].values())
    detections = sum(entry["detections"] for entry in found["per_class"].values())
    assert (boxes, detections) == (data.box_count, len(predictions))


def test_keys_are_those_of_metrics_json() -> None:
    data, predictions = make_scenes(seed=6, images=4)
    found = evaluate(data, predictions)
    assert list(found) == [*METRICS, "voc", "per_class"]
    assert list(found["voc"]) == ["mAP", "mAP_11"]


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_nothing_found_is_zero_and_nothing_to_find_is_none(evaluator: str) -> None:
    data, predictions = make_scenes(seed=7, images=6)
    truth = ground_truth(data)
    nothing, _, _ = sift([], data)
    found = metrics(accumulate(data, truth, nothing, installed(evaluator)))
    assert found["AP"] == 0 and found["AR100"] == 0
    without = [i for i, image in enumerate(data.images) if not len(image.boxes)]
    blank = subset(data, without)
    detections, _, _ = sift(predictions, blank)
    assert set(metrics(accumulate(blank, ground_truth(blank), detections, evaluator)).values()) == {None}
    assert evaluate(blank, detections)["voc"] == {"mAP": None, "mAP_11": None}


def test_the_next_installed_evaluator_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    data, predictions = make_scenes(seed=8, images=6)
    truth, (detections, _, _) = ground_truth(data), sift(predictions, data)
    expected = accumulate(data, truth, detections).stats
    for missing, following in zip(EVALUATORS, [*EVALUATORS[1:], None], strict=True):
        monkeypatch.setitem(sys.modules, missing, None)
        if following is None:
            monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
            with pytest.raises(BackendError, match="hotcoco"):
                accumulate(data, truth, detections)
            continue
        installed(following)
        result = accumulate(data, truth, detections)
        assert result.evaluator == following
        np.testing.assert_allclose(result.stats, expected, atol=1e-12)
    with pytest.raises(BackendError, match="pip install faster-coco-eval"):
        accumulate(data, truth, detections, "faster_coco_eval")
