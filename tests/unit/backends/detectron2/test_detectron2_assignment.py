"""The level of each box against detectron2's own anchors, matching and pooling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances, pairwise_iou
from tiny_detectron2 import tiny

from msbal.backend import LevelGroup
from msbal.data import DetectionData, ImageRecord
from msbal_detectron2.assignment import box_levels
from msbal_detectron2.splitters import find

RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
FCOS = "COCO-Detection/fcos_R_50_FPN_1x.py"
AS_IT_IS: list[Any] = []


def groups_of(model: Any, scope: tuple[str, ...] = ("rpn",)) -> list[LevelGroup]:
    return [splitter.group for splitter in find(model, scope)]


def data(boxes: np.ndarray, width: int, height: int, crowd: Any = False) -> DetectionData:
    count = len(boxes)
    record = ImageRecord(
        1, Path("none.png"), width, height, boxes.astype(np.float32), np.zeros(count, np.int64),
        np.ones(count, np.float32), np.broadcast_to(np.array(crowd), count), np.zeros(count, bool),
    )  # fmt: skip
    return DetectionData("some", ("a",), (1,), (record,))


def random_boxes(count: int, width: int, height: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    sizes = 2 ** draw.uniform(3, 10, (count, 1)) * draw.uniform(0.6, 1.6, (count, 2))
    centres = draw.uniform(0, 1, (count, 2)) * [width, height]
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    return boxes.clip(0, [width, height, width, height])


def features(strides: tuple[int, ...], width: int, height: int) -> list[torch.Tensor]:
    return [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in strides]


@pytest.mark.parametrize(("config", "group"), [(RETINANET, "all"), (FASTER, "rpn")])
def test_the_level_is_that_of_the_anchor_with_the_highest_iou(config: str, group: str) -> None:
    model = tiny(config)
    groups = groups_of(model)
    width, height = 1024, 768  # multiples of 128: padding would not change them
    boxes = random_boxes(200, width, height)
    generator = model.anchor_generator if group == "all" else model.proposal_generator.anchor_generator
    anchors = generator(features(groups[0].strides, width, height))
    level = torch.cat([torch.full((len(a),), k) for k, a in enumerate(anchors)])
    iou = pairwise_iou(Boxes(torch.tensor(boxes, dtype=torch.float32)), Boxes.cat(anchors))
    expected = level[iou.argmax(dim=1)].tolist()
    assert box_levels(model, groups, data(boxes, width, height), AS_IT_IS)[group].tolist() == expected
    assert set(expected) == set(range(5))


def test_fcos_by_its_own_labels() -> None:
    model = tiny(FCOS)
    groups = groups_of(model)
    width = height = 1024
    # Away from the ranges' limits, which are at 64, 128, 256 and 512 from the centre to the farther edge.
    reach = np.array([10.0, 40, 90, 110, 180, 220, 340, 450])
    boxes = np.stack([512 - reach, 512 - reach / 2, 512 + reach, 512 + reach / 2], axis=1)
    anchors = model.anchor_generator(features(groups[0].strides, width, height))
    sizes = [len(a) for a in anchors]
    expected = []
    for box in boxes:
        instance = Instances((height, width))
        instance.gt_boxes, instance.gt_classes = Boxes(torch.tensor(box[None]).float()), torch.tensor([0])
        labels, _ = model.label_anchors(anchors, [instance])
        positives = [int((part != model.num_classes).sum()) for part in labels[0].split(sizes)]
        expected.append(positives.index(max(positives)))
    assert box_levels(model, groups, data(boxes, width, height), AS_IT_IS)["all"].tolist() == expected


def test_rois_by_the_poolers_own_rule_and_crowds_left_out() -> None:
    model = tiny(FASTER)
    groups = groups_of(model, ("roi",))
    boxes = np.array([[0, 0, s, s] for s in (50, 150, 300, 600)], float)
    assert box_levels(model, groups, data(boxes, 640, 640), AS_IT_IS)["roi"].tolist() == [0, 1, 2, 3]
    crowd = [False, True, False, False]
    assert box_levels(model, groups, data(boxes, 640, 640, crowd), AS_IT_IS)["roi"].tolist() == [0, 2, 3]


def test_boxes_are_taken_at_the_models_size() -> None:
    model = tiny(FASTER)
    groups = groups_of(model, ("roi",))
    boxes = np.array([[0, 0, 50, 50]], float)
    larger = [T.ResizeShortestEdge(600, 10_000)]
    assert box_levels(model, groups, data(boxes, 60, 90), larger)["roi"].tolist() == [3]


def test_no_boxes_at_all() -> None:
    model = tiny(RETINANET)
    nothing = data(np.zeros((0, 4)), 64, 64)
    assert box_levels(model, groups_of(model), nothing, AS_IT_IS)["all"].tolist() == []
