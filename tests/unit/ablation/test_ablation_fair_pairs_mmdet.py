"""For one seed, all arms see the same initial weights, data order and augmentation: with mmdet."""

from __future__ import annotations

from pathlib import Path

import pytest
from fair_pairs import assert_all_arms_of_a_seed_see_the_same

pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

SMALL = {
    "model.backbone.depth": 18, "model.backbone.base_channels": 8, "model.backbone.stem_channels": 8,
    "model.neck.in_channels": [8, 16, 32, 64], "model.neck.out_channels": 64, "model.bbox_head.in_channels": 64,
    "model.bbox_head.feat_channels": 64, "model.bbox_head.stacked_convs": 1,
    "train_dataloader.dataset.pipeline.2.scale": [96, 96],
}  # fmt: skip


@pytest.mark.release
def test_all_arms_of_a_seed_see_the_same(tmp_path: Path) -> None:
    config = "retinanet/retinanet_r50_fpn_1x_coco.py"
    model = {"config": config, "pretrained": False, "cfg_options": SMALL}
    assert_all_arms_of_a_seed_see_the_same(tmp_path, "mmdet", model)
