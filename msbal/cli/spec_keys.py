"""The keys of a run spec and their possible values, for completion and hints that cannot wait for torch.

A test compares them with the models of the spec.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msbal.errors import nearest

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = {
    "train": CHECKOUT / "examples" / "quickstart.yaml",
    "inspect": CHECKOUT / "examples" / "quickstart.yaml",
    "diagnose": CHECKOUT / "examples" / "quickstart.yaml",
    "ablate": CHECKOUT / "examples" / "ablation.yaml",
}
"""A spec to try for each command that takes one, where msbal runs from its sources."""

_SECTIONS = """\
: backend=detectron2|mmdet|torchvision|ultralytics balance data deterministic=false|true device evaluate log model
  output schedule seed
balance: actions alpha amplification beta cap decay epsilon floor initial interval lookback
  loss_weighted=false|true measure mu normalized=false|true on_nonfinite=stop|skip options p_max p_min
  per_term=false|true preference q reference rescale=false|true reward=fall|trend scope seed share smoothing step
  strategy=autobalance|avw|cov|dwa|equal|fixed|floor|gls|grad_norm|gramian|max_loss|min_loss|positives|relobralo|rlo|rlw|slaw|softadapt|stch|stride|uw|uw_so
  strides temperature top_k
  weighting=aligned_mtl|cagrad|dualproj|fairgrad|gradvac|imtl_g|mgda|nash_mtl|pcd|pcgrad|upgrad weights
data: classes format=coco|voc|yolo|generated holdout names root seed size train train_images val val_images
data.train: annotations images sets
data.val: annotations images sets
evaluate: enabled=false|true every
log: per_iteration=false|true tensorboard=false|true trackers
model: anchor_ratios anchor_sizes
  backbone=resnet18|resnet34|resnet50|resnet101|mobilenet_v3_large|efficientnet_lite0|vgg16 cfg_options config
  detections_per_image fpn_channels fpn_norm=gn|none head_convs max_size min_size
  name=retinanet|fcos|fasterrcnn|ssd nms_threshold norm=bn|gn|frozen_bn overrides pretrained=false|true
  score_threshold trainable_layers weights
schedule: accumulate amp=none|fp16|bf16 batch_size checkpoint_every clip_norm decay ema epochs flip iterations
  optimizer scheduler=step|cosine|constant warmup workers
schedule.optimizer: lr momentum name=sgd|adam|adamw weight_decay
"""
"""Of each section its keys, and after an equals sign the values that a key chooses among."""


def _keys() -> Iterator[tuple[str, list[str]]]:
    section = ""
    for word in _SECTIONS.split():
        if word.endswith(":"):
            section = word.replace(":", ".").lstrip(".")
        else:
            key, _, values = word.partition("=")
            yield section + key, values.split("|") if values else []


KEYS = dict(sorted(_keys()))


def keys_ending_in(name: str, exactly: bool = False) -> list[str]:
    """Return the keys whose last part is `name` or, where there is none and unless `exactly`, most like it."""
    leaves: dict[str, list[str]] = {}
    for key in KEYS:
        leaves.setdefault(key.rpartition(".")[2], []).append(key)
    near = name if name in leaves or exactly else nearest(name, leaves)
    return leaves.get(near or "", [])
