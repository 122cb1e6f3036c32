from __future__ import annotations

import pytest

pytest.importorskip("ultralytics", reason="ultralytics is not installed")

from zoo.workers import zoo_of

FAST = ["v8/yolov8.yaml", "26/yolo26-seg.yaml", "12/yolo12-obb.yaml", "v8/yolov8-pose-p6.yaml"]
REFUSED = {
    "rt-detr/rtdetr-l.yaml": "by query",
    "11/yolo11-cls.yaml": "classifier",
    "26/yolo26-depth.yaml": "by pixel",
}


def test_names() -> None:
    assert {*FAST, *REFUSED, "v10/yolov10n.yaml", "v9/yolov9e.yaml", "v3/yolov3-tiny.yaml"} <= set(
        zoo_of("ultralytics").names()
    )


@pytest.mark.parametrize("name", FAST)
def test_the_proof_holds(name: str) -> None:
    outcome = zoo_of("ultralytics").check(name)
    assert outcome.status == "supported", outcome.reason
    assert outcome.metrics["unit_gradient"] == 0.0


@pytest.mark.parametrize("name", REFUSED)
def test_the_others_are_refused_with_the_reason(name: str) -> None:
    outcome = zoo_of("ultralytics").check(name)
    assert outcome.status == "refused" and REFUSED[name] in outcome.reason
