"""The proof for every splitter, narrow, and before a release for a representative of every head class of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")

from tiny_mmdet import NARROW, make, narrow

SPLITTERS = {
    "ListSeam": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "RPNSeam": "rpn/rpn_r50_fpn_1x_coco.py",
    "FSAFSeam": "fsaf/fsaf_r50_fpn_1x_coco.py",
    "ATSSSeam": "atss/atss_r50_fpn_1x_coco.py",
    "GFLSeam": "gfl/gfl_r50_fpn_1x_coco.py",
    "LDSeam": "ld/ld_r18-gflv1-r101_fpn_1x_coco.py",
    "DDODSeam": "ddod/ddod_r50_fpn_1x_coco.py",
    "GuidedAnchorSeam": "guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py",
    "GuidedAnchorRPNSeam": "guided_anchoring/ga-rpn_r50_fpn_1x_coco.py",
    "CascadeRPNStageSeam": "cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py",
    "RepPointsSeam": "reppoints/reppoints-moment_r50_fpn_1x_coco.py",
    "SABLRetinaSeam": "sabl/sabl-retinanet_r50_fpn_1x_coco.py",
    "RTMDetInsSeam": "rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py",
    "YOLOV3Seam": "yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py",
    "FCOSSeam": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "FoveaSeam": "foveabox/fovea_r50_fpn_4xb4-1x_coco.py",
    "VFNetSeam": "vfnet/vfnet_r50_fpn_1x_coco.py",
    "CenterNetUpdateSeam": "centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py",
    "YOLOXSeam": "yolox/yolox_tiny_8xb8-300e_coco.py",
    "PAASeam": "paa/paa_r50_fpn_1x_coco.py",
    "PISARetinaSeam": "pisa/retinanet-r50_fpn_pisa_1x_coco.py",
    "SSDSeam": "ssd/ssd300_coco.py",
    "PISASSDSeam": "pisa/ssd300_pisa_coco.py",
    "YOLACTSeam": "yolact/yolact_r50_1xb8-55e_coco.py",
    "SOLOSeam": "solo/decoupled-solo-light_r50_fpn_3x_coco.py",
}
ELSEWHERE = {"ATSSVLFusionSeam"}
"""Proved in ``test_mmdet_language.py``."""

FAST = [
    ("retinanet/retinanet_r50_fpn_1x_coco.py", "RetinaHead", "P3", "P7"),
    ("foveabox/fovea_r50_fpn_4xb4-1x_coco.py", "FoveaHead", "P3", "P7"),
    ("yolox/yolox_tiny_8xb8-300e_coco.py", "YOLOXHead", "P3", "P5"),
    ("rtmdet/rtmdet_tiny_8xb32-300e_coco.py", "RTMDetSepBNHead", "P3", "P5"),
]
EVERY_HEAD = [
    ("ghm/retinanet_r50_fpn_ghm-1x_coco.py", "RetinaHead"),
    ("pisa/retinanet-r50_fpn_pisa_1x_coco.py", "PISARetinaHead"),
    ("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", "FCOSHead"),
    ("atss/atss_r50_fpn_1x_coco.py", "ATSSHead"),
    ("yolo/yolov3_d53_8xb8-ms-608-273e_coco.py", "YOLOV3Head"),
    ("vfnet/vfnet_r50_fpn_1x_coco.py", "VFNetHead"),
    ("paa/paa_r50_fpn_1x_coco.py", "PAAHead"),
    ("lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py", "LADHead"),
    ("pisa/ssd300_pisa_coco.py", "PISASSDHead"),
    ("ssd/ssd300_coco.py", "SSDHead"),
    ("centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py", "CenterNetUpdateHead"),
    ("solo/solo_r50_fpn_1x_coco.py", "SOLOHead"),
    ("solo/decoupled-solo_r50_fpn_1x_coco.py", "DecoupledSOLOHead"),
    ("solo/decoupled-solo-light_r50_fpn_3x_coco.py", "DecoupledSOLOLightHead"),
    ("solov2/solov2_r50_fpn_1x_coco.py", "SOLOV2Head"),
    ("yolact/yolact_r50_1xb8-55e_coco.py", "YOLACTHead"),
    ("gfl/gfl_r50_fpn_1x_coco.py", "GFLHead"),
    ("ld/ld_r18-gflv1-r101_fpn_1x_coco.py", "LDHead"),
    ("tood/tood_r50_fpn_1x_coco.py", "TOODHead"),
    ("ddod/ddod_r50_fpn_1x_coco.py", "DDODHead"),
    ("fsaf/fsaf_r50_fpn_1x_coco.py", "FSAFHead"),
    ("reppoints/reppoints-moment_r50_fpn_1x_coco.py", "RepPointsHead"),
    ("sabl/sabl-retinanet_r50_fpn_1x_coco.py", "SABLRetinaHead"),
    ("rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py", "RTMDetInsSepBNHead"),
    ("guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py", "GARetinaHead"),
    ("guided_anchoring/ga-rpn_r50_fpn_1x_coco.py", "GARPNHead"),
    ("cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py", "StageCascadeRPNHead"),
    ("nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py", "NASFCOSHead"),
    ("condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py", "CondInstBboxHead"),
    ("boxinst/boxinst_r50_fpn_ms-90k_coco.py", "BoxInstBboxHead"),
    ("nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py", "RetinaSepBNHead"),
]


def check(config: str) -> Any:
    from msbal_mmdet.zoo import MMDetZoo

    outcome = MMDetZoo().check(config)
    assert outcome.status == "supported", (outcome.status, outcome.reason)
    assert outcome.figures["unit_equal"] and not outcome.figures["leaks"]
    return outcome


def test_every_splitter_has_a_proof() -> None:
    from msbal_mmdet.seams import known

    own = {seam.__name__ for seam in known().values() if seam.__module__.startswith("msbal_mmdet.")}
    assert own == set(SPLITTERS) | ELSEWHERE


@pytest.mark.parametrize(("splitter", "config"), SPLITTERS.items())
def test_the_proof_holds_for_every_splitter(splitter: str, config: str) -> None:
    from msbal_mmdet import tiny
    from msbal_mmdet.attach import attach
    from msbal_mmdet.proof import prove, seed_all

    loaded = tiny.load_config(tiny.zoo() / config)
    masks = tiny.loads_masks(loaded)
    narrow(loaded.model)
    seed_all(0)
    model = tiny.build_small(loaded)
    proof = prove(model, tiny.batch_for(model, masks))
    assert proof.holds, proof
    assert {type(seam).__name__ for seam in attach(model).seams} == {splitter}


@pytest.mark.parametrize(("config", "head", "finest", "coarsest"), FAST)
def test_the_proof_holds(config: str, head: str, finest: str, coarsest: str) -> None:
    group = check(config).heads["all"]
    assert group["head"] == head
    assert (group["levels"][0], group["levels"][-1]) == (finest, coarsest)


@pytest.mark.release
@pytest.mark.parametrize(("config", "head"), EVERY_HEAD)
def test_the_proof_holds_for_every_head(config: str, head: str) -> None:
    assert next(iter(check(config).heads.values()))["head"] == head


TWO_STAGE = {
    **{key: value for key, value in NARROW.items() if "bbox_head" not in key},
    "model.rpn_head.in_channels": 32,
    "model.rpn_head.feat_channels": 32,
    "model.roi_head.bbox_roi_extractor.out_channels": 32,
}


def test_roi_losses_split_by_the_level_that_was_pooled(small_batch: Callable[..., Any]) -> None:
    from msbal_mmdet.proof import prove

    options = {
        **TWO_STAGE,
        "model.roi_head.bbox_head.in_channels": 32,
        "model.roi_head.bbox_head.fc_out_channels": 32,
    }
    model = make("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", options)
    # RoIs of 120 pixels and more are pooled from P3.
    boxes = [[(0, 0, 200, 200), (4, 4, 30, 30)], [(10, 10, 150, 180)]]
    from msbal_mmdet import tiny

    batch = tiny.batch(80, ((200, 200), (200, 200)), boxes=boxes)
    proof = prove(model, batch, ("rpn", "roi"))
    assert proof.holds, proof
    assert [group.name for group in proof.groups] == ["rpn", "roi"]
    roi = next(group for group in proof.groups if group.name == "roi")
    assert roi.levels == ("P2", "P3", "P4", "P5")
    filled = [sum(column) > 0 for column in zip(*proof.level_loss["roi"], strict=True)]
    assert filled[0] and filled[1]


def test_cascade_stages_share_one_group() -> None:
    from msbal_mmdet import tiny
    from msbal_mmdet.proof import prove

    loaded = tiny.load_config(tiny.zoo() / "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py")
    narrow(loaded.model)
    model = tiny.build_small(loaded)
    proof = prove(model, tiny.batch(80, ((96, 96), (96, 96))), ("rpn", "roi"))
    assert proof.holds, proof
    roi = proof.groups[1]
    assert roi.terms == ("s0.cls", "s0.bbox", "s1.cls", "s1.bbox", "s2.cls", "s2.bbox")


WITHOUT_BOXES = (
    "retinanet/retinanet_r50_fpn_1x_coco.py",
    "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "foveabox/fovea_r50_fpn_4xb4-1x_coco.py",
    "pisa/retinanet-r50_fpn_pisa_1x_coco.py",
)


@pytest.mark.parametrize("boxes", [[[], []], [[(0, 0, 95, 63)], []]], ids=["no boxes", "one large box"])
@pytest.mark.parametrize("config", WITHOUT_BOXES)
def test_images_without_boxes_and_levels_without_positives(
    config: str, boxes: Any, small_batch: Callable[..., Any]
) -> None:
    from msbal_mmdet.proof import prove

    proof = prove(make(config, NARROW), small_batch(boxes=boxes))
    assert proof.holds, proof


def test_yolov3_lists_its_levels_coarsest_first_and_we_do_not() -> None:
    from msbal_mmdet import tiny
    from msbal_mmdet.attach import attach
    from msbal_mmdet.proof import _forward

    model = make("yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py")
    batch = tiny.batch(80, ((96, 96), (96, 96)))
    plain = _forward(model, batch, 0)["loss_conf"]
    attachment = attach(model)
    ours = attachment.level_losses(_forward(model, batch, 0))["all"].values
    (group,) = attachment.groups
    assert group.strides == (8, 16, 32)
    row = group.terms.index("conf")
    assert ours[row].tolist() == [value.item() for value in reversed(plain)]


def test_positives_are_counted_by_level(small_batch: Callable[..., Any]) -> None:
    from msbal_mmdet.attach import attach
    from msbal_mmdet.proof import _forward

    model = make("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", NARROW)
    attachment = attach(model)
    losses = attachment.level_losses(_forward(model, small_batch(boxes=[[(0, 0, 90, 90)], []]), 0))["all"]
    assert losses.positives is not None
    # A box of 90 pixels is P4's (64 to 128), and half of its centre is within 64: P3's.
    assert losses.positives[:2].sum() > 0 and not losses.positives[2:].any()


LISTS = (
    "retinanet/retinanet_r50_fpn_1x_coco.py",
    "atss/atss_r50_fpn_1x_coco.py",
    "gfl/gfl_r50_fpn_1x_coco.py",
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
)


@pytest.mark.parametrize("config", LISTS)
def test_positives_of_heads_with_lists_are_where_there_is_a_box_loss(config: str) -> None:
    from msbal_mmdet import tiny
    from msbal_mmdet.attach import attach
    from msbal_mmdet.proof import _forward

    model = make(config)
    attachment = attach(model)
    (group,) = attachment.groups
    (found,) = attachment.level_losses(_forward(model, tiny.batch(80, ((128, 128), (128, 128))), 0)).values()
    assert found.positives is not None
    boxes = found.values[group.terms.index("bbox")]
    assert (found.positives > 0).tolist() == (boxes > 0).tolist()
    assert 0 < (found.positives > 0).sum() < len(group.levels)


def test_yolov3_counts_its_positives_finest_level_first() -> None:
    from msbal_mmdet import tiny
    from msbal_mmdet.attach import attach
    from msbal_mmdet.proof import _forward

    model = make("yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py")
    attachment = attach(model)
    found = attachment.level_losses(_forward(model, tiny.batch(80, ((96, 96), (96, 96))), 0))["all"]
    (group,) = attachment.groups
    assert found.positives is not None
    assert (found.positives > 0).tolist() == (found.values[group.terms.index("wh")] > 0).tolist()
    assert found.positives.any()
