"""Small detectors of mmdet."""

from __future__ import annotations

import copy
from typing import Any

from zoo import small_mmdet as tiny

from msbal.backend.kit.seeding import seed_everything
from msbal.backend.proof import Proof, prove
from msbal_mmdet import balance
from msbal_mmdet.splitters.model_losses import ModelLosses

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
    loaded = tiny.load_config(tiny.zoo() / config)
    loaded.merge_from_dict(dict(options or {}))
    seed_everything(seed)
    return tiny.build_small(loaded)


def forward(model: Any, batch: Any, seed: int = 0) -> dict[str, Any]:
    """The loss dict of one training pass."""
    seed_everything(seed)
    model.train()
    data = model.data_preprocessor(copy.deepcopy(dict(batch)), True)
    losses: dict[str, Any] = model._run_forward(data, mode="loss")
    return losses


def proved(model: Any, batch: Any, scope: tuple[str, ...] | None = None) -> tuple[Proof, ModelLosses]:
    """The proof of one batch, which holds, bit for bit at unit weights; term by term as in a training too."""
    losses = ModelLosses(model, scope)
    proof = prove(losses, batch)
    assert proof.holds and proof.unit_gradient == 0.0, proof
    handle = balance(model, "equal", interval=2, scope=scope or ("rpn",))
    forward(model, batch)
    handle.require_calls()
    handle.remove()
    return proof, losses
