"""Writes the starter spec that `msbal init` proposes for a data set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from msbal.data import Sizing, size_range, size_up
from msbal_torchvision.efficientnet_lite import INSTALL, weights_file
from msbal_torchvision.spec import LEVELS

if TYPE_CHECKING:
    from msbal.data import DetectionData

MAX_SMALL = 2000
"""Images up to which EfficientNet-Lite0 is chosen on a GPU, too."""

CPU_PIXELS = 200e6
"""Pixels that a run on the CPU sees over all its iterations: about five minutes on two cores."""

SMALL_BOX = 18
"""The side in pixels that a small box should have after resizing, on the CPU."""

MIN_SIDE = 6.0
"""The side in pixels below which boxes are lost even on the finest level, whose cells have 8."""

MIN_STEP, MAX_STEP = 1.1, 2.5
"""Factors from a level's anchors to the next one's. An anchor matches boxes of half to twice its area and has two more
on its level: at a step of 2.5 each box still has one that fits."""

_FEATURES = """\
  backbone: efficientnet_lite0
  pretrained: true         # starts from ImageNet features, in an installed package
  fpn_norm: gn
"""
_SCRATCH = """\
  backbone: {backbone}
  # ImageNet features are far better on photographs. {remedy}
"""
_SECTIONS = """\
model:
  name: retinanet          # or fasterrcnn, ssd; or fcos, then without anchor_sizes
{backbone}  fpn_channels: {channels}
  min_size: {side:<15}# images are resized to this shorter side
  max_size: {longest}
{anchors}schedule:
  {length}
  batch_size: {batch}
  optimizer: {optimizer}
  scheduler: {scheduler}
  warmup: {warmup}
  clip_norm: 5.0
"""
_ANCHORS = """\
  anchor_sizes: {sizes}  # fitted to the boxes at this min_size, finest level first
"""


def starter(data: DetectionData) -> str:
    """Return commented ``model:`` and ``schedule:`` sections, fitted to the data and to whether there is a GPU."""
    import torch

    gpu = torch.cuda.is_available()
    features = weights_file() is not None and (not gpu or len(data) <= MAX_SMALL)
    size = size_up(data, sides=(320, 800), batch=8) if gpu else _size_for_cpu(data)
    if features:
        backbone = _FEATURES
    elif gpu:
        backbone = _SCRATCH.format(backbone="resnet50", remedy="`pretrained: true` downloads them.")
    else:
        backbone = _SCRATCH.format(
            backbone="resnet18", remedy=f"This gets them, for `msbal init --force`:\n  # {INSTALL}"
        )
    boxes = size_range(data, size.side, size.longest)
    anchors = _ANCHORS.format(sizes=fit_anchors(*boxes)) if boxes else ""
    if gpu:
        length = f"epochs: {size.epochs:<17}# {size.iterations} iterations"
    else:
        seen = size.iterations * size.batch
        share = (
            f"{round(seen / len(data), 1):g} epochs"
            if seen >= len(data)
            else f"{seen:,} images of {len(data):,}"
        )
        length = f"iterations: {size.iterations:<13}# {share}; more is better, and takes longer"
    if gpu and not features:
        # Goyal et al.'s linear scaling from the usual 0.01 for 16 images.
        optimizer, scheduler = f"{{name: sgd, lr: {0.01 * size.batch / 16:.3g}}}", "step"
    else:
        lr = 0.001 if features and not gpu else 0.0005
        optimizer, scheduler = f"{{name: adamw, lr: {lr}, weight_decay: 0.01}}", "cosine"
    return _SECTIONS.format(
        **size._asdict(),
        backbone=backbone,
        channels=256 if gpu else 64,
        anchors=anchors,
        length=length,
        optimizer=optimizer,
        scheduler=scheduler,
    )


def fit_anchors(smallest: float, largest: float) -> list[float]:
    """Return the side of each level's smallest anchor, finest level first, for boxes of this range.

    A level has three anchors, a third of an octave apart. The middle one of the finest level meets the smallest boxes.
    As few levels as possible then reach the largest boxes, since finer cells find more: each one's anchors are up to
    `MAX_STEP` times those of the level before. The levels left over go on by `MIN_STEP`.
    """
    first = max(smallest, MIN_SIDE) / 2 ** (1 / 3)
    last = max(largest / 2 ** (2 / 3), MIN_STEP * first)
    count = min(LEVELS, max(2, 1 + math.ceil(math.log(last / first, MAX_STEP))))
    fitted = [float(side) for side in np.geomspace(first, last, count)]
    return [round(side, 1) for side in (*fitted, *(last * MIN_STEP**k for k in range(1, LEVELS - count + 1)))]


def _size_for_cpu(data: DetectionData) -> Sizing:
    """Return a size at which small boxes can still be found, and a length that takes some minutes."""
    size = size_up(data, sides=(128, 320))
    boxes = size_range(data, 1.0, math.inf)
    wanted = SMALL_BOX / boxes[0] if boxes else 0.0
    side = min(size.side, max(192, 32 * round(wanted / 32)))
    longest = round(side * 5 / 3)
    extents = [sorted((image.width, image.height)) for image in data.images]
    pixels = float(np.mean([side * min(longest, side * longer / shorter) for shorter, longer in extents]))
    iterations = 10 * round(min(1500, max(300, CPU_PIXELS / (pixels * size.batch))) / 10)
    return size._replace(side=side, longest=longest, iterations=iterations, warmup=iterations // 10)
