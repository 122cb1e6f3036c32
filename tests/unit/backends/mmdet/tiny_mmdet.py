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


def narrow(model: Any) -> Any:
    """Any model of the zoo a quarter as wide, with one convolution where there are several. In place.

    Heads, assigners and losses stay the zoo's; most proofs then take a fraction of a second.
    """
    for part in tiny.walk(model):
        if part.get("type") == "ResNet" and part.get("depth") in (50, 101):
            part["depth"] = 18
        if part.get("in_channels") == [256, 512, 1024, 2048]:
            part["in_channels"] = [64, 128, 256, 512]
        for key, value in part.items():
            if "channels" in key and value == 256:
                part[key] = 64  # group norm's 32 groups need two values each where a level is one cell
            elif key in ("stacked_convs", "num_convs") and isinstance(value, int):
                part[key] = min(value, 1)
            elif key == "fc_out_channels":
                part[key] = 32
    return model


def make(config: str, options: dict[str, Any] | None = None, seed: int = 0) -> Any:
    """The model of a zoo config, small."""
    from msbal_mmdet.proof import seed_all

    loaded = tiny.load_config(tiny.zoo() / config)
    loaded.merge_from_dict(dict(options or {}))
    seed_all(seed)
    return tiny.build_small(loaded)
