"""The keys of a run spec, and the values that they choose among, for completion and hints that cannot wait for torch.

A test compares them with the models of the spec.
"""

from __future__ import annotations

from pathlib import Path

from msbal.errors import nearest

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = {
    "train": CHECKOUT / "examples" / "quickstart.yaml",
    "inspect": CHECKOUT / "examples" / "quickstart.yaml",
    "ablate": CHECKOUT / "examples" / "ablation.yaml",
}
"""For commands that take a spec, one to try, where msbal runs from its sources."""

KEYS = {
    key: values.split()
    for key, _, values in (
        line.partition(" ")
        for line in """\
backend detectron2 mmdet torchvision
balance
balance.actions
balance.amplification
balance.decay
balance.epsilon
balance.floor
balance.initial
balance.interval
balance.on_nonfinite stop skip
balance.p_max
balance.p_min
balance.per_term false true
balance.reference
balance.rescale false true
balance.scope
balance.seed
balance.step
balance.strategy autobalance avw cov dwa equal fixed gls max_loss min_loss positives rlo rlw slaw uw uw_so
balance.temperature
balance.top_k
balance.weights
data
data.classes
data.format coco voc yolo generated
data.holdout
data.names
data.root
data.seed
data.size
data.train
data.train.annotations
data.train.images
data.train.sets
data.train_images
data.val
data.val.annotations
data.val.images
data.val.sets
data.val_images
deterministic false true
device
evaluate
evaluate.enabled false true
evaluate.every
log
log.per_iteration false true
log.tensorboard false true
log.trackers
model
model.anchor_ratios
model.anchor_sizes
model.backbone resnet18 resnet34 resnet50 resnet101 mobilenet_v3_large efficientnet_lite0 vgg16
model.cfg_options
model.config
model.detections_per_image
model.fpn_channels
model.fpn_norm gn none
model.head_convs
model.max_size
model.min_size
model.name retinanet fcos fasterrcnn ssd
model.nms_threshold
model.norm bn gn frozen_bn
model.overrides
model.pretrained false true
model.score_threshold
model.trainable_layers
model.weights
output
schedule
schedule.accumulate
schedule.amp none fp16 bf16
schedule.batch_size
schedule.checkpoint_every
schedule.clip_norm
schedule.decay
schedule.ema
schedule.epochs
schedule.flip
schedule.iterations
schedule.optimizer
schedule.optimizer.lr
schedule.optimizer.momentum
schedule.optimizer.name sgd adam adamw
schedule.optimizer.weight_decay
schedule.scheduler step cosine constant
schedule.warmup
schedule.workers
seed
""".splitlines()
    )
}


def keys_ending_in(name: str, exactly: bool = False) -> list[str]:
    """Return the keys whose last part is `name` or, where there is none and unless `exactly`, most like it."""
    leaves: dict[str, list[str]] = {}
    for key in KEYS:
        leaves.setdefault(key.rpartition(".")[2], []).append(key)
    near = name if name in leaves or exactly else nearest(name, leaves)
    return leaves.get(near or "", [])
