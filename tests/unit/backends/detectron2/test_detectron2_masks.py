"""The masks that detectron2 makes of the outlines in a COCO file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from msbal.data import read_coco
from msbal.errors import DataError
from msbal.spec import parse_spec
from msbal_detectron2.data import Outlines
from msbal_detectron2.detector import Detectron2Detector

MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
CASCADE = "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"
SIDE = 64
SMALL = [
    "MODEL.RESNETS.NORM=BN",
    "MODEL.BACKBONE.FREEZE_AT=0",
    "MODEL.RESNETS.STEM_OUT_CHANNELS=8",
    "MODEL.RESNETS.RES2_OUT_CHANNELS=16",
    "MODEL.RESNETS.WIDTH_PER_GROUP=4",
    "MODEL.FPN.OUT_CHANNELS=32",
    "MODEL.ROI_BOX_HEAD.FC_DIM=32",
    "MODEL.ROI_MASK_HEAD.CONV_DIM=16",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN=100",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN=50",
    f"INPUT.MIN_SIZE_TRAIN=({SIDE},)",
    f"INPUT.MIN_SIZE_TEST={SIDE}",
]
SQUARE = [[8, 8, 24, 8, 24, 24, 8, 24]]


def rle(x1: int, y1: int, x2: int, y2: int) -> dict[str, Any]:
    """A box as COCO's uncompressed run-length encoding, column by column."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y1:y2, x1:x2] = True
    flat = mask.flatten(order="F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    counts = np.diff(np.concatenate([[0], edges])).tolist()
    return {"size": [SIDE, SIDE], "counts": counts}


def write(folder: Path, *objects: dict[str, Any]) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(
        folder / "a.png"
    )
    document = {
        "images": [{"id": 7, "file_name": "a.png", "width": SIDE, "height": SIDE}],
        "categories": [{"id": 3, "name": "thing"}, {"id": 9, "name": "other"}],
        "annotations": [
            {"id": i + 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "area": 1.0, **entry}
            for i, entry in enumerate(objects)
        ],
    }
    path = folder / "train.json"
    path.write_text(json.dumps(document))
    return path


def test_a_file_without_any_says_how_to_go_without(tmp_path: Path) -> None:
    path = write(tmp_path, {"bbox": [8, 8, 16, 16]})
    with pytest.raises(DataError, match=r"no object has a `segmentation`.*MODEL\.MASK_ON=False"):
        Outlines(path, (3, 9))


def test_what_has_no_outline_is_refused_before_training(tmp_path: Path) -> None:
    path = write(tmp_path, {"bbox": [8, 8, 16, 16], "segmentation": SQUARE}, {"bbox": [30, 30, 20, 20]})
    detector, data = build(path, MASK)
    with pytest.raises(DataError, match=r"in a.png has no `segmentation`"):
        detector.remarks(data)


def build(path: Path, config: str) -> tuple[Detectron2Detector, Any]:
    spec = parse_spec(
        {
            "backend": "detectron2",
            "model": {"config": config, "overrides": SMALL},
            "data": {
                "format": "coco", "root": str(path.parent),
                "train": {"annotations": path.name, "images": "."}, "classes": ["thing"],
            },
            "balance": {"scope": ["rpn", "roi"]},
            "device": "cpu",
            "output": "unused",
        }
    )  # fmt: skip
    return Detectron2Detector(spec, ["thing"]), read_coco(path, path.parent, ["thing"])


@pytest.mark.parametrize("encoded", ["polygons", "run lengths"])
def test_masks_reach_the_model_as_they_were_drawn(tmp_path: Path, encoded: str) -> None:
    segmentation = SQUARE if encoded == "polygons" else rle(8, 8, 24, 24)
    path = write(
        tmp_path,
        {"bbox": [8, 8, 16, 16], "segmentation": segmentation},
        {"bbox": [30, 30, 20, 20], "segmentation": [[30, 30, 50, 50]]},  # two corners: left out
    )
    detector, data = build(path, MASK)
    (sample,) = detector.batch(data, [0])
    assert len(sample["instances"]) == 1
    masks = sample["instances"].gt_masks
    if encoded == "polygons":
        np.testing.assert_allclose(masks.polygons[0][0], SQUARE[0])
    else:
        expected = np.zeros((SIDE, SIDE), bool)
        expected[8:24, 8:24] = True
        assert np.array_equal(masks.tensor[0].numpy(), expected)


@pytest.mark.parametrize("config", [MASK, CASCADE])
def test_the_mask_loss_stays_as_it_is(tmp_path: Path, config: str) -> None:
    path = write(tmp_path, {"bbox": [8, 8, 16, 16], "segmentation": SQUARE})
    detector, data = build(path, config)
    batch = detector.batch(data, [0])
    torch.manual_seed(0)
    own = detector.framework_losses(batch)
    torch.manual_seed(0)
    split = detector.split_losses(batch)
    assert set(split.rest) == {"loss_mask"}
    torch.testing.assert_close(split.rest["loss_mask"], own["loss_mask"])
