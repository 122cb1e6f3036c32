"""The contract, kept by the mmdet backend on shrunk zoo configs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

from finite_differences import FiniteDifferences
from left_out import LeftOut
from odd_images import OddImages

from msbal.testing.backends import BackendContract
from msbal_mmdet.assignment import inputs_of

SIDE = 128
TRAIN, TEST = "train_dataloader.dataset.pipeline", "val_dataloader.dataset.pipeline"
BASE: dict[str, Any] = {
    "model.backbone.depth": 18,
    "model.backbone.base_channels": 8,
    "model.backbone.stem_channels": 8,
    "model.neck.in_channels": [8, 16, 32, 64],
    "model.neck.out_channels": 64,  # group norm has 32 groups, and needs two values in each at a single cell
    f"{TRAIN}.2.scale": [SIDE, SIDE],
    f"{TEST}.1.scale": [SIDE, SIDE],
}
HEAD = {
    "model.bbox_head.in_channels": 64,
    "model.bbox_head.feat_channels": 64,
    "model.bbox_head.stacked_convs": 1,
}


def case(config: str, **options: Any) -> dict[str, Any]:
    """A raw spec without data."""
    model = {"config": config, "pretrained": False, "cfg_options": {**BASE, **options}}
    return {"backend": "mmdet", "model": model, "schedule": {"optimizer": {"lr": 0.001}}}


FASTER = case(
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    **{
        "model.rpn_head.in_channels": 64,
        "model.rpn_head.feat_channels": 64,
        "model.roi_head.bbox_roi_extractor.out_channels": 64,
        "model.roi_head.bbox_head.in_channels": 64,
        "model.roi_head.bbox_head.fc_out_channels": 64,
        "model.train_cfg.rpn_proposal.nms_pre": 100,
        "model.train_cfg.rpn_proposal.max_per_img": 50,
    },
)


class TestMMDet(BackendContract):
    cases: ClassVar = {
        "retinanet": case("retinanet/retinanet_r50_fpn_1x_coco.py", **HEAD),
        "faster_rcnn": FASTER,
        "faster_rcnn_roi": {
            **FASTER,
            "balance": {"strategy": "equal", "interval": 2, "scope": ["rpn", "roi"]},
        },
        "atss": case("atss/atss_r50_fpn_1x_coco.py", **HEAD),
        "fcos": case("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", **HEAD),
    }
    refused: ClassVar = {
        "yolof": (
            {
                "backend": "mmdet",
                "model": {"config": "yolof/yolof_r50-c5_8xb8-1x_coco.py", "pretrained": False},
            },
            "one level",
        ),
        "detr": (
            {"backend": "mmdet", "model": {"config": "detr/detr_r50_8xb2-150e_coco.py", "pretrained": False}},
            "queries",
        ),
        "masks": (
            {
                "backend": "mmdet",
                "model": {"config": "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "pretrained": False},
            },
            "masks",
        ),
        "no config": ({"backend": "mmdet", "model": {"config": "retinanet/nothing.py"}}, "zoo"),
    }
    trained: ClassVar = ("retinanet",)

    def test_the_level_of_a_box_goes_by_the_models_own_input(self, contract_root: Path) -> None:
        _, detector, data = self._build("retinanet", contract_root)
        # One image is reshaped, as all that are generated have one size.
        pixels = np.asarray(Image.open(data.images[0].path))[:60, :100]
        Image.fromarray(pixels).save(contract_root / "odd.png")
        odd = replace(data.images[0], path=contract_root / "odd.png", width=100, height=60)
        odd = replace(odd, boxes=odd.boxes.clip(0, 50) + np.array([0, 0, 5, 5], np.float32))
        data = replace(data, images=(*data.images[1:4], odd, *data.images[4:]))
        found = inputs_of(detector.config, detector.model, data)
        batches = [detector.batch(data, [index]) for index in range(len(data))]
        boxes = [batch["data_samples"][0].gt_instances.bboxes.tensor for batch in batches]
        assert torch.equal(found.boxes, torch.cat(boxes))
        seen = [detector.model.data_preprocessor(batch, False)["inputs"].shape for batch in batches]
        assert found.sizes == [(width, height) for *_, height, width in seen]
        assert len(set(found.sizes)) == 2


class TestImages(OddImages):
    case: ClassVar = case("retinanet/retinanet_r50_fpn_1x_coco.py", **HEAD)

    def unpack(self, batch: Any) -> tuple[Any, Any]:
        boxes = batch["data_samples"][0].gt_instances.bboxes
        return batch["inputs"][0].permute(1, 2, 0).numpy()[:, :, ::-1].astype(float), boxes.tensor.numpy()


class TestFiniteDifferences(FiniteDifferences):
    case: ClassVar = TestImages.case


class TestLeftOut(LeftOut):
    case: ClassVar = TestImages.case
    unpack = TestImages.unpack
    said = (
        "shop: 3 of 5 images are used: 1 has no boxes, 1 has a side under 32 pixels "
        "(train_dataloader.dataset.filter_cfg)"
    )
    used = 3
    leaves = (
        r"train_dataloader.dataset.filter_cfg: leaves none of the 2 images of shop: 2 have a side under 32 pixels; "
        r"expected at least one to train on; set train_dataloader.dataset.filter_cfg: null by model.cfg_options"
    )
