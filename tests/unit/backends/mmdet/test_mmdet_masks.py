"""Configs that train on masks."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from PIL import Image
from tiny_mmdet import NARROW
from zoo import small_mmdet as tiny

from msbal.data import DetectionData, read_coco
from msbal.errors import DataError, SpecError
from msbal.spec import RunSpec, parse_spec
from msbal_mmdet.backend import MMDetBackend
from msbal_mmdet.config import datasets, masks, reading
from msbal_mmdet.detector import MMDetDetector

MASK_RCNN = "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
SIDE = 64
SQUARE = [[8, 8, 24, 8, 24, 24, 8, 24]]
OPTIONS: dict[str, Any] = {
    **{key: value for key, value in NARROW.items() if "bbox_head" not in key},
    "model.rpn_head.in_channels": 32,
    "model.rpn_head.feat_channels": 32,
    "model.roi_head.bbox_roi_extractor.out_channels": 32,
    "model.roi_head.mask_roi_extractor.out_channels": 32,
    "model.roi_head.bbox_head.in_channels": 32,
    "model.roi_head.bbox_head.fc_out_channels": 32,
    "model.roi_head.mask_head.in_channels": 32,
    "model.roi_head.mask_head.conv_out_channels": 16,
    "val_dataloader.dataset.pipeline.1.scale": [SIDE, SIDE],
}


def write(folder: Path, *objects: dict[str, Any]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    document = {
        "images": [{"id": 7, "file_name": "a.png", "width": SIDE, "height": SIDE}],
        "categories": [{"id": 3, "name": "thing"}],
        "annotations": [
            {"id": i + 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "area": 1.0, **entry}
            for i, entry in enumerate(objects)
        ],
    }
    (folder / "train.json").write_text(json.dumps(document))


def spec(folder: Path, config: str = MASK_RCNN, options: dict[str, Any] | None = None) -> RunSpec:
    raw = {
        "backend": "mmdet",
        "model": {"config": config, "pretrained": False, "cfg_options": OPTIONS if options is None else options},
        "data": {
            "format": "coco", "root": str(folder), "train": {"annotations": "train.json", "images": "."}
        },
        "device": "cpu",
        "output": "unused",
    }  # fmt: skip
    return parse_spec(raw)


def data(folder: Path) -> DetectionData:
    return read_coco(folder / "train.json", folder)


@pytest.fixture
def detector(tmp_path: Path) -> MMDetDetector:
    write(
        tmp_path,
        {"bbox": [8, 8, 16, 16], "segmentation": SQUARE},
        {"bbox": [30, 30, 20, 20], "iscrowd": 1, "segmentation": {"size": [64, 64], "counts": [0, 4096]}},
    )
    return MMDetBackend().build(spec(tmp_path), ["thing"])


def test_masks_reach_the_model_as_they_were_drawn(detector: MMDetDetector, tmp_path: Path) -> None:
    batch = detector.batch(data(tmp_path), [0])
    (sample,) = batch["data_samples"]
    expected = np.zeros((1, SIDE, SIDE), np.uint8)
    expected[0, 8:24, 8:24] = 1
    assert np.array_equal(sample.gt_instances.masks.masks, expected)
    # Crowds are not learned, but mmdet wants a mask of each.
    assert sample.ignored_instances.masks.masks[0, 30:50, 30:50].all()


def test_the_mask_loss_stays_as_it_is(detector: MMDetDetector, tmp_path: Path) -> None:
    batch = detector.batch(data(tmp_path), [0])
    torch.manual_seed(0)
    own = detector.framework_losses(batch)
    torch.manual_seed(0)
    split = detector.split_losses(batch)
    assert {"loss_mask", "loss_cls", "loss_bbox"} == set(split.rest)
    torch.testing.assert_close(split.rest["loss_mask"], own["loss_mask"])


def test_mmdets_own_data_set_reads_them_from_the_runs_file(detector: MMDetDetector, tmp_path: Path) -> None:
    from mmdet.registry import DATASETS

    run, config, train = spec(tmp_path), copy.deepcopy(detector.config), data(tmp_path)
    outlines = masks.read_outlines(detector.config, run, train.category_ids)
    datasets.apply_data(config, run, train, train, tmp_path / "data", write=True, outlines=outlines)
    loader = config.train_dataloader.dataset
    built = DATASETS.build({**loader, "pipeline": loader.pipeline[:2]})
    loaded = built[0]
    assert loaded["gt_masks"].masks[0].sum() == 16 * 16 and len(loaded["gt_masks"]) == 2
    assert list(loaded["gt_ignore_flags"]) == [False, True]
    # Boxes are evaluated: what the evaluation's file does not have is not asked for.
    assert "with_mask" not in str(config.val_dataloader)


def test_what_has_no_mask_is_refused_before_training(tmp_path: Path) -> None:
    write(tmp_path, {"bbox": [8, 8, 16, 16], "segmentation": SQUARE}, {"bbox": [30, 30, 20, 20]})
    detector = MMDetBackend().build(spec(tmp_path), ["thing"])
    with pytest.raises(DataError, match=r"\[30.0, 30.0, 50.0, 50.0\] in a.png has no `segmentation`"):
        detector.check_data(data(tmp_path))


def test_a_config_of_boxes_asks_for_none(tmp_path: Path) -> None:
    run = spec(tmp_path, "retinanet/retinanet_r50_fpn_1x_coco.py", {})
    config = reading.read_config(run.model)  # type: ignore[arg-type]
    assert not tiny.loads_masks(config)
    assert masks.read_outlines(config, run, (3,)) is None


@pytest.mark.parametrize(
    ("config", "sections", "found"),
    [
        (MASK_RCNN, {"data": {"format": "generated"}}, "trains on masks, and data of the format `generated` has none"),
        ("htc/htc_r50_fpn_1x_coco.py", {}, "trains on semantic maps"),
        ("panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py", {}, "trains on semantic maps"),
    ],
)  # fmt: skip
def test_what_the_data_has_not_is_named(
    config: str, sections: dict[str, Any], found: str, tmp_path: Path
) -> None:
    raw = spec(tmp_path, config, {}).model_dump(mode="json")
    with pytest.raises(SpecError, match=found):
        MMDetBackend().build(parse_spec({**raw, **sections}), ["thing"])


def test_a_model_of_masks_alone_is_judged_by_the_boxes_around_them(
    detector: MMDetDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"bbox": [8, 8, 16, 16], "segmentation": SQUARE})
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[0, 8:24, 8:24] = True
    found = InstanceData(
        bboxes=torch.zeros(1, 4), masks=mask, labels=torch.tensor([0]), scores=torch.tensor([0.5])
    )
    monkeypatch.setattr(detector.model, "test_step", lambda batch: [DetDataSample(pred_instances=found)])
    (result,) = detector.predict(data(tmp_path))
    assert result["bbox"] == [8, 8, 16, 16] and result["category_id"] == 3


def test_the_starter_spec_is_complete(tmp_path: Path) -> None:
    import yaml

    write(tmp_path, {"bbox": [8, 8, 16, 16]})
    sections = yaml.safe_load(MMDetBackend().starter(data(tmp_path)))
    run = parse_spec(
        {**spec(tmp_path).model_dump(mode="json"), **sections, "balance": {"interval": 10}}, base=tmp_path
    )
    config = reading.read_config(run.model)  # type: ignore[arg-type]
    # Its overrides name places in mmdet's own config.
    assert config.model.backbone.norm_eval is False and config.model.backbone.norm_cfg.requires_grad
    resize = [
        step for loader in (config.train_dataloader, config.val_dataloader) for step in loader.dataset.pipeline
        if step["type"] == "Resize"
    ]  # fmt: skip
    assert [step["scale"] for step in resize] == [(213, 128)] * 2
    assert MMDetBackend().build(run, ["thing"]).iterations(data(tmp_path)) == 1500
