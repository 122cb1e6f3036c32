"""Small mmdet runs, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SIDE = 96  # at 64, P7 is made from a single cell, whose bf16 gradient torch leaves unwritten on the CPU
TRAIN, TEST = "train_dataloader.dataset.pipeline", "val_dataloader.dataset.pipeline"
# A ResNet-18 of an eighth of the width: checkpoints and steps of milliseconds.
SMALL: dict[str, Any] = {
    "model.backbone.depth": 18,
    "model.backbone.base_channels": 8,
    "model.backbone.stem_channels": 8,
    "model.backbone.frozen_stages": -1,
    "model.backbone.norm_eval": False,
    "model.neck.in_channels": [8, 16, 32, 64],
    "model.neck.out_channels": 16,
    "model.bbox_head.in_channels": 16,
    "model.bbox_head.feat_channels": 16,
    "model.bbox_head.stacked_convs": 1,
    f"{TRAIN}.2.scale": [SIDE, SIDE],
    f"{TEST}.1.scale": [SIDE, SIDE],
}


def write_spec(folder: Path, options: dict[str, Any] | None = None, **sections: Any) -> Path:
    """``spec.yaml`` in `folder`: RetinaNet on drawn images, which trains in a few seconds.

    Args:
        options: more ``cfg_options``.
        sections: merged into those of the same name; other values replace.
    """
    spec: dict[str, Any] = {
        "backend": "mmdet",
        "model": {
            "config": "retinanet/retinanet_r50_fpn_1x_coco.py",
            "pretrained": False,
            "cfg_options": {**SMALL, **(options or {})},
        },
        "data": {
            "format": "generated", "root": str(folder / "data"), "train_images": 6, "val_images": 2, "size": SIDE,
        },
        "evaluate": {"enabled": False},
        "schedule": {
            "iterations": 9, "batch_size": 1, "workers": 0, "checkpoint_every": 4, "warmup": 2,
            "optimizer": {"lr": 0.002},
        },
        "balance": {"strategy": "rlo", "interval": 3, "seed": 5},
        "device": "cpu",
    }  # fmt: skip
    for name, section in sections.items():
        spec[name] = {**spec[name], **section} if isinstance(section, dict) else section
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path
