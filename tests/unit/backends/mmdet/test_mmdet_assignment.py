"""The level of each box against mmdet's own anchors, targets and assigners."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from tiny_mmdet import narrow
from zoo import small_mmdet as tiny

from msbal_mmdet.assignment import Inputs, levels_at_once, levels_of_pass
from msbal_mmdet.splitters.find import find
from msbal_mmdet.splitters.model_losses import ModelLosses
from msbal_mmdet.splitters.reduction import listen, replace_method


def small(config: str) -> Any:
    loaded = tiny.load_config(tiny.zoo() / config)
    narrow(loaded.model)
    return tiny.build_small(loaded)


def random_boxes(count: int, width: int, height: int) -> torch.Tensor:
    draw = np.random.default_rng(0)
    sizes = 2 ** draw.uniform(3, np.log2(1.5 * width), (count, 1)) * draw.uniform(0.6, 1.6, (count, 2))
    centres = draw.uniform(0, 1, (count, 2)) * [width, height]
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    return torch.tensor(boxes.clip(0, [width, height, width, height]), dtype=torch.float32)


def inputs(boxes: torch.Tensor, width: int, height: int) -> Inputs:
    return Inputs(boxes, torch.tensor([[width, height]]).float().expand(len(boxes), 2), [(width, height)])


def grids(splitter: Any, width: int, height: int) -> list[torch.Tensor]:
    """All anchors of an image by level, finest first."""
    generator = splitter.head.prior_generator
    sizes = [(-(-height // int(sy)), -(-width // int(sx))) for sx, sy in generator.strides]
    anchors = generator.grid_priors(sizes, device="cpu")
    return [anchors[k] for k in splitter.order]


@pytest.mark.parametrize(
    ("config", "width", "height"),
    [
        ("retinanet/retinanet_r50_fpn_1x_coco.py", 1024, 768),
        ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", 512, 384),
        ("ssd/ssd300_coco.py", 300, 300),
        ("yolo/yolov3_d53_8xb8-ms-608-273e_coco.py", 416, 416),  # its levels run coarsest first
    ],
)
def test_the_level_is_that_of_the_anchor_with_the_highest_iou(config: str, width: int, height: int) -> None:
    (splitter,) = find(small(config)).splitters
    boxes = random_boxes(120, width, height)
    anchors = grids(splitter, width, height)
    best = torch.stack([bbox_overlaps(boxes, each).amax(dim=1) for each in anchors])
    levels = levels_at_once(splitter, inputs(boxes, width, height))
    assert levels is not None and levels.tolist() == best.argmax(dim=0).tolist()
    assert set(levels.tolist()) == set(range(len(anchors)))


def test_fcos_by_its_own_targets() -> None:
    (splitter,) = find(
        small("fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py")
    ).splitters
    head, width = splitter.head, 1024
    points = head.prior_generator.grid_priors([(width // s, width // s) for s in head.strides], device="cpu")
    # Their farther edges are at this distance from the centre; a level ends at 64, 128, 256 and 512.
    reach = torch.tensor([10.0, 40, 90, 110, 180, 220, 340, 450])
    boxes = torch.stack([512 - reach, 512 - reach / 2, 512 + reach, 512 + reach / 2], dim=1)
    expected = []
    for box in boxes:
        labels, _ = head.get_targets(points, [InstanceData(bboxes=box[None], labels=torch.tensor([0]))])
        positives = [int((part < head.num_classes).sum()) for part in labels]
        expected.append(positives.index(max(positives)))
    levels = levels_at_once(splitter, inputs(boxes, width, width))
    assert levels is not None and levels.tolist() == expected and set(expected) == {0, 1, 2, 3}


def test_overlapping_ranges_give_the_finer_level_and_gaps_none() -> None:
    (splitter,) = find(small("foveabox/fovea_r50_fpn_4xb4-1x_coco.py")).splitters
    low = splitter.head.scale_ranges[0][0]
    sides = torch.tensor([low / 2, low, splitter.head.scale_ranges[1][0], 1e5])
    boxes = torch.stack([torch.zeros(4), torch.zeros(4), sides, sides], dim=1)
    levels = levels_at_once(splitter, inputs(boxes, 512, 512))
    assert levels is not None and levels.tolist() == [-1, 0, 0, -1]


def test_rois_by_the_extractors_own_rule() -> None:
    (splitter,) = find(small("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"), ("roi",)).splitters
    sides = torch.tensor([50.0, 150, 300, 600])
    boxes = torch.stack([torch.zeros(4), torch.zeros(4), sides, sides], dim=1)
    levels = levels_at_once(splitter, inputs(boxes, 640, 640))
    assert levels is not None and levels.tolist() == [0, 1, 2, 3]


RUN = {
    "atss": "atss/atss_r50_fpn_1x_coco.py",
    "gfl": "gfl/gfl_r50_fpn_1x_coco.py",
    "ddod": "ddod/ddod_r50_fpn_1x_coco.py",
    "tood": "tood/tood_r50_fpn_1x_coco.py",
    "vfnet": "vfnet/vfnet_r50_fpn_1x_coco.py",
    "reppoints": "reppoints/reppoints-moment_r50_fpn_1x_coco.py",
    "yolox": "yolox/yolox_tiny_8xb8-300e_coco.py",
    "rtmdet": "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
}


@pytest.mark.parametrize("name", RUN)
def test_by_running_it_is_the_level_with_the_most_positives(name: str) -> None:
    side = 384 if name == "ddod" else 256  # its coarsest level needs as many cells as a kernel has
    model = small(RUN[name]).train()
    (splitter,) = find(model).splitters
    assert levels_at_once(splitter, inputs(random_boxes(3, 128, 128), 128, 128)) is None
    data = model.data_preprocessor(tiny.batch(80, ((side, side), (side, side))), False)
    for sample in data["data_samples"]:
        del sample.gt_instances.masks
    truth = [sample.gt_instances.bboxes for sample in data["data_samples"]]
    truth = [getattr(boxes, "tensor", boxes) for boxes in truth]
    heard: list[tuple[Any, Any, Any]] = []
    wanted = next(a for a in ("refine_assigner", "cls_assigner", "assigner") if hasattr(splitter.head, a))
    assigner = getattr(splitter.head, wanted)
    own, order = assigner.assign, inspect.signature(assigner.assign)

    def assign(*args: Any, **kwargs: Any) -> Any:
        result, given = own(*args, **kwargs), order.bind(*args, **kwargs).arguments
        heard.append((given["pred_instances"].priors, given["gt_instances"].bboxes, result))
        return result

    with torch.no_grad(), replace_method(assigner, "assign", assign):
        found = levels_of_pass([splitter], 2, lambda: model._run_forward(data, mode="loss"))["all"]
    cells = [(side // int(stride)) ** 2 for stride in splitter.strides]
    expected: list[list[int]] = []
    for (priors, boxes, result), same in zip(heard, truth, strict=True):
        assert torch.equal(getattr(boxes, "tensor", boxes), same)
        each = len(priors) // sum(cells)
        level_of = [k for k, count in enumerate(cells) for _ in range(count * each)]
        votes = [Counter[int]() for _ in same]
        for place, taken in enumerate(result.gt_inds.tolist()):
            if taken > 0:
                votes[taken - 1][level_of[place]] += 1
        expected.append([min(v, key=lambda k: (-v[k], k)) if v else -1 for v in votes])
    assert [levels.tolist() for levels in found] == expected
    assert max(map(max, expected)) >= 0


def test_outside_a_training_loop_tood_assigns_as_in_the_epoch_of_its_checkpoint() -> None:
    losses = ModelLosses(small(RUN["tood"]))
    head, hub = losses.model.bbox_head, MessageHub.get_current_instance()
    kept = {name: hub.pop_info(name) for name in losses.counters}
    asked: list[str] = []
    try:
        for epoch in (0, head.initial_epoch):
            losses.counters = {"iter": 0, "epoch": epoch}
            with (
                listen(head.initial_assigner, "assign", lambda _: asked.append("initial")),
                listen(head.alignment_assigner, "assign", lambda _: asked.append("alignment")),
            ):
                losses.framework_losses(tiny.batch(80, ((256, 256),)))
        assert asked == ["initial", "alignment"] and hub.get_info("epoch") is None
    finally:
        hub.update_info_dict(kept)


@pytest.mark.parametrize("config", ["paa/paa_r50_fpn_1x_coco.py", "fsaf/fsaf_r50_fpn_1x_coco.py"])
def test_where_the_loss_decides_no_level_is_told(config: str) -> None:
    model = small(config).train()
    (splitter,) = find(model).splitters
    assert levels_at_once(splitter, inputs(random_boxes(3, 128, 128), 128, 128)) is None
    data = model.data_preprocessor(tiny.batch(80, ((128, 128),)), False)
    assert levels_of_pass([splitter], 1, lambda: model._run_forward(data, mode="loss")) == {}
