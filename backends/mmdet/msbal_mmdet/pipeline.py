"""Images and boxes through mmdet's own transforms, without a data set class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config
from numpy.typing import NDArray
from torch import Tensor

from msbal.backend.kit import data_set as kit
from msbal.data import DetectionData, ImageRecord
from msbal.errors import SpecError
from msbal_mmdet.masks import Outlines
from msbal_mmdet.names import kind
from msbal_mmdet.nodes import walk

_STEADY = ("LoadImageFromFile", "LoadAnnotations", "Resize", "FixScaleResize", "Pad")
_META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")


def test_transforms(config: Config) -> list[dict[str, Any]]:
    """The config's own transforms for evaluation; of one that only trains, what is not random in its training.

    Raises:
        SpecError: where there is nothing that loads and resizes an image.
    """
    for key in ("val_dataloader", "test_dataloader"):
        for part in walk(config.get(key) or {}):
            if part.get("pipeline"):
                return [dict(step) for step in part["pipeline"]]
    for key in ("test_pipeline", "val_pipeline"):
        if config.get(key):
            return [dict(step) for step in config[key]]
    for part in walk(config.train_dataloader):
        steps = [dict(step) for step in part.get("pipeline") or () if kind(step) in _STEADY]
        if len(steps) > 1:
            return [*steps, {"type": "PackDetInputs"}]
    raise SpecError(
        "model.config",
        "it has no transforms for evaluation",
        "a val_dataloader, test_dataloader or test_pipeline",
    )


def _without(steps: Sequence[dict[str, Any]], kinds: Sequence[str]) -> list[dict[str, Any]]:
    return [step for step in steps if not any(name in kind(step) for name in kinds)]


def predicting(config: Config) -> Compose:
    """Image to input, as in evaluation."""
    steps = _without(test_transforms(config), ("LoadAnnotations", "Pack"))
    return Compose([*steps, {"type": "PackDetInputs", "meta_keys": _META}])


def measuring(config: Config, masks: bool = False) -> Compose:
    """Image, boxes and masks to a training sample, as in evaluation: nothing random."""
    steps = _without(test_transforms(config), ("LoadAnnotations", "Pack"))
    # Before everything else: mmdet's evaluation loads boxes after resizing, as its metrics want the originals.
    load = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": masks}
    return Compose([steps[0], load, *steps[1:], {"type": "PackDetInputs", "meta_keys": _META}])


def read_images(config: Config, record: ImageRecord) -> list[NDArray[np.uint8]]:
    """``[H, W, 3]`` RGB as the config's steps for training and for evaluation load it, where these are colours."""
    loading = [
        part["pipeline"][0] for part in walk(config.get("train_dataloader") or {}) if part.get("pipeline")
    ][:1]
    loading += [step for step in test_transforms(config)[:1] if step not in loading]
    found = []
    for step in loading:
        if kind(step) != "LoadImageFromFile":
            continue
        pixels = Compose([step])(info(record))["img"]
        if pixels.ndim == 3 and pixels.shape[2] == 3:
            found.append(pixels[:, :, ::-1].astype(np.uint8))
    return found


def info(record: ImageRecord, outlines: Outlines | None = None) -> dict[str, Any]:
    """An image as mmdet's data sets describe it."""
    masks = [{}] * len(record.boxes) if outlines is None else [{"mask": mask} for mask in outlines.of(record)]
    return {
        "img_id": record.id,
        "img_path": str(record.path),
        "height": record.height,
        "width": record.width,
        "instances": [
            {"bbox": box, "bbox_label": label, "ignore_flag": int(ignored), **mask}
            for box, label, ignored, mask in zip(
                record.boxes.tolist(),
                record.labels.tolist(),
                (record.crowd | record.difficult).tolist(),
                masks,
                strict=True,
            )
        ],
    }


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """As mmengine's ``pseudo_collate``: lists, not yet stacked."""
    return {
        "inputs": [sample["inputs"] for sample in samples],
        "data_samples": [sample["data_samples"] for sample in samples],
    }


def coco_results(data: DetectionData, samples: Sequence[Any]) -> list[dict[str, Any]]:
    """Predictions of `samples` in COCO results format, the best first in each image."""
    results: list[dict[str, Any]] = []
    for sample in samples:
        found = sample.pred_instances
        results += kit.coco_results(
            int(sample.img_id), _boxes(found), found.labels, found.scores, data.category_ids
        )
    return results


def _boxes(found: Any) -> Tensor:
    """``[N, 4]``; those around the masks for a model that predicts masks alone (SOLO), whose boxes are zeros."""
    boxes: Tensor = found.bboxes
    if "masks" in found and len(boxes) and not boxes.any():
        from mmdet.structures.mask import mask2bbox

        boxes = mask2bbox(found.masks)
    return boxes
