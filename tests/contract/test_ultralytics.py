"""The ultralytics backend keeps the contract."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("ultralytics", reason="the ultralytics backend's framework is not installed")

from finite_differences import FiniteDifferences, kept_results
from left_out import LeftOut
from odd_images import OddImages
from ultralytics_shrunk import shrunk

from msbal.testing.backends import BackendContract


def _case(config: str, **overrides: Any) -> dict[str, Any]:
    case: dict[str, Any] = {
        "backend": "ultralytics",
        "model": {"config": config, "overrides": {"imgsz": 128, "nbs": 2, **overrides}},
        "schedule": {"batch_size": 2, "workers": 0},
    }
    return case


class TestUltralytics(BackendContract):
    cases: ClassVar[dict[str, dict[str, Any]]] = {
        "v8": _case(shrunk("yolov8")),
        "26": _case(shrunk("yolo26")),
    }
    refused: ClassVar[dict[str, tuple[dict[str, Any], str]]] = {
        "no config": (_case("yolov8q.yaml"), "did you mean `yolov8"),
        "weights as config": (_case("yolov8n.pt"), "a file of weights"),
        "masks": (_case("yolov8n-seg.yaml"), "masks.*balance"),
        "keypoints": (_case("yolo26n-pose.yaml"), "keypoints"),
        "oriented": (_case("yolo11n-obb.yaml"), "oriented boxes"),
        "classifier": (_case("yolov8n-cls.yaml"), "no pyramid levels"),
        "texts": (_case("yolov8s-world.yaml"), "texts"),
        "prompts": (_case("yoloe-11s.yaml"), "prompts"),
        "queries": (_case("rtdetr-l.yaml"), "queries|query"),
        "no argument": (_case("yolov8n.yaml", mosaik=0.5), "did you mean `mosaic`"),
        "of the spec": (_case("yolov8n.yaml", epochs=3), "set `schedule.epochs`"),
        "a value": (_case("yolov8n.yaml", mosaic=1.5), "mosaic"),
        "the image size": (_case("yolov8n.yaml", imgsz=100), "e.g. 128"),
        "all frozen": (_case("yolov8n.yaml", freeze=30), "whole model"),
    }
    trained = ("v8",)


class TestImages(OddImages):
    case: ClassVar = _case(shrunk("yolov8"), imgsz=96)
    turns_all = False

    def unpack(self, batch: Any) -> tuple[Any, Any]:
        pixels = batch["img"][0].permute(1, 2, 0).numpy() * 255
        boxes = batch["bboxes"].numpy() * 96
        centres, sides = boxes[:, :2], boxes[:, 2:]
        corners = [centres - sides / 2, centres + sides / 2]
        return pixels, np.concatenate(corners, axis=1)


class TestFiniteDifferences(FiniteDifferences):
    case: ClassVar = TestImages.case

    def kept_targets(self, detector: Any) -> Any:
        return kept_results(detector.model.criterion.assigner, "forward")


class TestLeftOut(LeftOut):
    case: ClassVar = TestImages.case
    unpack = TestImages.unpack
    said = "shop: 1 of 5 images have no boxes: they are trained on as background"
    used = 5
