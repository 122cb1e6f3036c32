"""Which level is responsible for a ground-truth box, by detectron2's anchors; see `msbal.backend.kit.assignment`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.structures import Boxes
from numpy.typing import NDArray
from torch import Tensor

from msbal.backend import LevelGroup
from msbal.backend.kit.assignment import Cell, anchor_levels, reach_levels
from msbal.data import DetectionData
from msbal_detectron2.splitters.roi import roi_levels


def box_levels(
    model: Any, groups: Sequence[LevelGroup], data: DetectionData, augmentations: Sequence[Any]
) -> dict[str, NDArray[np.int64]]:
    """Return the level of each box in each group, ``[N]``, without crowds.

    An image's own size decides its grids; padding to the batch's largest image is ignored.

    Args:
        augmentations: detectron2's, which bring an image to the model's size; none of them random.
    """
    boxes, images = _resized(data, augmentations, model.backbone.size_divisibility)
    found = {}
    for group in groups:
        if group.name.startswith("roi"):
            levels = roi_levels(model.roi_heads.box_pooler, [Boxes(boxes)])
        elif isinstance(model, FCOS):
            # As ``FCOS.label_anchors``: the finest level takes up to 8 strides, each next one twice as far.
            levels = reach_levels(boxes, [8.0 * stride for stride in group.strides[:-1]])
        else:
            generator = (model if group.name == "all" else model.proposal_generator).anchor_generator
            cells = [
                partial(_cell, generator, anchors, stride)
                for anchors, stride in zip(generator.cell_anchors, generator.strides, strict=True)
            ]
            levels = anchor_levels(boxes, images, cells)
        found[group.name] = levels.numpy()
    return found


def _cell(generator: Any, anchors: Tensor, stride: int, images: Tensor) -> Cell:
    points = torch.ceil(images / stride)
    return Cell(anchors.detach().cpu(), torch.full((2,), float(stride)), points, float(generator.offset))


def _resized(data: DetectionData, augmentations: Sequence[Any], divisible: int) -> tuple[Tensor, Tensor]:
    """Return boxes ``[N, 4]`` as the model sees them, and ``[N, 2]`` width and height of their padded images."""
    boxes: list[NDArray[np.float32]] = [np.zeros((0, 4), np.float32)]
    sizes: list[NDArray[np.float32]] = [np.zeros((0, 2), np.float32)]
    pixel = np.zeros((1, 1, 3), np.uint8)
    for record in data.images:
        kept = record.boxes[~record.crowd].astype(np.float32)
        width, height = record.width, record.height
        for augmentation in augmentations:
            # An image of this size that takes no memory: only its shape is looked at.
            transform = augmentation.get_transform(np.broadcast_to(pixel, (height, width, 3)))
            kept = np.asarray(transform.apply_box(kept), np.float32).reshape(-1, 4)
            width = getattr(transform, "new_w", width)
            height = getattr(transform, "new_h", height)
        step = max(divisible, 1)
        padded = [-(-side // step) * step for side in (width, height)]
        boxes.append(kept)
        sizes.append(np.tile(np.array(padded, np.float32), (len(kept), 1)))
    return torch.from_numpy(np.concatenate(boxes)), torch.from_numpy(np.concatenate(sizes))
