"""Small detectors of mmdet."""

from __future__ import annotations

from typing import Any

from msbal_mmdet import tiny

NARROW = {
    "model.backbone.depth": 18,
    "model.neck.in_channels": [64, 128, 256, 512],
    "model.neck.out_channels": 32,
    "model.bbox_head.in_channels": 32,
    "model.bbox_head.feat_channels": 32,
    "model.bbox_head.stacked_convs": 1,
}
RETINANET = "retinanet/retinanet_r50_fpn_1x_coco.py"


def make(config: str, options: dict[str, Any] | None = None, seed: int = 0) -> Any:
    """The model of a zoo config, small."""
    from msbal_mmdet.proof import seed_all

    loaded = tiny.load_config(tiny.zoo() / config)
    loaded.merge_from_dict(dict(options or {}))
    seed_all(seed)
    return tiny.build_small(loaded)
