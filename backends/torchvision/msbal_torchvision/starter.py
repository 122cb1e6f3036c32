"""Writes the starter spec that `msbal init` proposes for a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msbal.data import size_up

if TYPE_CHECKING:
    from msbal.data import DetectionData

_GPU = """\
model:
  name: retinanet          # or fcos, fasterrcnn, ssd
  backbone: resnet50
  # pretrained: true       # start from ImageNet weights: far better on small data; downloads them once
  min_size: {side}
schedule:
  epochs: {epochs}
  batch_size: {batch}
  optimizer: {{name: sgd, lr: {sgd_lr}}}
  warmup: {warmup}
  clip_norm: 10.0
"""

_CPU = """\
model:
  name: retinanet          # or fcos, fasterrcnn, ssd
  backbone: resnet18       # small, as there is no GPU here; resnet50 is the usual choice
  # pretrained: true       # start from ImageNet weights: far better on small data; downloads them once
  min_size: {side}
  max_size: {longest}
  fpn_channels: 64
schedule:
  epochs: {epochs}
  batch_size: {batch}
  optimizer: {{name: adamw, lr: 0.0005, weight_decay: 0.01}}
  scheduler: cosine
  warmup: {warmup}
  clip_norm: 5.0
"""


def starter(data: DetectionData) -> str:
    """Return commented ``model:`` and ``schedule:`` sections, sized for the data and for whether there is a GPU.

    It asks for about 400 iterations or more: in fewer, neither a model from scratch nor a strategy gets anywhere.
    """
    import torch

    gpu = torch.cuda.is_available()
    sides, batch = ((320, 800), 8) if gpu else ((128, 320), 4)
    size = size_up(data, sides=sides, batch=batch, iterations=400)
    # Goyal et al.'s linear scaling from the usual 0.01 for 16 images.
    return (_GPU if gpu else _CPU).format(**size._asdict(), sgd_lr=f"{0.01 * size.batch / 16:.3g}")
