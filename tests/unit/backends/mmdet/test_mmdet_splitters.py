"""The proof for every splitter, narrow, and before a release for a representative of every head class of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")

from tiny_mmdet import NARROW, forward, make, narrow, proved
from zoo import small_mmdet as tiny
from zoo.workers import zoo_of

from msbal.backend.kit.seeding import seed_everything
from msbal.backend.proof import prove
from msbal_mmdet import balance
from msbal_mmdet.splitters import known
from msbal_mmdet.splitters.find import find
from msbal_mmdet.splitters.model_losses import ModelLosses

SPLITTERS = {
    "ListSplitter": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "RPNSplitter": "rpn/rpn_r50_fpn_1x_coco.py",
    "FSAFSplitter": "fsaf/fsaf_r50_fpn_1x_coco.py",
    "ATSSSplitter": "atss/atss_r50_fpn_1x_coco.py",
    "GFLSplitter": "gfl/gfl_r50_fpn_1x_coco.py",
    "LDSplitter": "ld/ld_r18-gflv1-r101_fpn_1x_coco.py",
    "DDODSplitter": "ddod/ddod_r50_fpn_1x_coco.py",
    "GuidedAnchorSplitter": "guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py",
    "GuidedAnchorRPNSplitter": "guided_anchoring/ga-rpn_r50_fpn_1x_coco.py",
    "CascadeRPNStageSplitter": "cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py",
    "RepPointsSplitter": "reppoints/reppoints-moment_r50_fpn_1x_coco.py",
    "SABLRetinaSplitter": "sabl/sabl-retinanet_r50_fpn_1x_coco.py",
    "RTMDetInsSplitter": "rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py",
    "YOLOV3Splitter": "yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py",
    "FCOSSplitter": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "FoveaSplitter": "foveabox/fovea_r50_fpn_4xb4-1x_coco.py",
    "VFNetSplitter": "vfnet/vfnet_r50_fpn_1x_coco.py",
    "CenterNetUpdateSplitter": "centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py",
    "YOLOXSplitter": "yolox/yolox_tiny_8xb8-300e_coco.py",
    "PAASplitter": "paa/paa_r50_fpn_1x_coco.py",
    "PISARetinaSplitter": "pisa/retinanet-r50_fpn_pisa_1x_coco.py",
    "SSDSplitter": "ssd/ssd300_coco.py",
    "PISASSDSplitter": "pisa/ssd300_pisa_coco.py",
    "YOLACTSplitter": "yolact/yolact_r50_1xb8-55e_coco.py",
    "SOLOSplitter": "solo/decoupled-solo-light_r50_fpn_3x_coco.py",
}
ELSEWHERE = {"ATSSVLFusionSplitter"}
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
    outcome = zoo_of("mmdet").check(config)
    assert outcome.status == "supported", (outcome.status, outcome.reason)
    assert outcome.metrics["unit_gradient"] == 0.0 and not outcome.metrics["leaks"]
    return outcome


def test_every_splitter_has_a_proof() -> None:
    own = {kind.__name__ for kind in known().values() if kind.__module__.startswith("msbal_mmdet.")}
    assert own == set(SPLITTERS) | ELSEWHERE


@pytest.mark.parametrize(("splitter", "config"), SPLITTERS.items())
def test_the_proof_holds_for_every_splitter(splitter: str, config: str) -> None:
    loaded = tiny.load_config(tiny.zoo() / config)
    masks = tiny.loads_masks(loaded)
    narrow(loaded.model)
    seed_everything(0)
    model = tiny.build_small(loaded)
    proved(model, tiny.batch_for(model, masks))
    assert {type(found).__name__ for found in find(model).splitters} == {splitter}


@pytest.mark.parametrize(("config", "head", "finest", "coarsest"), FAST)
def test_the_proof_holds(config: str, head: str, finest: str, coarsest: str) -> None:
    group = check(config).heads["all"]
    assert group["head"] == head
    assert (group["levels"][0], group["levels"][-1]) == (finest, coarsest)


@pytest.mark.release
@pytest.mark.parametrize(("config", "head"), EVERY_HEAD)
def test_the_proof_holds_for_every_head(config: str, head: str) -> None:
    assert next(iter(check(config).heads.values()))["head"] == head


def test_a_leak_is_seen(retinanet: Callable[[], Any], small_batch: Callable[..., Any]) -> None:
    """A head whose levels see each other's predictions."""
    model = retinanet()
    single = model.bbox_head.loss_by_feat_single
    before: list[Any] = []

    def leaking(cls_score: Any, *args: Any, **kwargs: Any) -> Any:
        cls, bbox = single(cls_score, *args, **kwargs)
        if before and cls_score.shape[-1] < before[-1].shape[-1]:  # not the finest level
            cls = cls + 0.1 * before[-1].mean()
        before.append(cls_score)
        return cls, bbox

    model.bbox_head.loss_by_feat_single = leaking
    proof = prove(ModelLosses(model), small_batch())
    assert not proof.holds and "cls: P4 reaches P3" in proof.leaks


def collected(model: Any, batch: Any, scope: tuple[str, ...] | None = None) -> dict[str, Any]:
    """The level losses of one pass, as the heads give them."""
    handle = balance(model, "equal", interval=2, scope=scope or ("rpn",))
    with handle.collecting() as found:
        forward(model, batch)
    handle.remove()
    return {name: losses for name, (losses,) in found.items()}


TWO_STAGE = {
    **{key: value for key, value in NARROW.items() if "bbox_head" not in key},
    "model.rpn_head.in_channels": 32,
    "model.rpn_head.feat_channels": 32,
    "model.roi_head.bbox_roi_extractor.out_channels": 32,
}


def test_roi_losses_split_by_the_level_that_was_pooled() -> None:
    options = {
        **TWO_STAGE,
        "model.roi_head.bbox_head.in_channels": 32,
        "model.roi_head.bbox_head.fc_out_channels": 32,
    }
    model = make("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", options)
    # RoIs of 120 pixels and more are pooled from P3.
    boxes = [[(0, 0, 200, 200), (4, 4, 30, 30)], [(10, 10, 150, 180)]]
    batch = tiny.batch(80, ((200, 200), (200, 200)), boxes=boxes)
    proof, losses = proved(model, batch, ("rpn", "roi"))
    assert [group.name for group in losses.groups] == ["rpn", "roi"]
    assert losses.groups[1].levels == ("P2", "P3", "P4", "P5")
    filled = [sum(column) > 0 for column in zip(*proof.losses["roi"].values(), strict=True)]
    assert filled[0] and filled[1]


def test_each_stage_of_a_cascade_is_a_group_with_its_stages_weight() -> None:
    loaded = tiny.load_config(tiny.zoo() / "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py")
    narrow(loaded.model)
    seed_everything(0)
    model = tiny.build_small(loaded)
    batch = tiny.batch(80, ((96, 96), (96, 96)))
    proof, losses = proved(model, batch, ("rpn", "roi"))
    assert [group.name for group in losses.groups] == ["rpn", "roi_stage0", "roi_stage1", "roi_stage2"]
    assert {group.terms for group in losses.groups} == {("cls", "bbox")}
    seed_everything(0)
    own = losses.framework_losses(batch)  # the second stage's are halved after the head
    for stage in range(3):
        assert sum(proof.losses[f"roi_stage{stage}"]["cls"]) == pytest.approx(
            float(own[f"s{stage}.loss_cls"])
        )


def test_of_a_semi_supervised_detector_the_student_is_balanced_in_both_its_passes() -> None:
    loaded = tiny.load_config(
        tiny.zoo() / "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py"
    )
    narrow(loaded.model)
    seed_everything(0)
    model = tiny.build_small(loaded)
    batch = tiny.batch_for(model, masks=False)
    proved(model, batch)
    plain = forward(model, batch)
    handle = balance(model, "fixed", weights=(3.0,) * 5, interval=2)
    assert any("teacher.rpn_head is frozen" in note for note in handle.notes)
    losses = forward(model, batch)
    for key in ("sup_loss_rpn_cls", "unsup_loss_rpn_cls"):
        assert [v.item() for v in losses[key]] == pytest.approx([3 * v.item() for v in plain[key]])
    (record,) = handle.drain()
    assert record.count == 2


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
    proved(make(config, NARROW), small_batch(boxes=boxes))


def test_yolov3_lists_its_levels_coarsest_first_and_we_do_not() -> None:
    model = make("yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py")
    batch = tiny.batch(80, ((96, 96), (96, 96)))
    plain = forward(model, batch)["loss_conf"]
    handle = balance(model, "fixed", weights=(2.0, 3.0, 4.0), interval=2)
    (group,) = handle.groups
    assert group.strides == (8, 16, 32)
    weighted = forward(model, batch)["loss_conf"]
    row = handle.losses["all"][group.terms.index("conf")]
    assert row.tolist() == [value.item() for value in reversed(plain)]
    expected = [factor * value.item() for factor, value in zip((4.0, 3.0, 2.0), plain, strict=True)]
    assert [value.item() for value in weighted] == pytest.approx(expected)


def test_positives_are_counted_by_level(small_batch: Callable[..., Any]) -> None:
    model = make("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", NARROW)
    losses = collected(model, small_batch(boxes=[[(0, 0, 90, 90)], []]))["all"]
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
    model = make(config)
    (group,) = find(model).groups
    (found,) = collected(model, tiny.batch(80, ((128, 128), (128, 128)))).values()
    boxes = found.values[group.terms.index("bbox")]
    assert (found.positives > 0).tolist() == (boxes > 0).tolist()
    assert 0 < (found.positives > 0).sum() < len(group.levels)


def test_yolov3_counts_its_positives_finest_level_first() -> None:
    model = make("yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py")
    (group,) = find(model).groups
    found = collected(model, tiny.batch(80, ((96, 96), (96, 96))))["all"]
    assert (found.positives > 0).tolist() == (found.values[group.terms.index("wh")] > 0).tolist()
    assert found.positives.any()


def test_ddods_counts_of_its_levels_are_part_of_the_state() -> None:
    config = "ddod/ddod_r50_fpn_1x_coco.py"
    loaded = tiny.load_config(tiny.zoo() / config)
    narrow(loaded.model)
    first, second = tiny.build_small(loaded), tiny.build_small(loaded)
    batch = tiny.batch_for(first, False)
    handles = [balance(model, "equal", interval=2) for model in (first, second)]
    forward(first, batch)
    seen = first.bbox_head.cls_num_pos_samples_per_level
    assert sum(seen) > 0
    handles[1].load_state_dict(handles[0].state_dict())
    assert second.bbox_head.cls_num_pos_samples_per_level == seen
