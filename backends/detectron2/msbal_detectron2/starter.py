"""Writes a commented starter spec for a data set, which trains unchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msbal.data import size_up

if TYPE_CHECKING:
    from msbal.data import DetectionData

_SECTIONS = """\
model:
  # A config of detectron2's model zoo, or the path of your own (YAML or LazyConfig).
  config: COCO-Detection/retinanet_R_50_FPN_1x.yaml
  # To start from ImageNet, as the config does: set this, and delete the first two overrides.
  pretrained: false
  overrides:
    - MODEL.RESNETS.NORM=BN  # from scratch, normalisation must learn
    - MODEL.BACKBONE.FREEZE_AT=0
    - INPUT.MIN_SIZE_TRAIN=({side},)  # shorter side in pixels
    - INPUT.MIN_SIZE_TEST={side}
schedule:
  epochs: {epochs}  # {iterations} iterations
  batch_size: {batch}
  optimizer: {{name: sgd, lr: {lr}}}  # for this batch size; scale the two together
  warmup: {warmup}
  clip_norm: 10.0
  workers: 2
"""


def starter(data: DetectionData) -> str:
    """Return commented ``model:`` and ``schedule:`` sections, as YAML."""
    # The config leaves images without boxes out.
    boxed = tuple(image for image in data.images if len(image.boxes))
    size = size_up(replace(data, images=boxed or data.images))
    # Goyal et al.'s linear scaling from the usual 0.01 for 16 images.
    return _SECTIONS.format(**size._asdict(), lr=f"{0.01 * size.batch / 16:.3g}")
