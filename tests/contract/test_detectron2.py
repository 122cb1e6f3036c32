"""The detectron2 backend keeps the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from finite_differences import FiniteDifferences
from left_out import LeftOut
from odd_images import OddImages

from msbal.testing.backends import BackendContract

pytest.importorskip("detectron2", reason="the detectron2 backend's framework is not installed")

_SMALL = [
    "MODEL.RESNETS.NORM=BN",  # frozen at random values, fifty layers explode
    "MODEL.BACKBONE.FREEZE_AT=0",
    "MODEL.RESNETS.STEM_OUT_CHANNELS=8",
    "MODEL.RESNETS.RES2_OUT_CHANNELS=16",
    "MODEL.RESNETS.WIDTH_PER_GROUP=4",
    "MODEL.FPN.OUT_CHANNELS=32",
    "MODEL.RETINANET.NUM_CONVS=1",
    "MODEL.ROI_BOX_HEAD.FC_DIM=32",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN=100",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN=50",
    "INPUT.MIN_SIZE_TRAIN=(128,)",
    "INPUT.MIN_SIZE_TEST=128",
]
_SCHEDULE = {"batch_size": 2, "optimizer": {"lr": 1e-3}, "warmup": 0, "workers": 0}


def _case(config: str, overrides: list[str]) -> dict[str, Any]:
    case: dict[str, Any] = {
        "backend": "detectron2",
        "model": {"config": config, "overrides": overrides},
        "schedule": _SCHEDULE,
    }
    return case


class TestDetectron2(BackendContract):
    cases: ClassVar[dict[str, dict[str, Any]]] = {
        "retinanet": _case("COCO-Detection/retinanet_R_50_FPN_1x.yaml", _SMALL),
        "faster": _case("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", _SMALL),
        "fcos": _case(str(Path(__file__).with_name("detectron2_fcos.py")), []),
    }
    refused: ClassVar[dict[str, tuple[dict[str, Any], str]]] = {
        "C4": (_case("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", _SMALL[:5]), "one level"),
        "DC5": (_case("COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml", _SMALL[:5]), "one level"),
        "masks": (_case("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", _SMALL), "masks"),
        "no config": (_case("COCO-Detection/retinanet_R_50.yaml", []), "did you mean"),
    }
    trained = ("retinanet", "faster", "fcos")


class TestImages(OddImages):
    case: ClassVar = _case("COCO-Detection/retinanet_R_50_FPN_1x.yaml", _SMALL)

    def unpack(self, batch: Any) -> tuple[Any, Any]:
        pixels = batch[0]["image"].permute(1, 2, 0).numpy()[:, :, ::-1].astype(float)
        return pixels, batch[0]["instances"].gt_boxes.tensor.numpy()


class TestFiniteDifferences(FiniteDifferences):
    case: ClassVar = TestDetectron2.cases["fcos"]  # the slopes of fifty random layers change within a step


class TestLeftOut(LeftOut):
    case: ClassVar = TestImages.case
    unpack = TestImages.unpack
    said = "shop: 3 of 5 images are used: 1 has only crowds, 1 has no boxes (DATALOADER.FILTER_EMPTY_ANNOTATIONS)"
    used = 3
