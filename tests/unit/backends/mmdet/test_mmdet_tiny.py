"""Small builds of zoo configs: what is left out, and what is said where a package is missing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")

import torch
from zoo import language_mmdet as language
from zoo import small_mmdet as tiny
from zoo.workers import zoo_of


def shrunk(name: str) -> Any:
    return tiny.shrink(tiny.load_config(tiny.zoo() / name).model)


def test_nothing_is_left_that_downloads_or_wants_a_process_group() -> None:
    for name in (
        "pvt/retinanet_pvt-t_fpn_1x_coco.py",
        "strong_baselines/mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-100e_coco.py",
        "mm_grounding_dino/coco/grounding_dino_swin-t_finetune_16xb4_1x_coco.py",
    ):
        text = str(shrunk(name))
        for word in ("http", "SyncBN", "bert-base-uncased"):
            assert word not in text, (name, word)


def test_trackers_and_memory_savers_are_left_out() -> None:
    model = shrunk("bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval.py")
    assert "tracker" not in model
    kept = [part for part in tiny.walk(shrunk("dino/dino-4scale_r50_8xb2-12e_coco.py")) if "with_cp" in part]
    assert not any(part["with_cp"] for part in kept)


def test_what_mmcv_has_for_cuda_alone_is_stood_in_for_and_all_else_stays() -> None:
    """These operators come before the losses; a proof on a CPU would end in them."""
    for name in (
        "carafe/mask-rcnn_r50_fpn-carafe_1x_coco.py",
        "dcn/faster-rcnn_r50_fpn_dpool_1x_coco.py",
        "dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco.py",
    ):
        model = shrunk(name)
        text = str(model)
        assert "carafe" not in text and "DeformRoIPool" not in text, name
        assert model.roi_head.bbox_roi_extractor.roi_layer.output_size == 7
    plain = tiny.load_config(tiny.zoo() / "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py").model
    assert shrunk("dcn/faster-rcnn_r50_fpn_dpool_1x_coco.py").rpn_head == plain.rpn_head


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            'Please run "pip install openmim" and run "mim install nowhere_to_be" to install it first.'
        ),
        RuntimeError("nowhere_to_be is not installed, please install it by: pip install nowhere_to_be."),
        ModuleNotFoundError("No module named 'nowhere_to_be.models'"),
        NotImplementedError("please install it by: pip install -U nowhere_to_be"),
    ],
    ids=["mim", "is not installed", "no module", "pip"],
)
def test_a_missing_package_is_named_and_nothing_else_is_said(error: Exception) -> None:
    with pytest.raises(tiny.NeedsPackage) as found, tiny.naming_packages():
        raise error
    assert str(found.value) == "needs the package nowhere_to_be, which is not installed"


def test_also_where_mmengine_hides_it_behind_its_search_path() -> None:
    with pytest.raises(tiny.NeedsPackage, match="nowhere_to_be"), tiny.naming_packages():
        try:
            raise ImportError("Failed to import nowhere_to_be.models")
        except ImportError as cause:
            raise ImportError("Failed to import custom modules from {...}") from cause


def test_an_error_about_an_installed_package_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="torch is not installed"), tiny.naming_packages():
        raise RuntimeError("torch is not installed")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "sort/faster-rcnn_r50_fpn_8xb2-8e_mot20train_test-mot20train.py",
            "faster-rcnn_r50_fpn_8xb2-4e_mot17half",
        ),
        (
            "bytetrack/bytetrack_yolox_x_8xb4-amp-80e_crowdhuman-mot17halftrain_test-mot17test.py",
            "bytetrack_yolox_x_8xb4-amp-80e_crowdhuman-mot17half",
        ),
    ],
)
def test_a_config_whose_base_is_missing_says_which(name: str, reason: str) -> None:
    outcome = zoo_of("mmdet").check(name)
    assert outcome.status == "unusable"
    assert outcome.reason.startswith(f"its _base_ names a file that is not there: {reason}")


def test_glips_zero_shot_configs_are_told_from_those_that_train() -> None:
    """They leave out loss_bbox, which the head cannot do without; the five to fine-tune with set it."""
    from zoo.of_mmdet import _never_trained

    names = sorted(str(p.relative_to(tiny.zoo())) for p in (tiny.zoo() / "glip").rglob("glip_*.py"))
    reasons = {name: _never_trained(tiny.load_config(tiny.zoo() / name)) for name in names}
    assert [name for name, reason in reasons.items() if reason is None] == [
        n for n in names if "funtune" in n
    ]


def test_fast_rcnn_gets_proposals_and_video_detectors_pairs_of_frames() -> None:
    made = tiny.batch(3, ((64, 96),))
    proposals = made["data_samples"][0].proposals.bboxes
    assert (proposals[:, 2:] > proposals[:, :2]).all()
    assert (proposals.amax(dim=0) <= torch.tensor([96, 64, 96, 64])).all()

    class MaskTrackRCNN(torch.nn.Module):
        num_classes = 3

    pairs = tiny.batch_for(MaskTrackRCNN())
    assert pairs["inputs"][0].shape == (2, 3, tiny.SIDE, tiny.SIDE)
    assert pairs["data_samples"][0].get_ref_frames()[0].gt_instances.instances_ids.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers, which few configs need, is not installed"
)
def test_each_class_is_one_token_of_the_small_bert() -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(language.folder()))
    tokens = tokenizer.tokenize(". ".join(language.words(80)))
    assert tokens[:4] == ["c0", ".", "c1", "."] and len(tokens) == 159
