"""What `msbal init` proposes for a data set: a spec that trains as it stands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msbal.data import size_up

if TYPE_CHECKING:
    from msbal.data import DetectionData

_SECTIONS = """\
model:
  # A config of MMDetection's model zoo, or the path of your own.
  config: retinanet/retinanet_r50_fpn_1x_coco.py
  pretrained: false      # true starts from ImageNet weights: far better on small data; downloads them once
  cfg_options:           # as in --cfg-options
    # From scratch, normalisation must learn; with pretrained: true delete the next three.
    model.backbone.norm_cfg.requires_grad: true
    model.backbone.norm_eval: false
    model.backbone.frozen_stages: -1
    train_dataloader.dataset.pipeline.2.scale: [{longest}, {side}]  # longer and shorter side in pixels
    val_dataloader.dataset.pipeline.1.scale: [{longest}, {side}]
{small}schedule:
  epochs: {epochs}
  batch_size: {batch}
  optimizer: {{name: sgd, lr: {lr}}}  # for this batch size; scale the two together
  warmup: {warmup}
  clip_norm: 35.0
"""
_MIN_SIZE = 32
_SMALL = f"""\
    # Most images have a side under {_MIN_SIZE} pixels, which the config would leave out.
    train_dataloader.dataset.filter_cfg.min_size: 1
"""


def starter(data: DetectionData) -> str:
    """Commented ``model:`` and ``schedule:`` sections, as YAML."""
    # The config leaves out images without boxes, and small ones.
    boxed = [image for image in data.images if len(image.boxes)]
    used = [image for image in boxed if min(image.width, image.height) >= _MIN_SIZE]
    small = len(used) < len(boxed) / 2
    images = boxed if small else used
    size = size_up(replace(data, images=tuple(images) or data.images))
    # Goyal et al.'s linear scaling from the usual 0.01 for 16 images.
    return _SECTIONS.format(
        **size._asdict(), lr=f"{0.01 * size.batch / 16:.3g}", small=_SMALL if small else ""
    )
