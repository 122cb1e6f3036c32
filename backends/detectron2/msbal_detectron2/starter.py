"""A commented starter spec for a data set, which trains as it stands."""

from __future__ import annotations

import math
import statistics

from msbal.data.model import DetectionData


def starter(data: DetectionData) -> str:
    """The ``model:`` and ``schedule:`` sections, as YAML.

    Images keep about their own size; a small data set gets more epochs.
    """
    side = statistics.median(min(image.width, image.height) for image in data.images)
    side = int(min(800, max(128, 32 * round(side / 32))))
    batch = 4
    steps = math.ceil(len(data) / batch)
    epochs = max(12, math.ceil(1500 / steps))
    return f"""model:
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
  epochs: {epochs}  # {epochs * steps} iterations
  batch_size: {batch}
  optimizer: {{name: sgd, lr: 0.005}}  # for this batch size; scale the two together
  warmup: {min(500, epochs * steps // 5)}
  clip_norm: 10.0
  workers: 2
"""
