"""Writes a commented starter spec for a data set, which trains unchanged."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from msbal.data import size_up

if TYPE_CHECKING:
    from msbal.data import DetectionData

CPU_SIDES = (128, 320)
GPU_SIDES = (320, 640)
"""The smallest and the largest side of images in pixels."""

MIN_STEPS = 1000
"""Steps below which a training does not accumulate gradients."""

_SECTIONS = """\
model:
  # A YOLO model of ultralytics with its scale (n, s, m, l, x), or the path of your own YAML.
  config: {config}
  # Trained weights are a far better start on photographs: the path of a .pt of ultralytics. None is downloaded.
  # weights: {weights}
  # Arguments of ultralytics' own `model.train(...)`.
  overrides:
    imgsz: {side:<15}# images are resized to this longer side, a multiple of 32
    close_mosaic: {closed:<8}# epochs at the end without mosaics
    nbs: {nbs:<17}# images whose gradients make a step; ultralytics' own 64 suit longer trainings
schedule:
  epochs: {epochs:<16}# {iterations} iterations
  batch_size: {batch}
  # Optimizer, learning rate, warm-up and averaging are ultralytics' own where they are not named here.
"""


def starter(data: DetectionData) -> str:
    """Return commented ``model:`` and ``schedule:`` sections, fitted to the data and to whether there is a GPU."""
    import torch

    gpu = torch.cuda.is_available()
    size = size_up(data, sides=GPU_SIDES if gpu else CPU_SIDES, batch=16 if gpu else 8)
    config = "yolo11s.yaml" if gpu else "yolov8n.yaml"
    low, high = GPU_SIDES if gpu else CPU_SIDES
    longer = statistics.median(max(image.width, image.height) for image in data.images)
    return _SECTIONS.format(
        **{**size._asdict(), "side": int(min(high, max(low, 32 * round(longer / 32))))},
        config=config,
        weights=config.replace(".yaml", ".pt"),
        closed=max(1, size.epochs // 10),
        nbs=64 if size.iterations * size.batch >= 64 * MIN_STEPS else size.batch,
    )
