"""For one seed, all arms see the same initial weights, data order and augmentation: with detectron2."""

from __future__ import annotations

from pathlib import Path

import pytest
from fair_pairs import assert_all_arms_of_a_seed_see_the_same

pytest.importorskip("detectron2", reason="detectron2 is not installed")
pytest.importorskip("msbal_detectron2", reason="the detectron2 backend is not installed")

SMALL = [
    "MODEL.RESNETS.NORM=BN", "MODEL.BACKBONE.FREEZE_AT=0", "MODEL.RESNETS.STEM_OUT_CHANNELS=8",
    "MODEL.RESNETS.RES2_OUT_CHANNELS=16", "MODEL.RESNETS.WIDTH_PER_GROUP=4", "MODEL.FPN.OUT_CHANNELS=32",
    "MODEL.RETINANET.NUM_CONVS=1", "MODEL.ROI_BOX_HEAD.FC_DIM=32", "MODEL.RPN.PRE_NMS_TOPK_TRAIN=100",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN=50", "INPUT.MIN_SIZE_TRAIN=(96,128)", "INPUT.MIN_SIZE_TEST=96",
]  # fmt: skip


@pytest.mark.parametrize("name", ["retinanet", "faster_rcnn"])
def test_all_arms_of_a_seed_see_the_same(tmp_path: Path, name: str) -> None:
    model = {"config": f"COCO-Detection/{name}_R_50_FPN_1x.yaml", "overrides": SMALL}
    assert_all_arms_of_a_seed_see_the_same(tmp_path, "detectron2", model)
